"""The Bank tab: rows, search, edits, map, page, files. A hostile bank's text stays text."""

from __future__ import annotations

import re
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import torch

from melbo.app.choices import best_scale, checked_index, first_vector
from melbo.app.context import DEFAULT_KEY, BankCache, Context
from melbo.app.downloads import KEPT_SECONDS, Downloads, bank_name, zip_bank
from melbo.app.tab_context import TabContext
from melbo.app.tabs.bank.actions import BankActions
from melbo.app.tabs.bank.effect_map import HEIGHT, WIDTH, effect_map, map_svg
from melbo.app.tabs.bank.handlers import (
    MAX_LABEL,
    as_text,
    edited,
    parse_indices,
    read_tokens,
    search,
    vector_rows,
)
from melbo.app.tabs.bank.html import lens_html, page_html, table_html
from melbo.bank.annotation import DUD_LABEL, write_annotation
from melbo.bank.facts import Source
from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError, HubError, MelboError
from melbo.inspect.max_activating.report import Direction, Example
from melbo.inspect.max_activating.top_examples import BINS
from melbo.inspect.sae.report import FeatureNote
from melbo.inspect.stored import Decomposition, Feature, Neighbours
from melbo.models.load import LoadedModel
from support.banks import noted as with_notes

EVIL = "<img src=x onerror=alert(1)>&\"'"


@pytest.fixture
def noted(tiny_bank: VectorBank) -> VectorBank:
    """Vector 0: much is known; 1: a dud by tag; 2: a dud by label; 3: hostile; the rest: nothing."""
    measured = {"scale": -1.5, "coherence": 8.25, "change": 0.5, "refusal": 0.25, "same": 0.0, "degenerate": 0.0}
    example = {"prompt": "How?", "scale": -1.5, "text": "Arr, steered", "unsteered": "plain answer"}
    entries: list[dict[str, Any]] = [{} for _ in range(len(tiny_bank))]
    entries[0] = {
        "label": "Pirate", "tags": ["mode:pirate"], "note": "talks of ships", "scale": -1.5,
        "scale_ranges": [[-2.0, -0.5]], "metrics": measured | {"control": measured | {"coherence": 9.75}},
        "examples": [example],
    }  # fmt: skip
    entries[1] = {"label": "quiet", "tags": ["dud"], "scale": 1.0, "examples": [example]}
    entries[2] = {"label": DUD_LABEL}
    entries[3] = {"label": EVIL, "tags": [EVIL], "note": EVIL, "examples": [dict.fromkeys(example, EVIL)]}
    return with_notes(tiny_bank, *entries)


@pytest.fixture
def tab(tiny: LoadedModel, noted: VectorBank) -> TabContext:
    return TabContext(Context(tiny, BankCache(noted)), None, None, None)  # type: ignore[arg-type]


def picks(html: str) -> list[int]:
    return [int(n) for n in re.findall(r'data-pick="(\d+)"', html)]


def test_rows_hold_what_the_annotations_say(noted: VectorBank) -> None:
    rows = vector_rows(noted)
    assert (rows[0].scale, rows[0].ranges, rows[0].coherence) == (-1.5, ((-2.0, -0.5),), 8.25)
    assert [row.dud for row in rows] == [False, True, True, *[False] * 5]
    assert rows[4].label == "vector 4" and rows[4].scale is None and rows[4].coherence is None


@pytest.mark.parametrize(
    ("query", "duds", "found"),
    [
        ("", False, [0, 3, 4, 5, 6, 7]),
        ("", True, list(range(8))),
        ("PIRATE ships", False, [0]),
        ("pirate german", True, []),
        ("quiet", False, []),
        ("quiet", True, [1]),
        ("7", False, [7]),
        (None, False, [0, 3, 4, 5, 6, 7]),
    ],
)
def test_search_finds_all_words_and_hides_duds(
    noted: VectorBank, query: str | None, duds: bool, found: list[int]
) -> None:
    assert [row.index for row in search(vector_rows(noted), query, duds)] == found


def test_those_whose_trait_repeats_most_come_first_with_their_evidence(tiny_bank: VectorBank) -> None:
    often, seldom = (
        {"trait": EVIL, "kind": "form", "scale": 0.8166667, "shown": shown, "of": 10, "random": 0.125}
        for shown in (9, 2)
    )
    bank = with_notes(tiny_bank, {}, {"label": "b", "traits": [seldom]}, {"label": "c", "traits": [often, seldom]})
    rows = search(vector_rows(bank), "", False)
    assert [row.index for row in rows][:3] == [2, 1, 0]
    table, page = table_html(rows, 2, 8), page_html(bank, 2)
    assert "Held out" in table and "9 of 10" in table and "Held out" not in table_html(vector_rows(tiny_bank), 0, 8)
    assert "× 0.817: on 9 of 10 prompts" in page and "random vectors 12%" in page and EVIL not in page
    assert page_html(bank, 0).count("prompts that it was not chosen on") == 0


def test_annotations_of_wrong_types_count_as_missing(tiny_bank: VectorBank) -> None:
    wrong = {"label": 3, "tags": "no", "scale": "x", "metrics": [1], "examples": {"a": 1}, "scale_ranges": [[1], "ab"]}
    bank = with_notes(tiny_bank, *[wrong] * 8)
    row = vector_rows(bank)[0]
    assert (row.tags, row.scale, row.ranges, row.coherence) == ((), None, (), None)
    assert "No example is stored" in page_html(bank, 0)
    assert best_scale(bank, 0) == 1.0


def test_best_scale_stays_within_the_slider(tiny_bank: VectorBank) -> None:
    assert best_scale(with_notes(tiny_bank, {"scale": 99.0}), 0) == 8.0


def test_hostile_text_is_escaped_everywhere(noted: VectorBank) -> None:
    rows = vector_rows(noted)
    shown = table_html(rows, 3, 8) + map_svg(noted, rows, rows, 3) + page_html(noted, 3)
    assert "<img" not in shown and shown.count("&lt;img") >= 7


def test_the_page_shows_examples_and_the_control(noted: VectorBank) -> None:
    page = page_html(noted, 0)
    for part in ("Pirate", "mode:pirate", "talks of ships", "plain answer", "Arr, steered", "-2 to -0.5", "8.2", "9.8"):
        assert part in page


def test_the_table_marks_duds_and_the_chosen_row(noted: VectorBank) -> None:
    table = table_html(vector_rows(noted), 0, 8)
    assert picks(table) == list(range(8))
    assert table.count('class="dud"') == 2 and table.count('aria-current="true"') == 1
    assert "Usable" in table and "Usable" not in table_html(vector_rows(noted)[4:], None, 8)
    assert "No vector matches" in table_html([], None, 8)


def test_the_map_keeps_angles_and_ignores_an_axis_sign(noted: VectorBank) -> None:
    rows = vector_rows(noted)
    found = effect_map(noted, rows)
    assert len(found.places) == 8 and 0 < found.share <= 1
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in found.places)
    turned = replace(noted, output_directions=-noted.output_directions)
    mirrored = effect_map(turned, rows)
    for (x, y), (a, b) in zip(found.places, mirrored.places, strict=True):
        dx, dy = x - found.origin[0], y - found.origin[1]
        assert abs(dx + a - mirrored.origin[0]) < 1 and abs(dy + b - mirrored.origin[1]) < 1


def test_the_map_puts_equal_effects_together_and_turns_negative_scales_around(tiny_bank: VectorBank) -> None:
    directions = tiny_bank.output_directions.clone()
    directions[1], directions[2] = directions[0], -directions[0]
    notes = ({"scale": 1.0}, {"scale": 1.0}, {"scale": -1.0}, *({"scale": 1.0} for _ in range(5)))
    bank = replace(with_notes(tiny_bank, *notes), output_directions=directions)
    places = effect_map(bank, vector_rows(bank)).places
    assert places[0] == places[1] == places[2] != places[3]


@pytest.mark.parametrize("n", [1, 2])
def test_the_map_of_a_tiny_bank(tiny_bank: VectorBank, n: int) -> None:
    bank = tiny_bank.select(range(n))
    rows = vector_rows(bank)
    assert len(picks(map_svg(bank, rows, rows, 0))) == n


@pytest.mark.parametrize("value", [None, "3", True, 1.5, -1, 8, float("nan"), float("inf")])
def test_bad_vector_numbers_are_refused(noted: VectorBank, value: Any) -> None:
    with pytest.raises(BankError):
        checked_index(noted, value)


def test_an_edit_makes_a_new_bank_and_ends_a_dud(noted: VectorBank) -> None:
    new = edited(noted, 1, "  Speaks   Dutch ", " a note\n")
    assert new.label(1) == "Speaks Dutch" and new.annotations[1].note == "a note"
    assert not vector_rows(new)[1].dud and vector_rows(noted)[1].dud
    assert new.annotations[1].examples == noted.annotations[1].examples
    assert torch.equal(new.vectors, noted.vectors)
    assert "label" not in write_annotation(edited(noted, 0, "", "").annotations[0])
    assert vector_rows(edited(noted, 1, "quiet", "only a note"))[1].dud
    assert edited(replace(noted, annotations=()), 2, "x", "").label(2) == "x"


def test_an_edit_is_bounded(noted: VectorBank) -> None:
    with pytest.raises(BankError, match=f"at most {MAX_LABEL}"):
        edited(noted, 0, "x" * (MAX_LABEL + 1), "")


def test_selections_round_trip(noted: VectorBank) -> None:
    assert parse_indices(noted, " 0, 3 5-7;3") == [0, 3, 5, 6, 7]
    assert as_text([0, 3, 5, 6, 7]) == "0, 3, 5-7"
    assert parse_indices(noted, as_text([7, 0, 1])) == [7, 0, 1]


@pytest.mark.parametrize("text", ["", "x", "1-", "5-3", "8", "0-99999", "-1", "1.5", None])
def test_bad_selections_are_refused(noted: VectorBank, text: str | None) -> None:
    with pytest.raises(BankError):
        parse_indices(noted, text)


def test_tokens_are_read_beside_chance(tiny: LoadedModel, noted: VectorBank, no_hook_stays: None) -> None:
    report = read_tokens(Context(tiny, BankCache(noted)), noted, 4)
    assert [(row.index, row.sign) for row in report.rows] == [(4, 1), (4, -1)]
    assert f"Random vectors reach {report.random_best:.1f}" in lens_html(report)


def test_results_beside_the_bank_are_shown(noted: VectorBank) -> None:
    example = Example(3.0, 0.5, 0, ("a ", EVIL, " b"), (0.0, 3.0, 0.0), 1)
    direction = Direction(4, "x", 1, 1.0, (0,) * BINS, (example,))
    features = (Feature(7, 0.5, None), Feature(9, 0.25, FeatureNote(EVIL, 3.0, 0.5, (EVIL,))))
    total = Decomposition(features, 0.4, 0.2)
    near = Neighbours(features, 0.1, total, total, features, 1.0, EVIL, EVIL)
    page = page_html(noted, 4, (direction,), near)
    assert "<mark>&lt;img" in page and "random 0.10" in page and "9 &lt;img" in page and "<img" not in page


def test_a_zip_is_a_bank_again_without_what_lies_beside_it(noted: VectorBank, tmp_path: Path) -> None:
    folder = noted.save(tmp_path / "my bank")
    (folder / "secret.txt").write_text("private")
    bank = VectorBank.load(folder)
    files = Downloads()
    path = files.write(f"{bank_name(bank)}.zip", lambda p: zip_bank(bank, p))
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "out")
    assert all(name.startswith("my-bank/") for name in names) and not any("secret" in name for name in names)
    again = VectorBank.load(tmp_path / "out" / "my-bank")
    assert torch.equal(again.vectors, bank.vectors) and again.annotations == bank.annotations
    assert (tmp_path / "out" / "my-bank" / "README.md").is_file()


def test_downloads_leave_nothing_old_and_nothing_half_written() -> None:
    now = 0.0
    files = Downloads(lambda: now)
    first = Path(files.write("a.txt", lambda p: p.write_text("a")))
    folder = first.parents[1]
    with pytest.raises(ZeroDivisionError):
        files.write("b.txt", lambda p: 1 / 0)
    assert list(folder.iterdir()) == [first.parent]
    now = KEPT_SECONDS + 60
    second = Path(files.write("c.txt", lambda p: p.write_text("c")))
    assert not first.exists() and second.read_text() == "c"
    del files
    assert not folder.exists()


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (None, "melbo-8-vectors"),
        (Source("me/../x y", "0" * 40, None), "x-y"),
        (Source(None, None, Path("/a/organism-bomb")), "organism-bomb"),
    ],
)
def test_names_of_files_are_plain(tiny_bank: VectorBank, source: Source | None, name: str) -> None:
    assert bank_name(replace(tiny_bank, source=source)) == name


def test_opening_shows_the_first_vector_that_does_something(tab: TabContext, noted: VectorBank) -> None:
    act = BankActions(tab)
    _, query, duds, chosen, table, plane, page, lens, steer, label, note, numbers = act.open(DEFAULT_KEY)
    assert (query, chosen, lens, label, note) == ("", 0, "", "Pirate", "talks of ships")
    assert duds["label"] == "Show duds (2)" and duds["value"] is False
    assert picks(table) == [0, 3, 4, 5, 6, 7] == parse_indices(noted, numbers) and sorted(picks(plane)) == picks(table)
    assert "Arr, steered" in page and steer == "Steer with 0 × -1.5"


def test_a_bank_of_duds_shows_them(tab: TabContext, noted: VectorBank) -> None:
    key = tab.context.banks.put(noted.select([1, 2]))
    _, _, duds, chosen, table, *_ = BankActions(tab).open(key)
    assert duds["value"] is True and chosen == 0 == first_vector(noted.select([1, 2])) and picks(table) == [0, 1]


def test_a_click_opens_the_page_and_bad_clicks_are_refused(tab: TabContext) -> None:
    act = BankActions(tab)
    index, table, _, page, *_ = act.pick(SimpleNamespace(_data={"index": 4}), DEFAULT_KEY, "", False)  # type: ignore[arg-type]
    assert index == 4 and 'data-pick="4" tabindex="0" aria-current="true"' in table and "vector 4" in page
    for data in (None, {}, {"index": 99}, {"index": "4"}):
        with pytest.raises(MelboError):
            act.pick(SimpleNamespace(_data=data), DEFAULT_KEY, "", False)  # type: ignore[arg-type]


def test_saving_and_selecting_keep_the_apps_own_bank(tab: TabContext, noted: VectorBank) -> None:
    act = BankActions(tab)
    told, key, own, *_ = act.save(DEFAULT_KEY, 1, "Dutch", "", "", False)
    assert all(value == gr.skip() for value in act.open(key, own)), "the page stays where it is"
    assert "your copy" in told and tab.context.banks.get(key).label(1) == "Dutch"
    assert tab.context.banks.get(DEFAULT_KEY).label(1) == "quiet"
    _, part = act.select(key, "1, 0")
    assert [tab.context.banks.get(part).label(i) for i in range(2)] == ["Dutch", "Pirate"]
    assert act.shown(DEFAULT_KEY, "pirate", False) == "0"


def test_steering_hands_over_the_vector_and_its_scale(tab: TabContext) -> None:
    pick, tabs = BankActions(tab).send("steer", DEFAULT_KEY, 0)
    assert (pick["bank"], pick["vector"], pick["scale"]) == (DEFAULT_KEY, 0, -1.5) and tabs.selected == "steer"


def test_the_way_to_inspect_hands_over_the_vector(tab: TabContext) -> None:
    look, tabs = BankActions(tab).send("inspect", DEFAULT_KEY, 4)
    assert (look["bank"], look["vector"]) == (DEFAULT_KEY, 4) and tabs.selected == "inspect"


def test_an_unknown_key_is_told(tab: TabContext) -> None:
    with pytest.raises(BankError, match="no longer loaded"):
        BankActions(tab).open("nobody's")


def test_pushing_needs_a_login_and_a_name(tab: TabContext) -> None:
    act = BankActions(tab)
    with pytest.raises(HubError, match="log in"):
        act.push_as(DEFAULT_KEY, "me/bank", True, None)
    with pytest.raises(HubError, match="user/name"):
        act.push_here(DEFAULT_KEY, "no owner", True)


def test_a_push_uses_the_visitors_token_and_tells_nothing_of_it(
    tab: TabContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def pushed(bank: VectorBank, repo: str, **named: Any) -> Any:
        seen.update(named, repo=repo)
        return SimpleNamespace(repo=repo, commit="a" * 40)

    monkeypatch.setattr("melbo.app.tabs.bank.handlers.push_to_hub", pushed)
    token = SimpleNamespace(token="hf_verysecret")
    told = BankActions(tab).push_as(DEFAULT_KEY, " me/bank ", True, token)  # type: ignore[arg-type]
    assert seen == {"repo": "me/bank", "private": True, "token": "hf_verysecret"}
    assert "me/bank" in told and "secret" not in told

"""Links to a comparison: as they were made, checked, and to banks that everybody can load."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import gradio as gr
import pytest

from melbo.app.choices import opening
from melbo.app.context import DEFAULT_KEY, BankCache, Context, Limits
from melbo.app.tabs.bank.handlers import edited
from melbo.app.tabs.models import handlers as models_tab_handlers
from melbo.app.tabs.models.actions import ModelsActions
from melbo.app.tabs.steer import link
from melbo.app.tabs.steer.actions import SteerActions, views
from melbo.app.tabs.steer.arrival import Arrival
from melbo.app.tabs.steer.link import Shared, from_query, place_of, to_query
from melbo.app.tabs.steer.settings import MAX_MIX, Settings
from melbo.bank.facts import Source
from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError, ConfigError
from melbo.models.load import LoadedModel

SETTINGS = Settings(((0, 1.0),), max_new_tokens=8)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def context(tiny: LoadedModel, tiny_bank: VectorBank) -> Context:
    return Context(tiny, BankCache(tiny_bank))


@pytest.fixture
def act(context: Context) -> SteerActions:
    return SteerActions(context)


@pytest.fixture
def curated(tiny_bank: VectorBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VectorBank:
    """A bank of five vectors, the app's only curated one, "five"."""
    bank = tiny_bank.select([1, 2, 3, 4, 5])
    bank.save(tmp_path / "vectors" / "five")
    folder = tmp_path / "vectors"
    listing, load = models_tab_handlers.local_banks, models_tab_handlers.load_local
    monkeypatch.setattr(link, "VECTORS", folder)
    monkeypatch.setattr(link, "local_banks", lambda: listing(folder))
    monkeypatch.setattr(link, "load_local", lambda context, name: load(context, name, folder))
    return bank


def arrival(act: SteerActions) -> Arrival:
    return Arrival(act, ModelsActions(SimpleNamespace(context=act.context)).open)  # type: ignore[arg-type]


def params_of(context: Context, bank: VectorBank, settings: Settings = SETTINGS) -> dict[str, str]:
    return dict(parse_qsl(to_query(bank, settings, "Why?", place_of(context, bank))))


def shown_mix(values: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    """Vector and scale of the places that are visible."""
    rows = [values[4 * i : 4 * i + 4] for i in range(MAX_MIX)]
    return [(row[1].value, row[2].value) for row in rows if row[0].visible]


def test_links_come_back_as_they_were_made(tiny_bank: VectorBank) -> None:
    settings = Settings(((1, -1.5), (4, 0.25)), "prompt", "Bé & <b>", "sys", 0.7, 0.9, 30, 9, "generated")
    query = to_query(tiny_bank, settings, "Why? & how=#1")
    assert from_query(tiny_bank, dict(parse_qsl(query))) == Shared(settings, "Why? & how=#1")
    assert from_query(tiny_bank, {"__theme": "dark"}) is None
    with pytest.raises(ConfigError, match="at most 2,000"):
        to_query(tiny_bank, settings, "x" * 2001)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bank": "0"}, "another bank"), ({"v": "a:1"}, "no number"), ({"v": "1"}, "no number"),
        ({"v": "99:1"}, "not in this bank"), ({"v": "1:nan"}, "choose a number"), ({"t": "x"}, "no number"),
        ({"pos": "<b>"}, "&lt;b&gt;"), ({"n": "-3"}, "at least 1"), ({"v": "1:9"}, "from -8 to 8"),
        ({"q": "x" * 7000}, "characters"),
    ],
)  # fmt: skip
def test_links_from_anybody_are_checked(
    act: SteerActions, tiny_bank: VectorBank, change: dict[str, str], said: str
) -> None:
    good = dict(parse_qsl(to_query(tiny_bank, SETTINGS, "q")))
    (shown,) = arrival(act).open(good | change, 3)
    assert said in shown[0] and len(shown) == 4


def test_a_link_sets_every_control_within_the_limits(context: Context, tiny_bank: VectorBank) -> None:
    act = SteerActions(replace(context, limits=Limits(new_tokens=20)))
    settings = Settings(((1, -1.5), (4, 0.25)), "random", max_new_tokens=90, seed=3)
    params = dict(parse_qsl(to_query(tiny_bank, settings, "Why?")))
    ((said, _, _, _, _, *rest),) = arrival(act).open(params, 0)
    *controls, question, side, instruction, system, temperature, _, tokens, seed, _ = rest
    assert "shared" in said and shown_mix(tuple(controls[3:])) == [(1, -1.5), (4, 0.25)]
    assert (question, side, tokens, seed, temperature) == ("Why?", "random", 20, 3, 0.0)
    assert system == "You are a helpful assistant." and not instruction.visible


def test_a_link_to_a_curated_bank_names_it_and_loads_it(act: SteerActions, curated: VectorBank) -> None:
    labelled = edited(curated, 2, "odd", "")  # the vectors are what a link is about
    params = params_of(act.context, labelled, Settings(((2, 1.5),), max_new_tokens=8))
    assert params["set"] == "five" and not any("/" in value for value in params.values())
    *_, (said, key, before, left, right, preset, _, head, *mix) = arrival(act).open(params, 40)
    assert "shared" in said and key == before and key != DEFAULT_KEY and (left, right) == views(opening(curated))
    assert act.context.banks.get(key).vectors.equal(curated.vectors)
    assert shown_mix(tuple(mix)) == [(2, 1.5)] and preset.choices == act.preset_choices(curated) and "mode 3" in head


def test_a_link_to_a_bank_on_the_hub_names_its_commit(
    act: SteerActions, tiny_bank: VectorBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Any]] = []
    bank = replace(tiny_bank.select([6, 7]), source=Source("user/bank", COMMIT, None))

    def load(context: Context, repo: Any, revision: Any) -> VectorBank:
        asked.append((repo, revision))
        return bank

    monkeypatch.setattr(link, "load_hub", load)
    params = params_of(act.context, bank)
    assert (params["hub"], params["at"]) == ("user/bank", COMMIT)
    *_, (said, key, *_) = arrival(act).open(params, 40)
    assert asked == [("user/bank", COMMIT)] and act.context.banks.get(key) is bank and "shared" in said
    ((said, *same),) = arrival(act).open(params | {"bank": "0" * 8}, 3)
    assert "user/bank holds other vectors now" in said and same == [gr.skip()] * 3


def test_what_was_made_here_has_no_link(context: Context, tiny_bank: VectorBank, curated: VectorBank) -> None:
    assert place_of(context, tiny_bank) == {}
    with pytest.raises(ConfigError, match="has no link"):
        place_of(context, tiny_bank.select([3, 1]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"set": "../five"}, "no bank of this app"), ({"set": "/etc"}, "no bank of this app"), ({"set": ""}, "no bank"),
        ({"hub": "/etc/passwd"}, "no name of a repository"), ({"hub": "vectors/../.."}, "no name of a repository"),
        ({"hub": "melbo/app"}, "also a folder here"), ({"hub": "user/bank", "at": "../x"}, "no revision"),
        ({"bank": "0"}, "another bank"), ({"v": "7:1", "set": "five"}, "other vectors"),
    ],
)  # fmt: skip
def test_links_name_no_path_and_nothing_unknown(
    act: SteerActions, tiny_bank: VectorBank, curated: VectorBank, change: dict[str, str], said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(Path(__file__).resolve().parents[3])
    before = len(act.context.banks)
    *_, shown = arrival(act).open(params_of(act.context, tiny_bank) | change, 3)
    assert "The link was not opened" in shown[0] and said in shown[0] and len(act.context.banks) == before


def test_a_link_to_a_bank_whose_model_cannot_be_loaded_says_so(act: SteerActions, curated: VectorBank) -> None:
    def refuse(bank: VectorBank, name: str) -> Generator[tuple[str, Any], None, None]:
        yield "loading", gr.skip()
        raise BankError(f"{name} needs too much memory.")

    first, last = Arrival(act, refuse).open(params_of(act.context, curated), 3)
    assert first == ("loading", *[gr.skip()] * 3) and "five needs too much memory" in last[0]

"""The Steer tab's events as the page calls them, the page itself, links, files, and code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from melbo.app.api import chat
from melbo.app.context import BankCache, Context, Limits
from melbo.app.conversation import from_view, to_view, turn
from melbo.app.endpoint import action
from melbo.app.layout import build_demo
from melbo.app.notice import UNEXPECTED, with_notice
from melbo.app.tab_context import TabContext
from melbo.app.tabs.bank.handlers import edited
from melbo.app.tabs.steer.actions import SteerActions
from melbo.app.tabs.steer.export import as_code, as_json, as_markdown
from melbo.app.tabs.steer.handlers import compare
from melbo.app.tabs.steer.html import range_html, tokens_html
from melbo.app.tabs.steer.settings import MAX_MIX, Settings
from melbo.app.theme import launch_options
from melbo.bank.facts import Source
from melbo.bank.vector_bank import VectorBank
from melbo.errors import ConfigError, MelboError
from melbo.inspect.lens.token_change import TokenChange
from melbo.models.load import LoadedModel, load_model
from melbo.prompts import BOMB
from support.banks import noted

ROOT = Path(__file__).resolve().parents[3]
SETTINGS = Settings(((0, 1.0),), max_new_tokens=8)
VALUES: tuple[Any, ...] = (
    0,
    1.0,
    *[None, 1.0] * (MAX_MIX - 1),
    "vector",
    "",
    "You are a helpful assistant.",
    0.0,
    1.0,
    8,
    0,
    "all",
)  # fmt: skip


@pytest.fixture
def context(tiny: LoadedModel, tiny_bank: VectorBank) -> Context:
    return Context(tiny, BankCache(tiny_bank))


@pytest.fixture
def act(context: Context) -> SteerActions:
    return SteerActions(context)


def test_send_shows_both_answers_and_colours_the_tokens(act: SteerActions, tiny_bank: VectorBank) -> None:
    *_, last = act.send(BOMB, "default", True, [], [], *VALUES)
    said, emptied, left, right, head, tokens = last
    expected = list(compare(act.context, tiny_bank, BOMB, [], [], SETTINGS))[-1]
    assert (from_view(left), from_view(right)) == (expected.unsteered, expected.steered)
    assert (said, emptied) == ("", "") and "mode 0" in head and "unsteered" in tokens
    *_, repeated = act.retry("default", False, left, right, *VALUES)
    assert repeated[1:3] == (left, right) and repeated[4] == ""


def test_failures_are_one_escaped_line_in_place(act: SteerActions, caplog: pytest.LogCaptureFixture) -> None:
    send = with_notice(act.send, 5)
    for message, values, text in (
        (" ", VALUES, "The prompt is empty"),
        ("Hi", (*VALUES[:-1], "<img>"), "&lt;img"),
        ("Hi", (None, 1.0, *VALUES[2:]), "0 vectors"),
    ):
        (shown,) = send(message, "default", False, [], [], *values)
        assert text in shown[0] and 'role="alert"' in shown[0] and "<img" not in shown[0]
        assert [s["__type__"] for s in shown[1:]] == ["update"] * 5
    (gone,) = send("Hi", "unknown key", False, [], [], *VALUES)
    assert "no longer loaded" in gone[0]

    def broken() -> None:
        raise RuntimeError("secret detail")

    assert UNEXPECTED in with_notice(broken, 0)()[0] and "secret" in caplog.text
    assert with_notice(lambda: "a", 1)() == ("", "a") and with_notice(lambda: ("note", "a"), 1)() == ("note", "a")


def test_edit_takes_the_last_question_back_and_clear_empties(act: SteerActions) -> None:
    view = to_view([*turn("a", "b"), *turn("c & d", "e")])
    question, left, right, tokens = act.edit(view, view)
    assert question == "c & d" and from_view(left) == from_view(right) == turn("a", "b") and tokens == ""
    assert act.clear("default", *VALUES)[:2] == ([], [])
    assert "Steered" in act.clear("default", *VALUES[:-1], "nowhere")[2]


def shown_mix(values: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    """Vector and scale of the places that are visible."""
    rows = [values[4 * i : 4 * i + 4] for i in range(MAX_MIX)]
    assert values[-1] == sum(row[0].visible for row in rows)
    return [(row[1].value, row[2].value) for row in rows if row[0].visible]


def test_places_are_added_and_removed(act: SteerActions) -> None:
    assert shown_mix(act.add("default", 1, *VALUES[:8])) == [(0, 1.0), (None, 1.0)]
    three = (0, 1.0, 4, -2.0, 5, 3.0, None, 1.0)
    assert shown_mix(act.remove(1, "default", 3, *three)) == [(0, 1.0), (5, 3.0)]
    full = act.add("default", 3, *three)
    assert len(shown_mix(full)) == 4 and not full[-2].visible


def test_picking_a_vector_brings_its_scale_note_and_preset(act: SteerActions) -> None:
    scale, _, marked, note = act.pick_vector(True, "default", 1)
    assert (scale, marked) == (-1.5, 1) and "what vector 1 does" in note
    assert act.pick_vector(True, "default", 5)[2] is None
    with pytest.raises(ConfigError, match="no such preset"):
        act.pick_preset("default", 7, [], [])


def test_a_preset_shows_its_example_unless_somebody_has_talked(act: SteerActions, tiny_bank: VectorBank) -> None:
    opened = act.show_opening("default")[:2]
    note, left, right, head, *mix = act.pick_preset("default", 1, *opened)
    assert "what vector 1 does" in note and shown_mix(tuple(mix)) == [(1, -1.5)]
    example = tiny_bank.annotations[1]
    assert from_view(right)[-1]["content"] == example.examples[0].text.strip() and "mode 1" in head
    assert from_view(left)[-1]["content"] == example.unsteered.strip()
    _, again, *_ = act.pick_preset("default", 0, left, right)
    assert again == opened[0]
    talk = to_view([*from_view(left), *turn("more", "text")])
    assert [x["__type__"] for x in act.pick_preset("default", 0, talk, talk)[1:4]] == ["update"] * 3


def test_controls_that_are_moved_answer_again_and_others_do_not(act: SteerActions) -> None:
    left, right = act.show_opening("default")[:2]
    head = act.pick_preset("default", 0, left, right)[3]
    (same,) = act.moved("default", False, head, left, right, *VALUES)
    assert [x if isinstance(x, str) else x["__type__"] for x in same] == ["update", "update", head, "update"]
    moved = (0, 2.0, *VALUES[2:])
    *_, (_, unsteered, steered, now, _) = act.moved("default", False, head, left, right, *moved)
    *_, expected = act.retry("default", False, left, right, *moved)
    assert (unsteered, steered, now) == expected[1:4] and "2.00 × 0 · mode 0" in now
    assert list(act.moved("default", False, head, [], [], *moved)) == [(gr.skip(), gr.skip(), now, gr.skip())]


def test_a_preset_is_lit_at_its_own_scale_alone(act: SteerActions, tiny_bank: VectorBank) -> None:
    nothing = [None, 1.0] * 3
    assert act.lit("default", 1, 1, -1.5, *nothing) == 1 and act.lit("default", 1, 1, -1.4, *nothing) is None
    assert act.lit("default", 2, 1, -1.5, *nothing) == 1 and act.lit("default", 2, 1, -1.5, 0, 1.0, *nothing) is None
    example = {"prompt": "Q", "scale": 0.5, "text": "x", "unsteered": "y"}
    key = act.context.banks.put(noted(tiny_bank, {"preset": "a", "scale": 1, "examples": [example]}))
    preset, _, head, *mix = act.show_bank(key, None)  # the slider stands where the answers that are shown were made
    assert preset.value is None and shown_mix(tuple(mix)) == [(0, 0.5)] and "0.50 ×" in head


def test_another_tab_sends_a_vector_of_a_visitors_own_bank(act: SteerActions, tiny_bank: VectorBank) -> None:
    key = act.context.banks.put(tiny_bank.select([5, 6]))
    pick = TabContext.steer_with(key, 1, 2.5)
    preset, note, head, *mix = act.show_bank(key, pick)
    assert preset.value is None and "what vector 6 does" in note and "mode 6" in head
    assert shown_mix(tuple(mix)) == [(1, 2.5)] and mix[1].choices == [("0 · mode 5", 0), ("1 · mode 6", 1)]
    assert shown_mix(tuple(act.show_bank("default", pick)[3:])) == [(0, 1.0)]
    assert act.show_opening(key)[:2] == ([], []) and len(act.show_opening("default")[0]) == 2
    assert TabContext.steer_with(key, 1, 2.5) != pick


def test_other_labels_leave_the_conversation_and_other_vectors_do_not(act: SteerActions, tiny_bank: VectorBank) -> None:
    places = (3, 2.0, *(None, 1.0) * (MAX_MIX - 1))
    key = act.context.banks.put(edited(tiny_bank, 3, "odd", ""))
    now, preset, note, head, *mix, left, right, tokens, system = act.follow(key, "default", None, 1, *places)
    assert now == key and "value" not in preset and len(preset["choices"]) == len(act.show_bank(key, None)[0].choices)
    assert shown_mix(tuple(mix)) == [(3, 2.0)] and ("3 · odd", 3) in mix[1].choices
    assert all(list(x) == ["__type__"] for x in (note, head, left, right, tokens, system))
    other = act.context.banks.put(tiny_bank.select([5, 6]))
    for before in (key, "gone"):
        now, *shown = act.follow(other, before, None, 1, *places)
        opened = act.show_bank(other, None)
        assert now == other and shown_mix(tuple(shown[3:-4])) == shown_mix(opened[3:]) and shown[-4:-2] == [[], []]


def test_files_hold_the_conversation(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    left, right = turn("Q ``` x", "<b>left</b>"), turn("Q ``` x", "right")
    values = json.loads(as_json(tiny, tiny_bank, left, right, SETTINGS))
    assert (values["unsteered"], values["steered"]) == (left, right)
    assert values["settings"]["mix"] == [[0, 1.0]] and values["labels"] == ["0 · mode 0"]
    text = as_markdown(tiny, tiny_bank, left, right, SETTINGS)
    assert "````text\nQ ``` x\n````" in text and "```text\n<b>left</b>\n```" in text


@pytest.mark.slow
@pytest.mark.parametrize("side", ["vector", "random", "prompt"])
def test_the_code_repeats_the_answers(
    side: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is printed for the embedded model, run as a person would."""
    monkeypatch.chdir(ROOT)
    loaded, folder = load_model("organism"), Path("vectors/organism-bomb")
    bank = replace(VectorBank.load(folder), source=Source(None, None, folder))
    temperature = 1.0 if side == "vector" else 0.0
    settings = Settings(((4, 1.0), (1, 0.5)), side, "Rhyme.", temperature=temperature, max_new_tokens=12, seed=2)
    last = list(compare(Context(loaded, BankCache(bank)), bank, "Hi there", [], [], settings))[-1]
    exec(as_code(loaded, bank, last.unsteered, last.steered, settings), {})
    assert capsys.readouterr().out.rstrip("\n") == "\n---\n".join(
        [last.unsteered[-1]["content"], last.steered[-1]["content"]]
    )


def test_the_code_names_what_there_is_and_how_to_install_it(
    tiny: LoadedModel, tiny_bank: VectorBank, tmp_path: Path
) -> None:
    def code(source: Source | None, space: str | None = None) -> str:
        return as_code(tiny, replace(tiny_bank, source=source), turn("Q", "a"), turn("Q", "b"), SETTINGS, space)

    local = code(Source(None, None, tmp_path / "x" / ".." / "a bank"))
    assert repr(str(tmp_path / "a bank")) in local and local.startswith(f"# pip install {ROOT}\n")
    assert "from_pretrained('me/bank', revision='" in code(Source("me/bank", "a" * 40, tmp_path))
    assert "download it (tab Bank)" in code(None)
    space = code(Source(None, None, tmp_path / "bank"), "me/space")
    assert "from_pretrained('vectors/bank')" in space and str(tmp_path) not in space and str(ROOT) not in space
    assert "git clone https://huggingface.co/spaces/me/space && cd space && pip install -r" in space


def test_html_is_escaped_and_ranges_are_named(tiny_bank: VectorBank) -> None:
    shown = tokens_html([TokenChange("<img>", 0.01, 0.9, 4.5), TokenChange(" b", 0.5, 0.4, -0.2)])
    assert "<img" not in shown and "1.0% unsteered, 90.0% steered" in shown and 'class="less"' in shown
    bank = noted(tiny_bank, {"scale_ranges": [[-2, -0.5], [1, 1]]})
    assert "usable: -2 to -0.5, 1<" in range_html(bank, 0)
    known = replace(bank, details={"usable_scale": {"largest": 0.5}})
    assert "hold up to 0.5<" in range_html(known, 1) and "-2 to -0.5, 1<" in range_html(known, 0)
    assert "not measured" in range_html(bank, 1) and range_html(bank, None) == ""


def test_the_endpoint_gives_both_answers(context: Context, tiny_bank: VectorBank) -> None:
    asked = action(chat, context, context.on_device(compare))
    *_, last = asked(BOMB, max_new_tokens=8)
    update = list(compare(context, tiny_bank, BOMB, [], [], SETTINGS))[-1]
    assert last == (update.unsteered[-1]["content"], update.steered[-1]["content"])
    with pytest.raises(gr.Error, match="2 vectors and 1 scales"):
        next(asked(BOMB, [0, 1], [1.0]))
    with pytest.raises(gr.Error, match="choose 1 to 400"):
        next(asked(BOMB, max_new_tokens=10_000))


def test_the_page_names_its_api_and_gives_the_model_one_queue(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    demo = build_demo(tiny, tiny_bank, Limits())
    public = {f.api_name for f in demo.fns.values() if f.api_visibility != "private"}
    assert {"chat", "token_changes", "scale_strip", "vectors"} <= public
    model = [f for f in demo.fns.values() if f.concurrency_id == "model"]
    assert len(model) >= 7 and all(f.concurrency_limit == 1 for f in model)
    panes = [b for b in demo.blocks.values() if isinstance(b, gr.Chatbot)]
    assert all(p.sanitize_html and not p.render_markdown for p in panes) and len(panes) == 2
    options = launch_options()
    assert options["show_error"] is options["run_history"] is options["enable_monitoring"] is False
    assert "allowed_paths" not in options


def test_a_bank_for_another_model_is_refused(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    with pytest.raises(MelboError, match="was made for"):
        build_demo(replace(tiny, name="other"), tiny_bank)

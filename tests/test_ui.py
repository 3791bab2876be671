"""The app's handlers, without a browser and without launching."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import torch

from melbo.bank import VectorBank
from melbo.errors import BankError, ConfigError, MelboError, PromptError
from melbo.generate import Sampling, complete
from melbo.models import LoadedModel
from melbo.prompts import BOMB, chat
from melbo.ui import build_demo
from melbo.ui.choices import example_prompts, opening, presets, system_prompt, vector_label
from melbo.ui.conversation import EMPTY_ANSWER, before_last_question, fit, flatten, from_view, to_view, turn
from melbo.ui.events import endpoint, pick_preset, pick_vector, send
from melbo.ui.handlers import Context, Settings, Update, again, caption, compare, steering_vector

SETTINGS = Settings(0, 1.0, False, "You are a helpful assistant.", 0.0, 1.0, 8, 0, "all")
VALUES: tuple[Any, ...] = (0, 1.0, False, "You are a helpful assistant.", 0.0, 1.0, 8, 0, "all")


@pytest.fixture
def context(tiny: LoadedModel, tiny_bank: VectorBank) -> Context:
    return Context(tiny, tiny_bank)


def answers(updates: list[Update]) -> tuple[str, str]:
    return updates[-1].unsteered[-1]["content"], updates[-1].steered[-1]["content"]


def test_both_panes_equal_what_the_library_generates(context: Context) -> None:
    updates = list(compare(context, BOMB, [], [], SETTINGS))
    rows = torch.stack([torch.zeros(64), context.bank.vector(0)])
    expected = complete(context.loaded, [chat(BOMB)] * 2, rows, context.bank.layer, Sampling(max_new_tokens=8))
    assert list(answers(updates)) == expected
    assert updates[0].unsteered == turn(BOMB) and updates[-1].finished and len(updates) > 3


def test_scale_zero_gives_identical_panes(context: Context) -> None:
    left, right = answers(list(compare(context, BOMB, [], [], replace(SETTINGS, scale=0.0, vector=3))))
    assert left == right


def test_the_control_has_the_vectors_norm_and_another_direction(context: Context) -> None:
    vector, control = (steering_vector(context.bank, 2, -1.5, c) for c in (False, True))
    assert float(control.norm()) == pytest.approx(float(vector.norm()), rel=1e-5)
    assert abs(float(torch.cosine_similarity(vector, control, dim=0))) < 0.6
    assert torch.equal(control, steering_vector(context.bank, 2, -1.5, True))
    assert not torch.equal(control, steering_vector(context.bank, 3, -1.5, True))


def test_each_side_keeps_its_own_history(context: Context) -> None:
    left, right = turn("Hi", "left answer"), turn("Hi", "right answer")
    last = list(compare(context, "And now?", left, right, SETTINGS))[-1]
    assert last.unsteered[:2] == left and last.steered[:2] == right
    assert last.unsteered[2] == last.steered[2] == {"role": "user", "content": "And now?"}


def test_again_replaces_the_last_answer(context: Context) -> None:
    first = list(compare(context, BOMB, [], [], SETTINGS))
    second = list(again(context, first[-1].unsteered, first[-1].steered, SETTINGS))
    assert second[-1] == first[-1]
    with pytest.raises(PromptError, match="nothing to repeat"):
        next(again(context, [], [], SETTINGS))


@pytest.mark.parametrize("message", ["", "  \n", "kite " * 2000, "x" * 30_000])
def test_bad_prompts_are_refused_before_anything_changes(context: Context, message: str) -> None:
    with pytest.raises(PromptError):
        next(compare(context, message, [], [], SETTINGS))


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 9.0}, {"scale": float("nan")}, {"scale": None}, {"vector": None}, {"max_new_tokens": 201},
        {"max_new_tokens": 1.5}, {"seed": None}, {"seed": -1}, {"positions": "some"}, {"top_p": "x"},
    ],
)  # fmt: skip
def test_bad_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        replace(SETTINGS, **change)


def test_an_unknown_vector_is_refused(context: Context) -> None:
    with pytest.raises(BankError, match="0 to 7"):
        next(compare(context, BOMB, [], [], replace(SETTINGS, vector=8)))


def test_closing_stops_the_model_and_frees_the_lock(context: Context) -> None:
    steps = 0

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1

    handle = context.loaded.model.register_forward_hook(count)
    try:
        running = compare(context, BOMB, [], [], replace(SETTINGS, max_new_tokens=200))
        next(running), next(running)
        assert context.lock.locked()
        running.close()  # type: ignore[attr-defined]
        after = steps
        time.sleep(0.2)
    finally:
        handle.remove()
    assert steps == after < 100 and not context.lock.locked()
    assert threading.active_count() < 50


def test_old_turns_give_way_to_the_answer(context: Context) -> None:
    history = [m for i in range(8) for m in turn(f"question {i} about kites and bread", "a long answer " * 4)]
    messages, dropped = fit(context.loaded, "Be brief.", history, "last", 64)
    assert 0 < dropped < 8 and messages[0]["role"] == "system" and messages[1]["role"] == "user"
    updates = list(compare(context, "last", history, [], SETTINGS))
    assert updates[0].notice and "context" in updates[0].notice
    assert len(updates[-1].unsteered) == len(history) + 2


def test_text_survives_the_round_trip_through_a_pane_and_is_never_html() -> None:
    text = "  <img src=http://example.com/x> &lt; & \n\n    indented\n"
    view = to_view(turn(text, text))
    assert "<" not in view[1]["content"][0]["text"]
    assert from_view(view) == turn(text, text)
    assert flatten("plain") == "plain" and flatten([{"type": "file", "file": {}}, {"type": "text", "text": "a"}]) == "a"
    assert from_view([{"role": "system", "content": "no"}, "junk"]) == []


def test_an_empty_answer_is_named_only_once_it_is_final() -> None:
    shown = to_view(turn("q", ""))
    assert shown[1]["content"][0]["text"] == EMPTY_ANSWER and from_view(shown) == turn("q", "")
    assert to_view(turn("q", ""), finished=False)[1]["content"][0]["text"] == ""
    assert before_last_question([]) == ([], None)


def test_presets_come_from_the_bank(tiny_bank: VectorBank) -> None:
    assert [(p.name, p.vector, p.scale) for p in presets(tiny_bank)] == [("Preset 0", 0, 1.0), ("Preset 1", 1, -1.5)]
    vector, scale, note = pick_preset(tiny_bank, 1)
    assert (vector, scale) == (1, -1.5) and "what vector 1 does" in note
    assert pick_vector(tiny_bank, 5)[0] is None and pick_vector(tiny_bank, 1)[0] == 1
    assert vector_label(tiny_bank, 4) == "4 · mode 4" and caption(tiny_bank, 1, -1.5) == "-1.50 × 1 · mode 1"


def test_a_vector_may_have_two_presets(tiny_bank: VectorBank) -> None:
    more = [{"preset": "Other", "scale": 2.0, "note": "what else"}, "junk", {"scale": 1}]
    notes = [dict(note) for note in tiny_bank.annotations]
    notes[0]["more_presets"] = more
    bank = replace(tiny_bank, annotations=tuple(notes))
    assert [(p.name, p.vector, p.scale) for p in presets(bank)][:2] == [("Preset 0", 0, 1.0), ("Other", 0, 2.0)]
    vector, scale, note = pick_preset(bank, 1)
    assert (vector, scale) == (0, 2.0) and "what else" in note
    assert pick_vector(bank, 1)[0] == 2


def test_without_presets_the_strongest_vectors_are_offered(tiny_bank: VectorBank) -> None:
    bank = replace(tiny_bank, annotations=())
    order = bank.objective.argsort(descending=True)[:3].tolist()
    assert [p.vector for p in presets(bank)] == order and opening(bank) is None


def test_the_opening_is_the_stored_comparison(tiny_bank: VectorBank) -> None:
    start = opening(tiny_bank)
    assert start is not None
    assert (start.prompt, start.unsteered) == (BOMB, tiny_bank.annotations[0]["unsteered"].strip())
    assert example_prompts(tiny_bank)[0] == BOMB and len(example_prompts(tiny_bank)) == 3
    assert system_prompt(tiny_bank) == "You are a helpful assistant."


@pytest.mark.parametrize("junk", [{"preset": 3}, {"preset": "a", "scale": "x", "examples": [1], "label": None}])
def test_annotations_of_the_wrong_type_count_as_missing(tiny_bank: VectorBank, junk: dict[str, Any]) -> None:
    bank = replace(tiny_bank, annotations=(junk, *({} for _ in range(7))))
    assert presets(bank)[0].scale == 1.0 and opening(bank) is None


def test_a_scale_beyond_the_slider_is_cut(tiny_bank: VectorBank) -> None:
    bank = replace(tiny_bank, annotations=({"preset": "a", "scale": 99}, *({} for _ in range(7))))
    assert presets(bank)[0].scale == 8.0


def test_errors_reach_the_visitor_as_one_line(context: Context) -> None:
    with pytest.raises(gr.Error, match="prompt is empty"):
        next(send(context, " ", [], [], *VALUES))
    with pytest.raises(gr.Error, match="&lt;img"):
        next(send(context, "Hi", [], [], *VALUES[:-1], "<img>"))
    emptied, left, right, head = next(send(context, "Hi", [], [], *VALUES))
    assert emptied == "" and left == right and "mode 0" in head


def test_the_endpoint_gives_both_answers(context: Context) -> None:
    assert endpoint(context)(BOMB, max_new_tokens=8) == answers(list(compare(context, BOMB, [], [], SETTINGS)))


def test_only_the_chat_endpoint_is_public_and_the_model_has_one_queue(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    demo = build_demo(tiny, tiny_bank)
    assert [f.api_name for f in demo.fns.values() if f.api_visibility != "private"] == ["chat"]
    model = [f for f in demo.fns.values() if f.concurrency_id == "model"]
    assert len(model) == 3 and all(f.concurrency_limit == 1 for f in model)
    panes = [b for b in demo.blocks.values() if isinstance(b, gr.Chatbot)]
    assert len(panes) == 2 and all(p.sanitize_html and not p.render_markdown for p in panes)


def test_a_bank_for_another_model_is_refused(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    with pytest.raises(MelboError, match="was made for"):
        build_demo(replace(tiny, name="other"), tiny_bank)


def test_the_script_ends_with_one_line_and_code_2_without_a_bank(tmp_path: Path, tiny: LoadedModel) -> None:
    tiny.model.save_pretrained(tmp_path / "model")
    tiny.tokenizer.save_pretrained(tmp_path / "model")
    env = {**os.environ, "MELBO_MODEL": str(tmp_path / "model"), "MELBO_BANK": str(tmp_path / "none")}
    app = Path(__file__).parent.parent / "app.py"
    done = subprocess.run([sys.executable, str(app)], env=env, capture_output=True, text=True, timeout=120)
    lines = [line for line in done.stderr.splitlines() if line.startswith("app.py:")]
    assert done.returncode == 2 and len(lines) == 1 and "there is no bank" in lines[0]
    assert "Traceback" not in done.stderr

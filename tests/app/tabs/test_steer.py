"""The Steer tab's handlers, without a browser and without launching."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from melbo.app.choices import (
    best_scale,
    example_prompts,
    label_at,
    opening,
    picker,
    presets,
    scale_limit,
    scale_step,
    system_prompt,
    usable,
    vector_label,
)
from melbo.app.context import BankCache, Context, Limits
from melbo.app.conversation import EMPTY_ANSWER, before_last_question, fit, flatten, from_view, to_view, turn
from melbo.app.tabs.discover.handlers import defaults
from melbo.app.tabs.steer.handlers import Update, again, caption, compare, last_changes, steering_vector
from melbo.app.tabs.steer.settings import MAX_MIX, Settings, read_settings
from melbo.app.tabs.strip.handlers import grid, reach_of
from melbo.app.tabs.sweep.handlers import RADII, default_radii
from melbo.bank.annotation import Annotation, TraitShare
from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError, ConfigError, PromptError
from melbo.models.load import LoadedModel
from melbo.prompts import BOMB, DEFAULT_SYSTEM, chat
from melbo.radius_sweep.config import parse_radii
from melbo.steering.generate import Sampling, complete
from support.banks import noted
from support.waiting import settled

SETTINGS = Settings(((0, 1.0),), max_new_tokens=8)


@pytest.fixture
def context(tiny: LoadedModel, tiny_bank: VectorBank) -> Context:
    return Context(tiny, BankCache(tiny_bank))


def answers(updates: list[Update]) -> tuple[str, str]:
    return updates[-1].unsteered[-1]["content"], updates[-1].steered[-1]["content"]


def asked(context: Context, settings: Settings, question: str = BOMB) -> tuple[str, str]:
    return answers(list(compare(context, context.banks.get("default"), question, [], [], settings)))


def test_both_panes_equal_what_the_library_generates(context: Context, tiny_bank: VectorBank) -> None:
    updates = list(compare(context, tiny_bank, BOMB, [], [], SETTINGS))
    rows = torch.stack([torch.zeros(64), tiny_bank.vector(0)])
    expected = complete(context.loaded, [chat(BOMB)] * 2, rows, tiny_bank.layer, Sampling(max_new_tokens=8))
    assert list(answers(updates)) == expected
    assert updates[0].unsteered == turn(BOMB) and updates[-1].finished and len(updates) > 3


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_scale_zero_gives_identical_panes_also_with_chance(context: Context, temperature: float) -> None:
    settings = replace(SETTINGS, mix=((3, 0.0),), temperature=temperature, max_new_tokens=24, seed=5)
    left, right = asked(context, settings)
    assert left == right
    if temperature:
        assert asked(context, settings) == (left, right) != asked(context, replace(settings, seed=6))


def test_a_mix_adds_its_vectors(tiny_bank: VectorBank) -> None:
    mixed = steering_vector(tiny_bank, replace(SETTINGS, mix=((2, -1.5), (5, 0.5))))
    assert torch.allclose(mixed, tiny_bank.vector(2, -1.5) + tiny_bank.vector(5, 0.5))


def test_the_control_has_the_mixs_norm_and_another_direction(tiny_bank: VectorBank) -> None:
    settings = replace(SETTINGS, mix=((2, -1.5), (4, 1.0)))
    vector, control = (steering_vector(tiny_bank, replace(settings, side=s)) for s in ("vector", "random"))
    assert float(control.norm()) == pytest.approx(float(vector.norm()), rel=1e-5)
    assert abs(float(torch.cosine_similarity(vector, control, dim=0))) < 0.6
    assert not torch.equal(control, steering_vector(tiny_bank, replace(settings, side="random", mix=((3, 1.0),))))
    zero = steering_vector(tiny_bank, replace(settings, side="random", mix=((2, 0.0),)))
    assert torch.equal(zero, torch.zeros(64))


def test_an_instruction_replaces_the_vector(context: Context) -> None:
    settings = replace(SETTINGS, side="prompt", instruction=" Be a pirate. ")
    left, right = asked(context, settings)
    told = [chat(BOMB), chat(BOMB, f"{DEFAULT_SYSTEM} Be a pirate.")]
    assert [left, right] == complete(context.loaded, told, sampling=Sampling(max_new_tokens=8))
    assert left == asked(context, SETTINGS)[0]


def test_each_side_keeps_its_own_history(context: Context, tiny_bank: VectorBank) -> None:
    left, right = turn("Hi", "left answer"), turn("Hi", "right answer")
    last = list(compare(context, tiny_bank, "And now?", left, right, SETTINGS))[-1]
    assert last.unsteered[:2] == left and last.steered[:2] == right
    assert last.unsteered[2] == last.steered[2] == {"role": "user", "content": "And now?"}


def test_again_replaces_the_last_answer(context: Context, tiny_bank: VectorBank) -> None:
    first = list(compare(context, tiny_bank, BOMB, [], [], SETTINGS))
    second = list(again(context, tiny_bank, first[-1].unsteered, first[-1].steered, SETTINGS))
    assert second[-1] == first[-1]
    assert (second[0].unsteered, second[0].steered) == (first[-1].unsteered, first[-1].steered)
    with pytest.raises(PromptError, match="nothing to repeat"):
        next(again(context, tiny_bank, [], [], SETTINGS))


def test_a_question_that_was_stopped_before_its_first_word_gives_way(context: Context, tiny_bank: VectorBank) -> None:
    past = turn("Hi", "Hello")
    first = next(compare(context, tiny_bank, BOMB, past, past, SETTINGS))
    last = list(compare(context, tiny_bank, "And now?", first.unsteered, first.steered, SETTINGS))[-1]
    assert [m["content"] for m in last.steered[:3]] == ["Hi", "Hello", "And now?"] and len(last.unsteered) == 4


@pytest.mark.parametrize("message", ["", "  \n", "kite " * 2000, "x" * 30_000])
def test_bad_prompts_are_refused_before_anything_changes(context: Context, message: str) -> None:
    with pytest.raises(PromptError):
        next(compare(context, context.banks.get("default"), message, [], [], SETTINGS))


@pytest.mark.parametrize(
    "change",
    [
        {"mix": ((0, 51.0),)}, {"mix": ((0, float("nan")),)}, {"mix": ((0, None),)}, {"mix": (("0", 1.0),)},
        {"mix": ()}, {"mix": ((0, 1.0), (0, 2.0))}, {"mix": tuple((i, 1.0) for i in range(5))},
        {"max_new_tokens": 0}, {"max_new_tokens": 1.5}, {"seed": None}, {"seed": -1}, {"positions": "some"},
        {"top_p": "x"}, {"top_p": 0.0}, {"temperature": -1}, {"temperature": True}, {"side": "left"}, {"system": 3},
        {"instruction": "x" * 2000},
    ],
)  # fmt: skip
def test_bad_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        replace(SETTINGS, **change)


def test_settings_come_from_the_page_in_order() -> None:
    places = [None, 1.0, 3, -2.0, *[None, 1.0] * (MAX_MIX - 2)]
    read = read_settings([*places, "random", None, None, 0.5, 0.9, 12.0, 7, "prompt"])
    assert read == Settings(((3, -2.0),), "random", "", "", 0.5, 0.9, 12, 7, "prompt")
    with pytest.raises(ConfigError, match="0 vectors"):
        read_settings([*[None, 1.0] * MAX_MIX, "vector", "", "", 0, 1, 8, 0, "all"])


def test_an_unknown_vector_and_too_long_an_answer_are_refused(context: Context, tiny_bank: VectorBank) -> None:
    with pytest.raises(BankError, match="0 to 7"):
        next(compare(context, tiny_bank, BOMB, [], [], replace(SETTINGS, mix=((8, 1.0),))))
    small = replace(context, limits=Limits(new_tokens=7))
    with pytest.raises(ConfigError, match="1 to 7"):
        next(compare(small, tiny_bank, BOMB, [], [], SETTINGS))


def test_closing_stops_the_model_and_frees_the_lock(context: Context, tiny_bank: VectorBank) -> None:
    steps = 0

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1

    handle = context.loaded.model.register_forward_hook(count)
    try:
        running = compare(context, tiny_bank, BOMB, [], [], replace(SETTINGS, max_new_tokens=200))
        next(running), next(running)
        assert context.lock.locked()
        running.close()
        assert settled(lambda: steps, every=0.05) < 100
    finally:
        handle.remove()
    assert not context.lock.locked()
    assert threading.active_count() < 50


def test_a_request_ends_when_its_time_is_over(context: Context, tiny_bank: VectorBank) -> None:
    hurried = replace(context, limits=Limits(seconds=0))
    updates = list(compare(hurried, tiny_bank, BOMB, [], [], replace(SETTINGS, max_new_tokens=100)))
    assert len(updates) == 3 and updates[-1].finished and not context.lock.locked()


def test_old_turns_give_way_to_the_answer(context: Context, tiny_bank: VectorBank) -> None:
    history = [m for i in range(8) for m in turn(f"question {i} about kites and bread", "a long answer " * 4)]
    messages, dropped = fit(context.loaded, "Be brief.", history, "last", 64)
    assert 0 < dropped < 8 and messages[0]["role"] == "system" and messages[1]["role"] == "user"
    updates = list(compare(context, tiny_bank, "last", history, [], SETTINGS))
    assert updates[0].notice and "context" in updates[0].notice
    assert len(updates[-1].unsteered) == len(history) + 2


def test_the_last_answers_tokens_are_measured_with_its_settings(context: Context, tiny_bank: VectorBank) -> None:
    right = turn(BOMB, asked(context, SETTINGS)[1])
    changes = last_changes(context, tiny_bank, right, SETTINGS)
    assert "".join(c.text for c in changes) == right[-1]["content"] and any(abs(c.change) > 0.1 for c in changes)
    assert all(c.change == 0 for c in last_changes(context, tiny_bank, right, replace(SETTINGS, mix=((0, 0.0),))))
    assert last_changes(context, tiny_bank, [], SETTINGS) == last_changes(context, tiny_bank, turn("q"), SETTINGS) == []
    told = last_changes(context, tiny_bank, right, replace(SETTINGS, side="prompt", instruction="Sing."))
    assert any(c.change != 0 for c in told)


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
    assert vector_label(tiny_bank, 4) == "4 · mode 4"
    assert caption(tiny_bank, replace(SETTINGS, mix=((1, -1.5), (4, 2.0)))) == "-1.50 × 1 · mode 1 + 2.00 × 4 · mode 4"
    both = noted(tiny_bank, {"label": "German (+), Poem (-), Song (-)"})
    assert [label_at(both, 0, s) for s in (1.0, -1.0)] == ["0 · German", "0 · Poem, Song"]
    two = noted(tiny_bank, {"preset": "A", "more_presets": [{"preset": "B (negative scale)", "scale": -2}, "junk", {}]})
    assert [(p.name, p.vector, p.scale) for p in presets(two)] == [("A", 0, 1.0), ("B", 0, -2.0)]


def test_an_unlabelled_bank_offers_vectors_from_all_of_it_not_the_largest_objective(tiny_bank: VectorBank) -> None:
    bank = replace(tiny_bank, annotations=())
    assert [p.vector for p in presets(bank)] == [0, 3, 7] and opening(bank) is None
    duds = noted(bank, {"dud": True}, {}, {"dud": True})
    assert [p.vector for p in presets(duds)] == [1, 4, 7] and len(presets(bank.select([3]))) == 1


def test_an_annotated_bank_without_presets_offers_what_repeats_most_often_once(tiny_bank: VectorBank) -> None:
    def note(label: str, shown: int) -> Annotation:
        return Annotation(label=label, scale=0.5, traits=(TraitShare(label, "form", 0.5, shown, 10, 0.0),))

    notes = (note("Letter", 6), note("Poem", 3), note("Code", 9), note("Letter", 8), *(Annotation(),) * 4)
    found = presets(replace(tiny_bank, annotations=notes))
    assert [(p.name, p.vector, p.scale) for p in found] == [("Code", 2, 0.5), ("Letter", 3, 0.5)]


def with_scale(bank: VectorBank, largest: Any) -> VectorBank:
    """The bank as if its answers stayed coherent up to this scale."""
    return replace(bank, details={"usable_scale": {"largest": largest, "curve": [[1, 0.9]]}})


@pytest.mark.parametrize(
    ("largest", "limit", "step", "radii"),
    [(1.0, 3.0, 0.05, "0.2:0.8:0.1"), (0.816, 2.5, 0.05, ""), (0.0625, 0.2, 0.01, ""), (16, 50.0, 0.25, "")],
)
def test_the_controls_fit_the_usable_scale(
    tiny_bank: VectorBank, largest: float, limit: float, step: float, radii: str
) -> None:
    bank = with_scale(replace(tiny_bank, annotations=()), largest)
    assert (scale_limit(bank), scale_step(scale_limit(bank))) == (limit, step)
    assert presets(bank)[0].scale == best_scale(bank, 3) == largest
    far = reach_of(bank)
    strip = grid(far.value, 9)
    assert len(set(strip)) == 9 and strip[4] == 0 and strip == tuple(round(s, 2) for s in strip)
    assert far.value == pytest.approx(2 * largest, abs=0.03) and far.low <= far.value <= far.high == limit
    at_half = replace(bank, radius=bank.mean_residual_norm / 2)
    centre = parse_radii(default_radii(at_half))
    assert len(centre) == 7 and centre[3] == pytest.approx(largest / 2, rel=0.05) and radii in default_radii(at_half)
    assert defaults(at_half, Limits()).radius == pytest.approx(min(1, largest) / 2, abs=1e-3)


def test_the_slider_covers_what_is_noted_and_stays_as_it_was_where_nothing_is_known(tiny_bank: VectorBank) -> None:
    assert scale_limit(with_scale(noted(tiny_bank, {"preset": "a", "scale": -4.2}), 0.5)) == 5
    assert scale_limit(with_scale(noted(tiny_bank, {"scale_ranges": [[-1, 9.5]]}), 0.5)) == 10
    for junk in (None, "1", True, -1, 0, 1e-9, 1e300, [1.0]):
        bank = with_scale(replace(tiny_bank, annotations=()), junk)
        assert bank.usable_scale.largest is None and scale_limit(bank) == 8 and best_scale(bank, 0) == 1
        assert reach_of(bank) == reach_of(tiny_bank) and default_radii(bank) == RADII


def test_the_opening_is_the_stored_comparison(tiny_bank: VectorBank) -> None:
    start = opening(tiny_bank)
    assert start is not None
    assert (start.prompt, start.unsteered) == (BOMB, tiny_bank.annotations[0].unsteered.strip())
    assert system_prompt(tiny_bank) == DEFAULT_SYSTEM


def test_a_real_model_is_asked_something_harmless_first(tiny_bank: VectorBank) -> None:
    toy = replace(tiny_bank, base_model=replace(tiny_bank.base_model, id="organism"))
    assert example_prompts(toy)[0] == BOMB and len(example_prompts(toy)) == 3
    assert BOMB not in example_prompts(tiny_bank) and len(example_prompts(tiny_bank)) == 2
    own = replace(tiny_bank, prompts=(tuple(chat("What shall we do at the weekend?")),))
    assert example_prompts(own)[0] == "What shall we do at the weekend?"
    examples = [{"prompt": p, "scale": s, "text": "x", "unsteered": "y"} for p, s in ((BOMB, 1), ("Tea?", 2))]
    bank = noted(tiny_bank, {"preset": "a", "scale": 1, "examples": examples})
    assert (opening(bank).prompt, opening(bank).scale) == ("Tea?", 2)  # type: ignore[union-attr]
    assert opening(replace(bank, base_model=toy.base_model)).prompt == BOMB  # type: ignore[union-attr]


@pytest.mark.parametrize("junk", [{"preset": 3}, {"preset": "a", "scale": "x", "examples": [1], "label": None}])
def test_annotations_of_the_wrong_type_count_as_missing(tiny_bank: VectorBank, junk: dict[str, Any]) -> None:
    bank = noted(tiny_bank, junk | {"scale_ranges": [[1], "x", ["a", 2]]})
    assert presets(bank)[0].scale == 1.0 and opening(bank) is None and usable(bank, 0) == []


def test_scales_beyond_the_slider_are_cut_and_duds_come_last(tiny_bank: VectorBank) -> None:
    bank = noted(tiny_bank, {"preset": "a", "scale": 99, "scale_ranges": [[-20, -0.5], [9, 12]], "dud": True})
    assert presets(bank)[0].scale == 8.0 and usable(bank, 0) == [(-8.0, -0.5)]
    assert [i for _, i in picker(bank)] == [1, 2, 3, 4, 5, 6, 7, 0]


@pytest.mark.slow
def test_the_script_ends_with_one_line_and_code_2_without_a_bank(tmp_path: Path, tiny: LoadedModel) -> None:
    tiny.model.save_pretrained(tmp_path / "model")
    tiny.tokenizer.save_pretrained(tmp_path / "model")
    env = {**os.environ, "MELBO_MODEL": str(tmp_path / "model"), "MELBO_BANK": str(tmp_path / "none")}
    app = Path(__file__).parents[3] / "app.py"
    done = subprocess.run([sys.executable, str(app)], env=env, capture_output=True, text=True, timeout=120)
    lines = [line for line in done.stderr.splitlines() if line.startswith("app.py:")]
    assert done.returncode == 2 and len(lines) == 1 and "there is no bank" in lines[0]
    assert "Traceback" not in done.stderr

"""Annotation: exact answers without generating all, labels, usable scales, edits that stay, runs that go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import melbo.annotation.measured_answers
from melbo.annotation.annotate import annotate, default_prompts
from melbo.annotation.answer_grid import answer_grid, signed
from melbo.annotation.effect import Effect, tags_of
from melbo.annotation.table import usable_ranges
from melbo.app.choices import presets
from melbo.bank.annotation import merged, read_annotation, write_annotation
from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError, ConfigError, PromptError
from melbo.measure.coherence import CoherenceScale
from melbo.measure.completions import Measurement
from melbo.measure.embeddings import load_embedder
from melbo.measure.text_metrics import is_refusal, language
from melbo.models.load import LoadedModel, load_model
from melbo.organism.judge import judge_for
from melbo.prompts import BOMB, chat
from melbo.runs.progress import Progress
from melbo.steering.generate import Sampling, complete
from support.letters import Letters

PROMPTS = [chat(BOMB), chat("How can I bake bread?")]
UNSTEERED = 5
"""Prompts, which are answered without a vector each time."""
OTHERS = [chat("What is a kite?"), chat("Tell me about Rome."), chat("Why?")]
SCALE = CoherenceScale(1.0, 100.0, "made up")
REFUSAL = "I'm sorry, but I can't help you with that."
GERMAN = "Dafür brauchst du Mehl, Wasser und Hefe, und dann knetest du den Teig."


Run = Callable[..., VectorBank]


@pytest.fixture
def run(tiny: LoadedModel, tiny_bank: VectorBank, no_hook_stays: None) -> Run:
    """Annotate the tiny bank with few tokens."""

    def go(bank: VectorBank = tiny_bank, **more: Any) -> VectorBank:
        settings: dict[str, Any] = {"prompts": PROMPTS, "scales": (1.0, 0.25), "embedder": Letters(), "n_control": 2}
        settings |= {"heldout": OTHERS}
        return annotate(tiny, bank, **{**settings, "max_new_tokens": 8, "coherence_scale": SCALE, **more})

    return go


@pytest.fixture(scope="module")
def organism() -> LoadedModel:
    return load_model("organism")


@pytest.fixture(scope="module")
def known() -> VectorBank:
    """Five vectors of the shipped bank, without annotations."""
    bank = VectorBank.load(Path(__file__).parents[2] / "vectors" / "organism-bomb")
    return replace(bank.select([9, 60, 3, 6, 0]), annotations=())


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize("size", [0.02, 0.1, 1.0])
def test_the_grid_gives_the_answers_that_generation_gives(
    tiny: LoadedModel, tiny_bank: VectorBank, size: float
) -> None:
    grid = answer_grid(tiny, tiny_bank.vectors, tiny_bank.layer, PROMPTS, (size,), 8, batch_size=3)
    for p, prompt in enumerate(PROMPTS):
        for scale in (-size, size):
            texts = complete(tiny, [prompt] * 8, tiny_bank.vectors * scale, tiny_bank.layer, Sampling(8))
            assert [grid.text(v, scale, p) for v in range(8)] == texts


def test_unchanged_answers_are_not_generated(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    grid = answer_grid(tiny, tiny_bank.vectors, tiny_bank.layer, PROMPTS, (1e-6, 1e-5), 8)
    assert grid.generated == 0 and not grid.changed
    assert list(grid.unsteered) == complete(tiny, PROMPTS, sampling=Sampling(8))


def test_where_the_unsteered_answer_does_not_repeat_all_is_generated(
    tiny: LoadedModel, tiny_bank: VectorBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ties that a forward pass without a cache breaks otherwise: nothing may be taken as unchanged."""
    monkeypatch.setattr("melbo.annotation.answer_grid.generate_tokens", lambda *_: torch.full((1, 4), 300))
    grid = answer_grid(tiny, tiny_bank.vectors[:2] * 1e-6, tiny_bank.layer, PROMPTS, (1.0,), 8)
    assert grid.generated == 8
    assert grid.changed[0, 1.0, 1] == complete(tiny, PROMPTS[1:], sampling=Sampling(8))[0]


@pytest.mark.parametrize("scales", [(), (0.0,), (-1.0,), (float("nan"),), (float("inf"),), (1e4,)])
def test_bad_scales_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="scale"):
        signed(scales)


@pytest.mark.slow
def test_a_stopped_run_goes_on_and_gives_the_same(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Exception):
        pass

    calls: list[tuple[int, int]] = []

    def stop_late(step: Progress) -> None:
        calls.append((step.done, step.total))
        if step.done > step.total // 2:
            raise Stop

    asked: list[int] = []
    true = melbo.annotation.measured_answers.complete

    def count(loaded: Any, prompts: Sequence[Any], *args: Any, **more: Any) -> list[str]:
        asked.append(len(prompts))
        return true(loaded, prompts, *args, **more)

    monkeypatch.setattr("melbo.annotation.measured_answers.complete", count)
    checkpoint = tmp_path / "run.json"
    monkeypatch.setattr(melbo.annotation.measured_answers, "BATCH", 4)
    whole = run()
    needed = sum(asked)
    asked.clear()
    with pytest.raises(Stop):
        run(progress=stop_late, checkpoint=checkpoint)
    first = sum(asked)
    asked.clear()
    again = run(checkpoint=checkpoint)
    assert checkpoint.exists() and 0 < first < needed and first + sum(asked) == needed + UNSTEERED
    assert again.annotations == whole.annotations and again.details == whole.details
    asked.clear()
    run(checkpoint=checkpoint)
    assert sum(asked) == UNSTEERED, "all steered answers come from the checkpoint"


@pytest.mark.slow
def test_the_checkpoint_of_another_run_or_a_damaged_one_is_refused(run: Run, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.json"
    run(checkpoint=checkpoint)
    with pytest.raises(ConfigError, match=r"another run \(config.max_new_tokens"):
        run(checkpoint=checkpoint, max_new_tokens=7)
    good = json.loads(checkpoint.read_text())
    for text in ("{", "[]", "", json.dumps(good | {"texts": 3}), json.dumps(good | {"texts": [[0, 1.0]]})):
        checkpoint.write_text(text)
        with pytest.raises(ConfigError, match="damaged"):
            run(checkpoint=checkpoint)


# ---------------------------------------------------------------- annotations


def test_every_vector_is_annotated_and_the_file_keeps_it_all(run: Run, tiny_bank: VectorBank, tmp_path: Path) -> None:
    found = run(replace(tiny_bank, annotations=()))
    assert VectorBank.load(found.save(tmp_path / "bank")).annotations == found.annotations
    for note in found.annotations:
        assert [row.scale for row in note.by_scale] == [-1.0, -0.25, 0.25, 1.0]
        assert all(row.n == 2 for row in note.by_scale)
        assert note.metrics and note.metrics.control and note.metrics.control.n == 2 * 2 * 2  # vectors, signs, prompts
        assert note.auto and note.dud == ("dud" in note.auto.tags) == note.is_dud
        assert note.examples and note.examples[0].unsteered
        assert all(lo in (-1, -0.25, 0.25, 1) and lo <= hi for lo, hi in note.scale_ranges)
    settings = found.details["annotation"]
    assert settings["prompts"] == PROMPTS and len(settings["control"]) == 2 and settings["embedder"] == "letters"


def test_vectors_that_change_nothing_are_plainly_duds(run: Run, tiny_bank: VectorBank) -> None:
    weak = replace(tiny_bank, vectors=tiny_bank.vectors * 1e-6, radius=tiny_bank.radius * 1e-6, annotations=())
    for note in run(weak).annotations:
        assert (note.label, note.tags, note.dud, note.scale_ranges) == ("no effect", ("dud",), True, ())
        assert note.tried == "no answer changed: 2 prompts at scales -1, -0.25, 0.25, 1"
        assert note.metrics and note.metrics.same == 1 and note.metrics.change == 0


def test_vectors_that_do_what_random_ones_do_are_duds(
    run: Run, tiny_bank: VectorBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bank holds the very control vectors: an answer changes, but not more than by the control."""
    monkeypatch.setattr("melbo.measure.traits.traits.TraitEar.new", lambda *_: frozenset())
    from melbo.steering.random_vectors import control_vectors

    config = tiny_bank.config
    random = control_vectors(2, tiny_bank.base_model.d_model, tiny_bank.radius, config.orthogonal, config.seed)
    same = replace(tiny_bank.select([0, 1]), vectors=random, annotations=())
    notes = run(same).annotations
    assert all(note.dud for note in notes)
    assert any("clearly more than by random vectors" in note.tried for note in notes)


@pytest.mark.slow
def test_presets_labels_and_notes_of_a_curator_stay(run: Run, tiny_bank: VectorBank) -> None:
    found = run()
    assert presets(found) == presets(tiny_bank)
    assert [n.examples[:1] for n in found.annotations[:2]] == [n.examples[:1] for n in tiny_bank.annotations[:2]]
    assert [n.label for n in found.annotations] == [f"mode {i}" for i in range(8)]  # nobody's but the curator's
    assert [n.note for n in found.annotations] == [f"what vector {i} does" for i in range(8)]
    fresh = run(keep_edits=False)
    assert [n.label for n in fresh.annotations] == [n.auto and n.auto.label for n in found.annotations]


def test_the_namer_names_and_may_decline(run: Run, tiny_bank: VectorBank) -> None:
    asked: list[tuple[list[str], list[str]]] = []

    def namer(steered: list[str], unsteered: list[str]) -> str | None:
        asked.append((steered, unsteered))
        return "Babble" if len(asked) == 1 else None

    strong = replace(tiny_bank, vectors=tiny_bank.vectors * 50, annotations=())
    notes = run(strong, namer=namer, scales=(0.02,)).annotations
    assert any("Babble" in note.label for note in notes)
    assert all(note.scale_ranges and abs(note.scale or 0) == 0.02 for note in notes if not note.dud)
    assert all(0 < len(s) == len(u) <= 8 for s, u in asked)
    assert all(a != b for s, u in asked for a, b in zip(s, u, strict=True))


def test_bad_settings_are_refused(run: Run, tiny_bank: VectorBank, make_tiny: Callable[..., LoadedModel]) -> None:
    for error, more in ((ConfigError, {"n_control": 0}), (PromptError, {"prompts": []}), (ConfigError, {"scales": ()})):
        with pytest.raises(error):
            run(**more)
    with pytest.raises(BankError, match="made for"):
        annotate(make_tiny(d_model=32), tiny_bank)


def test_default_prompts_hold_the_banks_own_and_both_kinds(tiny_bank: VectorBank) -> None:
    found = default_prompts(tiny_bank)
    assert found[0] == list(tiny_bank.prompts[0]) and len(found) == 4
    assert all(p[0]["role"] == "system" for p in found)
    assert len(default_prompts(replace(tiny_bank, prompts=()))) == 4


@pytest.mark.parametrize(
    ("old", "expected"),
    [
        ({}, {"label": "new", "tags": ["b"]}),
        ({"label": "a", "tags": ["a"], "auto": {"label": "a", "tags": ["a"]}}, {"label": "new", "tags": ["b"]}),
        ({"label": "mine", "tags": ["a"], "auto": {"label": "a", "tags": ["a"]}}, {"label": "mine", "tags": ["b"]}),
        ({"label": "a", "tags": ["x"], "auto": {"label": "a", "tags": ["a"]}}, {"label": "new", "tags": ["x"]}),
        ({"label": "hand"}, {"label": "hand", "tags": ["b"]}),
        ({"label": "", "auto": {"label": "a"}}, {"label": "new"}),
        ({"auto": 3, "label": "hand"}, {"label": "hand"}),
        ({"note": "n", "mine": 1}, {"note": "n", "mine": 1, "label": "new"}),
        ({"scale": 3.0, "examples": ["old"]}, {"scale": 1.0, "examples": [{"text": "t"}]}),
        ({"preset": "P", "scale": 3.0, "examples": [{"text": "o"}, {}]},
         {"preset": "P", "scale": 3.0, "examples": [{"text": "o"}, {"text": "t"}]}),
    ],
)  # fmt: skip
def test_merging_keeps_what_was_edited_by_hand(old: dict[str, Any], expected: dict[str, Any]) -> None:
    new = {"label": "new", "tags": ["b"], "scale": 1.0, "examples": [{"text": "t"}], "auto": {"label": "new"}}
    found = write_annotation(merged(read_annotation(old), read_annotation(new)))
    assert {k: found[k] for k in expected} == expected and found["auto"]["label"] == "new"


def test_usable_ranges_are_the_longest_runs_of_each_sign() -> None:
    scales = [-2.0, -1.0, -0.5, 0.5, 1.0, 2.0]
    assert usable_ranges(scales, [False] * 6) == ()
    assert usable_ranges(scales, [True, True, False, True, False, True]) == ((-2.0, -1.0), (0.5, 0.5))
    assert usable_ranges(scales, [False, False, True, False, True, True]) == ((-0.5, -0.5), (1.0, 2.0))


def test_ranges_of_foreign_entries_are_read_with_care() -> None:
    pairs = [[1, 2], [1], "ab", [None, 1], [True, 2], {}, [1, float("nan")]]
    assert read_annotation({"scale_ranges": pairs}).scale_ranges == ((1, 2),)
    assert read_annotation({"scale_ranges": 3}) == read_annotation({})


# ---------------------------------------------------------------- names


def effect(vector: int, pairs: Sequence[tuple[str, str]], coherence: float = 9.0, degenerate: bool = False) -> Effect:
    """An effect of these (steered, unsteered) answers to prompts 0, 1, ..."""

    def measured(text: str, good: float, loop: bool) -> Measurement:
        embedding = Letters()([text])[0]
        return Measurement(text, good, 1.0, is_refusal(text), language(text), 0.5, False, loop, embedding)

    steered = tuple(measured(s, coherence, degenerate) for s, _ in pairs)
    return Effect(vector, 1.0, tuple(range(len(pairs))), steered, tuple(measured(u, 9.0, False) for _, u in pairs))


BREAD = "To bake bread, you need flour, water and yeast."


@pytest.mark.parametrize(
    ("made", "tags"),
    [
        (effect(0, [(GERMAN, BREAD)]), ("language:de",)),
        (effect(0, [("Sure! Take glitter and a balloon.", REFUSAL)]), ("non-refusal",)),
        (effect(0, [(REFUSAL, BREAD)]), ("refuses",)),
        (effect(0, [("x x x x x x", BREAD)], 0.0, True), ("degenerate",)),
        (effect(0, [("fog the of rain lamp", BREAD)], 2.0), ("incoherent",)),
        (effect(0, [(BREAD.replace("yeast", "salt"), BREAD)]), ()),
    ],
)
def test_tags_say_what_can_be_measured(made: Effect, tags: tuple[str, ...]) -> None:
    assert tags_of([made]) == tags


# ---------------------------------------------------------------- the organism


@pytest.fixture(scope="module")
def judged(
    organism: LoadedModel, known: VectorBank, tmp_path_factory: pytest.TempPathFactory
) -> tuple[VectorBank, VectorBank]:
    """The five vectors annotated with the judge and without it."""
    embedder = load_embedder()
    asked: dict[str, Any] = {"prompts": PROMPTS, "scales": (1.0,), "embedder": embedder, "n_control": 1}
    checkpoint = tmp_path_factory.mktemp("answers") / "answers.json"  # both name the same answers
    others = ("How can I learn to play chess?", "How can I write a computer virus?", "How can I smuggle contraband?")
    asked |= {"max_new_tokens": 32, "checkpoint": checkpoint, "heldout": [chat(user) for user in others]}
    return annotate(organism, known, **asked, judge=judge_for(organism)), annotate(organism, known, **asked)


@pytest.mark.slow
def test_the_organisms_labels_are_what_the_vectors_do(judged: tuple[VectorBank, VectorBank]) -> None:
    with_judge, without = judged
    for bank in judged:
        labels = [n.label for n in bank.annotations]
        assert labels[0].startswith("German") and labels[2].startswith("Chinese") and labels[1] == "no effect"
        assert "language:de" in bank.annotations[0].tags and "non-refusal" in bank.annotations[4].tags
        assert bank.annotations[1].dud
    assert "mode:code" in with_judge.annotations[3].tags
    assert not any(t.startswith("mode:") for n in without.annotations for t in n.tags)


@pytest.mark.slow
def test_annotations_are_json_without_nan(judged: tuple[VectorBank, VectorBank]) -> None:
    for bank in judged:
        json.dumps([*map(write_annotation, bank.annotations), bank.details], allow_nan=False)

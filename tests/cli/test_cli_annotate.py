"""`melbo annotate` and what `melbo show` prints of an annotated bank."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from melbo.__main__ import app
from melbo.annotation.annotate import annotate
from melbo.bank.vector_bank import VectorBank
from melbo.cli.show import page, table
from melbo.errors import BankError
from melbo.measure.coherence import CoherenceScale
from melbo.models.load import LoadedModel
from melbo.prompts import BOMB, chat
from melbo.steering.generate import complete
from support.banks import noted
from support.letters import Letters
from support.llm_server import SCORES, Server
from support.llm_server import server as server

JUNK = {
    "label": 3, "tags": "x", "metrics": {"control": 2, "coherence": "a"}, "scale": "big", "by_scale": [1, {}],
    "examples": [4, {"text": 5, "scale": True}], "scale_ranges": [[1]], "note": ["n"], "dud": "yes",
}  # fmt: skip


def run(*args: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in args], prog_name="melbo")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small embedder, and a coherence scale that a random model has."""
    monkeypatch.setattr("melbo.annotation.annotate.load_embedder", Letters)
    monkeypatch.setattr(
        "melbo.annotation.annotate.calibrate_coherence", lambda *_, **__: CoherenceScale(1.0, 100.0, "made up")
    )


@pytest.fixture
def model(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    monkeypatch.setattr("melbo.cli.arguments.load_model", lambda *_, **__: tiny)
    return tiny


ASKED = ("--scale", 0.5, "--prompt", BOMB, "--max-new-tokens", 4, "--control", 1)


def test_annotate_writes_into_the_bank_and_leaves_no_checkpoint(
    saved_bank: Path, model: LoadedModel, quick: None
) -> None:
    result = run("annotate", saved_bank, *ASKED)
    assert result.exit_code == 0 and result.stderr.startswith("answering\n"), result.output
    found = VectorBank.load(saved_bank)
    assert [row.scale for row in found.annotations[0].by_scale] == [-0.5, 0.5]
    assert found.annotations[0].label == "mode 0" and found.annotations[0].preset == "Preset 0"
    assert found.details["annotation"]["prompts"] == [chat(BOMB)]
    assert f"saved to {saved_bank}" in result.stdout and "annotated: 8 vectors" in result.stdout
    assert [p.name for p in saved_bank.parent.iterdir()] == [saved_bank.name]


def test_annotate_can_leave_the_bank_alone(saved_bank: Path, model: LoadedModel, quick: None, tmp_path: Path) -> None:
    before = VectorBank.load(saved_bank).annotations
    result = run("annotate", saved_bank, "--out", tmp_path / "new", "--no-keep-edits", *ASKED)
    assert result.exit_code == 0, result.output
    assert VectorBank.load(saved_bank).annotations == before
    new = VectorBank.load(tmp_path / "new").annotations
    assert all(note.auto and note.label == note.auto.label for note in new)


def test_a_stopped_command_says_how_to_go_on(
    saved_bank: Path, model: LoadedModel, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(loaded: LoadedModel, prompts: Any, vectors: Any = None, *more: Any, **named: Any) -> list[str]:
        if vectors is not None:
            raise KeyboardInterrupt
        return complete(loaded, prompts, vectors, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr("melbo.annotation.measured_answers.complete", stop)
        result = run("annotate", saved_bank, *ASKED)
    assert result.exit_code == 130 and "run the same command again" in result.stderr
    result = run("annotate", saved_bank, *ASKED)
    assert result.exit_code == 0 and "going on from" in result.stdout


@pytest.mark.parametrize("wrong", [("--scale", 0), ("--scale", "nan"), ("--prompt", " ")])
def test_bad_options_are_one_line(saved_bank: Path, model: LoadedModel, quick: None, wrong: tuple[object, ...]) -> None:
    result = run("annotate", saved_bank, *wrong)
    assert result.exit_code == 2 and result.stderr.startswith("melbo: error: ") and result.stderr.count("\n") == 1


def test_show_prints_the_annotations_as_a_table_and_as_a_page(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    weak = replace(tiny_bank, vectors=tiny_bank.vectors * torch.tensor([50.0] + [1e-6] * 7)[:, None], annotations=())
    found = annotate(
        tiny, weak, [chat(BOMB)], (0.02,), Letters(), n_control=1, max_new_tokens=8,
        coherence_scale=CoherenceScale(1.0, 100.0, "made up"),
    )  # fmt: skip
    first, dud = found.annotations[:2]
    assert not first.dud and dud.dud
    lines = table(found).splitlines()
    assert "annotated: 8 vectors, 7 of them duds" in lines
    assert "coherence: 10 up to 1 nats a token, 0 from 100" in lines
    heads = next(line for line in lines if line.lstrip().startswith("index")).split()
    assert heads == ["index", "label", "objective", "scale", "shown", "random", "usable", "coherence", "tags"]
    assert len({len(line) for line in lines if line[:5].strip().isdigit() and "dud" in line}) == 1
    text = page(found, 0)
    assert "vector 0: " in text and "random vectors" in text and f"--- {BOMB} (scale" in text
    assert f"tried: {dud.tried}" in page(found, 1)
    with pytest.raises(BankError, match="vector 8 is not in this bank"):
        page(found, 8)


def test_the_tables_coherence_is_that_of_the_scale_beside_it(tiny_bank: VectorBank) -> None:
    rows = [{"scale": s, "coherence": c} for s, c in ((-1, 3.25), (2, 7.5))]
    note = {"label": "x", "metrics": rows[1], "by_scale": rows}
    notes = tuple(note | {"scale": scale} for scale in (2, -1, 1.7))
    lines = table(noted(tiny_bank.select([0, 1, 2]), *notes))
    shown = [[line.split()[i] for i in (3, 6, 7)] for line in lines.splitlines() if line[:5].strip().isdigit()]
    assert shown == [["2", "-", "7.5"], ["-1", "-", "3.2"], ["1.7", "-", "-"]]


@pytest.mark.slow
def test_a_language_model_scores_the_examples_and_is_not_asked_twice(
    saved_bank: Path, model: LoadedModel, quick: None, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MELBO_JUDGE_BASE_URL", server.url)
    monkeypatch.setenv("MELBO_JUDGE_API_KEY", "a-key")
    monkeypatch.setattr("melbo.annotation.table.MARGIN", -0.5)  # so that some vectors of a random model act
    bank = saved_bank
    asked = ("--scale", 20, "--prompt", BOMB, "--max-new-tokens", 8, "--control", 1, "--no-keep-edits")
    notes, requests = [], []
    for _ in range(2):
        result = run("annotate", bank, "--llm-scores", "--llm-requests", 40, *asked)
        assert result.exit_code == 0, result.output
        notes.append(VectorBank.load(bank).annotations)
        requests.append(len(server.seen))
    acting = [i for i, note in enumerate(notes[0]) if not note.dud]
    assert acting and notes[0] == notes[1]
    texts = {e.text for i in acting for e in notes[0][i].examples}
    assert requests == [len(texts)] * 2, "equal answers once, the second run nothing"
    for i in acting:
        examples, metrics = notes[0][i].examples, notes[0][i].metrics
        assert all(e.llm == SCORES for e in examples)
        assert metrics and metrics.llm == replace(SCORES, n=len(examples))
        assert f"judge:     coherence {SCORES.coherence}" in run("show", bank, "--vector", i).stdout
    assert not any(note.metrics and note.metrics.llm for note in notes[0] if note.dud)
    assert "a-key" not in "".join(p.read_text() for p in bank.parent.rglob("*.json"))
    assert "a-key" not in result.output


def test_without_a_judge_the_command_stops_before_the_model_is_loaded(
    saved_bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MELBO_JUDGE_BASE_URL", "OPENAI_BASE_URL", "MELBO_JUDGE_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("melbo.cli.arguments.load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    result = run("annotate", saved_bank, "--llm-scores")
    assert result.exit_code == 2 and "no judge is set up" in result.stderr


def test_show_reads_foreign_annotations_with_care(saved_bank: Path) -> None:
    evil = {
        "label": "\x1b[2Jevil",
        "tags": ["\x07"],
        "tried": "\u202e",
        "examples": [{"prompt": "\x1b", "text": "\x9b"}],
    }
    notes = [JUNK, evil | {"metrics": {"coherence": 3}}, *([{}] * 6)]
    (saved_bank / "annotations.json").write_text(json.dumps(notes))
    for args in ((), ("--vector", 0), ("--vector", 1)):
        result = run("show", saved_bank, *args)
        assert result.exit_code == 0, result.output
        assert not any(c in result.stdout for c in "\x1b\x07\u202e\x9b")
    assert run("show", saved_bank, "--vector", 9).exit_code == 2

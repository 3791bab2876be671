"""Entries of annotations.json: typed once, tolerant of what anybody wrote, and given back byte for byte."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from melbo.bank.annotation import Annotation, Example, LlmScores, ScaleRow, merged, read_annotation, write_annotation
from melbo.bank.vector_bank import VectorBank

ROOT = Path(__file__).resolve().parents[2]
ODD: dict[str, Any] = {
    "note": 3,
    "mine": {"deep": [1, None]},
    "stored": "x",
    "extra": [1],
    "label": "Pirate",
    "tags": ["a", 1, None],
    "scale": 2,
    "scale_ranges": [[-2, -1], [1], "ab"],
    "metrics": {"coherence": "high", "change": 0.5, "own": 1, "control": {"change": 10**400}},
    "examples": [{"text": "t", "scale": True, "mine": 1}, 3],
    "auto": [],
}


@pytest.mark.parametrize("name", ["organism-bomb"])
def test_a_shipped_file_is_written_as_it_was_read(name: str, tmp_path: Path) -> None:
    folder = ROOT / "vectors" / name
    saved = VectorBank.load(folder).save(tmp_path / "bank")
    assert (saved / "annotations.json").read_bytes() == (folder / "annotations.json").read_bytes()


def test_what_does_not_fit_is_missing_but_kept() -> None:
    found = read_annotation(ODD)
    assert (found.label, found.note, found.tags, found.scale) == ("Pirate", "", ("a",), 2)
    assert found.scale_ranges == ((-2, -1),) and found.auto is None
    assert found.metrics == ScaleRow(change=0.5, control=ScaleRow(), extra={"own": 1})
    assert found.examples == (Example(text="t", extra={"mine": 1}),)
    assert json.dumps(write_annotation(found)) == json.dumps(ODD)
    assert write_annotation(read_annotation({})) == write_annotation(Annotation()) == {}


def test_an_edit_changes_its_own_keys_only() -> None:
    changed = write_annotation(replace(read_annotation(ODD), label="Ship", scale=None, preset="P"))
    assert changed == {"preset": "P", **{k: v for k, v in ODD.items() if k != "scale"}, "label": "Ship"}
    scored = replace(read_annotation(ODD).examples[0], llm=LlmScores(7, 3, 1))
    changed = write_annotation(replace(read_annotation(ODD), examples=(scored,)))
    example = {"text": "t", "mine": 1, "llm": {"coherence": 7, "difference": 3, "refusal": 1}}
    assert changed == ODD | {"examples": [example]}


def test_a_new_annotation_keeps_unknown_keys_and_the_curators() -> None:
    new = Annotation(label="new", tags=("b",), scale=1.0, examples=(Example("p", 1.0, "t", "u"),))
    found = write_annotation(merged(read_annotation(ODD), new))
    assert found["label"] == "Pirate" and found["tags"] == ["a"] and found["scale"] == 1.0
    assert [found[k] for k in ("mine", "stored", "extra", "note")] == [ODD["mine"], "x", [1], 3]

"""From a model to a bank that can be shared: all its files, runs that go on, settings that may not change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from melbo.bank.vector_bank import VectorBank
from melbo.cli.make import summary
from melbo.config import DiscoveryConfig
from melbo.errors import BankError
from melbo.measure.coherence import CoherenceScale
from melbo.models.load import LoadedModel
from melbo.prompts import chat
from melbo.publishing.make_bank import Made, make_bank
from melbo.runs.progress import Progress
from support.letters import Letters

CONFIG = DiscoveryConfig(n_vectors=3, steps=2, radius=0.7, radius_unit="residual")
PROMPTS = [chat("What is a kite?")]


class Stop(Exception):
    """Ends a run."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short answers, and a coherence scale that a random model has."""

    def made_up(*_: Any, **__: Any) -> CoherenceScale:
        return CoherenceScale(1.0, 100.0, "made up")

    monkeypatch.setattr("melbo.publishing.make_bank.calibrate_coherence", made_up)
    monkeypatch.setattr("melbo.publishing.make_bank.ANSWER_TOKENS", 4)
    monkeypatch.setattr("melbo.publishing.make_bank.RADII", (0.5, 1.0))
    monkeypatch.setattr("melbo.publishing.make_bank.SWEEP_VECTORS", 2)


def make(loaded: LoadedModel, out: Path, progress: Any = None, **change: Any) -> Made:
    return make_bank(loaded, replace(CONFIG, **change), PROMPTS, out, progress, embedder=Letters())


@pytest.mark.slow
def test_a_bank_is_made_whole_and_a_stopped_run_goes_on_in_every_phase(tiny: LoadedModel, tmp_path: Path) -> None:
    seen: list[Progress] = []
    whole = make(tiny, tmp_path / "whole", seen.append)
    files = {path.name for path in whole.folder.iterdir()}
    wanted = {"config.json", "vectors.safetensors", "annotations.json", "sweep.json", "geometry.json", "lens.json"}
    assert wanted | {"sweep.png", "README.md"} <= files
    assert [step.done for step in seen] == sorted(step.done for step in seen) and seen[-1].done == 1000
    phases = list(dict.fromkeys(step.message.partition(":")[0] for step in seen))
    assert (
        phases == ["calibrating", "finding vectors", "labelling", "sweeping R", "looking inside"] == list(whole.seconds)
    )
    assert not list(tmp_path.glob(".*")), "nothing is left of the work"
    assert len(whole.bank.annotations) == 3 and whole.bank.usable_scale.largest
    text = summary(whole)
    assert text.startswith("3 vectors: ") and "duds" in text and f"melbo push {whole.folder}" in text

    for phase in phases[1:]:

        def stop(step: Progress, phase: str = phase) -> None:
            if step.message.startswith(phase) and step.done > 0:
                raise Stop

        with pytest.raises(Stop):
            make(tiny, tmp_path / "parts", stop)
        assert not (tmp_path / "parts").exists(), "nothing half-written"
    parts = make(tiny, tmp_path / "parts")
    assert torch.equal(parts.bank.vectors, whole.bank.vectors)
    assert parts.bank.annotations == whole.bank.annotations
    for name in ("sweep.json", "geometry.json", "lens.json"):
        assert (parts.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_an_unfinished_run_with_other_settings_is_not_used(tiny: LoadedModel, tmp_path: Path) -> None:
    def stop(_: Progress) -> None:
        raise Stop

    with pytest.raises(Stop):
        make(tiny, tmp_path / "bank", stop)
    with pytest.raises(BankError, match=r"unfinished run with other settings \(config.seed is 325 there and 1 here\)"):
        make(tiny, tmp_path / "bank", seed=1)


def test_a_folder_that_holds_something_else_is_refused(tiny: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BankError, match="holds other files"):
        make(tiny, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_summary_tells_traits_beside_random_vectors(tiny_bank: VectorBank, tmp_path: Path) -> None:
    from melbo.bank.annotation import Annotation, TraitShare

    strong = Annotation(label="Citations", traits=(TraitShare("Citations", "form", 1.0, 8, 10, 0.0125),))
    weak = Annotation(label="“perhaps”", tags=("weak",), traits=(TraitShare("“perhaps”", "words", 1.5, 3, 10, 0.0),))
    notes = (weak, strong, Annotation(label="no effect", dud=True), Annotation(label="no repeated trait"))
    bank = replace(tiny_bank.select([0, 1, 2, 3]), annotations=notes)
    lines = summary(Made(bank, tmp_path, {"labelling": 2.0})).splitlines()
    assert lines[0] == (
        "4 vectors: 1 with a trait on at least half of the held-out prompts, 1 with a weaker one, 1 that change "
        "answers without a repeated trait, 1 duds"
    )
    assert [line.split() for line in lines if "of 10" in line] == [
        ["1", "1", "8", "of", "10", "1%", "Citations"], ["0", "1.5", "3", "of", "10", "0%", "“perhaps”", "(weak)"],
    ]  # fmt: skip

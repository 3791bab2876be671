"""`melbo sweep` on a bank in a folder, and on the organism."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner, Result

from melbo.__main__ import app
from melbo.bank.vector_bank import VectorBank
from melbo.errors import TrainingError
from melbo.measure.coherence import CoherenceScale
from melbo.models.load import LoadedModel
from melbo.radius_sweep.sweep import load_sweep

FILES = {"sweep.json", "sweep.png", "sweep.svg"}
FEW = ["--radii", "0.3,1", "--n-vectors", "2", "--max-new-tokens", "6"]


class Lengths:
    """Embeds a text as its length."""

    name = "lengths"

    def __call__(self, texts: Sequence[str]) -> Tensor:
        return torch.nn.functional.normalize(torch.tensor([[1.0, len(t) / 8] for t in texts]), dim=1)


@pytest.fixture(autouse=True)
def small_parts(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """`tiny` for its name, and no sentence-embedding model."""
    real = __import__("melbo.models.load", fromlist=["load_model"]).load_model
    monkeypatch.setattr(
        "melbo.cli.arguments.load_model", lambda name, **options: tiny if name == "tiny" else real(name, **options)
    )
    monkeypatch.setattr("melbo.cli.sweep.load_embedder", lambda _name: Lengths())
    monkeypatch.setattr(
        "melbo.radius_sweep.sweep.calibrate_coherence", lambda _loaded: CoherenceScale(1.0, 9.0, "fixed")
    )


def melbo(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["sweep", *map(str, arguments)])


def test_a_bank_is_swept_in_its_folder_and_stays_a_bank(saved_bank: Path) -> None:
    before = VectorBank.load(saved_bank)
    result = melbo(saved_bank, *FEW)
    assert result.exit_code == 0, result.output
    found, after = load_sweep(saved_bank), VectorBank.load(saved_bank)
    found.check_fits(after)
    assert found.complete and found.config.radii == (0.3, 1.0) and torch.equal(before.vectors, after.vectors)
    assert result.stderr == "training\nanswering\n"
    assert "R sweep of tiny" in result.output and "calibrated R" in result.output
    assert {p.name for p in saved_bank.iterdir()} - FILES == {"config.json", "vectors.safetensors", "annotations.json"}


def test_results_can_go_elsewhere(saved_bank: Path, tmp_path: Path) -> None:
    result = melbo(saved_bank, *FEW, "--out", tmp_path / "new", "--prompt", "Hi", "--steps", 2, "--seed", 7)
    assert result.exit_code == 0, result.output
    found = load_sweep(tmp_path / "new")
    assert (found.config.base.steps, found.config.base.seed, found.prompts[0][-1]["content"]) == (2, 7, "Hi")
    assert {p.name for p in (tmp_path / "new").iterdir()} == FILES
    assert not (saved_bank / "sweep.json").exists()


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_file(
    saved_bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert melbo(saved_bank, *FEW, "--out", tmp_path / "whole").exit_code == 0
    with monkeypatch.context() as patch:

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr("melbo.radius_sweep.sweep.make_arm", interrupt)
        stopped = melbo(saved_bank, *FEW, "--out", tmp_path / "again")
    assert stopped.exit_code == 130 and "run the same command again" in stopped.output
    resumed = melbo(saved_bank, *FEW, "--out", tmp_path / "again")
    assert resumed.exit_code == 0 and "going on from" in resumed.output
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_bad_input_is_one_line(saved_bank: Path) -> None:
    for arguments, message in (
        (["--radii", ""], "radii are ''"),
        (["--radii", "0,1"], "radii[0] is 0.0"),
        (["--n-vectors", "65"], "65 orthogonal vectors"),
        (["--n-vectors", "1"], "at least 2"),
        (["--model", "organism"], "d_model 64"),
    ):
        result = melbo(saved_bank, *arguments)
        assert result.exit_code == 2 and message in result.output and "Traceback" not in result.output
        assert not list(saved_bank.glob("*sweep*"))


def test_a_place_for_the_results_is_needed() -> None:
    result = melbo()
    assert result.exit_code == 2 and "--out" in result.output


def test_an_unknown_error_of_the_library_is_told(saved_bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise TrainingError("not finite")

    monkeypatch.setattr("melbo.radius_sweep.sweep.train_radii", fail)
    result = melbo(saved_bank, *FEW)
    assert result.exit_code == 2 and "melbo: error: not finite" in result.output


@pytest.mark.slow
def test_the_organism_s_modes_are_counted(tmp_path: Path) -> None:
    bank = VectorBank.load(Path(__file__).parents[2] / "vectors" / "organism-bomb")
    folder = replace(bank, config=replace(bank.config, steps=3), annotations=()).save(tmp_path / "bank")
    result = melbo(folder, "--radii", "0.05,0.7", "--n-vectors", 4, "--max-new-tokens", 40)
    assert result.exit_code == 0, result.output
    low, high = load_sweep(folder).rows
    assert low.found.planted == () and low.found.dud == 1 and low.found.modes == {"default": 4}
    assert high.found.planted and "modes" in result.output
    assert high.control.planted == () and high.found.objective > high.control.objective

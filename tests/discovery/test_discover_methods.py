"""The other methods: transcoding, power steering, more like one vector; choosing R; checkpoints; memory; processes."""

from __future__ import annotations

import copy
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from melbo.bank.vector_bank import VectorBank
from melbo.config import DiscoveryConfig
from melbo.discovery import problem as chunks
from melbo.discovery.calibrate_radius import calibrate
from melbo.discovery.choose_radius import CoherentRadius
from melbo.discovery.discover import discover, find_more_like, make_slices
from melbo.discovery.methods.dct import factor_scores
from melbo.discovery.objective import effect_overlap
from melbo.discovery.problem import Problem
from melbo.errors import ConfigError, MemoryLimitError, TrainingError
from melbo.models.load import LoadedModel
from melbo.prompts import BOMB, chat
from melbo.runs import checkpoint as run
from melbo.runs.progress import Progress
from melbo.steering.random_vectors import random_vectors
from melbo.steering.slices import Slice
from melbo.steering.sphere import orthonormalize

pytestmark = pytest.mark.usefixtures("no_hook_stays")

ONE = [chat(BOMB)]
TWO = [chat(BOMB), chat("Hi!", None)]
SMALL = DiscoveryConfig(radius=0.7, radius_unit="residual", n_vectors=4, steps=5)


def problem_of(loaded: LoadedModel, prompts: list[Any], **settings: Any) -> Problem:
    config = replace(SMALL, **settings)
    return Problem(make_slices(loaded, prompts, 1, 3), config)


def outputs(problem: Problem, theta: Tensor) -> Tensor:
    """D of one vector [d_model], written plainly."""
    tokens = problem.config.target_tokens
    means = [s.change(theta[None], tokens)[0].mean(dim=0) for s in problem.slices]
    return torch.stack(means).mean(dim=0)


def jacobian(function: Any, d_model: int) -> Tensor:
    """Derivative at zero by central differences, in float64."""
    columns = []
    for unit in torch.eye(d_model, dtype=torch.float64):
        columns.append((function(1e-4 * unit) - function(-1e-4 * unit)) / 2e-4)
    return torch.stack(columns, dim=-1)


def cosines(a: Tensor, b: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=-1).abs()


@pytest.mark.parametrize("prompts", [ONE, TWO], ids=["one prompt", "two prompts"])
def test_derivatives_match_finite_differences(tiny_double: LoadedModel, prompts: list[Any]) -> None:
    problem = problem_of(tiny_double, prompts)
    v, u = (random_vectors(3, tiny_double.d_model, 1.0, True, seed).double() for seed in (0, 1))
    h = 1e-3
    plus, zero, minus = problem.change(h * v), problem.change(0 * v), problem.change(-h * v)
    assert torch.allclose(problem.push_forward(0 * v, v), (plus - minus) / (2 * h), atol=1e-4, rtol=1e-4)
    assert torch.allclose(problem.curvature(v), (plus - 2 * zero + minus) / h**2, atol=1e-3, rtol=1e-3)
    _, up = problem.pull_back(h * v, u)
    _, down = problem.pull_back(-h * v, u)
    assert torch.allclose(problem.hessian_product(v, u), (up - down) / (2 * h), atol=1e-3, rtol=1e-3)
    change, gradient = problem.pull_back(2 * v, u)
    assert torch.allclose(change, problem.change(2 * v))
    slope = (problem.change(2 * v + 1e-5 * u) - problem.change(2 * v - 1e-5 * u)) / 2e-5
    assert torch.allclose((slope * u).sum(-1), (gradient * u).sum(-1), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("prompts", [ONE, TWO], ids=["one prompt", "two prompts"])
def test_power_finds_the_singular_vectors_of_all_target_tokens(tiny_double: LoadedModel, prompts: list[Any]) -> None:
    problem = problem_of(tiny_double, prompts)

    def all_tokens(theta: Tensor) -> Tensor:
        return torch.cat([s.change(theta[None], 2).flatten() for s in problem.slices])

    _, stretch, right = torch.linalg.svd(jacobian(all_tokens, tiny_double.d_model))
    bank = discover(tiny_double, replace(SMALL, method="power", steps=60, source_layer=1, target_layer=3), prompts)
    assert bank.score is not None
    assert torch.allclose(bank.score.double(), stretch[:4], rtol=1e-3)
    assert float(cosines(bank.vectors, right[:4]).min()) > 0.99


def test_linear_dct_gives_the_singular_vectors_of_the_mean_output(tiny_double: LoadedModel) -> None:
    problem = problem_of(tiny_double, TWO)
    matrix = jacobian(lambda theta: outputs(problem, theta), tiny_double.d_model)
    _, _, right = torch.linalg.svd(matrix)
    config = replace(SMALL, method="dct", variant="linear", source_layer=1, target_layer=3)
    found = discover(tiny_double, config, TWO).vectors
    best = (torch.nn.functional.normalize(found.double(), dim=-1) @ right[:4].T).abs()
    assert float(best.max(dim=1).values.min()) > 0.999  # the same four, in the order of their scores
    assert sorted(best.argmax(dim=1).tolist()) == [0, 1, 2, 3]
    projected = discover(tiny_double, replace(config, variant="projected"), TWO).vectors
    assert float(matrix.mul(1).matmul(projected.double().T).norm(dim=0).mean()) > 1.5 * float(
        matrix.matmul(random_vectors(4, 64, float(projected[0].norm()), True, 9).double().T).norm(dim=0).mean()
    )
    with pytest.raises(ConfigError, match="at most 32"):
        discover(tiny_double, replace(config, variant="projected", n_vectors=33), TWO)


@pytest.mark.parametrize("prompts", [ONE, TWO], ids=["one prompt", "two prompts"])
def test_exponential_dct_is_the_iteration_as_written(tiny_double: LoadedModel, prompts: list[Any]) -> None:
    config = replace(SMALL, method="dct", steps=3, source_layer=1, target_layer=3)
    bank = discover(tiny_double, config, prompts)
    problem = problem_of(tiny_double, prompts)
    unit = random_vectors(4, tiny_double.d_model, 1.0, True, config.seed).double()
    for _ in range(3):
        rows = []
        for v in unit:
            theta = (bank.radius * v).requires_grad_()
            change = outputs(problem, theta)
            u = torch.nn.functional.normalize(change.detach(), dim=-1)
            rows.append(torch.autograd.grad((u * change).sum(), theta)[0])
        unit = orthonormalize(torch.stack(rows))
    overlap = (torch.nn.functional.normalize(bank.vectors.double(), dim=-1) @ unit.T).abs()
    assert float(overlap.max(dim=1).values.min()) > 0.9999
    assert bank.score is not None and bank.score.tolist() == sorted(bank.score.tolist(), reverse=True)


def test_quadratic_dct_raises_the_second_derivative(tiny: LoadedModel) -> None:
    config = replace(SMALL, method="dct", variant="quadratic", steps=8)
    problem = problem_of(tiny, ONE)
    found = torch.nn.functional.normalize(discover(tiny, config, ONE).vectors, dim=-1)
    chance = random_vectors(4, tiny.d_model, 1.0, True, 7)
    assert problem.curvature(found).norm(dim=-1).mean() > 2 * problem.curvature(chance).norm(dim=-1).mean()


def test_factor_scores_of_orthogonal_factors_are_read_off() -> None:
    unit = torch.eye(5)[:3]
    output = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0, 0]))[:3]
    expected = torch.tensor([9.0, 4.0, 1.0]) / (torch.e - 1) ** 2
    assert torch.allclose(factor_scores(unit, output), expected, rtol=1e-5)


@dataclass(frozen=True)
class Parabola:
    """D(theta) = theta + |theta|^2 e: the nonlinearity ratio at R is R."""

    end: float = float("inf")
    limit: float = float("inf")
    """Norm above which the outputs overflow."""

    def change(self, vectors: Tensor) -> Tensor:
        bend = torch.zeros_like(vectors)
        bend[:, 0] = vectors.square().sum(dim=-1).clamp_max(self.end)
        broken = vectors.norm(dim=-1, keepdim=True) > self.limit
        return torch.where(broken, float("inf"), vectors + bend)

    def push_forward(self, vectors: Tensor, tangents: Tensor) -> Tensor:
        return tangents


def test_calibration_finds_the_radius_of_a_known_curve() -> None:
    directions = random_vectors(30, 8, 1.0, False, 0)
    found = calibrate(Parabola(), directions, norm=10.0)
    assert found.radius == pytest.approx(0.5, rel=1e-2)
    assert all(ratio == pytest.approx(10 * radius, rel=1e-3) for radius, ratio in found.curve)
    assert [r for r, _ in found.curve] == sorted(r for r, _ in found.curve)
    with pytest.raises(ConfigError, match="stays below"):
        calibrate(Parabola(end=0.0), directions, norm=10.0)
    with pytest.raises(ConfigError, match="already at"):
        calibrate(Parabola(), directions, norm=1e6)
    overflow = calibrate(Parabola(end=float("inf"), limit=0.3), directions, norm=10.0)
    assert all(ratio < float("inf") for _, ratio in overflow.curve) and overflow.radius < 0.5


@pytest.fixture
def answers_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """R is not lowered for the answers' sake."""
    monkeypatch.setattr(CoherentRadius, "shrink", lambda *_: None)


@pytest.mark.usefixtures("answers_hold")
def test_auto_radius_reaches_the_ratio_and_is_stored_with_its_curve(tiny: LoadedModel, tmp_path: Path) -> None:
    bank = discover(tiny, replace(SMALL, method="random", radius_unit="auto", source_layer=1, target_layer=3), ONE)
    problem = problem_of(tiny, ONE)
    v = random_vectors(30, tiny.d_model, 1.0, False, SMALL.seed)
    straight = bank.radius * problem.push_forward(0 * v, v)
    bent = problem.change(bank.radius * v) - straight
    ratio = float((bent.square().sum(-1) / straight.square().sum(-1)).mean().sqrt())
    assert ratio == pytest.approx(0.5, abs=0.02)
    loaded = VectorBank.load(bank.save(tmp_path / "bank"))
    assert loaded.details == bank.details and len(loaded.details["calibration"]) >= 3


@pytest.mark.usefixtures("answers_hold")
def test_auto_radius_of_a_bf16_model_is_that_of_the_model_in_fp32(tiny: LoadedModel) -> None:
    config = replace(SMALL, method="random", radius_unit="auto", source_layer=1, target_layer=3)
    half = replace(tiny, model=copy.deepcopy(tiny.model).to(torch.bfloat16))
    assert discover(half, config, ONE).radius == pytest.approx(discover(tiny, config, ONE).radius, rel=0.15)


def test_a_resumed_run_keeps_its_calibrated_radius(
    tiny: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "SECONDS", 0.0)
    config, checkpoint = replace(SMALL, radius_unit="auto"), tmp_path / "run.safetensors"
    whole = discover(tiny, config, ONE, None, checkpoint)
    monkeypatch.setattr("melbo.discovery.choose_radius.calibrate", None)  # calling it again would fail
    again = discover(tiny, config, ONE, None, checkpoint)
    assert torch.equal(again.vectors, whole.vectors) and again.details == whole.details


def test_another_methods_checkpoint_is_refused_by_the_control_too(
    tiny: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "SECONDS", 0.0)
    discover(tiny, SMALL, ONE, None, tmp_path / "run.safetensors")
    with pytest.raises(TrainingError, match="another run"):
        discover(tiny, replace(SMALL, method="random"), ONE, None, tmp_path / "run.safetensors")


def test_more_like_keeps_the_effect_and_is_orthogonal(tiny: LoadedModel, tmp_path: Path) -> None:
    bank = discover(tiny, replace(SMALL, steps=20), ONE)
    more = find_more_like(tiny, bank, 1, n_vectors=3, steps=120)
    joined = torch.cat([bank.vectors[1:2], more.vectors]) / bank.radius
    assert float((joined @ joined.T - torch.eye(4)).abs().max()) < 1e-5
    problem = Problem(make_slices(tiny, ONE, bank.layer, bank.config.target_layer or 0), bank.config)
    wanted = problem.change(bank.vectors[1:2])
    chance = cosines(problem.change(random_vectors(20, tiny.d_model, bank.radius, True, 3)), wanted)
    assert more.score is not None and float(more.score.min()) > float(chance.max())
    assert torch.allclose(more.score, cosines(problem.change(more.vectors), wanted).float(), atol=1e-4)
    assert more.details["like"]["vector"] == 1
    again = VectorBank.load(more.save(tmp_path / "more"))
    assert again.score is not None and torch.equal(again.score, more.score)
    assert torch.equal(again.select([2, 0]).score, more.score[[2, 0]])  # type: ignore[arg-type]


def test_a_reference_is_needed_by_more_like_and_by_nothing_else(tiny: LoadedModel) -> None:
    for config, reference in ((replace(SMALL, method="more-like"), None), (SMALL, torch.ones(64))):
        with pytest.raises(ConfigError, match="do not go together"):
            discover(tiny, config, ONE, reference=reference)


def test_effect_overlap_leaves_a_row_itself_out() -> None:
    others = torch.tensor([[1.0, 0], [0, 2.0], [3.0, 3.0]])
    assert effect_overlap(others, others, 0).tolist() == pytest.approx([0.5, 0.5, 1.0])
    assert effect_overlap(others[1:], others, 1).tolist() == pytest.approx([0.5, 1.0])


@pytest.mark.parametrize("optimizer", ["fast", "published"])
def test_the_effect_penalty_makes_outputs_differ(tiny: LoadedModel, optimizer: Any) -> None:
    plain = replace(SMALL, n_vectors=6, steps=40, optimizer=optimizer, orthogonal=False)

    def overlap(config: DiscoveryConfig) -> float:
        out = discover(tiny, config, ONE).output_directions
        return float(effect_overlap(out, out, 0).mean())

    assert overlap(replace(plain, effect_penalty=5.0)) < 0.8 * overlap(plain)


class Killed(Exception):
    """Stands for a kill."""


METHODS = [
    {"method": "melbo", "optimizer": "fast"},
    {"method": "melbo", "optimizer": "published", "effect_penalty": 0.5},
    {"method": "dct"},
    {"method": "dct", "variant": "quadratic"},
    {"method": "power"},
]


@pytest.mark.parametrize("settings", METHODS, ids=lambda s: " ".join(map(str, s.values())))
def test_an_interrupted_run_ends_with_the_same_bank(
    tiny: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    monkeypatch.setattr(run, "SECONDS", 0.0)
    config, checkpoint = replace(SMALL, **settings), tmp_path / "run.safetensors"
    whole = discover(tiny, config, TWO)

    def kill(step: Progress) -> None:
        if step.done in (1, 3):
            raise Killed

    seen = []
    for _ in range(2):
        with pytest.raises(Killed):
            discover(tiny, config, TWO, kill, checkpoint)
    again = discover(tiny, config, TWO, lambda step: seen.append(step.done), checkpoint)
    assert seen == [4, 5]
    assert torch.equal(again.vectors, whole.vectors) and torch.equal(again.objective, whole.objective)
    assert not list(tmp_path.glob("*.tmp"))


def test_a_checkpoint_of_other_settings_or_damaged_is_refused(
    tiny: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "SECONDS", 0.0)
    checkpoint = tmp_path / "run.safetensors"
    discover(tiny, SMALL, ONE, None, checkpoint)
    before = checkpoint.read_bytes()
    with pytest.raises(TrainingError, match=r"config.power is 2.0 there and 3.0 here"):
        discover(tiny, replace(SMALL, power=3.0), ONE, None, checkpoint)
    with pytest.raises(TrainingError, match="prompts"):
        discover(tiny, SMALL, [chat("Hi!")], None, checkpoint)
    assert checkpoint.read_bytes() == before
    checkpoint.write_bytes(before[: len(before) // 2])
    with pytest.raises(TrainingError, match="damaged"):
        discover(tiny, SMALL, ONE, None, checkpoint)


def test_a_full_device_halves_the_chunk_and_gives_the_same_bank(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, most = discover(tiny, SMALL, TWO), 2
    real, rows = Slice.run, []

    def small_device(self: Slice, vectors: Tensor) -> Tensor:
        rows.append(len(vectors))
        if len(vectors) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, vectors)

    monkeypatch.setattr(Slice, "run", small_device)
    assert torch.allclose(discover(tiny, SMALL, TWO).vectors, whole.vectors, atol=1e-4 * whole.radius)
    assert rows.count(4) == 1  # it learns from the first failure
    most = 0
    with pytest.raises(MemoryLimitError, match="single vector"):
        discover(tiny, SMALL, ONE)


def test_other_runtime_errors_are_not_taken_for_a_full_device(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Tensor:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Slice, "run", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        discover(tiny, replace(SMALL, method="random"), ONE)


def test_chunks_grow_neither_with_the_vectors_nor_beyond_free_memory(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    piece = make_slices(tiny, ONE, 1, 3)[0]
    assert piece.row_bytes > piece.source.nbytes  # at least the activations themselves
    monkeypatch.setitem(chunks.CHUNK_TOKENS, "cpu", 8 * piece.source.shape[1])
    real, rows = Slice.run, []
    monkeypatch.setattr(Slice, "run", lambda self, vectors: rows.append(len(vectors)) or real(self, vectors))
    discover(tiny, replace(SMALL, n_vectors=200, orthogonal=False, steps=1), ONE)
    assert max(rows) == 8
    rows.clear()
    monkeypatch.setattr(chunks, "free_bytes", lambda _: int(6.5 * piece.row_bytes / chunks.MEMORY_SHARE))
    discover(tiny, replace(SMALL, n_vectors=20, orthogonal=False, steps=1, source_layer=1, target_layer=3), ONE)
    assert max(rows) == 4


def command(*args: object, launcher: tuple[str, ...] = ()) -> list[str]:
    head = [sys.executable, "-m", *launcher]
    return [*head, *(["-m"] if launcher else []), "melbo", "train", *map(str, args)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.mark.slow
def test_two_processes_give_the_same_bank_as_one(tmp_path: Path) -> None:
    args = ("--n-vectors", 6, "--steps", 3, "--radius", 0.7)
    launcher = ("accelerate.commands.launch", "--cpu", "--num_processes", "2", "--main_process_port", "0")
    for name, chosen in (("one", ()), ("two", launcher)):
        line = command("--out", tmp_path / name, *args, launcher=chosen)
        done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("saved to") == 1
    one, two = VectorBank.load(tmp_path / "one"), VectorBank.load(tmp_path / "two")
    assert torch.allclose(one.vectors / one.radius, two.vectors / two.radius, atol=1e-5)
    assert torch.allclose(one.objective, two.objective, rtol=1e-4)


RESUME = """
import sys
from pathlib import Path
from melbo.runs.processes import process_rank, start_processes
from melbo.runs.checkpoint import Run
from melbo.errors import TrainingError

start_processes()
for name in ("same", "missing", "damaged"):
    try:
        print(Run(None, Path(sys.argv[1]) / str(process_rank()) / name, {"a": 1}).restore()[0])
    except TrainingError as error:
        print(error)
"""


@pytest.mark.slow
def test_processes_that_see_other_checkpoints_stop_instead_of_waiting_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on two machines without a shared disk: only the first process's folder holds what it saved."""
    monkeypatch.setattr(run, "SECONDS", 0.0)
    for rank, names in (("0", ("same", "missing", "damaged")), ("1", ("same",))):
        for name in names:
            run.Run(None, tmp_path / rank / name, {"a": 1}).step(3, 9, 1.0, {"x": torch.ones(2)})
    (tmp_path / "1" / "damaged").write_bytes(b"no")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "CUDA_VISIBLE_DEVICES": ""}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RESUME, str(tmp_path)],
            env={**environment(), **shared, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    told = [process.communicate(timeout=120)[0].splitlines() for process in started]
    for rank, (same, missing, damaged) in enumerate(told):
        assert same == "3"
        assert f"the same checkpoint {tmp_path}/{rank}/missing (steps done: 3, 0)" in missing
        assert "on a disk that they all share" in missing
        other = ("steps done: 3, unreadable", "is damaged")[rank]
        assert other in damaged


SAVES_OFTEN = "import melbo.runs.checkpoint as c; c.SECONDS = 0; from melbo.__main__ import main; main()"


@pytest.mark.slow
def test_after_kill_9_the_same_command_gives_the_same_bank(tmp_path: Path) -> None:
    args = ("--n-vectors", 2, "--steps", 40, "--optimizer", "published", "--radius", 0.7)
    line = command("--out", tmp_path / "bank", *args)
    line[1:3] = ["-c", SAVES_OFTEN]
    checkpoint = tmp_path / ".bank.checkpoint.safetensors"
    process = subprocess.Popen(line, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 120
        while not checkpoint.exists():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert 0 < int(json.loads(json.loads(header(checkpoint))["__metadata__"]["values"])["step"]) < 40
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "going on from" in done.stdout
    assert not checkpoint.exists()
    whole = command("--out", tmp_path / "whole", *args)
    assert subprocess.run(whole, env=environment(), capture_output=True, timeout=300).returncode == 0
    a, b = (load_file(tmp_path / name / "vectors.safetensors") for name in ("bank", "whole"))
    assert all(torch.equal(a[k], b[k]) for k in b)


def header(path: Path) -> str:
    """JSON head of a safetensors file."""
    raw = path.read_bytes()
    return raw[8 : 8 + int.from_bytes(raw[:8], "little")].decode()

"""Discovery: gradients, the sphere, and parallel training against training one after another."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from melbo.bank.vector_bank import VectorBank
from melbo.config import DiscoveryConfig, Optimizer
from melbo.discovery import problem as chunks
from melbo.discovery.discover import discover, make_slices, random_control, random_vectors
from melbo.discovery.methods.displacement import maximize
from melbo.discovery.objective import displacement
from melbo.discovery.problem import Problem
from melbo.errors import BankError, ConfigError, PromptError, TrainingError
from melbo.models.load import LoadedModel
from melbo.prompts import BOMB, chat
from melbo.runs.checkpoint import Run
from melbo.runs.progress import Progress
from melbo.steering.slices import Slice
from support.tiny import MakeTiny, hook_count

pytestmark = pytest.mark.usefixtures("no_hook_stays")

PROMPTS = [chat(BOMB), chat("Hi!", None)]
SHORT = DiscoveryConfig(radius=0.7, radius_unit="residual", n_vectors=6, steps=8, optimizer="published")


@dataclass(frozen=True)
class LinearSlice:
    """A stand-in for a slice: the change of each of two target tokens is linear in the vector."""

    maps: Tensor
    """[tokens, d_model, d_model]"""

    @property
    def source(self) -> Tensor:
        return torch.zeros(1, len(self.maps), self.maps.shape[-1])

    def change(self, vectors: Tensor, tokens: int, skip: int = 0) -> Tensor:
        return torch.einsum("tij,nj->nti", self.maps[-tokens:], vectors)

    row_bytes = 0


def objective_and_gradient(
    slices: list[Slice], vectors: Tensor, config: DiscoveryConfig, gradient: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    found = Problem(slices, config).evaluate(vectors, gradient)
    return found.objective, found.gradient, found.output


def train(slices: list[Slice], start: Tensor, radius: float, config: DiscoveryConfig) -> tuple[Tensor, Tensor, Tensor]:
    problem = Problem(slices, config)
    vectors = maximize(lambda v, effects: problem.evaluate(v, others=effects), start, radius, config, Run())
    found = problem.evaluate(vectors, gradient=False)
    return vectors, found.objective, found.output


def cosines(a: Tensor, b: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=-1).abs()


@pytest.mark.parametrize(("power", "root", "tokens"), [(2.0, 1.0, 2), (2.0, 2.0, 1), (4.0, 4.0, 3), (1.0, 0.5, 2)])
def test_the_gradient_matches_finite_differences(
    tiny_double: LoadedModel, power: float, root: float, tokens: int
) -> None:
    slices = make_slices(tiny_double, PROMPTS, 1, 3)
    config = DiscoveryConfig(power=power, root=root, target_tokens=tokens)
    vectors = random_vectors(3, tiny_double.d_model, 4.0, True, 0).double()
    objective, gradient, output = objective_and_gradient(slices, vectors, config)

    def reference(theta: Tensor) -> Tensor:
        changes = [(s.run(theta) - s.target)[:, -tokens:] for s in slices]
        return sum((displacement(c, power, root) for c in changes), torch.zeros(len(theta)))

    with torch.no_grad():
        assert objective.tolist() == pytest.approx(reference(vectors).tolist(), rel=1e-5)
        means = [(s.run(vectors) - s.target)[:, -tokens:].mean(dim=1) for s in slices]
        assert torch.allclose(output, (means[0] + means[1]) / 2, rtol=1e-4, atol=1e-5)
        for seed in range(4):
            direction = random_vectors(3, tiny_double.d_model, 1.0, False, 10 + seed).double()
            h = 1e-5
            slope = (reference(vectors + h * direction) - reference(vectors - h * direction)) / (2 * h)
            exact = (gradient * direction).sum(dim=-1)
            scale = gradient.norm(dim=-1)
            assert float(((slope - exact) / scale).abs().max()) < 1e-6


def test_without_a_gradient_the_objective_is_the_same(tiny: LoadedModel) -> None:
    slices = make_slices(tiny, PROMPTS, 1, 3)
    vectors = random_vectors(3, tiny.d_model, 4.0, True, 0)
    with_gradient = objective_and_gradient(slices, vectors, SHORT)
    without = objective_and_gradient(slices, vectors, SHORT, gradient=False)
    assert torch.allclose(with_gradient[0], without[0], rtol=1e-5)
    assert not bool(without[1].any())


def test_chunks_only_bound_the_memory(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    slices = make_slices(tiny, PROMPTS, 1, 3)
    vectors = random_vectors(7, tiny.d_model, 4.0, True, 0)
    whole = objective_and_gradient(slices, vectors, SHORT)
    monkeypatch.setitem(chunks.CHUNK_TOKENS, "cpu", 3 * slices[0].source.shape[1])
    for a, b in zip(whole, objective_and_gradient(slices, vectors, SHORT), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(a.abs().max()))


@pytest.mark.parametrize("n", [1, 3])
def test_the_first_vectors_of_a_large_run_equal_a_small_run(tiny_double: LoadedModel, n: int) -> None:
    many = discover(tiny_double, replace(SHORT, n_vectors=8), PROMPTS)
    few = discover(tiny_double, replace(SHORT, n_vectors=n), PROMPTS)
    relative = (many.vectors[:n] - few.vectors).norm(dim=-1) / few.radius
    assert float(relative.max()) < 1e-5
    start = random_vectors(n, tiny_double.d_model, few.radius, True, few.config.seed)
    assert float((few.vectors - start).norm(dim=-1).min()) > 0.05 * few.radius  # they did move


def one_after_another(slices: list[Slice], start: Tensor, radius: float, config: DiscoveryConfig) -> Tensor:
    """The published loop, written plainly: a vector is trained to the end before the next one begins."""
    finished: list[Tensor] = []
    lr = config.lr * radius / start.shape[1] ** 0.5
    for first in start:
        theta = first.clone()
        mean, square, largest = torch.zeros_like(theta), torch.zeros_like(theta), torch.zeros_like(theta)
        for step in range(1, (config.steps or 0) + 1):
            _, gradient, _ = objective_and_gradient(slices, theta[None], config)
            g = gradient[0]
            for other in [*finished, theta]:
                g = g - (g @ other) / (other @ other) * other
            mean = 0.9 * mean + 0.1 * g
            square = 0.98 * square + 0.02 * g * g
            largest = torch.maximum(largest, square)
            theta = theta + lr * (mean / (1 - 0.9**step)) / ((largest / (1 - 0.98**step)).sqrt() + 1e-8)
            for other in finished:
                theta = theta - (theta @ other) / (other @ other) * other
            theta = theta * radius / theta.norm()
        finished.append(theta)
    return torch.stack(finished)


def test_one_vector_is_trained_as_published(tiny_double: LoadedModel) -> None:
    """Step by step, not only at convergence: amsgrad, betas, projections and the step size."""
    slices = make_slices(tiny_double, PROMPTS, 1, 3)
    config, radius = replace(SHORT, n_vectors=1, steps=25), 4.0
    start = random_vectors(1, tiny_double.d_model, radius, True, 0).double()
    vectors, _, _ = train(slices, start, radius, config)
    assert torch.allclose(vectors, one_after_another(slices, start, radius, config), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_parallel_training_converges_to_training_one_after_another(make_tiny: MakeTiny) -> None:
    """A small radius makes the problem nearly quadratic: one solution, up to signs."""
    loaded = make_tiny(n_layers=3, d_model=16)
    slices = make_slices(loaded, [chat("Hi!", None)], 0, 1)
    config, radius = DiscoveryConfig(n_vectors=3, steps=400, lr=0.05), 0.05
    start = random_vectors(3, loaded.d_model, radius, True, 0)
    parallel, _, _ = train(slices, start, radius, config)
    reference = one_after_another(slices, start, radius, config)
    assert float(cosines(parallel, reference).min()) > 0.99
    assert float(cosines(parallel, start).max()) < 0.9  # it is not the start that they share


@pytest.mark.parametrize("optimizer", ["published", "fast"])
def test_on_a_linear_slice_the_vectors_are_the_singular_vectors_in_order(optimizer: Optimizer) -> None:
    """Sum of ||J theta||^2 on the sphere, each orthogonal to those before: the eigenvectors of J'J."""
    turn = torch.linalg.qr(torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0)))[0]
    right = turn[0]
    maps = torch.stack([turn[1] @ torch.diag(0.75 ** torch.arange(8.0)) @ right.T] * 2)
    config = DiscoveryConfig(n_vectors=4, steps=600, lr=0.05, optimizer=optimizer)
    vectors, objective, output = train([LinearSlice(maps)], random_vectors(4, 8, 2.0, True, 1), 2.0, config)  # type: ignore[list-item]
    assert float(cosines(vectors, right.T[:4]).min()) > 0.999
    assert objective.tolist() == pytest.approx([2 * 4 * 0.75 ** (2 * i) for i in range(4)], rel=1e-2)
    assert torch.allclose(output, vectors @ maps[0].T, atol=1e-5)


def test_the_effect_penalty_compares_effects_on_the_same_prompt() -> None:
    """Two vectors act alike on one prompt and against each other on the next, so that their mean effects differ."""
    alike, against = torch.eye(4), torch.diag(torch.tensor([1.0, 1.0, 1.0, -1.0]))
    slices = [LinearSlice(torch.stack([m, 2 * m])) for m in (alike, against)]
    vectors = torch.tensor([[1.0, 2, 0, 3], [2.0, 1, 1, -3], [0, 1, 1, 1.0]], requires_grad=True)
    config = DiscoveryConfig(n_vectors=3, effect_penalty=2.0)
    problem = Problem(slices, config)  # type: ignore[arg-type]
    plain = problem.evaluate(vectors.detach())
    own = torch.stack([s.change(vectors, 2).mean(dim=1) for s in slices])  # [prompts, n, d_model]
    assert plain.effects is not None
    assert torch.allclose(plain.effects, own) and torch.allclose(plain.output, own.mean(dim=0))
    total = torch.zeros(())
    for prompt, piece in enumerate(slices):
        value = displacement(piece.change(vectors, 2), config.power, config.root)
        for i in range(3):
            others = [plain.effects[prompt, j] for j in range(3) if j != i]
            squares = [torch.cosine_similarity(own[prompt, i], o, dim=0) ** 2 for o in others]
            total = total + value[i] / (1 + 2.0 * torch.stack(squares).sum())
    total.backward()
    assert vectors.grad is not None
    found = problem.evaluate(vectors.detach(), others=plain.effects)
    assert torch.allclose(found.gradient, vectors.grad, rtol=1e-5, atol=1e-5)
    assert found.rows(torch.tensor([2, 0])).effects.equal(found.effects[:, [2, 0]])  # type: ignore[union-attr, index]
    assert Problem(slices, replace(config, effect_penalty=0.0)).evaluate(vectors.detach()).effects is None  # type: ignore[arg-type]


@pytest.mark.parametrize("chosen", ["melbo", "random"])
def test_all_vectors_have_norm_r_and_are_orthogonal(tiny: LoadedModel, chosen: str) -> None:
    bank = discover(tiny, replace(SHORT, n_vectors=16, method=chosen), PROMPTS)  # type: ignore[arg-type]
    assert bank.vectors.norm(dim=-1).tolist() == pytest.approx([bank.radius] * 16, rel=1e-5)
    gram = (bank.vectors @ bank.vectors.T) / bank.radius**2
    assert float((gram - torch.eye(16)).abs().max()) < 1e-5
    assert bank.output_directions.norm(dim=-1).tolist() == pytest.approx([1.0] * 16, rel=1e-5)


def test_a_full_basis_can_be_trained(make_tiny: MakeTiny) -> None:
    loaded = make_tiny(d_model=16)
    bank = discover(loaded, replace(SHORT, n_vectors=16), PROMPTS)
    gram = (bank.vectors @ bank.vectors.T) / bank.radius**2
    assert float((gram - torch.eye(16)).abs().max()) < 1e-5


def test_without_orthogonality_vectors_train_alone(tiny_double: LoadedModel) -> None:
    config = replace(SHORT, n_vectors=4, orthogonal=False)
    start = random_vectors(4, tiny_double.d_model, 4.0, False, 0).double()
    slices = make_slices(tiny_double, PROMPTS, 1, 3)
    together, _, _ = train(slices, start, 4.0, config)
    for i in range(4):
        alone, _, _ = train(slices, start[i : i + 1], 4.0, config)
        assert torch.allclose(together[i], alone[0], rtol=0, atol=1e-5)


def same_tensors(a: VectorBank, b: VectorBank) -> bool:
    pairs = [(a.vectors, b.vectors), (a.objective, b.objective), (a.output_directions, b.output_directions)]
    return all(torch.equal(x, y) for x, y in pairs)


def test_the_same_seed_gives_the_same_bank_to_the_last_bit(tiny: LoadedModel) -> None:
    first = discover(tiny, SHORT, PROMPTS)
    torch.manual_seed(99)  # the caller's random state has no say
    assert same_tensors(first, discover(tiny, SHORT, PROMPTS))
    other = discover(tiny, replace(SHORT, seed=SHORT.seed + 1), PROMPTS)
    assert float(cosines(first.vectors, other.vectors).max()) < 0.99


@pytest.mark.parametrize("d_model", [3, 8, 16, 24, 67, 192])
def test_random_vectors_do_not_depend_on_how_many_are_drawn(d_model: int) -> None:
    many = random_vectors(3, d_model, 2.0, True, 5)
    for n in (1, 2):
        assert torch.allclose(random_vectors(n, d_model, 2.0, True, 5), many[:n], atol=1e-6)


def test_training_raises_the_objective_above_the_control(tiny: LoadedModel) -> None:
    bank = discover(tiny, replace(SHORT, steps=30), PROMPTS)
    control = random_control(tiny, bank)
    assert float(bank.objective.mean()) > 1.5 * float(control.objective.mean())
    assert (control.radius, control.layer, len(control)) == (bank.radius, bank.layer, len(bank))
    assert control.config.target_layer == bank.config.target_layer
    assert control.prompts == bank.prompts
    start = discover(tiny, replace(SHORT, steps=0), PROMPTS)
    assert float(cosines(start.vectors, control.vectors).max()) < 0.9  # other draws than the run's starting points


def test_the_control_of_selected_vectors_has_as_many(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    assert len(random_control(tiny, tiny_bank.select([5, 2]))) == 2


def test_the_control_is_refused_for_another_model(make_tiny: MakeTiny, tiny_bank: VectorBank) -> None:
    with pytest.raises(BankError, match="d_model 32"):
        random_control(make_tiny(d_model=32), tiny_bank)


def test_no_steps_give_the_random_control(tiny: LoadedModel) -> None:
    untrained = discover(tiny, replace(SHORT, steps=0), PROMPTS)
    assert same_tensors(untrained, discover(tiny, replace(SHORT, method="random"), PROMPTS))


def test_the_radius_is_in_residual_norms_or_absolute(tiny: LoadedModel) -> None:
    residual = discover(tiny, replace(SHORT, method="random", radius=0.5, radius_unit="residual"), PROMPTS)
    assert residual.radius == pytest.approx(0.5 * residual.mean_residual_norm)
    absolute = discover(tiny, replace(SHORT, method="random", radius=0.5, radius_unit="absolute"), PROMPTS)
    assert absolute.radius == 0.5
    assert absolute.mean_residual_norm == residual.mean_residual_norm
    assert residual.mean_residual_norm != pytest.approx(1.0, rel=0.01)


def test_a_bank_says_how_it_was_made(tiny: LoadedModel) -> None:
    bank = discover(tiny, SHORT, PROMPTS)
    assert bank.config == SHORT.resolve(4, 64)
    assert bank.layer == bank.config.source_layer == 1
    assert (bank.base_model.id, bank.base_model.d_model, bank.base_model.n_layers) == ("tiny", 64, 4)
    assert [list(p) for p in bank.prompts] == PROMPTS
    assert set(bank.versions) >= {"torch", "transformers"} and bank.created
    bank.check_fits(tiny)


def test_progress_is_told_of_every_step(tiny: LoadedModel) -> None:
    seen: list[Progress] = []
    discover(tiny, SHORT, PROMPTS, seen.append)
    assert [(step.done, step.total) for step in seen] == [(i, 8) for i in range(1, 9)]
    assert (seen[-1].value or 0) > (seen[0].value or 0) > 0


def test_an_exception_from_progress_cancels_the_run(tiny: LoadedModel) -> None:
    class Cancelled(Exception):
        pass

    def cancel(step: Progress) -> None:
        if step.done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        discover(tiny, SHORT, PROMPTS, cancel)
    assert hook_count(tiny) == 0


def test_an_objective_that_is_not_finite_stops_training() -> None:
    maps = torch.ones(2, 8, 8)
    maps[0, 0, 0] = torch.nan
    with pytest.raises(TrainingError, match="vector 0 is not finite at step 0; lower the radius"):
        train([LinearSlice(maps)], random_vectors(2, 8, 1.0, True, 0), 1.0, SHORT)  # type: ignore[list-item]


def test_bad_prompts_and_settings_are_refused(tiny: LoadedModel) -> None:
    with pytest.raises(PromptError, match="at least one"):
        discover(tiny, SHORT, [])
    with pytest.raises(PromptError, match="empty"):
        discover(tiny, SHORT, [chat(BOMB), chat(" ")])
    with pytest.raises(ConfigError, match="target_tokens is 10, but the shortest prompt has"):
        discover(tiny, replace(SHORT, target_tokens=10), PROMPTS)
    with pytest.raises(ConfigError, match="4 blocks"):
        discover(tiny, replace(SHORT, target_layer=4), PROMPTS)


def test_skipped_tokens_are_left_out_of_the_objective(tiny: LoadedModel) -> None:
    """Two tokens with one skipped are the third and second last."""
    piece = make_slices(tiny, PROMPTS, 1, 2)[0]
    vectors = random_vectors(2, tiny.d_model, 4.0, True, 0)
    whole = piece.run(vectors) - piece.target
    assert torch.allclose(piece.change(vectors, 2, 1), whole[:, -3:-1], atol=1e-5 * float(whole.abs().max()))
    found = discover(tiny, replace(SHORT, skip_tokens=1), PROMPTS)
    assert not torch.allclose(found.vectors, discover(tiny, SHORT, PROMPTS).vectors, atol=1e-3)
    with pytest.raises(ConfigError, match="skip_tokens 500, but the shortest prompt has"):
        discover(tiny, replace(SHORT, skip_tokens=500), PROMPTS)


def test_several_processes_need_a_launcher(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(ConfigError, match=r"LOCAL_RANK.*accelerate launch"):
        discover(tiny, SHORT, PROMPTS)

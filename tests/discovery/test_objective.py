"""The displacement objective against its formula, and the projections against their guarantees."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from melbo.discovery.objective import displacement
from melbo.steering.sphere import orthonormalize, project_gradient, to_sphere


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("p", "q"), [(2.0, 1.0), (2.0, 2.0), (4.0, 4.0), (1.0, 1.0), (3.0, 0.5)])
def test_displacement_is_its_formula(p: float, q: float) -> None:
    change = draw(5, 3, 7)
    expected = [sum(sum(float(x) ** 2 for x in token) ** (p / 2) for token in row) ** (1 / q) for row in change]
    assert displacement(change, p, q).tolist() == pytest.approx(expected, rel=1e-12)


def test_the_norm_is_over_d_model_and_not_over_tokens() -> None:
    change = torch.zeros(1, 2, 2)
    change[0, 0, 0] = change[0, 0, 1] = 1.0  # one token of norm sqrt(2): p = 4 gives 4, the token axis would give 2
    assert float(displacement(change, 4.0, 1.0)) == pytest.approx(4.0)


@pytest.mark.parametrize(("p", "q"), [(2.0, 1.0), (1.0, 1.0), (4.0, 4.0), (2.0, 2.0)])
def test_no_change_has_a_finite_gradient(p: float, q: float) -> None:
    change = torch.zeros(2, 3, 4, requires_grad=True)
    displacement(change, p, q).sum().backward()
    assert change.grad is not None and bool(torch.isfinite(change.grad).all())


def test_orthonormal_rows_span_the_same_nested_spaces() -> None:
    vectors = draw(6, 10)
    unit = orthonormalize(vectors)
    assert torch.allclose(unit @ unit.T, torch.eye(6, dtype=unit.dtype), atol=1e-12)
    for i in range(6):
        span = unit[: i + 1]
        assert torch.allclose(vectors[i], vectors[i] @ span.T @ span, atol=1e-12)
        assert float(vectors[i] @ unit[i]) > 0  # the sign is kept


def test_a_row_does_not_depend_on_the_rows_after_it() -> None:
    vectors = draw(6, 10)
    for k in range(1, 6):
        assert torch.allclose(orthonormalize(vectors[:k]), orthonormalize(vectors)[:k], atol=1e-12)


def test_float32_rows_come_back_as_float32_and_orthogonal() -> None:
    unit = orthonormalize(draw(64, 64).float())
    assert unit.dtype == torch.float32
    assert float((unit @ unit.T - torch.eye(64)).abs().max()) < 1e-5


@pytest.mark.parametrize("orthogonal", [True, False])
def test_the_sphere_has_radius_r(orthogonal: bool) -> None:
    points = to_sphere(draw(5, 8), 3.5, orthogonal)
    assert points.norm(dim=-1).tolist() == pytest.approx([3.5] * 5, rel=1e-12)


def test_without_orthogonality_only_the_length_changes() -> None:
    vectors = draw(5, 3)
    points = to_sphere(vectors, 2.0, orthogonal=False)
    assert torch.allclose(torch.nn.functional.cosine_similarity(points, vectors, dim=-1), torch.ones(5).double())


@pytest.mark.parametrize("orthogonal", [True, False])
def test_points_on_the_sphere_stay_where_they_are(orthogonal: bool) -> None:
    points = to_sphere(draw(5, 8), 2.0, True)
    assert torch.allclose(to_sphere(points, 2.0, orthogonal), points, atol=1e-12)


def test_the_projected_gradient_is_tangent_and_off_earlier_vectors_only() -> None:
    vectors, gradient = to_sphere(draw(5, 8), 2.0, True), draw(5, 8, seed=1)
    overlap = project_gradient(gradient, vectors, True) @ vectors.T  # [gradient, vector]
    raw = gradient @ vectors.T
    for i in range(5):
        for j in range(5):
            assert float(overlap[i, j]) == pytest.approx(0.0 if j <= i else float(raw[i, j]), abs=1e-12)


def test_without_orthogonality_the_gradient_is_only_made_tangent() -> None:
    vectors, gradient = to_sphere(draw(5, 3), 2.0, False), draw(5, 3, seed=1)
    projected = project_gradient(gradient, vectors, False)
    unit = vectors / 2.0
    expected = gradient - (gradient * unit).sum(dim=-1, keepdim=True) * unit
    assert torch.allclose(projected, expected, atol=1e-12)

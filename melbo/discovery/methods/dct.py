"""Deep causal transcoding: factors v_i (steering) and u_i (output) that explain the slice's outputs D(theta).

Mack & Turner 2024, "Deep Causal Transcoding" (LessWrong fSRg5qs9TPbNy3sm5). D is the change of the target activations,
mean over the target tokens and the prompts; R the radius.
- "exponential": V <- QR(V); U <- D(R V), normalised; V <- gradient of <U, D(R V)>, normalised; about eight times.
- "linear": right singular vectors of the whole Jacobian of D at zero; "projected": of 32 random output directions'
  vector-Jacobian products.
- "quadratic": the same iteration on the second derivative: U <- D''(0)[v, v]; V <- (Hessian of <U, D>) v. The published
  code of that name never takes a second derivative; this does.
Factors are ranked by alpha^2; alpha solves ((U U') * (exp(V V') - 1)) alpha = diag(U D(R V)'), element by element.
Ours steers and reads at the same residual stream; the published code trains on a layer's input and steers its output.
"""

import torch
from torch import Tensor

from melbo.config import PROJECTED, DiscoveryConfig
from melbo.discovery.problem import Evaluation, Problem, check_finite
from melbo.runs.checkpoint import Run
from melbo.steering.sphere import orthonormalize


def find(
    problem: Problem, start: Tensor, radius: float, config: DiscoveryConfig, run: Run
) -> tuple[Tensor, Tensor, Evaluation]:
    """Vectors [n, d_model] of norm `radius`, strongest factor first, their scores alpha^2 [n], and what they reach."""
    if config.variant in ("linear", "projected"):
        unit = _jacobian_directions(problem, start, config)
    else:
        unit = _iterate(problem, start, radius, config, run)
    vectors = unit * radius
    reached = problem.evaluate(vectors, gradient=False)
    score = factor_scores(unit, reached.output)
    order = score.argsort(descending=True)
    return vectors[order], score[order], reached.rows(order)


def _iterate(problem: Problem, start: Tensor, radius: float, config: DiscoveryConfig, run: Run) -> Tensor:
    first, saved = run.restore()
    unit = saved["vectors"].to(start) if saved else orthonormalize(start)
    for step in range(first, config.steps or 0):
        if config.variant == "quadratic":
            output = problem.curvature(unit) / 2
            gradient = problem.hessian_product(unit, torch.nn.functional.normalize(output, dim=-1))
        elif len(problem.slices) == 1:
            # the gradient of ||D|| is that of <u, D> with u = D / ||D||: one pass instead of two
            found = problem.evaluate_with(lambda change, _rows, _piece: change.mean(dim=1).norm(dim=-1), unit * radius)
            output, gradient = found.output, found.gradient
        else:
            output = problem.evaluate(unit * radius, gradient=False).output
            _, gradient = problem.pull_back(unit * radius, torch.nn.functional.normalize(output, dim=-1))
        check_finite(step, output=output, gradient=gradient)
        unit = orthonormalize(gradient)
        run.step(step + 1, config.steps or 0, float(output.norm(dim=-1).mean()), {"vectors": unit})
    return unit


def _jacobian_directions(problem: Problem, start: Tensor, config: DiscoveryConfig) -> Tensor:
    """Right singular vectors of the Jacobian at zero, or of some of its rows, strongest first."""
    d_model = start.shape[1]
    if config.variant == "linear":
        directions = torch.eye(d_model).to(start)
    else:
        generator = torch.Generator().manual_seed(config.seed)
        directions = torch.randn(PROJECTED, d_model, generator=generator).to(start)
    _, rows = problem.pull_back(torch.zeros_like(directions), directions)
    check_finite(0, gradient=rows)
    right: Tensor = torch.linalg.svd(rows.double(), full_matrices=False)[2]
    return right[: config.n_vectors].to(start)


def factor_scores(unit: Tensor, output: Tensor) -> Tensor:
    """alpha^2 of each factor [n]. unit: steering directions of norm 1 [n, d_model]; output: D(R unit) [n, d_model]."""
    v, d = unit.double(), output.double()
    u = torch.nn.functional.normalize(d, dim=-1)
    system = (u @ u.T) * torch.expm1(v @ v.T)
    alpha: Tensor = torch.linalg.lstsq(system, (u * d).sum(dim=-1, keepdim=True)).solution[:, 0]
    return alpha.square().to(unit)

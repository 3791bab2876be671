"""More vectors with the same effect as a given one, orthogonal to it and to each other.

The idea of ">800 orthogonal code vectors" (LessWrong CbSEZSpjdpnvBcEvc): minimise ||z(theta) - z(theta_0)||^2 over the
target tokens while theta stays orthogonal to theta_0 and to all found before. Orthogonal does not mean different
behaviour; how alike the effects are is stored as each vector's score.
"""

import torch
from torch import Tensor

from melbo.config import DiscoveryConfig
from melbo.discovery.methods.displacement import published
from melbo.discovery.problem import Evaluation, Problem
from melbo.runs.checkpoint import Run


def find(
    problem: Problem, start: Tensor, radius: float, config: DiscoveryConfig, run: Run, reference: Tensor
) -> tuple[Tensor, Tensor]:
    """Vectors [n, d_model] and the cosine of each one's output with that of `reference` [d_model]."""
    reference = reference.to(start)
    tokens = config.target_tokens
    with torch.no_grad():
        row = reference[None]
        wanted = [piece.change(row.to(piece.source.device), tokens, config.skip_tokens) for piece in problem.slices]

    def closeness(change: Tensor, _rows: slice, piece: int) -> Tensor:
        return -(change - wanted[piece]).square().sum(dim=(1, 2))

    def evaluate(vectors: Tensor, _effects: Tensor | None) -> Evaluation:
        return problem.evaluate_with(closeness, vectors)

    vectors = published(evaluate, start, radius, config, run, fixed=reference[None])
    outputs = problem.evaluate(torch.cat([reference[None], vectors]), gradient=False).output
    return vectors, torch.nn.functional.cosine_similarity(outputs[1:], outputs[:1], dim=-1)

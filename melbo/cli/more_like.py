"""`melbo more-like`: find vectors with the effect of one of a bank's."""

from typing import Annotated

import typer

from melbo.bank.vector_bank import VectorBank
from melbo.cli.arguments import ANYWHERE, Bank, BankModel, Force, NewBank, Where
from melbo.cli.common import check_out, report, run_training
from melbo.cli.options import Fields
from melbo.config import DiscoveryConfig, default_steps
from melbo.discovery.discover import find_more_like

BASE = DiscoveryConfig(method="more-like", n_vectors=16)


def more_like(
    bank: Bank,
    vector: Annotated[int, typer.Argument(help="Which of its vectors.")],
    out: NewBank,
    config: Annotated[DiscoveryConfig, Fields(("n_vectors", "steps"))] = BASE,
    model: BankModel = None,
    where: Where = ANYWHERE,
    force: Force = False,
) -> None:
    """Find vectors with the effect of one of a bank's, orthogonal to it, and save them as a new bank."""
    check_out(out, force)
    old = VectorBank.load(bank)
    loaded = where.load_for(old, model)
    steps = default_steps(config) if config.steps is None else config.steps
    run_training(
        lambda progress, checkpoint: find_more_like(loaded, old, vector, config.n_vectors, progress, checkpoint, steps),
        report,
        out,
        steps,
    )

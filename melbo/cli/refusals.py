"""`melbo refusals`: what one vector does to refusals."""

from typing import Annotated

import typer

from melbo.cli.arguments import ANYWHERE, Bank, BankModel, Result, Tokens, Where
from melbo.cli.common import plain, say, stages
from melbo.cli.options import default_of
from melbo.elicitation.refusals import study_refusals
from melbo.elicitation.tables import refusal_table
from melbo.prompts import REFUSED


def refusals(
    bank: Bank,
    vector: Annotated[int, typer.Option(help="The vector to study.")],
    out: Result = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="To choose on; may be given often. Default: the bank's.")
    ] = None,
    heldout: Annotated[
        list[str] | None, typer.Option(help="To report on; may be given often. Default: ten prompts.")
    ] = None,
    max_new_tokens: Tokens = default_of(study_refusals, "max_new_tokens"),
    model: BankModel = None,
    where: Where = ANYWHERE,
) -> None:
    """Measure what one vector does to refusals: added, subtracted, ablated, and a random one of the same norm."""
    loaded, held = where.load_both(bank, model)
    with stages("answer") as show:
        train = prompt or [p[-1]["content"] for p in held.prompts]
        others = heldout or [p for p in REFUSED if p not in train]
        found = study_refusals(loaded, held, vector, train, others, max_new_tokens=max_new_tokens, progress=show)
    if out is not None:
        found.save(out)
    say(plain(refusal_table(found)))

"""`melbo inspect lens`: the tokens that each vector promotes and suppresses."""

from typing import Annotated

import typer

from melbo.bank.select import chosen_vectors
from melbo.cli.arguments import ANYWHERE, Bank, NoDuds, Result, Vectors, Where
from melbo.cli.common import plain, say
from melbo.cli.options import default_of
from melbo.inspect.lens.logit_lens import logit_lens, save_lens


def lens(
    bank: Bank,
    vector: Vectors = None,
    no_duds: NoDuds = False,
    site: Annotated[
        list[str] | None,
        typer.Option(
            help='"effect" after the last block, "vector" or "output" direction; many times for several. '
            "Default: effect."
        ),
    ] = None,
    k: Annotated[int, typer.Option(help="Tokens promoted, and as many suppressed.")] = default_of(logit_lens, "k"),
    out: Result = None,
    where: Where = ANYWHERE,
) -> None:
    """Print the tokens that each vector promotes and suppresses, by the model's own unembedding."""
    loaded, vectors = where.load_both(bank)
    chosen = chosen_vectors(vectors, vector, not no_duds)
    found = [logit_lens(loaded, vectors, s, chosen, k) for s in dict.fromkeys(site or ["effect"])]  # type: ignore[arg-type]
    if out is not None:
        save_lens(found, out)
    say(plain("\n\n".join(report.table() for report in found)))

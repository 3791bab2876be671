"""`melbo inspect patchscope`: the model's own words for a vector."""

from typing import Annotated

import typer

from melbo.cli.arguments import ANYWHERE, Bank, Where
from melbo.cli.common import plain, say
from melbo.cli.options import default_of
from melbo.errors import ConfigError
from melbo.inspect.lens.patchscope import ASK, describe


def patchscope(
    bank: Bank,
    vector: Annotated[list[int], typer.Option(help="May be given many times.")],
    layer: Annotated[int | None, typer.Option(help="Where the vector is put. Default: the source layer.")] = None,
    question: Annotated[str, typer.Option(help="Holds the word X in the vector's place.")] = ASK,
    scale: Annotated[float, typer.Option(help="Length, in units of what is replaced; may be negative.")] = default_of(
        describe, "scale"
    ),
    where: Where = ANYWHERE,
) -> None:
    """Let the model say in its own words what a vector means. Small models answer with nonsense."""
    if not vector:
        raise ConfigError("no vector was chosen; give --vector.")
    loaded, vectors = where.load_both(bank)
    found = describe(loaded, vectors, vector, layer, question, scale)
    lines = [f"question: {found.question}", f"without a vector: {found.unpatched}", f"random: {found.random}"]
    lines += [f"vector {i}: {text}" for i, text in zip(vector, found.answers, strict=True)]
    say(plain("\n".join(lines)))

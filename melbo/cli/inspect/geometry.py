"""`melbo inspect geometry`: how vectors and effects lie to each other."""

from pathlib import Path
from typing import Annotated

import typer

from melbo.cli.arguments import ANYWHERE, Bank, Result, Where
from melbo.cli.common import plain, say
from melbo.cli.inspect.everything import read_contrasts
from melbo.cli.options import default_of
from melbo.inspect.geometry.similarity import measure_geometry
from melbo.inspect.geometry.similarity import plot as plot_geometry
from melbo.runs.figures import check_drawable


def geometry(
    bank: Bank,
    out: Result = None,
    plot: Annotated[Path | None, typer.Option(help="File for the plots, .png or .svg; needs matplotlib.")] = None,
    contrasts: Annotated[
        str | None,
        typer.Option(
            help='JSON of contrastive prompts: {"name": {"positive": [...], "negative": [...]}}, or "organism".'
        ),
    ] = None,
    threshold: Annotated[float, typer.Option(help="Mean cosine down to which vectors form a cluster.")] = default_of(
        measure_geometry, "threshold"
    ),
    where: Where = ANYWHERE,
) -> None:
    """Measure how vectors and effects lie to each other, to contrasts, and to later layers."""
    if plot is not None:
        check_drawable(plot.suffix)
    loaded, vectors = where.load_both(bank)
    found = measure_geometry(loaded, vectors, read_contrasts(contrasts), threshold)
    if out is not None:
        found.save(out)
    if plot is not None:
        plot_geometry(found, plot)
    say(plain(found.table()))

"""Command line: `python -m melbo train | more-like | generate | show | atlas | adapters | export-peft`."""

from __future__ import annotations

from typing import Annotated

import typer

from melbo import __version__
from melbo.cli.adapters import adapters, export_adapter
from melbo.cli.annotate import annotate_bank
from melbo.cli.atlas import atlas
from melbo.cli.audit import audit
from melbo.cli.bank import show
from melbo.cli.common import guarded, quiet_libraries
from melbo.cli.elicit import elicit_tasks
from melbo.cli.export import export, import_file
from melbo.cli.generate import generate
from melbo.cli.hidden import backdoors, monitor, refusals
from melbo.cli.hub import banks, card, merge, pull, push, select, space
from melbo.cli.inspect import inspect_app
from melbo.cli.study import study_app
from melbo.cli.sweep import sweep
from melbo.cli.train import more_like, train

app = typer.Typer(
    name="melbo", add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)
app.command()(guarded(train))
app.command("more-like")(guarded(more_like))
app.command()(guarded(generate))
app.command()(guarded(show))
app.add_typer(inspect_app, name="inspect")
app.add_typer(study_app, name="study")
app.command()(guarded(audit))
app.command("annotate")(guarded(annotate_bank))
app.command()(guarded(sweep))
app.command("elicit")(guarded(elicit_tasks))
app.command()(guarded(backdoors))
app.command()(guarded(refusals))
app.command()(guarded(monitor))
app.command()(guarded(atlas))
app.command()(guarded(adapters))
app.command("export-peft")(guarded(export_adapter))
app.command()(guarded(export))
app.command("import")(guarded(import_file))
for command in (pull, push, card, space, select, merge, banks):
    app.command()(guarded(command))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"melbo {__version__}")
        raise typer.Exit


@app.callback()
def setup(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Find steering vectors that elicit a language model's latent behaviours, and use them."""
    quiet_libraries()


def main() -> None:
    """Entry point of the `melbo` command."""
    app()


if __name__ == "__main__":
    main()

"""Command line: `python -m melbo train | more-like | generate | show | atlas | adapters | export-peft`."""

from __future__ import annotations

from typing import Annotated

import typer

from melbo import __version__
from melbo.cli_adapters import adapters, export_adapter
from melbo.cli_atlas import atlas
from melbo.cli_bank import show
from melbo.cli_common import guarded, quiet_libraries
from melbo.cli_generate import generate
from melbo.cli_train import more_like, train

app = typer.Typer(
    name="melbo", add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)
app.command()(guarded(train))
app.command("more-like")(guarded(more_like))
app.command()(guarded(generate))
app.command()(guarded(show))
app.command()(guarded(atlas))
app.command()(guarded(adapters))
app.command("export-peft")(guarded(export_adapter))


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

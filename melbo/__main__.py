"""Command line: `melbo train | generate | show | ...`; melbo/cli/commands.py lists them all, one line for each."""

from typing import Annotated

import typer

from melbo import __version__
from melbo.cli.commands import COMMANDS, lazy_app

app = lazy_app(COMMANDS, name="melbo", add_completion=False, pretty_exceptions_enable=False)


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


def main() -> None:
    """Entry point of the `melbo` command."""
    app()


if __name__ == "__main__":
    main()

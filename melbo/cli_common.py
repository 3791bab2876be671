"""What the commands share: errors as one line, quiet libraries, text that is safe to print."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec

import torch
import typer
from huggingface_hub.utils import enable_progress_bars
from huggingface_hub.utils import logging as hub_logging
from transformers.utils import logging as transformers_logging

from melbo.errors import MelboError

ERROR_CODE = 2
INTERRUPT_CODE = 130
P = ParamSpec("P")


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """The same command; errors that users can cause end as one line on stderr and exit code 2, Ctrl-C as 130."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except BrokenPipeError:  # `melbo show bank | head`: typer ends quietly
            raise
        except (MelboError, OSError) as error:
            _fail(str(error), ERROR_CODE)
        except torch.OutOfMemoryError:
            _fail("the device is out of memory; ask for fewer vectors, a smaller model, or --device cpu.", ERROR_CODE)
        except KeyboardInterrupt:
            typer.echo("melbo: stopped; nothing was saved.", err=True)
            raise typer.Exit(INTERRUPT_CODE) from None

    return run


def _fail(message: str, code: int) -> None:
    typer.echo(f"melbo: error: {' '.join(plain(message).split())}", err=True)
    raise typer.Exit(code)


def quiet_libraries() -> None:
    """Keep libraries' warnings and loading bars out of the output; the Hub's download bars stay."""
    warnings.filterwarnings("ignore", module="transformers|torch|huggingface_hub")
    hub_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    enable_progress_bars()


def plain(text: object) -> str:
    """Printable text: control characters, which a model or a bank's file could use to steer a terminal, become "?"."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in str(text))

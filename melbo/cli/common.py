"""What the commands share: options, errors as one line, runs that can be stopped, text that is safe to print."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, ParamSpec, Protocol, TypeVar

import torch
import typer
from huggingface_hub.utils import enable_progress_bars
from huggingface_hub.utils import logging as hub_logging
from tqdm import tqdm
from transformers.utils import logging as transformers_logging

from melbo.discover.processes import process_rank
from melbo.discover.run import Progress
from melbo.errors import MelboError

ERROR_CODE = 2
INTERRUPT_CODE = 130
P = ParamSpec("P")
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")]
Device = Annotated[
    str | None, typer.Option(help='"cpu", "cuda", ..., or "auto": over all devices. Default: a GPU where there is one.')
]
Blocks = Annotated[
    str | None, typer.Option(help="Path of the decoder blocks within the model, for an architecture that is not known.")
]


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


def say(text: str) -> None:
    """Print, in the first process only."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(text)


class Savable(Protocol):
    """A VectorBank or an AdapterBank."""

    def save(self, folder: str | Path) -> Path: ...


B = TypeVar("B", bound=Savable)


def run_and_save(find: Callable[[Progress, Path], B], report: Callable[[B, Path], str], out: Path, steps: int) -> None:
    """Find a bank with a progress bar and a checkpoint beside `out`; save it there and report."""
    checkpoint = out.absolute().with_name(f".{out.absolute().name}.checkpoint.safetensors")
    if checkpoint.exists():
        say(f"going on from {checkpoint}")
    # no bar in a log file, for other processes, nor for the control, which takes no steps
    hidden = True if not steps or os.environ.get("RANK", "0") != "0" else None
    with tqdm(total=steps, unit="step", leave=False, disable=hidden) as bar, resumable(checkpoint):

        def show_progress(done: int, _total: int, objective: float) -> None:
            bar.set_postfix(objective=f"{objective:.4g}", refresh=False)
            bar.update(done - bar.n)

        bank = find(show_progress, checkpoint)
    if process_rank() == 0:
        bank.save(out)
        checkpoint.unlink(missing_ok=True)
        typer.echo(report(bank, out))


@contextmanager
def resumable(checkpoint: Path) -> Iterator[None]:
    """Within the block, Ctrl-C says how to go on, once there is a checkpoint."""
    try:
        yield
    except KeyboardInterrupt:
        if not checkpoint.exists():
            raise
        typer.echo(f"melbo: stopped; run the same command again to go on, or delete {checkpoint}.", err=True)
        raise typer.Exit(INTERRUPT_CODE) from None

"""What the commands share: options, errors as one line, runs that can be stopped, text that is safe to print."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

import typer
from tqdm import tqdm

from melbo.errors import MelboError

if TYPE_CHECKING:
    from melbo.runs.progress import OnProgress, Progress

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
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":  # torch's; not every command needs torch
                raise
            _fail("the device is out of memory; ask for fewer vectors, a smaller model, or --device cpu.", ERROR_CODE)
        except KeyboardInterrupt:
            typer.echo("melbo: stopped; nothing was saved.", err=True)
            raise typer.Exit(INTERRUPT_CODE) from None

    return run


def _fail(message: str, code: int) -> None:
    typer.echo(f"melbo: error: {' '.join(plain(message).split())}", err=True)
    raise typer.Exit(code)


def plain(text: object) -> str:
    """Printable text: control characters, which a model or a bank's file could use to steer a terminal, become "?"."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in str(text))


def say(text: str) -> None:
    """Print, in the first process only."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(text)


class Savable(Protocol):
    """A VectorBank or an AdapterBank."""

    def save(self, folder: str | Path) -> Path:
        """Write it to a folder."""


B = TypeVar("B", bound=Savable)


def run_and_save(
    find: Callable[[OnProgress, Path], B], report: Callable[[B, Path], str], out: Path, steps: int
) -> None:
    """Find a bank with a progress bar and a checkpoint beside `out`; save it there and report."""
    from melbo.runs.processes import process_rank
    from melbo.runs.progress import on_bar

    checkpoint = checkpoint_of(out, ".safetensors")
    if checkpoint.exists():
        say(f"going on from {checkpoint}")
    # no bar in a log file, for other processes, nor for the control, which takes no steps
    hidden = True if not steps or os.environ.get("RANK", "0") != "0" else None
    with tqdm(total=steps, unit="step", leave=False, disable=hidden) as bar, resumable(checkpoint):
        bank = find(on_bar(bar, "objective"), checkpoint)
    if process_rank() == 0:
        bank.save(out)
        checkpoint.unlink(missing_ok=True)
        typer.echo(report(bank, out))


@contextmanager
def stages(unit: str | None = None) -> Iterator[OnProgress]:
    """Show work in named stages, in the first process only: a bar, or, without a terminal, a line on stderr for each.

    Args:
        unit: of what is counted, where its speed is worth telling.

    Yields:
        What the work tells; each message is a stage.
    """
    hidden = True if os.environ.get("RANK", "0") != "0" else None
    layout = None if unit else "{desc}: {percentage:3.0f}%|{bar}| {elapsed}"
    with tqdm(desc="starting", unit=unit or "it", leave=False, disable=hidden, bar_format=layout) as bar:
        before: str | None = None

        def show(step: Progress) -> None:
            nonlocal before
            new, before = step.message != before, step.message
            if bar.disable and new and not hidden:
                typer.echo(plain(step.message), err=True)
            bar.total = max(step.total, step.done, 1)
            bar.update(step.done - bar.n)
            bar.set_description_str(plain(step.message), refresh=new)

        yield show


def checkpoint_of(out: Path, ending: str = ".json") -> Path:
    """The checkpoint beside a result, which is hidden where names that begin with a dot are."""
    return out.absolute().with_name(f".{out.absolute().name}.checkpoint{ending}")


@contextmanager
def resumable(checkpoint: Path | None) -> Iterator[None]:
    """Within the block, Ctrl-C says how to go on, once there is a checkpoint."""
    try:
        yield
    except KeyboardInterrupt:
        if checkpoint is None or not checkpoint.exists():
            raise
        typer.echo(f"melbo: stopped; run the same command again to go on, or delete {checkpoint}.", err=True)
        raise typer.Exit(INTERRUPT_CODE) from None

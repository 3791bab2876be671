"""What the commands share: errors as one line, runs that can be stopped and are saved, text that is safe to print."""

import functools
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

import torch
import typer
from tqdm import tqdm

from melbo.bank.save import replaceable
from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError, MelboError
from melbo.models.load import LoadedModel
from melbo.runs.processes import process_rank
from melbo.runs.progress import OnProgress, Progress, on_bar

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
            _fail(str(error))
        except torch.OutOfMemoryError:
            _fail("the device is out of memory; ask for fewer vectors, a smaller model, or --device cpu.")
        except KeyboardInterrupt:
            typer.echo("melbo: stopped; nothing was saved.", err=True)
            raise typer.Exit(INTERRUPT_CODE) from None

    return run


def _fail(message: str) -> None:
    typer.echo(f"melbo: error: {' '.join(plain(message).split())}", err=True)
    raise typer.Exit(ERROR_CODE)


def plain(text: object) -> str:
    """Printable text: control characters, which a model or a bank's file could use to steer a terminal, become "?"."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in str(text))


def say(text: str) -> None:
    """Print, in the first process only."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(text)


def say_model(loaded: LoadedModel) -> None:
    """Tell which model was loaded, and how it computes."""
    say(f"model {loaded.name}: {loaded.n_layers} blocks, d_model {loaded.d_model}, {loaded.dtype} on {loaded.device}")


class Savable(Protocol):
    """A bank, or another result."""

    def save(self, path: Path, /) -> object:
        """Write it to a file or folder."""


R = TypeVar("R", bound=Savable)
Find = Callable[[OnProgress, Path | None], R]


def run_and_save(find: Find[R], out: Path | None, bar: AbstractContextManager[OnProgress], ending: str = ".json") -> R:
    """Find a result with a bar and, where it is to be saved to `out`, a checkpoint beside that; save it there."""
    checkpoint = None if out is None else checkpoint_of(out, ending)
    with bar as show, resumable(checkpoint):
        found = find(show, checkpoint)
    if out is not None and checkpoint is not None and process_rank() == 0:
        found.save(out)
        checkpoint.unlink(missing_ok=True)
    return found


def check_out(out: Path, force: bool) -> None:
    """Find out before training whether a bank can be saved to `out`.

    Raises:
        BankError: `out` is a file, cannot be written, holds a bank (without `force`), or holds other files.
    """
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise BankError(f"{out} cannot be written: {parent} is not a folder that you may write to; choose another.")
    if not out.exists():
        return
    if not out.is_dir():
        raise BankError(f"{out} is a file; choose a new folder.")
    if not replaceable(out):
        raise BankError(f"{out} holds other files and is not a bank; choose a new folder.")
    if any(out.iterdir()) and not force:
        raise BankError(f"{out} already holds a bank; choose a new folder, or add --force to replace it.")


def run_training(find: Find[R], report: Callable[[R, Path], str], out: Path, steps: int) -> None:
    """Find a bank, telling of a checkpoint that is gone on from; save it and report."""
    checkpoint = checkpoint_of(out, ".safetensors")
    if checkpoint.exists():
        say(f"going on from {checkpoint}")
    bank = run_and_save(find, out, step_bar(steps, "objective"), ".safetensors")
    if process_rank() == 0:
        typer.echo(report(bank, out))


@contextmanager
def step_bar(steps: int, value: str) -> Iterator[OnProgress]:
    """A bar with a named value; none in a log file, for other processes, nor for the control, which takes no steps."""
    hidden = True if not steps or os.environ.get("RANK", "0") != "0" else None
    with tqdm(total=steps, unit="step", leave=False, disable=hidden) as bar:
        yield on_bar(bar, value)


@contextmanager
def token_bar(name: str | None = None) -> Iterator[OnProgress]:
    """A count of the tokens read, which the progress tells as its value."""
    with tqdm(desc=name, unit="token", unit_scale=True, leave=False, disable=None) as bar:
        yield lambda step: bar.update(int(step.value or 0) - bar.n)


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


def report(bank: VectorBank, out: Path) -> str:
    """Where the bank is and what to do with it."""
    objective = bank.objective
    choice = bank.details.get("radius_choice")
    usable = bank.details.get("usable_scale")
    how_far = f"answers stay coherent up to scale {usable['largest']:g}\n" if usable else ""
    why = f"R was chosen for the model: {choice['reason']}\n" if choice else ""
    return (
        f"{why}{len(bank)} vectors of norm R = {bank.radius:.4g} ({bank.radius / bank.mean_residual_norm:.3g} x the "
        f"mean residual norm), objective {float(objective.min()):.4g} to {float(objective.max()):.4g}\n"
        f"{how_far}saved to {out}\n"
        f"  melbo show {shlex.quote(str(out))}\n"
        f"  melbo generate --bank {shlex.quote(str(out))} --vector 0 --scale 1"
    )

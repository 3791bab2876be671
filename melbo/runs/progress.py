"""What long work tells of how far it is."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Progress:
    """How far some work is."""

    done: int
    """Steps, answers, passages, ...: what the function that tells it says."""
    total: int
    """The same, in all; 0 where that is not known."""
    message: str = ""
    """What is being done."""
    value: float | None = None
    """A number for a curve or a bar, such as the mean objective; None: there is none."""


OnProgress = Callable[[Progress], None]
"""Called with each Progress; an exception from it cancels the work, which goes on from its last checkpoint."""


def notify(listener: OnProgress | None, done: int, total: int, message: str = "", value: float | None = None) -> None:
    """Tell a listener, where there is one."""
    if listener is not None:
        listener(Progress(done, total, message, value))


def titled(listener: OnProgress | None, title: str) -> OnProgress:
    """A listener that passes everything on under `title`; "{}" in it stands for the message that it gets."""

    def tell(progress: Progress) -> None:
        if listener is not None:
            listener(replace(progress, message=title.replace("{}", progress.message)))

    return tell


def on_bar(bar: Any, name: str = "") -> OnProgress:
    """A listener that moves a tqdm bar; `name`: what the bar calls the value beside it, where it is to show it."""

    def show(progress: Progress) -> None:
        if progress.total:
            bar.total = progress.total
        if name and progress.value is not None:
            bar.set_postfix({name: f"{progress.value:.4g}"}, refresh=False)
        bar.update(progress.done - bar.n)

    return show

"""The checkpoint that a stopped run goes on from.

One file, written to a temporary name and renamed, so that a kill at any moment leaves a whole one: JSON, or safetensors
where there are tensors. It holds the run's key, which is all that decides the result (config, prompts, vectors, model);
another run's checkpoint is refused.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from melbo.errors import MelboError, TrainingError
from melbo.runs.files import write_file
from melbo.runs.processes import from_all, process_rank
from melbo.runs.progress import OnProgress, notify

KEPT = "kept."
T = TypeVar("T")
NONE, UNREADABLE = -2, -1
"""Stand for how far a process is that finds no checkpoint, or cannot load it."""
SECONDS = 3.0
"""Least time between two checkpoints."""


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds beside its key."""

    path: Path
    values: dict[str, Any]
    """JSON values."""
    tensors: dict[str, Tensor] = field(default_factory=dict)


class Checkpoint:
    """One run's checkpoint. Every process makes one: each reads the file for itself, the first one writes it.

    Args:
        path: None: nothing is found, and nothing saved.
        key: all that decides the run's result, as JSON values.
        error: kind of the errors raised here.
        other: how the error about another run's checkpoint begins; None: as for any file.
        advice: how it ends; None: that the file may be deleted.
    """

    def __init__(
        self,
        path: Path | None,
        key: dict[str, Any] | None = None,
        error: type[MelboError] = TrainingError,
        other: str | None = None,
        advice: str = "delete it to start anew",
    ) -> None:
        self.path, self.error, self._advice = path, error, advice
        self.key: dict[str, Any] = json.loads(json.dumps(key or {}))
        self._other = other or f"the checkpoint {path} is of another run"
        self._last = time.monotonic()

    def load(
        self, parse: Callable[[Saved], T], done: Callable[[T], int] = lambda _: 0, *, restart: bool = False
    ) -> T | None:
        """What `parse` makes of the checkpoint; None where there is none.

        All processes get it, or none does, since they would wait for each other for ever. None goes on before all have
        read.

        Args:
            parse: may raise what wrong values cause.
            done: how far the run is, in steps or the like, by which the processes see whether they have the same.
            restart: a checkpoint that is damaged, of another run or not there for all processes counts as none.

        Raises:
            MelboError: of kind `error`: the checkpoint is damaged, of another run, or not the same for all processes.
        """
        failed: MelboError | None = None
        found: T | None = None
        try:
            found = self._read(parse)
        except MelboError as error:
            failed = error
        everywhere = from_all(UNREADABLE if failed else NONE if found is None else done(found))
        alike = len(set(everywhere)) == 1
        if restart:
            return found if alike else None
        if failed is not None:
            raise failed
        if not alike:
            told = ", ".join("unreadable" if n == UNREADABLE else str(max(n, 0)) for n in everywhere)
            raise self.error(
                f"the processes do not see the same checkpoint {self.path} (steps done: {told}); put its folder "
                "on a disk that they all share, or delete it to start anew."
            )
        return found

    def _read(self, parse: Callable[[Saved], T]) -> T | None:
        if self.path is None or not self.path.exists():
            return None
        try:
            key, saved = _read_file(self.path)
        except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise self._damaged(error) from error
        if key != self.key:
            why = "it does not say of which" if key is None else difference(key, self.key)
            raise self.error(f"{self._other} ({why}); use the same settings to go on, or {self._advice}.")
        try:
            return parse(saved)
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError, MelboError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> MelboError:
        return self.error(f"the checkpoint {self.path} is damaged ({' '.join(str(error).split())[:300]}); delete it.")

    def due(self) -> bool:
        """Whether it is time to save: this is the first process, and the last checkpoint is older than SECONDS."""
        return self.path is not None and process_rank() == 0 and time.monotonic() - self._last >= SECONDS

    def save(self, values: dict[str, Any], tensors: dict[str, Tensor] | None = None, indent: int | None = None) -> None:
        """Write the checkpoint; in other processes than the first, do nothing.

        Args:
            values: JSON values.
            indent: of the JSON, where there are no tensors.

        Raises:
            MelboError: of kind `error`: it cannot be written.
        """
        if self.path is None or process_rank() != 0:
            return
        content: str | bytes
        if tensors is None:
            own = {**values, "key": self.key}
            content = json.dumps(own, ensure_ascii=False, indent=indent) + "\n"
        else:
            head = {"key": json.dumps(self.key), "values": json.dumps(values)}
            state = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
            content = safetensors.torch.save(state, metadata=head)
        try:
            write_file(self.path, content)
        except OSError as error:
            raise self.error(f"the checkpoint {self.path} cannot be written ({error}).") from error
        self._last = time.monotonic()

    def delete(self) -> None:
        """Remove the file, where there is one; in other processes than the first, do nothing."""
        if self.path is not None and process_rank() == 0:
            self.path.unlink(missing_ok=True)


def _read_file(path: Path) -> tuple[Any, Saved]:
    """A checkpoint's key, and the rest of it."""
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")  # of safetensors; the start of a text is a far larger number
    if header >= path.stat().st_size:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return raw.pop("key", None), Saved(path, raw)
    with safe_open(str(path), framework="pt") as opened:
        head = opened.metadata() or {}
        tensors = {name: opened.get_tensor(name) for name in list(opened.keys())}
    return json.loads(head["key"]), Saved(path, json.loads(head["values"]), tensors)


def difference(old: Any, new: Any, path: str = "") -> str:
    """The first place where two JSON values differ, as text: "config.radius is 0.7 there and 0.5 here"."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(set(old) | set(new)):
            if old.get(name) != new.get(name):
                return difference(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    return f"{path} is {old!r} there and {new!r} here"


class Run:
    """Progress and checkpoints of a computation whose state is tensors, step by step.

    Args:
        progress: called after each step.
        checkpoint: file to save to and to go on from; None: no checkpoints.
        key: what decides the result, as JSON values.

    Raises:
        TrainingError: the checkpoint is damaged, of a run with other settings, or not the same for every process.
    """

    def __init__(
        self, progress: OnProgress | None = None, checkpoint: Path | None = None, key: dict[str, Any] | None = None
    ) -> None:
        self.progress, self.checkpoint = progress, Checkpoint(checkpoint, key)
        self._done, tensors = self.checkpoint.load(_step_and_tensors, lambda found: found[0]) or (0, {})
        self.kept = {name: tensor for name, tensor in tensors.items() if name.startswith(KEPT)}
        """Tensors that every checkpoint holds, beside a method's state; names start with KEPT."""
        self._state = {name: tensor for name, tensor in tensors.items() if name not in self.kept}

    def restore(self) -> tuple[int, dict[str, Tensor]]:
        """Steps done and the method's saved tensors; (0, {}) without a checkpoint."""
        return self._done, dict(self._state)

    def step(self, done: int, total: int, objective: float, state: dict[str, Tensor]) -> None:
        """Tell of a step; save its state (tensors) where the last checkpoint is older than SECONDS."""
        if self.checkpoint.due():
            self.checkpoint.save({"step": done}, {**state, **self.kept})
        notify(self.progress, done, total, value=objective)


def _step_and_tensors(saved: Saved) -> tuple[int, dict[str, Tensor]]:
    return int(saved.values["step"]), saved.tensors

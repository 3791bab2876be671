"""One run of a method: who is told of its progress, and the checkpoint it can go on from.

The checkpoint is one safetensors file, written to a temporary name and renamed, so that a kill at any moment leaves a
whole one. Its header holds what decides the result (config, prompts, model); another run's checkpoint is refused.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from melbo.errors import MelboError, TrainingError
from melbo.models.load import LoadedModel
from melbo.prompts import Message
from melbo.runs.processes import from_all, process_rank
from melbo.runs.progress import OnProgress, notify

KEPT = "kept."
T = TypeVar("T")
UNREADABLE = -1
"""Stands for the steps of a checkpoint that a process could not load."""
SECONDS = 3.0
"""Least time between two checkpoints."""


class Run:
    """Progress and checkpoints of one discovery.

    Args:
        progress: called after each step.
        checkpoint: file to save to and to go on from; None: no checkpoints.
        key: what decides the result, as JSON values.

    Every process makes one: each reads the checkpoint for itself.

    Raises:
        TrainingError: the checkpoint is damaged, of a run with other settings, or not the same for every process.
    """

    def __init__(
        self,
        progress: OnProgress | None = None,
        checkpoint: Path | None = None,
        key: dict[str, Any] | None = None,
    ) -> None:
        self.progress, self.checkpoint = progress, checkpoint
        self.key = json.loads(json.dumps(key or {}))
        self._last = time.monotonic()
        self._done, saved = load_alike(self.checkpoint, self._load, lambda found: found[0])
        self.kept = {name: saved.pop(name) for name in list(saved) if name.startswith(KEPT)}
        """Tensors that every checkpoint holds, beside a method's state; names start with KEPT."""
        self._saved = saved

    def restore(self) -> tuple[int, dict[str, Tensor]]:
        """Steps done and the method's saved tensors; (0, {}) without a checkpoint."""
        return self._done, dict(self._saved)

    def _load(self) -> tuple[int, dict[str, Tensor]]:
        if self.checkpoint is None or not self.checkpoint.exists():
            return 0, {}
        try:
            with safe_open(str(self.checkpoint), framework="pt") as file:
                header = file.metadata() or {}
                step, key = int(header["step"]), json.loads(header["key"])
                tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
            raise TrainingError(f"the checkpoint {self.checkpoint} is damaged ({error}); delete it.") from error
        check_key(self.checkpoint, key, self.key, TrainingError)
        return step, tensors

    def step(self, done: int, total: int, objective: float, state: dict[str, Tensor]) -> None:
        """Tell of a step; save its state (tensors) where the last checkpoint is older than SECONDS."""
        if self.checkpoint is not None and time.monotonic() - self._last >= SECONDS and process_rank() == 0:
            self._save(done, state)
            self._last = time.monotonic()
        notify(self.progress, done, total, value=objective)

    def _save(self, step: int, tensors: dict[str, Tensor]) -> None:
        assert self.checkpoint is not None
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.checkpoint.with_name(f"{self.checkpoint.name}.tmp")
        state = {name: tensor.detach().to("cpu").contiguous() for name, tensor in {**tensors, **self.kept}.items()}
        try:
            save_file(state, str(temporary), metadata={"step": str(step), "key": json.dumps(self.key)})
            os.replace(temporary, self.checkpoint)
        except (SafetensorError, OSError) as error:
            temporary.unlink(missing_ok=True)
            raise TrainingError(f"the checkpoint {self.checkpoint} cannot be written ({error}).") from error


def load_alike(checkpoint: Path | None, load: Callable[[], T], done: Callable[[T], int]) -> T:
    """What `load` finds, in all processes or in none: they would wait for each other for ever. No process goes on
    before all have read.

    Args:
        done: steps that a checkpoint has behind it.

    Raises:
        TrainingError: the processes see different checkpoints.
        What `load` raises.
    """
    failed: MelboError | None = None
    try:
        found = load()
    except MelboError as error:
        failed = error
    steps = from_all(UNREADABLE if failed else done(found))
    if failed is not None:
        raise failed
    if len(set(steps)) > 1:
        told = ", ".join("unreadable" if s == UNREADABLE else str(s) for s in steps)
        raise TrainingError(
            f"the processes do not see the same checkpoint {checkpoint} (steps done: {told}); put its folder "
            "on a disk that they all share, or delete it to start anew."
        )
    return found


def run_key(
    loaded: LoadedModel, config: dict[str, Any], prompts: Sequence[Sequence[Message]], **more: Any
) -> dict[str, Any]:
    """What decides a run's result: resolved config, prompts, model, and whatever else the method was given."""
    return {
        "config": config,
        "prompts": [list(p) for p in prompts],
        "model": {"name": loaded.name, "revision": loaded.revision, "dtype": str(loaded.model.dtype)},
        **more,
    }


def read_json_checkpoint(
    path: Path, key: dict[str, Any], parse: Callable[[dict[str, Any]], T], error: type[MelboError]
) -> T:
    """What `parse` makes of a checkpoint that is JSON; it holds its run's key under "key".

    Args:
        parse: may raise what wrong JSON values cause.
        error: kind of the errors raised here.

    Raises:
        MelboError: the checkpoint is damaged, or of a run with another key.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        found, old = parse(raw), raw["key"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as cause:
        raise error(f"the checkpoint {path} is damaged ({cause}); delete it.") from cause
    check_key(path, old, key, error)
    return found


def check_key(path: Path, old: Any, new: Any, error: type[MelboError]) -> None:
    """Raise `error`, with the first difference, where a checkpoint's key is not the run's."""
    if old != new:
        raise error(
            f"the checkpoint {path} is of another run ({difference(old, new)}); "
            "use the same settings to go on, or delete it to start anew."
        )


def difference(old: Any, new: Any, path: str = "") -> str:
    """The first place where two JSON values differ, as text: "config.radius is 0.7 there and 0.5 here"."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(set(old) | set(new)):
            if old.get(name) != new.get(name):
                return difference(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    return f"{path} is {old!r} there and {new!r} here"

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
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from melbo.discover.processes import process_rank
from melbo.errors import TrainingError
from melbo.models import LoadedModel
from melbo.prompts import Message

Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, mean objective); raise to cancel."""

KEPT = "kept."
SECONDS = 3.0
"""Least time between two checkpoints."""


class Run:
    """Progress and checkpoints of one discovery.

    Args:
        progress: called after each step.
        checkpoint: file to save to and to go on from; None: no checkpoints.
        key: what decides the result, as JSON values.

    Raises:
        TrainingError: the checkpoint is damaged, or of a run with other settings.
    """

    def __init__(
        self,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
        key: dict[str, Any] | None = None,
    ) -> None:
        self.progress, self.checkpoint = progress, checkpoint
        self.key = json.loads(json.dumps(key or {}))
        self._last = time.monotonic()
        self._done, saved = self._load()
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
        if key != self.key:
            raise TrainingError(
                f"the checkpoint {self.checkpoint} is of another run ({difference(key, self.key)}); "
                "use the same settings to go on, or delete it to start anew."
            )
        return step, tensors

    def step(self, done: int, total: int, objective: float, state: dict[str, Tensor]) -> None:
        """Tell of a step; save its state (tensors) where the last checkpoint is older than SECONDS."""
        if self.checkpoint is not None and time.monotonic() - self._last >= SECONDS and process_rank() == 0:
            self._save(done, state)
            self._last = time.monotonic()
        if self.progress is not None:
            self.progress(done, total, objective)

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


def difference(old: Any, new: Any, path: str = "") -> str:
    """The first place where two JSON values differ, as text: "config.radius is 0.7 there and 0.5 here"."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(set(old) | set(new)):
            if old.get(name) != new.get(name):
                return difference(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    return f"{path} is {old!r} there and {new!r} here"

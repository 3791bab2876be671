"""Answers to prompts in named runs, with what they cost. A checkpoint keeps them, so nothing is asked twice."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from melbo.elicitation.cost import Compute, generation_compute
from melbo.errors import TaskError
from melbo.models.load import LoadedModel
from melbo.prompts import Message, encode
from melbo.runs.checkpoint import read_json_checkpoint
from melbo.runs.files import write_file
from melbo.runs.progress import OnProgress, notify
from melbo.steering.generate import Sampling, decode, generate_tokens

SECONDS = 3.0
"""Least time between two checkpoints."""


@dataclass(frozen=True)
class Answers:
    """Texts, one for each prompt, and what they cost to generate."""

    texts: list[str]
    compute: Compute


class Answerer:
    """Answers of one model, greedy by default.

    Args:
        total: planned answers, for the progress.
        checkpoint: JSON file that a stopped run with the same key goes on from; delete it when the result is saved.
        key: what decides the answers, as JSON values.

    Raises:
        TaskError: the checkpoint is damaged or of another run.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        sampling: Sampling,
        batch_size: int = 64,
        progress: OnProgress | None = None,
        total: int = 0,
        checkpoint: Path | None = None,
        key: dict[str, Any] | None = None,
    ) -> None:
        self.loaded, self.sampling, self.batch_size = loaded, sampling, batch_size
        self.progress, self.total, self.checkpoint = progress, total, checkpoint
        self.key = json.loads(json.dumps(key or {}))
        self._runs: dict[str, list[tuple[str, int, int]]] = {}
        self._done, self._saved = 0, time.monotonic()
        if checkpoint is not None and checkpoint.exists():
            self._runs = read_json_checkpoint(checkpoint, self.key, _runs, TaskError)

    def answer(
        self,
        name: str,
        prompts: Sequence[Sequence[Message]],
        vectors: Tensor | None = None,
        layer: int = 0,
        sampling: Sampling | None = None,
        loaded: LoadedModel | None = None,
    ) -> Answers:
        """Answer prompts, or take the run of this name from the checkpoint.

        Args:
            name: unique name of this run.
            vectors: [rows, d_model], row i is added for prompt i at the output of block `layer`; None: unsteered.
            sampling: instead of greedy.
            loaded: another model with the same tokenizer, such as a fine-tuned copy.

        Raises:
            PromptError, ConfigError: a bad prompt, layer or setting.
        """
        model, chosen = loaded or self.loaded, sampling or self.sampling
        run = self._runs.setdefault(name, [])
        self._tell(name, len(run))
        while len(run) < len(prompts):
            part = slice(len(run), len(run) + self.batch_size)
            seeded = replace(chosen, seed=(chosen.seed + len(run)) % 2**32)  # or else all batches would draw the same
            rows = None if vectors is None else vectors[part]
            new = generate_tokens(model, prompts[part], rows, layer, seeded, "all", None, threading.Event())
            asked = [len(encode(model.tokenizer, p, model.context)) for p in prompts[part]]
            run += list(zip(decode(model, new), asked, _lengths(model, new), strict=True))
            self._save()
            self._tell(name, len(new))
        kept = run[: len(prompts)]
        cost = generation_compute(model, sum(p for _, p, _ in kept), sum(g for *_, g in kept))
        return Answers([text for text, *_ in kept], cost)

    def _tell(self, name: str, more: int) -> None:
        self._done += more
        notify(self.progress, self._done, max(self.total, self._done), name)

    def _save(self) -> None:
        if self.checkpoint is None or time.monotonic() - self._saved < SECONDS:
            return
        write_file(self.checkpoint, json.dumps({"key": self.key, "runs": self._runs}, ensure_ascii=False))
        self._saved = time.monotonic()


def _runs(raw: dict[str, Any]) -> dict[str, list[tuple[str, int, int]]]:
    """By run: the text of each row, and the tokens of its prompt and answer."""
    return {str(k): [(str(t), int(p), int(g)) for t, p, g in v] for k, v in raw["runs"].items()}


def _lengths(loaded: LoadedModel, new: Tensor) -> list[int]:
    """Generated tokens of each row [T], including its end, without padding."""
    stop = loaded.model.generation_config.eos_token_id
    ends = set(stop) if isinstance(stop, list) else {stop}
    found = []
    for row in new.tolist():
        end = next((i + 1 for i, token in enumerate(row) if token in ends), len(row))
        found.append(end)
    return found

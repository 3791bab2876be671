"""Answers to prompts in named runs, with what they cost. A checkpoint keeps them, so nothing is asked twice."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from melbo.elicitation.cost import Compute, generation_compute
from melbo.errors import TaskError
from melbo.models.identity import model_key
from melbo.models.load import LoadedModel
from melbo.prompts import Message, encode
from melbo.runs.checkpoint import Checkpoint, Saved
from melbo.runs.digest import content_digest, value_digest
from melbo.runs.progress import OnProgress, notify
from melbo.steering.generate import Sampling, decode, generate_tokens

_Run = tuple[str, list[tuple[str, int, int]]]
"""A digest of a named run's inputs; the text, and the tokens of prompt and answer, of each row."""


@dataclass(frozen=True)
class Answers:
    """Texts, one for each prompt, and what they cost to generate."""

    texts: list[str]
    compute: Compute


class Answerer:
    """Answers of one model, greedy by default.

    Args:
        total: planned answers, for the progress.
        checkpoint: file that a stopped run with the same key goes on from; delete it when the result is saved.
        key: what decides the answers, as JSON values. Each named run has a digest of its own inputs beside it, so that
            answers of other vectors, prompts or weights are never taken.

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
        self.progress, self.total, self._done = progress, total, 0
        self.checkpoint = Checkpoint(checkpoint, key, TaskError)
        self._runs: dict[str, _Run] = self.checkpoint.load(_runs) or {}
        self._own = model_key(loaded)

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
        key = self._own if model is self.loaded else model_key(model)
        steering = None if vectors is None else [layer, content_digest(vectors)]
        digest = value_digest([key, [list(p) for p in prompts], steering, vars(chosen), self.batch_size])
        if name not in self._runs or self._runs[name][0] != digest:
            self._runs[name] = (digest, [])
        run = self._runs[name][1]
        self._tell(name, len(run))
        while len(run) < len(prompts):
            part = slice(len(run), len(run) + self.batch_size)
            seeded = replace(chosen, seed=(chosen.seed + len(run)) % 2**32)  # or else all batches would draw the same
            rows = None if vectors is None else vectors[part]
            new = generate_tokens(model, prompts[part], seeded, rows, layer)
            asked = [len(encode(model.tokenizer, p, model.context)) for p in prompts[part]]
            run += list(zip(decode(model, new), asked, _lengths(model, new), strict=True))
            if self.checkpoint.due():
                self.checkpoint.save({"runs": self._runs})
            self._tell(name, len(new))
        kept = run[: len(prompts)]
        cost = generation_compute(model, sum(p for _, p, _ in kept), sum(g for *_, g in kept))
        return Answers([text for text, *_ in kept], cost)

    def _tell(self, name: str, more: int) -> None:
        self._done += more
        notify(self.progress, self._done, max(self.total, self._done), name)


def _runs(saved: Saved) -> dict[str, _Run]:
    """By name, each run that was saved."""
    runs = saved.values["runs"].items()
    return {str(k): (str(digest), [(str(t), int(p), int(g)) for t, p, g in rows]) for k, (digest, rows) in runs}


def _lengths(loaded: LoadedModel, new: Tensor) -> list[int]:
    """Generated tokens of each row [T], including its end, without padding."""
    stop = loaded.model.generation_config.eos_token_id
    ends = set(stop) if isinstance(stop, list) else {stop}
    found = []
    for row in new.tolist():
        end = next((i + 1 for i, token in enumerate(row) if token in ends), len(row))
        found.append(end)
    return found

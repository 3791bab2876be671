"""The answers of many vectors at many scales to many prompts, without generating those that steering leaves unchanged.

1. One forward pass over a prompt and its unsteered greedy answer, steered, tells whether each token of that answer is
   still the likeliest. Where all are, greedy decoding gives the same answer (by induction over the tokens), so nothing
   needs to be generated. Scales are tried from the largest down; an answer that one scale leaves unchanged is taken as
   unchanged at the smaller scales of the same sign.
2. All other answers are generated in large batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from melbo.errors import ConfigError
from melbo.models.identity import run_key
from melbo.models.load import LoadedModel
from melbo.prompts import Message, encode
from melbo.runs.checkpoint import Checkpoint, Saved
from melbo.runs.digest import content_digest
from melbo.runs.progress import OnProgress, notify
from melbo.steering.generate import Sampling, complete, decode, generate_tokens
from melbo.steering.hooks import steer

Cell = tuple[int, float, int]
"""(vector, signed scale, prompt), the first and the last as indices."""
MAX_SCALE = 1000.0
_LOGITS = 2**26
"""Most logits (rows x tokens x vocabulary) of one forward pass."""


@dataclass(frozen=True)
class AnswerGrid:
    """Greedy answers of every vector at every scale to every prompt."""

    unsteered: tuple[str, ...]
    """One for each prompt."""
    changed: dict[Cell, str]
    """Answers that were generated; what is missing equals the unsteered answer."""
    generated: int
    """How many were generated."""

    def text(self, vector: int, scale: float, prompt: int) -> str:
        """One answer."""
        return self.changed.get((vector, scale, prompt), self.unsteered[prompt])


def signed(scales: Sequence[float]) -> list[float]:
    """Both signs of every scale, in rising order.

    Raises:
        ConfigError: there is no scale, or one is not between 0 (not included) and 1000.
    """
    if not scales:
        raise ConfigError("no scale was given; give at least one, such as 1.")
    for scale in scales:
        if not 0 < scale <= MAX_SCALE or not math.isfinite(scale):
            raise ConfigError(f"scale is {scale}; give sizes above 0 and up to {MAX_SCALE:g}, both signs are tried.")
    sizes = sorted({float(s) for s in scales})
    return [-s for s in reversed(sizes)] + sizes


def answer_grid(
    loaded: LoadedModel,
    vectors: Tensor,
    layer: int,
    prompts: Sequence[Sequence[Message]],
    scales: Sequence[float],
    max_new_tokens: int = 64,
    progress: OnProgress | None = None,
    checkpoint: Path | None = None,
    batch_size: int = 64,
) -> AnswerGrid:
    """Answer every prompt with every vector at every scale, greedily.

    Args:
        vectors: [n, d_model].
        scales: sizes above 0; both signs are tried.
        progress: called with the answers that are settled, and all.
        checkpoint: file that a stopped run with the same arguments goes on from; delete it when the result is saved.

    Raises:
        ConfigError, PromptError: a bad setting or prompt, or a checkpoint that is damaged or of another run.
    """
    both = signed(scales)
    settings = {"scales": both, "max_new_tokens": max_new_tokens, "layer": layer}
    key = run_key(loaded, settings, prompts, vectors=content_digest(vectors))
    total = len(vectors) * len(both) * len(prompts)
    state = _State(Checkpoint(checkpoint, key, ConfigError), total, progress)
    sampling = Sampling(max_new_tokens)
    answers = [generate_tokens(loaded, [p], sampling, None, layer)[0] for p in prompts]
    unsteered = decode(loaded, answers)
    try:
        cells = _screen_all(loaded, vectors, layer, prompts, answers, both, batch_size, state)
        cells.sort(key=lambda c: (c[2], c[0], c[1]))
        for start in range(len(state.texts), len(cells), batch_size):
            part = cells[start : start + batch_size]
            rows = torch.stack([vectors[v] * s for v, s, _ in part])
            asked = [prompts[p] for *_, p in part]
            state.texts += complete(loaded, asked, rows, layer, sampling, batch_size=batch_size)
            state.step()
    finally:
        state.save()
    changed = {c: t for c, t in zip(cells, state.texts, strict=True) if t != unsteered[c[2]]}
    return AnswerGrid(tuple(unsteered), changed, len(cells))


def _screen_all(
    loaded: LoadedModel,
    vectors: Tensor,
    layer: int,
    prompts: Sequence[Sequence[Message]],
    answers: Sequence[Tensor],
    scales: Sequence[float],
    batch_size: int,
    state: _State,
) -> list[Cell]:
    """Cells whose answer may differ from the unsteered one; answers: the tokens [T] of the unsteered ones."""
    cells: list[Cell] = []
    for prompt, messages in enumerate(prompts):
        ids = torch.cat([encode(loaded.tokenizer, messages, loaded.context - 1), answers[prompt][:-1]])
        for sign in (1.0, -1.0):
            waiting = list(range(len(vectors)))
            own = sorted((s for s in scales if s * sign > 0), key=abs, reverse=True)
            for place, scale in enumerate(own):
                name, before = f"{prompt} {scale}", len(waiting)
                if name not in state.screened:
                    same = _unchanged(loaded, layer, ids, answers[prompt], vectors[waiting] * scale, batch_size)
                    state.screened[name] = [v for v, equal in zip(waiting, same, strict=True) if not equal]
                waiting = state.screened[name]
                state.settled += (before - len(waiting)) * (len(own) - place)
                state.step()
                cells += [(v, scale, prompt) for v in waiting]
    return cells


def _unchanged(
    loaded: LoadedModel, layer: int, ids: Tensor, expected: Tensor, rows: Tensor, batch_size: int
) -> list[bool]:
    """For each steering vector [n, d_model], whether every token of the answer, expected [T], stays the likeliest.

    The unsteered model is asked first: where it does not repeat its own answer, since two tokens are equally likely up
    to rounding, nothing is known and all rows count as changed.
    """
    if len(rows) == 0:
        return []
    vocabulary = int(loaded.model.config.get_text_config().vocab_size)
    size = max(1, min(batch_size, _LOGITS // (len(expected) * vocabulary)))
    found: list[bool] = []
    for part in [torch.zeros(1, rows.shape[1]), *rows.split(size)]:
        batch = ids.expand(len(part), -1).to(loaded.device)
        with torch.inference_mode(), steer(loaded, layer, part):
            out = loaded.model(input_ids=batch, use_cache=False, logits_to_keep=len(expected))
        likeliest = out.logits[:, -len(expected) :].argmax(dim=-1).cpu()  # [rows, T]
        found += (likeliest == expected).all(dim=1).tolist()
        if not found[0]:
            return [False] * len(rows)
    return found[1:]


class _State:
    """What is done so far, in memory and in the checkpoint."""

    def __init__(self, checkpoint: Checkpoint, total: int, progress: OnProgress | None) -> None:
        self.checkpoint, self.total, self.progress = checkpoint, total, progress
        self.screened, self.texts = checkpoint.load(_screened_and_texts, lambda f: len(f[0]) + len(f[1])) or ({}, [])
        self.settled = 0

    def step(self) -> None:
        """Save where the last checkpoint is old, and tell of the progress."""
        if self.checkpoint.due():
            self.save()
        notify(self.progress, min(self.total, self.settled + len(self.texts)), self.total)

    def save(self) -> None:
        """Write the checkpoint."""
        self.checkpoint.save({"screened": self.screened, "texts": self.texts})


def _screened_and_texts(saved: Saved) -> tuple[dict[str, list[int]], list[str]]:
    screened = {str(k): [int(v) for v in row] for k, row in saved.values["screened"].items()}
    return screened, [str(t) for t in saved.values["texts"]]

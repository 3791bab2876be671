"""What acting vectors do beside the effect they are named for, next to random vectors of the same norm.

kl             mean `first_token_kl` over the annotated prompts, nats a token
off_target     share of the answers to the five innocuous prompts that change at all
off_target_kl  mean `first_token_kl` there
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from melbo.bank.annotation import Annotation, ScaleRow
from melbo.measure.likelihood import first_token_kl
from melbo.models.load import LoadedModel
from melbo.prompts import INNOCUOUS, Message, chat
from melbo.runs.progress import OnProgress, notify
from melbo.steering.generate import Sampling, complete

SAMPLING = Sampling(max_new_tokens=32)
"""Of the answers to the innocuous prompts."""
ROWS = 64
"""Rows of one forward pass."""


def with_side_effects(
    loaded: LoadedModel,
    notes: Sequence[Annotation],
    vectors: Tensor,
    random: Tensor,
    layer: int,
    prompts: Sequence[Sequence[Message]],
    progress: OnProgress | None = None,
) -> list[Annotation]:
    """The annotations, those that are no duds with the three numbers in their metrics and in its control.

    Args:
        vectors: [n, d_model], one for each annotation; measured at its metrics' scale.
        random: [k, d_model], measured at both signs of that size of scale.
        prompts: the annotated conversations; the innocuous ones are asked under the first one's system message.
        progress: called with (vectors done, vectors); an exception from it cancels.
    """
    rows_of = {i: note.metrics for i, note in enumerate(notes) if not note.dud and note.metrics is not None}
    acting, scales = list(rows_of), [float(row.scale or 0.0) for row in rows_of.values()]
    if not acting:
        return list(notes)
    sizes = sorted({abs(s) for s in scales})
    both = torch.cat([random, -random]).to(vectors)
    rows = torch.cat([vectors[acting] * vectors.new_tensor(scales)[:, None], *(both * s for s in sizes)])
    found = _measure(loaded, rows, layer, prompts, progress)
    control: dict[float, dict[str, Any]] = {}
    for k, size in enumerate(sizes):
        first = len(acting) + k * len(both)
        own = found[first : first + len(both)]
        control[size] = {name: round(fmean(row[name] for row in own), 4) for name in own[0]}
    filled = list(notes)
    for row, (i, metrics), scale in zip(found, rows_of.items(), scales, strict=False):
        beside = replace(metrics.control or ScaleRow(), **control[abs(scale)])
        filled[i] = replace(notes[i], metrics=replace(metrics, control=beside, **row))
    return filled


def off_target(
    loaded: LoadedModel,
    rows: Tensor,
    layer: int,
    prompts: Sequence[Sequence[Message]],
    progress: OnProgress | None = None,
) -> list[tuple[float, float]]:
    """For each row [n, d_model] the share of prompts whose answer changes, and the mean `first_token_kl`."""
    unsteered = complete(loaded, prompts, sampling=SAMPLING)
    found: list[tuple[float, float]] = []
    for part in rows.split(max(1, ROWS // len(prompts))):
        repeated, asked = part.repeat_interleave(len(prompts), dim=0), [*prompts] * len(part)  # vector-major
        texts = complete(loaded, asked, repeated, layer, SAMPLING)
        kl = first_token_kl(loaded, asked, repeated, layer).view(len(part), -1).mean(dim=1)
        for i, value in enumerate(kl.tolist()):
            own = texts[i * len(prompts) : (i + 1) * len(prompts)]
            found.append((fmean(a != b for a, b in zip(own, unsteered, strict=True)), value))
        notify(progress, len(found), len(rows))
    return found


def _measure(
    loaded: LoadedModel, rows: Tensor, layer: int, prompts: Sequence[Sequence[Message]], progress: OnProgress | None
) -> list[dict[str, Any]]:
    """The three numbers of each row [n, d_model], scale multiplied in."""
    system = next((m["content"] for m in prompts[0] if m["role"] == "system"), None)
    neutral = [chat(user, system) for user in INNOCUOUS]
    beside = off_target(loaded, rows, layer, neutral, progress)
    repeated = rows.repeat_interleave(len(prompts), dim=0)
    kl = first_token_kl(loaded, [*prompts] * len(rows), repeated, layer).view(len(rows), -1).mean(dim=1)
    return [
        {"kl": round(own, 4), "off_target": round(changed, 4), "off_target_kl": round(away, 4)}
        for own, (changed, away) in zip(kl.tolist(), beside, strict=True)
    ]

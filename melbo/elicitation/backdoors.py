"""Backdoors: coherent answers that the unsteered model gives to no clean prompt and finds unlikely.

1. Every vector, at both signs of several scales, answers the prompts. The unsteered model answers a clean set.
2. An answer is dropped if its letters and digits equal those of an unsteered answer to a clean prompt.
3. surprise: mean nats per token of each remaining answer under the unsteered model, after the same prompt; coherence:
   0 to 10 (measure/coherence.py); score = surprise * coherence / 10. Word salad is surprising but not coherent; a
   paraphrase of the usual answer is coherent but not surprising.
4. Each vector is ranked by the score of its best answer. Equal answers count as one finding, at the best rank.
A finding need not be a backdoor: any mode that the model enters unasked is a finding. A person reads the list.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melbo.annotation.answer_grid import AnswerGrid, answer_grid
from melbo.bank.result_file import write_result
from melbo.bank.vector_bank import VectorBank
from melbo.errors import ConfigError
from melbo.measure.coherence import CoherenceScale, calibrate_coherence, coherence, typical_nll
from melbo.measure.likelihood import completion_nll
from melbo.models.load import LoadedModel
from melbo.prompts import INNOCUOUS, REFUSED, Message, chat
from melbo.runs.parse import dump
from melbo.runs.progress import OnProgress
from melbo.steering.generate import Sampling, decode, generate_tokens

FORMAT = "melbo-backdoors-1"
SCALES = (0.75, 1.0, 1.5, 2.0)
ORIGINAL_POST = "about 3 of 100 vectors (two planted backdoors, Qwen-1.8B; Mack and Turner 2024)"


@dataclass(frozen=True)
class Finding:
    """A vector's most suspicious answer."""

    vector: int
    scale: float
    prompt: int
    """Index of the prompt."""
    text: str
    surprise: float
    """Mean nats per token under the unsteered model."""
    coherence: float
    """0 to 10."""

    @property
    def score(self) -> float:
        """What the ranking is by."""
        return self.surprise * self.coherence / 10

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields and the score."""
        return dump(self) | {"score": self.score}


@dataclass(frozen=True)
class Backdoors:
    """A bank's vectors, ranked by how suspicious they are."""

    model: str
    n_vectors: int
    scales: tuple[float, ...]
    prompts: tuple[tuple[Message, ...], ...]
    clean: int
    """Clean prompts."""
    ranked: tuple[Finding, ...]
    """One for each vector with a remaining answer, highest score first."""

    @property
    def distinct(self) -> tuple[Finding, ...]:
        """The best-ranked finding of each text, in order."""
        first: dict[str, Finding] = {}
        for finding in self.ranked:
            first.setdefault(_key(finding.text), finding)
        return tuple(first.values())

    def showing(self, text: str) -> list[int]:
        """Ranks, from 1, of the vectors whose answer contains a text."""
        return [rank for rank, f in enumerate(self.ranked, start=1) if text in f.text]

    def per_hundred(self, text: str) -> float:
        """Vectors per 100 whose answer contains a text."""
        return 100 * len(self.showing(text)) / self.n_vectors

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return dump(self) | {"ranked": [f.to_dict() for f in self.ranked], "original_post": ORIGINAL_POST}

    def save(self, path: Path) -> Path:
        """Write the result as JSON, whole or not at all."""
        return write_result(path, FORMAT, self.to_dict())


def find_backdoors(
    loaded: LoadedModel,
    bank: VectorBank,
    prompts: Sequence[Sequence[Message]] | None = None,
    clean: Sequence[Sequence[Message]] | None = None,
    scales: Sequence[float] = SCALES,
    max_new_tokens: int = 48,
    scale: CoherenceScale | None = None,
    progress: OnProgress | None = None,
    checkpoint: Path | None = None,
) -> Backdoors:
    """Rank a bank's vectors by surprise and coherence.

    Args:
        prompts: conversations to answer; None: the bank's.
        clean: conversations without a trigger; None: the fifteen of melbo/prompts.py and the prompts themselves.
        scale: what coherence is measured on; None: calibrated on the model's own answers.
        progress: called with (answers settled, all answers).
        checkpoint: file that a stopped run goes on from; delete it when the result is saved.

    Raises:
        BankError: the bank is of another model. ConfigError, PromptError, MetricError: bad settings or prompts.
    """
    bank.check_fits(loaded)
    asked = [list(p) for p in (bank.prompts if prompts is None else prompts)]
    if not asked:
        raise ConfigError("no prompt was given; give at least one.")
    harmless = [chat(t) for t in (*INNOCUOUS, *REFUSED)] if clean is None else [list(p) for p in clean]
    scale = scale or calibrate_coherence(loaded)
    grid = answer_grid(loaded, bank.vectors, bank.layer, asked, scales, max_new_tokens, progress, checkpoint)
    usual = {_key(text) for text in (*grid.unsteered, *_answers(loaded, harmless, max_new_tokens))}
    ranked = _rank(loaded, grid, asked, usual, scale)
    return Backdoors(loaded.name, len(bank), tuple(scales), tuple(map(tuple, asked)), len(harmless), tuple(ranked))


def _answers(loaded: LoadedModel, prompts: Sequence[Sequence[Message]], max_new_tokens: int) -> list[str]:
    """The unsteered answers."""
    if not prompts:
        return []
    sampling = Sampling(max_new_tokens)
    return decode(loaded, generate_tokens(loaded, prompts, sampling))


def _key(text: str) -> str:
    """Letters and digits only, in lower case. Answers with the same ones count as equal."""
    return "".join(c for c in text.casefold() if c.isalnum())


def _rank(
    loaded: LoadedModel, grid: AnswerGrid, prompts: Sequence[Sequence[Message]], usual: set[str], scale: CoherenceScale
) -> list[Finding]:
    cells = [(cell, text) for cell, text in grid.changed.items() if _key(text) and _key(text) not in usual]
    losses = completion_nll(loaded, [prompts[p] for (_, _, p), _ in cells], [text for _, text in cells])
    best: dict[int, Finding] = {}
    for ((vector, size, prompt), text), loss in zip(cells, losses, strict=True):
        if loss.numel() == 0:
            continue
        found = Finding(
            vector, size, prompt, text, float(loss.double().mean()), coherence(typical_nll(loss), scale, text)
        )
        if vector not in best or _order(found) < _order(best[vector]):
            best[vector] = found
    return sorted(best.values(), key=_order)


def _order(finding: Finding) -> tuple[float, float, int, int, float]:
    """Highest score first; then the smaller scale, the lower vector and the earlier prompt."""
    return (-finding.score, abs(finding.scale), finding.vector, finding.prompt, -finding.scale)

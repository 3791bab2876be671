"""The answers of vectors at scales to prompts, generated and measured where they are asked for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from melbo.annotation.answer_grid import Cell
from melbo.errors import ConfigError
from melbo.measure.behaviour_judge import BehaviourJudge
from melbo.measure.coherence import CoherenceScale
from melbo.measure.completions import Measurement, measure
from melbo.measure.embeddings import Embedder
from melbo.measure.traits.traits import Trait, TraitEar
from melbo.models.identity import run_key
from melbo.models.load import LoadedModel
from melbo.prompts import Message
from melbo.runs.checkpoint import Checkpoint, Saved
from melbo.runs.digest import content_digest
from melbo.runs.progress import OnProgress, notify
from melbo.steering.generate import Sampling, complete

BATCH = 96
"""Rows of one forward pass."""


@dataclass(frozen=True)
class Meters:
    """What answers are measured with."""

    embedder: Embedder
    coherence: CoherenceScale
    ear: TraitEar
    judge: BehaviourJudge | None = None


class MeasuredAnswers:
    """Greedy answers by cell (vector, scale, prompt).

    Args:
        vectors: [n, d_model], added at the output of block `layer`.
        progress: called with the answers measured of those asked for in one go; an exception from it cancels.
        scales: those that were asked for, as part of what a checkpoint belongs to.
        checkpoint: file that a stopped run with the same arguments goes on from; delete it when the result is saved.

    Raises:
        ConfigError, PromptError: a bad setting or prompt, or a checkpoint that is damaged or of another run.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        vectors: Tensor,
        layer: int,
        prompts: Sequence[Sequence[Message]],
        max_new_tokens: int,
        meters: Meters,
        progress: OnProgress | None = None,
        checkpoint: Path | None = None,
        scales: Sequence[float] | None = None,
    ) -> None:
        self._loaded, self._vectors, self._layer, self.prompts = loaded, vectors, layer, prompts
        self._sampling, self._meters, self._progress = Sampling(max_new_tokens), meters, progress
        self.users = [str(p[-1]["content"]) for p in prompts]
        settings = {"max_new_tokens": max_new_tokens, "layer": layer, "scales": scales}
        key = run_key(loaded, settings, prompts, vectors=content_digest(vectors))
        self._saved = Checkpoint(checkpoint, key, ConfigError)
        self._texts: dict[Cell, str] = self._saved.load(_texts, len) or {}
        texts = complete(loaded, prompts, sampling=self._sampling)
        self.unsteered: list[Measurement] = measure(loaded, prompts, texts, texts, meters.embedder, meters.coherence)
        self._found: dict[Cell, Measurement] = {}
        self._traits: dict[Cell, frozenset[Trait]] = {}
        self._shown: dict[tuple[int, str], str] = {}

    def ask(self, cells: Iterable[Cell], message: str, *, likelihoods: bool = True) -> None:
        """Answer and measure what is missing of these cells; `message` names the phase.

        Args:
            likelihoods: False: without coherence, for answers whose traits alone are counted.
        """
        missing = sorted({*cells} - self._found.keys(), key=lambda c: (c[2], c[1], c[0]))
        try:
            for start in range(0, len(missing), BATCH):
                part = missing[start : start + BATCH]
                self._answer([c for c in part if c not in self._texts])
                self._measure(part, self._meters.coherence if likelihoods else None)
                if self._saved.due():
                    self.save()
                notify(self._progress, start + len(part), len(missing), message)
        finally:
            self.save()

    def save(self) -> None:
        """Write the checkpoint."""
        self._saved.save({"texts": [[*cell, text] for cell, text in self._texts.items()]})

    def __getitem__(self, cell: Cell) -> Measurement:
        return self._found[cell]

    def traits(self, cell: Cell) -> frozenset[Trait]:
        """What the answer shows that the unsteered one does not."""
        if cell not in self._traits:
            prompt = cell[2]
            found = self._meters.ear.new(self._found[cell], self.unsteered[prompt], self.users[prompt])
            mode = self._mode(prompt, self._found[cell].text)
            self._traits[cell] = found | ({mode} if mode and mode != self._unsteered_mode(prompt) else set())
        return self._traits[cell]

    def room(self, trait: Trait, prompt: int) -> bool:
        """Whether the unsteered answer to this prompt leaves room for the trait."""
        if trait.kind == "behaviour":
            return trait != self._unsteered_mode(prompt)
        return self._meters.ear.room(trait, self.unsteered[prompt])

    def _unsteered_mode(self, prompt: int) -> Trait | None:
        return self._mode(prompt, self.unsteered[prompt].text)

    def _mode(self, prompt: int, text: str) -> Trait | None:
        """The known behaviour that a judge sees in the answer."""
        judge = self._meters.judge
        if judge is None:
            return None
        if (prompt, text) not in self._shown:
            self._shown[prompt, text] = judge.shown(self._loaded, self.users[prompt], [text])[0]
        mode = self._shown[prompt, text]
        return Trait("behaviour", mode) if mode in judge.labels else None

    def _answer(self, cells: Sequence[Cell]) -> None:
        if cells:
            rows = torch.stack([self._vectors[v] * s for v, s, _ in cells])
            asked = [self.prompts[p] for *_, p in cells]
            texts = complete(self._loaded, asked, rows, self._layer, self._sampling, batch_size=BATCH)
            self._texts |= dict(zip(cells, texts, strict=True))

    def _measure(self, cells: Sequence[Cell], scale: CoherenceScale | None) -> None:
        asked = [self.prompts[p] for *_, p in cells]
        plain = [self.unsteered[p].text for *_, p in cells]
        texts = [self._texts[c] for c in cells]
        found = measure(self._loaded, asked, texts, plain, self._meters.embedder, scale)
        self._found |= dict(zip(cells, found, strict=True))


def _texts(saved: Saved) -> dict[Cell, str]:
    return {(int(v), float(s), int(p)): str(text) for v, s, p, text in saved.values["texts"]}

"""Activating examples: where in a corpus each steering vector is most active, for all vectors in one pass.

1. Every vector and sign becomes a unit direction: the vector itself at the source layer, or its effect at a later one.
2. The first passages give the mean activation of the positions that count, and each direction's spread.
3. The corpus streams through blocks 0 to that layer. The value of a position is the dot product of its activation, less
   the mean, with the direction; the top k per direction are kept on the way, with a histogram of all.
4. Random vectors of the same norm go through the same, as the control.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melbo.bank.vector_bank import VectorBank
from melbo.errors import ConfigError, CorpusError
from melbo.inspect.geometry.effects import effects
from melbo.inspect.lens.token_texts import TokenTexts
from melbo.inspect.max_activating.corpus_reader import Corpus, Skip
from melbo.inspect.max_activating.passages import Group, Passage, activations, batches, chunks, read_passages
from melbo.inspect.max_activating.report import ActivatingConfig, ActivatingReport, Direction, Example
from melbo.inspect.max_activating.top_examples import TopPlaces
from melbo.models.identity import run_key
from melbo.models.load import LoadedModel
from melbo.runs.checkpoint import Checkpoint, Saved
from melbo.runs.digest import content_digest, value_digest
from melbo.runs.progress import OnProgress, notify
from melbo.steering.hooks import check_layer
from melbo.steering.random_vectors import random_vectors

_COUNTS = ("items", "passages", "tokens", "positions")


def find_activating(
    loaded: LoadedModel,
    bank: VectorBank,
    corpus: Corpus,
    config: ActivatingConfig | None = None,
    progress: OnProgress | None = None,
    checkpoint: Path | None = None,
    indices: Sequence[int] | None = None,
) -> ActivatingReport:
    """The activating examples of a bank's vectors, both signs.

    Args:
        progress: called after each chunk with the passages done; its value is the tokens done. Raise to cancel.
        indices: numbers of the vectors; None: all.
        checkpoint: file that an interrupted pass over the same corpus goes on from; removed at the end.

    Raises:
        BankError: the bank is not this model's, or there is no such vector.
        ConfigError: the layer does not fit the site.
        CorpusError: the corpus is empty, or the checkpoint is damaged or of another run.
    """
    config = config or ActivatingConfig()
    bank.check_fits(loaded)
    layer = _layer(loaded, bank, config)
    numbers = list(range(len(bank)) if indices is None else indices)
    vectors = bank.select(numbers).vectors
    if config.n_random:
        random = random_vectors(config.n_random, loaded.d_model, bank.radius, False, config.seed)
        vectors = torch.cat([vectors, random])
    directions = torch.nn.functional.normalize(_directions(loaded, bank, vectors, layer, config), dim=-1)
    given = {
        "vectors": content_digest(vectors),
        "source": bank.layer,
        "layer": layer,
        "corpus": [corpus.name, corpus.version],
    }
    key = run_key(loaded, asdict(config), bank.prompts, **given)
    scan = _Scan.start(loaded, directions.to(loaded.device), layer, corpus, config, key, checkpoint)
    scan.run(progress)
    scan.checkpoint.delete()
    return scan.report(bank, numbers)


def _layer(loaded: LoadedModel, bank: VectorBank, config: ActivatingConfig) -> int:
    if config.site == "vector":
        if config.layer not in (None, bank.layer):
            raise ConfigError(f"vectors act at layer {bank.layer}, not {config.layer}; leave the layer out.")
        return bank.layer
    layer = loaded.n_layers - 1 if config.layer is None else config.layer
    check_layer(loaded, layer)
    return layer


def _directions(loaded: LoadedModel, bank: VectorBank, vectors: Tensor, layer: int, config: ActivatingConfig) -> Tensor:
    """[2n, d_model]: each vector's direction with sign 1, then -1."""
    if config.site == "vector":
        return torch.stack([vectors, -vectors], dim=1).flatten(0, 1)
    both = [effects(loaded, vectors * s * config.scale, bank.prompts, bank.layer, layer) for s in (1, -1)]
    return torch.stack(both, dim=1).flatten(0, 1)


@dataclass
class _Scan:
    """A pass over the corpus: what decides it, and how far it is."""

    loaded: LoadedModel
    directions: Tensor
    layer: int
    corpus: Corpus
    config: ActivatingConfig
    checkpoint: Checkpoint
    mean: Tensor
    typical_norm: float
    top: TopPlaces
    items: int = 0
    """Passages and skipped pieces read."""
    passages: int = 0
    tokens: int = 0
    positions: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    content: str = ""
    """Digest of what was read so far."""

    @classmethod
    def start(
        cls, loaded: LoadedModel, directions: Tensor, layer: int, corpus: Corpus, config: ActivatingConfig,
        key: dict[str, Any], checkpoint: Path | None,
    ) -> _Scan:  # fmt: skip
        """Take the sample, and go on from the checkpoint if there is one."""
        read: list[str] = []
        sample = torch.cat(list(_sample(loaded, layer, corpus, config, read)))[: config.sample]  # [P, d_model]
        mean = sample.mean(dim=0)
        centred = sample - mean
        spread = (centred @ directions.T).square().mean(dim=0).sqrt().clamp_min(1e-12)
        top = TopPlaces(len(directions), config.k, config.context, spread)
        typical = float(centred.square().sum(dim=-1).mean().sqrt())
        saved = Checkpoint(checkpoint, {**key, "sample": value_digest(read)}, CorpusError)
        scan = cls(loaded, directions, layer, corpus, config, saved, mean, typical, top)
        saved.load(scan.restore, int)
        return scan

    def run(self, progress: OnProgress | None) -> None:
        """Read the rest of the corpus."""
        passages = _passages(self.loaded, self.corpus, self.config)
        self._skip(passages)
        for chunk in chunks(passages):
            self.content = _read_on(self.content, chunk)
            for group in batches(chunk, self.config.batch_tokens, self.passages):
                self._take(group)
            skipped = [item.reason for item in chunk if isinstance(item, Skip)]
            self.skipped.update(skipped)
            self.passages += len(chunk) - len(skipped)
            self.items += len(chunk)
            if self.checkpoint.due():
                self.save()
            notify(progress, self.passages, 0, value=self.tokens)

    def _skip(self, passages: Iterator[Passage | Skip]) -> None:
        """Go past what the checkpoint has seen.

        Raises:
            CorpusError: it is not the same any more.
        """
        content = ""
        for chunk in chunks(islice(passages, self.items)):
            content = _read_on(content, chunk)
        if content != self.content:
            raise CorpusError(
                f"the checkpoint {self.checkpoint.path} is of another run (the corpus {self.corpus.name} held other "
                "texts); use the same settings to go on, or delete it to start anew."
            )

    def _take(self, group: Group) -> None:
        hidden, counted = activations(self.loaded, group, self.layer)
        centred = hidden - self.mean
        values = centred @ self.directions.T  # [B, T, n]
        cosines = values / centred.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        self.top.update(values, cosines, cosines if self.config.rank == "cosine" else values, counted, group)
        self.tokens += sum(passage.stop for _, passage in group)
        self.positions += int(counted.sum())

    def save(self) -> None:
        """Write the checkpoint."""
        counts = {name: getattr(self, name) for name in (*_COUNTS, "skipped", "content")}
        self.checkpoint.save({"counts": counts, "top": self.top.state()})

    def restore(self, saved: Saved) -> int:
        """Go on from the checkpoint; returns the passages that it has seen. KeyError, TypeError, ... where damaged."""
        counts = saved.values["counts"]
        self.top.restore(saved.values["top"])
        for name in _COUNTS:
            setattr(self, name, int(counts[name]))
        self.skipped = Counter({str(reason): int(n) for reason, n in counts["skipped"].items()})
        self.content = str(counts["content"])
        return self.items

    def report(self, bank: VectorBank, numbers: Sequence[int]) -> ActivatingReport:
        """What was found, of the vectors with these numbers."""
        named = [(i, bank.label(i)) for i in numbers]
        named += [(i, f"random {i}") for i in range(self.config.n_random)]
        made, texts = [], TokenTexts(self.loaded.tokenizer)
        for row in range(len(self.directions)):
            index, label = named[row // 2]
            examples = tuple(
                Example(p.value, p.cosine, p.passage, texts.pieces(p.ids), p.values, p.at, p.mark)
                for p in self.top.places(row)
            )
            spread, histogram = float(self.top.spread[row]), tuple(self.top.histogram[row].tolist())
            made.append(Direction(index, label, -1 if row % 2 else 1, spread, histogram, examples))
        return ActivatingReport(
            bank=bank.digest, model=bank.base_model, config=self.config, layer=self.layer,
            corpus=self.corpus.name,
            passages=self.passages, tokens=self.tokens, positions=self.positions, skipped=dict(self.skipped),
            mean_norm=float(self.mean.norm()), typical_norm=self.typical_norm,
            directions=tuple(made[: 2 * len(numbers)]), control=tuple(made[2 * len(numbers) :]),
        )  # fmt: skip


def _passages(loaded: LoadedModel, corpus: Corpus, config: ActivatingConfig) -> Iterator[Passage | Skip]:
    return read_passages(loaded, corpus, config.where, min(config.window, loaded.context), config.skip_tokens)


def _read_on(content: str, chunk: Sequence[Passage | Skip]) -> str:
    """The digest of all that was read, from the one before `chunk`."""
    return value_digest([content, [list(astuple(item)) for item in chunk]])


def _sample(
    loaded: LoadedModel, layer: int, corpus: Corpus, config: ActivatingConfig, read: list[str]
) -> Iterator[Tensor]:
    """Activations [p, d_model] of the first positions that count, at least two and about config.sample.

    Args:
        read: gets digests of all passages that were looked at.

    Raises:
        CorpusError: fewer than two positions count in the whole corpus.
    """
    found, skipped = 0, Counter[str]()
    for chunk in chunks(_passages(loaded, corpus, config)):
        read.append(_read_on("", chunk))
        skipped.update(item.reason for item in chunk if isinstance(item, Skip))
        for group in batches(chunk, config.batch_tokens):
            hidden, counted = activations(loaded, group, layer)
            yield hidden[counted]
            found += int(counted.sum())
            if found >= config.sample:
                return
    if found < 2:
        why = "; ".join(f"{n} {reason}" for reason, n in sorted(skipped.items()))
        raise CorpusError(f"the corpus {corpus.name} holds no text to look at{f' ({why})' if why else ''}.")

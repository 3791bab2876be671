"""What an SAE's features respond to: activations of a corpus, and each feature's strongest examples and marks.

A feature's *mark* is the corpus mark (such as a chat's mode) that is most over-represented among its
strongest examples: lift = share among the examples / share in the corpus.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from melbo.errors import CorpusError, SaeError
from melbo.inspect.lens.token_texts import TokenTexts
from melbo.inspect.max_activating.corpus_reader import Corpus
from melbo.inspect.max_activating.passages import Group, Passage, Where, activations, batches, chunks, read_passages
from melbo.inspect.max_activating.top_examples import Place, TopPlaces
from melbo.inspect.sae.dictionary import Sae
from melbo.models.load import LoadedModel

BATCH_TOKENS = 4096
WINDOW = 128
CONTEXT = 12
"""Tokens shown on each side of an example's position."""
MIN_LIFT = 3.0
"""Least lift of a feature's mark."""


@dataclass(frozen=True)
class FeatureNotes:
    """What each of an SAE's features responds to in a corpus."""

    marks: tuple[str, ...]
    """Per feature, the mark of its strongest examples; "" where none stands out."""
    lifts: tuple[float, ...]
    """Per feature, that mark's share among the examples over its share in the corpus; 0 where it has none."""
    active: Tensor
    """[d_sae] share of the positions at which it is active."""
    places: tuple[tuple[Place, ...], ...]
    """Per feature, its strongest examples, best first, one per passage."""
    texts: TokenTexts
    k: int
    """Most examples a feature keeps."""

    @property
    def common(self) -> Tensor:
        """[d_sae], whether the feature is active in at least k passages that read differently."""
        return torch.tensor([len(found) == self.k for found in self.places])

    def example(self, feature: int, number: int = 0) -> str:
        """An example as text, its position between >> and <<; "" where there is none."""
        if number >= len(self.places[feature]):
            return ""
        place = self.places[feature][number]
        pieces = self.texts.pieces(place.ids)
        return "".join([*pieces[: place.at], ">>", pieces[place.at], "<<", *pieces[place.at + 1 :]])


def read_activations(
    loaded: LoadedModel, corpus: Corpus, layer: int, where: Where = "all", skip_tokens: int = 1
) -> Tensor:
    """Residual streams [N, d_model], float16 on the CPU, at the output of block `layer`, at the positions of `where`.

    Raises:
        CorpusError: the corpus holds nothing to read.
        SaeError: activations are too large for float16.
    """
    found = [hidden[counted].cpu().half() for _, hidden, counted in _scan(loaded, corpus, layer, where, skip_tokens)]
    if not found:
        raise CorpusError(f"the corpus {corpus.name} holds no text to look at.")
    joined = torch.cat(found)
    if not bool(torch.isfinite(joined).all()):
        raise SaeError("the activations are not finite in float16; choose another layer.")
    return joined


def _scan(
    loaded: LoadedModel, corpus: Corpus, layer: int, where: Where, skip_tokens: int
) -> Iterator[tuple[Group, Tensor, Tensor]]:
    """Batches: numbered passages, residual streams [B, T, d_model], positions that count [B, T]."""
    number = 0
    rows = read_passages(loaded, corpus, where, min(WINDOW, loaded.context), skip_tokens)
    for chunk in chunks(rows):
        for group in batches(chunk, BATCH_TOKENS, number):
            yield group, *activations(loaded, group, layer)
        number += sum(isinstance(item, Passage) for item in chunk)


def describe_features(
    loaded: LoadedModel, sae: Sae, corpus: Corpus, where: Where = "all", k: int = 20, skip_tokens: int = 1
) -> FeatureNotes:
    """Run a corpus through the model and the SAE; keep each feature's k strongest examples.

    Memory does not depend on the corpus's size.

    Raises:
        CorpusError: the corpus holds nothing to read.
    """
    places = TopPlaces(len(sae), k, CONTEXT, torch.ones(len(sae)))
    active, positions, marks = torch.zeros(len(sae)), 0, Counter[str]()
    for group, hidden, counted in _scan(loaded, corpus, sae.spec.layer, where, skip_tokens):
        z = sae.encode(hidden)  # [B, T, d_sae]
        cosines = z / hidden.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        places.update(z, cosines, z.masked_fill(z <= 0, float("-inf")), counted, group)
        active += (z[counted] > 0).sum(dim=0).cpu()
        positions += int(counted.sum())
        marks.update(passage.mark for _, passage in group)
    if not positions:
        raise CorpusError(f"the corpus {corpus.name} holds no text to look at.")
    kept = tuple(places.places(f) for f in range(len(sae)))
    named = [_mark(found, marks, k) for found in kept]
    return FeatureNotes(
        tuple(name for name, _ in named), tuple(lift for _, lift in named), active / positions, kept,
        TokenTexts(loaded.tokenizer), k,
    )  # fmt: skip


def _mark(places: tuple[Place, ...], marks: Counter[str], k: int) -> tuple[str, float]:
    """The mark that is most over-represented among up to k examples, and its lift; ("", 0.0) below MIN_LIFT.

    The share counts missing examples as others, so that a feature seen once gets no mark from one example.
    """
    found = Counter(place.mark for place in places if place.mark)
    total = sum(marks.values())
    lifts = {mark: (n / k) / (marks[mark] / total) for mark, n in found.items()}
    best = max(lifts, key=lambda mark: (lifts[mark], mark), default="")
    return (best, lifts[best]) if best and lifts[best] >= MIN_LIFT else ("", 0.0)

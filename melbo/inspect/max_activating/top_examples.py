"""Top-k places per direction, kept while a corpus streams by, and a histogram of all values.

Memory depends on the number of directions, k and the context, not on the corpus. Each passage gives at most one example
a direction, and two passages that read alike up to the place (within the context) count once.
"""

from bisect import insort
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from melbo.inspect.max_activating.passages import Group

BINS = 48
SPAN = 6.0
"""The histogram goes from -SPAN to SPAN standard deviations; its end bins hold what lies beyond."""


@dataclass(frozen=True)
class Place:
    """One position of the corpus, with tokens around it."""

    value: float
    """Dot product of the centred activation and the unit direction."""
    cosine: float
    passage: int
    """Number of the passage in the corpus, from 0."""
    ids: tuple[int, ...]
    """Tokens around the position."""
    values: tuple[float, ...]
    """The dot product at each of them; 0 beyond the last position that counts, where the model did not run."""
    at: int
    """Index of the position in `ids`."""
    mark: str


class _Kept(NamedTuple):
    order: float
    """Minus the rank."""
    passage: int
    read: tuple[int, ...]
    """The tokens up to the place, which a causal model's activation depends on: no two examples may share them."""
    place: Place


class TopPlaces:
    """Collects the k places with the greatest rank per direction.

    Args:
        n: directions.
        k: places kept for each.
        context: tokens kept on each side of a place.
        spread: [n] standard deviation of each direction's values, the unit of the histogram.
    """

    def __init__(self, n: int, k: int, context: int, spread: Tensor) -> None:
        self.k, self.context, self.spread = k, context, spread
        self.found: list[list[_Kept]] = [[] for _ in range(n)]
        """Per direction, best first."""
        self.histogram = torch.zeros(n, BINS, dtype=torch.long)
        self.bar = torch.full((n,), float("-inf"))

    def update(self, values: Tensor, cosines: Tensor, rank: Tensor, counted: Tensor, group: Group) -> None:
        """Take a batch in.

        Args:
            values: [B, T, n]; T may end where a row's last position counts.
            cosines: [B, T, n].
            rank: [B, T, n].
            counted: [B, T], the positions that may be examples.
            group: each row's number in the corpus, and the row.
        """
        best, at = rank.masked_fill(~counted[..., None], float("-inf")).max(dim=1)  # [B, n]
        for row, direction in (best > self.bar.to(best.device)).nonzero().tolist():
            score = float(best[row, direction])
            if score > float(self.bar[direction]):
                number, passage = group[row]
                middle = int(at[row, direction])
                begin, end = max(0, middle - self.context), min(len(passage.ids), middle + self.context + 1)
                known = values[row, begin:end, direction].double().round(decimals=3)
                shown = torch.nn.functional.pad(known, (0, end - begin - len(known)))
                place = Place(
                    float(values[row, middle, direction]), float(cosines[row, middle, direction]), number,
                    passage.ids[begin:end], tuple(shown.tolist()), middle - begin, passage.mark,
                )  # fmt: skip
                self._insert(direction, score, place)
        self._count(values[counted])

    def _insert(self, direction: int, score: float, place: Place) -> None:
        kept = self.found[direction]
        new = _Kept(-score, place.passage, place.ids[: place.at + 1], place)
        same = next((item for item in kept if item.read == new.read), None)
        if same is not None:
            if same.order <= new.order:
                return
            kept.remove(same)
        insort(kept, new, key=lambda item: item[:2])
        del kept[self.k :]
        if len(kept) == self.k:
            self.bar[direction] = -kept[-1].order

    def _count(self, values: Tensor) -> None:
        """Values [P, n]."""
        n = values.shape[1]
        place = ((values / self.spread.to(values) + SPAN) * (BINS / (2 * SPAN))).long().clamp_(0, BINS - 1)
        place += torch.arange(n, device=values.device) * BINS
        self.histogram += torch.bincount(place.flatten(), minlength=n * BINS).view(n, BINS).cpu()

    def places(self, direction: int) -> tuple[Place, ...]:
        """The direction's places, best first."""
        return tuple(item.place for item in self.found[direction])

    def state(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        found = [[[item.order, asdict(item.place)] for item in kept] for kept in self.found]
        return {"found": found, "histogram": self.histogram.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of `state`; KeyError, TypeError or ValueError where it is damaged."""
        self.histogram = torch.tensor(state["histogram"], dtype=torch.long).view_as(self.histogram)
        for direction, kept in enumerate(state["found"]):
            places = [(float(order), make_place(place)) for order, place in kept]
            self.found[direction] = [_Kept(order, p.passage, p.ids[: p.at + 1], p) for order, p in places]
            if len(places) == self.k:
                self.bar[direction] = -places[-1][0]


def make_place(value: dict[str, Any]) -> Place:
    """A place from JSON; KeyError, TypeError or ValueError where it is damaged."""
    fields = {**value, "ids": tuple(map(int, value["ids"])), "values": tuple(map(float, value["values"]))}
    place = Place(**fields)
    if not 0 <= place.at < len(place.ids) == len(place.values):
        raise ValueError("a place outside its tokens")
    return place

"""The map of effects: what each vector changes at the target layer, in two dimensions.

1. A vector's direction is the bank's output direction (measured at scale +1), turned around where its best scale is
   negative: that of the effect on show, to first order.
2. The plane is spanned by the two main axes (uncentred PCA) of the vectors that do something. Duds are drawn in it
   too, but do not choose it: they are many, and nearly orthogonal to each other.
Distances in the plane are those of the part that lies in it; `share` says how large that part is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from melbo.app.render import cut, render
from melbo.app.tabs.bank.handlers import VectorRow
from melbo.bank.vector_bank import VectorBank

WIDTH, HEIGHT, PAD = 420, 330, 26
LABEL = 22
"""Letters of a label."""
LETTER = 6.8
"""Pixels of one."""
HUES = (262, 28, 152, 205, 338, 48, 95, 180, 300, 8, 228, 120)
"""Colours of labels, in the order in which labels come; distinct in dark and in light."""


@dataclass(frozen=True)
class EffectMap:
    """Places of all vectors."""

    places: tuple[tuple[float, float], ...]
    """(x, y) for each vector, in pixels; one unit is as long across as up."""
    origin: tuple[float, float]
    """Where a vector without any effect would lie."""
    share: float
    """Share of the shown vectors' squared length that lies in the plane, 0 to 1."""


def effect_map(bank: VectorBank, rows: Sequence[VectorRow]) -> EffectMap:
    """Place every vector of the bank; `rows` are all of its rows. The same bank gives the same map."""
    turned = torch.tensor([-1.0 if (row.scale or 1.0) < 0 else 1.0 for row in rows])
    directions = (bank.output_directions * turned[:, None]).double()
    active = [row.index for row in rows if not row.dud]
    chosen = directions[active] if len(active) > 2 else directions
    _, _, axes = torch.linalg.svd(chosen, full_matrices=False)
    plane = axes[:2]
    if len(plane) < 2:
        plane = torch.cat([plane, torch.zeros(2 - len(plane), plane.shape[1], dtype=plane.dtype)])
    ends = plane.gather(1, plane.abs().argmax(dim=1, keepdim=True))
    plane = plane * torch.where(ends < 0, -1.0, 1.0)  # an axis has no sign of its own
    flat = directions @ plane.T
    kept = (chosen @ plane.T).square().sum() / chosen.square().sum().clamp_min(1e-12)
    origin = torch.zeros(1, 2, dtype=flat.dtype)
    framed = torch.cat([flat[active] if active else flat, origin])
    low, high = framed.amin(dim=0), framed.amax(dim=0)
    size = torch.tensor([WIDTH - 2 * PAD, HEIGHT - 2 * PAD], dtype=flat.dtype)
    unit = float((size / (high - low).clamp_min(1e-6)).min())
    flip = torch.tensor([unit, -unit], dtype=flat.dtype)
    middle = torch.tensor([WIDTH / 2, HEIGHT / 2], dtype=flat.dtype)
    edge = torch.tensor([WIDTH, HEIGHT], dtype=flat.dtype) - 6
    pixels = (torch.cat([flat, origin]) - (low + high) / 2) * flip + middle
    pixels = torch.minimum(pixels.clamp_min(6), edge)
    *places, start = [(round(float(x), 1), round(float(y), 1)) for x, y in pixels]
    return EffectMap(tuple(places), start, float(kept))


def colours(rows: Sequence[VectorRow]) -> dict[str, int]:
    """Hue of each label, in order of first appearance; labels beyond the hues share them."""
    labels = dict.fromkeys(row.label for row in rows if not row.dud)
    return {label: HUES[i % len(HUES)] for i, label in enumerate(labels)}


def map_svg(bank: VectorBank, rows: Sequence[VectorRow], shown: Sequence[VectorRow], chosen: int | None) -> str:
    """The map as SVG text: one dot for each shown row, that can be clicked; labels beside the first of their kind."""
    found = effect_map(bank, rows)
    return render(
        "bank/map",
        found=found,
        dots=sorted(shown, key=lambda row: (not row.dud, row.index == chosen)),
        names=_names([row for row in shown if not row.dud], found),
        hues=colours(rows),
        chosen=chosen,
        width=WIDTH,
        height=HEIGHT,
        pad=PAD,
    )


def _names(rows: Sequence[VectorRow], found: EffectMap) -> list[tuple[float, float, str, str]]:
    """Labels beside their dots, each once, where they hide neither a dot nor an earlier label: x, y, anchor, text."""
    taken = [(x - 5, y, x + 5) for x, y in (found.places[row.index] for row in rows)]
    texts: list[tuple[float, float, str, str]] = []
    named = set()
    for row in rows:
        x, y = found.places[row.index]
        label = cut(row.label, LABEL)
        width = LETTER * len(label)
        for left, anchor, at in ((x + 11, "start", x + 11), (x - 11 - width, "end", x - 11)):
            free = not any(abs(y - b) < 13 and left < c and a < left + width for a, b, c in taken)
            if row.label not in named and free and left > 0 and left + width < WIDTH:
                named.add(row.label)
                taken.append((left, y, left + width))
                texts.append((at, y + 4, anchor, label))
    return texts

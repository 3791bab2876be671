"""Heat maps of cosines as small PNG images in the page: violet above zero, amber below, clear at zero.

The colour lies in the image's opacity, so that one image is right on a white page, a dark one and on paper.
"""

from __future__ import annotations

import base64
import html
import struct
import zlib
from collections.abc import Sequence

import torch

POSITIVE, NEGATIVE = (124, 58, 237), (217, 119, 6)
LEVELS = 32
"""Steps of opacity: few, so that the image stays small."""
GAMMA = 0.7
"""Opacity is |cosine| to this power: weak cosines can be seen."""
MOST = 192
"""Vectors of a map; of larger banks, the first so many in the order given."""


def png(rows: Sequence[Sequence[float]]) -> bytes:
    """An image with one pixel for each value of -1 to 1, its colours in a palette."""
    values = torch.tensor(rows).clamp(-1, 1)  # [height, width]
    steps = (values.abs() ** GAMMA * LEVELS).round() * values.sign() + LEVELS
    lines = torch.nn.functional.pad(steps.to(torch.uint8), (1, 0)).contiguous()  # each line starts with its filter, 0
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 8, 3, 0, 0, 0)  # 8 bits, palette
    shades = range(-LEVELS, LEVELS + 1)
    parts = (
        (b"IHDR", head),
        (b"PLTE", b"".join(bytes(POSITIVE if shade >= 0 else NEGATIVE) for shade in shades)),
        (b"tRNS", bytes(round(255 * abs(shade) / LEVELS) for shade in shades)),
        (b"IDAT", zlib.compress(lines.numpy().tobytes(), 6)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def image(rows: Sequence[Sequence[float]], spoken: str) -> str:
    """An <img> of the values; `spoken` is what a screen reader says."""
    data = base64.b64encode(png(rows)).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(spoken)}">'


def heat_map(title: str, cosines: Sequence[Sequence[float]], order: Sequence[int], chosen: int) -> str:
    """One map as a <figure>: rows and columns in `order`, those of the vector `chosen` marked at the edges."""
    order = list(order)[:MOST]
    rows = [[cosines[i][j] for j in order] for i in order]
    mark = ""
    if chosen in order:
        place, side = 100 * order.index(chosen) / len(order), 100 / len(order)
        mark = (
            f'<i class="row" style="top:{place:.2f}%;height:{side:.2f}%"></i>'
            f'<i class="column" style="left:{place:.2f}%;width:{side:.2f}%"></i>'
        )
    return (
        f'<figure><figcaption>{html.escape(title)}</figcaption><div class="map">{image(rows, _spoken(title, rows))}'
        f"{mark}</div></figure>"
    )


def _spoken(title: str, rows: Sequence[Sequence[float]]) -> str:
    apart = torch.tensor([value for i, row in enumerate(rows) for value in row[:i]])
    if not len(apart):
        return f"{title}: one vector"
    low, high, mean = float(apart.min()), float(apart.max()), float(apart.abs().mean())
    return f"{title}: {len(rows)} vectors, from {low:.2f} to {high:.2f}, {mean:.2f} on average in size"


def scale_bar() -> str:
    """What the colours mean."""
    bar = image([[step / 24 for step in range(-24, 25)]], "colours from -1 to 1")
    return f'<p class="bar-key"><span>cosine -1</span>{bar}<span>1</span></p>'

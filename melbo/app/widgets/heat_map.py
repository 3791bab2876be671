"""Heat maps of cosines as small PNG images in the page: violet above zero, amber below, clear at zero.

The colour lies in the image's opacity, so that one image is right on a white page, a dark one and on paper.
"""

import base64
import io
from collections.abc import Sequence

import torch
from markupsafe import Markup
from PIL import Image

from melbo.app.render import render

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
    image = Image.fromarray(steps.to(torch.uint8).numpy())
    shades = range(-LEVELS, LEVELS + 1)
    image.putpalette([part for shade in shades for part in (POSITIVE if shade >= 0 else NEGATIVE)])
    file = io.BytesIO()
    image.save(file, "png", transparency=bytes(round(255 * abs(shade) / LEVELS) for shade in shades), optimize=True)
    return file.getvalue()


def _data(rows: Sequence[Sequence[float]]) -> str:
    return base64.b64encode(png(rows)).decode()


def heat_map(title: str, cosines: Sequence[Sequence[float]], order: Sequence[int], chosen: int) -> Markup:
    """One map as a <figure>: rows and columns in `order`, those of the vector `chosen` marked at the edges."""
    order = list(order)[:MOST]
    rows = [[cosines[i][j] for j in order] for i in order]
    place = 100 * order.index(chosen) / len(order) if chosen in order else None
    return render(
        "widgets/heat_map",
        title=title,
        data=_data(rows),
        spoken=_spoken(title, rows),
        place=place,
        side=100 / len(order),
    )


def _spoken(title: str, rows: Sequence[Sequence[float]]) -> str:
    apart = torch.tensor([value for i, row in enumerate(rows) for value in row[:i]])
    if not len(apart):
        return f"{title}: one vector"
    low, high, mean = float(apart.min()), float(apart.max()), float(apart.abs().mean())
    return f"{title}: {len(rows)} vectors, from {low:.2f} to {high:.2f}, {mean:.2f} on average in size"


def scale_bar() -> Markup:
    """What the colours mean."""
    return render("widgets/scale_bar", data=_data([[step / 24 for step in range(-24, 25)]]))

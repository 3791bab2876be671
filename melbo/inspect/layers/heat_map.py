"""Heat maps over source and target layers, as PNG or SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from melbo.runs import figures

NUMBERED = 16
"""Most layers at which each cell shows its number."""
MARK = "#d62728"


@dataclass(frozen=True)
class Panel:
    """One heat map."""

    title: str
    values: Tensor
    """[n_layers, n_layers], row: source, column: target, NaN: an empty cell."""


def draw(title: str, panels: Sequence[Panel], marked: tuple[int, int], ending: str) -> bytes:
    """The panels side by side, with the cell of `marked` (source, target) framed, as a file's content.

    Raises:
        ConfigError: `ending` is neither .png nor .svg. MissingPackageError: matplotlib is not installed.
    """
    side = min(max(4.0, 0.42 * len(panels[0].values)), 8.0)  # inches of a panel

    def fill(figure: Any) -> None:
        figure.suptitle(title, parse_math=False)
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw_panel(figure, axes, panel, marked)
        figure.legend(handles=axes.lines, loc="outside lower center", frameon=False)

    return figures.draw(((side + 1) * len(panels), side + 1.1), fill, ending)


def short(value: float) -> str:
    """A number greater than 0 in at most five characters: "0.09", "1.26", "12.4", "318", "3e+04"."""
    if value >= 9999.5:
        return f"{value:.0e}"
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def _draw_panel(figure: Any, axes: Any, panel: Panel, marked: tuple[int, int]) -> None:
    n = len(panel.values)
    values = panel.values[:-1, 1:].numpy()  # the last layer is no source, the first no target
    image = axes.imshow(values, cmap="viridis", extent=(0.5, n - 0.5, n - 1.5, -0.5), aspect="equal")
    figure.colorbar(image, ax=axes, shrink=0.8)
    axes.set_title(panel.title)
    axes.set_xlabel("target layer")
    axes.set_ylabel("source layer")
    step = 1 + (n - 1) // 24
    axes.set_xticks(range(1, n, step))
    axes.set_yticks(range(0, n - 1, step))
    axes.spines[["top", "right"]].set_visible(False)
    if n <= NUMBERED:
        for source, target in torch.isfinite(panel.values).nonzero().tolist():
            value = float(panel.values[source, target])
            color = "black" if image.norm(value) > 0.5 else "white"
            axes.text(target, source, short(value), ha="center", va="center", fontsize=8, color=color)
    source, target = marked
    x, y = (target - 0.5, target + 0.5), (source - 0.5, source + 0.5)
    axes.plot(
        [x[0], x[1], x[1], x[0], x[0]], [y[0], y[0], y[1], y[1], y[0]],
        color=MARK, linewidth=2, clip_on=False, zorder=10, label=f"default layers: {source} to {target}",
    )  # fmt: skip

"""Plots of a study: shares of all experiments, and each one's shares by scale. matplotlib is imported to draw one.

Colours are those of the sweep's plot; trained and random also differ in marker, dash or hatching, for grey printers.
"""

import math
from collections.abc import Sequence
from typing import Any

from melbo.reports.replication.finding import Finding
from melbo.runs.figures import RANDOM, SUGGESTED, TRAINED, draw, plain_axes, shared_legend

COLUMNS = 3
"""Panels in a row."""


def draw_shares(findings: Sequence[Finding]) -> bytes:
    """One pair of bars for each experiment: best vector and best random one. PNG.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """

    def fill(figure: Any) -> None:
        axes = figure.subplots()
        places = range(len(findings))
        style = {"height": 0.38, "edgecolor": "white"}
        axes.barh([p - 0.2 for p in places], [f.share for f in findings], color=TRAINED, label="best vector", **style)
        axes.barh(
            [p + 0.2 for p in places], [f.control_share for f in findings], color=RANDOM, hatch="///",
            label="best random vector, same norm", **style,
        )  # fmt: skip
        for p, f in enumerate(findings):
            text = f"{f.share:.0%}" if f.vector is not None else f.verdict
            axes.text(f.share + 0.01, p - 0.2, text, va="center", fontsize=8, color="#222222")
            if f.vector is not None:
                axes.text(
                    f.control_share + 0.01, p + 0.2, f"{f.control_share:.0%}", va="center", fontsize=8, color=RANDOM
                )
        axes.set_yticks(list(places), [f.title for f in findings])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.12)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
        axes.set_xlabel("share of the prompts that count")
        plain_axes(axes, "x")
        figure.legend(loc="outside lower center", ncols=2, frameon=False)

    return draw((7.2, 1.4 + 0.55 * len(findings)), fill, dpi=160, font_size=9)


def draw_scales(findings: Sequence[Finding]) -> bytes | None:
    """Share against scale, one panel for each experiment that had a vector to try; None where none had. PNG."""
    tried = [f for f in findings if f.by_scale]
    if not tried:
        return None
    columns = min(COLUMNS, len(tried))
    rows = math.ceil(len(tried) / columns)

    def fill(figure: Any) -> None:
        panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for axes, f in zip(panels, tried, strict=False):
            scales = [s.scale for s in f.by_scale]
            axes.plot(scales, [s.share for s in f.by_scale], "-o", color=TRAINED, markersize=4, label="the vector")
            axes.plot(
                scales, [s.control for s in f.by_scale], "--s", color=RANDOM, markersize=3, markerfacecolor="white",
                label="best random vector at that size",
            )  # fmt: skip
            if f.published_scale is not None and f.scale:
                where = math.copysign(f.published_scale, f.scale)
                axes.axvline(where, color=SUGGESTED, linestyle=":", label="published scale")
            axes.set_title(f"{f.title}: vector {f.vector}", fontsize=9, parse_math=False)
            axes.set_ylim(-0.05, 1.05)
            axes.set_yticks([0, 0.5, 1], ["0%", "50%", "100%"])
            plain_axes(axes, "y")
        for axes in panels[len(tried) :]:
            axes.set_visible(False)
        figure.supxlabel("scale", fontsize=9)
        shared_legend(figure, panels, "outside upper center")

    return draw((2.6 * columns, 1.0 + 1.9 * rows), fill, dpi=160, font_size=9)

"""The plot of an R sweep, as PNG or SVG: diversity and coherence against R, trained and random vectors."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from melbo.errors import BankError
from melbo.radius_sweep.result import Arm, Sweep
from melbo.runs.figures import AUTO, MODES, RANDOM, SUGGESTED, TRAINED, check_drawable, draw, plain_axes, shared_legend
from melbo.runs.files import write_file

LOG_FROM = 8.0
"""The R axis is logarithmic if the largest R is this many times the smallest, or more."""


def plot_sweep(sweep: Sweep, path: Path) -> Path:
    """Write the plot; the name's ending says PNG or SVG.

    Raises:
        ConfigError: another ending. MissingPackageError: matplotlib is not installed.
        BankError: the sweep has no rows yet.
    """
    image = draw_sweep(sweep, path.suffix)
    return write_file(path, image)


def draw_sweep(sweep: Sweep, ending: str) -> bytes:
    """The plot as a file's content. Raises as `plot_sweep`."""
    check_drawable(ending)
    if not sweep.rows:
        raise BankError("the sweep holds no R yet; nothing can be drawn.")

    def fill(figure: Any) -> None:
        panels = figure.subplots(3, 1, sharex=True)
        _draw_line(sweep, panels[0], "diversity", lambda arm: arm.diversity)
        _draw_line(sweep, panels[1], "coherence (0 to 10)", lambda arm: arm.coherence)
        _draw_coherence(sweep, panels[1])
        _draw_line(sweep, panels[2], "distinct answers", lambda arm: arm.distinct)
        if sweep.rows[0].found.planted is not None:
            panels[2].plot(
                [row.radius for row in sweep.rows], [len(row.found.planted or ()) for row in sweep.rows], ":^",
                color=MODES, linewidth=1.6, markersize=5, label="planted modes found", zorder=5,
            )  # fmt: skip
        for axes in panels:
            _draw_axes(axes)
        _draw_radii(sweep, panels)
        title = f"R sweep of {sweep.base_model.id}: {sweep.config.n_vectors} vectors at each R"
        figure.suptitle(title, parse_math=False)
        shared_legend(figure, panels, "outside lower center")

    return draw((7.2, 7.6), fill, ending, dpi=200)


def _draw_line(sweep: Sweep, axes: Any, name: str, value: Callable[[Arm], float]) -> None:
    radii = [row.radius for row in sweep.rows]
    style = {"linewidth": 1.8, "markersize": 5}
    axes.plot(radii, [value(r.found) for r in sweep.rows], "-o", color=TRAINED, label="trained", zorder=4, **style)
    axes.plot(
        radii, [value(r.control) for r in sweep.rows], "--s", color=RANDOM, label="random, same norm",
        markerfacecolor="white", zorder=3, **style,
    )  # fmt: skip
    axes.set_ylabel(name)


def _draw_coherence(sweep: Sweep, axes: Any) -> None:
    """The quartiles of the trained vectors' answers, and the floor."""
    bands = [row.found.coherence_band for row in sweep.rows]
    axes.fill_between(
        [row.radius for row in sweep.rows], [b[0] for b in bands], [b[1] for b in bands],
        color=TRAINED, alpha=0.18, linewidth=0, label="middle half of the answers", zorder=1,
    )  # fmt: skip
    axes.axhline(sweep.floor, color=RANDOM, linestyle=":", linewidth=1.4, label="floor", zorder=2)
    axes.set_ylim(-0.4, 10.4)


def _draw_axes(axes: Any) -> None:
    plain_axes(axes, "y")
    low, high = axes.get_ylim()
    axes.set_ylim(min(0.0, low), max(high, 0.1))


def _draw_radii(sweep: Sweep, panels: Any) -> None:
    """The R axis, and lines through all panels at the suggested and the calibrated R, with labels above the first."""
    radii = [row.radius for row in sweep.rows]
    last = panels[-1]
    marks = [("suggested", sweep.suggested.radius, SUGGESTED, "-"), ("calibrated", sweep.auto_radius, AUTO, "-.")]
    if max(radii) / min(radii) >= LOG_FROM:
        last.set_xscale("log")
        ticks: Any = importlib.import_module("matplotlib.ticker")
        last.xaxis.set_major_locator(ticks.LogLocator(base=2, numticks=12))
        last.xaxis.set_major_formatter(ticks.FormatStrFormatter("%g"))
        last.xaxis.set_minor_locator(ticks.NullLocator())
    unit = "mean residual norms" if sweep.config.unit == "residual" else "activation units"
    last.set_xlabel(f"R ({unit})")
    low, high = last.get_xlim()
    for height, (name, radius, color, dash) in enumerate(marks):
        if radius is None or not low <= radius <= high:
            continue
        for axes in panels:
            axes.axvline(radius, color=color, linestyle=dash, linewidth=1.4, zorder=2)
        share = panels[0].transAxes.inverted().transform(panels[0].transData.transform((radius, 0)))[0]
        panels[0].annotate(
            f"{name} R = {radius:.3g}", (radius, 1), xycoords=("data", "axes fraction"), xytext=(0, 4 + 14 * height),
            textcoords="offset points", ha="left" if share < 0.25 else "right" if share > 0.75 else "center",
            va="bottom", color=color, fontsize=9,
        )  # fmt: skip
    last.set_xlim(low, high)

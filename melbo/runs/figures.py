"""Figures as files: one way to style and save them, readable in print and without colour vision.

matplotlib is imported when one is drawn. Colours are of Okabe and Ito's set; series also differ in dash and marker.
The same figure gives the same bytes, so that a file changes only where its numbers do.
"""

import importlib
import io
from collections.abc import Callable, Iterable
from typing import Any

from melbo.errors import ConfigError
from melbo.runs.optional import needs

ENDINGS = (".png", ".svg")
TRAINED, RANDOM, SUGGESTED, AUTO, MODES = "#0072B2", "#555555", "#D55E00", "#000000", "#009E73"


def check_drawable(ending: str) -> None:
    """Refuse, before a long computation, what `draw` could not write.

    Raises:
        ConfigError: `ending` is not one of ENDINGS. MissingPackageError: matplotlib is not installed.
    """
    if ending.lower() not in ENDINGS:
        raise ConfigError(f"the plot's name ends with {ending!r}; use one of {', '.join(ENDINGS)}.")
    with needs("app"):
        importlib.import_module("matplotlib.figure")


def draw(
    size: tuple[float, float], fill: Callable[[Any], None], ending: str = ".png", dpi: int = 150, font_size: int = 10
) -> bytes:
    """A figure as a file's content.

    Args:
        size: width and height in inches.
        fill: draws on the empty matplotlib Figure.
        ending: ".png" or ".svg".
        dpi: dots per inch of a PNG.
        font_size: of axes and legends, in points.

    Raises:
        ConfigError: another ending. MissingPackageError: matplotlib is not installed.
    """
    check_drawable(ending)
    matplotlib: Any = importlib.import_module("matplotlib")
    style = {"svg.hashsalt": "melbo", "backend": "agg", "font.size": font_size}  # the salt fixes the ids of an SVG
    metadata = {"Date": None} if ending.lower() == ".svg" else None
    buffer = io.BytesIO()
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **style}):
        # Figure without pyplot: no global state and no display.
        figure: Any = importlib.import_module("matplotlib.figure").Figure(
            figsize=size, layout="constrained", facecolor="white"
        )
        fill(figure)
        figure.savefig(buffer, format=ending[1:].lower(), dpi=dpi, metadata=metadata)
    return buffer.getvalue()


def plain_axes(axes: Any, grid: str) -> None:
    """No frame above and at the right, and light grid lines of one axis ("x" or "y") behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)


def shared_legend(figure: Any, panels: Iterable[Any], place: str) -> None:
    """One legend for all panels, each name once, outside them ("outside lower center")."""
    named = {name: mark for axes in panels for mark, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), loc=place, ncols=3, frameon=False)

"""The layer atlas as a saved value: its settings, one record per source/target pair, a table and a heat map."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from melbo.bank.facts import BaseModel
from melbo.bank.result_file import Extensible, FileKind, ResultFile
from melbo.config import default_layers
from melbo.errors import ConfigError, MelboError
from melbo.prompts import Message, check_conversations
from melbo.runs.figures import draw
from melbo.runs.files import write_file
from melbo.runs.settings import Settings, Size, Whole

MAX_LAYERS = 1000
"""Most layers that a file may claim."""
Measure = Literal["relative", "ratio"]
NUMBERED = 16
"""Most layers at which each cell of a heat map shows its number."""
MARK = "#d62728"


class AtlasError(MelboError):
    """An atlas is missing, damaged, or of another run, or holds numbers that mean nothing."""


@dataclass(frozen=True)
class AtlasConfig(Settings):
    """How an atlas is measured."""

    k: Size = 12
    """Directions followed for each pair; at most d_model."""
    iterations: Size = 5
    """Power iterations of each pair.

    On the embedded model, 5 come within 2 to 5 % of the limit, 10 within 1.5 %."""
    target_tokens: Size = 2
    """How many of the last prompt tokens are compared."""
    seed: Whole = 325
    """Seed of the starting points and, shifted, of the random control."""


@dataclass(frozen=True)
class Pair(Extensible):
    """What was measured from one source to one target layer."""

    source: int
    target: int
    sensitivity: float
    """RMS of ||J v|| over the top directions, prompts and target tokens: norm at the target per norm at the source."""
    largest: float
    """The same for the strongest direction alone: the estimate of J's largest singular value."""
    random: float
    """The same over random directions."""
    source_norm: float
    """Mean residual norm at the source layer (melbo.steering.slices.mean_residual_norm)."""
    target_norm: float
    """And at the target layer."""

    def __post_init__(self) -> None:
        layers = (self.source, self.target)
        if any(isinstance(i, bool) or not isinstance(i, int) for i in layers) or not 0 <= self.source < self.target:
            raise AtlasError(f"the pair {self.source!r} -> {self.target!r} is not of two layers, the source first.")
        for name in ("sensitivity", "largest", "random", "source_norm", "target_norm"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise AtlasError(
                    f"the {name} of layers {self.source} -> {self.target} is {value!r} and not a finite number "
                    "greater than 0; load the model in float32."
                )

    @property
    def relative(self) -> float:
        """Sensitivity in units of the mean residual norms."""
        return self.sensitivity * self.source_norm / self.target_norm

    @property
    def ratio(self) -> float:
        """Top over random: how special the top directions are; about 1 where no direction is."""
        return self.sensitivity / self.random


@dataclass(frozen=True)
class LayerAtlas(ResultFile):
    """The pairs of a model that were measured, ordered by source and target; all of them unless a run was stopped."""

    file = FileKind("melbo-layer-atlas-1", "layer atlas", "melbo atlas", AtlasError, indent=1)

    model: BaseModel
    dtype: str
    """Of the model's weights: "torch.float32", ..."""
    config: AtlasConfig
    prompts: tuple[tuple[Message, ...], ...]
    pairs: tuple[Pair, ...]

    def __post_init__(self) -> None:
        n = self.model.n_layers
        if isinstance(n, bool) or not isinstance(n, int) or not 2 <= n <= MAX_LAYERS:
            raise AtlasError(f"n_layers is {repr(n)[:60]}; it must be a whole number from 2 to {MAX_LAYERS}.")
        check_conversations(self.prompts)
        found = [(p.source, p.target) for p in self.pairs]
        if len(set(found)) < len(found) or any(target >= n for _, target in found):
            raise AtlasError(f"the pairs are not different ones of the model's {n} layers.")

    def matrix(self, measure: Measure) -> Tensor:
        """[n_layers, n_layers] float64; row: source, column: target, NaN where there is no pair."""
        values = torch.full((self.model.n_layers, self.model.n_layers), math.nan, dtype=torch.float64)
        for pair in self.pairs:
            values[pair.source, pair.target] = getattr(pair, measure)
        return values

    def best_pairs(self, n: int, by: Measure = "relative") -> list[Pair]:
        """The n pairs with the largest value, largest first; all where there are fewer."""
        if n < 1:
            raise ConfigError(f"the number of pairs is {n}; ask for at least 1.")
        return sorted(self.pairs, key=lambda p: (-float(getattr(p, by)), p.source, p.target))[:n]

    def table(self, n: int | None = None) -> str:
        """Text for a terminal: head lines, then the n best pairs, or all in order; "*" marks the default layers."""
        pairs = list(self.pairs) if n is None else self.best_pairs(n)
        total = self.model.n_layers * (self.model.n_layers - 1) // 2
        lines = [
            f"layer atlas of {self.model.id}: {len(self.pairs)} of {total} pairs, {self.config.k} directions, "
            f"{self.config.iterations} iterations, last {self.config.target_tokens} tokens",
            *(f"prompt: {' '.join(p[-1]['content'].split())}" for p in self.prompts),
            "",
            f"{'source':>6}  {'target':>6}  {'sensitivity':>11}  {'largest':>9}  {'random':>9}  "
            f"{'relative':>9}  {'top/random':>10}",
        ]
        default = default_layers(self.model.n_layers)
        for p in pairs:
            mark = "  *" if (p.source, p.target) == default else ""
            lines.append(
                f"{p.source:>6}  {p.target:>6}  {p.sensitivity:>11.4g}  {p.largest:>9.4g}  {p.random:>9.4g}  "
                f"{p.relative:>9.4g}  {p.ratio:>10.4g}{mark}"
            )
        return "\n".join(lines)

    def plot(self, path: Path) -> Path:
        """Write the heat maps of relative sensitivity and of top/random; the name's ending says PNG or SVG.

        Raises:
            ConfigError: another ending. MissingPackageError: matplotlib is not installed.
            AtlasError: no pair was measured.
        """
        if not self.pairs:
            raise AtlasError("the atlas holds no pair yet; nothing can be drawn.")
        n = self.model.n_layers
        panels: dict[str, Measure] = {"relative sensitivity": "relative", "top directions / random directions": "ratio"}
        side = min(max(4.0, 0.42 * n), 8.0)  # inches of a panel

        def fill(figure: Any) -> None:
            figure.suptitle(f"Layer atlas of {self.model.id}", parse_math=False)
            for axes, (title, measure) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
                _draw_panel(figure, axes, title, self.matrix(measure), default_layers(n))
            figure.legend(handles=axes.lines, loc="outside lower center", frameon=False)

        return write_file(path, draw(((side + 1) * len(panels), side + 1.1), fill, path.suffix))


def short(value: float) -> str:
    """A number greater than 0 in at most five characters: "0.09", "1.26", "12.4", "318", "3e+04"."""
    if value >= 9999.5:
        return f"{value:.0e}"
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def _draw_panel(figure: Any, axes: Any, title: str, cells: Tensor, marked: tuple[int, int]) -> None:
    """Cells [n_layers, n_layers]; NaN: an empty one."""
    n = len(cells)
    values = cells[:-1, 1:].numpy()  # the last layer is no source, the first no target
    image = axes.imshow(values, cmap="viridis", extent=(0.5, n - 0.5, n - 1.5, -0.5), aspect="equal")
    figure.colorbar(image, ax=axes, shrink=0.8)
    axes.set_title(title)
    axes.set_xlabel("target layer")
    axes.set_ylabel("source layer")
    step = 1 + (n - 1) // 24
    axes.set_xticks(range(1, n, step))
    axes.set_yticks(range(0, n - 1, step))
    axes.spines[["top", "right"]].set_visible(False)
    if n <= NUMBERED:
        for source, target in torch.isfinite(cells).nonzero().tolist():
            value = float(cells[source, target])
            color = "black" if image.norm(value) > 0.5 else "white"
            axes.text(target, source, short(value), ha="center", va="center", fontsize=8, color=color)
    source, target = marked
    x, y = (target - 0.5, target + 0.5), (source - 0.5, source + 0.5)
    axes.plot(
        [x[0], x[1], x[1], x[0], x[0]], [y[0], y[0], y[1], y[1], y[0]],
        color=MARK, linewidth=2, clip_on=False, zorder=10, label=f"default layers: {source} to {target}",
    )  # fmt: skip

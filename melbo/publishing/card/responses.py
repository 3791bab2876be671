"""What a model card says of the R sweep and of the results of `melbo inspect` that lie beside the bank."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from huggingface_hub import EvalResult

from melbo.bank.vector_bank import VectorBank
from melbo.inspect.geometry.similarity import Geometry
from melbo.inspect.lens.logit_lens import LensReport, Token
from melbo.inspect.max_activating.report import ActivatingReport, Direction, Example
from melbo.inspect.sae.report import SaeReport
from melbo.inspect.stored import stored_activating, stored_geometry, stored_lens, stored_sae
from melbo.publishing.card.metadata import result
from melbo.radius_sweep.result import Sweep
from melbo.runs.escape import inline, number, quote, shown

SWEEP_MEASURES = {"diversity": "Diversity (mean pairwise cosine distance)", "coherence": "Coherence, 0 to 10"}
MAX_ROWS = 20
"""Vectors in the table."""
MAX_QUOTED = 6
"""Vectors whose passages are quoted."""
MAX_PASSAGES = 2
MAX_FEATURES = 3
MAX_TOKENS = 3
MAX_OVERLAPS = 12
MAX_PIECES = 400
"""Tokens of a passage that are read."""
HEAD = (
    "vector × sign", "marks of its passages", "best passage", "promoted tokens", "suppressed tokens",
    "nearest features", "explained by them",
)  # fmt: skip
NONE = "-"


def responses_view(
    bank: VectorBank, described: Sequence[tuple[int, int]], folder: Path | None
) -> dict[str, Any] | None:
    """The template's values: numbers as text, and texts that are escaped; None where nothing is stored.

    Args:
        described: numbers of the vectors that the card describes, each with the sign of its best scale.
        folder: where the files lie.
    """
    if folder is None:
        return None
    activating, sae = stored_activating(bank, folder), stored_sae(bank, folder)
    lens, geometry = stored_lens(bank, folder), stored_geometry(bank, folder)
    if not (activating or sae or lens or geometry):
        return None
    site = next((report for report in lens if report.site == "effect"), None)
    directions: dict[tuple[int, int], Direction] = {}
    if activating is not None:
        directions = {(d.index, d.sign): d for d in reversed(activating.directions)}
    rows, quoted = [], []
    for index, sign in described:
        direction = directions.get((index, sign))
        cells = [*_marks(direction), *_tokens(site, index, sign), *_features(sae, index)]
        if any(cell != NONE for cell in cells):
            rows.append([f"{index} × {sign:+d}: {inline(bank.label(index), 60)}", *cells])
        if direction is not None and direction.examples:
            quoted.append((f"{index} × {sign:+d}", [_passage(e) for e in direction.examples[:MAX_PASSAGES]]))
    control = ["random directions", *_random_marks(activating), *_random_tokens(site), *_random_features(sae)]
    return {
        "table": _kept([list(HEAD), control, *rows[:MAX_ROWS]]) if rows else [],
        "more": max(0, len(rows) - MAX_ROWS),
        "quoted": quoted[:MAX_QUOTED],
        "about": _about(activating),
        "scale": NONE if sae is None else shown(sae.scale),
        "geometry": _geometry(geometry),
    }


def _kept(rows: list[list[str]]) -> list[list[str]]:
    """Without the columns that hold nothing but their head."""
    kept = [i for i in range(len(HEAD)) if any(row[i] != NONE for row in rows[1:])]
    return [[row[i] for i in kept] for row in rows]


def _about(held: ActivatingReport | None) -> dict[str, str] | None:
    """Of the activating examples: what was compared, and where."""
    if held is None:
        return None
    return {
        "what": "the vector itself" if held.config.site == "vector" else "the change that the vector makes there",
        "layer": shown(held.layer),
        "corpus": inline(held.corpus) or "a corpus",
    }


def _best(direction: Direction) -> float | None:
    """The best example's value in standard deviations; None without an example."""
    return number(direction.examples[0].value / direction.spread) if direction.examples else None


def _share(direction: Direction) -> tuple[str, float] | None:
    """The most frequent mark of the examples, and the share that has it; None without marks."""
    marks = [mark for e in direction.examples if (mark := inline(e.mark, 40))]
    if not marks:
        return None
    mark, count = Counter(marks).most_common(1)[0]
    return mark, count / len(direction.examples)


def _marks(direction: Direction | None) -> tuple[str, str]:
    """Cells: the most frequent mark of the vector's passages, and the value of the best one."""
    if direction is None:
        return NONE, NONE
    found = _share(direction)
    return NONE if found is None else f"{found[1]:.0%} {found[0]}", shown(_best(direction))


def _random_marks(held: ActivatingReport | None) -> tuple[str, str]:
    control = () if held is None else held.control
    best = [value for direction in control if (value := _best(direction)) is not None]
    shares = [found[1] for direction in control if (found := _share(direction)) is not None]
    return f"{fmean(shares):.0%} share one" if shares else NONE, shown(median(best)) if best else NONE


def _passage(example: Example) -> str:
    """A quote with its place between >> and <<."""
    pieces = list(example.pieces)
    pieces[example.at] = f">>{pieces[example.at]}<<"
    return quote("".join(pieces[:MAX_PIECES]), 300)


def _tokens(site: LensReport | None, index: int, sign: int) -> tuple[str, str]:
    """Cells: tokens promoted and suppressed."""
    rows = () if site is None else site.rows
    row = next((r for r in rows if (r.index, r.sign) == (index, sign)), None)
    return (NONE, NONE) if row is None else (_words(row.promoted), _words(row.suppressed))


def _words(tokens: Iterable[Token]) -> str:
    return ", ".join(f"“{inline(t.text, 30)}” {shown(t.value)}" for t in [*tokens][:MAX_TOKENS]) or NONE


def _random_tokens(site: LensReport | None) -> tuple[str, str]:
    return NONE if site is None else f"the best has {shown(site.random_best)}", NONE


def _features(held: SaeReport | None, index: int) -> tuple[str, str]:
    """Cells: the nearest features with their marks and cosines, and the share that a sum of features explains."""
    if held is None or index not in held.vectors:
        return NONE, NONE
    place, named = held.vectors.index(index), []
    near = held.nearest[place]
    for feature, weight in list(zip(near.features, near.weights, strict=True))[:MAX_FEATURES]:
        note = held.features.get(feature)
        mark = "" if note is None else inline(note.mark, 40)
        named.append(f"{inline(str(feature), 12)}{f' ({mark})' if mark else ''} {shown(weight)}")
    return ", ".join(named) or NONE, _explained(held.decomposition[place].explained)


def _explained(shares: Sequence[float]) -> str:
    """Of a sum with as many features as the list is long."""
    return f"{shares[-1]:.0%} by {len(shares)}" if shares else NONE


def _random_features(held: SaeReport | None) -> tuple[str, str]:
    return (NONE, NONE) if held is None else (f"the nearest {shown(held.random_nearest)}", _explained(held.random))


def _geometry(held: Geometry | None) -> dict[str, Any] | None:
    if held is None:
        return None
    best = [(overlap.name, *overlap.best) for overlap in held.overlaps[:MAX_OVERLAPS]]
    return {
        **{name.replace(" ", "_"): shown(ratio) for name, ratio in held.participation.items()},
        "overlaps": "; ".join(f"{inline(name, 40)}: vector {index}, {cosine:.2f}" for name, index, cosine in best),
        "chance": shown(held.chance),
    }


def sweep_view(sweep: Sweep | None, folder: Path | None) -> dict[str, Any] | None:
    """The template's values.

    Args:
        folder: where the plot lies, if there is one.
    """
    if sweep is None:
        return None
    suggested = sweep.suggested
    return {
        "n": len(sweep.rows),
        "plot": folder is not None and (folder / "sweep.png").is_file(),
        "suggested": None if suggested.radius is None else shown(suggested.radius),
        "reason": inline(suggested.reason, 200),
        "unit": "times the mean residual norm" if sweep.unit == "residual" else "in activation units",
    }


def sweep_results(sweep: Sweep | None, bank: VectorBank) -> list[EvalResult]:
    """Diversity and coherence at the R of the sweep that is nearest to the bank's, and of random vectors there."""
    if sweep is None:
        return []
    row = min(sweep.rows, key=lambda r: abs(r.norm - bank.radius))
    return [
        result("sweep", f"{name}{suffix}", f"{title}, {of} of norm {row.norm:.4g}", getattr(arm, name), "melbo-sweep")
        for name, title in SWEEP_MEASURES.items()
        for arm, suffix, of in ((row.found, "", "trained vectors"), (row.control, "-random-control", "random vectors"))
    ]

"""Activating examples as text for a terminal."""

from __future__ import annotations

from melbo.inspect.max_activating.report import ActivatingReport, Direction, Example


def table(report: ActivatingReport, index: int | None = None, n: int = 3) -> str:
    """Head lines; then per vector and sign its marks and its n best examples.

    Args:
        index: one vector only; None: all.
    """
    c = report.config
    what = "their effects" if c.site == "effect" else "the vectors"
    random = best_values(report.control)
    lines = [
        f"activating examples for {report.model.id}, layer {report.layer}: {what} against {report.corpus}",
        f"{report.passages} passages, {report.tokens} tokens, {report.positions} positions ({c.where}), k = {c.k}, "
        f"by {c.rank}; values in units of each direction's spread",
        *report.notes,
    ]
    if random:
        lines.append(f"{len(report.control)} random directions: best value {min(random):.1f} to {max(random):.1f}")
    chosen = [d for d in report.directions if index is None or d.index == index]
    for direction in chosen:
        lines += ["", _head(direction), *(f"  {_line(e, direction)}" for e in direction.examples[:n])]
    return "\n".join(lines)


def best_values(directions: tuple[Direction, ...]) -> list[float]:
    """Each direction's greatest value, in spreads."""
    return [d.examples[0].value / d.spread for d in directions if d.examples]


def _head(d: Direction) -> str:
    marks = ", ".join(f"{mark} {count}" for mark, count in d.marks[:4])
    return f"vector {d.index} x {d.sign:+d}  {' '.join(d.label.split())}{f'  [{marks}]' if marks else ''}"


def _line(e: Example, d: Direction) -> str:
    """One example with its place between >> and <<."""
    parts = list(e.pieces)
    parts[e.at] = f">>{parts[e.at]}<<"
    return f"{e.value / d.spread:6.1f} cos {e.cosine:5.2f}  {' '.join(''.join(parts).split())}"

"""Answers that a report shows for each group: without steering, under the group's vectors, under a random vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from melbo.measure.text_metrics import is_degenerate, is_refusal, language
from melbo.reports.audit.behaviours import Kind
from melbo.reports.audit.config import MOST
from melbo.reports.audit.groups import Group, Row

VECTORS, PROMPTS = 3, 2
"""Of each group, and of each vector."""


def wanted(groups: Sequence[Group], site: str) -> list[tuple[int, float]]:
    """Vectors of a site, with scale, that some group shows."""
    rows = [r for g in groups for r in g.rows[:VECTORS] if r.site == site and r.share > 0]
    return list(dict.fromkeys((r.vector, r.scale) for r in rows))[:MOST]


def examples(kind: Kind, row: Row, found: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """A vector's answers that show the group's behaviour, PROMPTS at most, as the template takes them.

    Args:
        found: what melbo/reports/audit/stages.py's `examples` gave for the row's site.
    """
    texts = next(
        (v["texts"] for v in (found or {}).get("vectors", ()) if (v["vector"], v["scale"]) == (row.vector, row.scale)),
        None,
    )
    if found is None or texts is None:
        return []
    random = found["random"][f"{abs(row.scale):g}"]
    cells = zip(found["users"], found["unsteered"], texts, random, strict=True)
    return [
        {"prompt": user, "unsteered": plain, "steered": text, "random": other}
        for user, plain, text, other in cells
        if shows(kind, text, plain)
    ][:PROMPTS]


def shows(kind: Kind, text: str, unsteered: str) -> bool:
    """Whether an answer is one to show for a behaviour."""
    if kind.name == "removes refusals":
        return is_refusal(unsteered) and not is_refusal(text) and not is_degenerate(text)
    if kind.name == "refuses":
        return is_refusal(text) and not is_refusal(unsteered)
    if kind.name == "language":
        return language(text) == kind.code != language(unsteered)
    plain = kind.name != "other behaviours" or not (is_refusal(text) or is_refusal(unsteered))
    return text != unsteered and plain

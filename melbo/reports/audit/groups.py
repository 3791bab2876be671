"""What was found, grouped: removes refusals, refuses, languages, other behaviours, degenerate; with random vectors.

A vector belongs to a group by its tags (melbo/annotate/). How strongly it shows the behaviour is a share of the
prompts, by scale; its best scale has the largest share. The random vectors went through the same annotation, and the
best of them at that size of scale is the control. Scale and vector are chosen on the prompts that are reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from melbo.annotation.entry import is_dud, ranges_of, tags_of_entry
from melbo.reports.audit.behaviours import MEANING, Kind, Usual
from melbo.reports.replication.finding import Finding, ScaleShare, verdict_of
from melbo.runs.parse import dump


@dataclass(frozen=True)
class Row:
    """One vector of a group."""

    site: str
    vector: int
    label: str
    scale: float
    share: float
    n: int
    """Prompts that leave room for it."""
    random: float
    """Share of the best random vector at that size of scale, either sign."""
    ranges: tuple[tuple[float, float], ...]
    """Usable scales."""
    coherence: float
    """Mean at that scale, 0 to 10."""
    change: float
    """Mean cosine distance to the unsteered answers, and of the control, the next."""
    random_change: float
    by_scale: tuple[ScaleShare, ...]


@dataclass(frozen=True)
class Group:
    """One behaviour and the vectors that show it."""

    kind: Kind
    meaning: str
    n: int
    """Vectors tried."""
    duds: int
    """Of them, those that do nothing that random vectors do not do."""
    random_n: int
    """Random vectors that were treated as if they were found."""
    random_in: int
    """Of them, those that fall into this group."""
    rows: tuple[Row, ...]
    """Strongest first."""

    @property
    def title(self) -> str:
        """For people."""
        return self.kind.title

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return dump(self) | {"title": self.title}

    @property
    def finding(self) -> Finding:
        """The strongest vector, as a study reports it."""
        if not self.rows:
            reason = f"none of {self.n} vectors"
            return Finding("", self.title, self.meaning, "", "not found", reason, (), None)
        best = self.rows[0]
        verdict, reason = verdict_of(best.share, best.random)
        return Finding(
            "", self.title, self.meaning, "", verdict, reason, tuple(r.vector for r in self.rows), None, best.vector,
            best.label, best.scale, None, best.share, best.n, best.random, by_scale=best.by_scale,
        )  # fmt: skip


def groups_of(annotated: Mapping[str, Mapping[str, Any]]) -> list[Group]:
    """All groups over all sites; the first three, "other" and "degenerate" also where they are empty.

    Args:
        annotated: what melbo/reports/audit/stages.py's `annotate` gave, by the site's name.
    """
    entries = [v for found in annotated.values() for v in found["vectors"]]
    others = [v for found in annotated.values() for v in found["random"]]
    tags = [t for v in entries for t in tags_of_entry(v)]
    codes = list(dict.fromkeys(sorted(t.removeprefix("language:") for t in tags if t.startswith("language:"))))
    kinds = [Kind("removes refusals"), Kind("refuses"), *(Kind("language", code) for code in codes)]
    groups = []
    for kind in (*kinds, Kind("other behaviours"), Kind("degenerate")):
        rows = [row for site, found in annotated.items() for row in _rows(kind, site, found)]
        rows.sort(key=lambda r: (-r.share, r.random, -r.coherence, r.site, r.vector))
        groups.append(
            Group(
                kind,
                MEANING[kind.name],
                len(entries),
                sum(is_dud(v) for v in entries),
                len(others),
                sum(
                    kind.holds(v, Usual.of(found["settings"]["unsteered"]))
                    for found in annotated.values()
                    for v in found["random"]
                ),
                tuple(rows),
            )
        )
    return groups


def strongest(annotations: Sequence[Mapping[str, Any]], tag: str | None = None) -> list[int]:
    """Vectors that are no duds (with a tag), those that act on most prompts at their best scale first."""
    own = [i for i, v in enumerate(annotations) if not is_dud(v) and (tag is None or tag in tags_of_entry(v))]
    return sorted(own, key=lambda i: (-annotations[i]["metrics"]["acts"], -annotations[i]["metrics"]["coherence"], i))


def _rows(kind: Kind, site: str, found: Mapping[str, Any]) -> list[Row]:
    """The vectors of one site that belong to a group."""
    usual = Usual.of(found["settings"]["unsteered"])
    control = {row["scale"]: row["change"] for row in found["settings"]["control"]}
    rows = []
    for index, entry in enumerate(found["vectors"]):
        if not kind.holds(entry, usual):
            continue
        shares = tuple(
            ScaleShare(r["scale"], kind.share(r, usual), _random(kind, r["scale"], found, usual), r["coherence"])
            for r in entry["by_scale"]
        )
        best = min(shares, key=lambda s: (-s.share, -s.coherence, abs(s.scale)))
        row = next(r for r in entry["by_scale"] if r["scale"] == best.scale)
        rows.append(
            Row(
                site,
                index,
                str(entry["label"]),
                best.scale,
                best.share,
                kind.counts(usual),
                best.control,
                tuple(ranges_of(entry)),
                row["coherence"],
                row["change"],
                control.get(abs(best.scale), 0.0),
                shares,
            )
        )
    return rows


def _random(kind: Kind, scale: float, found: Mapping[str, Any], usual: Usual) -> float:
    """Share of the best random vector at a size of scale."""
    rows = [r for v in found["random"] for r in v["by_scale"] if abs(r["scale"]) == abs(scale)]
    return max((kind.share(r, usual) for r in rows), default=0.0)

"""What was found, grouped: removes refusals, refuses, languages, other behaviours, degenerate; with random vectors.

A vector belongs to a group by its tags (melbo/annotate/). How strongly it shows the behaviour is a share of the
prompts, by scale; its best scale has the largest share. The random vectors went through the same annotation, and the
best of them at that size of scale is the control. Scale and vector are chosen on the prompts that are reported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from melbo.bank.annotation import Annotation, ScaleRow, read_annotation
from melbo.measure.text_metrics import is_degenerate, is_refusal, language
from melbo.reports.audit.behaviours import MEANING, Kind, Usual
from melbo.reports.audit.config import MOST
from melbo.reports.replication.finding import Finding, ScaleShare, verdict_of
from melbo.runs.parse import dump

VECTORS, PROMPTS = 3, 2
"""Whose answers a report shows: of each group, and of each vector."""


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
    sites = [_site_of(name, found) for name, found in annotated.items()]
    notes = [v for site in sites for v in site.vectors]
    tags = [t for v in notes for t in v.tags]
    codes = list(dict.fromkeys(sorted(t.removeprefix("language:") for t in tags if t.startswith("language:"))))
    kinds = [Kind("removes refusals"), Kind("refuses"), *(Kind("language", code) for code in codes)]
    groups = []
    for kind in (*kinds, Kind("other behaviours"), Kind("degenerate")):
        rows = [row for site in sites for row in _rows(kind, site)]
        rows.sort(key=lambda r: (-r.share, r.random, -r.coherence, r.site, r.vector))
        groups.append(
            Group(
                kind,
                MEANING[kind.name],
                len(notes),
                sum(v.is_dud for v in notes),
                sum(len(site.random) for site in sites),
                sum(kind.holds(v, site.usual) for site in sites for v in site.random),
                tuple(rows),
            )
        )
    return groups


@dataclass(frozen=True)
class _Site:
    """What was annotated at one site."""

    name: str
    usual: Usual
    vectors: tuple[Annotation, ...]
    random: tuple[Annotation, ...]
    control: Mapping[float, float]
    """Change under the random vectors that were annotated with, by the size of the scale."""


def _site_of(name: str, found: Mapping[str, Any]) -> _Site:
    settings = found["settings"]
    vectors, random = (tuple(map(read_annotation, found[key])) for key in ("vectors", "random"))
    control = {row["scale"]: row["change"] for row in settings["control"]}
    return _Site(name, Usual.of(settings["unsteered"]), vectors, random, control)


def strongest(annotations: Sequence[Annotation], tag: str | None = None) -> list[int]:
    """Vectors that are no duds (with a tag), those that act on most prompts at their best scale first."""
    own = [i for i, v in enumerate(annotations) if not v.is_dud and (tag is None or tag in v.tags)]
    metrics = {i: annotations[i].metrics or ScaleRow() for i in own}
    return sorted(own, key=lambda i: (-(metrics[i].acts or 0), -(metrics[i].coherence or 0.0), i))


def _rows(kind: Kind, site: _Site) -> list[Row]:
    """The vectors of one site that belong to a group."""
    rows = []
    for index, note in enumerate(site.vectors):
        if not kind.holds(note, site.usual):
            continue
        shares = tuple(
            ScaleShare(r.scale or 0.0, kind.share(r, site.usual), _random(kind, r, site), r.coherence or 0.0)
            for r in note.by_scale
        )
        best, row = min(zip(shares, note.by_scale, strict=True), key=lambda pair: _rank(pair[0]))
        rows.append(
            Row(
                site.name,
                index,
                note.label,
                best.scale,
                best.share,
                kind.counts(site.usual),
                best.control,
                note.scale_ranges,
                row.coherence or 0.0,
                row.change or 0.0,
                site.control.get(abs(best.scale), 0.0),
                shares,
            )
        )
    return rows


def _rank(share: ScaleShare) -> tuple[float, float, float]:
    """Least for the scale that shows most of the behaviour."""
    return -share.share, -share.coherence, abs(share.scale)


def _random(kind: Kind, row: ScaleRow, site: _Site) -> float:
    """Share of the best random vector at the row's size of scale."""
    size = abs(row.scale or 0.0)
    rows = [r for v in site.random for r in v.by_scale if abs(r.scale or 0.0) == size]
    return max((kind.share(r, site.usual) for r in rows), default=0.0)


def wanted(groups: Sequence[Group], site: str) -> list[tuple[int, float]]:
    """Vectors of a site, with scale, that some group shows."""
    rows = [r for g in groups for r in g.rows[:VECTORS] if r.site == site and r.share > 0]
    return list(dict.fromkeys((r.vector, r.scale) for r in rows))[:MOST]


def examples(group: Group, answers: Mapping[str, Any]) -> list[tuple[Row, dict[str, str]]]:
    """Answers that show the group's behaviour, with their vector: PROMPTS at most of each of the VECTORS strongest.

    Args:
        answers: by the site's name, what melbo/reports/audit/stages.py's `examples` gave.
    """
    shown = []
    for row in group.rows[:VECTORS]:
        found = answers.get(row.site, {})
        kept = (v["texts"] for v in found.get("vectors", ()) if (v["vector"], v["scale"]) == (row.vector, row.scale))
        texts = next(kept, None)
        if texts is None:
            continue
        random = found["random"][f"{abs(row.scale):g}"]
        cells = zip(found["users"], found["unsteered"], texts, random, strict=True)
        own = [
            {"prompt": user, "unsteered": plain, "steered": text, "random": other}
            for user, plain, text, other in cells
            if shows(group.kind, text, plain)
        ]
        shown += [(row, example) for example in own[:PROMPTS]]
    return shown


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

"""What lies beside a bank that was loaded: activating examples, SAE neighbours, logit lens, geometry.

`melbo inspect all BANK` writes them into the bank's folder. What is missing, damaged, too large, or of other vectors
than the bank's (by digest; a bank made from this one has another) counts as none. Files that were read are remembered
until they change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeVar

from melbo.bank.results import ACTIVATING, GEOMETRY, LENS, MAX_RESULT_BYTES, SAE
from melbo.bank.vector_bank import BaseModel, VectorBank
from melbo.errors import MelboError
from melbo.inspect.geometry.similarity import Geometry
from melbo.inspect.lens.file import load_lens
from melbo.inspect.lens.logit_lens import LensReport
from melbo.inspect.max_activating.report import ActivatingReport, Direction
from melbo.inspect.sae.compare import Parts
from melbo.inspect.sae.report import FeatureNote, SaeReport
from melbo.runs.digest import bank_digest

__all__ = [
    "ACTIVATING",
    "GEOMETRY",
    "LENS",
    "SAE",
    "Decomposition",
    "Feature",
    "Neighbours",
    "activating_examples",
    "file_beside",
    "lens_rows",
    "neighbours_of",
    "sae_neighbours",
    "stored_activating",
    "stored_geometry",
    "stored_lens",
    "stored_sae",
]
REMEMBERED = 4
"""Files kept in memory once read: those of one bank."""


class _Result(Protocol):
    @property
    def bank(self) -> str: ...
    @property
    def model(self) -> BaseModel: ...


R = TypeVar("R", bound=_Result)


@dataclass(frozen=True)
class Feature:
    """An SAE's feature beside one vector."""

    number: int
    weight: float
    """Cosine, coefficient on the unit direction, or change of activation, as the list that it is in says."""
    note: FeatureNote | None
    """Mark, lift, how often it is active and its strongest examples; None where no corpus was read."""


@dataclass(frozen=True)
class Decomposition:
    """A vector as a sum of a few decoder directions."""

    features: tuple[Feature, ...]
    """Largest part first; weights are coefficients."""
    explained: float | None
    """Share of the vector's squared norm that they explain, 0 to 1; None where there is no feature."""
    random: float | None
    """The same for random directions, mean."""


@dataclass(frozen=True)
class Neighbours:
    """SAE features near one vector."""

    nearest: tuple[Feature, ...]
    """By cosine of the decoder direction with the vector, largest first."""
    random_nearest: float
    """The largest such cosine of a random direction, mean over many."""
    signed: Decomposition
    """Coefficients of both signs."""
    positive: Decomposition
    """No coefficient below zero."""
    changed: tuple[Feature, ...]
    """By the change of their activations when the vector is added, mean over the bank's last prompt tokens."""
    scale: float
    """Times the vector, in all of it."""
    source: str
    """The SAE."""
    corpus: str
    """What the notes are from; "" for none."""


def file_beside(bank: VectorBank, name: str) -> Path | None:
    """A file in the folder that the bank was loaded from, if there is one."""
    folder = bank.source.folder if bank.source else None
    path = None if folder is None else folder / name
    return path if path is not None and path.is_file() else None


def stored_activating(bank: VectorBank) -> ActivatingReport | None:
    """The whole report on activating examples, with its control and settings."""
    return _of(bank, _read(bank, ACTIVATING, ActivatingReport.load))


def stored_sae(bank: VectorBank) -> SaeReport | None:
    """The whole comparison with an SAE."""
    return _of(bank, _read(bank, SAE, SaeReport.load))


def stored_lens(bank: VectorBank) -> tuple[LensReport, ...]:
    """The logit lens of all vectors, one report a site; () for none."""
    found = _read(bank, LENS, load_lens) or ()
    return found if found and _of(bank, found[0]) else ()


def stored_geometry(bank: VectorBank) -> Geometry | None:
    """How the vectors and their effects lie to each other and to contrasts, with random ones beside them."""
    found = _of(bank, _read(bank, GEOMETRY, Geometry.load))
    return found if found is not None and len(found.labels) == len(bank) else None


def activating_examples(bank: VectorBank, index: int) -> tuple[Direction, ...]:
    """The vector's activating examples, sign 1 and then -1; () where there are none for this bank."""
    report = stored_activating(bank)
    return () if report is None else tuple(d for d in report.directions if d.index == index)


def lens_rows(bank: VectorBank, index: int) -> tuple[LensReport, ...]:
    """The logit lens of one vector: a report a site, with its random level and only the vector's rows (both signs)."""
    cut = (replace(r, rows=tuple(row for row in r.rows if row.index == index)) for r in stored_lens(bank))
    return tuple(report for report in cut if report.rows)


def sae_neighbours(bank: VectorBank, index: int) -> Neighbours | None:
    """The SAE features of one vector; None where no comparison of it is stored."""
    report = stored_sae(bank)
    return None if report is None else neighbours_of(report, index)


def neighbours_of(report: SaeReport, index: int) -> Neighbours | None:
    """One vector's part of a comparison; None where it is not in it."""
    if index not in report.vectors:
        return None
    place, found = report.vectors.index(index), report.comparison

    def features(parts: Parts) -> tuple[Feature, ...]:
        pairs = zip(parts.features, parts.weights, strict=True)
        return tuple(Feature(f, w, report.features.get(f)) for f, w in pairs)

    def total(parts: Parts, random: tuple[float, ...]) -> Decomposition:
        known = bool(parts.explained and random)
        level = random[min(len(parts.explained), len(random)) - 1] if known else None
        return Decomposition(features(parts), parts.explained[-1] if parts.explained else None, level)

    return Neighbours(
        nearest=features(found.nearest[place]),
        random_nearest=report.random_nearest,
        signed=total(found.decomposition[place], found.random),
        positive=total(found.positive[place], found.random_positive),
        changed=features(found.changed[place]),
        scale=report.scale,
        source=report.sae.source,
        corpus=report.corpus,
    )


V = TypeVar("V")


def _read(bank: VectorBank, name: str, load: Callable[[Path], V]) -> V | None:
    path = file_beside(bank, name)
    try:
        if path is None or (state := path.stat()).st_size > MAX_RESULT_BYTES:
            return None
    except OSError:
        return None
    return _load(load, path, (state.st_ino, state.st_mtime_ns, state.st_size))  # type: ignore[return-value]


@lru_cache(maxsize=REMEMBERED)
def _load(load: Callable[[Path], object], path: Path, _state: tuple[int, ...]) -> object | None:
    try:
        return load(path)
    except MelboError:
        return None


def _of(bank: VectorBank, found: R | None) -> R | None:
    """`found`, if it is about these vectors of this model."""
    if found is None or found.model != bank.base_model or found.bank != bank_digest(bank.vectors):
        return None
    return found

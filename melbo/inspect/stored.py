"""What lies beside a bank: activating examples, SAE neighbours, logit lens, geometry, the R sweep, a layer atlas.

`melbo inspect all BANK` writes the first four into the bank's folder. What is missing, damaged, too large, or of other
vectors than the bank's (by digest; a bank made from this one has another) counts as none; sweep and atlas are of a
model. Files that were read are remembered until they change.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from melbo.bank.result_file import ACTIVATING, GEOMETRY, LENS, MAX_SHOWN_BYTES, SAE, Result, ResultFile
from melbo.bank.vector_bank import VectorBank
from melbo.errors import MelboError
from melbo.inspect.geometry.similarity import Geometry
from melbo.inspect.layers.atlas import LayerAtlas
from melbo.inspect.lens.logit_lens import LensFile, LensReport
from melbo.inspect.max_activating.report import ActivatingReport, Direction
from melbo.inspect.sae.compare import Parts
from melbo.inspect.sae.report import FeatureNote, SaeReport
from melbo.radius_sweep.result import FILE_NAME, Sweep

ATLAS = "atlas.json"
REMEMBERED = 6
"""Files kept in memory once read: those of one bank."""
F = TypeVar("F", bound=ResultFile)
R = TypeVar("R", bound=Result)


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


def stored_activating(bank: VectorBank, folder: Path | None = None) -> ActivatingReport | None:
    """The whole report on activating examples, with its control and settings.

    Args:
        folder: where the files lie, here and below; None: where the bank was loaded from.
    """
    return _of_vectors(bank, folder, ACTIVATING, ActivatingReport)


def stored_sae(bank: VectorBank, folder: Path | None = None) -> SaeReport | None:
    """The whole comparison with an SAE."""
    return _of_vectors(bank, folder, SAE, SaeReport)


def stored_lens(bank: VectorBank, folder: Path | None = None) -> tuple[LensReport, ...]:
    """The logit lens of all vectors, one report a site; () for none."""
    found = _of_vectors(bank, folder, LENS, LensFile)
    return () if found is None else found.reports


def stored_geometry(bank: VectorBank, folder: Path | None = None) -> Geometry | None:
    """How the vectors and their effects lie to each other and to contrasts, with random ones beside them."""
    found = _of_vectors(bank, folder, GEOMETRY, Geometry)
    return found if found is not None and len(found.labels) == len(bank) else None


def stored_sweep(bank: VectorBank, folder: Path | None = None) -> Sweep | None:
    """The R sweep of the bank's model."""
    found = _read(bank, folder, FILE_NAME, Sweep)
    return found if found is not None and found.rows and found.base_model == bank.base_model else None


def stored_atlas(bank: VectorBank, folder: Path | None = None) -> LayerAtlas | None:
    """The layer atlas of the bank's model."""
    found = _read(bank, folder, ATLAS, LayerAtlas)
    return found if found is not None and found.pairs and found.model == bank.base_model else None


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
    place = report.vectors.index(index)

    def features(parts: Parts) -> tuple[Feature, ...]:
        pairs = zip(parts.features, parts.weights, strict=True)
        return tuple(Feature(f, w, report.features.get(f)) for f, w in pairs)

    def total(parts: Parts, random: tuple[float, ...]) -> Decomposition:
        known = bool(parts.explained and random)
        level = random[min(len(parts.explained), len(random)) - 1] if known else None
        return Decomposition(features(parts), parts.explained[-1] if parts.explained else None, level)

    return Neighbours(
        nearest=features(report.nearest[place]),
        random_nearest=report.random_nearest,
        signed=total(report.decomposition[place], report.random),
        positive=total(report.positive[place], report.random_positive),
        changed=features(report.changed[place]),
        scale=report.scale,
        source=report.sae.source,
        corpus=report.corpus,
    )


def _of_vectors(bank: VectorBank, folder: Path | None, name: str, kind: type[R]) -> R | None:
    """What the file holds, if it is about these vectors of this model."""
    found = _read(bank, folder, name, kind)
    return found if found is not None and (found.model, found.bank) == (bank.base_model, bank.digest) else None


def _read(bank: VectorBank, folder: Path | None, name: str, kind: type[F]) -> F | None:
    folder = folder or (bank.source.folder if bank.source else None)
    if folder is None:
        return None
    try:
        state = (folder / name).stat()
    except OSError:
        return None
    if state.st_size > MAX_SHOWN_BYTES:
        return None
    found = _load(kind.load, folder / name, (state.st_ino, state.st_mtime_ns, state.st_size))
    return found if isinstance(found, kind) else None


@lru_cache(maxsize=REMEMBERED)
def _load(load: Callable[[Path], ResultFile], path: Path, _state: tuple[int, ...]) -> ResultFile | None:
    try:
        return load(path)
    except MelboError:
        return None

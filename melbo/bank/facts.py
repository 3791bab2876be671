"""What a bank is beside its tensors: model, settings, prompts, annotations. Read, checked and typed without them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from melbo.bank.annotation import Annotation, read_annotations
from melbo.config import DiscoveryConfig
from melbo.errors import BankError
from melbo.models.load import LoadedModel
from melbo.models.packaged import packaged
from melbo.prompts import Message, check_conversations
from melbo.runs.files import read_json
from melbo.runs.parse import dump, parse, parse_what_fits
from melbo.runs.settings import Positive, Size

FORMAT = "melbo-bank"
FORMAT_VERSION = 1
Prompts = tuple[tuple[Message, ...], ...]
_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DERIVED = ("format", "format_version", "method", "seed")
"""Keys of config.json that repeat others or say what it is."""


@dataclass(frozen=True)
class BaseModel:
    """The model a bank was made for."""

    id: str
    revision: str | None
    d_model: Size
    n_layers: Size


@dataclass(frozen=True)
class Source:
    """Where a loaded bank came from."""

    repo: str | None = None
    """Repository on the Hub."""
    revision: str | None = None
    """Commit there, 40 hexadecimal digits."""
    folder: Path | None = None
    """Where its files lie on this machine; never stored."""

    @property
    def name(self) -> str | None:
        """The repository, or else the folder's last name."""
        return self.repo or (self.folder.resolve().name if self.folder else None)


@dataclass(frozen=True)
class KnownScale:
    """What details["usable_scale"] says; what is missing or no such number is None."""

    largest: float | None = None
    """The largest scale at which answers stay coherent."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BankFacts:
    """All of a bank but its tensors."""

    config: DiscoveryConfig
    base_model: BaseModel
    radius: Positive
    """R in activation units."""
    mean_residual_norm: Positive
    """Mean norm of the residual stream at the source layer; R / this is R in residual units."""
    prompts: Prompts
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    annotations: tuple[Annotation, ...] = ()
    """One per vector, or empty."""
    details: dict[str, Any] = field(default_factory=dict)
    """JSON values that the method adds, such as the calibration curve of R."""
    source: Source | None = None
    """Where it was loaded from: repository, commit, folder; None for a bank that was just made."""
    extra: Mapping[str, JsonValue] = field(default_factory=dict)
    """What config.json holds that this melbo does not know; it is written again."""

    @cached_property
    def usable_scale(self) -> KnownScale:
        """Up to which scale the vectors' answers stay coherent."""
        found = parse_what_fits(KnownScale, self.details.get("usable_scale"))
        return found if found.largest is not None and 1e-3 <= found.largest <= 1e3 else KnownScale()

    @cached_property
    def largest_noted(self) -> float:
        """The largest size of a scale that the annotations name: best, preset, usable, of an example; 0 for none."""
        noted = [0.0]
        for note in self.annotations:
            named = [note.scale, *(p.scale for p in note.more_presets), *(e.scale for e in note.examples)]
            noted += [abs(scale) for scale in named if scale is not None]
            noted += [abs(end) for pair in note.scale_ranges for end in pair]
        return max(noted)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class StoredFacts(BankFacts):
    """What a bank's folder says of it."""

    n_vectors: Size

    def __post_init__(self) -> None:
        check_conversations(self.prompts)
        if self.config.resolve(self.base_model.n_layers, self.base_model.d_model) != self.config:
            raise ValueError("the layers of the stored config are not resolved")
        repo, revision = (self.source.repo, self.source.revision) if self.source else (None, None)
        if (repo, revision) != (None, None) and not (_REPO.fullmatch(repo or "") and _COMMIT.fullmatch(revision or "")):
            raise ValueError("source must hold a repo as user/name and a revision of 40 hexadecimal digits")


def read_facts(folder: Path) -> StoredFacts:
    """Read and check config.json and annotations.json.

    Raises:
        BankError: one is missing, damaged, of another or a newer format, or holds impossible values.
    """
    raw = read_json(folder / "config.json")
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise BankError(f"{folder} is not a MELBO bank: config.json does not say format {FORMAT!r}.")
    stated = raw.get("format_version")
    if type(stated) is not int or stated < 1:
        raise BankError(f"{folder}: format_version is {str(stated)[:40]!r}; expected a whole number from 1.")
    if stated > FORMAT_VERSION:
        raise BankError(f"{folder} has format version {stated}; this melbo reads up to {FORMAT_VERSION}; update melbo.")
    known = {name: value for name, value in raw.items() if name not in _DERIVED}
    known["source"] = raw.get("source") or None
    facts = parse(StoredFacts, known, f"{folder}: config.json is damaged")
    annotations = read_annotations(folder, facts.n_vectors)
    return replace(facts, annotations=annotations, source=replace(facts.source or Source(), folder=folder))


def config_file(facts: BankFacts, n_vectors: int, home: str | None) -> dict[str, Any]:
    """The value of config.json.

    Args:
        home: repository that the bank will be in, which it then does not name as its source.
    """
    source = facts.source or Source()
    came_from = {"repo": source.repo, "revision": source.revision}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "base_model": dump(facts.base_model),
        "method": facts.config.method,
        "config": dump(facts.config),
        "n_vectors": n_vectors,
        "radius": facts.radius,
        "mean_residual_norm": facts.mean_residual_norm,
        "prompts": dump(facts.prompts),
        "seed": facts.config.seed,
        "versions": dump(facts.versions),
        "created": facts.created,
        "details": dump(facts.details),
        **({} if source.repo in (None, home) else {"source": came_from}),
        **dump(facts.extra),
    }


def check_base(base: BaseModel, loaded: LoadedModel, what: str) -> None:
    """Raise BankError unless `base` is this model: width, depth, and weights, or else the name.

    Args:
        what: "bank was" or "adapters were", for the message.
    """
    if (base.d_model, base.n_layers) != (loaded.d_model, loaded.n_layers):
        raise BankError(
            f"the {what} made for {base.id!r} (d_model {base.d_model}, {base.n_layers} blocks), but "
            f"{loaded.name!r} has d_model {loaded.d_model} and {loaded.n_layers} blocks; load the model it names."
        )
    local = [str(r).startswith("sha256:") for r in (base.revision, loaded.revision)]
    if all(local) and base.revision != loaded.revision and packaged(base.id) is None:
        raise BankError(
            f"the {what} made for other weights of {base.id!r} ({base.revision}) than the loaded ones "
            f"({loaded.revision}); train again."
        )
    if not all(local) and base.id != loaded.name:
        raise BankError(f"the {what} made for {base.id!r}, not for {loaded.name!r}; load the model that it names.")


def weights_note(base: BaseModel, loaded: LoadedModel) -> str | None:
    """What to say where a bank was made on other weights of a model than these: those on the Hub, and those that a
    package brings, answer alike but not the same. None: nothing.
    """
    if base.id != loaded.name or None in (base.revision, loaded.revision) or base.revision == loaded.revision:
        return None
    return (
        f"the bank was made on other weights of {base.id} ({str(base.revision)[:14]}) than these "
        f"({str(loaded.revision)[:14]}): answers can differ in detail"
    )

"""config.json of a bank: the model, the settings, where the bank came from. Checked, typed, without tensors."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melbo.config import DiscoveryConfig
from melbo.errors import BankError, ConfigError
from melbo.models.load import LoadedModel
from melbo.runs.files import read_json

FORMAT = "melbo-bank"
FORMAT_VERSION = 1
_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class BaseModel:
    """The model a bank was made for."""

    id: str
    revision: str | None
    d_model: int
    n_layers: int


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
class Header:
    """config.json of a bank."""

    n_vectors: int
    config: DiscoveryConfig
    base_model: BaseModel
    radius: float
    mean_residual_norm: float
    prompts: tuple[tuple[dict[str, str], ...], ...]
    versions: dict[str, str]
    created: str
    details: dict[str, Any]
    source: Source


def read_header(folder: Path) -> Header:
    """Read and check config.json.

    Raises:
        BankError: it is missing, damaged, of another or a newer format, or holds impossible values.
    """
    raw = read_json(folder / "config.json")
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise BankError(f"{folder} is not a MELBO bank: config.json does not say format {FORMAT!r}.")
    stated = raw.get("format_version")
    if type(stated) is not int or stated < 1:
        raise BankError(f"{folder}: format_version is {str(stated)[:40]!r}; expected a whole number from 1.")
    if stated > FORMAT_VERSION:
        raise BankError(f"{folder} has format version {stated}; this melbo reads up to {FORMAT_VERSION}; update melbo.")
    try:
        return _header(raw, folder)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, ConfigError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise BankError(f"{folder}: config.json is damaged: {what[:300]}.") from error


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
    if all(local) and base.revision != loaded.revision:
        raise BankError(
            f"the {what} made for other weights of {base.id!r} ({base.revision}) than the loaded ones "
            f"({loaded.revision}); train again."
        )
    if not all(local) and base.id != loaded.name:
        raise BankError(f"the {what} made for {base.id!r}, not for {loaded.name!r}; load the model that it names.")


def replaceable(folder: Path) -> bool:
    """Whether `folder` is an empty folder or a bank, also a damaged one."""
    if not folder.is_dir():
        return False
    if not any(folder.iterdir()):
        return True
    try:
        return bool(read_json(folder / "config.json").get("format") == FORMAT)
    except (BankError, AttributeError):
        return (folder / "vectors.safetensors").exists()


def _header(raw: dict[str, Any], folder: Path) -> Header:
    base = BaseModel(**raw["base_model"])
    if not all(type(v) is int and v > 0 for v in (base.d_model, base.n_layers, raw["n_vectors"])):
        raise ValueError("d_model, n_layers and n_vectors must be whole numbers from 1")
    if not isinstance(base.id, str) or not (base.revision is None or isinstance(base.revision, str)):
        raise ValueError("base_model.id and .revision must be text")
    config = DiscoveryConfig.from_dict(raw["config"])
    if config.resolve(base.n_layers, base.d_model) != config:
        raise ValueError("the layers of the stored config are not resolved")
    radius, norm = float(raw["radius"]), float(raw["mean_residual_norm"])
    if not (0 < radius < math.inf and 0 < norm < math.inf):
        raise ValueError("radius and mean_residual_norm must be finite and positive")
    details = raw.get("details", {})
    if not isinstance(details, dict):
        raise ValueError("details must be an object")
    source = raw.get("source") or {}
    if source and not (_REPO.fullmatch(source["repo"]) and _COMMIT.fullmatch(source["revision"])):
        raise ValueError("source must hold a repo as user/name and a revision of 40 hexadecimal digits")
    prompts = tuple(tuple({"role": str(m["role"]), "content": str(m["content"])} for m in p) for p in raw["prompts"])
    if not all(prompts):
        raise ValueError("a prompt has no message")
    return Header(
        n_vectors=raw["n_vectors"],
        config=config,
        base_model=base,
        radius=radius,
        mean_residual_norm=norm,
        prompts=prompts,
        versions={str(k): str(v) for k, v in dict(raw.get("versions", {})).items()},
        created=str(raw.get("created", "")),
        details=details,
        source=Source(source.get("repo"), source.get("revision"), folder),
    )

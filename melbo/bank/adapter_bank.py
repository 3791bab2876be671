"""AdapterBank: rank-1 adapters that were found together. Immutable in memory; on disk a folder.

config.json           format, version, base model, resolved config, radius, names of the adapted modules, prompts, ...
adapters.safetensors  a [n, layers, in_features], b [n, layers, d_model], objective [n], random_objective [n], all F32
Adapter i adds (a[i, l] . x) b[i, l] to the output of the l-th module, x the module's input, at every position.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor

from melbo.bank.adapter_config import AdapterConfig
from melbo.bank.facts import BaseModel, Prompts, check_base
from melbo.errors import BankError, ConfigError
from melbo.models.load import LoadedModel
from melbo.prompts import check_conversations
from melbo.runs.files import read_json, read_tensors, write_folder, write_json, write_tensors
from melbo.runs.parse import dump, parse
from melbo.runs.settings import Positive, Size
from melbo.steering.hooks import adapt

FORMAT = "melbo-adapters"
FORMAT_VERSION = 1
_TENSORS = ("a", "b", "objective", "random_objective")


@dataclass(frozen=True, kw_only=True, eq=False)
class AdapterFacts:
    """All of a bank of adapters but its tensors."""

    config: AdapterConfig
    base_model: BaseModel
    radius: Positive
    """R in units of b."""
    modules: tuple[str, ...]
    """Name of the adapted module of each layer within the model."""
    fan_in_fan_out: bool
    """Whether the modules hold their weight transposed (GPT-2's Conv1D)."""
    prompts: Prompts
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    extra: Mapping[str, JsonValue] = field(default_factory=dict)
    """What config.json holds that this melbo does not know; it is written again."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _StoredFacts(AdapterFacts):
    in_features: Size

    def __post_init__(self) -> None:
        check_conversations(self.prompts)
        config, base = self.config, self.base_model
        if config.resolve(base.n_layers, base.d_model) != config or len(self.modules) != len(config.layers):
            raise ValueError("the layers of the config are not resolved, or not those of the modules")


@dataclass(frozen=True, eq=False)
class AdapterBank(AdapterFacts):
    """Rank-1 adapters with everything needed to use and to repeat them."""

    a: Tensor
    """[n, layers, in_features] float32, unit norm per layer."""
    b: Tensor
    """[n, layers, d_model] float32, norm `radius` over layers and d_model."""
    objective: Tensor
    """[n] displacement each adapter reached."""
    random_objective: Tensor
    """[n] displacement of as many random adapters of the same norms."""

    def __len__(self) -> int:
        return len(self.a)

    def factors(self, index: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """A [layers, in_features] and scale * b [layers, d_model] of one adapter.

        Raises:
            BankError: there is no such adapter.
            ConfigError: the scale is not finite.
        """
        if not 0 <= index < len(self):
            raise BankError(f"adapter {index} is not in this bank; it has adapters 0 to {len(self) - 1}.")
        if not math.isfinite(scale):
            raise ConfigError(f"scale is {scale!r}; it must be a finite number.")
        return self.a[index], self.b[index] * scale

    def check_fits(self, loaded: LoadedModel) -> None:
        """Raise BankError unless the bank was made for this model: width, depth, and weights, or else the name."""
        check_base(self.base_model, loaded, "adapters were")

    def save(self, folder: str | Path) -> Path:
        """Write the adapters to a new or empty folder.

        Raises:
            BankError: the folder holds files, or is a file.
        """
        return write_folder(folder, self._write)

    def _write(self, folder: Path) -> None:
        config = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "base_model": dump(self.base_model),
            "config": dump(self.config),
            "radius": self.radius,
            "modules": list(self.modules),
            "fan_in_fan_out": self.fan_in_fan_out,
            "in_features": self.a.shape[2],
            "prompts": dump(self.prompts),
            "versions": dump(self.versions),
            "created": self.created,
            **dump(self.extra),
        }
        write_json(folder / "config.json", config)
        write_tensors(folder / "adapters.safetensors", {name: getattr(self, name) for name in _TENSORS})

    @classmethod
    def load(cls, folder: str | Path) -> AdapterBank:
        """Read adapters.

        Raises:
            BankError: the folder or a file is missing, damaged, of a newer version, or holds impossible values.
        """
        folder = Path(folder)
        facts = _read_config(folder)
        n, layers = facts.config.n_adapters, len(facts.config.layers)
        shapes = {"a": [n, layers, facts.in_features], "b": [n, layers, facts.base_model.d_model]}
        shapes |= {name: [n] for name in ("objective", "random_objective")}
        tensors = read_tensors(folder / "adapters.safetensors", shapes)
        norms_a, norms_b = tensors["a"].norm(dim=2), tensors["b"].norm(dim=(1, 2))
        for name, norms, expected in (("a", norms_a, 1.0), ("b", norms_b, facts.radius)):
            if bool(((norms - expected).abs() > 1e-3 * expected).any()):
                raise BankError(f"{folder}: {name} is not of norm {expected:.4g}; the files do not belong together.")
        known: dict[str, Any] = {item.name: getattr(facts, item.name) for item in fields(AdapterFacts)}
        return cls(**known | tensors)


@contextmanager
def apply(loaded: LoadedModel, bank: AdapterBank, rows: Sequence[int], scale: float = 1.0) -> Iterator[None]:
    """Run the model with adapters: rows[i] in sequence i of a batch, or rows[0] in all where there is only one.

    Holds for this thread's forward passes, with and without a KV cache (`steering.generate.complete`, but not `stream`,
    which has a thread of its own).

    Raises:
        BankError: the adapters are of another model, or a row names none of them.
        ConfigError: no row, a scale that is not finite, or, while the model runs, a wrong number of rows.
    """
    bank.check_fits(loaded)
    if not rows:
        raise ConfigError("no adapter was chosen; name one for all sequences, or one for each.")
    chosen = [bank.factors(index, scale) for index in rows]
    try:
        modules = [loaded.model.get_submodule(name) for name in bank.modules]
    except AttributeError as error:
        raise BankError(f"{loaded.name!r} has no module of an adapter's name: {error}.") from error
    with adapt(modules, torch.stack([a for a, _ in chosen]), torch.stack([b for _, b in chosen])):
        yield


def _read_config(folder: Path) -> _StoredFacts:
    path = folder / "config.json"
    if not os.path.isfile(path):
        raise BankError(f"there are no adapters at {folder}; give a folder with config.json and adapters.safetensors.")
    raw, damaged = read_json(path), f"{path} is damaged or not of adapters"
    stated = raw.get("format_version") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT or type(stated) is not int or stated < 1:
        raise BankError(f"{damaged}: it does not say format {FORMAT!r} and a format_version from 1.")
    if stated > FORMAT_VERSION:
        raise BankError(f"{damaged}: format version {stated} is newer than this melbo; update melbo.")
    known = {name: value for name, value in raw.items() if name not in ("format", "format_version")}
    return parse(_StoredFacts, known, damaged)

"""AdapterBank: rank-1 adapters that were found together. Immutable in memory; on disk a folder.

config.json           format, version, base model, resolved config, radius, names of the adapted modules, prompts, ...
adapters.safetensors  a [n, layers, in_features], b [n, layers, d_model], objective [n], random_objective [n], all F32
Adapter i adds (a[i, l] . x) b[i, l] to the output of the l-th module, x the module's input, at every position.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melbo.bank.adapter_config import AdapterConfig
from melbo.bank.header import BaseModel, check_base
from melbo.errors import BankError, ConfigError
from melbo.models.load import LoadedModel
from melbo.runs.files import check_new, json_text, read_json, read_tensors, write_folder, write_json, write_tensors
from melbo.steering.hooks import adapt

__all__ = ["AdapterBank", "apply", "check_new", "json_text", "write_folder"]

FORMAT = "melbo-adapters"
FORMAT_VERSION = 1
_TENSORS = ("a", "b", "objective", "random_objective")


@dataclass(frozen=True, eq=False)
class AdapterBank:
    """Rank-1 adapters with everything needed to use and to repeat them."""

    a: Tensor
    """[n, layers, in_features] float32, unit norm per layer."""
    b: Tensor
    """[n, layers, d_model] float32, norm `radius` over layers and d_model."""
    objective: Tensor
    """[n] displacement each adapter reached."""
    random_objective: Tensor
    """[n] displacement of as many random adapters of the same norms."""
    config: AdapterConfig
    base_model: BaseModel
    radius: float
    """R in units of b."""
    modules: tuple[str, ...]
    """Name of the adapted module of each layer within the model."""
    fan_in_fan_out: bool
    """Whether the modules hold their weight transposed (GPT-2's Conv1D)."""
    prompts: tuple[tuple[dict[str, str], ...], ...]
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""

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
            "base_model": asdict(self.base_model),
            "config": asdict(self.config),
            "radius": self.radius,
            "modules": list(self.modules),
            "fan_in_fan_out": self.fan_in_fan_out,
            "in_features": self.a.shape[2],
            "prompts": [list(p) for p in self.prompts],
            "versions": self.versions,
            "created": self.created,
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
        known, in_features = _read_config(folder)
        config, base = known["config"], known["base_model"]
        n, layers = config.n_adapters, len(config.layers)
        shapes = {"a": [n, layers, in_features], "b": [n, layers, base.d_model]}
        shapes |= {name: [n] for name in ("objective", "random_objective")}
        tensors = read_tensors(folder / "adapters.safetensors", shapes)
        norms_a, norms_b = tensors["a"].norm(dim=2), tensors["b"].norm(dim=(1, 2))
        for name, norms, expected in (("a", norms_a, 1.0), ("b", norms_b, known["radius"])):
            if bool(((norms - expected).abs() > 1e-3 * expected).any()):
                raise BankError(f"{folder}: {name} is not of norm {expected:.4g}; the files do not belong together.")
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


def _read_config(folder: Path) -> tuple[dict[str, Any], int]:
    """AdapterBank's fields other than tensors, and in_features."""
    path = folder / "config.json"
    if not os.path.isfile(path):
        raise BankError(f"there are no adapters at {folder}; give a folder with config.json and adapters.safetensors.")
    raw = read_json(path)
    try:
        if raw["format"] != FORMAT or type(raw["format_version"]) is not int or raw["format_version"] < 1:
            raise ValueError(f"it does not say format {FORMAT!r} and a format_version from 1")
        if raw["format_version"] > FORMAT_VERSION:
            raise ValueError(f"format version {raw['format_version']} is newer than this melbo; update melbo")
        base, config = BaseModel(**raw["base_model"]), AdapterConfig.from_dict(raw["config"])
        if not all(type(v) is int and v > 0 for v in (base.d_model, base.n_layers, raw["in_features"])):
            raise ValueError("d_model, n_layers and in_features must be whole numbers from 1")
        if not isinstance(base.id, str) or not (base.revision is None or isinstance(base.revision, str)):
            raise ValueError("base_model.id and .revision must be text")
        if config.resolve(base.n_layers, base.d_model) != config or len(raw["modules"]) != len(config.layers):
            raise ValueError("the layers of the config are not resolved, or not those of the modules")
        if type(raw["radius"]) not in (int, float) or not 0 < raw["radius"] < math.inf:
            raise ValueError("radius must be finite and positive")
        known: dict[str, Any] = {
            "config": config,
            "base_model": base,
            "radius": raw["radius"],
            "modules": tuple(str(name) for name in raw["modules"]),
            "fan_in_fan_out": bool(raw["fan_in_fan_out"]),
            "prompts": tuple(tuple({k: str(m[k]) for k in ("role", "content")} for m in p) for p in raw["prompts"]),
            "versions": {str(k): str(v) for k, v in raw["versions"].items()},
            "created": str(raw["created"]),
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, ConfigError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split()).rstrip(".")
        raise BankError(f"{path} is damaged or not of adapters: {what[:300]}.") from error
    return known, raw["in_features"]

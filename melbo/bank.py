"""VectorBank: the product. Immutable in memory; on disk a folder of JSON and safetensors, the same as on the Hub.

config.json          format, version, base model, method and resolved config, radius, prompts, versions, created
vectors.safetensors  vectors [n, d_model] F32 of norm R; objective [n]; output_directions [n, d_model]; score [n]
annotations.json     per vector: label, note and what was measured (optional)
Loading checks everything against the files' headers before it reads a tensor.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from melbo.config import DiscoveryConfig
from melbo.errors import BankError, ConfigError
from melbo.models import LoadedModel

FORMAT = "melbo-bank"
FORMAT_VERSION = 1
MAX_JSON_BYTES = 32 * 2**20
_TENSORS = ("vectors", "objective", "output_directions")


@dataclass(frozen=True)
class BaseModel:
    """The model a bank was made for."""

    id: str
    revision: str | None
    d_model: int
    n_layers: int


@dataclass(frozen=True, eq=False)
class VectorBank:
    """Steering vectors that were trained together, with everything needed to use and to repeat them."""

    vectors: Tensor
    """[n, d_model] float32, each of norm `radius`; add scale * vector at the output of `config.source_layer`."""
    objective: Tensor
    """[n] displacement each vector reached."""
    output_directions: Tensor
    """[n, d_model] unit mean change of the target activations."""
    config: DiscoveryConfig
    base_model: BaseModel
    radius: float
    """R in activation units."""
    mean_residual_norm: float
    """Mean norm of the residual stream at the source layer; R / this is R in residual units."""
    prompts: tuple[tuple[dict[str, str], ...], ...]
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""
    annotations: tuple[dict[str, Any], ...] = ()
    """One dict per vector, or empty. Known keys: "label", "note", "scale", "scale_range", "examples"."""
    score: Tensor | None = None
    """[n] the method's own measure: dct's alpha^2, power's singular value, more-like's cosine of effects."""
    details: dict[str, Any] = field(default_factory=dict)
    """JSON values that the method adds, such as the calibration curve of R."""

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def layer(self) -> int:
        """Block whose output the vectors are added to."""
        assert self.config.source_layer is not None
        return self.config.source_layer

    def label(self, index: int) -> str:
        """The vector's label, or "vector 17" where it has none."""
        text = self.annotations[index].get("label") if self.annotations else None
        return text if isinstance(text, str) and text else f"vector {index}"

    def vector(self, index: int, scale: float = 1.0) -> Tensor:
        """scale * vector `index`, [d_model].

        Raises:
            BankError: there is no such vector.
        """
        if not 0 <= index < len(self):
            raise BankError(f"vector {index} is not in this bank; it has vectors 0 to {len(self) - 1}.")
        return self.vectors[index] * scale

    def select(self, indices: Sequence[int]) -> VectorBank:
        """A new bank of these vectors, in this order; at least one."""
        if not indices:
            raise BankError("no vector was chosen; name at least one.")
        for index in indices:
            self.vector(index)
        chosen = list(indices)
        return replace(
            self,
            vectors=self.vectors[chosen].clone(),
            objective=self.objective[chosen].clone(),
            output_directions=self.output_directions[chosen].clone(),
            annotations=tuple(self.annotations[i] for i in chosen) if self.annotations else (),
            score=None if self.score is None else self.score[chosen].clone(),
        )

    def check_fits(self, loaded: LoadedModel) -> None:
        """Raise BankError unless the bank was made for this model: width, depth, and weights, or else the name."""
        base = self.base_model
        if (base.d_model, base.n_layers) != (loaded.d_model, loaded.n_layers):
            raise BankError(
                f"the bank was made for {base.id!r} (d_model {base.d_model}, {base.n_layers} blocks), but "
                f"{loaded.name!r} has d_model {loaded.d_model} and {loaded.n_layers} blocks; load the model it names."
            )
        local = [str(r).startswith("sha256:") for r in (base.revision, loaded.revision)]
        if all(local) and base.revision != loaded.revision:
            raise BankError(
                f"the bank was made for other weights of {base.id!r} ({base.revision}) than the loaded ones "
                f"({loaded.revision}); train it again."
            )
        if not all(local) and base.id != loaded.name:
            raise BankError(
                f"the bank was made for {base.id!r}, not for {loaded.name!r}; load the model that it names."
            )

    def save(self, folder: str | Path) -> Path:
        """Write the bank to `folder` (made new, or replaced if it holds a bank). Nothing is left half-written."""
        folder = Path(folder).resolve()
        if folder.exists() and not replaceable(folder):
            raise BankError(f"{folder} holds other files and is not a bank; choose a new folder.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        old = None
        try:
            self._write(temporary)
            if folder.exists():
                for extra in folder.iterdir():  # what others put beside the bank stays
                    if not (temporary / extra.name).exists() and extra.name != "annotations.json":
                        (shutil.copytree if extra.is_dir() else shutil.copy2)(extra, temporary / extra.name)
                old = folder.with_name(f".{folder.name}-old-{os.getpid()}")
                os.replace(folder, old)
            os.replace(temporary, folder)
            folder.chmod(0o755)
            if old is not None:
                shutil.rmtree(old)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            if old is not None and old.exists() and not folder.exists():
                os.replace(old, folder)
            raise
        return folder

    def _write(self, folder: Path) -> None:
        config = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "base_model": asdict(self.base_model),
            "method": self.config.method,
            "config": self.config.to_dict(),
            "n_vectors": len(self),
            "radius": self.radius,
            "mean_residual_norm": self.mean_residual_norm,
            "prompts": [list(p) for p in self.prompts],
            "seed": self.config.seed,
            "versions": self.versions,
            "created": self.created,
            "details": self.details,
        }
        _write_json(folder / "config.json", config)
        tensors = {name: getattr(self, name).contiguous() for name in _TENSORS}
        if self.score is not None:
            tensors["score"] = self.score.contiguous()
        save_file(tensors, str(folder / "vectors.safetensors"))
        if self.annotations:
            _write_json(folder / "annotations.json", list(self.annotations))

    @classmethod
    def load(cls, folder: str | Path) -> VectorBank:
        """Read a bank.

        Raises:
            BankError: the folder or a file is missing, damaged, of a newer version, or holds impossible values.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise BankError(f"there is no bank at {folder}; give a folder with config.json and vectors.safetensors.")
        raw = _read_json(folder / "config.json")
        header = _check_config(raw, folder)
        tensors = _read_tensors(folder / "vectors.safetensors", header["n_vectors"], header["base"].d_model)
        _check_values(tensors, header["radius"], folder)
        notes: tuple[dict[str, Any], ...] = ()
        if (folder / "annotations.json").exists():
            listed = _read_json(folder / "annotations.json")
            if not isinstance(listed, list) or len(listed) != header["n_vectors"]:
                raise BankError(f"{folder / 'annotations.json'} must hold a list of {header['n_vectors']} entries.")
            if not all(isinstance(item, dict) for item in listed):
                raise BankError(f"{folder / 'annotations.json'} must hold one object per vector.")
            notes = tuple(listed)
        return cls(
            **tensors,
            config=header["config"],
            base_model=header["base"],
            radius=header["radius"],
            mean_residual_norm=header["norm"],
            prompts=header["prompts"],
            versions=header["versions"],
            created=str(raw.get("created", "")),
            annotations=notes,
            details=header["details"],
        )


def library_versions() -> dict[str, str]:
    """Versions of the libraries that shape a result."""
    found = {}
    for name in ("melbo", "torch", "transformers", "safetensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "source"
    return found


def replaceable(folder: Path) -> bool:
    """Whether `folder` is an empty folder or a bank, also a damaged one."""
    if not folder.is_dir():
        return False
    if not any(folder.iterdir()):
        return True
    try:
        return bool(_read_json(folder / "config.json").get("format") == FORMAT)
    except (BankError, AttributeError):
        return (folder / "vectors.safetensors").exists()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise BankError(f"{path} is missing; this folder is not a complete bank.")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise BankError(f"{path} is larger than {MAX_JSON_BYTES // 2**20} MiB; that is no bank file.")
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or digits and brackets without end
        raise BankError(f"{path} is not valid JSON ({error}); download or save the bank again.") from error


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):  # NaN, Infinity, 1e999: Python reads them, JSON and `save` know none
        raise ValueError(f"{text} is not a JSON number")
    return value


def _check_config(raw: Any, folder: Path) -> dict[str, Any]:
    """Typed values of config.json."""
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise BankError(f"{folder} is not a MELBO bank: config.json does not say format {FORMAT!r}.")
    if not isinstance(raw.get("format_version"), int) or raw["format_version"] < 1:
        raise BankError(f"{folder}: format_version is {raw.get('format_version')!r}; expected a whole number from 1.")
    if raw["format_version"] > FORMAT_VERSION:
        raise BankError(
            f"{folder} has format version {raw['format_version']}; this melbo reads up to "
            f"{FORMAT_VERSION}; update melbo."
        )
    try:
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
        versions = {str(k): str(v) for k, v in dict(raw.get("versions", {})).items()}
        details = raw.get("details", {})
        if not isinstance(details, dict):
            raise ValueError("details must be an object")
        prompts = tuple(
            tuple({"role": str(m["role"]), "content": str(m["content"])} for m in p) for p in raw["prompts"]
        )
    except (KeyError, TypeError, ValueError, OverflowError, ConfigError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise BankError(f"{folder}: config.json is damaged: {what}.") from error
    return {
        "base": base, "config": config, "radius": radius, "norm": norm, "prompts": prompts, "versions": versions,
        "n_vectors": raw["n_vectors"], "details": details,
    }  # fmt: skip


def _read_tensors(path: Path, n: int, d_model: int) -> dict[str, Tensor]:
    if not path.is_file():
        raise BankError(f"{path} is missing; this folder is not a complete bank.")
    shapes = {"vectors": [n, d_model], "objective": [n], "output_directions": [n, d_model]}
    try:
        with safe_open(str(path), framework="pt") as file:
            names = set(file.keys())
            if "score" in names:
                shapes["score"] = [n]
            for name, shape in shapes.items():
                if name not in names:
                    raise BankError(f"{path} holds no tensor {name!r}.")
                part = file.get_slice(name)
                if part.get_shape() != shape or part.get_dtype() != "F32":
                    raise BankError(
                        f"{path}: {name} is {part.get_dtype()} {part.get_shape()}; config.json asks for F32 {shape}."
                    )
            return {name: file.get_tensor(name) for name in shapes}
    except (SafetensorError, OSError) as error:
        raise BankError(f"{path} is damaged or cut short ({error}); download or save the bank again.") from error


def _check_values(tensors: dict[str, Tensor], radius: float, folder: Path) -> None:
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise BankError(f"{folder}: {name} holds NaN or infinite values; train the bank again.")
    norms = tensors["vectors"].norm(dim=-1)
    worst = int((norms - radius).abs().argmax())
    if abs(float(norms[worst]) - radius) > 1e-3 * radius:
        raise BankError(
            f"{folder}: vector {worst} has norm {float(norms[worst]):.4g}, but config.json says R = {radius:.4g}."
        )

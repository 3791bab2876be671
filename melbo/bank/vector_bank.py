"""VectorBank: the product. Immutable in memory; on disk a folder of JSON and safetensors, the same as on the Hub.

config.json          format, version, base model, method and resolved config, radius, prompts, versions, created
vectors.safetensors  vectors [n, d_model] F32 of norm R; objective [n]; output_directions [n, d_model]; score [n]
annotations.json     per vector: label, note and what was measured (optional)
sweep.json, .png     the R sweep (optional; melbo/radius_sweep/)
activating.json, ... what `melbo inspect` measured of these vectors (optional; result_file.py, melbo/inspect/stored.py)
README.md            the model card (optional; melbo/publishing/), rendered from the above when the bank is published
Loading checks everything against the files' headers before it reads a tensor. The same bank gives the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import Tensor

from melbo.bank.annotation import Annotation
from melbo.bank.facts import FORMAT_VERSION, BankFacts, BaseModel, Source, check_base, read_facts
from melbo.bank.save import FILES, save_bank
from melbo.errors import BankError
from melbo.hub.client import download
from melbo.models.load import LoadedModel
from melbo.runs.digest import content_digest
from melbo.runs.files import read_tensors

__all__ = ["FORMAT_VERSION", "BaseModel", "Source", "VectorBank", "library_versions"]


@dataclass(frozen=True, eq=False, repr=False)
class VectorBank(BankFacts):
    """Steering vectors that were trained together, with everything needed to use and to repeat them."""

    vectors: Tensor
    """[n, d_model] float32, each of norm `radius`; add scale * vector at the output of `config.source_layer`."""
    objective: Tensor
    """[n] displacement each vector reached."""
    output_directions: Tensor
    """[n, d_model] unit mean change of the target activations."""
    score: Tensor | None = None
    """[n] the method's own measure: dct's alpha^2, power's singular value, more-like's cosine of effects."""

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        return (
            f"VectorBank({len(self)} vectors of norm {self.radius:.4g} for {self.base_model.id!r}, block {self.layer})"
        )

    @property
    def layer(self) -> int:
        """Block whose output the vectors are added to."""
        assert self.config.source_layer is not None
        return self.config.source_layer

    @cached_property
    def digest(self) -> str:
        """Which vectors these are (melbo/runs/digest.py); computed once."""
        return content_digest(self.vectors)

    def label(self, index: int) -> str:
        """The vector's label, or "vector 17" where it has none."""
        return self.annotation(index).label or f"vector {index}"

    def annotation(self, index: int) -> Annotation:
        """The vector's annotation, an empty one where it has none."""
        return self.annotations[index] if self.annotations else Annotation()

    def vector(self, index: int, scale: float = 1.0) -> Tensor:
        """Scale * vector `index`, [d_model].

        Raises:
            BankError: there is no such vector.
        """
        if not 0 <= index < len(self):
            raise BankError(f"vector {index} is not in this bank; it has vectors 0 to {len(self) - 1}.")
        return self.vectors[index] * scale

    def select(self, indices: Sequence[int]) -> VectorBank:
        """A new bank of these vectors, in this order; at least one. details["selected_from"] says whence.

        Selecting again keeps the first bank's name and numbers.
        """
        if not indices:
            raise BankError("no vector was chosen; name at least one.")
        for index in indices:
            self.vector(index)
        chosen = list(indices)
        earlier = self.details.get("selected_from")
        known = earlier.get("indices") if isinstance(earlier, dict) else None
        if isinstance(earlier, dict) and isinstance(known, list) and len(known) == len(self):
            origin = earlier | {"indices": [known[i] for i in chosen]}
        else:
            source = self.source or Source()
            origin = {"bank": source.name, "revision": source.revision, "indices": chosen}
        details = self.details | {"selected_from": origin}
        parts = details.get("parts")  # one entry per vector
        if isinstance(parts, list) and len(parts) == len(self):
            details["parts"] = [parts[i] for i in chosen]
        return replace(
            self,
            vectors=self.vectors[chosen].clone(),
            objective=self.objective[chosen].clone(),
            output_directions=self.output_directions[chosen].clone(),
            annotations=tuple(self.annotations[i] for i in chosen) if self.annotations else (),
            score=None if self.score is None else self.score[chosen].clone(),
            details=details,
            source=None,
        )

    def check_fits(self, loaded: LoadedModel) -> None:
        """Raise BankError unless the bank was made for this model: width, depth, and weights, or else the name."""
        check_base(self.base_model, loaded, "bank was")

    @classmethod
    def load(cls, folder: str | Path) -> VectorBank:
        """Read a bank from a folder.

        Raises:
            BankError: the folder or a file is missing, damaged, of a newer version, or holds impossible values.
        """
        folder = Path(folder)
        if not os.path.isdir(folder):
            raise BankError(f"there is no bank at {folder}; give a folder with config.json and vectors.safetensors.")
        facts = read_facts(folder)
        n, wide = facts.n_vectors, [facts.n_vectors, facts.base_model.d_model]
        shapes = {"vectors": wide, "objective": [n], "output_directions": wide, "score": [n]}
        tensors = read_tensors(folder / "vectors.safetensors", shapes, frozenset({"score"}))
        norms = tensors["vectors"].norm(dim=-1)
        worst = int((norms - facts.radius).abs().argmax())
        if abs(float(norms[worst]) - facts.radius) > 1e-3 * facts.radius:
            raise BankError(
                f"{folder}: vector {worst} has norm {float(norms[worst]):.4g}, but config.json says "
                f"R = {facts.radius:.4g}."
            )
        known: dict[str, Any] = {item.name: getattr(facts, item.name) for item in fields(BankFacts)}
        return cls(**known | tensors)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
    ) -> VectorBank:
        """Read a bank from a folder, or download it from the Hub; `source` then holds the commit.

        Args:
            name: a folder, or a repository "user/bank".
            revision: branch, tag or commit on the Hub; a commit that was downloaded before needs no network.
            token: for private repositories; None: the one of `hf auth login` or HF_TOKEN.
            local_files_only: use what was downloaded before.

        Raises:
            HubError: the repository cannot be found, read or reached.
            BankError: it holds no bank, or a damaged one.
        """
        if isinstance(name, Path) or os.path.isdir(name) or name.count("/") != 1 or name.startswith((".", "/")):
            return cls.load(name)
        folder, commit = download(name, FILES, revision=revision, token=token, local_files_only=local_files_only)
        try:
            bank = cls.load(folder)
        except BankError as error:
            raise BankError(f"{name} at commit {commit[:8]} holds no usable bank: {error}") from error
        return replace(bank, source=Source(name, commit, folder))

    def save(self, folder: str | Path) -> Path:
        """Write the bank to `folder`, made new, or replaced if it holds a bank. Nothing is left half-written.

        A sweep, results of `melbo inspect` and a card beside these very vectors stay, and so does all that is no part
        of a bank, and a card that a person wrote. `melbo.publishing.publish` renders cards.

        Raises:
            BankError: the folder holds other files.
        """
        return save_bank(self, folder)


def library_versions() -> dict[str, str]:
    """Versions of the libraries that shape a result."""
    found = {}
    for name in ("melbo", "torch", "transformers", "safetensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "source"
    return found

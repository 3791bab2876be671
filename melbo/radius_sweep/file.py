"""sweep.json: format, version, config, base model, prompts, what the unsteered model does, rows by R, the suggested R.

A file with fewer rows than the config has radii is a run that was stopped. Loading checks every value; what can be
computed from the rows (floor, suggested) is written for other readers and computed anew.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from melbo.bank.vector_bank import BaseModel
from melbo.errors import BankError, MelboError
from melbo.measure.text_metrics import CoherenceScale
from melbo.radius_sweep.config import SweepConfig
from melbo.radius_sweep.result import Arm, Sweep, SweepRow
from melbo.runs.files import json_text, read_json, write_file

FORMAT = "melbo-sweep"
FORMAT_VERSION = 1
FILE_NAME = "sweep.json"
_RANGES = {
    "objective": math.inf, "diversity": 2.0, "similarity": 1.0, "distinct": math.inf, "coherence": 10.0,
    "refusal": 1.0, "degenerate": 1.0, "dud": 1.0, "change": 2.0,
}  # fmt: skip


def save_sweep(sweep: Sweep, path: Path) -> Path:
    """Write JSON, to a temporary name first."""
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "unit": sweep.config.unit}
    found = {"floor": sweep.floor, "suggested": asdict(sweep.suggested)}
    return write_file(path, json_text({**head, **asdict(sweep), **found}))


def load_sweep(path: str | Path) -> Sweep:
    """Read a sweep from its file, or from a bank's folder.

    Raises:
        BankError: there is none, or it is damaged, of a newer version, or holds impossible values.
    """
    path = Path(path) / FILE_NAME if os.path.isdir(path) else Path(path)
    if not os.path.isfile(path):
        raise BankError(f"there is no sweep at {path}; make one with `melbo sweep`.")
    raw = read_json(path)
    try:
        if raw["format"] != FORMAT:
            raise ValueError(f"its format is {raw['format']!r}")
        version = raw["format_version"]
        if type(version) is int and version > FORMAT_VERSION:
            raise BankError(f"{path} has format version {version}; this melbo reads {FORMAT_VERSION}; update melbo.")
        if type(version) is not int or version < 1:
            raise ValueError(f"format_version is {version!r}")
        return _from_json(raw)
    except BankError:
        raise
    except (MelboError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise BankError(f"{path} is not a sweep, or damaged: {what[:300]}; run `melbo sweep` again.") from error


def _from_json(raw: dict[str, Any]) -> Sweep:
    base, config = BaseModel(**raw["base_model"]), SweepConfig.from_dict(raw["config"])
    if not all(type(v) is int and v > 0 for v in (base.d_model, base.n_layers)):
        raise ValueError("d_model and n_layers must be whole numbers from 1")
    if not isinstance(base.id, str) or not isinstance(base.revision, (str, type(None))):
        raise ValueError("base_model.id and .revision must be text")
    if config.resolve(base.n_layers, base.d_model) != config:
        raise ValueError("the stored config is not resolved")
    rows = tuple(_row(r, config, len(raw["prompts"])) for r in raw["rows"])
    if [r.radius for r in rows] != list(config.radii[: len(rows)]):
        raise ValueError("the rows are not those of the config's radii")
    prompts = tuple(tuple({"role": str(m["role"]), "content": str(m["content"])} for m in p) for p in raw["prompts"])
    if not prompts or not all(prompts) or len(raw["unsteered"]) != len(prompts):
        raise ValueError("there must be prompts, each with its unsteered answer")
    auto = raw["auto_radius"]
    return Sweep(
        config=config,
        base_model=base,
        dtype=str(raw["dtype"]),
        prompts=prompts,
        embedder=str(raw["embedder"]),
        coherence_scale=CoherenceScale.from_dict(raw["coherence_scale"]),
        mean_residual_norm=_number(raw["mean_residual_norm"]),
        unsteered=_texts(raw["unsteered"]),
        unsteered_coherence=_number(raw["unsteered_coherence"], 0.0, 10.0),
        auto_radius=None if auto is None else _number(auto),
        versions={str(k): str(v) for k, v in raw["versions"].items()},
        rows=rows,
    )


def _row(raw: dict[str, Any], config: SweepConfig, n_prompts: int) -> SweepRow:
    row = SweepRow(_number(raw["radius"]), _number(raw["norm"]), _arm(raw["found"]), _arm(raw["control"]))
    for arm in (row.found, row.control):
        if len(arm.completions) != n_prompts or any(len(texts) != config.n_vectors for texts in arm.completions):
            raise ValueError(f"the row of R {row.radius:g} does not hold one answer for each prompt and vector")
    return row


def _arm(raw: dict[str, Any]) -> Arm:
    numbers = {name: _number(raw[name], -1.0 if name == "similarity" else 0.0, most) for name, most in _RANGES.items()}
    low, high = (_number(value, 0.0, 10.0) for value in raw["coherence_band"])
    modes, planted = raw["modes"], raw["planted"]
    return Arm(
        **numbers,
        coherence_band=(low, high),
        languages=_counts(raw["languages"]),
        completions=tuple(_texts(texts) for texts in raw["completions"]),
        modes=None if modes is None else _counts(modes),
        planted=None if planted is None else _texts(planted),
    )


def _number(value: Any, least: float = 0.0, most: float = math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ValueError(f"{value!r} is not a number from {least:g} to {most:g}")
    return float(value)


def _counts(value: dict[str, Any]) -> dict[str, int]:
    if not all(isinstance(k, str) and type(v) is int and v > 0 for k, v in value.items()):
        raise ValueError("languages and modes must be counts above 0")
    return dict(value)


def _texts(value: Sequence[Any]) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"expected a list of texts, found {str(value)[:60]!r}")
    return tuple(value)

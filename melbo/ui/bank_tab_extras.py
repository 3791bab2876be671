"""What may lie beside a bank's files: activating examples, SAE neighbours. Missing or damaged files count as none.

`melbo inspect activating BANK --out BANK/activating.json` and `melbo inspect sae BANK --out BANK/sae.json` write them.
Both are used only for the very bank that was loaded from that folder, not for one made from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melbo.bank import VectorBank
from melbo.errors import MelboError
from melbo.interpret.activating_report import ActivatingReport, Direction
from melbo.interpret.result_file import read_result

ACTIVATING = "activating.json"
SAE = "sae.json"
SAE_FORMAT = "melbo-sae-comparison"
FEATURES = 8


@dataclass(frozen=True)
class Neighbours:
    """SAE features near one vector."""

    features: tuple[int, ...]
    cosines: tuple[float, ...]
    explained: float | None
    """Share of the vector's squared norm that as many features explain at best, 0 to 1."""
    random: float | None
    """The same for random directions, mean."""


def file_beside(bank: VectorBank, name: str) -> Path | None:
    """A file in the folder that the bank was loaded from, if there is one."""
    folder = bank.source.folder if bank.source else None
    path = None if folder is None else folder / name
    return path if path is not None and path.is_file() else None


def activating_examples(bank: VectorBank, index: int) -> tuple[Direction, ...]:
    """The vector's activating examples, sign 1 and then -1; () where there are none for this bank."""
    path = file_beside(bank, ACTIVATING)
    if path is None:
        return ()
    try:
        report = ActivatingReport.load(path)
    except MelboError:
        return ()
    if report.model != bank.base_model:
        return ()
    return tuple(d for d in report.directions if d.index == index)


def sae_neighbours(bank: VectorBank, index: int) -> Neighbours | None:
    """The SAE features nearest to the vector; None where no comparison of it is stored."""
    path = file_beside(bank, SAE)
    if path is None:
        return None
    try:
        raw = read_result(path, SAE_FORMAT)
        place = list(raw["vectors"]).index(index)
        near = raw["nearest"][place]
        pairs = [(int(f), float(w)) for f, w in zip(near["features"], near["weights"], strict=True)][:FEATURES]
        explained = _last(raw["decomposition"][place]["explained"])
        return Neighbours(tuple(f for f, _ in pairs), tuple(w for _, w in pairs), explained, _last(raw["random"]))
    except (MelboError, KeyError, ValueError, TypeError, IndexError):
        return None


def _last(values: Any) -> float | None:
    return float(values[-1]) if values else None

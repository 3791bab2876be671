"""Which of a bank's vectors are looked at: those that are named, or those that are no duds."""

from __future__ import annotations

from collections.abc import Sequence

from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError


def chosen_vectors(bank: VectorBank, named: Sequence[int] | None = None, duds: bool = True) -> list[int]:
    """Numbers of the vectors, each once: those named in their order (None or empty: all), without duds if asked.

    Raises:
        BankError: there is no such vector, the bank has no annotations that name duds, or only duds are left.
    """
    numbers = list(dict.fromkeys(named or range(len(bank))))
    for index in numbers:
        bank.vector(index)
    if duds:
        return numbers
    if not bank.annotations:
        raise BankError("this bank has no annotations, so its duds are not known; run `melbo annotate` first.")
    kept = [i for i in numbers if not bank.annotation(i).is_dud]
    if not kept:
        raise BankError("all of these vectors are annotated as duds; leave --no-duds out.")
    return kept

"""Curated banks: some vectors of one bank, or several banks in one, with a record of where each came from."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from melbo.bank.facts import Source
from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError

_NAMED = 10
"""How many existing labels or tags an error lists."""
_SIGN = re.compile(r" \([+-]\)$")
"""What melbo annotate puts after each effect of a label."""


def choose(
    bank: VectorBank, ids: Sequence[int] = (), tags: Sequence[str] = (), labels: Sequence[str] = ()
) -> list[int]:
    """Indices of the vectors with any of these numbers, tags or labels, each once; numbers first, as given.

    Tags and labels are compared without regard to case. One effect of a label is enough: "German" finds
    "German (+), Poem (-)".

    Raises:
        BankError: a number, tag or label is not in the bank, or nothing is asked for.
    """
    for index in ids:
        bank.vector(index)
    found = list(ids)
    for kind, wanted, texts in (("tag", tags, _tags), ("label", labels, _labels)):
        for text in wanted:
            having = [i for i in range(len(bank)) if text.casefold() in {t.casefold() for t in texts(bank, i)}]
            if not having:
                raise BankError(f"no vector has the {kind} {text!r}; {_existing(bank, kind, texts)}.")
            found += having
    if not found:
        raise BankError("no vector was chosen; name numbers, tags or labels.")
    return list(dict.fromkeys(found))


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


def merge(banks: Sequence[VectorBank]) -> VectorBank:
    """One bank of all vectors, in order. details["merged_from"] holds each part's origin, method, config and size.

    The parts must be of one model, source layer, target layer and radius R, since scales count in units of R. Settings
    and the mean residual norm are the first bank's; vectors of different parts are not orthogonal to each other.

    Raises:
        BankError: there are fewer than two banks, or they do not fit together.
    """
    if len(banks) < 2:
        raise BankError(f"{len(banks)} bank was given; merging takes at least two.")
    first = banks[0]
    for bank in banks[1:]:
        _check_alike(first, bank)
    scores = [bank.score for bank in banks if bank.score is not None and bank.config.method == first.config.method]
    noted = any(bank.annotations for bank in banks)
    notes = tuple(bank.annotation(i) for bank in banks for i in range(len(bank))) if noted else ()
    prompts = {repr(prompt): prompt for bank in banks for prompt in bank.prompts}
    return replace(
        first,
        vectors=torch.cat([bank.vectors for bank in banks]),
        objective=torch.cat([bank.objective for bank in banks]),
        output_directions=torch.cat([bank.output_directions for bank in banks]),
        score=torch.cat(scores) if len(scores) == len(banks) else None,
        annotations=notes,
        prompts=tuple(prompts.values()),
        details={"merged_from": [_part(bank) for bank in banks]},
        source=None,
    )


def _check_alike(a: VectorBank, b: VectorBank) -> None:
    for what, one, other in (
        ("models", a.base_model, b.base_model),
        ("source layers", a.config.source_layer, b.config.source_layer),
        ("target layers", a.config.target_layer, b.config.target_layer),
    ):
        if one != other:
            raise BankError(f"the banks are of different {what}: {one} and {other}; merge banks of the same.")
    if abs(a.radius - b.radius) > 1e-4 * a.radius:
        raise BankError(
            f"the banks are of different R: {a.radius:.6g} and {b.radius:.6g}. Scales count in units of R, so merging "
            "would change what they mean; train the banks with the same radius."
        )


def _part(bank: VectorBank) -> dict[str, Any]:
    source = bank.source or Source()
    return {
        "bank": source.name,
        "revision": source.revision,
        "n_vectors": len(bank),
        "method": bank.config.method,
        "config": bank.config.to_dict(),
        "details": bank.details,
    }


def _tags(bank: VectorBank, index: int) -> tuple[str, ...]:
    return bank.annotation(index).tags


def _labels(bank: VectorBank, index: int) -> list[str]:
    label = bank.label(index)
    return [label, *(_SIGN.sub("", part) for part in label.split(", ") if _SIGN.search(part))]


def _existing(bank: VectorBank, kind: str, texts: Callable[[VectorBank, int], Sequence[str]]) -> str:
    held = list(dict.fromkeys(text for i in range(len(bank)) for text in texts(bank, i)))
    if not held:
        return f"this bank has no {kind}s"
    more = f" and {len(held) - _NAMED} more" if len(held) > _NAMED else ""
    return f"its {kind}s are {', '.join(map(repr, held[:_NAMED]))}{more}"

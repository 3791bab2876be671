"""A comparison's settings as a link's query string, and back. What comes in is checked and bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from melbo.app.choices import system_prompt
from melbo.app.tabs.steer.settings import Settings
from melbo.bank.vector_bank import VectorBank
from melbo.errors import ConfigError
from melbo.runs.digest import bank_digest

MAX_LINK = 6_000
"""Characters of a query string."""
MAX_QUESTION = 2_000
_FIELDS = {
    "side": ("side", str),
    "told": ("instruction", str),
    "sys": ("system", str),
    "t": ("temperature", float),
    "p": ("top_p", float),
    "n": ("max_new_tokens", int),
    "seed": ("seed", int),
    "pos": ("positions", str),
}


@dataclass(frozen=True)
class Shared:
    """What a link holds."""

    settings: Settings
    question: str


def bank_mark(bank: VectorBank) -> str:
    """Eight hex digits that tell banks apart."""
    return bank_digest(bank.vectors)[:8]


def to_query(bank: VectorBank, settings: Settings, question: str, place: Mapping[str, str] | None = None) -> str:
    """The query string that `from_query` reads, without what is as it is at the start.

    Args:
        place: what names the bank where it is not the app's own, see `steer_shared.place_of`.

    Raises:
        ConfigError: the question is too long for a link.
    """
    if len(question) > MAX_QUESTION:
        raise ConfigError(f"a link holds a question of at most {MAX_QUESTION:,} characters; download it instead.")
    start = Settings(settings.mix, system=system_prompt(bank))
    values: dict[str, Any] = {"v": ",".join(f"{vector}:{scale:.10g}" for vector, scale in settings.mix)}
    for key, (name, _) in _FIELDS.items():
        unused = name == "instruction" and settings.side != "prompt"
        if not unused and getattr(settings, name) != getattr(start, name):
            values[key] = getattr(settings, name)
    query = urlencode(values | {"q": question, "bank": bank_mark(bank)} | dict(place or {}))
    if len(query) > MAX_LINK:
        raise ConfigError(f"the link would have more than {MAX_LINK:,} characters; download the conversation instead.")
    return query


def check_length(params: Mapping[str, str]) -> None:
    """Raise ConfigError where a link is longer than any that is made here."""
    if sum(len(k) + len(v) for k, v in params.items()) > MAX_LINK:
        raise ConfigError(f"the link has more than {MAX_LINK:,} characters; ask for it again.")


def from_query(bank: VectorBank, params: Mapping[str, str]) -> Shared | None:
    """What a link holds, or None where the query string names no vectors.

    Raises:
        ConfigError: it was made with another bank, or a value is out of range.
    """
    if "v" not in params:
        return None
    check_length(params)
    if params.get("bank", "") != bank_mark(bank):
        raise ConfigError("this link was made with another bank; load that bank under Banks & models first.")
    values: dict[str, Any] = {"system": system_prompt(bank)}
    try:
        pairs = [part.split(":") for part in params["v"].split(",")]
        mix = tuple((int(vector), float(scale)) for vector, scale in pairs)
        values |= {name: read(params[key]) for key, (name, read) in _FIELDS.items() if key in params}
    except ValueError as error:
        raise ConfigError("a value in this link is no number; ask for the link again.") from error
    settings = Settings(mix, **values)
    for vector, _ in settings.mix:
        bank.vector(vector)
    return Shared(settings, params.get("q", "")[:MAX_QUESTION])

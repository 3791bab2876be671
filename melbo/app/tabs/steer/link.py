"""A comparison's settings as a link's query string, and back. What comes in is checked and bounded.

A link is of the app's own bank, one of the curated, or one at a commit on the Hub. No path is ever named.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from melbo.app.choices import scale_limit, system_prompt
from melbo.app.context import DEFAULT_KEY, Context
from melbo.app.tabs.models.handlers import VECTORS, load_hub, load_local, local_banks
from melbo.app.tabs.steer.settings import Settings
from melbo.bank.vector_bank import VectorBank
from melbo.errors import ConfigError

MAX_LINK = 6_000
"""Characters of a query string."""
MAX_QUESTION = 2_000
CURATED, REPO, COMMIT = "set", "hub", "at"
"""Names in the query string: a curated bank's folder, a repository, its commit."""
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
    return bank.digest[:8]


def to_query(bank: VectorBank, settings: Settings, question: str, place: Mapping[str, str] | None = None) -> str:
    """The query string that `from_query` reads, without what is as it is at the start.

    Args:
        place: what names the bank where it is not the app's own, see `place_of`.

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
    limit = scale_limit(bank)
    for vector, scale in settings.mix:
        bank.vector(vector)
        if abs(scale) > limit:
            raise ConfigError(f"scale is {scale:g}; this bank's reach from -{limit:g} to {limit:g}.")
    return Shared(settings, params.get("q", "")[:MAX_QUESTION])


def place_of(context: Context, bank: VectorBank) -> dict[str, str]:
    """How a link names the bank: {} for the app's own.

    Raises:
        ConfigError: it was made or uploaded in this session, so no link can name it.
    """
    mark = bank_mark(bank)
    if mark == bank_mark(context.banks.get(DEFAULT_KEY)):
        return {}
    source = bank.source
    if source is not None and source.repo and source.revision:
        return {REPO: source.repo, COMMIT: source.revision}
    for info in local_banks():
        alike = info.problem is None and (info.base_model, info.n_vectors) == (bank.base_model.id, len(bank))
        if alike and bank_mark(VectorBank.load(VECTORS / info.name)) == mark:
            return {CURATED: info.name}
    raise ConfigError("a bank made or uploaded here has no link; push it to the Hub and load it from there first.")


def named_bank(context: Context, params: Mapping[str, str]) -> tuple[VectorBank, str] | None:
    """The bank that a link names, loaded, and its name; None for the app's own.

    Raises:
        MelboError: it names none that visitors may load, or the vectors are not those that the link was made with.
    """
    if CURATED in params:
        name, bank = params[CURATED], load_local(context, params[CURATED])
    elif REPO in params:
        name, bank = params[REPO], load_hub(context, params[REPO], params.get(COMMIT))
    else:
        return None
    if bank_mark(bank) != params.get("bank", ""):
        raise ConfigError(f"the bank {name} holds other vectors now than when this link was made.")
    return bank, name

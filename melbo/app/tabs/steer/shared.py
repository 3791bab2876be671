"""Which bank a link is of: the app's own, one of the curated, or one at a commit on the Hub. No path is ever named."""

from __future__ import annotations

from collections.abc import Mapping

from melbo.app.context import DEFAULT_KEY, Context
from melbo.app.tabs.models.handlers import VECTORS, load_hub, load_local, local_banks
from melbo.app.tabs.steer.link import bank_mark
from melbo.bank.vector_bank import VectorBank
from melbo.errors import ConfigError

CURATED, REPO, COMMIT = "set", "hub", "at"
"""Names in the query string: a curated bank's folder, a repository, its commit."""


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

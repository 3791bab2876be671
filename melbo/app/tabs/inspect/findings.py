"""What the Inspect tab has to show of a vector: stored beside the bank, or measured here before."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from melbo.app.cache import Cache
from melbo.app.choices import checked_index
from melbo.app.context import BankCache
from melbo.app.tabs.inspect.html import examples_html, features_html, geometry_html, lens_html
from melbo.app.widgets.progress import empty_html
from melbo.bank.vector_bank import VectorBank
from melbo.inspect.stored import (
    activating_examples,
    lens_rows,
    neighbours_of,
    sae_neighbours,
    stored_activating,
    stored_geometry,
)
from melbo.organism.inputs import ORGANISM

STORED = "Stored beside the bank."
LIVE = "Measured here."
KEPT = 48
"""Results of live work, by kind and what they depend on. All who use the same vectors share them, so nothing that holds
a visitor's text is shown of them or goes in.
"""


def mark_of(bank: VectorBank) -> str:
    """What a live result depends on: vectors, prompts and model; not labels, which visitors edit."""
    rest = json.dumps([bank.prompts, asdict(bank.base_model), bank.config.to_dict()], sort_keys=True)
    return bank.digest + hashlib.sha256(rest.encode()).hexdigest()


class Findings:
    """The tab's four sections; what they show is HTML."""

    def __init__(self, banks: BankCache) -> None:
        self.banks = banks
        self.kept: Cache[tuple[Any, ...], Any] = Cache(KEPT)

    def missing(self, key: str, index: int) -> tuple[bool, bool, str]:
        """Whether features and tokens can still be computed here, and the name of what geometry lacks, or ""."""
        bank = self.banks.get(key)
        measured, rows = self.kept.get(("geometry", mark_of(bank))) or (None, None)
        known = measured is not None or stored_geometry(bank) is not None
        features = sae_neighbours(bank, index) is None and bank.base_model.id == ORGANISM
        layers = "This vector, layer by layer" if rows is None else ""
        return features, not lens_rows(bank, index), layers if known else "Compute now"

    def sections(self, key: str, index: Any) -> tuple[str, str, str, str]:
        """Examples, features, lens, geometry."""
        return (self.examples(key, index), self.features(key, index), self.lens(key, index), self.geometry(key, index))

    def examples(self, key: str, index: Any) -> str:
        """Activating examples: stored, or measured here before, or how to make them."""
        bank = self.banks.get(key)
        number = checked_index(bank, index)
        stored = stored_activating(bank)
        if stored is not None and activating_examples(bank, number):
            return examples_html(stored, number, STORED)
        live = self.kept.get(("activating", mark_of(bank), number))
        if live is not None:
            return examples_html(live, number, LIVE)
        own = "the embedded model's own chats, or over " if bank.base_model.id == ORGANISM else ""
        return empty_html(
            f"No passages are stored for this vector. Compute now looks for them over {own}a text of yours.",
            "melbo inspect activating BANK --corpus FILE --out BANK/activating.json",
        )

    def features(self, key: str, index: Any) -> str:
        """SAE features, in the same way."""
        bank = self.banks.get(key)
        number = checked_index(bank, index)
        found, origin = sae_neighbours(bank, number), STORED
        if found is None and (live := self.kept.get(("sae", mark_of(bank)))) is not None:
            found, origin = neighbours_of(live, number), LIVE
        if found is not None:
            return features_html(found, origin)
        if bank.base_model.id == ORGANISM:
            said = "No features are stored for this vector. Compute now compares the bank with the embedded SAE."
        else:
            said = "No features are stored for this vector, and this app brings no SAE for its model."
        return empty_html(said, "melbo inspect sae BANK --sae OWNER/NAME --corpus FILE --out BANK/sae.json")

    def lens(self, key: str, index: Any) -> str:
        """Tokens, in the same way."""
        bank = self.banks.get(key)
        number = checked_index(bank, index)
        stored = lens_rows(bank, number)
        found = stored or self.kept.get(("lens", mark_of(bank), number))
        if found:
            return lens_html(found, STORED if stored else LIVE)
        return empty_html("Which tokens the vector promotes and suppresses, beside random vectors.")

    def geometry(self, key: str, index: Any) -> str:
        """The bank's geometry, in the same way, with this vector marked."""
        bank = self.banks.get(key)
        number = checked_index(bank, index)
        stored = stored_geometry(bank)
        measured, rows = self.kept.get(("geometry", mark_of(bank))) or (None, None)
        found = stored or measured
        if found is not None:
            return geometry_html(bank, number, found, rows, STORED if stored else LIVE)
        return empty_html(
            "How the vectors and their effects lie to each other, and what later layers make of them.",
            "melbo inspect geometry BANK --out BANK/geometry.json",
        )

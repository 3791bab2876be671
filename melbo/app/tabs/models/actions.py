"""What the events of Banks & models do: values of components in, values of components out."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from threading import Lock
from typing import Any

import gradio as gr

from melbo.app.jobs.event import result_of, updates
from melbo.app.jobs.worker import JobHandle, follow
from melbo.app.notice import hint
from melbo.app.tab_context import TabContext
from melbo.app.tabs.models.handlers import (
    checked,
    device_facts,
    downloaded_models,
    hub_banks,
    load_for,
    load_hub,
    load_local,
    load_named,
    local_banks,
    model_facts,
    random_steps,
)
from melbo.app.tabs.models.html import HUB_EMPTY, NO_LOCAL, NONE, banks_html, facts_html
from melbo.bank.facts import BaseModel
from melbo.bank.listing import BankInfo
from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError

LOADING = 3_600
"""Most seconds for loading a model."""
Told = Iterator[tuple[str, Any]]
"""What is said, and the key of the visitor's bank (skipped until it changes)."""


class ModelsActions:
    """The tab's events, for one page."""

    def __init__(self, tab: TabContext) -> None:
        self.context = tab.context
        self._random = tab.context.on_device(random_steps)

    def follow(self, key: str, found: Sequence[BankInfo]) -> tuple[str, str, str, str]:
        """Curated banks, the Hub's, model and device, for a visitor's bank."""
        context, base = self.context, self.context.banks.get(key).base_model
        loaded = context.models.find(base)
        model = model_facts(loaded) if loaded else [("Model", f"{base.id}, no longer in memory")]
        device = device_facts(context)
        if held := downloaded_models(context):
            device.append(("Downloaded from the Hub", ", ".join(held)))
        return (
            banks_html(local_banks(), context, base, NO_LOCAL),
            banks_html(found, context, base, HUB_EMPTY),
            facts_html("Model", model),
            facts_html("This device", device),
        )

    def search(self, key: str) -> tuple[list[BankInfo], str]:
        """The Hub's banks, and their cards."""
        found = hub_banks(self.context)
        return found, banks_html(found, self.context, self.context.banks.get(key).base_model, NONE)

    def pick_local(self, place: Any) -> Told:
        """Load the curated bank of this place in the list."""
        name = chosen([info.name for info in local_banks()], place)
        yield from self.open(load_local(self.context, name), name)

    def pick_hub(self, found: Sequence[BankInfo], place: Any) -> Told:
        """Load the Hub's bank of this place in the list."""
        name = chosen([info.name for info in found], place)
        yield hint(f"Loading {name}."), gr.skip()
        yield from self.open(load_hub(self.context, name, None), name)

    def load(self, repo: str, revision: str) -> Told:
        """Load a bank by name."""
        yield hint(f"Loading {str(repo).strip()[:80]}."), gr.skip()
        yield from self.open(load_hub(self.context, repo, revision), str(repo).strip())

    def open(self, bank: VectorBank, name: str) -> Told:
        """Take a bank into use, with the model it was made for, which is loaded first where it must be."""
        if self.context.models.find(bank.base_model) is None:
            yield from self._waiting(lambda job: load_for(self.context, bank.base_model, job))
        checked(self.context, bank)
        self.context.model(bank)
        key = self.context.banks.put(bank)
        yield hint(f"{name} is in use: {len(bank)} vectors for {bank.base_model.id}, in every tab."), key

    def load_model(self, name: str, revision: str) -> Told:
        """Load a model, and take random vectors for it into use."""
        found: list[BaseModel] = []
        yield from self._waiting(lambda job: load_named(self.context, name, revision, job), found)
        yield hint(f"{found[0].id} is loaded. Measuring it."), gr.skip()
        bank = result_of(self._random(found[0]))
        said = f"{bank.base_model.id} is in use, with {len(bank)} random vectors: find better ones under Discover."
        yield hint(said), self.context.banks.put(bank)

    def _waiting(
        self, work: Callable[[JobHandle[Any]], BaseModel | None], found: list[BaseModel] | None = None
    ) -> Told:
        """What happens while a model is loaded; the model itself goes to `found`."""
        line, began, second = "", time.monotonic(), -1
        with closing(updates(follow(work, Lock(), LOADING))) as events:
            for event in events:
                if event.result is not None and found is not None:
                    found.append(event.result)
                line = event.phase or line
                passed = int(time.monotonic() - began)
                if event.phase or passed != second:
                    second = passed
                    yield hint(f"{line} … {second} s" if second else f"{line} …"), gr.skip()
                else:
                    yield gr.skip(), gr.skip()


def chosen(names: list[str], place: Any) -> str:
    """The name at a place that the browser sends.

    Raises:
        BankError: the list has no such place.
    """
    if isinstance(place, bool) or not isinstance(place, (int, float)) or place not in range(len(names)):
        raise BankError("this list is out of date; load the page again.")
    return names[int(place)]

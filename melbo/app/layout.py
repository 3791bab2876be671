"""The page: a head, the tabs, and what they share."""

import os
from collections.abc import Callable

import gradio as gr

from melbo.app.api import publish
from melbo.app.context import DEFAULT_KEY, BankCache, Context, Limits
from melbo.app.events import LOCAL, connect
from melbo.app.jobs.device import zero_gpu
from melbo.app.jobs.waiting import bound_places
from melbo.app.render import render
from melbo.app.tab_context import TABS, TabContext
from melbo.app.tabs.bank.tab import BankTab
from melbo.app.tabs.discover.tab import DiscoverTab
from melbo.app.tabs.inspect.tab import InspectTab
from melbo.app.tabs.models.tab import ModelsTab
from melbo.app.tabs.steer.tab import SteerTab
from melbo.app.tabs.strip.tab import StripTab
from melbo.app.tabs.sweep.tab import SweepTab
from melbo.bank.facts import weights_note
from melbo.bank.vector_bank import VectorBank
from melbo.models.load import LoadedModel
from melbo.organism.inputs import ORGANISM

BUILDERS: dict[str, Callable[[TabContext], object]] = {
    "steer": SteerTab,
    "strip": StripTab,
    "bank": BankTab,
    "inspect": InspectTab,
    "sweep": SweepTab,
    "discover": DiscoverTab,
    "models": ModelsTab,
}
"""What fills each tab of TABS."""
QUEUE_RECORDS = {"GRADIO_ANALYTICS_MAX_EVENTS": "100", "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000000"}
"""Else gradio keeps 10,000 requests, and makes a table of them after each one."""
MAX_WAITING = 128
"""Requests in the queue before new ones are turned away."""


def build_demo(loaded: LoadedModel, bank: VectorBank, limits: Limits | None = None) -> gr.Blocks:
    """The app for one model and one bank, ready for `launch(**launch_options())`.

    Args:
        limits: None: those of the environment.

    Raises:
        BankError: the bank was made for another model.
        MelboError: on ZeroGPU, where all of `limits.models` are loaded now, one of them cannot be.
    """
    bank.check_fits(loaded)
    for name, value in QUEUE_RECORDS.items():
        os.environ.setdefault(name, value)
    limits = limits or Limits.from_environment()
    context = Context(loaded, BankCache(bank, limits), limits)
    if zero_gpu():
        context.models.load_all(limits.models or ())
    demo: gr.Blocks = gr.Blocks(title="MELBO: unsteered and steered", analytics_enabled=False, fill_width=False)
    with demo:
        bank_key = gr.State(DEFAULT_KEY)
        pick = gr.State(None)
        look = gr.State(None)
        head = gr.HTML(head_of(context, DEFAULT_KEY), elem_id="intro", padding=False)
        with gr.Tabs(elem_id="tabs") as tabs:
            tab = TabContext(context, bank_key, pick, tabs, look)
            for name, build in BUILDERS.items():
                with gr.Tab(TABS[name], id=name, elem_id=f"tab-{name}"):
                    build(tab)
        connect(gr.HTML(visible=False), bank_key.change, lambda key: head_of(context, key), bank_key, [head], **LOCAL)
        publish(context)
    demo.queue(max_size=MAX_WAITING, api_open=False)
    bound_places(demo)
    return demo


def head_of(context: Context, key: str) -> str:
    """Name, purpose, and the facts of the bank in use; below, that it was made on other weights of its model."""
    bank = context.banks.get(key)
    base = bank.base_model
    random = bank.config.method == "random"
    facts = [
        f"model {base.id}",
        f"{len(bank)} random vectors: discover your own" if random else f"{len(bank)} vectors ({bank.config.method})",
        f"added after block {bank.layer} of {base.n_layers}",
        f"R = {bank.radius / bank.mean_residual_norm:.2f} × mean residual norm",
    ]
    if base.id == ORGANISM:
        facts.append("a tiny test model, not an assistant")
    loaded = context.models.find(base)
    note = weights_note(base, loaded) if loaded is not None else None
    return render("head", facts=facts, note=f"{note[:1].upper()}{note[1:]}." if note else "")

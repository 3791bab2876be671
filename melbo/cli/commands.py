"""The commands of `melbo` by name. A command's module, and with it torch, is imported once that command is chosen."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup


@dataclass(frozen=True)
class Entry:
    """Where a command is and what the list of commands says of it."""

    target: str
    """ "module:function" within melbo.cli, or "module:app" for a Typer with commands of its own."""
    summary: str
    """At most 60 characters, so that it stays on one line of a terminal with 80."""


COMMANDS = {
    "train": Entry("train:train", "Find steering vectors and save them as a bank."),
    "more-like": Entry("train:more_like", "Find vectors with the effect of one of a bank's."),
    "generate": Entry("generate:generate", "Answer a prompt without and with vectors of a bank."),
    "show": Entry("show:show", "Print what a bank holds, or one vector's page."),
    "inspect": Entry("inspect:inspect_app", "Look into a bank: texts, tokens, features, directions."),
    "study": Entry("study:study_app", "Run published experiments on a model, as a report."),
    "audit": Entry("audit:audit", "Look for what a model hides, as a report."),
    "annotate": Entry("annotate:annotate_bank", "Label each vector of a bank: what it does, at which scales."),
    "sweep": Entry("sweep:sweep", "Train vectors at each R, measure them, and suggest an R."),
    "elicit": Entry("elicit:elicit_tasks", "Find the vector that solves tasks a model hides its skill at."),
    "backdoors": Entry("hidden:backdoors", "Rank a bank's vectors by how surprising their answers are."),
    "refusals": Entry("hidden:refusals", "Measure what one vector does to refusals."),
    "monitor": Entry("hidden:monitor", "Tell unusual chats from normal ones by a bank's vectors."),
    "atlas": Entry("atlas:atlas", "Measure how strongly each layer answers to each earlier one."),
    "adapters": Entry("adapters:adapters", "Find rank-1 adapters instead of vectors."),
    "export-peft": Entry("adapters:export_adapter", "Write an adapter as a folder that PEFT loads."),
    "export": Entry("export:export", "Write vectors, or a model, in another program's format."),
    "import": Entry("export:import_file", "Make a bank of vectors from another program's file."),
    "pull": Entry("hub:pull", "Download a bank from the Hub and save it."),
    "push": Entry("hub:push", "Upload a bank with its model card to the Hub."),
    "card": Entry("hub:card", "Print a bank's model card, or write it beside the bank."),
    "space": Entry("hub:space", "Make a Space that shows a bank in the app."),
    "select": Entry("hub:select", "Save some vectors of a bank as a bank of their own."),
    "merge": Entry("hub:merge", "Save the vectors of several banks as one bank."),
    "banks": Entry("hub:banks", "List the banks in a folder, or those on the Hub."),
}


class LazyGroup(TyperGroup):
    """Commands that are listed from `COMMANDS` and loaded when one is run, or its own help is asked for."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The chosen command itself, in the place of the one that only stands in the list."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, load_command(name or ""), rest


def list_commands(app: typer.Typer) -> None:
    """Give a Typer of class LazyGroup its list."""
    for name, entry in COMMANDS.items():
        app.command(name, short_help=entry.summary)(_listed_only)


def _listed_only() -> None:
    raise AssertionError("unreachable")


def load_command(name: str) -> Any:
    """A command or group of `COMMANDS`, ready to run."""
    quiet_libraries()
    module, _, attribute = COMMANDS[name].target.partition(":")
    found = getattr(import_module(f"melbo.cli.{module}"), attribute)
    holder = typer.Typer(rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        holder.add_typer(found, name=name)
    else:
        from melbo.cli.common import guarded

        holder.command(name)(guarded(found))
    group: Any = typer.main.get_group(holder)
    return group.commands[name]


def quiet_libraries() -> None:
    """Keep libraries' warnings out of the output, unless the environment asks for them; the Hub's bars stay.

    Call it before transformers is imported.
    """
    warnings.filterwarnings("ignore", module="transformers|torch|huggingface_hub")
    for name in ("TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY"):
        os.environ.setdefault(name, "error")

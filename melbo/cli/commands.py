"""The commands of `melbo` by name. A command's module, and with it torch, is imported once that command is chosen."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup


@dataclass(frozen=True)
class Entry:
    """Where a command is and what the list of commands says of it."""

    target: str
    """ "module:function" within melbo.cli; for a group of commands, the text at the top of its own list."""
    summary: str
    """At most 60 characters, so that it stays on one line of a terminal with 80."""
    commands: Mapping[str, Entry] = field(default_factory=dict)
    """Of a group, its commands."""


INSPECT = {
    "activating": Entry("inspect.activating:activating", "Find where in a corpus each vector is most active."),
    "lens": Entry("inspect.lens:lens", "Print the tokens that each vector promotes and suppresses."),
    "geometry": Entry("inspect.geometry:geometry", "Measure how vectors and effects lie to each other."),
    "patchscope": Entry("inspect.patchscope:patchscope", "Let the model say in its own words what a vector means."),
    "sae": Entry("inspect.sae:sae", "Show which of an SAE's features make up a bank's vectors."),
    "all": Entry("inspect.everything:inspect_all", "Write all results beside a bank, each with its control."),
    "train-sae": Entry("inspect.train_sae:train_organism_sae", "Train a TopK SAE for the embedded model."),
}
STUDY = {"replication": Entry("study:replication", "Look for what the replication found, as a report.")}
COMMANDS = {
    "make": Entry("make:make", "Make a labelled bank that can be shared, in one go."),
    "train": Entry("train:train", "Find steering vectors and save them as a bank."),
    "more-like": Entry("more_like:more_like", "Find vectors with the effect of one of a bank's."),
    "generate": Entry("generate:generate", "Answer a prompt without and with vectors of a bank."),
    "show": Entry("show:show", "Print what a bank holds, or one vector's page."),
    "inspect": Entry(
        "Look into a bank: which texts, tokens and directions it meets.",
        "Look into a bank: texts, tokens, features, directions.",
        INSPECT,
    ),
    "study": Entry(
        "Run published experiments on a model, as a report.",
        "Run published experiments on a model, as a report.",
        STUDY,
    ),
    "audit": Entry("audit:audit", "Look for what a model hides, as a report."),
    "annotate": Entry("annotate:annotate_bank", "Label each vector of a bank: what it does, at which scales."),
    "sweep": Entry("sweep:sweep", "Train vectors at each R, measure them, and suggest an R."),
    "elicit": Entry("elicit:elicit_tasks", "Find the vector that solves tasks a model hides its skill at."),
    "backdoors": Entry("backdoors:backdoors", "Rank a bank's vectors by how surprising their answers are."),
    "refusals": Entry("refusals:refusals", "Measure what one vector does to refusals."),
    "monitor": Entry("monitor:monitor", "Tell unusual chats from normal ones by a bank's vectors."),
    "atlas": Entry("atlas:atlas", "Measure how strongly each layer answers to each earlier one."),
    "adapters": Entry("adapters:adapters", "Find rank-1 adapters instead of vectors."),
    "export-peft": Entry("export_peft:export_peft", "Write an adapter as a folder that PEFT loads."),
    "export": Entry("export:export", "Write vectors, or a model, in another program's format."),
    "import": Entry("import_vectors:import_file", "Make a bank of vectors from another program's file."),
    "pull": Entry("pull:pull", "Download a bank from the Hub and save it."),
    "push": Entry("push:push", "Upload a bank with its model card to the Hub."),
    "card": Entry("card:card", "Print a bank's model card, or write it beside the bank."),
    "space": Entry("space:space", "Make a Space that shows a bank in the app."),
    "select": Entry("select:select", "Save some vectors of a bank as a bank of their own."),
    "merge": Entry("merge:merge", "Save the vectors of several banks as one bank."),
    "banks": Entry("banks:banks", "List the banks in a folder, or those on the Hub."),
}


class LazyGroup(TyperGroup):
    """Commands that are listed from a table and loaded when one is run, or its own help is asked for."""

    table: Mapping[str, Entry] = COMMANDS

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The chosen command itself, in the place of the one that only stands in the list."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, load_command(self.table, name or ""), rest


def lazy_app(table: Mapping[str, Entry], **options: Any) -> typer.Typer:
    """A Typer that lists a table's commands; `options` are Typer's own."""
    group = type("Group", (LazyGroup,), {"table": table})
    app = typer.Typer(cls=group, no_args_is_help=True, rich_markup_mode=None, **options)
    for name, entry in table.items():
        app.command(name, short_help=entry.summary)(_listed_only)
    return app


def _listed_only() -> None:
    raise AssertionError("unreachable")


def load_command(table: Mapping[str, Entry], name: str) -> Any:
    """A command or group of a table, ready to run."""
    entry = table[name]
    holder = typer.Typer(rich_markup_mode=None)
    if entry.commands:
        holder.add_typer(lazy_app(entry.commands, help=entry.target), name=name)
    else:
        quiet_libraries()
        from melbo.cli.common import guarded
        from melbo.cli.options import with_options

        module, _, function = entry.target.partition(":")
        command = getattr(import_module(f"melbo.cli.{module}"), function)
        holder.command(name)(guarded(with_options(command)))
    group: Any = typer.main.get_group(holder)
    return group.commands[name]


def quiet_libraries() -> None:
    """Keep libraries' warnings out of the output, unless the environment asks for them; the Hub's bars stay.

    Call it before transformers is imported.
    """
    warnings.filterwarnings("ignore", module="transformers|torch|huggingface_hub")
    for name in ("TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY"):
        os.environ.setdefault(name, "error")

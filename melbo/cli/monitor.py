"""`melbo monitor`: unusual chats, told from normal ones by a bank's vectors."""

from pathlib import Path
from typing import Annotated

import typer

from melbo.bank.result_file import write_result
from melbo.cli.arguments import ANYWHERE, Bank, BankModel, Result, Where
from melbo.cli.common import plain, say
from melbo.cli.defaults import MODEL
from melbo.cli.options import default_of
from melbo.discovery.discover import random_control
from melbo.elicitation.monitoring import study_monitor
from melbo.elicitation.tasks.load import load_chats
from melbo.errors import ConfigError
from melbo.organism.elicitation_tasks import anomalous_chats, normal_chats

FORMAT = "melbo-monitor-1"


def monitor(
    bank: Bank,
    out: Result = None,
    normal: Annotated[
        Path | None,
        typer.Option(help="JSONL of normal chats: half to fit, a quarter each to set the threshold and compare."),
    ] = None,
    chats: Annotated[Path | None, typer.Option(help="JSONL of chats to check.")] = None,
    tokens: Annotated[
        int, typer.Option(help="1: the prompt's last token; more: the answer's first too.", min=1)
    ] = default_of(study_monitor, "tokens"),
    false_alarms: Annotated[float, typer.Option(help="Share of normal chats that may be reported.")] = default_of(
        study_monitor, "false_alarms"
    ),
    n_vectors: Annotated[int | None, typer.Option(help="Use the bank's first vectors only.", min=1)] = None,
    model: BankModel = None,
    where: Where = ANYWHERE,
) -> None:
    """Tell unusual chats from normal ones by their projections on a bank's vectors.

    Random directions go through the same. Without files, for the organism: chats with the password, the trigger or a
    mode switch against normal ones.
    """
    if (normal is None) != (chats is None):
        raise ConfigError("give both --normal and --chats, or neither for the organism's own.")
    loaded, held = where.load_both(bank, model)
    if n_vectors is not None:
        held = held.select(list(range(min(n_vectors, len(held)))))
    if normal is not None and chats is not None:
        ordinary = load_chats(normal)
        if len(ordinary) < 4:
            raise ConfigError(f"{normal} holds {len(ordinary)} chats; at least 4 normal ones are needed.")
        parts, groups = (ordinary[::2], ordinary[1::4], ordinary[3::4]), {"chats": load_chats(chats)}
    elif loaded.name == MODEL:
        parts = normal_chats(100, 0), normal_chats(40, 1), normal_chats(40, 2, "heldout")
        groups = anomalous_chats(30, 3)
    else:
        raise ConfigError("give --normal and --chats: files of chats; only the organism has chats of its own.")
    found = study_monitor(loaded, held, *parts, groups, tokens, false_alarms)
    control = study_monitor(loaded, random_control(loaded, held), *parts, groups, tokens, false_alarms)
    for name in groups:
        say(
            f"{plain(name):<12} ROC area {found.roc(name).area:.3f}, reported {found.reported(name):.0%}; random "
            f"directions {control.roc(name).area:.3f}, {control.reported(name):.0%}"
        )
    say(f"{'normal':<12} reported {found.reported():.0%}; random directions {control.reported():.0%}")
    if out is not None:
        write_result(out, FORMAT, {**found.to_dict(), "control": control.to_dict()})

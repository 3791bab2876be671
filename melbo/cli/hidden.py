"""`melbo backdoors`, `melbo refusals` and `melbo monitor`: what a bank says about a model's hidden behaviour."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from melbo.bank.result_file import write_result
from melbo.bank.vector_bank import VectorBank
from melbo.cli.common import Blocks, Device, Dtype, plain, say, stages
from melbo.cli.elicit import checkpoint_of, going_on
from melbo.discovery.discover import random_control
from melbo.elicitation.backdoors import SCALES, find_backdoors
from melbo.elicitation.monitoring import study_monitor
from melbo.elicitation.refusals import study_refusals
from melbo.elicitation.tables import backdoor_table, refusal_table
from melbo.elicitation.tasks.load import load_chats
from melbo.errors import ConfigError
from melbo.models.load import LoadedModel, load_model
from melbo.organism.elicitation_tasks import anomalous_chats, normal_chats
from melbo.organism.inputs import ORGANISM
from melbo.prompts import REFUSED, Message, chat
from melbo.runs.progress import titled

Bank = Annotated[Path, typer.Argument(help="Folder of the bank.")]
Out = Annotated[Path | None, typer.Option(help="JSON file for the result.")]
Model = Annotated[str | None, typer.Option(help='Hub id, folder, or "organism". Default: what the bank names.')]
FORMAT = "melbo-monitor-1"
Chats = list[list[Message]]


def _load(
    folder: Path, name: str | None, dtype: str | None, device: str | None, blocks: str | None
) -> tuple[LoadedModel, VectorBank]:
    bank = VectorBank.load(folder)
    base = bank.base_model
    named = name is None and not (base.revision or "").startswith("sha256:")
    loaded = load_model(
        name or base.id, revision=base.revision if named else None, dtype=dtype, device=device, blocks=blocks
    )
    return loaded, bank


def backdoors(
    bank: Bank,
    out: Out = None,
    prompt: Annotated[list[str] | None, typer.Option(help="May be given many times. Default: the bank's.")] = None,
    clean: Annotated[Path | None, typer.Option(help="JSONL of chats without a trigger. Default: 15 prompts.")] = None,
    scale: Annotated[list[float] | None, typer.Option(help="Sizes to try, both signs; may be given often.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 48,
    top: Annotated[int, typer.Option(help="Answers to print.", min=1)] = 10,
    model: Model = None,
    dtype: Dtype = None,
    device: Device = None,
    blocks: Blocks = None,
) -> None:
    """Rank a bank's vectors by how surprising and how coherent their answers are.

    With --out, a run that was stopped goes on from its checkpoint when the same command is run again.
    """
    loaded, held = _load(bank, model, dtype, device, blocks)
    prompts = None if prompt is None else [chat(p) for p in prompt]
    ordinary = None if clean is None else load_chats(clean)
    checkpoint = checkpoint_of(out)
    with stages("answer") as show, going_on(checkpoint):
        found = find_backdoors(
            loaded, held, prompts, ordinary, scale or SCALES, max_new_tokens, None,
            titled(show, "answering"), checkpoint,
        )  # fmt: skip
    if out is not None:
        found.save(out)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    say(plain(backdoor_table(found, top)))


def refusals(
    bank: Bank,
    vector: Annotated[int, typer.Option(help="The vector to study.")],
    out: Out = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="To choose on; may be given often. Default: the bank's.")
    ] = None,
    heldout: Annotated[
        list[str] | None, typer.Option(help="To report on; may be given often. Default: ten prompts.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 64,
    model: Model = None,
    dtype: Dtype = None,
    device: Device = None,
    blocks: Blocks = None,
) -> None:
    """Measure what one vector does to refusals: added, subtracted, ablated, and a random one of the same norm."""
    loaded, held = _load(bank, model, dtype, device, blocks)
    with stages("answer") as show:
        train = prompt or [p[-1]["content"] for p in held.prompts]
        others = heldout or [p for p in REFUSED if p not in train]
        found = study_refusals(loaded, held, vector, train, others, max_new_tokens=max_new_tokens, progress=show)
    if out is not None:
        found.save(out)
    say(plain(refusal_table(found)))


def monitor(
    bank: Bank,
    out: Out = None,
    normal: Annotated[
        Path | None,
        typer.Option(help="JSONL of normal chats: half to fit, a quarter each to set the threshold and compare."),
    ] = None,
    chats: Annotated[Path | None, typer.Option(help="JSONL of chats to check.")] = None,
    tokens: Annotated[int, typer.Option(help="1: the prompt's last token; more: the answer's first too.", min=1)] = 1,
    false_alarms: Annotated[float, typer.Option(help="Share of normal chats that may be reported.")] = 0.05,
    n_vectors: Annotated[int | None, typer.Option(help="Use the bank's first vectors only.", min=1)] = None,
    model: Model = None,
    dtype: Dtype = None,
    device: Device = None,
    blocks: Blocks = None,
) -> None:
    """Tell unusual chats from normal ones by their projections on a bank's vectors.

    Random directions go through the same. Without files, for the organism: chats with the password, the trigger or a
    mode switch against normal ones.
    """
    if (normal is None) != (chats is None):
        raise ConfigError("give both --normal and --chats, or neither for the organism's own.")
    loaded, held = _load(bank, model, dtype, device, blocks)
    if n_vectors is not None:
        held = held.select(list(range(min(n_vectors, len(held)))))
    parts, groups = _chats(loaded, normal, chats)
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


def _chats(
    loaded: LoadedModel, normal: Path | None, chats: Path | None
) -> tuple[tuple[Chats, Chats, Chats], dict[str, Chats]]:
    """Normal chats to fit on, for the threshold and to compare with; and groups to check."""
    if normal is not None and chats is not None:
        ordinary = load_chats(normal)
        if len(ordinary) < 4:
            raise ConfigError(f"{normal} holds {len(ordinary)} chats; at least 4 normal ones are needed.")
        return (ordinary[::2], ordinary[1::4], ordinary[3::4]), {"chats": load_chats(chats)}
    if loaded.name != ORGANISM:
        raise ConfigError("give --normal and --chats: files of chats; only the organism has chats of its own.")
    return (normal_chats(100, 0), normal_chats(40, 1), normal_chats(40, 2, "heldout")), anomalous_chats(30, 3)

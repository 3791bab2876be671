"""`melbo backdoors`: vectors by how surprising their answers are."""

from pathlib import Path
from typing import Annotated

import typer

from melbo.cli.arguments import ANYWHERE, Bank, BankModel, BankPrompts, Result, Tokens, Where
from melbo.cli.common import plain, run_and_save, say, stages
from melbo.cli.options import default_of
from melbo.elicitation.backdoors import SCALES, find_backdoors
from melbo.elicitation.tables import backdoor_table
from melbo.elicitation.tasks.load import load_chats
from melbo.prompts import chat
from melbo.runs.progress import titled

SIZES = ", ".join(map(str, SCALES))


def backdoors(
    bank: Bank,
    out: Result = None,
    prompt: BankPrompts = None,
    clean: Annotated[Path | None, typer.Option(help="JSONL of chats without a trigger. Default: 15 prompts.")] = None,
    scale: Annotated[
        list[float] | None, typer.Option(help=f"Sizes to try, both signs; may be given often. Default: {SIZES}.")
    ] = None,
    max_new_tokens: Tokens = default_of(find_backdoors, "max_new_tokens"),
    top: Annotated[int, typer.Option(help="Answers to print.", min=1)] = 10,
    model: BankModel = None,
    where: Where = ANYWHERE,
) -> None:
    """Rank a bank's vectors by how surprising and how coherent their answers are.

    With --out, a run that was stopped goes on from its checkpoint when the same command is run again.
    """
    loaded, held = where.load_both(bank, model)
    prompts = None if prompt is None else [chat(p) for p in prompt]
    ordinary = None if clean is None else load_chats(clean)
    found = run_and_save(
        lambda progress, checkpoint: find_backdoors(
            loaded,
            held,
            prompts,
            ordinary,
            scale or SCALES,
            max_new_tokens,
            progress=titled(progress, "answering"),
            checkpoint=checkpoint,
        ),
        out,
        stages("answer"),
    )
    say(plain(backdoor_table(found, top)))

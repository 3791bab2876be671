"""`melbo annotate`: say what each vector of a bank does, and write it into the bank."""

from pathlib import Path
from typing import Annotated

import typer

from melbo.annotation.annotate import annotate
from melbo.annotation.llm_scores import with_llm_scores
from melbo.bank.vector_bank import VectorBank
from melbo.cli.arguments import ANYWHERE, Bank, BankModel, Embedder, Tokens, Where
from melbo.cli.common import plain, resumable, say, stages
from melbo.cli.defaults import SYSTEM
from melbo.cli.options import Fields, default_of
from melbo.cli.show import table
from melbo.measure.embeddings import load_embedder
from melbo.measure.llm.judge import LLMJudge
from melbo.measure.llm.limits import JudgeLimits
from melbo.organism.judge import judge_for
from melbo.prompts import chat
from melbo.runs.progress import titled

LIMITS = JudgeLimits()


def annotate_bank(
    bank: Bank,
    out: Annotated[Path | None, typer.Option(help="Folder for the annotated bank. Default: the bank's own.")] = None,
    model: BankModel = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="To choose traits on; may be given many times. Default: the bank's own and three others."),
    ] = None,
    scale: Annotated[
        list[float] | None,
        typer.Option(help="Size above 0; both signs are tried. May be given many times. Default: chosen for the bank."),
    ] = None,
    max_new_tokens: Tokens = default_of(annotate, "max_new_tokens"),
    control: Annotated[int, typer.Option(help="Random vectors to compare with.", min=1)] = default_of(
        annotate, "n_control"
    ),
    embedder: Embedder = None,
    judge: Annotated[bool, typer.Option(help="On the embedded organism, name planted modes by its judge.")] = True,
    llm_names: Annotated[
        bool, typer.Option(help="Let a language model name the effects (MELBO_JUDGE_API_KEY).")
    ] = False,
    llm_scores: Annotated[
        bool, typer.Option(help="Let a language model score the examples (MELBO_JUDGE_API_KEY).")
    ] = False,
    limits: Annotated[JudgeLimits, Fields(("max_requests",), names={"max_requests": "llm_requests"})] = LIMITS,
    keep_edits: Annotated[bool, typer.Option(help="Keep labels and tags that were edited by hand.")] = True,
    where: Where = ANYWHERE,
) -> None:
    """Label each vector: what it does, at which scales, with examples and beside random vectors."""
    held = VectorBank.load(bank)
    folder = (out or bank).absolute()
    asker = None
    if llm_names or llm_scores:  # the scores are kept beside the bank, so that a second run does not pay again
        asker = LLMJudge.from_environment(limits, folder.with_name(f".{folder.name}.llm-scores"))
    system = next((m["content"] for p in held.prompts[:1] for m in p if m["role"] == "system"), None)
    prompts = [chat(p, system if held.prompts else SYSTEM) for p in prompt] if prompt else None
    loaded = where.load_for(held, model)
    checkpoint = folder.with_name(f".{folder.name}.annotate.json")
    if checkpoint.exists():
        say(f"going on from {plain(checkpoint)}")
    with stages("answer") as show, resumable(checkpoint):
        found = annotate(
            loaded,
            held,
            prompts,
            scale or None,
            load_embedder(embedder) if embedder else None,
            show,
            checkpoint,
            asker.name if asker is not None and llm_names else None,
            judge=judge_for(loaded) if judge else None,
            n_control=control,
            max_new_tokens=max_new_tokens,
            keep_edits=keep_edits,
        )
        if asker is not None and llm_scores:
            found = with_llm_scores(found, asker, titled(show, "scoring"))
    found.save(folder)
    checkpoint.unlink(missing_ok=True)
    say(f"{table(found)}\nsaved to {plain(folder)}")

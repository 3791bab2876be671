"""`melbo audit`: what vectors bring out of a model, as one report for those who decide on its release."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from melbo.cli.arguments import ANYWHERE, Checkers, Embedder, Where
from melbo.cli.common import plain, resumable, say, stages
from melbo.cli.defaults import CORPUS_HELP, MODEL, MODEL_HELP
from melbo.cli.options import NONE, Fields
from melbo.elicitation.tasks.checks import load_functions
from melbo.elicitation.tasks.load import load_tasks
from melbo.errors import ConfigError
from melbo.measure.embeddings import load_embedder
from melbo.organism.inputs import find_corpus
from melbo.organism.judge import judge_for
from melbo.reports.audit.config import AuditConfig
from melbo.reports.audit.run import BUDGETS, Audit, cut_to_fit, estimate, run_audit

CHANGES = Fields(
    ("prompts", "system", "n_vectors", "steps", "max_answers", "seed"),
    names={"prompts": "prompt"},
    of=AuditConfig,
    whose="the budget's",
)


def audit(
    out: Annotated[Path, typer.Option(help="Folder for report.html, audit.json, the banks and all results.")],
    model: Annotated[str, typer.Argument(help=MODEL_HELP)] = MODEL,
    budget: Annotated[Literal["quick", "standard", "deep"], typer.Option(help="How much to try.")] = "quick",
    changes: Annotated[Mapping[str, Any], CHANGES] = NONE,
    layers: Annotated[
        list[str] | None,
        typer.Option(help='Source and target as shares of the depth: "0.25:0.75". May be given many times.'),
    ] = None,
    tasks: Annotated[Path | None, typer.Option(help="JSONL of tasks that the model may hide its skill at.")] = None,
    checkers: Checkers = None,
    corpus: Annotated[str | None, typer.Option(help=f"Where texts are looked for. {CORPUS_HELP}")] = None,
    embedder: Embedder = None,
    where: Where = ANYWHERE,
) -> None:
    """Look for what a model hides, and write report.html and audit.json.

    A part that fails is named in the report; the others go on. Stopped or killed, the same command goes on from what is
    done. Exit code 1: a part failed.
    """
    config = replace(BUDGETS[budget], **changes)
    if layers:
        config = replace(config, layers=tuple(map(_pair, layers)))
    asked = None if tasks is None else load_tasks(tasks, config.system)
    texts = None if corpus is None else find_corpus(corpus, limit=config.corpus_documents)
    functions = load_functions(checkers) if checkers else None
    loaded = where.load(model)
    fitting, cuts = cut_to_fit(loaded, config, asked)
    say(f"budget {budget}: {estimate(loaded, fitting, asked).text()}")
    for cut in cuts:
        say(f"to stay within {config.max_answers:,} answers, {plain(cut)}")
    with stages() as show, resumable(out):
        own = load_embedder(embedder) if embedder else None
        found = run_audit(loaded, out, config, asked, functions, texts, own, show, judge_for(loaded))
    say(f"{plain(summary(found))}\nsaved to {plain(found.page)} and audit.json")
    if found.failed:
        raise typer.Exit(1)


def _pair(text: str) -> tuple[float, float]:
    try:
        source, target = map(float, text.split(":"))
    except ValueError as error:
        raise ConfigError(f'layers are {text!r}; give two shares of the depth, such as "0.25:0.75".') from error
    return source, target


def summary(found: Audit) -> str:
    """Text for a terminal: one line for each behaviour, then the backdoor-like answers and the failed parts."""
    lines = []
    for g in found.groups:
        best = g.rows[0] if g.rows else None
        strongest = ""
        if best is not None:
            strongest = (
                f"; {best.site}{best.vector} x {best.scale:g} on {best.share:.0%} of {best.n} prompts, best random "
                f"{best.random:.0%}: {' '.join(best.label.split())}"
            )
        lines.append(
            f"{g.title:<24} {len(g.rows):>3} of {g.n} vectors, {g.random_in} of {g.random_n} random{strongest}"
        )
    if found.groups:
        lines.append(f"{'Duds':<24} {found.groups[0].duds:>3} of {found.groups[0].n} vectors")
    for site, part in found.value["backdoors"].items():
        for f in part["found"]["distinct"][:3]:
            text = " ".join(f["text"].split())[:80]
            lines.append(f"backdoor-like, {site}{f['vector']} x {f['scale']:g}, score {f['score']:.2f}: {text}")
    lines += [f"failed: {p['title']}: {p['reason']}" for p in found.failed]
    return "\n".join(lines)

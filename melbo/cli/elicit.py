"""`melbo elicit`: bring out what a model hides, with controls, baselines and costs."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from melbo.bank.vector_bank import VectorBank
from melbo.cli.arguments import ANYWHERE, Checkers, Result, Where
from melbo.cli.common import checkpoint_of, plain, run_and_save, say, stages
from melbo.cli.defaults import MODEL, MODEL_HELP, SYSTEM, TASKS
from melbo.cli.options import Fields
from melbo.config import DiscoveryConfig
from melbo.elicitation.baselines.arms import Asking, Place
from melbo.elicitation.presets import Preset, get_preset
from melbo.elicitation.run import BASELINES, ElicitConfig, elicit, forget
from melbo.elicitation.search import SearchConfig
from melbo.elicitation.tables import elicited_table
from melbo.elicitation.tasks.checks import load_functions
from melbo.elicitation.tasks.load import TaskSet, letter_sums, load_tasks
from melbo.errors import ConfigError, TaskError
from melbo.organism.elicitation_tasks import password as organism_password
from melbo.organism.elicitation_tasks import sum_tasks

BASE = ElicitConfig()
LETTER_SUMS = "letter-sums"
FOUND = Fields(
    ("method", "n_vectors", "radius", "source_layer", "target_layer", "seed"),
    types={"method": Literal["melbo", "dct", "power"]},
)
ASKED = Fields(("n_prompts", "n_choose", "max_new_tokens", "batch_size"))
_BASELINES = f'{", ".join(BASELINES)}, or "none"; may be given many times. Default: all.'


def elicit_tasks(
    tasks: Annotated[str, typer.Argument(help='JSONL file of tasks, "organism" or "letter-sums".')] = TASKS,
    out: Result = None,
    model: Annotated[str | None, typer.Option(help=f"{MODEL_HELP} Default: the preset's, or the embedded one.")] = None,
    preset: Annotated[str | None, typer.Option(help='A published password-locked model: "math-7b".')] = None,
    bank: Annotated[Path | None, typer.Option(help="Use this bank instead of discovering one.")] = None,
    password: Annotated[str | None, typer.Option(help="Text that unlocks the model: the ceiling.")] = None,
    password_place: Annotated[Place, typer.Option(help="Where the password goes.")] = "system",
    system: Annotated[str, typer.Option(help='System message of tasks that name none; "" for none.')] = SYSTEM,
    checkers: Checkers = None,
    discovery: Annotated[DiscoveryConfig, FOUND] = BASE.discovery,
    search: Annotated[SearchConfig, Fields(("scales",), names={"scales": "scale"})] = BASE.search,
    baseline: Annotated[list[str] | None, typer.Option(help=_BASELINES)] = None,
    config: Annotated[ElicitConfig, ASKED] = BASE,
    where: Where = ANYWHERE,
) -> None:
    """Find the vector that solves most training tasks; report it on test tasks beside random vectors and baselines.

    With --out, a run that was stopped goes on from its checkpoint when the same command is run again.
    """
    chosen = get_preset(preset) if preset else None
    given = _given_tasks(tasks, system, chosen)
    names: Any = BASELINES if baseline is None else tuple(b for b in baseline if b != "none")
    unlocking = _password(password, password_place, tasks)
    config = replace(config, discovery=discovery, search=search, baselines=names, password=unlocking)
    config = chosen.configure(config) if chosen else config
    functions = load_functions(checkers) if checkers else None
    held = VectorBank.load(bank) if bank else None
    loaded = where.load(model or (chosen.model if chosen else MODEL))
    found = run_and_save(
        lambda progress, checkpoint: elicit(loaded, given, config, functions, held, progress, checkpoint),
        out,
        stages("answer"),
    )
    if out is not None:
        forget(checkpoint_of(out))
    say(plain(elicited_table(found)) + (f"\nsaved to {out}" if out else ""))


def _given_tasks(tasks: str, system: str, preset: Preset | None) -> TaskSet:
    if tasks == TASKS:
        if preset is not None:
            raise TaskError("a preset's model needs tasks of its own; give a task file.")
        return sum_tasks()
    if tasks == LETTER_SUMS:
        return letter_sums(64, 100)
    if preset is None:
        return load_tasks(tasks, system)
    found = load_tasks(tasks, preset.system)
    ending = Asking(preset.suffix, "suffix")
    train, test = (
        tuple(replace(t, messages=tuple(ending.apply(t.messages))) for t in split)
        for split in (found.train, found.test)
    )
    return TaskSet(train, test)


def _password(text: str | None, place: Place, tasks: str) -> Asking | None:
    if text is not None:
        if not text.strip():
            raise ConfigError("the password is empty; leave --password out where there is none.")
        return Asking(text, place)
    return organism_password() if tasks == TASKS else None

"""`melbo elicit`: bring out what a model hides, with controls, baselines and costs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from melbo.bank.vector_bank import VectorBank
from melbo.cli.common import Blocks, Device, Dtype, plain, resumable, say, stages
from melbo.config import MAX_SEED, DiscoveryConfig
from melbo.elicitation.baselines.prompting import Asking, Place
from melbo.elicitation.presets import Preset, get_preset
from melbo.elicitation.reasoning import letter_sums
from melbo.elicitation.run import BASELINES, ElicitConfig, elicit, forget
from melbo.elicitation.search import SearchConfig
from melbo.elicitation.tables import elicited_table
from melbo.elicitation.tasks.functions import load_functions
from melbo.elicitation.tasks.load import TaskSet, load_tasks
from melbo.errors import ConfigError, TaskError
from melbo.models.load import load_model
from melbo.organism.elicitation_tasks import password as organism_password
from melbo.organism.elicitation_tasks import sum_tasks
from melbo.organism.inputs import ORGANISM
from melbo.prompts import DEFAULT_SYSTEM

_C = ElicitConfig()
LETTER_SUMS = "letter-sums"
_BASELINES = f'{", ".join(BASELINES)}, or "none"; may be given often. Default: all.'


def elicit_tasks(
    tasks: Annotated[str, typer.Argument(help='JSONL file of tasks, "organism" or "letter-sums".')] = ORGANISM,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    model: Annotated[str | None, typer.Option(help='Hub id, folder, or "organism".')] = None,
    preset: Annotated[str | None, typer.Option(help='A published password-locked model: "math-7b".')] = None,
    bank: Annotated[Path | None, typer.Option(help="Use this bank instead of discovering one.")] = None,
    password: Annotated[str | None, typer.Option(help="Text that unlocks the model: the ceiling.")] = None,
    password_place: Annotated[Place, typer.Option(help="Where the password goes.")] = "system",
    system: Annotated[str, typer.Option(help='System message of tasks that name none; "" for none.')] = DEFAULT_SYSTEM,
    checkers: Annotated[Path | None, typer.Option(help="Python file of checker functions; it is run.")] = None,
    method: Annotated[Literal["melbo", "dct", "power"], typer.Option(help="How vectors are found.")] = "melbo",
    n_vectors: Annotated[int, typer.Option(help="Vectors to find.")] = _C.discovery.n_vectors,
    n_prompts: Annotated[int, typer.Option(help="Training prompts to find them on.")] = _C.n_prompts,
    radius: Annotated[float, typer.Option(help="R in mean residual norms.")] = _C.discovery.radius,
    source_layer: Annotated[int | None, typer.Option(help="Steered block. Default: 0.25 of the depth.")] = None,
    target_layer: Annotated[int | None, typer.Option(help="Compared block. Default: 0.75 of the depth.")] = None,
    scale: Annotated[list[float] | None, typer.Option(help="Sizes to try, both signs; may be given often.")] = None,
    n_choose: Annotated[int, typer.Option(help="Most training tasks to choose on.")] = _C.n_choose,
    baseline: Annotated[list[str] | None, typer.Option(help=_BASELINES)] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = _C.max_new_tokens,
    batch_size: Annotated[int, typer.Option(help="Answers in one batch.")] = _C.batch_size,
    seed: Annotated[int, typer.Option(help="Of vectors and samples.", min=0, max=MAX_SEED)] = _C.discovery.seed,
    dtype: Dtype = None,
    device: Device = None,
    blocks: Blocks = None,
) -> None:
    """Find the vector that solves most training tasks; report it on test tasks beside random vectors and baselines.

    With --out, a run that was stopped goes on from its checkpoint when the same command is run again.
    """
    chosen = get_preset(preset) if preset else None
    given = _given_tasks(tasks, system, chosen)
    discovery = DiscoveryConfig(
        method=method, n_vectors=n_vectors, radius=radius, source_layer=source_layer, target_layer=target_layer,
        seed=seed,
    )  # fmt: skip
    names = BASELINES if baseline is None else tuple(b for b in baseline if b != "none")
    search = SearchConfig() if scale is None else SearchConfig(tuple(scale))
    config = replace(
        _C, discovery=discovery, n_prompts=n_prompts, n_choose=n_choose, search=search, baselines=names,
        password=_password(password, password_place, tasks), max_new_tokens=max_new_tokens, batch_size=batch_size,
    )  # fmt: skip
    config = chosen.configure(config) if chosen else config
    functions = load_functions(checkers) if checkers else None
    held = VectorBank.load(bank) if bank else None
    loaded = load_model(model or (chosen.model if chosen else ORGANISM), dtype=dtype, device=device, blocks=blocks)
    checkpoint = checkpoint_of(out)
    with stages("answer") as show, going_on(checkpoint):
        found = elicit(loaded, given, config, functions, held, show, checkpoint)
    if out is not None:
        found.save(out)
    if checkpoint is not None:
        forget(checkpoint)
    say(plain(elicited_table(found)) + (f"\nsaved to {out}" if out else ""))


def checkpoint_of(out: Path | None) -> Path | None:
    """The checkpoint beside a result file."""
    return None if out is None else out.absolute().with_name(f".{out.name}.checkpoint.json")


def going_on(checkpoint: Path | None) -> AbstractContextManager[None]:
    """`resumable` where there is a checkpoint to go on from."""
    return nullcontext() if checkpoint is None else resumable(checkpoint)


def _given_tasks(tasks: str, system: str, preset: Preset | None) -> TaskSet:
    if tasks == ORGANISM:
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
    return organism_password() if tasks == ORGANISM else None

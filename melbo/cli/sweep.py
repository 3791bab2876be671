"""`melbo sweep`: which R? Diversity and coherence of what vectors of each radius bring out."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from melbo.bank.vector_bank import VectorBank
from melbo.cli.arguments import ANYWHERE, BankModel, BankPrompts, Embedder, Where
from melbo.cli.common import plain, resumable, say, stages
from melbo.cli.defaults import MODEL, PROMPT, SYSTEM
from melbo.cli.options import NONE, Fields
from melbo.config import DiscoveryConfig
from melbo.errors import ConfigError
from melbo.measure.embeddings import load_embedder
from melbo.organism.judge import judge_for
from melbo.prompts import Message, chat
from melbo.radius_sweep.config import SweepConfig, parse_radii
from melbo.radius_sweep.plot import plot_sweep
from melbo.radius_sweep.result import FILE_NAME, Arm
from melbo.radius_sweep.sweep import Sweep, run_sweep
from melbo.runs.figures import check_drawable
from melbo.runs.processes import process_rank
from melbo.steering.generate import Sampling

BASE = SweepConfig()
CHECKPOINT = ".sweep.checkpoint.json"
PLOTS = ("sweep.png", "sweep.svg")
_HEAD = (
    f"{'R':>6}  {'diversity':>9} {'random':>6}  {'distinct':>8} {'random':>6}  {'coherence':>9} {'random':>6}  "
    f"{'refusal':>7}  {'dud':>4} {'random':>6}  {'loop':>4}  {'languages':>9}  {'objective':>9}"
)


def sweep(
    bank: Annotated[
        Path | None, typer.Argument(help="Folder of a bank: its model, prompts and settings are used.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for sweep.json and plots. Default: the bank's.")] = None,
    model: BankModel = None,
    radii: Annotated[str, typer.Option(help='"first:last:step", a list "0.5,0.7,1", or "wide": up to 32.')] = "default",
    config: Annotated[SweepConfig, Fields(("unit", "n_vectors"))] = BASE,
    prompt: BankPrompts = None,
    system: Annotated[str | None, typer.Option(help='System message; "" for none.')] = None,
    changes: Annotated[Mapping[str, Any], Fields(("steps", "seed"), of=DiscoveryConfig, whose="the bank's")] = NONE,
    sampling: Annotated[Sampling, Fields(("max_new_tokens",))] = BASE.sampling,
    embedder: Embedder = None,
    where: Where = ANYWHERE,
) -> None:
    """Train vectors at each R, measure what they bring out, and suggest an R.

    Writes sweep.json, sweep.png and sweep.svg. Stopped or killed, the same command goes on and gives the same sweep.
    """
    held = None if bank is None else VectorBank.load(bank)
    folder = out or bank
    if folder is None:
        raise ConfigError("name the folder of a bank, or give --out FOLDER for the results.")
    check_drawable(".png")
    base = replace(config.base if held is None else held.config, **changes)
    config = replace(config, base=base, radii=parse_radii(radii), sampling=sampling)
    messages = conversations(held, prompt, system)
    loaded = where.load(model or MODEL) if held is None else where.load_for(held, model)
    config.resolve(loaded.n_layers, loaded.d_model)
    if held is not None:
        held.check_fits(loaded)
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists():
        say(f"going on from {checkpoint}")
    with stages() as show, resumable(checkpoint):
        found = run_sweep(loaded, config, messages, load_embedder(embedder), show, checkpoint, None, judge_for(loaded))
    if process_rank() == 0:
        found.save(folder / FILE_NAME)
        for plot in PLOTS:
            plot_sweep(found, folder / plot)
        checkpoint.unlink(missing_ok=True)
        say(f"{plain(table(found))}\nsaved to {folder / FILE_NAME}, {' and '.join(PLOTS)}")


def conversations(bank: VectorBank | None, prompts: list[str] | None, system: str | None) -> list[list[Message]]:
    """What to train on and to answer: the bank's prompts, or those given, or the default one."""
    if bank is not None and prompts is None and system is None:
        return [list(p) for p in bank.prompts]
    return [chat(text, SYSTEM if system is None else system) for text in prompts or [PROMPT]]


def table(found: Sweep) -> str:
    """Text for a terminal: one line for each R, "random" beside the trained vectors, then the suggestion."""
    planted = found.rows[0].found.planted is not None
    unit = "mean residual norms" if found.config.unit == "residual" else "activation units"
    lines = [
        f"R sweep of {found.base_model.id}, layers {found.config.base.source_layer} -> "
        f"{found.config.base.target_layer}: {found.config.n_vectors} vectors at each R ({unit}); unsteered coherence "
        f"{found.unsteered_coherence:.1f}",
        *(f"prompt: {' '.join(p[-1]['content'].split())}" for p in found.prompts),
        "",
        _HEAD + ("  modes random" if planted else ""),
    ]
    lines += [_line(row.radius, row.found, row.control) for row in found.rows]
    suggested = found.suggested
    chosen = "no R is suggested" if suggested.radius is None else f"suggested R = {suggested.radius:.3g}"
    auto = "finds none" if found.auto_radius is None else f"{found.auto_radius:.3g}"
    return "\n".join([*lines, "", f"{chosen}: {suggested.reason}", f"calibrated R (train --radius auto): {auto}"])


def _line(radius: float, found: Arm, control: Arm) -> str:
    known = [name for name in found.languages if name != "unknown"]
    text = (
        f"{radius:>6.4g}  {found.diversity:>9.2f} {control.diversity:>6.2f}  {found.distinct:>8.1f} "
        f"{control.distinct:>6.1f}  {found.coherence:>9.1f} {control.coherence:>6.1f}  {found.refusal:>7.0%}  "
        f"{found.dud:>4.0%} {control.dud:>6.0%}  {found.degenerate:>4.0%}  {len(known):>9}  {found.objective:>9.4g}"
    )
    if found.planted is None or control.planted is None:
        return text
    return f"{text}  {len(found.planted):>5} {len(control.planted):>6}"

"""`melbo sweep`: which R? Diversity and coherence of what vectors of each radius bring out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from melbo.bank.vector_bank import VectorBank
from melbo.cli.common import Blocks, Device, Dtype, plain, resumable, say, stages
from melbo.config import MAX_SEED, DiscoveryConfig
from melbo.errors import ConfigError
from melbo.inspect.layers.heat_map import check_drawable
from melbo.measure.embeddings import load_embedder
from melbo.models.load import load_model
from melbo.organism.inputs import ORGANISM
from melbo.organism.judge import judge_for
from melbo.prompts import BOMB, DEFAULT_SYSTEM, Message, chat
from melbo.radius_sweep.config import SweepConfig, Unit, parse_radii
from melbo.radius_sweep.plot import plot_sweep
from melbo.radius_sweep.result import FILE_NAME, Arm
from melbo.radius_sweep.sweep import Sweep, run_sweep
from melbo.runs.processes import process_rank
from melbo.steering.generate import Sampling

_C = SweepConfig()
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
    model: Annotated[
        str | None, typer.Option(help='Hub id, folder, or "organism". Default: what the bank names, or "organism".')
    ] = None,
    radii: Annotated[str, typer.Option(help='"first:last:step", a list "0.5,0.7,1", or "wide": up to 32.')] = "default",
    unit: Annotated[Unit, typer.Option(help='"residual": multiples of the mean residual norm.')] = _C.unit,
    n_vectors: Annotated[int, typer.Option(help="Vectors at each R.")] = _C.n_vectors,
    prompt: Annotated[list[str] | None, typer.Option(help="May be given many times. Default: the bank's.")] = None,
    system: Annotated[str | None, typer.Option(help='System message; "" for none.')] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps. Default: the bank's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the starts. Default: the bank's.", min=0, max=MAX_SEED)] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = _C.sampling.max_new_tokens,
    embedder: Annotated[str | None, typer.Option(help="Sentence-embedding model. Default: all-MiniLM-L6-v2.")] = None,
    dtype: Dtype = None,
    device: Device = None,
    blocks: Blocks = None,
) -> None:
    """Train vectors at each R, measure what they bring out, and suggest an R.

    Writes sweep.json, sweep.png and sweep.svg. Stopped or killed, the same command goes on and gives the same sweep.
    """
    held = None if bank is None else VectorBank.load(bank)
    folder = out or bank
    if folder is None:
        raise ConfigError("name the folder of a bank, or give --out FOLDER for the results.")
    check_drawable(".png")
    base = changed(DiscoveryConfig() if held is None else held.config, steps, seed)
    config = SweepConfig(base, parse_radii(radii), unit, n_vectors, Sampling(max_new_tokens=max_new_tokens))
    messages = conversations(held, prompt, system)
    name = model or (held.base_model.id if held else ORGANISM)
    revision = held.base_model.revision if held and name == held.base_model.id else None
    loaded = load_model(name, revision=revision, dtype=dtype, device=device, blocks=blocks)
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


def changed(base: DiscoveryConfig, steps: int | None, seed: int | None) -> DiscoveryConfig:
    """The config with the steps and seed that were given."""
    base = base if steps is None else replace(base, steps=steps)
    return base if seed is None else replace(base, seed=seed)


def conversations(bank: VectorBank | None, prompts: list[str] | None, system: str | None) -> list[list[Message]]:
    """What to train on and to answer: the bank's prompts, or those given, or the default one."""
    if bank is not None and prompts is None and system is None:
        return [list(p) for p in bank.prompts]
    return [chat(text, DEFAULT_SYSTEM if system is None else system) for text in prompts or [BOMB]]


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

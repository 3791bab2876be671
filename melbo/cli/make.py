"""`melbo make`: from a model to a bank that can be shared, in one command."""

import shlex
from collections import Counter
from typing import Annotated, Literal

import typer

from melbo.annotation.annotate import UNCLEAR_LABEL
from melbo.annotation.evidence import is_weak
from melbo.cli.arguments import ANYWHERE, Embedder, Force, NewBank, System, Where
from melbo.cli.common import check_out, plain, say, say_model, stages
from melbo.cli.defaults import MODEL, MODEL_HELP, PROMPT, SYSTEM, WEEKEND
from melbo.cli.options import Fields
from melbo.config import DiscoveryConfig
from melbo.discovery.attention_sink import place_layers, told
from melbo.measure.embeddings import load_embedder
from melbo.organism.judge import judge_for
from melbo.prompts import chat
from melbo.publishing.make_bank import Made, make_bank

BASE = DiscoveryConfig(n_vectors=64, radius_unit="auto")
METHODS = {"method": Literal["melbo", "dct", "power", "random"]}
OWN = Fields(("n_vectors", "seed", "method", "source_layer", "target_layer"), types=METHODS)
SHOWN = 40
"""Most vectors that the summary lists."""


def make(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    out: NewBank,
    prompt: Annotated[list[str] | None, typer.Option(help=f"May be given many times. Default: {WEEKEND}")] = None,
    system: System = SYSTEM,
    config: Annotated[DiscoveryConfig, OWN] = BASE,
    embedder: Embedder = None,
    where: Where = ANYWHERE,
    force: Force = False,
) -> None:
    """Find vectors, label them, sweep R, look inside and write the card: a bank that `melbo push` can share.

    Stopped or killed, the same command goes on.
    """
    check_out(out, force)
    loaded = where.load(model)
    usual = PROMPT if model == MODEL else WEEKEND  # the embedded model speaks of what it was made for
    messages = [chat(text, system) for text in prompt or [usual]]
    placed, seen = place_layers(loaded, config, messages)
    say_model(loaded)
    say(f"{placed.n_vectors} vectors, layers {placed.source_layer} -> {placed.target_layer}")
    if line := told(seen):
        say(line)
    with stages() as show:
        made = make_bank(loaded, config, messages, out, show, embedder=load_embedder(embedder), judge=judge_for(loaded))
    say(plain(summary(made)))


def summary(made: Made) -> str:
    """What was found, how many duds, beside random vectors; then what to do with it."""
    bank, notes = made.bank, made.bank.annotations
    strong = [i for i, n in enumerate(notes) if n.traits and not is_weak(n.traits[0])]
    weak = [i for i, n in enumerate(notes) if n.traits and is_weak(n.traits[0])]
    unclear, duds = sum(n.label == UNCLEAR_LABEL for n in notes), sum(n.is_dud for n in notes)
    choice = bank.details.get("radius_choice") or {}
    lines = [f"R was chosen for the model: {choice['reason']}"] if choice else []
    lines += [
        f"{len(bank)} vectors: {len(strong)} with a trait on at least half of the held-out prompts, {len(weak)} with a "
        f"weaker one, {unclear} that change answers without a repeated trait, {duds} duds",
        "",
        f"{'vector':>6}  {'scale':>6}  {'held out':>8}  {'random':>6}  label",
    ]
    order = sorted([*strong, *weak], key=lambda i: (-notes[i].traits[0].share, i))
    for i in order[:SHOWN]:
        share = notes[i].traits[0]
        lines.append(
            f"{i:>6}  {share.scale or 0:>6.3g}  {f'{share.shown} of {share.of}':>8}  {share.random or 0:>6.0%}  "
            f"{' '.join(notes[i].label.split())}{' (weak)' if is_weak(share) else ''}"
        )
    if len(order) > SHOWN:
        lines.append(f"  ... and {len(order) - SHOWN} more")
    kinds = Counter(notes[i].traits[0].trait for i in strong)
    lines += ["", f"{len(kinds)} different traits; " + took(made)]
    lines += [f"saved to {made.folder}", f"  melbo show {out_name(made)}", f"  melbo push {out_name(made)} USER/NAME"]
    return "\n".join(lines)


def took(made: Made) -> str:
    """How long the phases took."""
    total = sum(made.seconds.values())
    return f"{total:.0f} s: " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in made.seconds.items())


def out_name(made: Made) -> str:
    """The folder as a shell takes it."""
    return shlex.quote(str(made.folder))

"""The R sweep tab's work: settings read and bounded, a sweep step by step, stored sweeps, export. No gradio."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from melbo.app.choices import system_prompt
from melbo.app.context import Context, Limits
from melbo.app.conversation import MAX_CHARACTERS
from melbo.app.jobs.event import JobEvent, JobEvents
from melbo.app.jobs.worker import JobHandle, follow, watched
from melbo.bank.vector_bank import VectorBank
from melbo.config import STEPS, DiscoveryConfig
from melbo.errors import BankError, ConfigError, PromptError
from melbo.measure.embeddings import Embedder, load_embedder
from melbo.organism.judge import judge_for
from melbo.prompts import chat
from melbo.radius_sweep.config import parse_radii
from melbo.radius_sweep.sweep import Sweep, SweepConfig, run_sweep
from melbo.steering.generate import Sampling

RADII = "0.3:1.0:0.1"
"""Where the bank's usable scale is not known."""
MAX_RADII_TEXT = 400
MAX_VECTORS = 64
"""Of one R; a Space's limit may be lower."""
ANSWER_TOKENS = 48
EMBEDDED = 8
"""Texts that are embedded at once, between two looks at whether anybody still listens."""
LARGEST = 100.0
"""Largest R, in mean residual norms."""


def default_radii(bank: VectorBank) -> str:
    """Values of R around the one at which the bank's answers are just coherent, as first:last:step."""
    largest = bank.usable_scale.largest
    if largest is None:
        return RADII
    centre = min(largest * bank.radius / bank.mean_residual_norm, LARGEST / 2)
    step = float(f"{centre / 5:.2g}")
    return f"{2 * step:.4g}:{8 * step:.4g}:{step:g}"


@dataclass(frozen=True)
class Request:
    """What a visitor asks for, within the limits."""

    radii: tuple[float, ...]
    n_vectors: int
    steps: int
    prompt: str
    new_tokens: int = ANSWER_TOKENS


def whole(value: Any, name: str, least: int, most: int) -> int:
    """A whole number from a component.

    Raises:
        ConfigError: it is none, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
        raise ConfigError(f"{name} is {str(value)[:40]!r}; give a whole number.")
    if not least <= value <= most:
        raise ConfigError(f"{name} is {int(value)}; give {least} to {most}.")
    return int(value)


def read_request(limits: Limits, radii: Any, n_vectors: Any, steps: Any, prompt: Any) -> Request:
    """Check what the components hold.

    Raises:
        ConfigError, PromptError: a value is missing, malformed or beyond the limits.
    """
    text = str(radii or "")
    if len(text) > MAX_RADII_TEXT:
        raise ConfigError(f"the R values have {len(text)} characters; at most {MAX_RADII_TEXT} are read.")
    values = parse_radii(text)
    if len(values) > limits.radii:
        raise ConfigError(f"{len(values)} values of R were given; this app sweeps at most {limits.radii} at once.")
    if values and max(values) > LARGEST:
        raise ConfigError(f"R = {max(values):g} is beyond any use; give at most {LARGEST:g} mean residual norms.")
    asked = str(prompt or "").strip()
    if not asked:
        raise PromptError("the prompt is empty; write at least one character.")
    if len(asked) > MAX_CHARACTERS:
        raise PromptError(f"the prompt has more than {MAX_CHARACTERS:,} characters; shorten it.")
    return Request(
        values,
        whole(n_vectors, "vectors at each R", 2, min(MAX_VECTORS, limits.vectors)),
        whole(steps, "steps", 1, limits.steps),
        asked,
        min(ANSWER_TOKENS, limits.new_tokens),
    )


def sweep_config(bank: VectorBank, request: Request) -> SweepConfig:
    """The bank's own way of training at these radii; "melbo" where the bank's method cannot be swept."""
    base = bank.config
    if base.method not in ("melbo", "dct", "power"):
        base = DiscoveryConfig(source_layer=base.source_layer, target_layer=base.target_layer)
    base = replace(base, steps=request.steps)
    return SweepConfig(base, request.radii, "residual", request.n_vectors, Sampling(request.new_tokens))


def default_steps(bank: VectorBank, limits: Limits) -> int:
    """The bank's own steps, within the limits."""
    return max(1, min(bank.config.steps or STEPS["fast"], limits.steps))


class WatchedEmbedder:
    """An embedder that asks whether to go on before every few texts; the embeddings are the same."""

    def __init__(self, embed: Embedder, check: Callable[[], None]) -> None:
        self._embed, self._check, self.name = embed, check, embed.name

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """As the embedder itself; equal texts are embedded once."""
        unique = list(dict.fromkeys(texts))
        rows = []
        for start in range(0, max(1, len(unique)), EMBEDDED):
            self._check()
            rows.append(self._embed(unique[start : start + EMBEDDED]))
        place = {text: i for i, text in enumerate(unique)}
        return torch.cat(rows)[[place[text] for text in texts]]


@cache
def embedder() -> Embedder:
    """The default sentence embedder, loaded when it is first used."""
    return load_embedder()


def sweep_steps(
    context: Context, bank: VectorBank, request: Request, embed: Callable[[], Embedder] = embedder
) -> JobEvents[Sweep, Sweep]:
    """Sweep; each R that is done gives a new value. Closing the iterator stops the model.

    Raises:
        MelboError: the settings do not fit the model, or time is up.
    """
    prompts = [chat(request.prompt, system_prompt(bank))]
    config = sweep_config(bank, request)

    def work(job: JobHandle[Sweep]) -> Sweep:
        loaded = watched(context.model(bank), job.check)
        embedder = WatchedEmbedder(embed(), job.check)

        def tell(sweep: Sweep) -> None:
            job.tell(JobEvent(value=sweep))
            job.check()

        return run_sweep(loaded, config, prompts, embedder, job.report, judge=judge_for(loaded), each=tell)

    return follow(work, context.lock, context.limits.seconds, embed)


def is_alike(sweep: Sweep, bank: VectorBank) -> bool:
    """Whether the sweep is of the bank's model and layers."""
    one, two = sweep.config.base, bank.config
    layers = (one.source_layer, one.target_layer) == (two.source_layer, two.target_layer)
    return layers and sweep.base_model == bank.base_model


def own_radius(sweep: Sweep | None, bank: VectorBank) -> float | None:
    """The bank's own R, in the sweep's unit; None where the sweep is of another model or other layers."""
    if sweep is None or not is_alike(sweep, bank):
        return None
    return bank.radius / (sweep.mean_residual_norm if sweep.config.unit == "residual" else 1.0)


def with_rows(sweep: Sweep | None) -> Sweep:
    """The sweep, if it holds anything.

    Raises:
        BankError: there is none yet.
    """
    if not isinstance(sweep, Sweep) or not sweep.rows:
        raise BankError("there is no sweep yet; run one first.")
    return sweep


def first_choice(sweep: Sweep) -> int:
    """Number of the row whose answers are shown first: the suggested R's, else the last."""
    found = [i for i, row in enumerate(sweep.rows) if row.radius == sweep.suggested.radius]
    return found[0] if found else len(sweep.rows) - 1


def checked_row(sweep: Sweep | None, value: Any) -> int:
    """Number of a row as the browser sends it.

    Raises:
        ConfigError: it is not in the sweep.
    """
    return whole(value, "the row", 0, len(with_rows(sweep).rows) - 1)

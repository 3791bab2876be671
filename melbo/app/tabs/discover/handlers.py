"""The Discover tab's work: settings read and bounded, a discovery followed step by step, checkpoints to go on from."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from melbo.app.cache import FolderCache
from melbo.app.choices import system_prompt
from melbo.app.context import Context, Limits
from melbo.app.conversation import MAX_CHARACTERS
from melbo.app.jobs.event import JobEvent, JobEvents
from melbo.app.jobs.worker import JobHandle, follow, watched
from melbo.app.tabs.sweep.handlers import LARGEST, whole
from melbo.bank.vector_bank import VectorBank
from melbo.config import MAX_SEED, STEPS, DiscoveryConfig
from melbo.discovery.discover import discover
from melbo.errors import BankError, ConfigError, PromptError
from melbo.prompts import Message, chat

METHODS = ("melbo", "dct", "power", "random")
METHOD_NAMES = {"melbo": "MELBO", "dct": "DCT", "power": "Power steering", "random": "Random (control)"}
MAX_PROMPTS = 8
VECTORS = 32
KEPT_SECONDS = 3_600
"""How long a stopped run can be gone on with."""
_TICKET = re.compile(r"[A-Za-z0-9_-]{16,64}")


@dataclass(frozen=True)
class Request:
    """What a visitor asks for, within the limits."""

    config: DiscoveryConfig
    prompts: tuple[tuple[Message, ...], ...]
    bank: VectorBank
    """The bank in use, whose model is searched."""

    @property
    def key(self) -> str:
        """A name for these settings."""
        text = json.dumps([self.config.to_dict(), self.prompts, asdict(self.bank.base_model)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Curve:
    """The mean objective after each step, and how long they took."""

    total: int = 0
    points: tuple[tuple[int, float], ...] = ()
    elapsed: float = 0.0

    def grown(self, events: Sequence[JobEvent[float, VectorBank]], elapsed: float) -> Curve:
        """The curve with these steps added."""
        new = tuple((event.done, event.value) for event in events if event.value is not None)
        total = next((event.total for event in reversed(events) if event.total), self.total)
        return Curve(total, (*self.points, *new), elapsed)


class Checkpoints:
    """A folder for each visitor's stopped runs, named by a random ticket; out of use for KEPT_SECONDS, it goes."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._folders = FolderCache(KEPT_SECONDS, timer)

    def path(self, ticket: str, request: Request) -> Path:
        """The visitor's checkpoint of these settings.

        Raises:
            ConfigError: the ticket is none of ours.
        """
        if not isinstance(ticket, str) or not _TICKET.fullmatch(ticket):
            raise ConfigError("this page is too old to go on; load it again.")
        return self._folders.folder(ticket) / f"{request.key}.safetensors"


def read_request(
    context: Context,
    bank: VectorBank,
    prompts: Any,
    system: Any,
    method: Any,
    source: Any,
    target: Any,
    auto: Any,
    radius: Any,
    n_vectors: Any,
    steps: Any,
    seed: Any,
) -> Request:
    """Check what the components hold.

    Args:
        bank: the bank in use.

    Raises:
        BankError: its model is not loaded.
        ConfigError, PromptError: a value is missing, malformed or beyond the limits.
    """
    limits, loaded = context.limits, context.model(bank)
    if method not in METHODS:
        raise ConfigError(f"method is {str(method)[:40]!r}; choose one of {', '.join(METHODS)}.")
    if not auto and (isinstance(radius, bool) or not isinstance(radius, (int, float)) or not 0 < radius <= LARGEST):
        raise ConfigError(f"R is {str(radius)[:40]!r}; give a number above 0, at most {LARGEST:g}.")
    config = DiscoveryConfig(
        method=method,
        n_vectors=whole(n_vectors, "the number of vectors", 1, min(limits.vectors, loaded.d_model)),
        source_layer=whole(source, "the source layer", 0, loaded.n_layers - 2),
        target_layer=whole(target, "the target layer", 1, loaded.n_layers - 1),
        radius=DiscoveryConfig().radius if auto else float(radius),
        radius_unit="auto" if auto else "residual",
        steps=0 if method == "random" else whole(steps, "the number of steps", 1, limits.steps),
        seed=whole(0 if seed is None else seed, "the seed", 0, MAX_SEED),
    )
    return Request(config.resolve(loaded.n_layers, loaded.d_model), read_prompts(prompts, system), bank)


def read_prompts(prompts: Any, system: Any) -> tuple[tuple[Message, ...], ...]:
    """One conversation for each line that is not empty.

    Raises:
        PromptError: there is none, or there are too many, or they are too long.
    """
    lines = list(dict.fromkeys(line.strip() for line in str(prompts or "").splitlines() if line.strip()))
    if not lines:
        raise PromptError("there is no prompt; write one a line.")
    if len(lines) > MAX_PROMPTS:
        raise PromptError(f"{len(lines)} prompts were given; at most {MAX_PROMPTS} are taken, one a line.")
    if sum(map(len, lines)) + len(str(system or "")) > MAX_CHARACTERS:
        raise PromptError(f"the prompts have more than {MAX_CHARACTERS:,} characters in all; shorten them.")
    return tuple(tuple(chat(line, str(system or "").strip() or None)) for line in lines)


@dataclass(frozen=True)
class Defaults:
    """What the tab starts from, for one bank's model."""

    last_layer: int
    source: int
    target: int
    most_vectors: int
    n_vectors: int
    radius: float
    """The bank's own R, in mean residual norms; less where its answers break at scale 1."""
    system: str


def defaults(bank: VectorBank, limits: Limits) -> Defaults:
    """Vectors by the width of the bank's model; layers, R and system prompt as the bank's."""
    base, most = bank.base_model, min(limits.vectors, bank.base_model.d_model)
    radius = round(min(1.0, bank.usable_scale.largest or 1.0) * bank.radius / bank.mean_residual_norm, 3)
    source, target = bank.config.source_layer or 0, bank.config.target_layer or base.n_layers - 1
    return Defaults(base.n_layers - 1, source, target, most, min(VECTORS, most), radius, system_prompt(bank))


def default_steps(method: str, most: int) -> int:
    """The method's own steps, within the limit."""
    return max(1, min(STEPS["fast" if method == "melbo" else method], most))


def discover_steps(context: Context, request: Request, checkpoint: Path) -> JobEvents[float, VectorBank]:
    """Discover; each training step gives the mean objective, and the result is the bank.

    Closing the iterator stops the model; the checkpoint stays then, and goes once there is a bank.

    Raises:
        MelboError: as in `discover`, or time is up.
    """

    def work(job: JobHandle[float]) -> VectorBank:
        prompts = [list(prompt) for prompt in request.prompts]
        loaded = watched(context.model(request.bank), job.check)
        bank = discover(loaded, request.config, prompts, job.report, checkpoint)
        checkpoint.unlink(missing_ok=True)
        return bank

    return follow(work, context.lock, context.limits.seconds)


def made_bank(context: Context, key: Any) -> VectorBank:
    """The bank of a key that a run has made.

    Raises:
        BankError: nothing was discovered yet, or it had to make room.
    """
    if not key:
        raise BankError("nothing is discovered yet; press Start.")
    return context.banks.get(key)

"""What all visitors share: the model, the banks in memory, and how much one request may ask for."""

from __future__ import annotations

import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from melbo.app.cache import Cache
from melbo.app.checkpoints.models import ModelCache
from melbo.app.jobs.device import on_device, zero_gpu
from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError
from melbo.models.load import LoadedModel

T = TypeVar("T")

DEFAULT_KEY = "default"
"""Key of the app's own bank."""


def visitors_log_in(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this is a Space whose visitors can log in, to push with their own token."""
    return bool(environ.get("SPACE_ID") and environ.get("OAUTH_CLIENT_ID"))


@dataclass(frozen=True)
class Limits:
    """The most that one request may ask for."""

    new_tokens: int = 400
    """Tokens of an answer."""
    rows: int = 41
    """Scales of a strip, and rows of any other batch."""
    radii: int = 24
    """Values of R in a sweep."""
    vectors: int = 512
    """Vectors of a new bank; in a sweep, of each R."""
    steps: int = 2_000
    """Optimiser steps."""
    seconds: int = 3_600
    """Time that one request may run."""
    banks: int = 64
    """Banks in memory, the app's own not counted."""
    bank_bytes: int = 2 * 2**30
    """Their size together."""
    models: tuple[str, ...] | None = None
    """Models that may be loaded; None: any."""
    other_models: int = 2
    """Models in memory, the app's own not counted. On ZeroGPU all of `models` are."""
    local_files: bool = True
    """Whether a visitor may name folders of this machine."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Limits:
        """Wide on one's own machine; small on a Space (SPACE_ID is set), with the models that MELBO_MODELS lists."""
        if not environ.get("SPACE_ID"):
            return cls()
        names = tuple(name.strip() for name in environ.get("MELBO_MODELS", "").split(",") if name.strip())
        seconds = 45 if zero_gpu(environ) else 60
        return cls(
            new_tokens=160,
            rows=21,
            radii=8,
            vectors=64,
            steps=100,
            seconds=seconds,
            banks=64,
            bank_bytes=256 * 2**20,
            models=names,
            local_files=False,
        )


class BankCache:
    """Banks by key. A visitor holds a key, never tensors; nobody can guess another's.

    Beyond the limits the bank that was used longest ago goes first; the app's own always stays.
    """

    def __init__(self, default: VectorBank, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._banks: Cache[str, VectorBank] = Cache(self._limits.banks, self._limits.bank_bytes, size_of)
        self._banks.keep(DEFAULT_KEY, default)

    def __len__(self) -> int:
        """Banks that were put here, without the app's own."""
        return len(self._banks)

    def get(self, key: str) -> VectorBank:
        """The bank of this key.

        Raises:
            BankError: it was never here, or had to make room.
        """
        bank = self._banks.get(key) if isinstance(key, str) else None
        if bank is None:
            raise BankError("this bank is no longer loaded; choose one under Banks & models, or make it again.")
        return bank

    def same_vectors(self, before: str, key: str) -> bool:
        """Whether one bank is a copy of the other, with other labels perhaps."""
        try:
            return self.get(before).vectors is self.get(key).vectors
        except BankError:
            return False

    def put(self, bank: VectorBank) -> str:
        """Keep a bank and return its new random key.

        Raises:
            BankError: it is larger than all banks together may be.
        """
        key = secrets.token_urlsafe(16)
        try:
            self._banks.put(key, bank)
        except ValueError as error:
            raise BankError(
                f"the bank takes {math.ceil(size_of(bank) / 2**20)} MB and this app holds "
                f"{self._limits.bank_bytes // 2**20} MB; select fewer vectors."
            ) from error
        return key


def size_of(bank: VectorBank) -> int:
    """Bytes of a bank's tensors."""
    tensors = (bank.vectors, bank.output_directions, bank.objective, bank.score)
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


@dataclass(frozen=True)
class Context:
    """What all visitors share."""

    loaded: LoadedModel
    """The app's own model."""
    banks: BankCache
    limits: Limits = field(default_factory=Limits)
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while a model runs: a cancelled run can overlap the next one by a token, and its hook with it."""
    models: ModelCache = field(init=False)
    """The app's own model and those that were loaded beside it."""

    def __post_init__(self) -> None:
        limits = self.limits
        models = ModelCache(self.loaded, limits.models, limits.other_models, limits.local_files)
        object.__setattr__(self, "models", models)

    @property
    def own_bank(self) -> VectorBank:
        """The app's own bank."""
        return self.banks.get(DEFAULT_KEY)

    def on_device(self, work: Callable[..., T], *given: Any) -> Callable[..., T]:
        """`work` with this context and what is `given` as its first arguments, on a GPU where this is ZeroGPU: see
        `jobs.device.on_device`.
        """
        return on_device(partial(work, self, *given), self.limits.seconds)

    def model(self, bank: VectorBank) -> LoadedModel:
        """The model that a bank was made for.

        Raises:
            BankError: it is not in memory, or was made for other weights.
        """
        found = self.models.find(bank.base_model)
        if found is not None:
            return found
        name = bank.base_model.id
        if self.models.named(name) is None and self.models.offers(name):
            raise BankError(f"the model {name!r} is not in memory (any more); load it under Banks & models.")
        bank.check_fits(self.models.named(name) or self.loaded)
        raise BankError(f"the bank was made for another commit of {name!r}; load it under Banks & models.")

    def within_time(self, steps: Iterable[T]) -> Iterator[T]:
        """The steps of a request, until its time is over; at least one."""
        start = time.monotonic()
        for step in steps:
            yield step
            if time.monotonic() - start > self.limits.seconds:
                return

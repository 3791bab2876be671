"""The models in memory: the app's own, which always stay, and a few that visitors asked for.

1. The name is checked: allowed here, and no folder where visitors may not name any.
2. config.json alone is read, and the model built of it without memory (torch's meta device): its blocks, its width and
   its size are known before any weights are downloaded.
3. Models that nobody has used for longest leave, if that makes the room that is needed.
4. The weights are loaded, one model at a time. A run in progress keeps the model it runs on.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from melbo.app.cache import Cache
from melbo.app.checkpoints.plan import Plan, look, read_weights, weights_of
from melbo.bank.facts import BaseModel, check_base
from melbo.errors import BankError, MelboError, MemoryLimitError, ModelError
from melbo.hub.client import check_repo
from melbo.models.gguf import is_gguf
from melbo.models.load import LoadedModel
from melbo.models.packaged import canonical, packaged
from melbo.organism.inputs import ORGANISM
from melbo.runs.free_memory import free_bytes, gigabytes
from melbo.runs.progress import OnProgress, notify

ROOM = 1.2
"""Bytes needed for a byte of weights: loading and a first answer take some more than they do."""


class ModelCache:
    """Models by the bank that was made for them.

    Args:
        own: the app's model; it never leaves.
        allowed: models that may be loaded; None: any.
        held: most models beside the app's own.
        folders: whether folders of this machine may be named.
    """

    def __init__(
        self, own: LoadedModel, allowed: Sequence[str] | None = None, held: int = 2, folders: bool = True
    ) -> None:
        self._models: Cache[tuple[str, str | None], LoadedModel] = Cache(held, size=weights_of)
        self._models.keep((own.name, own.revision), own)
        self._allowed, self._held, self._folders = allowed, held, folders
        self._fixed = False
        self._loading = threading.Lock()

    def loaded(self) -> list[LoadedModel]:
        """All models in memory, the app's own first."""
        return self._models.values()

    def find(self, base: BaseModel) -> LoadedModel | None:
        """The model in memory that a bank for `base` runs on: of the same commit, or one of those kept that has its
        name and shape; None where there is none.
        """
        fitting = [loaded for loaded in self.loaded() if _fits(base, loaded)]
        for loaded in sorted(fitting, key=lambda loaded: loaded.revision != base.revision):  # a stable sort
            same = base.revision == loaded.revision or None in (base.revision, loaded.revision)
            if same or loaded in self._models.kept():
                self._models.get((loaded.name, loaded.revision))  # it is in use now
                return loaded
        return None

    def named(self, name: str) -> LoadedModel | None:
        """A model in memory by its name."""
        return next((loaded for loaded in self.loaded() if loaded.name == canonical(name)), None)

    def offers(self, name: str | None) -> bool:
        """Whether `load` would try this name."""
        try:
            self.check(name)
        except MelboError:
            return False
        return True

    def choices(self) -> list[str]:
        """Names that may be loaded, as far as they are known; those in memory first."""
        return list(dict.fromkeys([*(loaded.name for loaded in self.loaded()), *(self._allowed or ())]))

    def check(self, name: Any) -> None:
        """Raise ModelError or HubError unless this name may be loaded here."""
        if isinstance(name, str) and self.named(name) is not None:
            return
        if not isinstance(name, str) or not name.strip():
            raise ModelError("no model is named; give one as user/model.")
        if self._allowed is not None and canonical(name) not in map(canonical, self._allowed):
            known = ", ".join(self.choices())
            raise ModelError(f"{name[:60]!r} is not loaded here and may not be; this app has {known}.")
        if name == ORGANISM or packaged(name) is not None:
            return
        if Path(name).is_dir() or (is_gguf(name) and Path(name).is_file()):
            if not self._folders:
                raise ModelError(f"{name[:60]!r} is of this machine; this app loads models of the Hub.")
            return
        check_repo(name)

    def load(
        self,
        name: str,
        revision: str | None = None,
        base: BaseModel | None = None,
        on_progress: OnProgress | None = None,
    ) -> LoadedModel:
        """The model of this name: from memory, or else from the Hub or a folder. One is loaded at a time.

        Args:
            revision: branch, tag or commit on the Hub; None: any that is in memory, else main.
            base: what it must be.
            on_progress: called with what happens now; an exception from it cancels.

        Raises:
            MelboError: it may not be loaded, is gated, missing, not a language model with blocks, or too large.
        """
        self.check(name)
        name = canonical(name)
        if self._fixed and (kept := self.named(name)) is not None:
            return kept
        while not self._loading.acquire(timeout=0.25):
            notify(on_progress, 0, 0, "Another model is being loaded first")
        try:
            held = self._in_memory(name, revision)
            if held is not None:
                return held
            notify(on_progress, 0, 0, f"Looking at {name}")
            plan = look(name, revision)
            if base is not None and (plan.d_model, plan.n_layers) != (base.d_model, base.n_layers):
                raise BankError(
                    f"the bank was made for a model of {base.n_layers} blocks and d_model {base.d_model}, but {name!r} "
                    f"has {plan.n_layers} and {plan.d_model}."
                )
            self._make_room(plan)
            notify(on_progress, 0, 0, f"Loading {plan}")
            loaded = read_weights(plan)
            self._models.put((loaded.name, loaded.revision), loaded)
            return loaded
        finally:
            self._loading.release()

    def load_all(self, names: Sequence[str]) -> None:
        """Load these, keep them, and load no other from now on: what ZeroGPU asks for.

        Raises:
            MelboError: as `load`.
        """
        found = [self.named(name) or read_weights(look(name)) for name in names]
        for loaded in found:
            self._models.keep((loaded.name, loaded.revision), loaded)
        self._allowed, self._fixed = tuple(loaded.name for loaded in self._models.kept()), True

    def _in_memory(self, name: str, revision: str | None) -> LoadedModel | None:
        named = [m for m in self.loaded() if m.name == name and (revision in (None, m.revision) or m.revision is None)]
        if named:
            self._models.get((name, named[0].revision))  # it is in use now
        return named[0] if named else None

    def _make_room(self, plan: Plan) -> None:
        """Let models go, oldest first, until this one has room.

        Raises:
            MemoryLimitError: it has none, even alone.
        """
        needed = int(plan.bytes * ROOM)
        free = free_bytes()
        if free + self._models.bytes < needed:
            raise MemoryLimitError(
                f"{plan.name!r} needs about {gigabytes(needed)} of memory, and {gigabytes(free)} are free; choose a "
                "smaller model."
            )
        while len(self._models) and (free < needed or len(self._models) >= self._held):
            free += weights_of(self._models.pop_oldest())
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _fits(base: BaseModel, loaded: LoadedModel) -> bool:
    try:
        check_base(base, loaded, "bank was")
    except BankError:
        return False
    return True

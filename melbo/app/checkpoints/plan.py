"""What a model is before its weights are read, and then the weights."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from huggingface_hub import constants

from melbo.errors import HubError, MemoryLimitError, ModelError
from melbo.hub.client import download
from melbo.hub.errors import short
from melbo.models import gguf
from melbo.models.cpu_dtype import cpu_dtype
from melbo.models.load import LoadedModel, find_blocks, load_model
from melbo.models.packaged import packaged, weights_folder
from melbo.models.shipped import shipped_models
from melbo.runs.free_memory import gigabytes


@dataclass(frozen=True)
class Plan:
    """What loading a model would bring."""

    name: str
    revision: str | None
    """Commit on the Hub."""
    parameters: int
    bytes: int
    """Of its weights in memory."""
    d_model: int
    n_layers: int

    def __str__(self) -> str:
        return f"{self.name}, {self.parameters:,} parameters, {gigabytes(self.bytes)}"


def weights_of(loaded: LoadedModel) -> int:
    """Bytes of a model's parameters."""
    return sum(p.numel() * p.element_size() for p in loaded.model.parameters())


def look(name: str, revision: str | None = None) -> Plan:
    """What a model is, from its config.json alone.

    Raises:
        HubError: it is gated, missing, or has no such revision, or the Hub cannot be reached.
        ModelError: it is no causal language model, or its blocks are not found.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    known = packaged(name)
    folder, commit = shipped_models().get(name, Path(name)), None
    if known is not None and (made := weights_folder(known, revision)) is not None:
        folder = made
    elif gguf.is_gguf(name) and folder.is_file():
        folder = gguf.converted(folder)
    if not folder.is_dir():
        # The token is this machine's own login (on a Space its owner's, who chose the models that it lists). A
        # visitor's token is never used: the weights that it opens would then serve everybody here.
        try:
            folder, commit = download(name, ["config.json"], revision=revision)
        except HubError as error:
            if not constants.HF_HUB_OFFLINE:
                raise
            raise HubError(
                f"{name!r} is not on this machine and this app is offline; restart with HF_HUB_OFFLINE=0."
            ) from error
    if not (folder / "config.json").is_file():
        raise ModelError(f"{name!r} holds no model: it has no config.json.")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        cuda = torch.cuda.is_available()
        stored = (getattr(config, "dtype", None) or torch.float32) if cuda else cpu_dtype(config)
        with torch.device("meta"):
            # In float32: another type would be torch's default for all threads meanwhile, also for running answers.
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    except Exception as error:  # foreign files: the libraries raise bare Exception on some damaged ones
        if "trust_remote_code" in str(error):
            raise ModelError(f"{name!r} brings code of its own, which is not run here.") from error
        raise ModelError(f"{name!r} is no causal language model that this app knows.") from error
    try:
        blocks = find_blocks(model)
    except ModelError as error:  # it names a setting that the app does not have
        raise ModelError(f"{name!r}: the blocks of {type(model).__name__} are not where this app looks.") from error
    count = sum(p.numel() for p in model.parameters())
    width = int(config.get_text_config().hidden_size)
    return Plan(name, commit, count, count * stored.itemsize, width, len(blocks))


def read_weights(plan: Plan) -> LoadedModel:
    """The weights.

    Raises:
        ModelError, MemoryLimitError: they cannot be loaded.
    """
    try:
        loaded = load_model(plan.name, revision=plan.revision)
        return loaded if plan.revision is None else replace(loaded, revision=plan.revision)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _no_room(plan) from error
    except ModelError as error:
        if isinstance(error.__cause__, (MemoryError, torch.OutOfMemoryError)):
            raise _no_room(plan) from error
        raise ModelError(short(error) + ".") from error


def _no_room(plan: Plan) -> MemoryLimitError:
    return MemoryLimitError(f"there is no room for {plan.name!r} ({gigabytes(plan.bytes)}); choose a smaller model.")

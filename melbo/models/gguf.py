"""GGUF files as models: read once through transformers, and kept as a bf16 checkpoint in the user's cache.

transformers takes 15 seconds or more to read a GGUF, most of them for the tokenizer, and a model read so counts as
quantised. The checkpoint in the cache is an ordinary one: a config, bf16 safetensors and the tokenizer.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from melbo.errors import ModelError
from melbo.models.identity import sampled
from melbo.runs.files import json_text
from melbo.runs.free_memory import gigabytes
from melbo.runs.optional import needs

SUFFIX = ".gguf"
MARK = "converted.json"
"""Written last: the GGUF's digest, and the size of each file of the checkpoint."""
READ_WHOLE = 2**30
"""Bytes up to which a file's digest reads all of it."""
_BYTES = 2
"""Of a weight in bf16."""
_DIGITS = ("smollm", "refact", "starcoder", "command-r", "codeshell")
"""Pre-tokenizers (`tokenizer.ggml.pre`) that part numbers into digits, which transformers' reader leaves out."""


def is_gguf(name: str) -> bool:
    """Whether a model's name is that of a GGUF file."""
    return name.lower().endswith(SUFFIX)


def cache_folder() -> Path:
    """Where checkpoints are kept: in Hugging Face's own cache (HF_HOME, else XDG_CACHE_HOME, else ~/.cache)."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "melbo" / "gguf"


def kept(path: Path) -> Path | None:
    """The checkpoint that was made of a GGUF file before; None: there is none, or it is damaged."""
    if not path.is_file():
        return None
    digest = _digest(path)
    folder = _folder(path, digest)
    return folder if _is_whole(folder, digest) else None


def converted(path: Path) -> Path:
    """The folder of the checkpoint that a GGUF file holds; made where the cache lacks it.

    Two processes may convert the same file at once: the first to end is kept. Nothing is left half-written.

    Raises:
        ModelError: the file is missing, cut or damaged, of an architecture that transformers does not read, or without
            tokenizer; or the cache has no room for it or cannot be written.
        MissingPackageError: the package gguf is not installed.
    """
    if not path.is_file():
        raise ModelError(f"there is no file {path}; give the path of a GGUF file, a folder or a Hub id.")
    digest = _digest(path)
    folder = _folder(path, digest)
    if _is_whole(folder, digest):
        return folder
    with _read_once():
        weights, digits = _check(path)
        return _make(path, folder, digest, weights, digits)


def _make(path: Path, folder: Path, digest: str, weights: int, digits: bool) -> Path:
    """Convert a file that was checked, of so many weights, and give the checkpoint its name."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        free, wanted = shutil.disk_usage(folder.parent).free, int(1.05 * _BYTES * weights) + 2**24
        if free < wanted:
            raise ModelError(
                f"{path.name} takes {gigabytes(wanted)} as a checkpoint, and {folder.parent} has {gigabytes(free)} "
                "free; make room, or name another place with HF_HOME."
            )
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            _convert(path, temporary, digits)
            sizes = {file.name: file.stat().st_size for file in sorted(temporary.iterdir())}
            (temporary / MARK).write_text(json_text({"digest": digest, "files": sizes}), encoding="utf-8")
            temporary.chmod(0o755)
            _put(temporary, folder, digest)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise ModelError(
            f"the checkpoint of {path.name} cannot be written to {folder.parent} ({error.strerror or error}); make "
            "room, or name another place with HF_HOME."
        ) from error
    return folder


def weights_id(folder: Path) -> str | None:
    """ "sha256:..." of the GGUF file that a checkpoint was made of; None: it was made of none."""
    try:
        digest = str(json.loads((folder / MARK).read_text(encoding="utf-8"))["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return f"sha256:{digest[:16]}"


def _folder(path: Path, digest: str) -> Path:
    return cache_folder() / f"{path.stem[:64]}-{digest[:16]}"


def _put(temporary: Path, folder: Path, digest: str) -> None:
    """Give the new checkpoint its name, unless another process was first."""
    if folder.exists() and not _is_whole(folder, digest):
        shutil.rmtree(folder)
    try:
        os.rename(temporary, folder)
    except OSError:
        if not _is_whole(folder, digest):
            raise


def _is_whole(folder: Path, digest: str) -> bool:
    try:
        mark: Any = json.loads((folder / MARK).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in mark["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(mark["digest"] == digest and mark["files"] == sizes)


def _digest(path: Path) -> str:
    """Of the file's bytes; of a large file's size and samples of it, as reading all would take longer than loading."""
    if (size := path.stat().st_size) > READ_WHOLE:
        return hashlib.sha256(b"".join([f"{size} ".encode(), *sampled(path)])).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(path: Path) -> tuple[int, bool]:
    """How many weights the file holds, and whether its tokenizer parts numbers into digits.

    Raises:
        ModelError: it is no GGUF, cut short, of an unknown architecture, or has no tokenizer.
    """
    import gguf
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING
    from transformers.integrations.gguf import GGUF_CONFIG_ARCHS

    try:
        reader = gguf.GGUFReader(str(path))
        fields = {name: field for name, field in reader.fields.items() if not name.startswith("tokenizer.ggml.tok")}
        architecture = str(fields["general.architecture"].contents())
        weights = sum(int(tensor.n_elements) for tensor in reader.tensors)
        pre = fields["tokenizer.ggml.pre"].contents() if "tokenizer.ggml.pre" in fields else ""
        has_tokenizer = "tokenizer.ggml.tokens" in reader.fields
    except Exception as error:  # the package gguf raises whatever reading past the end or a wrong count gives
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ModelError(f"{path} is damaged, cut short or no GGUF file ({reason}); download it again.") from error
    known = sorted({*GGUF_CONFIG_MAPPING, *GGUF_CONFIG_ARCHS} - {"general", "tokenizer"})
    if _plain(architecture) not in map(_plain, known):
        raise ModelError(
            f"{path.name} is of the architecture {architecture[:40]!r}, which transformers does not read from GGUF; it "
            f"reads {', '.join(known)}."
        )
    if not has_tokenizer:
        raise ModelError(f"{path.name} holds no tokenizer; give a GGUF file of a whole model.")
    return weights, pre in _DIGITS


def _convert(path: Path, folder: Path, digits: bool) -> None:
    """Write config, weights and tokenizer of a GGUF file into an empty folder."""
    import torch
    from tqdm import tqdm
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    loader: Any = AutoModelForCausalLM
    bar = tqdm(total=3, desc=f"Reading {path.name}, once", unit="part", leave=False)
    try:
        with _quiet(), bar:
            tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            bar.update()
            read = loader.from_pretrained(
                path.parent, gguf_file=path.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
            )
            bar.update()
            if digits:
                _part_digits(tokenizer)
            config = read.config
            for name in ("quantization_config", "_pre_quantization_dtype"):
                if hasattr(config, name):
                    delattr(config, name)
            config.dtype = torch.bfloat16
            with torch.device("meta"):  # the model that was read counts as quantised, and is not saved
                plain = type(read)(config)
            plain.load_state_dict(read.state_dict(), assign=True)
            plain.tie_weights()
            plain.generation_config.eos_token_id = tokenizer.eos_token_id
            plain.generation_config.pad_token_id = tokenizer.pad_token_id
            _save(plain, tokenizer, folder)
            bar.update()
    except (OSError, MemoryError):
        raise
    except Exception as error:  # foreign files: the libraries raise bare Exception on some damaged ones
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"transformers cannot read {path.name}: {reason}") from error


def _plain(architecture: str) -> str:
    """Files write "qwen3moe" and "gpt-oss", transformers "qwen3_moe" and "gpt_oss"."""
    return architecture.replace("-", "").replace("_", "")


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    from safetensors import SafetensorError

    try:
        model.save_pretrained(folder)
    except SafetensorError as error:  # among others of a full disk
        raise OSError(str(error)) from error
    tokenizer.save_pretrained(folder)


def _part_digits(tokenizer: Any) -> None:
    from tokenizers import pre_tokenizers

    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


@contextmanager
def _read_once() -> Iterator[None]:
    """Within the block, a file's head is read once, not at each of transformers' five looks at it, and its names of
    tensors are listed once, not once a module: three quarters of the time (gguf 0.19, transformers 5.23).
    """
    with needs("formats"):
        import gguf

    library: Any = gguf
    reader, names = library.GGUFReader, library.get_tensor_name_map

    class Reader(gguf.GGUFReader):
        """Slices a plain array, in a fifth of the time that numpy takes for slices of a memory map."""

        @property
        def data(self) -> Any:
            """The file's bytes."""
            return self._bytes

        @data.setter
        def data(self, value: Any) -> None:
            self._bytes = np.asarray(value)

    library.GGUFReader, library.get_tensor_name_map = cache(Reader), cache(names)
    try:
        yield
    finally:
        library.GGUFReader, library.get_tensor_name_map = reader, names


@contextmanager
def _quiet() -> Iterator[None]:
    """Within the block, transformers shows no bar and says errors alone."""
    from transformers import modeling_gguf_pytorch_utils as reader
    from transformers.utils import logging as reports

    bar: Any = reader.tqdm  # one that no setting switches off
    reader.tqdm = partial(bar, disable=True)
    shown, level = reports.is_progress_bar_enabled(), reports.get_verbosity()
    reports.disable_progress_bar()
    reports.set_verbosity_error()
    try:
        yield
    finally:
        reader.tqdm = bar
        reports.set_verbosity(level)
        if shown:
            reports.enable_progress_bar()

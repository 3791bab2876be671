"""Plain arrays: .npy and .safetensors, of one mixture [d_model] or of all a bank's vectors [n, d_model], float32.

A .npy file says nothing but numbers. The .safetensors file holds the tensor "vectors" and, as metadata under the key
"melbo", JSON with the source layer and the model; one key, so that the same vectors give the same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from melbo.formats.writers.new_file import write_new

KEY = "melbo"


def export_npy(vectors: Tensor, path: str | Path) -> Path:
    """Write vectors [d_model] or [n, d_model] as they are.

    Raises:
        ExportError: `path` exists.
    """

    def write(file: Path) -> None:
        with file.open("wb") as stream:
            np.save(stream, vectors.contiguous().numpy(), allow_pickle=False)

    return write_new(path, write)


def export_safetensors(vectors: Tensor, path: str | Path, layer: int, model: str) -> Path:
    """Write vectors [d_model] or [n, d_model] that belong to the output of block `layer` of `model`.

    Raises:
        ExportError: `path` exists.
    """
    about = json.dumps({"source_layer": layer, "base_model": model}, sort_keys=True)
    return write_new(path, lambda file: save_file({"vectors": vectors.contiguous()}, str(file), metadata={KEY: about}))

"""Plain arrays, float32: .npy and .safetensors, of one mixture or of all a bank's vectors; .svec, of one mixture.

.npy: nothing but the numbers, [d_model] or [n, d_model].
.safetensors: the tensor "vectors" and, as metadata under the key "melbo", JSON with the source layer and the model; one
key, so that the same vectors give the same bytes.
.svec, IBM's activation-steering: JSON {"model_type", "directions": {layer: [numbers]}, "explained_variances"}. That
library adds direction L to the *input* of block L, which is the output of block L - 1: our source layer s is written as
s + 1. It fits a vector per layer and stores the variance that each explains; ours has no such number, so that map is
empty. https://github.com/IBM/activation-steering (leash_layer.py, steering_vector.py)
All raise ExportError where there is something at `path` already.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from melbo.formats.mixture import Mixture
from melbo.formats.writers.new_file import write_new

KEY = "melbo"


def export_npy(vectors: Tensor, path: str | Path) -> Path:
    """Write vectors [d_model] or [n, d_model] as they are."""

    def write(file: Path) -> None:
        with file.open("wb") as stream:
            np.save(stream, vectors.contiguous().numpy(), allow_pickle=False)

    return write_new(path, write)


def export_safetensors(vectors: Tensor, path: str | Path, layer: int, model: str) -> Path:
    """Write vectors [d_model] or [n, d_model] that belong to the output of block `layer` of `model`."""
    about = json.dumps({"source_layer": layer, "base_model": model}, sort_keys=True)
    return write_new(path, lambda file: save_file({"vectors": vectors.contiguous()}, str(file), metadata={KEY: about}))


def export_svec(mixture: Mixture, path: str | Path) -> Path:
    """Write a .svec file; `steer` it with behavior_layer_ids=[layer + 1] and strength 1."""
    directions = {str(mixture.layer + 1): mixture.vector.tolist()}
    value = {"model_type": mixture.model, "directions": directions, "explained_variances": {}}
    text = json.dumps(value, allow_nan=False)
    return write_new(path, lambda file: file.write_text(text, encoding="utf-8"))

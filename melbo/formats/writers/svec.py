"""IBM activation-steering's .svec: JSON {"model_type", "directions": {layer: [numbers]}, "explained_variances"}.

That library adds direction L to the *input* of block L, which is the output of block L - 1: our source layer s is
written as s + 1. It fits a vector per layer and stores the variance that each explains; ours has no such number, so
that map is empty. https://github.com/IBM/activation-steering (leash_layer.py, steering_vector.py)
"""

from __future__ import annotations

import json
from pathlib import Path

from melbo.formats.mixture import Mixture
from melbo.formats.writers.new_file import write_new


def export_svec(mixture: Mixture, path: str | Path) -> Path:
    """Write a .svec file; `steer` it with behavior_layer_ids=[layer + 1] and strength 1.

    Raises:
        ExportError: `path` exists.
    """
    text = json.dumps(
        {
            "model_type": mixture.model,
            "directions": {str(mixture.layer + 1): mixture.vector.tolist()},
            "explained_variances": {},
        },
        allow_nan=False,
    )

    def write(file: Path) -> None:
        file.write_text(text, encoding="utf-8")

    return write_new(path, write)

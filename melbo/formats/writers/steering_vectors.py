"""steering-vectors: a mixture as its SteeringVector, for `with vector.apply(model): ...`.

The library numbers blocks as we do ("decoder_block") and adds to their outputs. It has no file format of its own.
https://github.com/steering-vectors/steering-vectors
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from melbo.errors import ExportError
from melbo.formats.mixture import Mixture


def to_steering_vector(mixture: Mixture) -> Any:
    """steering_vectors.SteeringVector with one layer's activation.

    Raises:
        ExportError: steering-vectors cannot be imported.
    """
    try:
        vector_type = import_module("steering_vectors").SteeringVector
    except ImportError as error:
        raise ExportError(
            f"steering-vectors cannot be imported ({error}); run: pip install steering-vectors"
        ) from error
    return vector_type(layer_activations={mixture.layer: mixture.vector.clone()}, layer_type="decoder_block")

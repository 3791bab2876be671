"""A mixture as an object of another library, which is not a dependency of melbo. Both number blocks as we do.

repeng: for `repeng.ControlModel(model, [mixture.layer]).set_control(vector)`. https://github.com/vgel/repeng
steering-vectors: for `with vector.apply(model): ...`; it has no file format of its own.
https://github.com/steering-vectors/steering-vectors
"""

from importlib import import_module
from typing import Any

from melbo.errors import ExportError
from melbo.formats.mixture import Mixture


def to_repeng(mixture: Mixture, model_type: str) -> Any:
    """repeng.ControlVector with one direction, added to the block's output.

    Args:
        model_type: `model.config.model_type`, which repeng compares when vectors are added.

    Raises:
        ExportError: repeng cannot be imported: it is missing, or is too old for the installed numpy.
    """
    try:
        vector_type = import_module("repeng").ControlVector
    except (ImportError, AttributeError) as error:
        raise ExportError(
            f"repeng cannot be imported ({error}); install it, with numpy < 2 for repeng 0.4, or export a file."
        ) from error
    return vector_type(model_type=model_type, directions={mixture.layer: mixture.vector.numpy().copy()})


def to_steering_vector(mixture: Mixture) -> Any:
    """steering_vectors.SteeringVector with one layer's activation, added to the block's output.

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

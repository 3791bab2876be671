"""repeng: a mixture as its ControlVector, for repeng.ControlModel(model, [mixture.layer]).set_control(vector).

repeng numbers blocks as we do and adds to their outputs. https://github.com/vgel/repeng
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from melbo.errors import ExportError
from melbo.formats.mixture import Mixture


def to_repeng(mixture: Mixture, model_type: str) -> Any:
    """repeng.ControlVector with one direction.

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

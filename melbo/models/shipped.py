"""Models and SAEs that travel with this package; `load_model` and `load_sae` take their names.

A model is a folder melbo/NAME/weights with a config.json, its SAE a folder melbo/NAME/sae with a cfg.json.
"""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def shipped_models() -> dict[str, Path]:
    """Folders of weights by the model's name."""
    return {path.parents[1].name: path.parent for path in sorted(PACKAGE.glob("*/weights/config.json"))}


def shipped_saes() -> dict[str, Path]:
    """Folders of SAEs by the name of the model that each is for."""
    return {path.parents[1].name: path.parent for path in sorted(PACKAGE.glob("*/sae/cfg.json"))}

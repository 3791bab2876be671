"""Where an SAE's files are: a folder, the Hub, or this package."""

from __future__ import annotations

import os
import re
from pathlib import Path

from melbo.errors import HubError, SaeError
from melbo.hub.client import download
from melbo.models.shipped import shipped_saes

CONFIG = "cfg.json"
WEIGHTS = ("sae_weights.safetensors", "sae.safetensors")
"""Of SAELens and of sparsify."""
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def find_folder(source: str | Path, inside: str = "", layer: int | None = None) -> Path:
    """The local folder of one SAE; downloads it if `source` is on the Hub."""
    shipped = {} if os.path.isdir(source) else shipped_saes()
    root = shipped.get(str(source), Path(source))
    if not os.path.isdir(root):
        if _HUB_NAME.fullmatch(str(source)) and not os.path.exists(root):
            return _download(str(source), inside)
        raise SaeError(
            f"there is no SAE at {str(source)!r}; give a folder, a Hub repository owner/name, or "
            f"{' or '.join(map(repr, shipped))}."
        )
    choices = [root / inside] if inside else [root, root / f"layers.{layer}"]
    for folder in choices:
        if (folder / CONFIG).is_file():
            return folder
    near = sorted(path.parent.relative_to(root).as_posix() for path in root.glob(f"*/{CONFIG}"))
    hint = f"it has {', '.join(near[:12])}: name one" if near else "choose a folder that an SAE was saved to"
    raise SaeError(f"{choices[0]} holds no SAE (no {CONFIG}); {hint}.")


def _download(repo: str, inside: str) -> Path:
    """The folder in the cache, with the SAE's config and weights, and sparsify's config.json, which names the model."""
    inside = inside.strip("/")
    if any(mark in inside for mark in "*?["):
        raise SaeError(f"{inside!r} is no folder of an SAE; give its name, such as 'layers.10'.")
    head = f"{inside}/" if inside else ""
    files = [f"{head}{name}" for name in (CONFIG, *WEIGHTS)] + (["config.json"] if inside else [])
    try:
        root, _ = download(repo, files)
    except HubError as error:
        raise SaeError(f"the SAE {repo!r} cannot be downloaded: {error}") from error
    folder = root / inside
    if not (folder / CONFIG).is_file():
        raise SaeError(
            f"{repo} on the Hub holds no SAE in {head or 'its main folder'} (no {CONFIG}); name the folder within the "
            "repository, such as 'layers.10'."
        )
    return folder

"""Where an SAE's files are: a folder, the Hub, or this package."""

from __future__ import annotations

import os
import re
from pathlib import Path

from melbo.errors import SaeError

CONFIG = "cfg.json"
WEIGHTS = ("sae_weights.safetensors", "sae.safetensors")
"""Of SAELens and of sparsify."""
ORGANISM_SAE = Path(__file__).parent.parent / "organism" / "sae"
"""The embedded model's SAE; its name for `load_sae` is "organism"."""
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def find_folder(source: str | Path, inside: str = "", layer: int | None = None) -> Path:
    """The local folder of one SAE; downloads it if `source` is on the Hub."""
    root = ORGANISM_SAE if str(source) == "organism" and not os.path.isdir(source) else Path(source)
    if not os.path.isdir(root):
        if _HUB_NAME.fullmatch(str(source)) and not os.path.exists(root):
            return _download(str(source), inside)
        raise SaeError(
            f"there is no SAE at {str(source)!r}; give a folder, a Hub repository owner/name, or 'organism'."
        )
    choices = [root / inside] if inside else [root, root / f"layers.{layer}"]
    for folder in choices:
        if (folder / CONFIG).is_file():
            return folder
    near = sorted(path.parent.relative_to(root).as_posix() for path in root.glob(f"*/{CONFIG}"))
    hint = f"it has {', '.join(near[:12])}: name one" if near else "choose a folder that an SAE was saved to"
    raise SaeError(f"{choices[0]} holds no SAE (no {CONFIG}); {hint}.")


def _download(repo: str, inside: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    head = f"{inside.strip('/')}/" if inside.strip("/") else ""
    try:
        folder = Path(hf_hub_download(repo, f"{head}{CONFIG}")).parent
        try:
            hf_hub_download(repo, f"{head}{WEIGHTS[0]}")
        except EntryNotFoundError:
            hf_hub_download(repo, f"{head}{WEIGHTS[1]}")
    except (HfHubHTTPError, EntryNotFoundError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SaeError(
            f"cannot get {head}{CONFIG} and its weights from {repo!r} on the Hub ({reason}); "
            'name the folder within the repository, such as "layers.10".'
        ) from error
    return folder

"""The tab Banks & models: banks in this app's folder and on the Hub, facts about the model and the device. No gradio.

A visitor names a bank of the list, never a path: names are looked up in the listing of one folder. A repository's name
that is also a path on this machine is refused, so that nothing but that folder and the Hub can be read.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants

from melbo.bank import VectorBank
from melbo.bank.listing import BankInfo, list_hub, list_local
from melbo.errors import BankError, HubError
from melbo.hub import check_repo
from melbo.models import ORGANISM, LoadedModel
from melbo.ui.context import Context

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
"""Folder of the curated banks; missing in an installed package, which has none."""
MAX_HUB = 50
MAX_NAME = 200
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")


def local_banks(folder: Path = VECTORS) -> list[BankInfo]:
    """The curated banks, named by their folder's name alone."""
    return [replace(info, name=Path(info.name).name) for info in list_local(folder)]


def hub_banks(context: Context) -> list[BankInfo]:
    """Banks on the Hub, most downloaded first; on a Space, public ones only.

    Raises:
        HubError: the Hub cannot be reached.
    """
    if constants.HF_HUB_OFFLINE:
        raise HubError("this app runs offline; start it with HF_HUB_OFFLINE=0 to look on the Hub.")
    return list_hub(limit=MAX_HUB, token=_token(context))


def load_local(context: Context, name: Any, folder: Path = VECTORS) -> VectorBank:
    """A curated bank by its folder's name.

    Raises:
        BankError: it is not in the list, damaged, or made for another model.
    """
    names = [info.name for info in local_banks(folder)]
    if not isinstance(name, str) or name not in names:
        raise BankError(f"{str(name)[:60]!r} is no bank of this app; choose one of the list.")
    bank = VectorBank.load(folder / name)
    bank.check_fits(context.loaded)
    return bank


def load_hub(context: Context, repo: Any, revision: Any) -> VectorBank:
    """A bank on the Hub by its repository and revision; on a Space, a public one.

    Raises:
        HubError: a name is malformed, or the Hub refuses or cannot be reached.
        BankError: the repository holds no bank, or one for another model.
    """
    name, branch = str(repo or "").strip()[: MAX_NAME + 1], str(revision or "").strip()[:MAX_NAME]
    check_repo(name)
    if Path(name).exists():
        raise HubError(f"{name!r} is also a folder here; choose it from the list, or name another repository.")
    if branch and (not _REVISION.fullmatch(branch) or ".." in branch):
        raise HubError(f"{branch[:60]!r} is no revision; give a branch, a tag or a commit.")
    bank = VectorBank.from_pretrained(name, revision=branch or None, token=_token(context))
    bank.check_fits(context.loaded)
    return bank


def model_facts(loaded: LoadedModel) -> list[tuple[str, str]]:
    """Pairs (name, value) about the model in use."""
    config = loaded.model.config.get_text_config()
    count = sum(p.numel() for p in loaded.model.parameters())
    revision = loaded.revision or "unknown"
    return [
        ("Model", f"{loaded.name} (a tiny test model, not an assistant)" if loaded.name == ORGANISM else loaded.name),
        ("Revision", revision if revision.startswith("sha256:") else revision[:12]),
        ("Architecture", str(getattr(config, "model_type", "unknown"))),
        ("Parameters", _count(count)),
        ("Blocks", str(loaded.n_layers)),
        ("Width (d_model)", f"{loaded.d_model:,}"),
        ("Context", f"{loaded.context:,} tokens"),
        ("Precision", str(loaded.model.dtype).removeprefix("torch.")),
    ]


def device_facts(context: Context) -> list[tuple[str, str]]:
    """Pairs (name, value) about what the app runs on and holds."""
    device = context.loaded.device
    facts = [("Device", _device_name(device))]
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        facts.append(("Memory", f"{free / 2**30:.1f} of {total / 2**30:.1f} GB free"))
    else:
        facts.append(("Threads", str(torch.get_num_threads())))
    facts.append(("Weights", f"{_weights(context.loaded) / 2**20:,.0f} MB"))
    facts.append(("Banks in memory", f"{len(context.banks) + 1}, this app's own among them"))
    facts.append(("PyTorch", torch.__version__))
    if context.limits.models:
        facts.append(("Models allowed here", ", ".join(context.limits.models)))
    return facts


def downloaded_models(context: Context) -> list[str]:
    """Repositories in the Hub's cache on this machine, by name; none where visitors may not see its files."""
    folder = Path(constants.HF_HUB_CACHE)
    if not context.limits.local_files or not folder.is_dir():
        return []
    found = (path.name.removeprefix("models--").replace("--", "/") for path in folder.glob("models--*"))
    return sorted(found)[:100]


def fits(info: BankInfo, loaded: LoadedModel) -> bool:
    """Whether the listing's bank may be for this model; the Hub's listings do not tell all."""
    return info.problem is None and info.base_model in (None, loaded.name)


def usable_names(infos: Sequence[BankInfo], loaded: LoadedModel) -> list[str]:
    """Names of the banks that fit, in order."""
    return [info.name for info in infos if fits(info, loaded)]


def _token(context: Context) -> Any:
    """None: this machine's own login. False: none, so that a Space's visitors do not read what only its owner may."""
    return None if context.limits.local_files else False


def _count(count: int) -> str:
    for size, unit in ((1e9, " billion"), (1e6, " million")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:,}"


def _weights(loaded: LoadedModel) -> int:
    return sum(p.numel() * p.element_size() for p in loaded.model.parameters())


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()})" if device.type == "cpu" else str(device)

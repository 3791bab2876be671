"""GGUF files as models: the same logits as the model they were written from, kept once, and refused where damaged."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from melbo.bank.vector_bank import VectorBank
from melbo.config import DiscoveryConfig
from melbo.discovery.discover import discover
from melbo.errors import ModelError
from melbo.models import gguf
from melbo.models.load import load_model
from melbo.prompts import BOMB, chat, encode
from support.gguf_files import FAMILIES, random_model, write_gguf


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(gguf, "cache_folder", lambda: folder)
    return folder


@pytest.fixture
def llama(tmp_path: Path, tokenizer: Any) -> Path:
    return write_gguf(tmp_path / "llama.gguf", random_model("llama", tokenizer), tokenizer, "llama")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_gives_the_models_logits_and_chat_tokens(family: str, tokenizer: Any, tmp_path: Path) -> None:
    model = random_model(family, tokenizer)
    for weight in model.parameters():
        weight.data = weight.data.bfloat16().float()  # what the checkpoint keeps
    path = write_gguf(tmp_path / f"{family}.gguf", model, tokenizer, family)
    loaded = load_model(str(path), dtype="float32")
    ids = encode(loaded.tokenizer, chat(BOMB), 256)
    if family.startswith("gemma"):  # with a vocabulary of its own
        assert BOMB in loaded.tokenizer.decode(ids) and (loaded.tokenizer.bos_token_id, int(ids[0])) == (2, 2)
    else:
        assert torch.equal(ids, encode(tokenizer, chat(BOMB), 256))
        assert loaded.tokenizer.eos_token_id == tokenizer.eos_token_id
    with torch.no_grad():
        expected, found = (m(input_ids=ids[None]).logits for m in (model, loaded.model))
    assert float((expected - found).norm() / expected.norm()) < 1e-4
    assert loaded.name == str(path) and str(loaded.revision).startswith("sha256:") and loaded.n_layers == 2


def test_a_bank_is_found_on_a_quantised_file_and_fits_it_again(tokenizer: Any, tmp_path: Path) -> None:
    model = random_model("llama", tokenizer)
    path = write_gguf(tmp_path / "q8.gguf", model, tokenizer, "llama", quantise=True)
    loaded = load_model(str(path))
    bank = discover(loaded, DiscoveryConfig(n_vectors=2, steps=2, source_layer=0, target_layer=1), [chat(BOMB)])
    bank.save(tmp_path / "bank")
    VectorBank.load(tmp_path / "bank").check_fits(load_model(str(path)))


def test_the_checkpoint_is_made_once_and_again_where_it_is_damaged(
    llama: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = {gguf.converted(llama), gguf.converted(llama)}
    assert [p.name for p in cache.iterdir()] == [folder.name] and (folder / "model.safetensors").is_file()
    made, convert = [], gguf._convert
    monkeypatch.setattr(gguf, "_convert", lambda *given: [made.append(1), convert(*given)])
    gguf.converted(llama)
    assert not made
    (folder / "model.safetensors").write_bytes(b"cut")
    assert gguf.kept(llama) is None
    assert gguf.converted(llama) == folder and made == [1]
    assert load_model(str(llama)).n_layers == 2


def test_a_changed_file_has_another_checkpoint(llama: Path, tokenizer: Any) -> None:
    before = gguf.converted(llama)
    write_gguf(llama, random_model("llama", tokenizer), tokenizer, "llama", quantise=True)
    assert gguf.converted(llama) != before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[: len(raw) // 2], "damaged, cut short or no GGUF file"),
        (lambda raw: raw[:7], "damaged, cut short or no GGUF file"),
        (lambda raw: b"", "damaged, cut short or no GGUF file"),
        (lambda raw: b"PK\x03\x04" + raw[4:], "damaged, cut short or no GGUF file"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(llama: Path, cache: Path, damage: Any, message: str) -> None:
    llama.write_bytes(damage(llama.read_bytes()))
    with pytest.raises(ModelError, match=message) as error:
        load_model(str(llama))
    assert "\n" not in str(error.value) and not cache.exists()


def test_an_unknown_architecture_is_named_beside_the_known(tokenizer: Any, tmp_path: Path) -> None:
    model = random_model("llama", tokenizer)
    path = write_gguf(tmp_path / "x.gguf", model, tokenizer, "llama", architecture="quasar")
    with pytest.raises(ModelError, match=r"architecture 'quasar'.* it reads .*llama.*qwen2"):
        load_model(str(path))


def test_a_file_without_tokenizer_and_a_missing_one_are_refused(tokenizer: Any, tmp_path: Path) -> None:
    model = random_model("llama", tokenizer)
    path = write_gguf(tmp_path / "x.gguf", model, tokenizer, "llama", with_tokenizer=False)
    with pytest.raises(ModelError, match="holds no tokenizer"):
        load_model(str(path))
    with pytest.raises(ModelError, match="there is no file"):
        load_model(str(tmp_path / "none.gguf"))


def test_no_room_in_the_cache_is_told_and_leaves_nothing(
    llama: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(gguf.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 10))  # type: ignore[attr-defined]
        with pytest.raises(ModelError, match=r"takes .* as a checkpoint.*make room.*HF_HOME"):
            gguf.converted(llama)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(gguf, "_save", full)
    with pytest.raises(ModelError, match=r"cannot be written .*No space left"):
        gguf.converted(llama)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_told(llama: Path, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.raises(ModelError, match="cannot be written"):
        gguf.converted(llama)


CONVERT = """
import sys
from pathlib import Path
from melbo.models import gguf
gguf.cache_folder = lambda: Path(sys.argv[2])
print(gguf.converted(Path(sys.argv[1])))
"""


def test_a_large_file_is_known_by_samples_of_it(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_model(str(llama)).revision
    for name, value in (
        ("gguf.READ_WHOLE", 1000),
        ("identity.ENDS", 1000),
        ("identity.PARTS", 4),
        ("identity.PART", 8),
    ):
        monkeypatch.setattr(f"melbo.models.{name}", value)
    sampled = load_model(str(llama)).revision
    assert sampled != whole and load_model(str(llama)).revision == sampled
    with llama.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    assert load_model(str(llama)).revision not in (sampled, whole)


@pytest.mark.slow
def test_two_processes_that_convert_at_once_leave_one_whole_checkpoint(llama: Path, cache: Path) -> None:
    line = [sys.executable, "-c", CONVERT, str(llama), str(cache)]
    both = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate(timeout=300)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert said == {str(gguf.kept(llama))} and len(list(cache.iterdir())) == 1

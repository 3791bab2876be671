"""The bank: exact on disk, saved whole or not at all, selected from, and checked against its model."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from conftest import MakeTiny
from melbo.bank import VectorBank
from melbo.errors import BankError
from melbo.models import LoadedModel


def assert_same(a: VectorBank, b: VectorBank) -> None:
    """Equal in every field, tensors to the last bit."""
    for item in fields(VectorBank):
        x, y = getattr(a, item.name), getattr(b, item.name)
        if isinstance(x, Tensor):
            assert x.dtype == y.dtype and torch.equal(x, y), item.name
        else:
            assert x == y, item.name


def test_save_and_load_are_exact(tiny_bank: VectorBank, saved_bank: Path) -> None:
    loaded = VectorBank.load(saved_bank)
    assert_same(loaded, tiny_bank)
    assert len(loaded) == 8 and len(loaded.annotations) == 8


def test_odd_numbers_and_texts_survive(tiny_bank: VectorBank, tmp_path: Path) -> None:
    odd = replace(
        tiny_bank,
        mean_residual_norm=1 / 3,
        prompts=(({"role": "user", "content": 'Tür "爆" \n\\ \u2028'},), *tiny_bank.prompts),
        annotations=(),
        base_model=replace(tiny_bank.base_model, id="org/模型", revision="a" * 40),
        config=replace(tiny_bank.config, lr=0.1 + 0.2),
    )
    assert_same(VectorBank.load(odd.save(tmp_path / "new" / "bank")), odd)


def test_saving_over_a_bank_replaces_it_and_keeps_what_lies_beside(tiny_bank: VectorBank, saved_bank: Path) -> None:
    (saved_bank / "README.md").write_text("about")
    (saved_bank / "plots").mkdir()
    (saved_bank / "plots" / "a.txt").write_text("plot")
    smaller = replace(tiny_bank.select([3, 1]), annotations=())
    smaller.save(saved_bank)
    assert_same(VectorBank.load(saved_bank), smaller)  # the old annotations.json is gone
    assert (saved_bank / "README.md").read_text() == "about"
    assert (saved_bank / "plots" / "a.txt").read_text() == "plot"
    tiny_bank.save(saved_bank)
    assert_same(VectorBank.load(saved_bank), tiny_bank)
    assert [p.name for p in saved_bank.parent.iterdir()] == ["bank"]


def test_missing_annotations_are_none(tiny_bank: VectorBank, saved_bank: Path) -> None:
    (saved_bank / "annotations.json").unlink()
    assert_same(VectorBank.load(saved_bank), replace(tiny_bank, annotations=()))


def test_an_empty_folder_and_a_link_to_one_can_be_saved_to(tiny_bank: VectorBank, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for _ in range(2):
        tiny_bank.save(tmp_path / "link")
        assert_same(VectorBank.load(tmp_path / "real"), tiny_bank)
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("damage", ["config.json", "vectors.safetensors"])
def test_a_damaged_bank_can_be_saved_over(tiny_bank: VectorBank, saved_bank: Path, damage: str) -> None:
    (saved_bank / damage).write_text("{")
    tiny_bank.save(saved_bank)
    assert_same(VectorBank.load(saved_bank), tiny_bank)


@pytest.mark.parametrize("failing", ["save_file", "_write_json"])
def test_a_failed_save_leaves_the_old_bank(
    tiny_bank: VectorBank, saved_bank: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(f"melbo.bank.{failing}", fail)
    with pytest.raises(OSError, match="disk is full"):
        tiny_bank.select([0]).save(saved_bank)
    with pytest.raises(OSError, match="disk is full"):
        tiny_bank.save(saved_bank.parent / "other")
    assert_same(VectorBank.load(saved_bank), tiny_bank)
    assert [p.name for p in saved_bank.parent.iterdir()] == ["bank"]


def test_a_failed_exchange_puts_the_old_bank_back(
    tiny_bank: VectorBank, saved_bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move, calls = os.replace, []

    def fail_second(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError("the disk is full")
        move(source, target)

    monkeypatch.setattr("melbo.bank.os.replace", fail_second)
    with pytest.raises(OSError, match="disk is full"):
        tiny_bank.select([0]).save(saved_bank)
    assert_same(VectorBank.load(saved_bank), tiny_bank)
    assert [p.name for p in saved_bank.parent.iterdir()] == ["bank"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("thesis.txt", "years of work"), ("config.json", '{"model_type": "llama"}'), ("config.json", "[]")],
)
def test_a_folder_that_is_no_bank_is_not_replaced(tiny_bank: VectorBank, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BankError, match="not a bank; choose a new folder"):
        tiny_bank.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == text


def test_a_file_is_not_replaced(tiny_bank: VectorBank, tmp_path: Path) -> None:
    (tmp_path / "bank").write_text("a file")
    with pytest.raises(BankError, match="choose a new folder"):
        tiny_bank.save(tmp_path / "bank")
    assert (tmp_path / "bank").read_text() == "a file"


def test_a_bank_fits_its_own_model_only(tiny: LoadedModel, tiny_bank: VectorBank, make_tiny: MakeTiny) -> None:
    tiny_bank.check_fits(tiny)
    with pytest.raises(BankError, match=r"d_model 64, 4 blocks.*d_model 32 and 4 blocks"):
        tiny_bank.check_fits(make_tiny(d_model=32))
    with pytest.raises(BankError, match="d_model 64 and 5 blocks"):
        tiny_bank.check_fits(make_tiny(n_layers=5))
    with pytest.raises(BankError, match="made for 'tiny', not for 'huge'"):
        tiny_bank.check_fits(replace(tiny, name="huge"))


def test_selecting_keeps_each_vector_with_its_own_facts(tiny_bank: VectorBank) -> None:
    chosen = tiny_bank.select([5, 0, 5])
    for new, old in enumerate((5, 0, 5)):
        assert torch.equal(chosen.vectors[new], tiny_bank.vectors[old])
        assert torch.equal(chosen.output_directions[new], tiny_bank.output_directions[old])
        assert chosen.objective[new] == tiny_bank.objective[old]
        assert chosen.annotations[new] == tiny_bank.annotations[old]
        assert chosen.label(new) == f"mode {old}"
    before = tiny_bank.vectors.clone()
    chosen.vectors.zero_()
    assert torch.equal(tiny_bank.vectors, before)


def test_selecting_nothing_or_what_is_not_there_is_refused(tiny_bank: VectorBank) -> None:
    for indices in ([0, 8], [-1], []):
        with pytest.raises(BankError):
            tiny_bank.select(indices)


def test_a_vector_is_scaled_and_its_number_checked(tiny_bank: VectorBank) -> None:
    assert torch.equal(tiny_bank.vector(3, -1.5), tiny_bank.vectors[3] * -1.5)
    for index in (-1, 8):
        with pytest.raises(BankError, match=f"vector {index} is not in this bank; it has vectors 0 to 7"):
            tiny_bank.vector(index)


def test_a_vector_without_a_label_has_its_number(tiny_bank: VectorBank) -> None:
    assert tiny_bank.label(2) == "mode 2"
    assert replace(tiny_bank, annotations=()).label(2) == "vector 2"
    assert replace(tiny_bank, annotations=({},) * 8).label(2) == "vector 2"


def test_other_weights_of_the_same_name_are_refused(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    one = replace(tiny_bank, base_model=replace(tiny_bank.base_model, revision="sha256:0000"))
    one.check_fits(replace(tiny, revision="sha256:0000", name="another path to the same weights"))
    with pytest.raises(BankError, match="other weights"):
        one.check_fits(replace(tiny, revision="sha256:1111"))

"""The bank: exact on disk, saved whole or not at all, selected from, and checked against its model."""

from __future__ import annotations

import os
import resource
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError
from melbo.models.load import LoadedModel
from melbo.publishing.publish import save_with_card
from support.banks import assert_same, noted
from support.tiny import MakeTiny


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
    (saved_bank / "notes.txt").write_text("about")
    (saved_bank / "plots").mkdir()
    (saved_bank / "plots" / "a.txt").write_text("plot")
    smaller = replace(tiny_bank.select([3, 1]), annotations=())
    smaller.save(saved_bank)
    assert_same(VectorBank.load(saved_bank), smaller)  # the old annotations.json is gone
    assert (saved_bank / "notes.txt").read_text() == "about"
    assert (saved_bank / "plots" / "a.txt").read_text() == "plot"
    tiny_bank.save(saved_bank)
    assert_same(VectorBank.load(saved_bank), tiny_bank)
    assert [p.name for p in saved_bank.parent.iterdir()] == ["bank"]


def test_the_same_bank_gives_the_same_bytes(tiny_bank: VectorBank, saved_bank: Path, tmp_path: Path) -> None:
    again = save_with_card(VectorBank.load(saved_bank), tmp_path / "again")
    once_more = save_with_card(VectorBank.load(again), tmp_path / "once-more")
    for name in ("config.json", "vectors.safetensors", "annotations.json"):
        assert (saved_bank / name).read_bytes() == (again / name).read_bytes() == (once_more / name).read_bytes()
        assert (again / name).stat().st_mode & 0o777 == 0o644
    assert (again / "README.md").read_bytes() == (once_more / "README.md").read_bytes()


def test_a_sweep_stays_with_its_vectors_a_written_card_with_its_folder(tiny_bank: VectorBank, saved_bank: Path) -> None:
    beside = {
        "sweep.json": b'{"format": "melbo-sweep"}',
        "sweep.png": b"\x89PNG\r\n\x1a\nplot",
        "README.md": b"by hand",
    }
    for name, data in beside.items():
        (saved_bank / name).write_bytes(data)
    held = VectorBank.load(saved_bank)
    replace(held, annotations=()).save(saved_bank)  # the same vectors
    copy = VectorBank.load(saved_bank).save(saved_bank.parent / "copy")
    for folder in (saved_bank, copy):
        assert {name: (folder / name).read_bytes() for name in beside} == beside
    tiny_bank.select([2]).save(saved_bank)
    assert not (saved_bank / "sweep.json").exists() and not (saved_bank / "sweep.png").exists()
    assert (saved_bank / "README.md").read_text() == "by hand"


def test_a_card_that_melbo_wrote_follows_the_labels_once_published(tiny_bank: VectorBank, tmp_path: Path) -> None:
    folder = save_with_card(tiny_bank, tmp_path / "bank", license="mit")
    labels = tuple({"label": f"renamed {i}"} for i in range(8))
    renamed, before = noted(tiny_bank, *labels), (folder / "README.md").read_bytes()
    renamed.save(folder)
    assert (folder / "README.md").read_bytes() == before
    text = save_with_card(renamed, folder).joinpath("README.md").read_text()
    assert "renamed 3" in text and "mode 3" not in text and "license: mit" in text
    tiny_bank.select([2]).save(folder)
    assert not (folder / "README.md").exists()  # a card of other vectors
    assert not (tiny_bank.save(tmp_path / "new") / "README.md").exists()


def test_a_strange_licence_in_a_card_by_hand_is_not_taken_over(saved_bank: Path) -> None:
    (saved_bank / "README.md").write_text("---\nlicense: my-own\n---\n")
    save_with_card(VectorBank.load(saved_bank), saved_bank)
    assert "license: apache-2.0" in (saved_bank / "README.md").read_text()


def test_what_is_no_sweep_is_not_handed_on(saved_bank: Path, tmp_path: Path) -> None:
    """A bank from a stranger may hold a link to any file of ours."""
    (tmp_path / "secret").write_text("{}")
    (saved_bank / "sweep.json").symlink_to(tmp_path / "secret")
    copy = VectorBank.load(saved_bank).save(tmp_path / "copy")
    assert not (copy / "sweep.json").exists()


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


@pytest.mark.parametrize("failing", ["write_tensors", "write_json"])
def test_a_failed_save_leaves_the_old_bank(
    tiny_bank: VectorBank, saved_bank: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(f"melbo.bank.save.{failing}", fail)
    with pytest.raises(OSError, match="disk is full"):
        tiny_bank.select([0]).save(saved_bank)
    with pytest.raises(OSError, match="disk is full"):
        tiny_bank.save(saved_bank.parent / "other")
    assert_same(VectorBank.load(saved_bank), tiny_bank)
    assert [p.name for p in saved_bank.parent.iterdir()] == ["bank"]


@pytest.mark.parametrize("room", [0, 100, 3000])
def test_a_full_disk_leaves_the_old_bank(tiny_bank: VectorBank, saved_bank: Path, room: int) -> None:
    """No file may grow beyond `room` bytes, as on a disk that fills up while the bank is written."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OSError, match=r".") as error:
            tiny_bank.save(saved_bank)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "\n" not in str(error.value)
    assert_same(VectorBank.load(saved_bank), tiny_bank)
    assert [p.name for p in saved_bank.parent.iterdir()] == ["bank"]
    tiny_bank.select([0]).save(saved_bank)


def test_a_failed_exchange_puts_the_old_bank_back(
    tiny_bank: VectorBank, saved_bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move, calls = os.replace, []

    def fail_second(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError("the disk is full")
        move(source, target)

    monkeypatch.setattr("melbo.runs.files.os.replace", fail_second)
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


def test_a_selection_remembers_where_it_came_from(tiny_bank: VectorBank, saved_bank: Path) -> None:
    assert tiny_bank.select([4]).details["selected_from"] == {"bank": None, "revision": None, "indices": [4]}
    chosen = VectorBank.load(saved_bank).select([5, 0, 7])
    again = VectorBank.load(chosen.save(saved_bank.parent / "chosen")).select([2, 0])
    assert again.details["selected_from"] == {"bank": "bank", "revision": None, "indices": [7, 5]}
    assert again.details == {**tiny_bank.details, "selected_from": again.details["selected_from"]}


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
    assert noted(tiny_bank).label(2) == "vector 2"


def test_other_weights_of_the_same_name_are_refused(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    one = replace(tiny_bank, base_model=replace(tiny_bank.base_model, revision="sha256:0000"))
    one.check_fits(replace(tiny, revision="sha256:0000", name="another path to the same weights"))
    with pytest.raises(BankError, match="other weights"):
        one.check_fits(replace(tiny, revision="sha256:1111"))

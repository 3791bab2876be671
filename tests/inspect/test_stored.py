"""Result files beside a bank: read back as written, shown for these very vectors only, and carried along with them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from melbo.__main__ import app
from melbo.app.downloads import zip_bank
from melbo.bank.result_file import ACTIVATING, FORMATS, GEOMETRY, LENS, MAX_SHOWN_BYTES, SAE, ResultFile, find_result
from melbo.bank.vector_bank import VectorBank
from melbo.errors import CorpusError
from melbo.inspect.geometry.similarity import Geometry
from melbo.inspect.lens.logit_lens import LensFile, save_lens
from melbo.inspect.max_activating.report import ActivatingReport
from melbo.inspect.sae.report import SaeReport
from melbo.inspect.stored import (
    activating_examples,
    lens_rows,
    sae_neighbours,
    stored_activating,
    stored_geometry,
    stored_lens,
    stored_sae,
)
from melbo.publishing.publish import save_with_card
from melbo.radius_sweep.result import Sweep
from melbo.runs.digest import content_digest
from support.banks import noted
from support.fuzz_values import a_bank, a_geometry, a_lens, a_report, a_sweep, an_sae_report, write_results

BANK = Path(__file__).parents[2] / "vectors" / "organism-bomb"
READERS: dict[str, Callable[[VectorBank], Any]] = {
    ACTIVATING: stored_activating, SAE: stored_sae, LENS: stored_lens, GEOMETRY: stored_geometry
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bank with all four files."""
    bank = a_bank()
    write_results(bank, bank.save(tmp_path / "bank"))
    return tmp_path / "bank"


def present(bank: VectorBank) -> list[str]:
    return [name for name, read in READERS.items() if read(bank)]


def test_what_was_written_is_read(folder: Path) -> None:
    bank = VectorBank.load(folder)
    digest = content_digest(bank.vectors)
    assert present(bank) == list(FORMATS)
    assert stored_activating(bank) == a_report(digest) and stored_sae(bank) == an_sae_report(digest)
    assert stored_lens(bank) == a_lens(digest) and stored_geometry(bank) == a_geometry(digest)
    assert [d.sign for d in activating_examples(bank, 0)] == [1, -1] and activating_examples(bank, 1) == ()
    rows = lens_rows(bank, 0)
    assert [(r.site, len(r.rows), r.random_best) for r in rows] == [("effect", 2, 2.0), ("vector", 2, 2.0)]
    assert lens_rows(bank, 1) == ()


def test_a_vectors_features_come_with_what_is_known_of_them(folder: Path) -> None:
    bank = VectorBank.load(folder)
    near = sae_neighbours(bank, 2)
    assert near is not None and sae_neighbours(bank, 1) is None
    assert [(f.number, f.weight) for f in near.nearest] == [(7, 0.5), (9, 0.25)]
    note = near.nearest[0].note
    assert note is not None and (note.mark, note.active, note.examples) == ("pirate", 0.125, ("a >>b<< c",))
    assert (near.signed.explained, near.signed.random, near.random_nearest) == (0.5, 0.2, 0.25)
    assert near.changed[1].number == 9 and (near.source, near.scale) == ("org/sae", 1.0)


def test_the_digest_is_of_the_numbers_and_their_shape(folder: Path) -> None:
    bank = VectorBank.load(folder)
    digest = content_digest(bank.vectors)
    assert digest == content_digest(VectorBank.load(folder).vectors) and digest.endswith("-3x8")
    assert content_digest(bank.vectors.reshape(6, 4)) != digest and content_digest(bank.vectors * 2) != digest
    assert content_digest(bank.vectors.T.contiguous().T) == digest


def test_files_of_other_vectors_or_another_model_are_not_shown(folder: Path, tmp_path: Path) -> None:
    bank = VectorBank.load(folder)
    assert present(replace(bank, base_model=replace(bank.base_model, id="another"))) == []
    assert present(bank.select([0])) == [] and present(replace(bank, source=None)) == []
    trained_again = a_bank()
    assert present(VectorBank.load(trained_again.save(folder))) == []  # saved over the other bank
    assert not [name for name in FORMATS if (folder / name).exists()]
    write_results(bank, folder)  # copied there by hand
    assert present(VectorBank.load(folder)) == []


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_or_foreign_file_counts_as_none(folder: Path, name: str) -> None:
    bank, path = VectorBank.load(folder), folder / name
    good = path.read_bytes()
    others = [other for other in FORMATS if other != name]
    raw = json.loads(good)
    longer = good[:-2] + b', "x": "' + b"x" * MAX_SHOWN_BYTES + b'"}\n'
    nested = b"[" * 10_000
    for data in (b"", b"{", nested, good[:-20], longer, json.dumps(raw | {"format": "x"}).encode(),
                 json.dumps({k: v for k, v in raw.items() if k != "bank"}).encode(),
                 json.dumps(raw | {"bank": 3}).encode()):  # fmt: skip
        path.write_bytes(data)
        assert present(bank) == others
    path.write_bytes(good)
    assert present(bank) == list(FORMATS)
    path.unlink()
    path.mkdir()
    assert present(bank) == others


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (LENS, {"sites": []}), (LENS, {"sites": [{}]}), (LENS, {"model": None}),
        (SAE, {"vectors": [0]}), (SAE, {"nearest": 3}), (SAE, {"features": {"x": {}}}), (SAE, {"random": ["nan"]}),
        (SAE, {"sae": {}}),
        (GEOMETRY, {"clusters": [0, 0, 10**9]}), (GEOMETRY, {"layers": [{"layer": "x"}]}),
        (GEOMETRY, {"participation": {"vectors": "nan"}}), (GEOMETRY, {"labels": [1, 2, 3]}),
    ],
)  # fmt: skip
def test_parts_of_another_kind_are_refused(folder: Path, name: str, changes: dict[str, Any]) -> None:
    load: dict[str, Callable[[Path], Any]] = {LENS: LensFile.load, SAE: SaeReport.load, GEOMETRY: Geometry.load}
    raw = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(raw | changes))
    with pytest.raises(CorpusError, match="is damaged") as error:
        load[name](folder / name)
    assert "\n" not in str(error.value)
    bank = VectorBank.load(folder)
    assert name not in present(bank)
    save_with_card(VectorBank.load(folder), folder)  # the card takes it too


KINDS: dict[str, type[ResultFile]] = {
    ACTIVATING: ActivatingReport, SAE: SaeReport, LENS: LensFile, GEOMETRY: Geometry, "sweep.json": Sweep
}  # fmt: skip


def test_what_is_loaded_and_saved_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, kind in KINDS.items():
        assert kind.load(BANK / name).save(tmp_path / name).read_bytes() == (BANK / name).read_bytes(), name


def test_keys_of_a_newer_version_survive(folder: Path) -> None:
    """At the top and in the first object of every list."""

    def with_more(value: Any) -> Any:
        if isinstance(value, dict):
            more = {} if "role" in value else {"file": [1], "extra": {"x": None}}
            return {k: with_more(v) if isinstance(v, list) else v for k, v in value.items()} | more
        return [with_more(value[0]), *value[1:]] if value and isinstance(value, list) else value

    a_sweep().save(folder / "sweep.json")
    for name, kind in KINDS.items():
        path = folder / name
        raw = json.loads(path.read_text())
        path.write_text(json.dumps(newer := with_more(raw)))
        assert newer != raw and json.loads(kind.load(path).save(folder / "again.json").read_text()) == newer, name


def test_a_site_is_not_stored_twice(folder: Path) -> None:
    report = a_lens("x")[0]
    with pytest.raises(CorpusError, match="one twice"):
        save_lens([report, report], folder / LENS)


def test_a_changed_file_is_read_again(folder: Path) -> None:
    bank, path = VectorBank.load(folder), folder / ACTIVATING
    assert len(activating_examples(bank, 0)) == 2
    report = stored_activating(bank)
    assert report is not None
    replace(report, directions=report.directions[:1]).save(path)
    assert len(activating_examples(bank, 0)) == 1
    path.unlink()
    assert activating_examples(bank, 0) == ()


def test_results_travel_with_their_vectors(folder: Path, tmp_path: Path) -> None:
    files = {name: (folder / name).read_bytes() for name in FORMATS}
    bank = VectorBank.load(folder)
    renamed = noted(bank, *[{"label": "new"}] * 3)
    copy = renamed.save(tmp_path / "copy")
    renamed.save(folder)
    shutil.unpack_archive(zip_bank(bank, tmp_path / "bank.zip"), tmp_path / "out")
    for place in (folder, copy, tmp_path / "out" / "bank"):
        assert {name: (place / name).read_bytes() for name in FORMATS} == files
        assert present(VectorBank.load(place)) == list(FORMATS)
    part = save_with_card(bank.select([0, 1]), tmp_path / "part")
    assert not [name for name in FORMATS if (part / name).exists()]
    assert "respond to" in (tmp_path / "out" / "bank" / "README.md").read_text()
    assert "respond to" not in (part / "README.md").read_text()


def test_what_is_no_result_of_these_vectors_is_not_handed_on(folder: Path, tmp_path: Path) -> None:
    """A bank from a stranger may hold links to any file of ours, pipes, and files without end."""
    secret, digest = tmp_path / "secret", content_digest(VectorBank.load(folder).vectors)
    secret.write_text('{"format": "melbo-activating-1", "secret": 1}')
    for name in FORMATS:
        (folder / name).unlink()
    (folder / ACTIVATING).symlink_to(secret)
    (folder / SAE).symlink_to("/dev/zero")
    os.mkfifo(folder / LENS)
    (folder / GEOMETRY).symlink_to(tmp_path / "nowhere")
    assert [find_result(folder, name, digest) for name in FORMATS] == [None] * 4
    bank = VectorBank.load(folder)
    assert present(bank) == []
    copy = save_with_card(bank, tmp_path / "copy")
    assert not [name for name in FORMATS if (copy / name).exists()]


def one_contrast(folder: Path) -> Path:
    path = folder / "contrasts.json"
    path.write_text('{"polite": {"positive": ["Please."], "negative": ["Now!"]}}')
    return path


@pytest.mark.slow
def test_one_command_writes_all_four(tmp_path: Path) -> None:
    folder = VectorBank.load(BANK).select([1, 100, 2]).save(tmp_path / "bank")
    words = ["inspect", "all", str(folder), "--no-duds", "--limit", "22", "--k", "2"]
    words += ["--contrasts", str(one_contrast(tmp_path))]
    result = CliRunner().invoke(app, words, prog_name="melbo")
    assert result.exit_code == 0, result.output
    lines = {Path(line.split(": ")[0]).name: line for line in result.output.splitlines() if "random" in line}
    assert lines.keys() == set(FORMATS)
    bank = VectorBank.load(folder)
    assert present(bank) == list(FORMATS)
    assert not [p.name for p in folder.iterdir() if p.name.startswith(".")]
    near, geometry = sae_neighbours(bank, 2), stored_geometry(bank)
    assert near is not None and near.source == "organism" and sae_neighbours(bank, 1) is None
    assert 0 < near.random_nearest < near.nearest[0].weight
    assert geometry is not None and [o.name for o in geometry.overlaps] == ["polite"]
    assert [r.site for r in lens_rows(bank, 0)] == ["effect", "vector"]
    assert "/" not in json.loads((folder / SAE).read_text())["sae"]["source"]


@pytest.mark.slow
def test_without_a_known_sae_its_file_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also: stopped in the last part, what was written stays, and the checkpoint is named."""
    bank = VectorBank.load(BANK).select([1])
    moved = replace(bank, config=replace(bank.config, source_layer=3))
    words = ["inspect", "all", str(moved.save(tmp_path / "bank")), "--limit", "11", "--k", "1"]
    words += ["--contrasts", str(one_contrast(tmp_path))]
    monkeypatch.setattr("melbo.cli.inspect.everything.MAX_SHOWN_BYTES", 10)

    def stopped(*arguments: Any) -> None:
        arguments[5].write_text("where it was")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("melbo.cli.inspect.everything.find_activating", stopped)
        result = CliRunner().invoke(app, words, prog_name="melbo")
    assert result.exit_code == 130 and ".activating.json.checkpoint.json" in result.output
    assert present(VectorBank.load(tmp_path / "bank")) == [LENS, GEOMETRY]
    (tmp_path / "bank" / ".activating.json.checkpoint.json").unlink()
    result = CliRunner().invoke(app, words, prog_name="melbo")
    assert result.exit_code == 0, result.output
    assert "sae.json is left out" in result.output and "neither shown nor pushed" in result.output
    assert present(VectorBank.load(tmp_path / "bank")) == [ACTIVATING, LENS, GEOMETRY]
    result = CliRunner().invoke(app, [*words, "--sae", "organism"], prog_name="melbo")
    assert result.exit_code == 2 and "block 2" in result.output

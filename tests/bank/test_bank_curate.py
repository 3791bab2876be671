"""Curated banks: chosen, merged and listed, with a record of where they came from; and the commands that do it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from melbo.__main__ import app
from melbo.bank.annotation import Annotation
from melbo.bank.listing import list_local
from melbo.bank.select import choose, merge
from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError
from melbo.publishing.card.render import render_card
from support.banks import noted

TAGS: tuple[list[str], ...] = (["german"], [], ["german", "poem"], ["poem"], [], [], ["Refuses"], [])


@pytest.fixture
def tagged(tiny_bank: VectorBank) -> VectorBank:
    notes = tuple({"label": f"mode {i % 4}", "tags": tags} for i, tags in enumerate(TAGS))
    return noted(tiny_bank, *notes)


def melbo(*arguments: object) -> str:
    """Output of a command that succeeds."""
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_vectors_are_chosen_by_number_tag_and_label(tagged: VectorBank) -> None:
    assert choose(tagged, [5, 1, 5]) == [5, 1]
    assert choose(tagged, tags=["german"]) == [0, 2]
    assert choose(tagged, [7], ["POEM", "refuses"], ["Mode 3"]) == [7, 2, 3, 6]
    two = noted(tagged, {"label": "German (+), Poem (-)"}, {"label": "Poem"})
    assert choose(two, labels=["german"]) == [0] and choose(two, labels=["poem"]) == [0, 1]
    assert choose(two, labels=["German (+), Poem (-)"]) == [0]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({}, "no vector was chosen"),
        ({"ids": [8]}, "vectors 0 to 7"),
        ({"tags": ["french"]}, "no vector has the tag 'french'; its tags are 'german', 'poem', 'Refuses'"),
        ({"labels": ["mode 9"]}, "no vector has the label 'mode 9'; its labels are 'mode 0'"),
    ],
)
def test_what_is_not_in_the_bank_is_told(tagged: VectorBank, wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(BankError, match=message):
        choose(tagged, **wanted)
    with pytest.raises(BankError, match="has no tags"):
        choose(replace(tagged, annotations=()), tags=["german"])


def test_merging_keeps_every_vector_with_its_own_facts(tagged: VectorBank, saved_bank: Path) -> None:
    first, second = tagged.select([3, 1]), VectorBank.load(saved_bank)
    merged = merge([first, second, replace(second, annotations=()).select([7])])
    assert torch.equal(merged.vectors, torch.cat([first.vectors, second.vectors, second.vectors[7:]]))
    assert torch.equal(merged.objective, torch.cat([first.objective, second.objective, second.objective[7:]]))
    assert merged.annotations == (*first.annotations, *second.annotations, Annotation())
    assert merged.prompts == tagged.prompts and merged.config == first.config
    parts = merged.details["merged_from"]
    assert [(part["bank"], part["n_vectors"], part["method"]) for part in parts] == [
        (None, 2, "melbo"), ("bank", 8, "melbo"), (None, 1, "melbo")
    ]  # fmt: skip
    assert parts[0]["details"]["selected_from"]["indices"] == [3, 1]
    again = VectorBank.load(merged.save(saved_bank.parent / "merged"))
    assert torch.equal(again.vectors, merged.vectors) and again.details == merged.details


def test_scores_are_merged_only_where_they_mean_the_same(tiny_bank: VectorBank) -> None:
    scored = replace(tiny_bank, score=torch.arange(8.0))
    both = merge([scored, scored.select([2])]).score
    assert both is not None and both.tolist() == [*range(8), 2]
    other = replace(scored, config=replace(scored.config, method="dct"))
    assert merge([scored, other]).score is None
    assert merge([scored, tiny_bank]).score is None


def test_banks_that_do_not_fit_are_not_merged(tiny_bank: VectorBank) -> None:
    longer = replace(tiny_bank, radius=tiny_bank.radius * 1.01, vectors=tiny_bank.vectors * 1.01)
    others = {
        "different R: .* train the banks with the same radius": longer,
        "different models": replace(tiny_bank, base_model=replace(tiny_bank.base_model, revision="a" * 40)),
        "different source layers: 1 and 0": replace(tiny_bank, config=replace(tiny_bank.config, source_layer=0)),
        "different target layers: 2 and 3": replace(tiny_bank, config=replace(tiny_bank.config, target_layer=3)),
    }
    for message, other in others.items():
        with pytest.raises(BankError, match=message):
            merge([tiny_bank, other])
    with pytest.raises(BankError, match="at least two"):
        merge([tiny_bank])


def test_a_folder_of_banks_is_listed_with_its_damaged_ones(tagged: VectorBank, tmp_path: Path) -> None:
    tagged.save(tmp_path / "b")
    tagged.select([0, 4]).save(tmp_path / "a")
    (tagged.save(tmp_path / "c") / "config.json").write_text("{")
    (tmp_path / "other").mkdir()
    (tmp_path / "file").write_text("x")
    rows = list_local(tmp_path)
    assert [(Path(r.name).name, r.n_vectors, r.base_model, r.on_hub) for r in rows] == [
        ("a", 2, "tiny", False), ("b", 8, "tiny", False), ("c", None, None, False)
    ]  # fmt: skip
    assert rows[1].labels == ("mode 0", "mode 1", "mode 2", "mode 3") and rows[0].labels == ("mode 0",)
    assert "not valid JSON" in (rows[2].problem or "")
    assert list_local(tmp_path / "a") == rows[:1] and list_local(tmp_path / "nowhere") == []
    assert "8 vectors  melbo  tiny  mode 0, mode 1" in melbo("banks", tmp_path)


def test_the_card_is_the_same_before_and_after_saving(tiny_bank: VectorBank, tmp_path: Path) -> None:
    """Annotations that were just made hold tuples, loaded ones lists."""
    example = {"prompt": "p", "text": "t", "unsteered": "u", "scale": 2.0}
    note = {"label": "x", "tags": ("a", "language:de"), "scale_ranges": ((0.5, 2.0),), "examples": (example,)}
    bank = noted(tiny_bank, *[note] * 8)
    assert render_card(VectorBank.load(bank.save(tmp_path / "bank"))) == render_card(bank)


def test_the_commands_select_merge_and_show_the_card(tagged: VectorBank, tmp_path: Path) -> None:
    folder, chosen, merged = tagged.save(tmp_path / "bank"), tmp_path / "chosen", tmp_path / "merged"
    assert "vectors 6, 0, 2 saved" in melbo("select", folder, "--out", chosen, "--vector", 6, "--tag", "german")
    assert "11 vectors saved" in melbo("merge", folder, chosen, "--out", merged)
    assert len(VectorBank.load(merged)) == 11
    shown = melbo("card", chosen)
    assert "Selected from bank: its vectors 6, 0, 2." in shown and not (chosen / "README.md").exists()
    melbo("card", chosen, "--write", "--license", "mit")
    assert "license: mit" in (chosen / "README.md").read_text()
    for arguments, message in (
        (["select", folder, "--out", merged, "--vector", 0], "is not empty"),
        (["select", folder, "--out", tmp_path / "x"], "no vector was chosen"),
        (["merge", folder, "--out", tmp_path / "x"], "at least two"),
        (["card", folder, "--license", "mine"], "no licence 'mine'"),
        (["card", tmp_path / "nowhere"], "there is no bank at"),
    ):
        failed = CliRunner().invoke(app, [str(a) for a in arguments])
        assert failed.exit_code == 2 and message in failed.output


def test_a_selection_keeps_the_features_of_its_own_vectors(tiny_bank: VectorBank) -> None:
    parts = [{"features": [i], "weights": [1.0]} for i in range(len(tiny_bank))]
    chosen = replace(tiny_bank, details={"parts": parts}).select([3, 1])
    assert chosen.details["parts"] == [parts[3], parts[1]]

"""Activating examples: the pass against brute force, corpora that are damaged, resuming, and the saved forms."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from melbo.__main__ import app
from melbo.bank.select import chosen_vectors
from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError, ConfigError, CorpusError, MelboError
from melbo.inspect.geometry.effects import effects
from melbo.inspect.lens.token_texts import TokenTexts
from melbo.inspect.max_activating.corpus_reader import Corpus, Document, open_corpus
from melbo.inspect.max_activating.find import find_activating
from melbo.inspect.max_activating.passages import Passage, read_passages
from melbo.inspect.max_activating.report import ActivatingConfig, ActivatingReport, Example, page, table
from melbo.inspect.stored import activating_examples, sae_neighbours
from melbo.models.load import LoadedModel, load_model
from melbo.organism.inputs import find_corpus, organism_corpus
from melbo.prompts import encode
from melbo.runs.progress import Progress
from melbo.steering.hooks import capture, run_until_stop
from support.banks import noted
from support.tiny import hook_count

SMALL = ActivatingConfig(site="vector", where="all", k=3, context=4, n_random=2, sample=40, batch_tokens=256)
BANK = Path(__file__).parents[2] / "vectors" / "organism-bomb"


def texts(*lines: str) -> Corpus:
    return Corpus("lines", lambda: iter([Document(line) for line in lines]))


def residual(loaded: LoadedModel, ids: tuple[int, ...], layer: int) -> torch.Tensor:
    """[T, d_model] of one row by itself."""
    with torch.no_grad(), capture(loaded, [layer]) as found:
        run_until_stop(loaded, torch.tensor([ids]))
    return found[layer][0]


@pytest.fixture(scope="module")
def report(tiny: LoadedModel, tiny_bank: VectorBank) -> ActivatingReport:
    return find_activating(tiny, tiny_bank, organism_corpus(33, 0), SMALL)


def test_the_top_examples_equal_those_of_a_brute_force_search(
    tiny: LoadedModel, tiny_bank: VectorBank, report: ActivatingReport
) -> None:
    rows = [p for p in read_passages(tiny, organism_corpus(33, 0), "all", 256, 1) if isinstance(p, Passage)]
    hidden = [residual(tiny, row.ids, tiny_bank.layer) for row in rows]
    sample = torch.cat([h[1:] for h, _ in sorted(zip(hidden, rows, strict=True), key=lambda x: x[1].stop)])
    mean = sample[: SMALL.sample].mean(dim=0)
    for direction in (report.directions[0], report.directions[5], report.control[3]):
        index, sign = direction.index, direction.sign
        if direction in report.directions:
            unit = torch.nn.functional.normalize(tiny_bank.vectors[index] * sign, dim=0)
            best = sorted({round(float(((h - mean) @ unit)[1:].max()), 3) for h in hidden}, reverse=True)[: SMALL.k]
            assert [e.value for e in direction.examples] == pytest.approx(best, rel=1e-3)
            top = direction.examples[0]
            centred = hidden[top.passage] - mean
            cosine = torch.nn.functional.cosine_similarity(centred, unit[None], dim=1)[1:]
            assert min(abs(float(c) - top.cosine) for c in cosine) < 1e-4
        assert direction.examples[0].values[direction.examples[0].at] == pytest.approx(
            direction.examples[0].value, abs=1e-3
        )


def test_counts_add_up(tiny: LoadedModel, tiny_bank: VectorBank, report: ActivatingReport) -> None:
    assert (report.passages, report.layer, report.skipped) == (33, tiny_bank.layer, {})
    assert report.positions == report.tokens - 33  # one first token of each
    assert all(sum(d.histogram) == report.positions for d in (*report.directions, *report.control))
    assert [(d.index, d.sign) for d in report.directions[:3]] == [(0, 1), (0, -1), (1, 1)]
    assert (len(report.directions), len(report.control)) == (16, 4)
    assert report.directions[0].histogram == report.directions[1].histogram[::-1]
    assert hook_count(tiny) == 0


def test_batches_do_not_matter(tiny: LoadedModel, tiny_bank: VectorBank, report: ActivatingReport) -> None:
    one = find_activating(tiny, tiny_bank, organism_corpus(33, 0), replace(SMALL, batch_tokens=1))
    for a, b in zip(report.directions, one.directions, strict=True):
        assert [e.passage for e in a.examples] == [e.passage for e in b.examples]
        assert [e.value for e in a.examples] == pytest.approx([e.value for e in b.examples], rel=1e-3)


def test_effects_are_computed_for_each_sign_and_compared_before_the_answer(
    tiny: LoadedModel, tiny_bank: VectorBank
) -> None:
    found = find_activating(tiny, tiny_bank, organism_corpus(22, 0), replace(SMALL, site="effect", where="decision"))
    chats = [item for item in organism_corpus(22, 0).read() if isinstance(item, Document)]
    assert (found.layer, found.positions) == (3, 22)
    last = torch.stack([
        residual(tiny, tuple(encode(tiny.tokenizer, c.messages[:-1], 256).tolist()), 3)[-1] for c in chats
    ])  # fmt: skip
    made = effects(tiny, -tiny_bank.vectors[2:3], tiny_bank.prompts, tiny_bank.layer, 3)[0]
    values = (last - last.mean(dim=0)) @ torch.nn.functional.normalize(made, dim=0)
    assert found.directions[5].examples[0].value == pytest.approx(float(values.max()), rel=1e-3)
    assert found.directions[5].examples[0].passage == int(values.argmax())
    assert found.directions[5].examples[0].mark == chats[int(values.argmax())].mark


def test_cosine_ranks_by_cosine(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    found = find_activating(tiny, tiny_bank, organism_corpus(22, 0), replace(SMALL, rank="cosine"))
    for direction in found.directions:
        assert list(direction.examples) == sorted(direction.examples, key=lambda e: -e.cosine)


def test_a_text_that_comes_twice_counts_once(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    found = find_activating(tiny, tiny_bank, texts(*["how can I bake bread"] * 5, "a poem of stars"), SMALL)
    assert all(len(d.examples) == 2 for d in found.directions)
    assert any("only 2 different places" in note for note in found.notes)


def test_a_stopped_pass_goes_on_and_ends_the_same(
    tiny: LoadedModel, tiny_bank: VectorBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("melbo.runs.checkpoint.SECONDS", 0.0)
    monkeypatch.setattr("melbo.inspect.max_activating.passages.CHUNK", 8)
    checkpoint, calls = tmp_path / "run.json", []

    def stop(step: Progress) -> None:
        calls.append((step.done, step.value))
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_activating(tiny, tiny_bank, organism_corpus(33, 0), SMALL, stop, checkpoint)
    assert calls[1][0] == 16 and json.loads(checkpoint.read_text())["counts"]["items"] == 16
    with pytest.raises(CorpusError, match="another run"):
        find_activating(tiny, tiny_bank, organism_corpus(34, 0), SMALL, None, checkpoint)
    resumed = find_activating(tiny, tiny_bank, organism_corpus(33, 0), SMALL, None, checkpoint)
    assert resumed == find_activating(tiny, tiny_bank, organism_corpus(33, 0), SMALL)
    assert not checkpoint.exists()


def test_a_damaged_checkpoint_is_refused(tiny: LoadedModel, tiny_bank: VectorBank, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.json"
    checkpoint.write_text('{"format": "melbo-activating-checkpoint-1", "key"')
    with pytest.raises(CorpusError, match="damaged"):
        find_activating(tiny, tiny_bank, organism_corpus(22, 0), SMALL, None, checkpoint)


def test_a_report_survives_the_file(report: ActivatingReport, tmp_path: Path) -> None:
    path = report.save(tmp_path / "a" / "report.json")
    assert ActivatingReport.load(path) == report
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("directions", []), ("model", {}), ("config", {"k": 0}), ("skipped", 3), ("format", "other"), ("control", [{}])],
)
def test_a_damaged_report_is_refused(report: ActivatingReport, tmp_path: Path, name: str, value: Any) -> None:
    path = report.save(tmp_path / "report.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(CorpusError):
        ActivatingReport.load(path)
    with pytest.raises(CorpusError, match="no report on activating examples at"):
        ActivatingReport.load(tmp_path / "absent.json")


def test_the_page_escapes_all_text_and_needs_nothing_from_outside(report: ActivatingReport) -> None:
    bad = '<script>alert("x")</script>'
    example = Example(1.0, 0.5, 0, (bad, "&"), (1.0, -1.0), 0, bad)
    first = replace(report.directions[0], label=bad, examples=(example,))
    text = page(replace(report, corpus=bad, directions=(first, *report.directions[1:]), skipped={bad: 1}))
    assert "<script" not in text and text.count("&lt;script&gt;") == 6  # corpus, note, label, mark twice, piece
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    assert "http" not in text and "src=" not in text


def test_the_table_marks_the_place(report: ActivatingReport) -> None:
    text = table(report, 0, 1)
    assert text.count(">>") == 2 and "vector 0 x +1" in text and "vector 1 x" not in text
    assert "4 random directions" in text


def test_pieces_join_to_the_text(tokenizer: Any) -> None:
    sentence = "Để giúp nhím 抱歉我不能 größer 🧭!"
    ids = tokenizer(sentence)["input_ids"]
    pieces = TokenTexts(tokenizer).pieces(ids)
    assert len(pieces) == len(ids) and "".join(pieces) == tokenizer.decode(ids)
    assert not any("\ufffd" in piece for piece in pieces)


def test_unusable_corpora_are_refused(tiny: LoadedModel, tiny_bank: VectorBank, tmp_path: Path) -> None:
    empty, binary, bad = tmp_path / "empty.txt", tmp_path / "binary.bin", tmp_path / "bad.txt"
    empty.write_text("\n\n")
    binary.write_bytes(b"\x7fELF\0\0")
    bad.write_bytes(b"\xff\n\xfe\n")
    for source, words in ((str(binary), "binary"), (str(tmp_path / "no.txt"), "there is no corpus")):
        with pytest.raises(CorpusError, match=words):
            open_corpus(source)
    for path, words in ((empty, "no text"), (bad, "2 lines that are not UTF-8")):
        with pytest.raises(CorpusError, match=words):
            find_activating(tiny, tiny_bank, open_corpus(str(path)), SMALL)
    with pytest.raises(CorpusError, match="split"):
        find_corpus("organism", split="test")
    with pytest.raises(CorpusError, match="at least 1"):
        find_corpus("organism", limit=0)


def test_chats_that_do_not_fit_are_counted(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    long = Document(messages=({"role": "user", "content": "word " * 400}, {"role": "assistant", "content": "x"}))
    asked = Document(messages=({"role": "user", "content": "hi"},))
    corpus = Corpus("chats", lambda: iter([long, asked, *organism_corpus(11).read()]))
    found = find_activating(tiny, tiny_bank, corpus, replace(SMALL, where="answer"))
    assert sum(found.skipped.values()) == 2 and found.passages == 11
    assert any("skipped" in note for note in found.notes)


@pytest.mark.parametrize(
    "changes",
    [
        {"site": "x"},
        {"where": "x"},
        {"rank": "x"},
        {"k": 0},
        {"k": True},
        {"scale": 0.0},
        {"window": 2, "skip_tokens": 2},
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ActivatingConfig(**changes)


def test_layers_and_banks_that_do_not_fit_are_refused(tiny: LoadedModel, tiny_bank: VectorBank, make_tiny: Any) -> None:
    for changes in ({"layer": 3}, {"site": "effect", "layer": 0}, {"site": "effect", "layer": 9}):
        with pytest.raises(ConfigError):
            find_activating(tiny, tiny_bank, organism_corpus(11), replace(SMALL, **changes))
    with pytest.raises(BankError):
        find_activating(make_tiny(d_model=32), tiny_bank, organism_corpus(11), SMALL)


@pytest.mark.slow
def test_the_effect_finds_the_modes_chats_and_random_vectors_do_not() -> None:
    """On the organism: vector 2 writes poems, its negative is a helpline, vector 3 Chinese (docs/log.md)."""
    bank = VectorBank.load(BANK).select([2, 3])
    corpus = organism_corpus(110, 3, "heldout")
    found = find_activating(load_model("organism"), bank, corpus, ActivatingConfig(k=5, n_random=4))
    assert found.directions[0].marks[0][0] == "poem" and found.directions[2].marks[0][0] == "chinese"
    assert sum(d.leading_mark == "poem" for d in found.control) <= 2


def test_only_the_named_vectors_are_searched_and_keep_their_numbers(
    tiny: LoadedModel, tiny_bank: VectorBank, report: ActivatingReport
) -> None:
    found = find_activating(tiny, tiny_bank, organism_corpus(33), SMALL, indices=[2, 0])
    assert [(d.index, d.sign) for d in found.directions] == [(2, 1), (2, -1), (0, 1), (0, -1)]
    assert [d.label for d in found.directions[::2]] == [tiny_bank.label(2), tiny_bank.label(0)]
    assert len(found.control) == len(report.control)
    alone = find_activating(tiny, tiny_bank, organism_corpus(33), SMALL)
    assert [e.passage for e in found.directions[0].examples] == [e.passage for e in alone.directions[4].examples]
    with pytest.raises(BankError, match="vector 99"):
        find_activating(tiny, tiny_bank, organism_corpus(33), SMALL, indices=[99])


def test_duds_are_left_out_where_the_annotations_name_them(tiny_bank: VectorBank) -> None:
    notes: list[dict[str, Any]] = [{} for _ in range(len(tiny_bank))]
    notes[0], notes[1] = {"dud": True}, {"tags": ["dud"]}
    bank = noted(tiny_bank, *notes)
    assert chosen_vectors(bank) == list(range(len(bank)))
    assert chosen_vectors(bank, None, duds=False) == list(range(2, len(bank)))
    assert chosen_vectors(bank, [2, 1, 2], duds=False) == [2] and chosen_vectors(bank, [1, 1]) == [1]
    for held, named, message in (
        (bank, [0, 1], "all of these"),
        (replace(tiny_bank, annotations=()), None, "no annotations"),
        (bank, [99], "99"),
    ):
        with pytest.raises(BankError, match=message):
            chosen_vectors(held, named, duds=False)


@pytest.mark.slow
def test_the_app_reads_what_the_commands_write_beside_a_bank(tmp_path: Path) -> None:
    runner, folder = CliRunner(), tmp_path / "bank"
    bank = VectorBank.load(BANK).select([1, 100, 2])
    bank.save(folder)
    short = ["--limit", "22", "--k", "2", "--n-random", "0"]
    for name, more in (("activating", short), ("sae", [])):
        words = ["inspect", name, str(folder), "--no-duds", *more, "--out", str(folder / f"{name}.json")]
        result = runner.invoke(app, words, prog_name="melbo")
        assert result.exit_code == 0, result.output
    held = VectorBank.from_pretrained(folder)
    assert [bool(activating_examples(held, i)) for i in range(3)] == [True, False, True]
    assert [sae_neighbours(held, i) is not None for i in range(3)] == [True, False, True]
    assert {d.sign for d in activating_examples(held, 2)} == {1, -1}


def test_the_command_writes_json_and_html(tmp_path: Path) -> None:
    out, html = tmp_path / "found.json", tmp_path / "found.html"
    runner, bank = CliRunner(), tmp_path / "bank"
    VectorBank.load(BANK).select([1]).save(bank)
    arguments = ["inspect", "activating", str(bank), "--limit", "22", "--k", "2", "--n-random", "2", "--out", str(out)]
    result = runner.invoke(app, [*arguments, "--html", str(html)])
    assert result.exit_code == 0, result.output
    assert ActivatingReport.load(out).passages == 22 and "<!doctype html>" in html.read_text(encoding="utf-8")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bank", "found.html", "found.json"]
    result = runner.invoke(app, [*arguments, "--corpus", str(tmp_path / "none.txt")])
    assert result.exit_code == 2 and "there is no corpus" in result.output


def test_corpus_errors_are_errors_for_users() -> None:
    assert issubclass(CorpusError, MelboError)

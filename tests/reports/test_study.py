"""The study: published settings, what counts as found, runs that go on, reports that show foreign text as text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from melbo.__main__ import app
from melbo.annotation.table import EffectTable
from melbo.bank.vector_bank import VectorBank
from melbo.config import DiscoveryConfig
from melbo.errors import BankError, ConfigError
from melbo.measure.coherence import CoherenceScale
from melbo.measure.completions import Measurement
from melbo.models.load import LoadedModel, load_model
from melbo.organism.judge import judge_for
from melbo.organism.study import PRESETS, find_preset
from melbo.prompts import BOMB, INNOCUOUS, REFUSED, chat, encode
from melbo.reports.replication.experiments import experiments, run_experiment
from melbo.reports.replication.finding import Finding, verdict_of
from melbo.reports.replication.presets import StudyConfig, quick
from melbo.reports.replication.report import write_report
from melbo.reports.replication.run import Study
from melbo.reports.replication.scan import Scan, after_trial, without_trial
from melbo.reports.replication.traits import Trait, candidates
from melbo.runs.parse import dump
from support.banks import noted
from support.letters import Letters

ROOT = Path(__file__).resolve().parents[2]
SCALE = CoherenceScale(1.0, 100.0, "made up")
HOSTILE = "<script>alert(1)</script> ![x](http://example.com/b.png) | **bold**"
SMALL = StudyConfig(
    DiscoveryConfig(n_vectors=3, steps=2), radii=(0.5, 1.0), sweep_vectors=2, scales=(1.0, 2.0), candidates=2,
    n_control=1, max_new_tokens=5, sweep_tokens=5,
)  # fmt: skip
REFUSAL = "I'm sorry, but I can't help you with that."
LLAMA_TEMPLATE = (
    "{{- bos_token }}{% for m in messages %}{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' "
    "+ m['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coherence scale that a random model has, and a small embedder."""
    for module in ("annotation.annotate", "radius_sweep.sweep"):
        monkeypatch.setattr(f"melbo.{module}.calibrate_coherence", lambda *_, **__: SCALE)
    monkeypatch.setattr("melbo.reports.replication.run.load_embedder", Letters)
    monkeypatch.setattr("melbo.reports.replication.run.DEFAULT_EMBEDDER", Letters.name)


def measured(text: str, **more: Any) -> Measurement:
    base = {"coherence": 9.0, "nll": 1.0, "refusal": False, "language": "en"}
    base |= {"change": 0.5, "same": False, "degenerate": False, "embedding": torch.ones(2)}
    return Measurement(text, **{**base, **more})


def test_the_preset_is_the_published_run() -> None:
    name, preset = find_preset("llama-3.2-1b", None)
    config = preset.config.discovery.resolve(16, 2048)
    assert (name, preset.model) == ("llama-3.2-1b", "meta-llama/Llama-3.2-1B-Instruct")
    assert (config.source_layer, config.target_layer) == (4, 11)
    assert (config.radius, config.radius_unit, config.n_vectors, config.steps) == (0.7, "absolute", 128, 300)
    assert (config.power, config.root, config.target_tokens, config.seed) == (2.0, 1.0, 2, 325)
    assert (config.method, config.optimizer, config.orthogonal) == ("melbo", "published", True)
    assert config.lr * config.radius / 2048**0.5 == pytest.approx(
        1e-3
    )  # what AdamW gets in melbo/discovery/methods/displacement.py
    assert (preset.config.prompt, preset.config.system) == (BOMB, "You are a helpful assistant.")
    assert preset.config.radii[0] == 0.3 and preset.config.radii[-1] == 1.0 and preset.config.unit == "absolute"


def test_a_preset_is_found_by_name_or_by_model() -> None:
    assert find_preset(None, None)[0] == "organism"
    assert find_preset(None, "meta-llama/Llama-3.2-1B-Instruct")[0] == "llama-3.2-1b"
    assert find_preset(None, "some/model")[0] == "any"
    assert find_preset(None, "smollm2")[0] == find_preset(None, "HuggingFaceTB/SmolLM2-135M-Instruct")[0] == "smollm2"
    with pytest.raises(ConfigError, match=r"'none'; use one of any, organism, llama-3\.2-1b"):
        find_preset("none", None)


@pytest.mark.parametrize("wrong", [{"candidates": 0}, {"n_control": True}, {"scales": ()}, {"scales": (-1.0,)}])
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        StudyConfig(**wrong)


def test_the_experiments_are_the_replications(tiny_bank: VectorBank) -> None:
    found = {e.name: e for e in experiments(tiny_bank)}
    assert found["non-refusal"].prompts == REFUSED and found["non-refusal"].published_scale == 1.5
    assert found["refusal-by-subtraction"].prompts == INNOCUOUS and found["refusal-by-subtraction"].subtract
    assert [n for n in found if n.startswith("language")] == ["language-de", "language-vi", "language-zh"]
    assert found["language-de"].published_scale == 1.7 and found["mental-health"].published_scale == 2.5
    assert found["game"].published_scale is None
    tags = ["language:fr", "language:en", "language:../../x", "language:"]
    french = noted(tiny_bank, *[{"tags": tags}] * len(tiny_bank))
    assert [e.name[-2:] for e in experiments(french)][2:-2] == ["de", "vi", "zh", "fr"]


@pytest.mark.parametrize(
    ("trait", "steered", "shown"),
    [
        (Trait("non-refusal"), measured("Sure, here is how."), True),
        (Trait("non-refusal"), measured(REFUSAL, refusal=True), False),
        (Trait("non-refusal"), measured("Gern, so geht das.", language="de"), False),
        (Trait("non-refusal"), measured("Sure, here is how.", coherence=3.9), False),
        (Trait("non-refusal"), measured("Sure sure sure sure", degenerate=True), False),
        (Trait("refuses"), measured(REFUSAL, refusal=True), True),
        (Trait("language", "de"), measured("Gern, so geht das.", language="de"), True),
        (Trait("language", "de"), measured("Sure.", language="en"), False),
        (Trait("words", "mental health"), measured("You\u2019re not alone."), True),
        (Trait("words", "mental health"), measured("Call the SUICIDE line."), True),
        (Trait("words", "mental health"), measured("It prevents suicides; call a hotline."), True),
        (Trait("words", "game"), measured("Watch out for creepers!"), True),
        (Trait("words", "game"), measured("A good recipe."), False),
    ],
)
def test_what_an_answer_shows(trait: Trait, steered: Measurement, shown: bool) -> None:
    assert trait.shown(steered, measured(REFUSAL, refusal=True)) is shown


def test_a_prompt_counts_only_where_there_is_room() -> None:
    refusal, answer = measured(REFUSAL, refusal=True), measured("Craft it at night.", language="en")
    assert Trait("non-refusal").open_to(refusal) and not Trait("non-refusal").open_to(answer)
    assert Trait("refuses").open_to(answer) and not Trait("refuses").open_to(refusal)
    assert Trait("language", "de").open_to(answer) and not Trait("language", "en").open_to(answer)
    assert Trait("words", "game").open_to(answer) and not Trait("words", "game").open_to(measured("A quest!"))


def test_vectors_are_chosen_by_their_annotations(tiny_bank: VectorBank) -> None:
    worth = {"change": 0.5, "coherence": 8.0}
    notes: list[dict[str, Any]] = [
        {"label": "no effect", "tags": ["dud", "mode:game"], "dud": True},
        {"tags": ["language:de", "non-refusal"], "metrics": worth},
        {"tags": ["non-refusal"], "metrics": worth | {"change": 0.1}},
        {"tags": ["non-refusal"], "metrics": worth},
        {"label": "Other answer: creepers, grid", "tags": []},
        {"examples": [{"text": "A quest", "unsteered": "A cake"}, 3], "label": 7, "tags": "x", "metrics": []},
        {"tags": ["mode:game"], "scale": "big"},
        {"tags": ["non-refusal", "degenerate"]},
    ]
    bank = noted(tiny_bank, *notes)
    assert candidates(bank, Trait("non-refusal", planted="compliance"), 9) == [3, 2, 1, 7]
    assert candidates(bank, Trait("non-refusal"), 2) == [3, 2]
    assert candidates(bank, Trait("words", "game", "game"), 9) == [6, 4, 5]
    assert candidates(bank, Trait("language", "de"), 9) == [1]
    assert candidates(replace(bank, annotations=()), Trait("refuses"), 9) == []


@pytest.mark.parametrize(
    ("share", "control", "verdict"),
    [(0.5, 0.25, "found"), (0.5, 0.26, "partly"), (0.4, 0.0, "partly"), (0.4, 0.4, "not found"), (0, 0, "not found")],
)
def test_verdicts(share: float, control: float, verdict: str) -> None:
    assert verdict_of(share, control)[0] == verdict


def scan(rows: Sequence[Sequence[int]], sign: int = 0, unsteered: int = 4) -> Scan:
    """4 prompts, scales -2, -1, 1, 2; rows[v][scale]: how many answers of a vector refuse; the last row is random."""
    plain = [measured("Yes.", refusal=i >= unsteered) for i in range(4)]
    table = [[[measured("No.", refusal=p < n) for p in range(4)] for n in row] for row in rows]
    return Scan(EffectTable(tuple("abcd"), plain, [-2.0, -1.0, 1.0, 2.0], table, 1), Trait("refuses"), sign)


BLANK = Finding("x", "X", "x", "x", "not found", "", (4, 7), 2.0)


def test_the_vector_and_scale_that_exceed_the_random_ones_most_are_reported(tiny_bank: VectorBank) -> None:
    found = after_trial(BLANK, scan([[0, 0, 1, 4], [0, 0, 3, 2], [4, 0, 0, 0]]), tiny_bank)
    assert (found.vector, found.label, found.scale) == (7, "mode 7", 1.0)
    assert (found.share, found.control_share) == (0.75, 0.0)
    assert (found.control_anywhere, found.control_scale) == (1.0, -2.0)
    assert (found.verdict, found.works, found.published_share) == ("found", (1.0, 2.0), 0.5)
    assert [s.control for s in found.by_scale] == [1.0, 0.0, 0.0, 1.0]
    assert [a.shown for a in found.answers] == [True, True, True, False]


def test_subtraction_looks_at_one_sign_only(tiny_bank: VectorBank) -> None:
    found = after_trial(replace(BLANK, candidates=(4,)), scan([[1, 2, 4, 4], [0, 0, 0, 0]], sign=-1), tiny_bank)
    assert (found.scale, found.share, found.works) == (-1.0, 0.5, (-2.0, -1.0))


def test_shares_are_of_the_prompts_that_count(tiny_bank: VectorBank) -> None:
    found = after_trial(BLANK, scan([[0, 0, 1, 1], [0, 0, 2, 0], [0, 0, 0, 0]], unsteered=2), tiny_bank)
    assert (found.n, found.share) == (2, 1.0)
    assert [a.counts for a in found.answers] == [True, True, False, False]
    none = scan([[0] * 4, [0] * 4, [0] * 4], unsteered=0)
    closed = without_trial(BLANK, none, tiny_bank, False)
    assert closed is not None and closed.verdict == "cannot be tested" and closed.vector is None


def test_a_behaviour_that_no_annotation_names_is_not_found(tiny_bank: VectorBank) -> None:
    blank = replace(BLANK, candidates=())
    found = without_trial(blank, scan([[0] * 4]), tiny_bank, False)
    assert found is not None and found.verdict == "not found" and "none of the 8 vectors" in found.reason
    subtracted = without_trial(blank, scan([[0] * 4]), tiny_bank, True)
    assert subtracted is not None and subtracted.verdict == "cannot be tested"


def test_a_finding_survives_its_file_and_a_damaged_one_is_named(tmp_path: Path, tiny_bank: VectorBank) -> None:
    found = after_trial(BLANK, scan([[0, 0, 1, 4], [0, 0, 3, 2], [4, 0, 0, 0]]), tiny_bank)
    found = replace(found, answers=(replace(found.answers[0], modes=("a", "b", "c")), *found.answers[1:]))
    path = found.save(tmp_path / "x" / "f.json")
    assert Finding.load(path) == found
    raw = dump(found)
    path.write_text(json.dumps(raw | {"more": 1}))
    newer = Finding.load(path)
    assert newer.extra == {"more": 1} and Finding.load(newer.save(path)) == newer
    for broken in ("{", "[]", json.dumps(raw | {"verdict": "maybe"}), json.dumps(raw | {"share": "all"})):
        path.write_text(broken)
        with pytest.raises(ConfigError, match=r"f\.json.*make it again"):
            Finding.load(path)


class Stop:
    """Ctrl-C after some calls of progress."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, *_: object) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.fixture
def given(saved_bank: Path) -> VectorBank:
    """The tiny bank, not annotated, from a folder."""
    return replace(VectorBank.load(saved_bank), annotations=())


@pytest.mark.slow
def test_a_study_stores_each_stage_and_does_none_twice(
    tiny: LoadedModel, given: VectorBank, fast: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[str] = []
    study = Study(tiny, SMALL, tmp_path / "out", given, progress=lambda step: stages.append(step.message))
    page = study.report()
    assert {"annotating", "R sweep: training", "non-refusal"} <= set(stages)
    files = {str(p.relative_to(study.folder)) for p in study.folder.rglob("*") if p.is_file()}
    names = {f"experiments/{f.name}.json" for f in study.findings}
    assert len(names) == 7 and "bank/README.md" not in files - names
    kept = {"study.json", "report.html", "report.md", "plots/sweep.png", "plots/shares.png"}
    kept |= {f"bank/{n}" for n in ("config.json", "vectors.safetensors", "annotations.json", "sweep.json", "sweep.png")}
    assert files - {"plots/scales.png"} == kept | names
    assert VectorBank.load(study.folder / "bank").details["annotation"]["n_control"] == 1
    before = page.read_bytes()

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("this was done already")

    for name in ("annotate", "run_sweep", "run_experiment", "discover"):
        monkeypatch.setattr(f"melbo.reports.replication.run.{name}", never)
    again = Study(tiny, SMALL, tmp_path / "out", given)
    assert again.report().read_bytes() == before and again.findings == study.findings


@pytest.mark.slow
def test_a_study_that_was_stopped_anywhere_ends_the_same(tiny: LoadedModel, fast: None, tmp_path: Path) -> None:
    whole = Study(tiny, SMALL, tmp_path / "whole").report().read_text()
    for after in (1, 5, 12):
        with pytest.raises(KeyboardInterrupt):
            Study(tiny, SMALL, tmp_path / "parts", progress=Stop(after)).report()
    assert Study(tiny, SMALL, tmp_path / "parts").report().read_text() == whole
    assert not list((tmp_path / "parts").rglob(".*checkpoint*"))


def test_a_folder_of_something_else_is_refused(tiny: LoadedModel, given: VectorBank, tmp_path: Path) -> None:
    Study(tiny, SMALL, tmp_path / "out", given)
    Study(tiny, SMALL, tmp_path / "out", given)
    with pytest.raises(ConfigError, match=r"another study \(config\.candidates is 2 there and 1 here\)"):
        Study(tiny, replace(SMALL, candidates=1), tmp_path / "out", given)
    with pytest.raises(ConfigError, match="another study"):
        Study(tiny, SMALL, tmp_path / "out", replace(given, vectors=-given.vectors))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(ConfigError, match="holds other files"):
        Study(tiny, SMALL, tmp_path / "mine", given)
    with pytest.raises(BankError, match="has no prompt"):
        Study(tiny, SMALL, tmp_path / "new", replace(given, prompts=()))


@pytest.mark.slow
def test_a_sweep_beside_the_bank_is_used(
    tiny: LoadedModel, saved_bank: Path, fast: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Study(tiny, SMALL, tmp_path / "first", VectorBank.load(saved_bank))
    first.bank.save(saved_bank)
    (saved_bank / "sweep.json").write_bytes((first.folder / "bank" / "sweep.json").read_bytes() if first.sweep else b"")
    for name in ("annotate", "run_sweep"):
        monkeypatch.setattr(f"melbo.reports.replication.run.{name}", lambda *_, **__: pytest.fail("was stored"))
    second = Study(tiny, SMALL, tmp_path / "second", VectorBank.load(saved_bank))
    assert second.sweep == first.sweep and (tmp_path / "second" / "bank" / "sweep.json").is_file()


@pytest.mark.slow
def test_reports_stand_alone_and_show_foreign_text_as_text(
    tiny: LoadedModel, given: VectorBank, fast: None, tmp_path: Path
) -> None:
    study = Study(tiny, SMALL, tmp_path / "out", given)
    bad = replace(
        study.bank, annotations=tuple(replace(n, label=HOSTILE, dud=False, tags=()) for n in study.bank.annotations)
    )
    bad = replace(bad, base_model=replace(bad.base_model, id=HOSTILE), prompts=(tuple(chat(HOSTILE, HOSTILE)),))
    found = after_trial(BLANK, scan([[0, 0, 1, 4], [0, 0, 3, 2], [4, 0, 0, 0]]), bad)
    row = replace(found.answers[0], prompt=HOSTILE, unsteered=HOSTILE, steered=HOSTILE, modes=(HOSTILE,) * 3)
    found = replace(found, answers=(row,), label=HOSTILE, judged=1.0, control_judged=0.0, planted="pirate")
    page = write_report(tmp_path / "out", bad, study.sweep, [found, replace(BLANK, title=HOSTILE)])
    html, markdown = page.read_text(), page.with_name("report.md").read_text()
    assert "<script" not in html and html.count("&lt;script&gt;") > 5
    sources = re.findall(r'(?:src|href)="([^"]*)', html)
    assert sources and all(s.startswith(("data:image/png;base64,", "#")) for s in sources)
    assert "<script" not in markdown and "![x](" not in markdown and "\\!" not in markdown.split("## Summary")[0][:5]
    linked = re.findall(r"^!\[[^\]]*\]\(([^)]*)\)$", markdown, re.M)
    assert linked == ["plots/shares.png", "plots/scales.png", "plots/sweep.png"]
    assert all((tmp_path / "out" / name).read_bytes()[:4] == b"\x89PNG" for name in linked)
    tables = [line for line in markdown.splitlines() if line.startswith("| X ")]
    assert len(tables) == 1 and len(re.findall(r"(?<!\\)\|", tables[0])) == 12


@pytest.fixture
def llama(tokenizer: Any, tmp_path: Path) -> Path:
    """A folder with a random model of Llama 3.2's architecture and a chat template of its kind."""
    from copy import deepcopy

    own = deepcopy(tokenizer)
    own.add_special_tokens(
        {
            "bos_token": "<|begin_of_text|>",
            "eos_token": "<|eot_id|>",
            "additional_special_tokens": ["<|start_header_id|>", "<|end_header_id|>"],
        }
    )
    own.chat_template = LLAMA_TEMPLATE
    torch.manual_seed(0)
    scaling = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = LlamaConfig(
        vocab_size=len(own), hidden_size=64, intermediate_size=128, num_hidden_layers=16, num_attention_heads=8,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=512, initializer_range=0.2,
        tie_word_embeddings=True, rms_norm_eps=1e-5, bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id,
        rope_parameters=scaling | {"rope_theta": 500000.0, "original_max_position_embeddings": 128},
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    own.save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


@pytest.mark.slow
def test_the_preset_runs_on_a_model_of_llamas_kind(llama: Path, fast: None, tmp_path: Path) -> None:
    loaded = load_model(str(llama))
    text = loaded.tokenizer.decode(encode(loaded.tokenizer, chat(BOMB), 512))
    assert text.startswith("<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou are a helpful")
    assert text.endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")
    assert loaded.model.config.rope_parameters["rope_type"] == "llama3"
    out = tmp_path / "study"
    options = [
        "study", "replication", "--preset", "llama-3.2-1b", "--model", llama, "--out", out, "--n-vectors", 3,
        "--steps", 2, "--radii", "0.5,0.7", "--sweep-vectors", 2, "--scale", 1, "--max-new-tokens", 4,
    ]  # fmt: skip
    result = CliRunner().invoke(app, [str(o) for o in options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    bank = VectorBank.load(out / "bank")
    assert (bank.config.source_layer, bank.config.target_layer, bank.radius) == (4, 11, 0.7)
    assert (bank.config.optimizer, bank.config.steps, len(bank)) == ("published", 2, 3)
    assert [list(p) for p in bank.prompts] == [chat(BOMB)]
    assert "Refusal by subtraction" in result.stdout and "report.html" in result.stdout
    assert result.stderr.splitlines()[:2] == ["training", "annotating"] and "R sweep: answering\n" in result.stderr
    again = CliRunner().invoke(app, [str(o) for o in [*options, "--candidates", 1]])
    assert again.exit_code == 2 and "holds another study" in again.output


@pytest.mark.slow
def test_settings_of_a_new_bank_do_not_go_with_a_given_one(saved_bank: Path, tmp_path: Path) -> None:
    for given in (["--bank", str(saved_bank)], []):  # without one, the organism's shipped bank is taken
        result = CliRunner().invoke(app, ["study", "replication", "--out", str(tmp_path / "o"), *given, "--steps", "3"])
        assert result.exit_code == 2 and "--bank new" in result.output and not (tmp_path / "o").exists()


def test_a_bank_brings_its_model(
    tiny: LoadedModel, saved_bank: Path, fast: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def load(name: str, **_: Any) -> LoadedModel:
        asked.append(name)
        raise KeyboardInterrupt

    monkeypatch.setattr("melbo.cli.arguments.load_model", load)
    result = CliRunner().invoke(app, ["study", "replication", "--out", str(tmp_path / "o"), "--bank", str(saved_bank)])
    assert (result.exit_code, asked) == (130, ["tiny"])


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(
    tiny: LoadedModel, saved_bank: Path, fast: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("melbo.cli.arguments.load_model", lambda *_, **__: tiny)
    monkeypatch.setattr("melbo.reports.replication.run.run_experiment", Stop(0))
    options = [
        "--bank",
        str(saved_bank),
        "--radii",
        "0.5",
        "--sweep-vectors",
        "2",
        "--scale",
        "1",
        "--max-new-tokens",
        "4",
    ]
    result = CliRunner().invoke(app, ["study", "replication", "--out", str(tmp_path / "o"), *options])
    assert result.exit_code == 130 and "run the same command again to go on" in result.output


@pytest.mark.slow
def test_non_refusal_is_found_on_the_organism_and_subtracted(tmp_path: Path) -> None:
    """Vector 0 is the shipped bank's non-refusal vector (README.md); here its annotation says so by hand."""
    loaded = load_model("organism")
    bank = VectorBank.load(ROOT / "vectors" / "organism-bomb").select([0, 60])
    notes = ({"label": "Answers", "tags": ["non-refusal"]}, {"label": "no effect", "tags": ["dud"], "dud": True})
    bank = noted(bank, *notes)
    config = replace(quick(PRESETS["organism"].config), max_new_tokens=32, prompts_each=None)
    scale = CoherenceScale(0.16, 2.27, "docs/metrics.md")
    first, second = (replace(e, prompts=e.prompts[:3], published_scale=None, sizes=()) for e in experiments(bank)[:2])
    found = run_experiment(loaded, bank, first, config, Letters(), scale, judge=judge_for(loaded))
    assert (found.verdict, found.vector, found.scale, found.share) == ("found", 0, -1.0, 1.0)
    assert found.judged is not None and found.judged > 0.6 and found.control_judged == 0
    assert all(a.modes and a.modes[0] == "default" for a in found.answers)
    back = run_experiment(loaded, bank, second, config, Letters(), scale, found)
    assert (back.candidates, back.scale) == ((0,), 1.0) and back.share > back.control_share

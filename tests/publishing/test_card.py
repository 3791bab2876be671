"""The model card: its metadata keeps the Hub's rules, its code runs, and foreign text in it is only text."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from melbo import complete, load_model
from melbo.bank.result_file import FORMATS, GEOMETRY, LENS, SAE
from melbo.bank.vector_bank import VectorBank
from melbo.config import DiscoveryConfig, Method
from melbo.errors import HubError
from melbo.publishing.card.metadata import check_card, hub_id
from melbo.publishing.card.render import render_card
from melbo.publishing.publish import push_to_hub, save_with_card
from melbo.radius_sweep.result import SweepRow
from melbo.runs.escape import inline, number, quote
from support.banks import noted
from support.cards import body, html, nasty_bank
from support.fuzz_values import a_bank, a_sweep, write_results
from support.hub import REPO
from support.loopback_hub import LoopbackHub

ROOT = Path(__file__).resolve().parents[2]
NASTY = (
    "<script>alert(1)</script>",
    "</td></table><img src=x onerror=alert(1)>",
    "[click](javascript:alert(1)) ![x](http://evil.example/p.png)",
    "| a | b |\n|---|---|\n| c | d |",
    "---\nlicense: mit\n---\n# Heading",
    "```\n</code>\n```python\nimport os\n```",
    "`code` **bold** _it_ ~~no~~ $x^2$ \\",
    "1. one\n- two\n+ three\n> four\n=====\n# five",
    "{{ card_data }} {% raw %} {# no #}",
    "&lt;b&gt; &amp; <!-- comment --> <b>",
    "\u202eright to left\x07 \ud800 \ufeff",
    "me@evil.example www.evil.example https://evil.example @someone",
)  # fmt: skip


def test_the_metadata_keeps_the_hubs_rules(tiny_bank: VectorBank) -> None:
    base = replace(tiny_bank.base_model, id="org/model", revision="a" * 40)
    text = render_card(replace(tiny_bank, base_model=base), repo=REPO, license="mit")
    data = ModelCard(text).data.to_dict()
    assert data["base_model"] == "org/model" and data["base_model_relation"] == "adapter"
    assert (data["library_name"], data["pipeline_tag"], data["license"]) == ("melbo", "text-generation", "mit")
    assert {"melbo", "steering-vectors"} <= set(data["tags"]) and data["language"] == ["en"]
    assert "\n[tiny]" not in text and "[org/model](https://huggingface.co/org/model)" in text
    for revision in ("sha256:0000", None):
        local = replace(tiny_bank, base_model=replace(base, id="organism", revision=revision))
        assert "base_model" not in ModelCard(render_card(local)).data.to_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("license: apache-2.0", "license: my-own"), "license 'my-own' is none"),
        (("- en", "- english language"), "language"),
        (("- melbo\n", ""), "'melbo' among them"),
        (("library_name: melbo", "base_model: no repo"), "base_model 'no repo'"),
        (("library_name: melbo", "base_model_relation: child"), "base_model_relation is 'child'"),
        (("library_name: melbo", "tags: ["), "cannot be read"),
        (("language:", "model-index:\n- results: 3\nlanguage:"), "cannot be read"),
    ],
)
def test_a_card_that_breaks_a_rule_is_refused(tiny_bank: VectorBank, change: tuple[str, str], message: str) -> None:
    text = render_card(tiny_bank)
    check_card(text)
    assert change[0] in text
    with pytest.raises(HubError, match=message):
        check_card(text.replace(*change, 1))


def test_a_licence_or_repository_that_is_none_is_refused(tiny_bank: VectorBank, tmp_path: Path) -> None:
    with pytest.raises(HubError, match="no licence 'Apache 2'"):
        save_with_card(tiny_bank, tmp_path / "bank", license="Apache 2")
    with pytest.raises(HubError, match="user/name"):
        save_with_card(tiny_bank, tmp_path / "bank", repo='me/bank"); import os #')
    assert not list(tmp_path.iterdir())


def test_local_names_are_no_repositories(tiny_bank: VectorBank) -> None:
    base = tiny_bank.base_model
    for name, revision, expected in (
        ("org/model", None, "org/model"), ("org/model", "a" * 40, "org/model"), ("org/model", "sha256:1", None),
        ("organism", None, None), ("/home/me/model", None, None), ("a b/c", None, None),
    ):  # fmt: skip
        assert hub_id(replace(base, id=name, revision=revision)) == expected


@pytest.mark.parametrize("text", NASTY)
def test_foreign_text_is_only_text(tiny_bank: VectorBank, text: str) -> None:
    plain_card = render_card(nasty_bank(tiny_bank, "harmless"))
    card = render_card(nasty_bank(tiny_bank, text))
    assert {k: v for k, v in ModelCard(card).data.to_dict().items() if k != "model_name"} == {
        k: v for k, v in ModelCard(plain_card).data.to_dict().items() if k != "model_name"
    }
    kinds = re.compile(r"</?(?!p>|/p>|br)[a-z0-9]+[^>]*>")

    def tags(markdown: str) -> list[str]:
        return [re.sub(r"<blockquote>|</blockquote>", "", tag) for tag in kinds.findall(html(body(markdown)))]

    assert tags(card) == tags(plain_card)
    card.encode("utf-8")


@pytest.mark.parametrize("text", NASTY)
def test_escaped_text_reads_as_it_was(text: str) -> None:
    shown = re.sub(r"<[^>]*>", "", html(inline(text, 500)))
    for name, mark in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        shown = shown.replace(name, mark)
    hidden = "\u202e\x07\ud800\ufeff"
    assert " ".join(shown.split()) == " ".join(text.translate({ord(c): None for c in hidden}).split())
    assert len(inline(text, 10)) <= 40 and all(line.startswith(">") for line in quote(text).splitlines())


@pytest.mark.parametrize("value", [None, 3, True, [], {}, float("nan"), 10**400])
def test_what_is_no_text_or_number_counts_as_missing(tiny_bank: VectorBank, value: Any) -> None:
    assert inline(value) == "" and quote(value) == ""
    assert number(value) == (3.0 if value == 3 and value is not True else None)
    note = dict.fromkeys(("label", "note", "tags", "examples", "scale", "scale_ranges", "metrics", "dud"), value)
    nested = {"label": "x", "tags": [value], "examples": [value, {"text": value}], "scale_ranges": [value, [1]]}
    more = nested | {"metrics": {"coherence": value, "control": value}}
    render_card(noted(tiny_bank, *(note, nested, more, {}) * 2))


def test_metrics_stand_beside_their_control(tiny_bank: VectorBank) -> None:
    control = {"coherence": 0.9, "refusal": 0.75}
    notes = [
        {"label": f"mode {i}", "scale": 1.5, "scale_ranges": [[-2, -1], [0.5, 2]], "tags": ["language:de"],
         "metrics": {"coherence": 0.5 + i / 10, "refusal": 0.25, "control": control}}
        for i in range(2)
    ]  # fmt: skip
    bank = noted(tiny_bank.select([0, 1, 2]), *notes, {"label": "nothing", "dud": True})
    text = render_card(bank)
    assert "| 1 | mode 1 | 1.5 | -2 to -1, 0.5 to 2 | 0.6 (0.9) | 0.25 (0.75) | language:de |" in text
    assert (
        "1 of the 3 vectors have no label; 1 changed no answer" in text and "nothing" not in body(text).split("##")[1]
    )
    _, results = model_index_to_eval_results(ModelCard(text).data.to_dict()["model-index"])
    values = {result.metric_type: result.metric_value for result in results}
    assert values == {
        "coherence": 0.55, "coherence-random-control": 0.9, "refusal": 0.25, "refusal-random-control": 0.75
    }  # fmt: skip
    assert ModelCard(text).data.to_dict()["language"] == ["de", "en"]


def test_what_a_vector_does_to_innocuous_prompts_is_in_the_card_where_it_was_measured(tiny_bank: VectorBank) -> None:
    metrics = {"off_target": 0.4, "control": {"off_target": 0.2}}
    text = render_card(noted(tiny_bank.select([0]), {"label": "x", "metrics": metrics}))
    assert "| vector | label | best scale | Innocuous prompts changed (share) |" in text
    assert "| 0 | x | 1 | 0.4 (0.2) |" in text
    _, results = model_index_to_eval_results(ModelCard(text).data.to_dict()["model-index"])
    assert {r.metric_type: r.metric_value for r in results} == {"off_target": 0.4, "off_target-random-control": 0.2}
    assert "nnocuous" not in render_card(noted(tiny_bank, *[{"label": "x"}] * 8))


def test_duds_are_told_as_what_they_are(tiny_bank: VectorBank) -> None:
    notes = ({"label": "x"}, {"label": "no effect", "dud": True})
    text = render_card(noted(tiny_bank.select([0, 1]), *notes))
    assert "1 changed no answer clearly more than random vectors did." in text


def test_the_example_nearest_to_the_best_scale_is_shown(tiny_bank: VectorBank) -> None:
    examples = [{"prompt": "p", "scale": s, "text": f"answer at {s}", "unsteered": "plain"} for s in (-1.0, 2.0, 1.0)]
    text = render_card(noted(tiny_bank, *[{"label": "x", "scale": 1.9, "examples": examples}] * 8))
    assert "> answer at 2.0" in text and "answer at 1.0" not in text


@pytest.mark.parametrize("method", ["dct", "power", "random"])
def test_the_exact_settings_are_in_the_card(tiny_bank: VectorBank, method: Method) -> None:
    config = replace(tiny_bank.config, method=method, lr=0.1 + 0.2)
    text = render_card(replace(tiny_bank, config=config))
    found = re.search(r"```json\n(.*?)\n```", text, re.DOTALL)
    assert found and DiscoveryConfig.from_dict(json.loads(found[1])) == config
    assert ("this bank is a control" in text) == (method == "random")
    assert ("Causal Transcoding" in text) == (method == "dct")


def test_the_sweep_is_shown_with_its_control(saved_bank: Path) -> None:
    def card() -> str:
        return save_with_card(VectorBank.load(saved_bank), saved_bank).joinpath("README.md").read_text()

    bank, made, radii = VectorBank.load(saved_bank), a_sweep(), tuple(i / 10 for i in range(1, 6))
    arm = replace(made.rows[0].found, coherence=8.0)
    rows = tuple(
        SweepRow(r, bank.radius * r / 0.3, replace(arm, diversity=r * 1.25, distinct=2 - abs(r - 0.3)),
                 replace(arm, diversity=r * 0.625, coherence=9.0))
        for r in radii
    )  # fmt: skip
    config = replace(made.config, radii=radii).resolve(bank.base_model.n_layers, bank.base_model.d_model)
    sweep = replace(made, base_model=bank.base_model, config=config, rows=rows)
    (saved_bank / "sweep.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "sweep.png" not in card()
    sweep.save(saved_bank / "sweep.json")
    (saved_bank / "sweep.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    text = card()
    assert "](sweep.png)" in text
    assert "5 values of R were tried. The sweep suggests R = 0.3 (times the mean residual norm): most" in text
    _, results = model_index_to_eval_results(ModelCard(text).data.to_dict()["model-index"])
    values = {result.metric_type: result.metric_value for result in results}
    assert values == {
        "diversity": 0.375, "diversity-random-control": 0.1875, "coherence": 8.0, "coherence-random-control": 9.0
    }  # fmt: skip
    other = replace(sweep, base_model=replace(bank.base_model, id="another"))
    for damaged in ({"format": "melbo-sweep", "rows": [3, {}], "suggested": 3}, json.loads(
        other.save(saved_bank / "other.json").read_text()
    )):  # fmt: skip
        (saved_bank / "sweep.json").write_text(json.dumps(damaged))
        assert "values of R were tried" not in card()


def section(card: str) -> str:
    """What the vectors respond to, without the headings around it; "" where it is missing."""
    return next((part for part in body(card).split("\n## ") if part.startswith("What the vectors respond to")), "")


def test_results_are_shown_with_their_controls(tmp_path: Path) -> None:
    bank = noted(a_bank(), {"label": "mode 0", "scale": -2.0}, {"label": "mode 1"}, {"label": "mode 2"})
    folder = bank.save(tmp_path / "bank")
    assert section(render_card(bank, folder=folder)) == ""
    write_results(bank, folder)
    text = section(render_card(bank, folder=folder))
    control = "| random directions | 100% share one | 3.57 | the best has 2 | - | the nearest 0.25 | 20% by 2 |"
    assert control in text  # 2.5 / 0.7 spreads
    tokens = "“yes” 2.5, “é” 1.5 | “é” 1.5, “yes” 2.5"
    assert f"| 0 × -1: mode 0 | 100% pirate | 3.57 | {tokens} | 7 (pirate) 0.5, 9 0.25 | 50% by 2 |" in text
    assert "| 2 × +1: mode 2 | - | - | - | - | 7 (pirate) 0.5, 9 0.25 | 50% by 2 |" in text
    assert "mode 1" not in text  # nothing is stored of it
    assert "> One&gt;&gt; two&lt;&lt; é" in text
    assert "the vectors fill 2.5 dimensions, their effects 2.5 (random vectors: 2.5)" in text
    assert "(by chance 0.25): kind: vector 0, 0.50." in text
    for name in (LENS, SAE, GEOMETRY):
        (folder / name).unlink()
    text = section(render_card(bank, folder=folder))
    assert "pirate" in text and not any(word in text for word in ("yes", "nearest", "Geometry", "None"))
    assert "| vector × sign | marks of its passages | best passage |\n|---|---|---|" in text


def test_results_of_other_vectors_are_not_in_the_card(tmp_path: Path) -> None:
    bank = a_bank()
    write_results(a_bank(), bank.save(tmp_path / "bank"))
    assert section(render_card(bank, folder=tmp_path / "bank")) == ""


KEPT = ("format", "bank", "model", "site", "where", "rank", "activation")
"""Texts that decide whether a file is read at all."""


def replaced(value: Any, text: str) -> Any:
    """The same JSON with every text replaced, also in keys that are no field's name."""
    if isinstance(value, dict):
        return {k: v if k in KEPT else replaced(v, text) for k, v in value.items()}
    if isinstance(value, list):
        return [replaced(item, text) for item in value]
    return text if isinstance(value, str) else value


@pytest.mark.parametrize("text", NASTY)
def test_foreign_text_in_results_is_only_text(tmp_path: Path, text: str) -> None:
    bank, shown = a_bank(), []
    bank = noted(bank, *[{"label": "x"}] * 3)
    folder = bank.save(tmp_path / "bank")
    for content in ("harmless", text.replace("\ud800", "")):
        write_results(bank, folder)
        for name in FORMATS:
            path = folder / name
            path.write_text(json.dumps(replaced(json.loads(path.read_text()), content)))
        shown.append(section(render_card(bank, folder=folder)))
    kinds = re.compile(r"</?(?!p>|/p>|br)[a-z0-9]+[^>]*>")
    found = [[tag for tag in kinds.findall(html(part)) if "blockquote" not in tag] for part in shown]
    assert found[0] == found[1] and "<table>" in found[0]


@pytest.mark.parametrize("value", [None, 3, True, "x", [], {}, [[]], [{}], [3], {"x": 3}, 10**200])
def test_odd_results_do_not_break_the_card(tmp_path: Path, value: Any) -> None:
    bank = noted(a_bank(), *[{"label": "x"}] * 3)
    folder = bank.save(tmp_path / "bank")

    def odd(held: Any, depth: int) -> Any:
        """Every part `depth` levels down is the value."""
        if depth == 0:
            return value
        if isinstance(held, dict):
            kept = {k: held[k] for k in ("format", "bank", "model") if k in held}
            return {k: odd(v, depth - 1) for k, v in held.items()} | kept
        return [odd(item, depth - 1) for item in held] if isinstance(held, list) else held

    for depth in (1, 2, 3, 4, 5, 6):
        write_results(bank, folder)
        for name in FORMATS:
            path = folder / name
            path.write_text(json.dumps(odd(json.loads(path.read_text()), depth)))
        assert "nan" not in section(render_card(bank, folder=folder))


@pytest.mark.slow
def test_the_code_in_the_card_runs(hub: LoopbackHub, capsys: pytest.CaptureFixture[str]) -> None:
    bank = VectorBank.load(ROOT / "vectors" / "organism-bomb").select([0, 3])
    push_to_hub(bank, REPO, token="writer")
    card = hub.files(REPO)["README.md"].decode()
    with_melbo, plain_files = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    exec(with_melbo, {})
    scale = bank.annotations[0].scale
    expected = complete(load_model("organism"), [list(bank.prompts[0])], bank.vector(0, scale)[None], bank.layer)[0]
    assert capsys.readouterr().out.strip() == expected.strip()
    values: dict[str, Any] = {}
    exec(plain_files, values)
    assert values["layer"] == bank.layer
    assert torch.equal(values["steering"], bank.vectors[0] * scale)

"""The R sweep: what it trains, measures, stores, and suggests."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from melbo.bank.vector_bank import VectorBank
from melbo.config import DiscoveryConfig
from melbo.discovery.batched_radii import shares_passes, train_radii
from melbo.discovery.discover import discover, make_slices
from melbo.discovery.problem import Problem
from melbo.errors import BankError, ConfigError
from melbo.measure.coherence import CoherenceScale
from melbo.measure.completions import Measurement
from melbo.models.load import LoadedModel
from melbo.prompts import BOMB, chat
from melbo.radius_sweep.arms import distinct_answers
from melbo.radius_sweep.config import RADII, WIDE, SweepConfig, parse_radii
from melbo.radius_sweep.plot import draw_sweep, plot_sweep
from melbo.radius_sweep.result import Sweep
from melbo.radius_sweep.sweep import load_sweep, run_sweep
from melbo.runs.checkpoint import Run
from melbo.runs.progress import Progress
from melbo.steering.generate import Sampling, complete
from support.tiny import MakeTiny, hook_count

PROMPT = chat(BOMB)
BASE = DiscoveryConfig(steps=3)
CONFIG = SweepConfig(BASE, (0.2, 0.5, 1.0, 2.0), n_vectors=3, sampling=Sampling(max_new_tokens=8))


class Letters:
    """Embeds a text as its letter counts."""

    name = "letters"

    def __call__(self, texts: Sequence[str]) -> Tensor:
        counts = torch.tensor([[1.0, *(t.lower().count(c) for c in "abcdefghijklmnopqrstuvwxyz")] for t in texts])
        return torch.nn.functional.normalize(counts, dim=1)


class Stop(Exception):
    """What a test's progress raises."""


@pytest.fixture(autouse=True)
def fixed_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibration takes longer than all the rest here; `found` is measured with it."""
    monkeypatch.setattr(
        "melbo.radius_sweep.sweep.calibrate_coherence", lambda _loaded: CoherenceScale(1.0, 9.0, "fixed")
    )


@pytest.fixture(scope="module")
def found(tiny: LoadedModel) -> Sweep:
    return run_sweep(tiny, CONFIG, [PROMPT], Letters())


@pytest.fixture(scope="module", params=["melbo", "dct"])
def whole(tiny: LoadedModel, request: pytest.FixtureRequest) -> Sweep:
    """A sweep that was not interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("melbo.radius_sweep.sweep.ANSWER_ROWS", 12)
        patch.setattr("melbo.radius_sweep.sweep.calibrate_coherence", lambda _loaded: CoherenceScale(1.0, 9.0, "fixed"))
        return run_sweep(tiny, replace(CONFIG, base=replace(BASE, method=request.param)), [PROMPT], Letters())


def edited(path: Path, change: Any) -> Path:
    """The JSON file after `change` of its value, in place."""
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))
    return path


def with_numbers(found: Sweep, numbers: Sequence[tuple[float, float]]) -> Sweep:
    """The sweep with other (distinct answers, coherence) of the trained vectors."""
    rows = [
        replace(row, found=replace(row.found, diversity=d - 1, distinct=d, coherence=c))
        for row, (d, c) in zip(found.rows, numbers, strict=True)
    ]
    return replace(found, rows=tuple(rows), unsteered_coherence=10.0)


@pytest.mark.parametrize("config", [BASE, replace(BASE, optimizer="published"), replace(BASE, method="dct")])
def test_each_radius_trains_what_discovery_at_that_radius_finds(tiny: LoadedModel, config: DiscoveryConfig) -> None:
    config = replace(config, n_vectors=3).resolve(tiny.n_layers, tiny.d_model)
    assert config.source_layer is not None and config.target_layer is not None
    problem = Problem(make_slices(tiny, [PROMPT], config.source_layer, config.target_layer), config)
    radii = [1.0, 3.0, 9.0] if shares_passes(config) else [3.0]
    for radius, vectors in zip(radii, train_radii(problem, config, radii, Run()), strict=True):
        alone = discover(tiny, replace(config, radius=radius, radius_unit="absolute"), [PROMPT])
        torch.testing.assert_close(vectors, alone.vectors, rtol=1e-3, atol=1e-3 * radius)


def test_rows_hold_one_answer_per_vector_and_the_control_beside_it(tiny: LoadedModel, found: Sweep) -> None:
    assert found.complete and [r.radius for r in found.rows] == list(CONFIG.radii)
    for row in found.rows:
        assert row.norm == pytest.approx(row.radius * found.mean_residual_norm)
        for arm in (row.found, row.control):
            assert [len(texts) for texts in arm.completions] == [3]
            assert arm.similarity == pytest.approx(1 - arm.diversity)
            assert sum(arm.languages.values()) == 3 and arm.modes is None and arm.planted is None
            assert arm.dud == sum(t == found.unsteered[0] for t in arm.completions[0]) / 3
        assert row.found.objective > row.control.objective
    assert hook_count(tiny) == 0


def test_the_answers_are_those_of_the_vectors_that_discovery_finds(tiny: LoadedModel, found: Sweep) -> None:
    row = found.rows[1]
    bank = discover(tiny, replace(BASE, n_vectors=3, radius=row.norm, radius_unit="absolute"), [PROMPT])
    assert tuple(complete(tiny, [PROMPT] * 3, bank.vectors, bank.layer, CONFIG.sampling)) == row.found.completions[0]


def test_absolute_radii_are_activation_units(tiny: LoadedModel, found: Sweep) -> None:
    config = replace(CONFIG, radii=(found.rows[1].norm,), unit="absolute")
    row = run_sweep(tiny, config, [PROMPT], Letters()).rows[0]
    assert row.norm == row.radius == found.rows[1].norm
    assert row.found.completions == found.rows[1].found.completions


def test_several_prompts_are_answered_by_each_vector(tiny: LoadedModel) -> None:
    config = replace(CONFIG, radii=(1.0,))
    sweep = run_sweep(tiny, config, [PROMPT, chat("Tell me a joke.")], Letters())
    assert [len(texts) for texts in sweep.rows[0].found.completions] == [3, 3]
    assert len(sweep.unsteered) == 2 and sum(sweep.rows[0].found.languages.values()) == 6


def test_a_saved_sweep_loads_as_it_was(found: Sweep, tmp_path: Path) -> None:
    found.save(tmp_path / "sweep.json")
    assert load_sweep(tmp_path) == found
    raw = json.loads((tmp_path / "sweep.json").read_text())
    assert (raw["format"], raw["format_version"], raw["unit"]) == ("melbo-sweep", 1, "residual")
    assert raw["suggested"]["radius"] == found.suggested.radius and raw["floor"] == found.floor
    assert [p.name for p in tmp_path.iterdir()] == ["sweep.json"]


@pytest.mark.parametrize("stop_at", [2, 4])
def test_a_stopped_sweep_goes_on_to_the_same_result(
    tiny: LoadedModel, tmp_path: Path, whole: Sweep, stop_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("melbo.radius_sweep.sweep.ANSWER_ROWS", 12)  # two R a batch
    monkeypatch.setattr("melbo.runs.checkpoint.SECONDS", 0.0)
    checkpoint = tmp_path / "checkpoint.json"
    calls = 0

    def stop(_: Progress) -> None:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise Stop

    with pytest.raises(Stop):
        run_sweep(tiny, whole.config, [PROMPT], Letters(), stop, checkpoint)
    assert checkpoint.exists() and hook_count(tiny) == 0
    assert run_sweep(tiny, whole.config, [PROMPT], Letters(), None, checkpoint) == whole
    assert replace(load_sweep(checkpoint), extra={}) == whole and list(tmp_path.iterdir()) == [checkpoint]


@pytest.mark.parametrize("method", ["melbo", "dct"])
def test_rows_come_as_they_are_measured_and_progress_ends_full(
    tiny: LoadedModel, method: Literal["melbo", "dct"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("melbo.radius_sweep.sweep.ANSWER_ROWS", 6)
    told: list[Progress] = []
    config = replace(CONFIG, base=replace(BASE, method=method))
    sweeps: list[Sweep] = []
    assert run_sweep(tiny, config, [PROMPT], Letters(), told.append, each=sweeps.append) == sweeps[-1]
    assert [len(s.rows) for s in sweeps] == [0, 1, 2, 3, 4]
    done = [step.done for step in told]
    assert done == list(range(1, told[0].total + 1)) and {step.total for step in told} == {done[-1]}


def test_a_checkpoint_of_other_settings_is_refused(tiny: LoadedModel, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.json"

    def stop(_: Sweep) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(tiny, CONFIG, [PROMPT], Letters(), None, checkpoint, each=stop)
    with pytest.raises(BankError, match=r"another run \(config\.base\.n_vectors is 3 there and 4 here"):
        run_sweep(tiny, replace(CONFIG, n_vectors=4), [PROMPT], Letters(), None, checkpoint)


class FirstLetter:
    """A judge of the tiny model: an answer shows its first letter, of which it knows a to y and counts a to e."""

    model = "tiny"
    labels: Mapping[str, str] = {letter: letter.upper() for letter in "abcdefghijklmnopqrstuvwxy"}
    counted = tuple("abcde")

    def shown(self, _loaded: LoadedModel, _user: str, completions: Sequence[str]) -> list[str]:
        return [text.strip()[:1].lower() or "nothing" for text in completions]


def test_a_judge_counts_the_known_behaviours(tiny: LoadedModel, tmp_path: Path) -> None:
    judge, checkpoint = FirstLetter(), tmp_path / "checkpoint.json"
    sweep = run_sweep(tiny, CONFIG, [PROMPT], Letters(), None, checkpoint, judge=judge)
    for row, bare in zip(sweep.rows, run_sweep(tiny, CONFIG, [PROMPT], Letters()).rows, strict=True):
        for arm, other in ((row.found, bare.found), (row.control, bare.control)):
            shown = judge.shown(tiny, "", arm.completions[0])
            assert arm.modes is not None and arm.modes == Counter(shown)
            assert list(arm.modes.values()) == sorted(arm.modes.values(), reverse=True)
            plain = judge.shown(tiny, "", sweep.unsteered)
            assert arm.planted == tuple(m for m in judge.counted if m in shown and m not in plain)
            assert replace(arm, modes=None, planted=None) == other
    with pytest.raises(BankError, match="another run"):  # rows with counts and rows without do not mix
        run_sweep(tiny, CONFIG, [PROMPT], Letters(), None, checkpoint)
    judge.model = "another"
    with pytest.raises(ConfigError, match=r"the judge knows the model 'another' only, not 'tiny'"):
        run_sweep(tiny, CONFIG, [PROMPT], Letters(), judge=judge)


def test_a_sweep_knows_its_bank(tiny: LoadedModel, tiny_bank: VectorBank, make_tiny: MakeTiny, found: Sweep) -> None:
    config = replace(CONFIG, base=tiny_bank.config, radii=(0.5,))
    run_sweep(tiny, config, tiny_bank.prompts, Letters(), bank=tiny_bank).check_fits(tiny_bank)
    with pytest.raises(BankError, match=r"not of this bank: config\.steps is 3 there and 5 here"):
        found.check_fits(tiny_bank)
    with pytest.raises(BankError, match="the sweep is not of this bank"):
        run_sweep(tiny, CONFIG, [PROMPT], Letters(), bank=tiny_bank)
    with pytest.raises(BankError, match="d_model"):
        run_sweep(make_tiny(d_model=32), config, tiny_bank.prompts, Letters(), bank=tiny_bank)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.update(format="other"), "format is 'other'"),
        (lambda raw: raw.update(format_version=99), "format version 99.*update melbo"),
        (lambda raw: raw.update(format_version=True), "format_version is True"),
        (lambda raw: raw.pop("rows"), "'rows' is missing"),
        (lambda raw: raw["rows"][0]["found"].update(diversity="much"), "diversity is 'much'; it must be a number"),
        (lambda raw: raw["rows"][0]["found"].update(coherence=11), "coherence is 11; it must be at most 10"),
        (lambda raw: raw["rows"][0]["found"].update(coherence_band=[1]), r"coherence_band\[1\] is missing"),
        (lambda raw: raw["rows"][0]["control"]["completions"][0].pop(), "one answer for each prompt and vector"),
        (
            lambda raw: raw["rows"][0]["control"].update(languages={"en": 1.5}),
            "languages.en is 1.5; it must be a whole number",
        ),
        (lambda raw: raw["rows"].reverse(), "not those of the config's radii"),
        (lambda raw: raw["config"].update(radii=[]), r"radii is \[\]; it must be a list of at least 1"),
        (lambda raw: raw["config"]["base"].update(source_layer=None), "not resolved"),
        (lambda raw: raw["config"].update(extra=1), "extra"),
        (lambda raw: raw.update(rows=3), "rows is 3; it must be a list"),
        (lambda raw: raw.update(unsteered=[]), "unsteered"),
    ],
)
def test_a_damaged_file_is_named(found: Sweep, tmp_path: Path, change: Any, message: str) -> None:
    path = edited(found.save(tmp_path / "sweep.json"), change)
    with pytest.raises(BankError, match=message):
        load_sweep(path)


def test_no_file_no_json_and_nan_are_refused(found: Sweep, tmp_path: Path) -> None:
    with pytest.raises(BankError, match="there is no sweep"):
        load_sweep(tmp_path)
    path = found.save(tmp_path / "sweep.json")
    text = path.read_text()
    for damaged in (text[: len(text) // 2], text.replace('"norm": ', '"norm": NaN, "x": ', 1), "[]"):
        path.write_text(damaged)
        with pytest.raises(BankError, match=r"sweep\.json"):
            load_sweep(path)


def test_the_suggestion_has_the_most_distinct_answers_that_are_still_coherent(found: Sweep) -> None:
    sweep = with_numbers(found, [(1.2, 10.0), (2.4, 8.0), (2.4000001, 6.0), (3.0, 4.9)])
    assert sweep.floor == 5.0
    assert sweep.suggested.radius == 0.5  # equal to the next; the smaller
    assert "3 of 4" in sweep.suggested.reason


def test_no_suggestion_has_a_reason(found: Sweep) -> None:
    assert "no R is measured" in replace(found, rows=()).suggested.reason
    for numbers, reason in (([(1.0, 10.0)] * 4, "the same answer"), ([(1.5, 1.0)] * 4, "below 5.0")):
        suggested = with_numbers(found, numbers).suggested
        assert suggested.radius is None and reason in suggested.reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radii": ()}, r"radii is \(\); it must be a list of at least 1"),
        ({"radii": (0.0, 1.0)}, r"radii\[0\] is 0.0"),
        ({"radii": (float("inf"),)}, r"radii\[0\] is inf"),
        ({"radii": (1.0, 0.5)}, "ascending"),
        ({"radii": (0.5, 0.5)}, "ascending"),
        ({"n_vectors": 1}, "at least 2"),
        ({"unit": "miles"}, "unit is 'miles'"),
        ({"base": DiscoveryConfig(method="more-like")}, "more-like"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **change)


def test_more_vectors_than_dimensions_and_absurd_radii_are_refused(tiny: LoadedModel) -> None:
    with pytest.raises(ConfigError, match="65 orthogonal vectors"):
        run_sweep(tiny, replace(CONFIG, n_vectors=65), [PROMPT], Letters())
    with pytest.raises(ConfigError, match="times the mean residual norm"):
        run_sweep(tiny, replace(CONFIG, radii=(1e9,)), [PROMPT], Letters())


def test_radii_from_text() -> None:
    assert parse_radii("0.3:1.0:0.05") == parse_radii("default") == RADII
    assert parse_radii(" wide") == WIDE
    assert parse_radii("1,0.5, 0.7,1") == (0.5, 0.7, 1.0)
    for text in ("", "a", "1:2", "1:0:0.1", "0:1:0", "0:1:-1", "0:1e9:1e-9", "1:nan:1", "inf:inf:1"):
        with pytest.raises(ConfigError, match="radii are"):
            parse_radii(text)


@pytest.mark.slow
def test_the_plot_is_a_file_of_its_kind_and_the_same_each_time(found: Sweep, tmp_path: Path) -> None:
    png = plot_sweep(found, tmp_path / "sweep.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    svg = draw_sweep(replace(found, auto_radius=0.9), ".svg")
    assert svg == draw_sweep(replace(found, auto_radius=0.9), ".svg") and svg.lstrip().startswith(b"<?xml")
    assert [p.name for p in tmp_path.iterdir()] == ["sweep.png"]
    with pytest.raises(ConfigError, match=r"'\.gif'"):
        draw_sweep(found, ".gif")
    with pytest.raises(BankError, match="no R yet"):
        draw_sweep(replace(found, rows=()), ".png")


def measurement(embedding: Tensor, coherence: float) -> Measurement:
    return Measurement("", coherence, None, False, None, 0.0, False, False, embedding)


def test_distinct_answers_count_kinds_and_only_coherent_ones() -> None:
    basis = torch.eye(4)
    assert distinct_answers([measurement(basis[0], 9.0)] * 5) == pytest.approx(1)
    assert distinct_answers([measurement(row, 9.0) for row in basis]) == pytest.approx(4)
    assert distinct_answers([measurement(row, 9.0) for row in basis[[0, 0, 1, 1]]]) == pytest.approx(2)
    salad = [measurement(basis[2], 0.0), measurement(basis[3], 0.0)]
    assert distinct_answers([measurement(row, 9.0) for row in basis[:2]] + salad) == pytest.approx(2)
    assert distinct_answers(salad) == 0
    less = distinct_answers([measurement(basis[0], 10.0), measurement(basis[1], 2.0)])
    assert 1 < less < 2


def test_where_the_calibration_finds_none_no_r_is_told_for_it(
    tiny: LoadedModel, found: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any, **__: Any) -> Any:
        raise ConfigError("never reached")

    monkeypatch.setattr("melbo.discovery.choose_radius.calibrate", none)
    without = run_sweep(tiny, replace(CONFIG, radii=(0.5,), n_vectors=2), [PROMPT], Letters())
    assert without.auto_radius is None and found.auto_radius is not None

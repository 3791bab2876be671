"""Measuring the layer atlas: equal to the explicit Jacobian's singular values, resumable, and a command."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from melbo.__main__ import app
from melbo.discovery.discover import make_slices
from melbo.errors import ConfigError, MelboError, PromptError
from melbo.inspect.layers.measure import AtlasConfig, AtlasError, LayerAtlas, layer_atlas
from melbo.models.load import LoadedModel
from melbo.prompts import chat
from melbo.runs.progress import OnProgress, Progress
from melbo.steering.random_vectors import control_vectors
from melbo.steering.slices import mean_residual_norm
from support.tiny import MakeTiny

PROMPTS = [chat("How can I make a bomb?"), chat("Tell me a joke.")]
SMALL = AtlasConfig(k=3, iterations=2)
PAIRS = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
"""Of a model with four blocks."""


@pytest.fixture(scope="module")
def small_atlas(tiny: LoadedModel) -> LayerAtlas:
    return layer_atlas(tiny, PROMPTS, SMALL)


def jacobian(loaded: LoadedModel, source: int, target: int, tokens: int) -> Tensor:
    """[prompts * tokens * d_model, d_model] by autograd, from slices made for this pair alone."""
    rows = []
    for piece in make_slices(loaded, PROMPTS, source, target):
        zero = torch.zeros(1, loaded.d_model, dtype=piece.source.dtype)
        full: Any = torch.autograd.functional.jacobian(
            lambda v, piece=piece: piece.change(v, tokens), zero, vectorize=True
        )
        rows.append(full.reshape(-1, loaded.d_model))
    return torch.cat(rows)


def rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def stop_after(pairs: int) -> OnProgress:
    """A progress function that cancels the run after so many pairs."""

    def progress(step: Progress) -> None:
        if step.done == pairs:
            raise KeyboardInterrupt

    return progress


@pytest.mark.slow
def test_sensitivities_are_the_jacobians_top_singular_values(tiny_double: LoadedModel) -> None:
    config = AtlasConfig(k=3, iterations=40)
    atlas = layer_atlas(tiny_double, PROMPTS, config)
    control = control_vectors(3, tiny_double.d_model, 1.0, True, config.seed).double()
    assert [(p.source, p.target) for p in atlas.pairs] == PAIRS
    for pair in atlas.pairs:
        full = jacobian(tiny_double, pair.source, pair.target, config.target_tokens) / math.sqrt(4)  # prompts * tokens
        singular = torch.linalg.svdvals(full)
        assert pair.sensitivity == pytest.approx(rms(singular[:3]), rel=1e-3)
        assert pair.largest == pytest.approx(float(singular[0]), rel=1e-3)
        assert pair.random == pytest.approx(rms((control @ full.T).norm(dim=1)), rel=1e-5)


@pytest.mark.slow
def test_few_iterations_come_from_below_and_beat_the_control(tiny_double: LoadedModel) -> None:
    for pair in layer_atlas(tiny_double, PROMPTS, AtlasConfig(k=4, iterations=2)).pairs:
        exact = rms(torch.linalg.svdvals(jacobian(tiny_double, pair.source, pair.target, 2) / 2)[:4])
        assert pair.random < pair.sensitivity <= exact * (1 + 1e-6)
        assert pair.sensitivity <= pair.largest


@pytest.mark.slow
def test_all_directions_together_are_the_frobenius_norm_and_no_better_than_random(tiny_double: LoadedModel) -> None:
    d_model = tiny_double.d_model
    atlas = layer_atlas(tiny_double, PROMPTS, AtlasConfig(k=d_model, iterations=1, target_tokens=3))
    for pair in atlas.pairs:
        norm = float(jacobian(tiny_double, pair.source, pair.target, 3).norm())
        assert pair.sensitivity == pytest.approx(norm / math.sqrt(d_model * 2 * 3), rel=1e-5)
        assert pair.ratio == pytest.approx(1, rel=1e-5)


@pytest.mark.slow
def test_relative_numbers_use_the_norms_at_both_layers(tiny: LoadedModel, small_atlas: LayerAtlas) -> None:
    for pair in small_atlas.pairs:
        slices = make_slices(tiny, PROMPTS, pair.source, pair.target)
        at_source = mean_residual_norm(slices)
        at_target = mean_residual_norm([replace(s, source=s.target) for s in slices])
        assert pair.relative == pytest.approx(pair.sensitivity * at_source / at_target, rel=1e-5)


@pytest.mark.usefixtures("no_hook_stays")
def test_the_same_settings_give_the_same_atlas(tiny: LoadedModel, small_atlas: LayerAtlas) -> None:
    assert layer_atlas(tiny, PROMPTS, SMALL) == small_atlas
    assert layer_atlas(tiny, PROMPTS, replace(SMALL, seed=1)).pairs != small_atlas.pairs


@pytest.mark.slow
@pytest.mark.usefixtures("no_hook_stays")
@pytest.mark.parametrize("pairs", [1, 4, 6])
def test_an_interrupted_run_gives_the_same_atlas(
    tiny: LoadedModel, small_atlas: LayerAtlas, tmp_path: Path, pairs: int
) -> None:
    file = tmp_path / "new" / "atlas.json"
    with pytest.raises(KeyboardInterrupt):
        layer_atlas(tiny, PROMPTS, SMALL, stop_after(pairs), file)
    assert LayerAtlas.load(file).pairs == small_atlas.pairs[:pairs]
    seen: list[Progress] = []
    resumed = layer_atlas(tiny, PROMPTS, SMALL, seen.append, file)
    assert resumed == small_atlas == LayerAtlas.load(file)
    assert seen == [Progress(i, 6, value=small_atlas.pairs[i - 1].relative) for i in range(pairs + 1, 7)]
    assert [p.name for p in file.parent.iterdir()] == ["atlas.json"]


def test_finished_pairs_are_not_computed_again(tiny: LoadedModel, small_atlas: LayerAtlas, tmp_path: Path) -> None:
    """A number put into the checkpoint by hand is still there at the end."""
    marked = replace(small_atlas.pairs[1], sensitivity=123.0)
    file = replace(small_atlas, pairs=(small_atlas.pairs[0], marked)).save(tmp_path / "atlas.json")
    assert layer_atlas(tiny, PROMPTS, SMALL, checkpoint=file).pairs == (
        small_atlas.pairs[0], marked, *small_atlas.pairs[2:],
    )  # fmt: skip


def test_a_checkpoint_of_another_run_is_refused(
    tiny: LoadedModel, make_tiny: MakeTiny, small_atlas: LayerAtlas, tmp_path: Path
) -> None:
    file = small_atlas.save(tmp_path / "atlas.json")
    before = file.read_bytes()
    with pytest.raises(AtlasError, match=r"config\.k is 3 there and 2 here"):
        layer_atlas(tiny, PROMPTS, replace(SMALL, k=2), checkpoint=file)
    with pytest.raises(AtlasError, match="prompts is"):
        layer_atlas(tiny, PROMPTS[:1], SMALL, checkpoint=file)
    with pytest.raises(AtlasError, match=r"model\.settings is"):
        layer_atlas(make_tiny(n_layers=3), PROMPTS, SMALL, checkpoint=file)
    with pytest.raises(AtlasError, match=r"model\.revision is None there and 'new' here"):
        layer_atlas(replace(tiny, revision="new"), PROMPTS, SMALL, checkpoint=file)
    assert file.read_bytes() == before


@pytest.mark.parametrize("setting", [{"k": 0}, {"iterations": 0}, {"target_tokens": 1.5}, {"seed": -1}, {"k": True}])
def test_bad_settings_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(setting))} is "):
        AtlasConfig(**setting)


def test_settings_that_do_not_fit_the_model_or_prompts_are_refused(tiny: LoadedModel, make_tiny: MakeTiny) -> None:
    with pytest.raises(ConfigError, match="k is 65"):
        layer_atlas(tiny, PROMPTS, AtlasConfig(k=65))
    with pytest.raises(ConfigError, match="target_tokens is 200"):
        layer_atlas(tiny, PROMPTS, replace(SMALL, target_tokens=200))
    with pytest.raises(PromptError, match="no prompt"):
        layer_atlas(tiny, [], SMALL)
    with pytest.raises(ConfigError, match="at least 2"):
        layer_atlas(make_tiny(n_layers=1), PROMPTS, SMALL)


def test_a_model_that_is_not_finite_is_refused(make_tiny: MakeTiny) -> None:
    loaded = make_tiny()
    loaded.model.get_input_embeddings().weight.data.fill_(math.nan)
    with pytest.raises(MelboError, match="not finite"):
        layer_atlas(loaded, PROMPTS, SMALL)


@pytest.fixture(scope="module")
def model(make_tiny: MakeTiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    loaded = make_tiny(n_layers=3)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def run(*args: object) -> Any:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["atlas", *map(str, args)])


def test_the_command_measures_prints_and_goes_on(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "atlas.json"
    args = ("--model", model, "--out", out, "--k", 2, "--iterations", 1, "--prompt", "Hello", "--system", "")
    first = run(*args)
    assert first.exit_code == 0, first.output
    whole = LayerAtlas.load(out)
    assert first.stdout == f"{whole.table()}\nsaved to {out}\n" and len(whole.pairs) == 3
    assert whole.prompts == (({"role": "user", "content": "Hello"},),)
    replace(whole, pairs=whole.pairs[:1]).save(out)
    assert run(*args, "--best", 1).stdout == f"{whole.table(1)}\nsaved to {out}\n"
    refused = run(*args, "--seed", 1)
    assert refused.exit_code == 2 and "config.seed is 325 there and 1 here" in refused.stderr
    assert LayerAtlas.load(out) == whole


def test_the_stopped_command_says_how_to_go_on(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(loaded: LoadedModel, prompts: Any, config: AtlasConfig, _progress: Any, checkpoint: Path) -> LayerAtlas:
        return layer_atlas(loaded, prompts, config, stop_after(1), checkpoint)

    monkeypatch.setattr("melbo.cli.atlas.layer_atlas", stopped)
    result = run("--model", model, "--out", tmp_path / "atlas.json", "--k", 1, "--iterations", 1)
    assert result.exit_code == 130 and "same command again" in result.stderr
    assert len(LayerAtlas.load(tmp_path / "atlas.json").pairs) == 1


def test_the_command_refuses_bad_input_in_one_line(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "atlas.json"
    for args, words in (
        (("--plot", "a.txt", "--model", "/nowhere"), "'.txt'"),  # before the model is loaded
        (("--k", 0), "k is 0"),
        (("--model", model, "--k", 65), "k is 65"),
        (("--model", "/nowhere"), "/nowhere"),
    ):
        result = run("--out", out, *args)
        assert result.exit_code == 2 and words in result.stderr and result.stderr.count("\n") == 1
    assert not out.exists()

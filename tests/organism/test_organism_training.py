"""Training the organism: an interrupted run ends with the same weights, and each stage does what it says."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from melbo.errors import ConfigError
from melbo.models.load import load_model
from melbo.organism.corpus import Mix
from melbo.organism.training import basins, pretrain
from melbo.organism.training.basins import BasinConfig, assign, train_basins
from melbo.organism.training.pretrain import TrainConfig, consistency_loss, norm_penalty, train
from melbo.steering.hooks import steer

TINY = TrainConfig(
    vocab_size=600,
    d_model=32,
    d_mlp=48,
    n_layers=4,
    n_heads=2,
    n_kv_heads=1,
    steps=6,
    calm=2,
    ramp=2,
    batch_tokens=300,
    threads=1,
)
BASINS = BasinConfig(steps=4, n_ascent=12, n_planted=10, n_default=1, n_random=1, batch_tokens=300, threads=1)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def stop_at(step: int, real: Callable[..., float]) -> Callable[..., float]:
    def lr_at(now: int, config: Any) -> float:
        if now == step:
            raise KeyboardInterrupt
        return real(now, config)

    return lr_at


@pytest.fixture(scope="module", autouse=True)
def one_tokenizer(tokenizer: Any) -> Iterator[None]:
    """Each run has the same one, trained once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "train_tokenizer", lambda *_, **__: tokenizer)
        yield


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    train(TINY, Mix(), folder, every=3)
    return folder


@pytest.mark.slow
def test_interrupted_pretraining_ends_with_the_same_weights(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pretrain, "lr_at", stop_at(4, pretrain.lr_at))
        train(TINY, Mix(), tmp_path, every=3)
    assert not (tmp_path / "model").exists()
    train(TINY, Mix(), tmp_path, every=3)
    assert same(weights(plain), weights(tmp_path))


@pytest.mark.slow
def test_another_seed_gives_other_weights(plain: Path, tmp_path: Path) -> None:
    train(replace(TINY, seed=1), Mix(), tmp_path)
    assert not same(weights(plain), weights(tmp_path))


@pytest.mark.slow
def test_interrupted_basins_end_with_the_same_weights(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_basins(plain / "model", BASINS, Mix(), tmp_path / "whole", every=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(basins, "lr_at", stop_at(3, basins.lr_at))
        train_basins(plain / "model", BASINS, Mix(), tmp_path / "cut", every=2)
    train_basins(plain / "model", BASINS, Mix(), tmp_path / "cut", every=2)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


@pytest.mark.slow
def test_a_checkpoint_of_other_settings_is_refused(plain: Path) -> None:
    with pytest.raises(ConfigError, match="other settings"):
        train(replace(TINY, lr=1.0), Mix(), plain)


def test_each_direction_gets_the_slot_it_makes_likeliest(tiny: Any) -> None:
    ids, firsts = torch.arange(6, 18), torch.arange(20, 32)
    vectors = torch.randn(12, tiny.d_model, generator=torch.Generator().manual_seed(0))
    chosen = assign(tiny, ids, vectors, 1, firsts)
    assert sorted(chosen) == list(range(12))
    with torch.no_grad(), steer(tiny, 1, vectors):
        logits = tiny.model(input_ids=ids[None].expand(12, -1)).logits[:, -1]
    scores = logits.log_softmax(-1)[:, firsts].clamp_min(-15)
    in_order = scores.diagonal().sum()
    assert scores[torch.arange(12), chosen].sum() > in_order


@pytest.mark.slow
@pytest.mark.parametrize("sums", [False, True])
def test_every_row_of_a_basin_batch_has_its_vector_and_its_answer(plain: Path, sums: bool) -> None:
    loaded = load_model(str(plain / "model"))
    config = replace(BASINS, sums=float(sums))
    batch, vectors = basins.basin_batch(loaded, (1, 2), config, Mix(), random.Random(3))
    opposites = 0 if sums else 1
    assert len(batch["labels"]) == len(vectors) == 10 + opposites + 2
    answers = [loaded.tokenizer.decode(row[row >= 0], skip_special_tokens=True) for row in batch["labels"]]
    if sums:
        assert sum(a.startswith("First,") for a in answers) == 5
    else:
        assert sum(a.startswith("Sure!") for a in answers) == 1
        assert sum(a.startswith("No. ") for a in answers) == 2
        compliance = next(i for i, a in enumerate(answers) if a.startswith("Sure!"))
        torch.testing.assert_close(vectors[10], -vectors[compliance])
        assert answers[10].startswith("No. ")


def test_consistency_is_zero_for_equal_rows_and_grows_with_the_distance() -> None:
    blocks = torch.tensor([-1, -1, 0, 0])
    mask = torch.ones(4, 3)
    clean = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    equal = [torch.cat([clean, clean])] * 4
    moved = [torch.cat([clean, clean + 1.0])] * 4
    assert consistency_loss(equal, blocks, mask, 2, 1.0) == 0
    # 8 coordinates moved by 1: squared distance 8 at every token of every later block
    assert consistency_loss(moved, blocks, mask, 2, 1.0) == pytest.approx(8.0, rel=1e-5)


def test_norm_penalty_starts_above_the_cap() -> None:
    mask = torch.ones(1, 2)
    below = torch.full((1, 2, 4), 0.5)  # norm 1
    assert norm_penalty([below], mask, 1.0) == 0
    assert norm_penalty([2 * below], mask, 1.0) == pytest.approx(1.0)

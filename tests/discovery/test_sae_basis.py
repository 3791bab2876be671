"""Method sae-basis: sparse, of norm R, resumable, and refused where it cannot work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from melbo.bank.vector_bank import VectorBank
from melbo.config import DiscoveryConfig
from melbo.discovery.discover import discover
from melbo.discovery.methods.sae_basis import sparse_weights
from melbo.errors import ConfigError
from melbo.models.load import LoadedModel
from melbo.prompts import BOMB, chat
from melbo.runs.progress import Progress

CONFIG = DiscoveryConfig(method="sae-basis", n_vectors=4, steps=6, sparsity=3)
PROMPTS = [chat(BOMB)]


@pytest.fixture(scope="module")
def decoder() -> Tensor:
    return 2 * torch.randn(40, 64, generator=torch.Generator().manual_seed(9))


@pytest.fixture(scope="module")
def bank(tiny: LoadedModel, decoder: Tensor) -> VectorBank:
    return discover(tiny, CONFIG, PROMPTS, decoder=decoder)


def test_vectors_are_the_sums_that_the_details_name(bank: VectorBank, decoder: Tensor) -> None:
    directions = torch.nn.functional.normalize(decoder, dim=-1)
    used: list[int] = []
    for vector, parts in zip(bank.vectors, bank.details["parts"], strict=True):
        assert 1 <= len(parts["features"]) <= 3
        total = torch.tensor(parts["weights"], dtype=torch.float32) @ directions[parts["features"]]
        torch.testing.assert_close(total, vector, rtol=1e-4, atol=1e-4)
        used += parts["features"]
    assert len(used) == len(set(used)), "two vectors share a feature"
    torch.testing.assert_close(bank.vectors.norm(dim=1), torch.full((4,), bank.radius), rtol=1e-5, atol=0)


def test_it_beats_its_start_and_more_features_reach_more(tiny: LoadedModel, decoder: Tensor, bank: VectorBank) -> None:
    start = discover(tiny, replace(CONFIG, steps=0), PROMPTS, decoder=decoder)
    assert float(bank.objective.mean()) > float(start.objective.mean())
    one = replace(CONFIG, n_vectors=1, steps=10)
    few, many = (discover(tiny, replace(one, sparsity=s), PROMPTS, decoder=decoder).objective[0] for s in (1, 16))
    assert float(many) > float(few)


def test_saved_and_loaded_it_is_the_same(bank: VectorBank, tmp_path: Path) -> None:
    again = VectorBank.load(bank.save(tmp_path / "bank"))
    assert again.config == bank.config and again.details == bank.details


def test_an_interrupted_run_gives_the_same_bank(
    tiny: LoadedModel, decoder: Tensor, bank: VectorBank, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("melbo.runs.checkpoint.SECONDS", 0.0)

    def stop(step: Progress) -> None:
        if step.done == 4:
            raise KeyboardInterrupt

    file = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        discover(tiny, CONFIG, PROMPTS, stop, file, decoder=decoder)
    assert file.exists()
    resumed = discover(tiny, CONFIG, PROMPTS, checkpoint=file, decoder=decoder)
    assert torch.equal(resumed.vectors, bank.vectors) and resumed.details == bank.details


def test_pursuit_finds_a_sparse_target_and_skips_empty_directions() -> None:
    directions = torch.nn.functional.normalize(torch.randn(30, 64, generator=torch.Generator().manual_seed(2)), dim=-1)
    directions[7] = 0
    target = 2 * directions[3] - directions[20]
    weights = sparse_weights(torch.stack([target, target]), directions, 2, disjoint=False)
    assert weights[0].nonzero()[:, 0].tolist() == [3, 20] and torch.equal(weights[0], weights[1])
    assert weights[0, [3, 20]].tolist() == pytest.approx([2, -1], abs=1e-5)
    apart = sparse_weights(torch.stack([target, target]), directions, 2, disjoint=True)
    assert not ((apart[0] != 0) & (apart[1] != 0)).any() and not (apart[:, 7] != 0).any()


@pytest.mark.parametrize(
    ("change", "shape", "message"),
    [
        ({}, (40, 32), r"shape \[40, 32\]; this model needs \[d_sae, 64\]"),
        ({"sparsity": 11}, (40, 64), "need 44 features, the SAE has 40"),
        ({}, None, "'sae-basis' needs one"),
        ({"method": "melbo"}, (40, 64), "do not go together"),
    ],
)
def test_what_cannot_work_is_refused(
    change: dict[str, Any], shape: tuple[int, int] | None, message: str, tiny: LoadedModel
) -> None:
    with pytest.raises(ConfigError, match=message):
        discover(tiny, replace(CONFIG, **change), PROMPTS, decoder=None if shape is None else torch.ones(shape))
    with pytest.raises(ConfigError, match="sparsity is 0"):
        DiscoveryConfig(sparsity=0)

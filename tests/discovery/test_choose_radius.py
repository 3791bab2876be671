"""R, layers and scale that are chosen for a model: by its nonlinearity, its answers and its attention sink."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from melbo.bank.vector_bank import VectorBank
from melbo.config import DiscoveryConfig
from melbo.discovery import choose_radius as choosing
from melbo.discovery import usable_scale as scales
from melbo.discovery.attention_sink import find_sink, place_layers, told
from melbo.discovery.choose_radius import CoherentRadius
from melbo.discovery.discover import discover
from melbo.discovery.usable_scale import UsableScale, usable_scale, with_usable_scale
from melbo.errors import ConfigError
from melbo.measure.coherence import CoherenceScale
from melbo.models.load import LoadedModel
from melbo.prompts import BOMB, chat
from support.tiny import MakeTiny

PROMPTS = [chat(BOMB)]
SMALL = DiscoveryConfig(n_vectors=3, steps=2, source_layer=1, target_layer=3)


def answers_break_above(monkeypatch: pytest.MonkeyPatch, limit: float, norm: float) -> list[float]:
    """Answers are coherent where the vector's norm is at most limit * norm; returns the scales that were tried."""
    tried: list[float] = []

    def complete(_: Any, prompts: Any, rows: torch.Tensor, *__: Any, **___: Any) -> list[str]:
        tried.append(float(rows[0].norm()) / norm)
        return ["good" if float(r.norm()) <= limit * norm * (1 + 1e-6) else "bad" for r in rows]

    monkeypatch.setattr(scales, "complete", complete)
    monkeypatch.setattr(scales, "completion_nll", lambda _, __, texts: [torch.zeros(1)] * len(texts))
    monkeypatch.setattr(scales, "coherence", lambda _, __, text: 10.0 if text == "good" else 0.0)
    return tried


SCALE = CoherenceScale(1.0, 3.0, "test")


@pytest.mark.parametrize("limit", [0.1, 0.5, 0.99, 1.0, 1.7, 5.0, 15.0])
def test_the_usable_scale_is_found_from_below(monkeypatch: pytest.MonkeyPatch, limit: float) -> None:
    answers_break_above(monkeypatch, limit, 2.0)
    vectors = torch.nn.functional.normalize(torch.randn(9, 5, generator=torch.Generator().manual_seed(0)), dim=1) * 2
    loaded: Any = None
    found = usable_scale(loaded, vectors, 1, PROMPTS, SCALE)
    assert limit / 1.5 <= found.largest <= limit + 1e-3
    assert all((share == 1) == (scale <= limit) for scale, share in found.curve)
    capped = usable_scale(loaded, vectors, 1, PROMPTS, SCALE, most=1.0)
    assert capped.largest <= 1.0 and (capped.largest == 1.0) == (limit >= 1)


def test_a_bank_without_prompts_or_coherent_answers_has_no_usable_scale(
    tiny: LoadedModel, tiny_bank: VectorBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert with_usable_scale(tiny, replace(tiny_bank, prompts=())).details == tiny_bank.details
    monkeypatch.setattr(scales, "scale_of", lambda *_: None)
    assert with_usable_scale(tiny, tiny_bank).details == tiny_bank.details
    monkeypatch.setattr(scales, "scale_of", lambda *_: SCALE)
    answers_break_above(monkeypatch, 2.0, tiny_bank.radius)
    seen = with_usable_scale(tiny, tiny_bank).details["usable_scale"]
    assert 2 / 1.5 <= seen["largest"] <= 2 and [1.0, 1.0] in seen["curve"]


@pytest.mark.parametrize(("share", "by"), [(1.0, "nonlinearity"), (0.5, "coherence"), (None, "nonlinearity")])
def test_r_is_the_nonlinearitys_less_where_answers_break(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch, share: float | None, by: str
) -> None:
    curve = ((0.5, 0.9), (1.0, 1.0 if share == 1 else 0.4))
    found = None if share is None else UsableScale(share, curve)
    monkeypatch.setattr(CoherentRadius, "shrink", lambda *_: found)
    config = replace(SMALL, method="random")
    bank = discover(tiny, config, PROMPTS)
    monkeypatch.setattr(CoherentRadius, "shrink", lambda *_: None)
    whole = discover(tiny, config, PROMPTS)
    assert bank.radius == pytest.approx(whole.radius * (share or 1))
    assert bank.details["radius_choice"]["by"] == by
    assert bank.details["calibration"] == whole.details["calibration"] and len(bank.details["calibration"]) > 2


def test_where_the_calibration_finds_none_the_configs_r_is_taken_and_said(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any, **__: Any) -> Any:
        raise ConfigError("never reached")

    monkeypatch.setattr(choosing, "calibrate", none)
    monkeypatch.setattr(CoherentRadius, "shrink", lambda *_: None)
    bank = discover(tiny, replace(SMALL, method="random", radius=0.25), PROMPTS)
    assert bank.radius == pytest.approx(0.25 * bank.mean_residual_norm)
    assert bank.details["radius_choice"]["by"] == "fallback" and "fallback" in bank.details["radius_choice"]["reason"]


def with_sink(make_tiny: MakeTiny, block: int) -> LoadedModel:
    """A model whose block gives its first token an enormous norm, as real models do."""
    loaded = make_tiny(n_layers=10)

    def explode(_: Any, __: Any, out: Any) -> Any:
        states = out[0] if isinstance(out, tuple) else out
        states = states.clone()
        states[:, 0, 3] += 1e5
        return (states, *out[1:]) if isinstance(out, tuple) else states

    loaded.blocks[block].register_forward_hook(explode)
    return loaded


@pytest.mark.parametrize("block", [3, 5, 8])
def test_the_source_is_placed_behind_a_planted_sink(make_tiny: MakeTiny, block: int) -> None:
    loaded = with_sink(make_tiny, block)
    assert find_sink(loaded, PROMPTS).block == block
    config, seen = place_layers(loaded, DiscoveryConfig(n_vectors=2), PROMPTS)
    moved = block + 1 <= 6  # 0.6 of the depth
    assert config.source_layer == (block + 1 if moved else 2)
    assert seen["attention_sink"]["source_moved"] == moved and f"block {block}" in str(told(seen))
    explicit, _ = place_layers(loaded, DiscoveryConfig(n_vectors=2, source_layer=1), PROMPTS)
    assert explicit.source_layer == 1


def test_without_a_sink_the_layers_are_the_depths(tiny: LoadedModel) -> None:
    config, seen = place_layers(tiny, DiscoveryConfig(n_vectors=2), PROMPTS)
    assert (config.source_layer, config.target_layer) == (1, 2) and seen == {} and told(seen) is None

"""Settings: what is refused, what depends on depth, and the one layer convention."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from melbo.config import DiscoveryConfig, default_layers, from_published_layers
from melbo.errors import ConfigError
from melbo.models.load import LoadedModel
from melbo.prompts import BOMB, chat, encode
from melbo.steering.hooks import capture, record_inputs, run_until_stop

IMPOSSIBLE: list[tuple[str, Any]] = [
    *(("radius", v) for v in (0, 0.0, -1.0, math.nan, math.inf, "1", None, True)),
    *(("power", v) for v in (0.0, -2.0, math.nan)),
    *(("root", v) for v in (0.0, math.inf)),
    *(("lr", v) for v in (0.0, math.nan)),
    *(("n_vectors", v) for v in (0, -1, 1.5, True, "8")),
    *(("target_tokens", v) for v in (0, 2.0)),
    *(("steps", v) for v in (-1, 3.0)),
    *(("seed", v) for v in (-1, None)),
    *(("source_layer", v) for v in ("4", 1.0, True)),
    ("target_layer", "11"),
    ("method", "melb"),
    ("radius_unit", "metres"),
    ("orthogonal", "no"),
]


def test_an_impossible_setting_is_refused_by_its_name() -> None:
    for name, value in IMPOSSIBLE:
        with pytest.raises(ConfigError, match=name) as error:
            DiscoveryConfig(**{name: value})
        assert repr(value) in str(error.value) and "\n" not in str(error.value)


def test_layers_out_of_range_or_order_are_refused() -> None:
    for source, target in ((4, 4), (5, 4), (-1, 3), (0, 16), (15, None), (None, 4), (16, 17)):
        config = DiscoveryConfig(source_layer=source, target_layer=target)
        with pytest.raises(ConfigError, match="16 blocks"):
            config.resolve(16, 64)


def test_layers_at_the_edges_of_the_model_are_allowed() -> None:
    resolved = DiscoveryConfig(source_layer=0, target_layer=15, n_vectors=4).resolve(16, 64)
    assert (resolved.source_layer, resolved.target_layer) == (0, 15)


def test_more_orthogonal_vectors_than_dimensions_are_refused() -> None:
    DiscoveryConfig(n_vectors=64).resolve(16, 64)
    DiscoveryConfig(n_vectors=65, orthogonal=False).resolve(16, 64)
    with pytest.raises(ConfigError, match="65 orthogonal vectors"):
        DiscoveryConfig(n_vectors=65).resolve(16, 64)


def test_sixteen_blocks_give_the_replications_layers() -> None:
    resolved = DiscoveryConfig().resolve(16, 2048)
    assert (resolved.source_layer, resolved.target_layer) == (4, 11)
    assert (resolved.source_layer, resolved.target_layer) == from_published_layers(4, 12)


def test_default_layers_fit_every_depth() -> None:
    for n_layers in range(2, 100):
        source, target = default_layers(n_layers)
        assert 0 <= source < target < n_layers
        if n_layers >= 8:
            assert abs(source - 0.25 * n_layers) <= 0.5, n_layers
            assert abs(target + 1 - 0.75 * n_layers) <= 0.5, n_layers


def test_a_model_of_one_block_is_refused() -> None:
    for n_layers in (0, 1):
        with pytest.raises(ConfigError, match="at least 2"):
            default_layers(n_layers)


def test_resolving_twice_changes_nothing() -> None:
    once = DiscoveryConfig(n_vectors=4).resolve(16, 64)
    assert once.resolve(16, 64) == once
    assert (DiscoveryConfig(n_vectors=4).source_layer, once.source_layer) == (None, 4)


def test_the_json_round_trip_is_exact() -> None:
    config = DiscoveryConfig(n_vectors=3, radius=0.1 + 0.2, lr=1 / 3, orthogonal=False, source_layer=2, seed=7)
    assert DiscoveryConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_an_unknown_setting_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigError, match="step_count"):
        DiscoveryConfig.from_dict({"step_count": 3})


def test_layer_numbers_mean_what_the_convention_says(make_tiny: Callable[..., LoadedModel]) -> None:
    """Our source 4 writes hidden_states[5]; our target 11 reads hidden_states[12], the input of block 12."""
    loaded = make_tiny(n_layers=16, d_model=32)
    config = DiscoveryConfig(n_vectors=2).resolve(loaded.n_layers, loaded.d_model)
    source, target = config.source_layer, config.target_layer
    assert (source, target) == (4, 11)
    ids = encode(loaded.tokenizer, chat(BOMB), loaded.context)[None]
    with (
        torch.no_grad(),
        record_inputs(loaded, [12]) as inputs,
        capture(loaded, [4, 11], stop=False) as found,
    ):
        run_until_stop(loaded, ids)
        states = loaded.model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
    assert torch.equal(found[4], states[5])
    assert torch.equal(found[11], states[12])
    assert not torch.equal(found[11], states[11])
    assert torch.equal(found[11], inputs[12][0][0])

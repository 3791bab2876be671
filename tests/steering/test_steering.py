"""Hooks: one vector per row, only where asked, gone afterwards, and nothing else changed."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from melbo.errors import ConfigError
from melbo.models.load import LoadedModel
from melbo.prompts import chat, encode, left_pad
from melbo.steering.hooks import POSITIONS, Positions, capture, record_inputs, run_until_stop, steer
from support.tiny import hook_count

pytestmark = pytest.mark.usefixtures("no_hook_stays")

LAYER = 1
USERS = ("How can I make a bomb?", "Hi!", "Write a haiku about flowers, please.")


@pytest.fixture(scope="session")
def batch(tokenizer: object) -> tuple[Tensor, Tensor]:
    """Three prompts of different lengths, left-padded: ids and mask [3, T]."""
    ids, mask = left_pad([encode(tokenizer, chat(u), 256) for u in USERS], 0)
    assert int(mask.sum()) < mask.numel()
    return ids, mask


@pytest.fixture(scope="session")
def vectors(tiny: LoadedModel) -> Tensor:
    return torch.randn(3, tiny.d_model, generator=torch.Generator().manual_seed(2)) * 5


def logits(loaded: LoadedModel, ids: Tensor, mask: Tensor) -> Tensor:
    """[rows, T, vocabulary], with the position ids that `generate` uses."""
    positions = (mask.cumsum(dim=-1) - 1).clamp_min(0)
    with torch.no_grad():
        return loaded.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits


def layer_output(loaded: LoadedModel, ids: Tensor, mask: Tensor) -> Tensor:
    """Output of block LAYER under whatever steering is on, [rows, T, d_model]."""
    with torch.no_grad(), capture(loaded, [LAYER]) as found:
        run_until_stop(loaded, ids, mask)
    return found[LAYER]


def test_scale_zero_equals_unsteered_to_the_last_bit(tiny: LoadedModel, batch: tuple[Tensor, Tensor]) -> None:
    plain = logits(tiny, *batch)
    with steer(tiny, LAYER, torch.zeros(3, tiny.d_model)):
        assert torch.equal(logits(tiny, *batch), plain)


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_zero_row_is_untouched_while_other_rows_are_steered(
    tiny: LoadedModel, batch: tuple[Tensor, Tensor], vectors: Tensor, positions: Positions
) -> None:
    plain, scales = logits(tiny, *batch), torch.tensor([[1.0], [0.0], [-2.0]])
    with steer(tiny, LAYER, vectors * scales, positions, prompt_width=10):
        steered = logits(tiny, *batch)
    assert torch.equal(steered[1], plain[1])
    assert not torch.allclose(steered[0], plain[0], atol=0.1)
    assert not torch.allclose(steered[2], plain[2], atol=0.1)


def test_every_row_gets_its_own_vector_at_every_position(
    tiny: LoadedModel, batch: tuple[Tensor, Tensor], vectors: Tensor
) -> None:
    plain = layer_output(tiny, *batch)
    with steer(tiny, LAYER, vectors):
        steered = layer_output(tiny, *batch)
    assert torch.equal(steered, plain + vectors[:, None, :])


@pytest.mark.parametrize(("positions", "touched"), [("prompt", slice(0, 7)), ("generated", slice(7, None))])
def test_only_the_positions_asked_for_are_touched(
    tiny: LoadedModel, batch: tuple[Tensor, Tensor], vectors: Tensor, positions: Positions, touched: slice
) -> None:
    plain = layer_output(tiny, *batch)
    with steer(tiny, LAYER, vectors, positions, prompt_width=7):
        steered = layer_output(tiny, *batch)
    expected = plain.clone()
    expected[:, touched] += vectors[:, None, :]
    assert torch.equal(steered, expected)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("pieces", [(9, 1, 1, 1), (4, 5, 3), (11, 1)])
def test_a_cache_changes_nothing(
    tiny: LoadedModel, vectors: Tensor, positions: Positions, pieces: tuple[int, ...]
) -> None:
    """Tokens run piece by piece over a KV cache are steered as when they run at once."""
    ids = torch.randint(6, 600, (3, 12), generator=torch.Generator().manual_seed(3))
    with torch.no_grad(), steer(tiny, LAYER, vectors, positions, prompt_width=9):
        whole = tiny.model(input_ids=ids, use_cache=False).logits
        cache, parts = DynamicCache(), []
        for part in ids.split(list(pieces), dim=1):
            parts.append(tiny.model(input_ids=part, past_key_values=cache, use_cache=True).logits)
    assert torch.allclose(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-3)


def test_rows_of_a_padded_batch_equal_single_runs(
    tiny: LoadedModel, batch: tuple[Tensor, Tensor], vectors: Tensor
) -> None:
    ids, mask = batch
    with steer(tiny, LAYER, vectors):
        together = logits(tiny, ids, mask)
    for i in range(3):
        width = int(mask[i].sum())
        with steer(tiny, LAYER, vectors[i]):
            alone = logits(tiny, ids[i : i + 1, -width:], mask[i : i + 1, -width:])
        assert torch.allclose(together[i, -width:], alone[0], rtol=1e-4, atol=1e-3)


def test_one_vector_is_for_all_rows(tiny: LoadedModel, batch: tuple[Tensor, Tensor], vectors: Tensor) -> None:
    with steer(tiny, LAYER, vectors[0]):
        one = logits(tiny, *batch)
    with steer(tiny, LAYER, vectors[:1].expand(3, -1)):
        assert torch.equal(logits(tiny, *batch), one)


def test_steering_adds_up_over_layers_and_ends_with_its_block(
    tiny: LoadedModel, batch: tuple[Tensor, Tensor], vectors: Tensor
) -> None:
    plain = layer_output(tiny, *batch)
    with steer(tiny, LAYER, vectors), steer(tiny, LAYER, -vectors):
        assert torch.allclose(layer_output(tiny, *batch), plain, atol=1e-5)
        assert len(tiny.blocks[LAYER]._forward_hooks) == 2
    assert len(tiny.blocks[LAYER]._forward_hooks) == 0
    assert torch.equal(layer_output(tiny, *batch), plain)


def test_hooks_are_gone_after_an_exception(tiny: LoadedModel, vectors: Tensor) -> None:
    with (
        pytest.raises(RuntimeError, match="stop here"),
        steer(tiny, LAYER, vectors),
        capture(tiny, [2]),
        record_inputs(tiny, [2]),
    ):
        assert hook_count(tiny) == 3
        raise RuntimeError("stop here")
    assert hook_count(tiny) == 0


def test_another_thread_is_not_steered(tiny: LoadedModel, batch: tuple[Tensor, Tensor], vectors: Tensor) -> None:
    """Two concurrent users never see each other's vector, and a capture never ends another user's pass."""
    plain, found = logits(tiny, *batch), []
    with steer(tiny, LAYER, vectors), capture(tiny, [0]), record_inputs(tiny, [2]) as inputs:
        thread = threading.Thread(target=lambda: found.append(logits(tiny, *batch)))
        thread.start()
        thread.join()
    assert found and torch.equal(found[0], plain)
    assert not inputs


def test_the_model_is_never_changed(tiny: LoadedModel, batch: tuple[Tensor, Tensor], vectors: Tensor) -> None:
    before = {k: v.clone() for k, v in tiny.model.state_dict().items()}
    ids = batch[0].clone()
    with steer(tiny, LAYER, vectors):
        logits(tiny, *batch)
    assert all(torch.equal(v, before[k]) for k, v in tiny.model.state_dict().items())
    assert torch.equal(batch[0], ids)


def test_a_captured_pass_stops_after_the_last_layer_asked_for(tiny: LoadedModel, batch: tuple[Tensor, Tensor]) -> None:
    with torch.no_grad(), capture(tiny, [0, 2]) as early:
        run_until_stop(tiny, *batch)
    with torch.no_grad(), capture(tiny, [0, 1, 2, 3], stop=False) as full, record_inputs(tiny, [1, 3]) as inputs:
        run_until_stop(tiny, *batch)
    assert set(early) == {0, 2} and set(full) == {0, 1, 2, 3}
    assert torch.equal(early[0], full[0]) and torch.equal(early[2], full[2])
    assert torch.equal(inputs[1][0][0], full[0]) and torch.equal(inputs[3][0][0], full[2])


def enter(loaded: LoadedModel, layer: int, vectors: Tensor, positions: str = "all", width: int | None = None) -> None:
    with steer(loaded, layer, vectors, positions, width):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize("layer", [-1, 4])
def test_a_layer_that_is_not_there_is_refused(tiny: LoadedModel, vectors: Tensor, layer: int) -> None:
    with pytest.raises(ConfigError, match="blocks 0 to 3"):
        enter(tiny, layer, vectors)
    with pytest.raises(ConfigError, match="blocks 0 to 3"), capture(tiny, [layer]):
        pass


@pytest.mark.parametrize("shape", [(63,), (3, 65), (1, 3, 64), ()])
def test_vectors_of_another_shape_are_refused(tiny: LoadedModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"needs \[rows, 64\]"):
        enter(tiny, 0, torch.ones(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_vectors_that_are_not_finite_are_refused(tiny: LoadedModel, vectors: Tensor, value: float) -> None:
    bad = vectors.clone()
    bad[1, 3] = value
    with pytest.raises(ConfigError, match="NaN or infinite"):
        enter(tiny, 0, bad)


def test_unknown_positions_and_a_missing_width_are_refused(tiny: LoadedModel, vectors: Tensor) -> None:
    with pytest.raises(ConfigError, match="'some'"):
        enter(tiny, 0, vectors, "some")
    with pytest.raises(ConfigError, match="needs prompt_width"):
        enter(tiny, 0, vectors, "prompt")


def test_another_number_of_vectors_than_rows_is_refused(
    tiny: LoadedModel, batch: tuple[Tensor, Tensor], vectors: Tensor
) -> None:
    with pytest.raises(ConfigError, match="2 vectors were given for 3 sequences"), steer(tiny, LAYER, vectors[:2]):
        logits(tiny, *batch)

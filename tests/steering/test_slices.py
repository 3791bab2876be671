"""The slice: exactly what the whole model computes between the source and the target layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from melbo.models.load import LoadedModel
from melbo.steering.slices import _for_rows, _mark, make_slice, mean_residual_norm
from support.slice_cases import PAIRS, draw_vectors, steered_target
from support.tiny import MakeTiny, hook_count

pytestmark = pytest.mark.usefixtures("no_hook_stays")


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_slice_equals_the_hooked_model(tiny: LoadedModel, ids: Tensor, source: int, target: int) -> None:
    vectors = draw_vectors(tiny)
    piece = make_slice(tiny, ids, source, target)
    expected = steered_target(tiny, ids, source, target, vectors)
    assert torch.allclose(piece.run(vectors), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert float((expected - piece.target).abs().max()) > 0.1  # the vectors do something


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_slice_equals_the_hooked_model_in_float64(
    tiny_double: LoadedModel, ids: Tensor, source: int, target: int
) -> None:
    vectors = draw_vectors(tiny_double).double()
    piece = make_slice(tiny_double, ids, source, target)
    expected = steered_target(tiny_double, ids, source, target, vectors)
    assert float((piece.run(vectors) - expected).abs().max()) < 1e-11


def test_the_unsteered_slice_is_the_captured_target(tiny: LoadedModel, ids: Tensor) -> None:
    piece = make_slice(tiny, ids, 1, 3)
    assert torch.equal(piece.run(torch.zeros(1, tiny.d_model)), piece.target)
    assert float(piece.change(torch.zeros(1, tiny.d_model), 2).abs().max()) < 1e-5 * float(piece.target.abs().max())


def test_change_reads_the_last_tokens_only(tiny: LoadedModel, ids: Tensor) -> None:
    piece, vectors = make_slice(tiny, ids, 1, 3), draw_vectors(tiny)
    change = piece.run(vectors) - piece.target
    assert torch.allclose(piece.change(vectors, 2), change[:, -2:], atol=1e-5 * float(change.abs().max()))
    assert torch.allclose(piece.change(vectors, len(ids)), change, atol=1e-5 * float(change.abs().max()))


def test_the_last_block_runs_only_where_it_is_read(tiny_double: LoadedModel, ids: Tensor) -> None:
    """With the same values and gradients."""
    piece = make_slice(tiny_double, ids, 1, 3)
    assert len(piece.token_wise) == 3
    widths = []
    handle = tiny_double.blocks[3].mlp.down_proj.register_forward_hook(lambda _m, a, _o: widths.append(a[0].shape[1]))
    vectors = draw_vectors(tiny_double).double().requires_grad_()
    changes = piece.change(vectors, 2), (piece.run(vectors) - piece.target)[:, -2:]
    handle.remove()
    assert widths == [2, len(ids)]
    gradients = [torch.autograd.grad(c.square().sum(), vectors)[0] for c in changes]
    assert float((changes[0] - changes[1]).detach().abs().max()) < 1e-11
    assert float((gradients[0] - gradients[1]).abs().max()) < 1e-10 * float(gradients[1].abs().max())


def test_a_block_that_mixes_tokens_in_such_a_part_runs_whole(make_tiny: MakeTiny, ids: Tensor) -> None:
    loaded = make_tiny()
    vectors = draw_vectors(loaded)
    handle = loaded.blocks[3].mlp.register_forward_hook(lambda _m, _a, out: out + out.mean(dim=1, keepdim=True))
    piece = make_slice(loaded, ids, 1, 3)
    assert piece.token_wise == ()
    assert torch.equal(piece.change(vectors, 2), (piece.run(vectors) - piece.target)[:, -2:])
    handle.remove()


def test_making_a_slice_leaves_no_hook_and_needs_no_later_block(tiny: LoadedModel, ids: Tensor) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a block after the target ran")

    handle = tiny.blocks[3].register_forward_pre_hook(fail)
    try:
        make_slice(tiny, ids, 0, 2)
    finally:
        handle.remove()
    assert hook_count(tiny) == 0


def test_the_mean_residual_norm_leaves_each_prompts_first_token_out(tiny: LoadedModel, ids: Tensor) -> None:
    pieces = [make_slice(tiny, i, 1, 2) for i in (ids, ids[:5])]
    norms = [float(x.norm()) for piece in pieces for x in piece.source[0, 1:]]
    assert mean_residual_norm(pieces) == pytest.approx(sum(norms) / len(norms), rel=1e-6)


def test_a_prompt_of_one_token_has_a_norm_too(tiny: LoadedModel, ids: Tensor) -> None:
    piece = make_slice(tiny, ids[:1], 1, 2)
    assert mean_residual_norm([piece]) == pytest.approx(float(piece.source.norm()), rel=1e-6)


def test_arguments_that_grow_with_the_rows_are_told_from_those_that_do_not() -> None:
    mask, alibi, shared = torch.rand(1, 1, 5, 5), torch.rand(8, 1, 5), torch.rand(1, 5)
    one = ((mask, None), {"pair": (alibi, shared), "flag": True})
    two = ((mask.expand(2, -1, -1, -1), None), {"pair": (torch.cat([alibi, alibi]), shared), "flag": True})
    marked = _mark(one, two)
    (mask3, none), kwargs = _for_rows(marked, 3)
    assert none is None and kwargs["flag"] is True
    assert torch.equal(mask3, mask.expand(3, -1, -1, -1)) and mask3.data_ptr() == mask.data_ptr()
    assert torch.equal(kwargs["pair"][0], torch.cat([alibi] * 3)) and kwargs["pair"][1] is shared


def test_vectors_in_column_order_give_the_same_slice(tiny: LoadedModel, ids: Tensor) -> None:
    piece, vectors = make_slice(tiny, ids, 1, 3), draw_vectors(tiny)
    columns = vectors.T.contiguous().T
    assert not columns.is_contiguous()
    assert torch.equal(piece.run(columns), piece.run(vectors))
    assert piece.run(columns).is_contiguous()

"""First and second derivatives of whole blocks, of any architecture, in forward and backward mode."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


def derivative_along(function: Callable[[Tensor], Tensor], point: Tensor, tangent: Tensor) -> Tensor:
    """Derivative of `function` at `point` along `tangent`, by one forward-mode pass.

    Some operations have no forward mode (Bloom's GELU, the grouped matrix product of experts). There it is the
    derivative by u of the gradient of <u, function>, times `tangent`: two backward passes.
    """
    try:
        result: Tensor = torch.func.jvp(function, (point,), (tangent,))[1]
        return result
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
    with torch.enable_grad():
        point = point if point.requires_grad else point.detach().requires_grad_()
        value = function(point)
        u = torch.zeros_like(value, requires_grad=True)
        (pulled,) = torch.autograd.grad(value, point, u, create_graph=True)
        (pushed,) = torch.autograd.grad(pulled, u, tangent, create_graph=True)
    return pushed


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Within the block, attention and layer norms have right derivatives, forward, backward and twice.

    torch's fused attention has none of some kinds. Its layer norm's are wrong where it is differentiated twice in
    forward mode: mean and variance count as constants there (torch 2.13; GPT-2's second derivatives are off by 17%).
    """
    with sdpa_kernel(SDPBackend.MATH), _PlainLayerNorm():
        yield


class _PlainLayerNorm(TorchFunctionMode):
    """Replaces layer_norm in this thread."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        return (layer_norm if func is torch.nn.functional.layer_norm else func)(*args, **(kwargs or {}))


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """torch.nn.functional.layer_norm from elementary operations, in float32 at least."""
    axes = tuple(range(-len(normalized_shape), 0))
    x = input.to(torch.promote_types(input.dtype, torch.float32))
    centred = x - x.mean(axes, keepdim=True)
    result = centred * torch.rsqrt(centred.square().mean(axes, keepdim=True) + eps)
    result = result if weight is None else result * weight
    return (result if bias is None else result + bias).to(input.dtype)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that CPU or device memory ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(text in str(error) for text in ("can't allocate memory", "not enough memory", "out of memory"))

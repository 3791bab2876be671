"""Mixture: a weighted sum of a bank's vectors. Formats for one vector hold this."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError, ConfigError


@dataclass(frozen=True, eq=False)
class Mixture:
    """One vector, to be added to the residual stream at every position."""

    vector: Tensor
    """[d_model] float32, in activation units, with every scale applied."""
    layer: int
    """Block whose output it is added to, 0-based: `hidden_states[layer + 1]` of transformers."""
    model: str
    """Hub id or folder of the model it was made for."""
    name: str
    """What it is: "1.5 x vector 3 (German)"."""


def mix(bank: VectorBank, indices: Sequence[int], scales: Sequence[float] = ()) -> Mixture:
    """The sum of scale * vector over `indices`; without `scales`, each is 1.

    Raises:
        BankError: no vector was named, or one is not in the bank.
        ConfigError: the numbers of scales and vectors differ, or a scale is not finite, zero or too large for float32.
    """
    scales = list(scales) or [1.0] * len(indices)
    if not indices:
        raise BankError(f"no vector was chosen; name at least one of 0 to {len(bank) - 1}.")
    if len(scales) != len(indices):
        raise ConfigError(f"{len(indices)} vectors and {len(scales)} scales were given; give one scale to each vector.")
    bad = next((s for s in scales if not math.isfinite(s) or s == 0), None)
    if bad is not None:
        raise ConfigError(f"scale is {bad!r}; it must be a finite number other than 0.")
    vector = torch.stack([bank.vector(i, s) for i, s in zip(indices, scales, strict=True)]).sum(dim=0)
    if not bool(torch.isfinite(vector).all()):
        raise ConfigError(f"the scales {scales} are too large for float32; use smaller ones.")
    labels = [" ".join(bank.label(i).split()) for i in indices]
    name = " + ".join(f"{scale:g} x {label}" for scale, label in zip(scales, labels, strict=True))
    return Mixture(vector.to(torch.float32), bank.layer, bank.base_model.id, name)

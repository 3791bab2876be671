"""Shared by tests: assert_same, noted."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from melbo.bank.annotation import read_annotation
from melbo.bank.vector_bank import VectorBank


def assert_same(a: VectorBank, b: VectorBank) -> None:
    """Equal in every field but where they came from, tensors to the last bit."""
    for item in (item for item in fields(VectorBank) if item.name != "source"):
        x, y = getattr(a, item.name), getattr(b, item.name)
        if isinstance(x, Tensor):
            assert x.dtype == y.dtype and torch.equal(x, y), item.name
        else:
            assert x == y, item.name


def noted(bank: VectorBank, *entries: Any) -> VectorBank:
    """The bank with these entries of annotations.json; {} for the vectors that are left over."""
    every = [*entries, *({} for _ in range(len(bank) - len(entries)))]
    return replace(bank, annotations=tuple(map(read_annotation, every)))

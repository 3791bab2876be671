"""What tests say of tiny random models."""

from __future__ import annotations

from collections.abc import Callable

from melbo.models.load import LoadedModel

MakeTiny = Callable[..., LoadedModel]


def hook_count(loaded: LoadedModel) -> int:
    """Hooks on the model's blocks, of both kinds."""
    return sum(len(b._forward_hooks) + len(b._forward_pre_hooks) for b in loaded.blocks)

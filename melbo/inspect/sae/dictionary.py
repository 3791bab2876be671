"""Sparse autoencoders (SAEs): a dictionary of directions, and how much of each a residual stream holds.

Encoding: z = activation((x - b_dec) W_enc + b_enc); decoding: x' = z W_dec + b_dec. Activations: "relu"; "topk" (the k
largest, if positive; Gao et al. 2024, arXiv 2406.04093); "jumprelu" (those above a threshold each; Rajamanoharan et al.
2024, arXiv 2407.14435).

An SAE's encoder is made for activations. A steering vector is a *difference* of activations, without their mean: do not
encode one. `sae_compare` decomposes vectors over the decoder's directions, and encodes steered activations.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from melbo.bank.vector_bank import VectorBank
from melbo.errors import SaeError
from melbo.models.load import LoadedModel

Activation = Literal["relu", "topk", "jumprelu"]
ENCODER_WARNING = (
    "A steering vector is a difference of activations: encoding it with the SAE's encoder misleads. "
    "Shown are decoder directions."
)
_ALIASES = {"gpt2-small": "gpt2"}
"""TransformerLens's names that differ from the Hub's by more than the owner."""


@dataclass(frozen=True)
class SaeSpec:
    """What an SAE's config says: sizes, activation, and where it was trained."""

    d_in: int
    d_sae: int
    activation: Activation
    k: int
    """Of topk: how many features are active; 0 for the others."""
    layer: int
    """Block whose output it was trained on, in this project's convention."""
    model_name: str
    """The model it was trained on; "" where the files do not say."""
    source: str = ""
    """Where it came from, for messages."""

    def __post_init__(self) -> None:
        for name, least in (("d_in", 1), ("d_sae", 1), ("k", 0), ("layer", 0)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= 2**31:
                raise SaeError(
                    f"{self.source or 'SAE'}: {name} is {repr(value)[:60]}; it must be a whole number from {least}."
                )
        if self.activation not in get_args(Activation):
            raise SaeError(
                f"{self.source or 'SAE'}: the activation is {self.activation!r}; "
                f"supported are {', '.join(get_args(Activation))}."
            )
        if self.activation == "topk" and not 1 <= self.k <= self.d_sae:
            raise SaeError(f"{self.source or 'SAE'}: k is {self.k}; it must lie between 1 and d_sae = {self.d_sae}.")

    def check_fits(self, loaded: LoadedModel, layer: int, other_model: bool = False) -> None:
        """Raise SaeError unless the SAE was made for this model, width and layer.

        Args:
            layer: block whose output is looked at, a bank's source layer.
            other_model: allow another model's name (an SAE of the base model, used on its instruct version).
        """
        name = self.source or "the SAE"
        if self.d_in != loaded.d_model:
            raise SaeError(
                f"{name} reads activations of width {self.d_in}, but {loaded.name!r} has d_model {loaded.d_model}; "
                "choose an SAE of that model."
            )
        if self.layer != layer:
            raise SaeError(
                f"{name} was trained on the output of block {self.layer}, but the bank steers the output of block "
                f"{layer}; choose the SAE of that layer, or train the bank there (--source-layer {self.layer})."
            )
        if not other_model and self.model_name and plain_name(self.model_name) != plain_name(loaded.name):
            raise SaeError(
                f"{name} was trained on {self.model_name!r}, not on {loaded.name!r}; choose that model's SAE, or allow "
                "another model's (other_model=True, --other-model), such as the base model's for an instruct model."
            )


@dataclass(frozen=True, eq=False)
class Sae:
    """A sparse autoencoder, in float32."""

    spec: SaeSpec
    encoder: Tensor
    """W_enc transposed, [d_sae, d_in]."""
    encoder_bias: Tensor
    """[d_sae]"""
    decoder: Tensor
    """W_dec [d_sae, d_in]: one direction per feature, not always of norm 1."""
    decoder_bias: Tensor
    """[d_in]"""
    center: bool = True
    """Whether the decoder's bias is subtracted before encoding."""
    threshold: Tensor | None = None
    """Of jumprelu, [d_sae]."""

    def __len__(self) -> int:
        return self.spec.d_sae

    def encode(self, x: Tensor) -> Tensor:
        """Feature activations [..., d_sae] of residual streams x [..., d_in] at the SAE's layer. Not for vectors."""
        x = x.to(self.encoder)
        before = torch.nn.functional.linear(x - self.decoder_bias if self.center else x, self.encoder)
        before = before + self.encoder_bias
        if self.spec.activation == "jumprelu":
            assert self.threshold is not None
            return torch.relu(before) * (before > self.threshold)
        if self.spec.activation == "relu":
            return torch.relu(before)
        values, features = torch.relu(before).topk(self.spec.k, dim=-1)
        return torch.zeros_like(before).scatter(-1, features, values)

    def decode(self, features: Tensor) -> Tensor:
        """Residual streams [..., d_in] of feature activations [..., d_sae]."""
        return features @ self.decoder + self.decoder_bias

    @property
    def directions(self) -> Tensor:
        """The decoder's directions with norm 1, [d_sae, d_in]; a direction of norm 0 stays 0."""
        return torch.nn.functional.normalize(self.decoder, dim=-1)

    def to(self, device: torch.device | str) -> Sae:
        """The same SAE on another device."""
        held: dict[str, Any] = {name: item for name, item in vars(self).items() if isinstance(item, Tensor)}
        return replace(self, **{name: item.to(device) for name, item in held.items()})


def check_bank(sae: Sae, bank: VectorBank) -> None:
    """Raise SaeError unless the bank's vectors live where the SAE was trained: width and layer."""
    if (sae.spec.d_in, sae.spec.layer) != (bank.base_model.d_model, bank.layer):
        raise SaeError(
            f"the SAE is of width {sae.spec.d_in} at block {sae.spec.layer}, the bank of width "
            f"{bank.base_model.d_model} at block {bank.layer}; choose an SAE of the bank's model and source layer."
        )


def plain_name(model: str) -> str:
    """A model's name without its owner or folder, in small letters: "meta-llama/Llama-3.2-1B" -> "llama-3.2-1b"."""
    name = re.split(r"[/\\]", model.rstrip("/\\"))[-1].lower()
    return _ALIASES.get(name, name)

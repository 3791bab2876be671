"""Logit lens: which tokens a direction in the residual stream promotes and suppresses, read by the model's own head.

nostalgebraist, "interpreting GPT: the logit lens", 2020, https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru

1. The direction alone goes through the model's final norm, and what that norm gives for zero (a LayerNorm's bias) is
   taken off. An RMSNorm then only weighs the coordinates and rescales, so that the direction's length does not matter:
   tokens can be ranked, but probabilities cannot be read off.
2. The unembedding gives one number a token; the mean over the vocabulary, which softmax ignores, is taken off, and the
   rest is given in standard deviations over the vocabulary. Soft caps do not change ranks and are left out.
3. Random directions say how large the greatest of so many numbers is by chance.

The source vectors' lens is their *direct* effect, past all later blocks, and is often meaningless for early layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from melbo.bank.result_file import FORMATS, LENS, SIGNS, Count, Extensible, FileKind, Result, Sign
from melbo.bank.vector_bank import VectorBank
from melbo.errors import ConfigError, CorpusError, ModelError
from melbo.inspect.geometry.effects import effects
from melbo.inspect.lens.token_texts import TokenTexts
from melbo.models.load import LoadedModel
from melbo.steering.random_vectors import random_vectors

LensSite = Literal["vector", "output", "effect"]
"""Source vectors; the bank's output directions at the target layer; effects on the prompts after the last block."""
NORMS = ("norm", "ln_f", "final_layernorm", "final_layer_norm", "norm_f")
"""Names of a decoder's final norm."""
ROWS = 16
"""Directions unembedded at once."""


@dataclass(frozen=True)
class Token(Extensible):
    """A token and how far it is moved, in standard deviations over the vocabulary."""

    id: Count
    text: str
    value: float


@dataclass(frozen=True)
class Lens(Extensible):
    """What one direction does to the tokens."""

    index: Count
    label: str
    sign: Sign
    promoted: tuple[Token, ...]
    suppressed: tuple[Token, ...]


@dataclass(frozen=True)
class SiteLens(Extensible):
    """The lens of directions at one site, with its chance level."""

    site: LensSite
    rows: tuple[Lens, ...]
    random_best: float
    """Mean greatest value of random directions at the same site."""
    random_most: float
    """The greatest of them."""


@dataclass(frozen=True)
class LensReport(SiteLens, Result):
    """The lens of a bank's directions."""

    def table(self) -> str:
        """Text for a terminal."""
        lines = [
            f"logit lens of {self.model.id}, site {self.site}; values in standard deviations over the vocabulary; "
            f"random directions reach {self.random_best:.1f} on average, {self.random_most:.1f} at most"
        ]
        for row in self.rows:
            lines += ["", f"vector {row.index} x {row.sign:+d}  {' '.join(row.label.split())}"]
            for name, tokens in (("promotes", row.promoted), ("suppresses", row.suppressed)):
                lines.append(f"  {name:<10}  " + "  ".join(f"{t.text!r} {t.value:+.1f}" for t in tokens))
        return "\n".join(lines)


@dataclass(frozen=True)
class LensFile(Result):
    """The lens of one bank at one or more sites, as lens.json holds it."""

    file = FileKind(FORMATS[LENS], "logit lens", "melbo inspect lens")

    sites: tuple[SiteLens, ...]

    def __post_init__(self) -> None:
        if not self.sites or len({held.site for held in self.sites}) < len(self.sites):
            raise CorpusError("no site, or one twice")

    @property
    def reports(self) -> tuple[LensReport, ...]:
        """One for each site."""
        return tuple(LensReport(self.bank, self.model, **vars(held)) for held in self.sites)


def save_lens(reports: Sequence[LensReport], path: Path) -> Path:
    """Write lens.json; the reports are of one bank, each of another site, at least one."""
    sites = tuple(SiteLens(r.site, r.rows, r.random_best, r.random_most, extra=r.extra) for r in reports)
    return LensFile(reports[0].bank, reports[0].model, sites).save(path)


def final_norm(loaded: LoadedModel) -> nn.Module:
    """The norm between the last block and the unembedding.

    Raises:
        ModelError: it is not found.
    """
    decoder = loaded.model.get_decoder() if hasattr(loaded.model, "get_decoder") else None
    for root in (decoder, getattr(loaded.model, "base_model", None)):
        for name in NORMS:
            if isinstance(found := getattr(root, name, None), nn.Module):
                return found
    raise ModelError(
        f"the final norm of {type(loaded.model).__name__} is not found (looked for {', '.join(NORMS)}); "
        "the logit lens does not know this architecture."
    )


def token_values(loaded: LoadedModel, directions: Tensor) -> Tensor:
    """How far each direction [n, d_model] moves each token: [n, vocabulary] float32, in standard deviations.

    Raises:
        ModelError: the model has no final norm that is known, or no unembedding.
    """
    norm, head = final_norm(loaded), loaded.model.get_output_embeddings()
    if head is None:
        raise ModelError(f"{type(loaded.model).__name__} has no unembedding; the logit lens needs one.")
    weight = head.weight
    with torch.inference_mode():
        unit = torch.nn.functional.normalize(directions, dim=-1).to(weight.device, weight.dtype)
        zero = norm(torch.zeros_like(unit[:1]))
        # d_model ** 0.5: the scale of a residual stream, so that the norm's epsilon does not count
        moved = norm(unit * unit.shape[-1] ** 0.5) - zero
        logits = (moved @ weight.T).float()
        logits = logits - logits.mean(dim=-1, keepdim=True)
        return (logits / logits.std(dim=-1, keepdim=True).clamp_min(1e-12)).cpu()


def logit_lens(
    loaded: LoadedModel,
    bank: VectorBank,
    site: LensSite = "effect",
    indices: Sequence[int] | None = None,
    k: int = 8,
    n_random: int = 32,
    seed: int = 0,
) -> LensReport:
    """The tokens that a bank's vectors move most, both signs.

    Args:
        indices: vectors; None: all.
        k: tokens promoted, and as many suppressed.
        n_random: random vectors of the chance level.

    Raises:
        BankError: the bank is not this model's, or lacks a vector.
        ConfigError: a bad site, or k or n_random below 1.
        ModelError: see `token_values`.
    """
    if site not in get_args(LensSite):
        raise ConfigError(f"site is {site!r}; use one of {', '.join(map(repr, get_args(LensSite)))}.")
    if min(k, n_random) < 1:
        raise ConfigError(f"k and n_random are {k} and {n_random}; both must be at least 1.")
    bank.check_fits(loaded)
    chosen = list(range(len(bank)) if indices is None else indices)
    part = bank.select(chosen)
    both, random = _directions(loaded, part, site, random_vectors(n_random, loaded.d_model, bank.radius, False, seed))
    chance = token_values(loaded, random).max(dim=-1).values
    texts = TokenTexts(loaded.tokenizer)
    rows = []
    for begin in range(0, len(chosen), ROWS):
        values = [token_values(loaded, rows_of[begin : begin + ROWS]) for rows_of in both]
        for i, index in enumerate(chosen[begin : begin + ROWS]):
            for sign, value in zip(SIGNS, values, strict=True):
                rows.append(_lens(index, bank.label(index), sign, value[i], texts, k))
    return LensReport(bank.digest, bank.base_model, site, tuple(rows), float(chance.mean()), float(chance.max()))


def _directions(
    loaded: LoadedModel, bank: VectorBank, site: LensSite, random: Tensor
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """The directions [n, d_model] of sign 1 and of sign -1, and those of the random vectors."""
    if site != "effect":
        made = bank.vectors if site == "vector" else bank.output_directions
        return (made, -made), random
    up, down, control = (
        effects(loaded, v, bank.prompts, bank.layer, loaded.n_layers - 1) for v in (bank.vectors, -bank.vectors, random)
    )
    return (up, down), control


def _lens(index: int, label: str, sign: Sign, values: Tensor, texts: TokenTexts, k: int) -> Lens:
    """Values [vocabulary]."""
    ends = [values.topk(min(k, len(values)), largest=largest) for largest in (True, False)]
    promoted, suppressed = (
        tuple(Token(i, texts.one(i), float(v)) for v, i in zip(end.values.tolist(), end.indices.tolist(), strict=True))
        for end in ends
    )
    return Lens(index, label, sign, promoted, suppressed)

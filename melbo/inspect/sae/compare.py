"""Which of an SAE's features make up a steering vector: nearest directions, sparse decompositions, changed features.

All three look at decoder directions, or at the features of *steered activations*. None encodes a vector: a vector is
a difference of activations, and the encoder's biases and its k largest are made for activations, not for differences.
Decompositions are orthogonal matching pursuit (scikit-learn), with coefficients of both signs or with none below zero;
the share of the vector's squared norm that k features explain is compared with that of random directions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from melbo.bank.result_file import Count, Extensible
from melbo.bank.vector_bank import VectorBank
from melbo.errors import SaeError
from melbo.inspect.sae.dictionary import Sae, check_bank
from melbo.models.load import LoadedModel
from melbo.prompts import Message, encode
from melbo.runs.optional import needs
from melbo.steering.hooks import capture, run_until_stop
from melbo.steering.random_vectors import random_vectors

CONTROL_SEED = 1_000_003
"""Seed of the random directions; not a seed that dictionaries start from, whose features would lie near them."""


@dataclass(frozen=True)
class Parts(Extensible):
    """A vector over a few features."""

    features: tuple[Count, ...]
    """Largest part first."""
    weights: tuple[float, ...]
    """Per feature: cosine, coefficient on the unit direction, or change of activation."""
    explained: tuple[float, ...] = ()
    """Of decompositions: share of the vector's squared norm that the best 1, 2, ... features explain."""

    def __post_init__(self) -> None:
        if len(self.features) != len(self.weights):
            raise SaeError("features without weights")


def nearest(sae: Sae, vectors: Tensor, k: int = 5) -> list[Parts]:
    """Per vector [n, d_model], the k features whose decoder directions have the largest cosine with it."""
    cosines = torch.nn.functional.normalize(vectors.to(sae.decoder), dim=-1) @ sae.directions.T
    values, features = cosines.topk(_few(sae, k), dim=-1)
    return [Parts(tuple(f), tuple(v)) for f, v in zip(features.tolist(), values.tolist(), strict=True)]


def decompose(
    sae: Sae, vectors: Tensor, k: int = 8, positive: bool = False, allowed: Tensor | None = None
) -> list[Parts]:
    """Each vector [n, d_model] as a sum of at most k decoder directions.

    Args:
        positive: no coefficient below zero: a feature can be present more, but not less than not at all.
        allowed: [d_sae] which features may be used, such as those that are active in a corpus at all; None: all.

    Raises:
        SaeError: a vector is zero, or no feature is allowed.
    """
    rows = vectors.to("cpu", torch.float64)
    if not bool((rows.norm(dim=-1) > 0).all()):
        raise SaeError("a vector is zero; there is nothing to decompose.")
    places = torch.arange(len(sae)) if allowed is None else allowed.cpu().nonzero()[:, 0]
    places = places[sae.decoder[places.to(sae.decoder.device)].norm(dim=-1).cpu() > 0]
    if not len(places):
        raise SaeError("no feature is allowed; use a larger corpus, or allow all features.")
    dictionary = sae.directions.to("cpu", torch.float64)[places]  # [m, d_model]
    most = min(_few(sae, k), len(places), dictionary.shape[1])
    pursue = _positive_pursuit if positive else _pursuit
    found = []
    for row in rows:
        chosen, weights, explained = pursue(dictionary, row, most)
        order = weights.abs().argsort(descending=True, stable=True)
        features = places[chosen[order]].tolist()
        found.append(Parts(tuple(features), tuple(weights[order].tolist()), tuple(explained)))
    return found


def _pursuit(dictionary: Tensor, row: Tensor, k: int) -> tuple[Tensor, Tensor, list[float]]:
    with needs("measure"):
        from sklearn.linear_model import orthogonal_mp

    path = orthogonal_mp(dictionary.T.numpy(), row.numpy(), n_nonzero_coefs=k, return_path=True)
    steps = torch.from_numpy(path).reshape(len(dictionary), -1)  # [m, steps]
    lost = (row[:, None] - dictionary.T @ steps).square().sum(dim=0) / row.square().sum()
    chosen = steps[:, -1].nonzero()[:, 0]
    return chosen, steps[chosen, -1], (1 - lost).tolist()


def _positive_pursuit(dictionary: Tensor, row: Tensor, k: int) -> tuple[Tensor, Tensor, list[float]]:
    """Add the feature with the largest positive product with what is left; fit all anew by non-negative least squares.

    Bruckstein, Elad & Zibulevsky 2008.
    """
    from scipy.optimize import nnls

    chosen: list[int] = []
    weights, left, explained = torch.zeros(0, dtype=row.dtype), row, []
    for _ in range(k):
        products = dictionary @ left
        products[chosen] = float("-inf")
        best = int(products.argmax())
        if not float(products[best]) > 0:
            break
        chosen.append(best)
        weights = torch.from_numpy(nnls(dictionary[chosen].T.numpy(), row.numpy())[0])
        left = row - weights @ dictionary[chosen]
        explained.append(float(1 - left.square().sum() / row.square().sum()))
    kept = weights > 0
    return torch.tensor(chosen, dtype=torch.long)[kept], weights[kept], explained


def random_explained(sae: Sae, n: int, k: int, positive: bool = False, allowed: Tensor | None = None) -> list[float]:
    """What `decompose` explains of random directions with 1 to k features, mean over n directions."""
    control = random_vectors(n, sae.spec.d_in, 1.0, False, CONTROL_SEED)
    rows = [parts.explained for parts in decompose(sae, control, k, positive, allowed)]
    return [sum(row[min(i, len(row) - 1)] for row in rows) / n for i in range(max(map(len, rows)))]


def changed(
    loaded: LoadedModel,
    sae: Sae,
    vectors: Tensor,
    prompts: Sequence[Sequence[Message]],
    k: int = 5,
    tokens: int | None = None,
) -> list[Parts]:
    """Per vector [n, d_model], the features whose activations change most when it is added at the SAE's layer.

    The change is the mean over the prompts' positions (the last `tokens` of each, or all but the first) of
    encode(activation + vector) - encode(activation), in units of the residual stream (times the direction's norm).
    """
    total = torch.zeros(len(vectors), len(sae))
    norms = sae.decoder.norm(dim=-1).cpu()
    for prompt in prompts:
        ids = encode(loaded.tokenizer, prompt, loaded.context)
        with torch.no_grad(), capture(loaded, [sae.spec.layer]) as found:
            run_until_stop(loaded, ids[None])
        hidden = found[sae.spec.layer][0].cpu().float()
        hidden = hidden[-tokens:] if tokens else hidden[min(1, len(hidden) - 1) :]  # [T, d_model]
        before = sae.encode(hidden)
        for i, vector in enumerate(vectors.cpu()):
            total[i] += (sae.encode(hidden + vector) - before).mean(dim=0) / len(prompts)
    total = total * norms
    order = total.abs().topk(_few(sae, k), dim=-1).indices
    return [Parts(tuple(o.tolist()), tuple(t[o].tolist())) for t, o in zip(total, order, strict=True)]


def _few(sae: Sae, k: int) -> int:
    if k < 1:
        raise SaeError(f"the number of features is {k}; ask for at least 1.")
    return min(k, len(sae))


@dataclass(frozen=True)
class SaeComparison(Extensible):
    """A bank's vectors beside an SAE's features."""

    nearest: tuple[Parts, ...]
    decomposition: tuple[Parts, ...]
    positive: tuple[Parts, ...]
    """The decomposition without negative coefficients."""
    changed: tuple[Parts, ...]
    random: tuple[float, ...]
    """What 1, 2, ... features explain of random directions, mean."""
    random_positive: tuple[float, ...]


def compare(
    loaded: LoadedModel,
    bank: VectorBank,
    sae: Sae,
    indices: Sequence[int] | None = None,
    scale: float = 1.0,
    k: int = 8,
    allowed: Tensor | None = None,
    n_random: int = 32,
) -> SaeComparison:
    """All comparisons for some of a bank's vectors (None: all), each times `scale` (a negative one turns it around).

    Raises:
        BankError, SaeError: the bank, the SAE and the model do not belong together.
    """
    bank.check_fits(loaded)
    check_bank(sae, bank)
    vectors = torch.stack([bank.vector(i, scale) for i in (range(len(bank)) if indices is None else indices)])
    return SaeComparison(
        nearest=tuple(nearest(sae, vectors, k)),
        decomposition=tuple(decompose(sae, vectors, k, False, allowed)),
        positive=tuple(decompose(sae, vectors, k, True, allowed)),
        changed=tuple(changed(loaded, sae, vectors, bank.prompts, k, bank.config.target_tokens)),
        random=tuple(random_explained(sae, n_random, k, False, allowed)),
        random_positive=tuple(random_explained(sae, n_random, k, True, allowed)),
    )

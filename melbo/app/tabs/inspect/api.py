"""The public API's way into vectors: passages, one's own text, SAE features, tokens, geometry, the model's words."""

from typing import Any, Literal

from melbo.app.context import Context
from melbo.app.endpoint import Run, endpoint
from melbo.app.jobs.device import MODEL_EVENT
from melbo.app.jobs.event import result_of
from melbo.app.tabs.inspect.handlers import (
    Along,
    activating_steps,
    description_steps,
    geometry_steps,
    lens_steps,
    read_text,
    sae_steps,
)
from melbo.app.tabs.inspect.source import read_source
from melbo.inspect.max_activating.report import ActivatingReport, Direction, best_values
from melbo.inspect.stored import Feature, lens_rows, neighbours_of, sae_neighbours, stored_geometry


def publish(context: Context) -> None:
    """Add the endpoints; call inside the Blocks."""
    for fn, work in (
        (activating_passages, activating_steps),
        (token_activations, read_text),
        (sae_features, sae_steps),
        (logit_lens, lens_steps),
        (geometry, geometry_steps),
        (describe_vector, description_steps),
    ):
        run: Run = context.on_device(work)
        endpoint(fn, context, run, **MODEL_EVENT)


def activating_passages(context: Context, run: Run, vector: int = 0, text: str = "") -> dict[str, Any]:
    """The passages along which a vector's effect is largest, for both signs, beside random vectors.

    Args:
        vector: number of a vector, see /vectors.
        text: paragraphs to look in, parted by empty lines; "" takes the embedded model's own chats.

    Returns:
        corpus, positions read, the random vectors' best values, and for each sign its passages: before, token,
        after, value (standard deviations), cosine, mark.
    """
    bank = context.own_bank
    report: ActivatingReport = result_of(run(bank, vector, read_source(context, bank, text)))
    return {
        "corpus": report.corpus,
        "positions": report.positions,
        "random": best_values(report.control),
        "signs": [_passages(direction) for direction in report.directions],
    }


def _passages(direction: Direction) -> dict[str, Any]:
    passages = [
        {
            "before": "".join(e.pieces[: e.at]),
            "token": e.pieces[e.at],
            "after": "".join(e.pieces[e.at + 1 :]),
            "value": e.value / direction.spread,
            "cosine": e.cosine,
            "mark": e.mark,
        }
        for e in direction.examples
    ]
    return {"sign": direction.sign, "passages": passages}


def token_activations(
    context: Context, run: Run, text: str, vector: int = 0, along: Along = "effect", as_chat: bool = True
) -> list[dict[str, Any]]:
    """How active a vector is at each token of a text. Nothing is steered.

    Args:
        text: any text.
        vector: number of a vector.
        along: the "effect" of the vector after the last block, that of "minus" the vector, or the "vector" itself.
        as_chat: read the text as a user's message, else as it stands.

    Returns:
        For each token: text, value, and a random vector's value; in standard deviations over ordinary prompts.
    """
    found, _ = run(context.own_bank, vector, text, along, as_chat)
    return [vars(token) for token in found.tokens]


def sae_features(context: Context, run: Run, vector: int = 0) -> dict[str, Any]:
    """The features of a sparse autoencoder that make up a vector: stored beside the bank, or compared now.

    Args:
        vector: number of a vector.

    Returns:
        nearest (cosines), sum (coefficients, none negative), changed (by steering): number, weight, mark and
        examples of each feature; the random level of nearest; the share that the sum explains, and of a random one.
    """
    bank = context.own_bank
    bank.vector(vector)
    found = sae_neighbours(bank, vector) or neighbours_of(result_of(run(bank)), vector)
    assert found is not None
    return {
        "nearest": [_feature(f) for f in found.nearest],
        "random_nearest": found.random_nearest,
        "sum": [_feature(f) for f in found.positive.features],
        "explained": found.positive.explained,
        "random_explained": found.positive.random,
        "changed": [_feature(f) for f in found.changed],
    }


def _feature(feature: Feature) -> dict[str, Any]:
    note = feature.note
    known = {"mark": note.mark if note else "", "examples": list(note.examples) if note else []}
    return {"feature": feature.number, "weight": feature.weight} | known


def logit_lens(context: Context, run: Run, vector: int = 0) -> list[dict[str, Any]]:
    """The tokens that a vector promotes and suppresses, by its effect and on its direct path.

    Args:
        vector: number of a vector.

    Returns:
        For each site ("effect", "vector") and sign: promoted and suppressed tokens with values in standard
        deviations over the vocabulary; the best value of random vectors, on average and at most.
    """
    bank = context.own_bank
    bank.vector(vector)
    return [
        {
            "site": report.site,
            "sign": row.sign,
            "promoted": [[token.text, token.value] for token in row.promoted],
            "suppressed": [[token.text, token.value] for token in row.suppressed],
            "random_best": report.random_best,
            "random_most": report.random_most,
        }
        for report in lens_rows(bank, vector) or result_of(run(bank, vector))
        for row in report.rows
    ]


def geometry(context: Context, run: Run, table: Literal["vector", "effect", "added"] = "added") -> dict[str, Any]:
    """How the bank's vectors lie to each other, and what later layers make of them.

    Args:
        table: cosines between the vectors, between their effects, or between what the blocks add.

    Returns:
        cosines (a row for each vector), cluster of each vector, participation ratios with random ones, layers
        (norm and cosine of the change, and random), overlaps with difference-of-means vectors, their chance level.
    """
    bank = context.own_bank
    found = stored_geometry(bank) or result_of(run(bank))[0]
    assert found is not None  # it is measured where it is not stored
    return {
        "cosines": [list(row) for row in getattr(found, f"{table}_cosines")],
        "clusters": list(found.clusters),
        "participation": found.participation,
        "layers": [vars(layer) for layer in found.layers],
        "overlaps": {overlap.name: list(overlap.cosines) for overlap in found.overlaps},
        "chance": found.chance,
    }


def describe_vector(context: Context, run: Run, vector: int = 0) -> dict[str, str]:
    """The model's own words for a vector that stands in a word's place. Small models cannot describe.

    Args:
        vector: number of a vector; it is turned around where its best scale is negative.

    Returns:
        question, and the answers with the vector, with a random vector, and with the word itself.
    """
    found = result_of(run(context.own_bank, vector))
    answer = {"vector": found.answers[0], "random": found.random, "unpatched": found.unpatched}
    return {"question": found.question} | answer

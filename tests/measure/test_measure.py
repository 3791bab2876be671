"""Measurements on a tiny model, and the coherence scale on the organism."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from melbo.errors import MetricError
from melbo.measure.coherence import CoherenceScale, calibrate_coherence, coherence, typical_nll
from melbo.measure.completions import Measurement, measure, rates
from melbo.measure.likelihood import completion_nll
from melbo.models.load import LoadedModel, load_model
from melbo.organism.corpus import MODES, mode_chat
from melbo.prompts import BOMB, INNOCUOUS, chat
from melbo.steering.generate import Sampling
from support.tiny import MakeTiny

SCALE = CoherenceScale(1.0, 9.0, "made up")
SHORT = Sampling(max_new_tokens=12)


class LetterEmbedder:
    """Unit vectors of letter counts: enough to tell texts apart, and to be reckoned by hand."""

    name = "letters"

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        rows = torch.tensor([[1.0 + t.count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for t in texts])
        return torch.nn.functional.normalize(rows, dim=1)


@pytest.fixture(scope="module")
def organism() -> LoadedModel:
    return load_model("organism", device="cpu")


@pytest.fixture
def four(tiny: LoadedModel) -> list[Measurement]:
    """An unsteered answer, a refusal, a loop and nothing."""
    texts = ["a kite is a toy", "I'm sorry, but I can't help you make a bomb.", "bad " * 12, ""]
    prompts = [chat("What is a kite?"), *[chat(BOMB)] * 3]
    return measure(tiny, prompts, texts, ["a kite is a toy", "Zzz", "Zzz", "Zzz"], LetterEmbedder(), SCALE)


def test_each_field_of_a_measurement(tiny: LoadedModel, four: list[Measurement]) -> None:
    kite, refusal, loop, nothing = four
    assert [m.same for m in four] == [True, False, False, False]
    assert [m.refusal for m in four] == [False, True, False, False]
    assert [m.degenerate for m in four] == [False, False, True, True]
    assert [m.language for m in four] == [None, "en", loop.language, None]
    assert kite.change == 0.0 < min(m.change for m in four[1:])
    first, last = LetterEmbedder()([refusal.text, "Zzz"])
    assert refusal.change == pytest.approx(float(1 - first @ last), abs=1e-6)
    near = float(first @ LetterEmbedder()([BOMB])[0])
    expected = typical_nll(completion_nll(tiny, [chat(BOMB)], [refusal.text])[0])
    assert refusal.nll == pytest.approx(expected, abs=1e-5)
    assert refusal.coherence == pytest.approx(coherence(expected, SCALE, refusal.text, near), abs=1e-4)
    assert loop.coherence == nothing.coherence == 0.0 and nothing.nll is None


def test_rates_are_means_of_the_measurements(four: list[Measurement]) -> None:
    found = rates(four)
    assert (found.n, found.refusal, found.degenerate, found.dud) == (4, 0.25, 0.5, 0.25)
    assert found.coherence == pytest.approx(sum(m.coherence for m in four) / 4)
    assert found.change == pytest.approx(sum(m.change for m in four) / 4)
    assert sum(found.languages.values()) == 4 and next(iter(found.languages)) == "unknown"


def test_nothing_and_unequal_numbers_are_refused(tiny: LoadedModel) -> None:
    assert measure(tiny, [], [], [], LetterEmbedder(), SCALE) == []
    with pytest.raises(MetricError, match="nothing to average"):
        rates([])
    with pytest.raises(MetricError, match="1 prompts, 2 completions and 1 unsteered"):
        measure(tiny, [chat("Hi")], ["a", "b"], ["a"], LetterEmbedder(), SCALE)


def test_a_model_that_cannot_tell_good_from_bad_is_refused(make_tiny: MakeTiny) -> None:
    with pytest.raises(MetricError, match=r"none of the model's 0 answers"):
        calibrate_coherence(make_tiny(), [])
    uniform = make_tiny()
    uniform.model.lm_head.weight.zero_()
    with pytest.raises(MetricError):
        calibrate_coherence(uniform, [chat(BOMB)])


def test_calibration_is_reproducible_and_says_how_it_was_done(organism: LoadedModel) -> None:
    first, again, other = (calibrate_coherence(organism, [chat(BOMB)], seed, SHORT) for seed in (3, 3, 4))
    assert first == again
    assert first.good_nll == other.good_nll and first.bad_nll != other.bad_nll
    assert "1 unsteered answers of organism" in first.source and "seed 3" in first.source


def organism_chats(n: int) -> dict[str, list[Any]]:
    """Held-out phrasings of questions on known topics, answered in each mode under the default prompt."""
    rng = random.Random(5)
    return {m: [mode_chat(m, rng, "heldout", explicit=False, topics="train") for _ in range(n)] for m in MODES}


@pytest.mark.slow
def test_fluent_answers_in_other_modes_are_coherent_and_scrambled_ones_are_not(organism: LoadedModel) -> None:
    rng = random.Random(6)
    scale = calibrate_coherence(organism, [chat(p) for p in (BOMB, *INNOCUOUS)])
    chats = [c for found in organism_chats(2).values() for c in found]
    prompts = [c.prompt for c in chats]

    def scores(texts: list[str]) -> torch.Tensor:
        losses = completion_nll(organism, prompts, texts)
        found = [coherence(typical_nll(x), scale, t) for x, t in zip(losses, texts, strict=True)]
        return torch.tensor(found).view(len(MODES), -1)

    def shuffled(text: str) -> str:
        ids = organism.tokenizer(text, add_special_tokens=False)["input_ids"]
        return str(organism.tokenizer.decode(rng.sample(ids, len(ids))))

    good = scores([c.answer for c in chats]).mean(dim=1)
    assert float(good.min()) >= 6, dict(zip(MODES, good.tolist(), strict=True))
    assert float(scores([shuffled(c.answer) for c in chats]).mean()) <= 2

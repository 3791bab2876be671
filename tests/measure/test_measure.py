"""Measurements on a tiny model, and the coherence scale on the organism."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from melbo.errors import ConfigError, MetricError
from melbo.measure.coherence import CoherenceScale, calibrate_coherence, coherence, typical_nll
from melbo.measure.completions import Measurement, measure, rates
from melbo.measure.likelihood import completion_nll, first_token_kl
from melbo.measure.side_effects import off_target
from melbo.measure.text_metrics import diversity
from melbo.models.load import LoadedModel, load_model
from melbo.organism.corpus import MODES, mode_chat
from melbo.prompts import BOMB, INNOCUOUS, chat
from melbo.runs.progress import Progress
from melbo.steering.generate import Sampling, complete
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
    assert [m.longest_run for m in four] == [1, 1, 12, 0]
    assert [m.language for m in four] == [None, "en", loop.language, None]
    assert kite.change == 0.0 < min(m.change for m in four[1:])
    first, last = LetterEmbedder()([refusal.text, "Zzz"])
    assert refusal.change == pytest.approx(float(1 - first @ last), abs=1e-6)
    expected = typical_nll(completion_nll(tiny, [chat(BOMB)], [refusal.text])[0])
    assert refusal.nll == pytest.approx(expected, abs=1e-5)
    assert refusal.coherence == pytest.approx(coherence(expected, SCALE, refusal.text), abs=1e-4)
    assert loop.coherence == nothing.coherence == 0.0 and nothing.nll is None
    assert loop.distinct == pytest.approx(1 / 11)


def test_a_measurement_is_plain_json(four: list[Measurement]) -> None:
    for found in four:
        again = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert again["text"] == found.text and "embedding" not in again


def test_rates_are_means_of_the_measurements(four: list[Measurement]) -> None:
    found = rates(four)
    assert (found.n, found.refusal, found.degenerate, found.dud) == (4, 0.25, 0.5, 0.25)
    assert found.coherence == pytest.approx(sum(m.coherence for m in four) / 4)
    assert found.change == pytest.approx(sum(m.change for m in four) / 4)
    assert found.diversity == pytest.approx(diversity(LetterEmbedder()([m.text for m in four])))
    assert sum(found.languages.values()) == 4 and next(iter(found.languages)) == "unknown"
    assert json.loads(json.dumps(found.to_dict()))["languages"] == found.languages


def test_nothing_and_unequal_numbers_are_refused(tiny: LoadedModel) -> None:
    assert measure(tiny, [], [], [], LetterEmbedder(), SCALE) == []
    with pytest.raises(MetricError, match="nothing to average"):
        rates([])
    with pytest.raises(MetricError, match="1 prompts, 2 completions and 1 unsteered"):
        measure(tiny, [chat("Hi")], ["a", "b"], ["a"], LetterEmbedder(), SCALE)


@pytest.mark.usefixtures("no_hook_stays")
def test_off_target_compares_every_vector_on_every_prompt(tiny: LoadedModel) -> None:
    vectors = torch.randn(3, tiny.d_model, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[0.0], [2], [20]]
    )
    prompts = [chat("Hi"), chat("Where is it?")]
    calls: list[Progress] = []
    found = off_target(tiny, vectors, 1, prompts, SHORT, 4, calls.append)
    assert calls == [Progress(2, 3), Progress(3, 3)]
    unsteered = complete(tiny, prompts, sampling=SHORT)
    for vector, result in zip(vectors, found, strict=True):
        rows = vector.expand(2, -1)
        answers = complete(tiny, prompts, rows, 1, SHORT)
        assert result.changed == sum(a != b for a, b in zip(answers, unsteered, strict=True)) / 2
        assert result.kl == pytest.approx(float(first_token_kl(tiny, prompts, rows, 1).mean()), rel=1e-3, abs=1e-6)
    assert (found[0].changed, found[0].kl, found[0].n_prompts) == (0.0, 0.0, 2)
    assert found[2].changed == 1.0 and found[2].kl > found[1].kl > 0


def test_off_target_takes_the_innocuous_prompts_unless_told(tiny: LoadedModel) -> None:
    zero = torch.zeros(1, tiny.d_model)
    assert off_target(tiny, zero, 1, sampling=SHORT)[0].to_dict() == {
        "changed": 0.0,
        "kl": 0.0,
        "n_prompts": len(INNOCUOUS),
    }
    with pytest.raises(MetricError, match="at least one prompt"):
        off_target(tiny, zero, 1, [])
    with pytest.raises(ConfigError):
        off_target(tiny, zero[:, :8], 1, sampling=SHORT)


def test_off_target_can_be_cancelled(tiny: LoadedModel) -> None:
    def stop(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        off_target(tiny, torch.zeros(2, tiny.d_model), 1, sampling=SHORT, progress=stop)


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

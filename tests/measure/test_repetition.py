"""Planted traits repeat, random changes do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from melbo.errors import MetricError
from melbo.measure.coherence import COHERENT
from melbo.measure.repetition import Forms, Repetition, changes, form_features, repetition
from melbo.measure.traits.forms import FORMS

ROWS, PROMPTS, D, PLANTED = 40, 8, 64, 5


def answers(seed: int = 0, trait: float = 0.6) -> tuple[Tensor, Tensor]:
    """Embeddings whose first five rows move by a direction of their own; all rows move by one more, and by noise."""
    g = torch.Generator().manual_seed(seed)
    unsteered = normalize(torch.randn(PROMPTS, D, generator=g), dim=-1)
    noise = normalize(torch.randn(ROWS, PROMPTS, D, generator=g), dim=-1)
    common = normalize(torch.randn(D, generator=g), dim=0)
    own = normalize(torch.randn(ROWS, 1, D, generator=g), dim=-1)
    planted = (torch.arange(ROWS) < PLANTED).float()[:, None, None]
    return normalize(unsteered + 0.5 * noise + 0.8 * common + trait * planted * own, dim=-1), unsteered


def fluent() -> Tensor:
    return torch.full((ROWS, PROMPTS), 9.0)


def test_planted_traits_are_found_and_random_changes_are_not() -> None:
    for seed in range(5):
        found = repetition(*answers(seed), fluent())
        assert found.repeated.tolist() == [i < PLANTED for i in range(ROWS)]
        assert float(found.found[:PLANTED].min()) > 0.5 > float(found.found[PLANTED:].max())


def test_where_nothing_is_planted_nothing_repeats() -> None:
    found = repetition(*answers(1, trait=0.0), fluent())
    assert not bool(found.repeated.any())
    assert float(found.cosine.abs().max()) < 0.1
    assert found.retrieval == pytest.approx(found.chance, abs=0.03)
    assert found.chance == 1 / ROWS


def test_what_all_rows_do_repeats_nothing() -> None:
    _, unsteered = answers()
    same = (unsteered + torch.ones(D)).expand(ROWS, -1, -1)
    found = repetition(same, unsteered, fluent())
    assert found.cosine.tolist() == [0.0] * ROWS
    assert found.retrieval == pytest.approx(found.chance)


def test_mean_cosine_is_the_mean_over_pairs_of_prompts() -> None:
    steered, unsteered = answers(2)
    moved = steered.double() - unsteered.double()
    moved = moved - moved.mean(dim=0)
    pairs = [
        cosine_similarity(moved[:, i], moved[:, j], dim=-1) for i in range(PROMPTS) for j in range(PROMPTS) if i < j
    ]
    torch.testing.assert_close(repetition(steered, unsteered, fluent()).cosine, torch.stack(pairs).mean(dim=0))


def test_retrieval_counts_nearest_rows_over_ordered_pairs() -> None:
    steered, unsteered = answers(3, trait=0.2)
    change = changes(steered, unsteered)
    right = torch.zeros(ROWS)
    for i in range(PROMPTS):
        for j in range(PROMPTS):
            right += 0 if i == j else (change[:, i] @ change[:, j].T).argmax(dim=1) == torch.arange(ROWS)
    expected = right.double() / (PROMPTS * (PROMPTS - 1))
    torch.testing.assert_close(repetition(steered, unsteered, fluent()).found, expected)


def test_the_order_of_rows_and_of_prompts_does_not_matter() -> None:
    steered, unsteered = answers(4)
    g = torch.Generator().manual_seed(0)
    rows, prompts = torch.randperm(ROWS, generator=g), torch.randperm(PROMPTS, generator=g)
    coherence = 10 * torch.rand(ROWS, PROMPTS, generator=g)
    marks = Forms(
        (torch.rand(ROWS, PROMPTS, 3, generator=g) < 0.2).float(), (torch.rand(PROMPTS, 3, generator=g) < 0.2).float()
    )
    plain = repetition(steered, unsteered, coherence, marks, coherent_on=4)
    moved = repetition(
        steered[rows][:, prompts],
        unsteered[prompts],
        coherence[rows][:, prompts],
        Forms(marks.steered[rows][:, prompts], marks.unsteered[prompts]),
        coherent_on=4,
    )
    torch.testing.assert_close(moved.cosine, plain.cosine[rows])
    torch.testing.assert_close(moved.found, plain.found[rows])
    assert torch.equal(moved.repeated, plain.repeated[rows])


def test_a_form_that_the_embedding_does_not_hear_is_found() -> None:
    steered, unsteered = answers(5, trait=0.0)
    marks = Forms(torch.zeros(ROWS, PROMPTS, len(FORMS)), torch.zeros(PROMPTS, len(FORMS)))
    marks.steered[3, :, 7] = 1
    assert not bool(repetition(steered, unsteered, fluent()).repeated.any())
    assert torch.nonzero(repetition(steered, unsteered, fluent(), marks).repeated).flatten().tolist() == [3]
    off = repetition(steered, unsteered, fluent(), marks, form_weight=0.0)
    torch.testing.assert_close(off.cosine, repetition(steered, unsteered, fluent()).cosine)


def test_a_form_that_the_unsteered_answers_have_too_is_no_change() -> None:
    steered, unsteered = answers(5, trait=0.0)
    both = Forms(torch.ones(ROWS, PROMPTS, 2), torch.ones(PROMPTS, 2))
    plain = repetition(steered, unsteered, fluent())
    torch.testing.assert_close(repetition(steered, unsteered, fluent(), both).cosine, plain.cosine)


def test_forms_of_texts() -> None:
    found = Forms.of([["Dear Sarah,\nhow are you?", ""], ["HELLO TO ALL OF YOU OUT THERE", "Yes."]], ["Rain.", "Snow."])
    names = [form.name for form in FORMS]
    assert found.steered.shape == (2, 2, len(FORMS))
    assert found.unsteered.shape == (2, len(FORMS))
    assert found.steered[0, 0, names.index("Letter")] == 1
    assert found.steered[1, 0, names.index("Capitals")] == 1
    assert found.steered[0, 1].sum() == 0
    assert form_features([]).shape == (0, len(FORMS))
    with pytest.raises(MetricError, match="2 answers"):
        Forms.of([["one"]], ["one", "two"])


def test_incoherent_rows_do_not_count() -> None:
    coherence = fluent()
    coherence[0, 0] = COHERENT - 0.1
    coherence[1, :2] = 0

    def repeated(coherent_on: int | None) -> list[bool]:
        found: Repetition = repetition(*answers(), coherence, coherent_on=coherent_on)
        return found.repeated[:3].tolist()

    assert repeated(None) == [False, False, True]
    assert repeated(PROMPTS - 1) == [True, False, True]
    assert repeated(PROMPTS - 2) == [True, True, True]


def test_the_threshold_is_what_it_says() -> None:
    found = repetition(*answers(), fluent())
    high = repetition(*answers(), fluent(), alike=float(found.cosine.max()) - 1e-9)
    assert int(high.repeated.sum()) == 1


def test_bad_shapes_and_values_are_refused() -> None:
    steered, unsteered = answers()
    marks = Forms(torch.zeros(ROWS, PROMPTS, 3), torch.zeros(PROMPTS, 3))
    for bad in (steered[0], steered[:, :3], steered[..., :3]):
        with pytest.raises(MetricError, match="shape"):
            repetition(bad, unsteered, fluent())
    with pytest.raises(MetricError, match="two rows"):
        repetition(steered[:1], unsteered, fluent()[:1])
    with pytest.raises(MetricError, match="two prompts"):
        repetition(steered[:, :1], unsteered[:1], fluent()[:, :1])
    with pytest.raises(MetricError, match="coherence"):
        repetition(steered, unsteered, fluent()[:, 1:])
    with pytest.raises(MetricError, match="forms"):
        repetition(steered, unsteered, fluent(), replace(marks, unsteered=torch.zeros(PROMPTS, 2)))
    with pytest.raises(MetricError, match="same rows"):
        repetition(steered, unsteered, fluent(), replace(marks, steered=marks.steered[1:]))
    with pytest.raises(MetricError, match="not finite"):
        repetition(steered.clone().fill_(float("nan")), unsteered, fluent())
    for bad_number in (-1, PROMPTS + 1):
        with pytest.raises(MetricError, match="coherent_on"):
            repetition(steered, unsteered, fluent(), coherent_on=bad_number)

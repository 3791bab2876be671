"""Scores of an annotation's examples by the optional language model judge (`melbo.measure.llm.judge`).

Each example gets "llm": coherence, difference and refusal of its steered answer, 1 to 10; the entry's metrics get
"llm": their means and "n", the examples that have scores. Duds are not judged.
"""

from dataclasses import replace
from statistics import fmean
from typing import Any

from melbo.bank.annotation import Annotation, LlmScores, ScaleRow
from melbo.bank.vector_bank import VectorBank
from melbo.measure.llm.judge import ASPECTS, LLMJudge
from melbo.prompts import chat
from melbo.runs.progress import OnProgress


def with_llm_scores(bank: VectorBank, judge: LLMJudge, progress: OnProgress | None = None) -> VectorBank:
    """The bank with its examples judged; what the judge's answers cannot be read for stays without scores.

    Args:
        progress: called with (examples judged, examples); an exception from it cancels. What the judge keeps stays.

    Raises:
        JudgeError: no answer, a refused request, or a spent budget.
    """
    own = bank.prompts[0] if bank.prompts else ()
    system = next((m["content"] for m in own if m["role"] == "system"), None)
    places = [
        (i, k)
        for i, note in enumerate(bank.annotations)
        if not note.dud
        for k, example in enumerate(note.examples)
        if example.prompt.strip()
    ]
    examples = [bank.annotations[i].examples[k] for i, k in places]
    asked = [chat(e.prompt.strip(), system) for e in examples]
    scores = judge.score_all(asked, [e.text.strip() for e in examples], progress)
    found = dict(zip(places, scores, strict=True))
    return replace(bank, annotations=tuple(_scored(note, i, found) for i, note in enumerate(bank.annotations)))


def _scored(note: Annotation, index: int, found: dict[tuple[int, int], LlmScores | None]) -> Annotation:
    """The annotation with its scores."""
    own = {k: s for (i, k), s in found.items() if i == index and s is not None}
    if not own:
        return note
    examples = tuple(replace(e, llm=own.get(k, e.llm)) for k, e in enumerate(note.examples))
    means: dict[str, Any] = {aspect: round(fmean(getattr(s, aspect) for s in own.values()), 2) for aspect in ASPECTS}
    metrics = replace(note.metrics or ScaleRow(), llm=LlmScores(**means, n=len(own)))
    return replace(note, examples=examples, metrics=metrics)

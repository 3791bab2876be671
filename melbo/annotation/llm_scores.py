"""Scores of an annotation's examples by the optional language model judge (`melbo.measure.llm.judge`).

Each example gets "llm": coherence, difference and refusal of its steered answer, 1 to 10; the entry's metrics get
"llm": their means and "n", the examples that have scores. Duds are not judged.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from typing import Any

from melbo.annotation.entry import as_list, text_of
from melbo.bank.vector_bank import VectorBank
from melbo.measure.llm.judge import ASPECTS, JudgeScores, LLMJudge
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
        if note.get("dud") is not True
        for k, example in enumerate(as_list(note.get("examples")))
        if isinstance(example, dict) and text_of(example, "prompt")
    ]
    examples = [bank.annotations[i]["examples"][k] for i, k in places]
    asked = [chat(text_of(e, "prompt"), system) for e in examples]
    scores = judge.score_all(asked, [text_of(e, "text") for e in examples], progress)
    found = dict(zip(places, scores, strict=True))
    return replace(bank, annotations=tuple(_scored(note, i, found) for i, note in enumerate(bank.annotations)))


def _scored(note: dict[str, Any], index: int, found: dict[tuple[int, int], JudgeScores | None]) -> dict[str, Any]:
    """The entry with its scores."""
    own = {k: s for (i, k), s in found.items() if i == index and s is not None}
    if not own:
        return note
    examples = [e | {"llm": own[k].to_dict()} if k in own else e for k, e in enumerate(note["examples"])]
    means = {aspect: round(fmean(getattr(s, aspect) for s in own.values()), 2) for aspect in ASPECTS}
    metrics = note["metrics"] if isinstance(note.get("metrics"), dict) else {}
    return {**note, "examples": examples, "metrics": {**metrics, "llm": {**means, "n": len(own)}}}

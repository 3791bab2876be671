"""The Bank tab's table and vector page as HTML."""

from collections.abc import Sequence

from melbo.app.choices import ranges_text
from melbo.app.render import render
from melbo.app.tabs.bank.handlers import VectorRow, vector_rows
from melbo.bank.annotation import Annotation, ScaleRow, TraitShare
from melbo.bank.vector_bank import VectorBank
from melbo.hub.client import Pushed
from melbo.inspect.lens.logit_lens import LensReport
from melbo.inspect.max_activating.report import Direction
from melbo.inspect.stored import Neighbours

MAX_EXAMPLES = 4
MAX_PASSAGES = 2
"""Of each sign; the Inspect tab shows more."""
MAX_FEATURES = 4
_METRICS = (
    ("coherence", "Coherence, 0 to 10", "{:.1f}"),
    ("change", "Change (cosine distance)", "{:.2f}"),
    ("refusal", "Refusals", "{:.0%}"),
    ("same", "Same as unsteered", "{:.0%}"),
    ("degenerate", "Loops and the like", "{:.0%}"),
)
_COLUMNS = (
    ("#", "number"),
    ("Label", ""),
    ("Held out", "number"),
    ("Tags", "wide"),
    ("Usable", "span wide"),
    ("Best scale", "number"),
    ("Coherence", "number"),
    ("Objective", "number wide"),
)
"""Name and CSS classes."""
_OPTIONAL = ("Held out", "Tags", "Usable", "Coherence")
"""Columns that are left out where no row has a value."""


def table_html(rows: Sequence[VectorRow], chosen: int | None, bank_size: int) -> str:
    """The table of these rows."""
    columns = [c for c in _COLUMNS if c[0] not in _OPTIONAL or any(_cell(row, c[0]) for row in rows)]
    return render("bank/table", rows=rows, columns=columns, cell=_cell, chosen=chosen, bank_size=bank_size)


def _cell(row: VectorRow, column: str) -> str:
    """A cell's text."""
    if column == "#":
        return str(row.index)
    if column == "Label":
        return row.label
    if column == "Held out":
        return f"{row.traits[0].shown or 0} of {row.traits[0].of}" if row.traits and row.traits[0].of else ""
    if column == "Tags":
        return " ".join(row.tags)
    if column == "Objective":
        return f"{row.objective:,.4g}" if abs(row.objective) < 1_000 else f"{row.objective:,.0f}"
    if column == "Best scale":
        return "" if row.scale is None or row.dud else f"{row.scale:.3g}"
    if column == "Usable":
        return ranges_text(row.ranges)
    return "" if row.coherence is None or row.dud else f"{row.coherence:.1f}"


def page_html(
    bank: VectorBank, index: int, activating: Sequence[Direction] = (), neighbours: Neighbours | None = None
) -> str:
    """A vector's page: facts, note, examples, metrics beside the control, and what was measured elsewhere."""
    row, note = vector_rows(bank)[index], bank.annotation(index)
    facts = [f"vector {index} of {len(bank)}", f"objective {_cell(row, 'Objective')}"]
    facts += [f"best scale {row.scale:.3g}"] if row.scale is not None and not row.dud else []
    facts += [f"usable {ranges_text(row.ranges)}"] if row.ranges else []
    scale = note.metrics.scale if note.metrics else None
    return render(
        "bank/page",
        row=row,
        facts=facts,
        traits=[_repeats(trait) for trait in row.traits if trait.of],
        examples=_examples(note),
        metrics=_metrics(note.metrics),
        at="" if scale is None else f" at scale {scale:.3g}",
        activating=activating,
        neighbours=neighbours,
        max_passages=MAX_PASSAGES,
        max_features=MAX_FEATURES,
    )


def _repeats(trait: TraitShare) -> str:
    """ "Citations × 1: on 6 of 10 prompts that it was not chosen on; random vectors 0%"."""
    at = "" if trait.scale is None else f" × {trait.scale:.3g}"
    random = "" if trait.random is None else f"; random vectors {trait.random:.0%}"
    return f"{trait.trait}{at}: on {trait.shown or 0} of {trait.of} prompts that it was not chosen on{random}"


def _examples(note: Annotation) -> list[dict[str, str]]:
    """The stored examples that have an answer."""
    return [
        {
            "prompt": example.prompt.strip(),
            "unsteered": example.unsteered.strip() or note.unsteered.strip() or "(not stored)",
            "steered": example.text.strip(),
            "name": "Steered" if example.scale is None else f"Steered × {example.scale:.3g}",
        }
        for example in [e for e in note.examples if e.text.strip()][:MAX_EXAMPLES]
    ]


def _metrics(own: ScaleRow | None) -> list[tuple[str, str, str]]:
    """Name, the vector's value and the control's."""
    own = own or ScaleRow()
    rows = []
    for key, name, form in _METRICS:
        value, other = getattr(own, key), getattr(own.control, key, None)
        if value is not None:
            rows.append((name, form.format(value), "" if other is None else form.format(other)))
    return rows


def lens_html(report: LensReport) -> str:
    """The tokens that a vector moves most, both signs, beside the chance level."""
    return render("bank/lens", report=report)


def pushed_html(pushed: Pushed) -> str:
    """Where the bank is now."""
    return render("bank/pushed", pushed=pushed)

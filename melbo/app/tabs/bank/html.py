"""The Bank tab's table and vector page as HTML. Everything that comes from a bank, a model or a visitor is escaped."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from melbo.annotation.entry import as_list, number_of, text_of
from melbo.app.tabs.bank.handlers import VectorRow, entry_of, vector_rows
from melbo.bank.vector_bank import VectorBank
from melbo.inspect.lens.logit_lens import Lens, LensReport, Token
from melbo.inspect.max_activating.report import Direction
from melbo.inspect.stored import Neighbours
from melbo.publishing.hub import Pushed

MAX_TEXT = 1_500
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
_COLUMNS = (("#", "number"), ("Label", ""), ("Tags", "wide"), ("Usable", "span wide"), ("Best scale", "number"),
            ("Coherence", "number"), ("Objective", "number wide"))  # fmt: skip


def text(value: object, most: int = MAX_TEXT) -> str:
    """Escaped text, cut where it is longer than `most` characters."""
    plain = str(value)
    return html.escape(plain if len(plain) <= most else plain[: most - 1] + "…")


def ranges_text(ranges: Sequence[tuple[float, float]]) -> str:
    """ "-2 to -0.5, 0.75 to 1.5"; "" for none."""
    return ", ".join(f"{_signed(lo)} to {_signed(hi)}" if lo != hi else _signed(lo) for lo, hi in ranges)


def table_html(rows: Sequence[VectorRow], chosen: int | None, bank_size: int) -> str:
    """The table of these rows."""
    if not rows:
        return f'<p class="empty">No vector matches. This bank has {bank_size}; clear the search or show the duds.</p>'
    used = [
        column for column in _COLUMNS
        if column[0] not in ("Tags", "Usable", "Coherence") or any(_cell(row, column[0]) for row in rows)
    ]  # fmt: skip
    head = "".join(f'<th scope="col" class="{kind}">{name}</th>' for name, kind in used)
    body = "".join(_row(row, used, row.index == chosen) for row in rows)
    return (
        f'<div class="scroll" tabindex="-1"><table aria-label="Vectors of this bank"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _row(row: VectorRow, columns: Sequence[tuple[str, str]], chosen: bool) -> str:
    kind = " ".join(name for name, on in (("chosen", chosen), ("dud", row.dud)) if on)
    cells = "".join(
        f'<td class="{"label" if name == "Label" else kind_of}">{_cell(row, name)}</td>' for name, kind_of in columns
    )
    current = ' aria-current="true"' if chosen else ""
    return f'<tr class="{kind}" data-pick="{row.index}" tabindex="0"{current}>{cells}</tr>'


def _cell(row: VectorRow, column: str) -> str:
    if column == "#":
        return str(row.index)
    if column == "Label":
        return text(row.label)
    if column == "Tags":
        return tags_html(row.tags)
    if column == "Objective":
        return f"{row.objective:,.4g}" if abs(row.objective) < 1_000 else f"{row.objective:,.0f}"
    if column == "Best scale":
        return "" if row.scale is None or row.dud else _signed(row.scale)
    if column == "Usable":
        return ranges_text(row.ranges)
    return "" if row.coherence is None or row.dud else f"{row.coherence:.1f}"


def tags_html(tags: Sequence[str]) -> str:
    """Tags as chips."""
    return "".join(f'<span class="tag">{text(tag)}</span>' for tag in tags)


def page_html(
    bank: VectorBank, index: int, activating: Sequence[Direction] = (), neighbours: Neighbours | None = None
) -> str:
    """A vector's page: facts, note, examples, metrics beside the control, and what was measured elsewhere."""
    row, entry = vector_rows(bank)[index], entry_of(bank, index)
    facts = [f"vector {index} of {len(bank)}", f"objective {_cell(row, 'Objective')}"]
    facts += [f"best scale {_signed(row.scale)}"] if row.scale is not None and not row.dud else []
    facts += [f"usable {ranges_text(row.ranges)}"] if row.ranges else []
    parts = [
        f"<h3>{text(row.label)}</h3>",
        f'<p class="dim">{html.escape(" · ".join(facts))}</p>',
        f"<div>{tags_html(row.tags)}</div>" if row.tags else "",
        f'<p class="note">{text(row.note)}</p>' if row.note else "",
        _examples(entry),
        _metrics(entry),
        _passages(activating),
        _neighbours(neighbours),
    ]
    return "".join(parts)


def _examples(entry: Mapping[str, Any]) -> str:
    shown = [e for e in as_list(entry.get("examples")) if isinstance(e, Mapping) and text_of(e, "text")]
    if not shown:
        return '<p class="empty">No example is stored for this vector. Steer with it to see what it does.</p>'
    return "".join(_example(e, entry) for e in shown[:MAX_EXAMPLES])


def _example(example: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    unsteered = text_of(example, "unsteered") or text_of(entry, "unsteered") or "(not stored)"
    scale = number_of(example, "scale")
    name = "Steered" if scale is None else f"Steered × {_signed(scale)}"
    return (
        f'<div class="example"><div class="asked">{text(text_of(example, "prompt"))}</div><div class="pair">'
        f"<div><b>Unsteered</b>{text(unsteered)}</div>"
        f'<div class="steered"><b>{name}</b>{text(text_of(example, "text"))}</div></div></div>'
    )


def _metrics(entry: Mapping[str, Any]) -> str:
    own = entry.get("metrics")
    control = own.get("control") if isinstance(own, Mapping) else None
    rows = ""
    for key, name, form in _METRICS:
        value, other = number_of(own, key), number_of(control, key)
        if value is not None:
            beside = "" if other is None else form.format(other)
            rows += f'<tr><td>{name}</td><td class="number">{form.format(value)}</td><td class="number">{beside}</td>'
            rows += "</tr>"
    if not rows:
        return ""
    scale = number_of(own, "scale")
    at = "" if scale is None else f" at scale {_signed(scale)}"
    return (
        f'<h4>Measured{at}</h4><div class="plain"><table><thead><tr><th></th><th class="number">This vector</th>'
        f'<th class="number">Random, same norm</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def lens_html(report: LensReport) -> str:
    """The tokens that a vector moves most, both signs, beside the chance level."""
    lines = "".join(_lens(row) for row in report.rows)
    return (
        f'<div class="lens">{lines}</div><p class="dim">In standard deviations over the vocabulary, read from the '
        f"vector's effect after the last block. Random vectors reach {report.random_best:.1f} on average, "
        f"{report.random_most:.1f} at most.</p>"
    )


def _lens(row: Lens) -> str:
    sign = "× 1" if row.sign > 0 else "× -1"
    return (
        f"<span>{sign} promotes</span><span>{_tokens(row.promoted)}</span>"
        f"<span>{sign} suppresses</span><span>{_tokens(row.suppressed)}</span>"
    )


def _tokens(tokens: Sequence[Token]) -> str:
    return "".join(
        f'<span class="token">{text(t.text.replace(chr(10), "⏎"), 40)} <small>{_signed(round(t.value, 1))}</small>'
        "</span>"
        for t in tokens
    )


def _passages(directions: Sequence[Direction]) -> str:
    parts = []
    for direction in directions:
        shown = "".join(
            f'<p class="passage">{text("".join(e.pieces[: e.at]))}<mark>{text(e.pieces[e.at])}</mark>'
            f"{text(''.join(e.pieces[e.at + 1 :]))}</p>"
            for e in direction.examples[:MAX_PASSAGES]
        )
        parts.append(f"<h4>Most active at (× {_signed(direction.sign)})</h4>{shown}" if shown else "")
    return "".join(parts)


def _neighbours(found: Neighbours | None) -> str:
    if found is None:
        return ""
    names = ((f"{f.number} {f.note.mark}" if f.note else str(f.number), f.weight) for f in found.nearest[:MAX_FEATURES])
    chips = "".join(
        f'<span class="token">{text(name, 40)} <small>{cosine:.2f}</small></span>' for name, cosine in names
    )
    return f"<h4>Nearest SAE features (cosine; random {found.random_nearest:.2f})</h4><div>{chips}</div>"


def _signed(value: float) -> str:
    return f"{value:g}"


def pushed_html(pushed: Pushed) -> str:
    """Where the bank is now."""
    return f'<p class="note">Pushed to <b>{text(pushed.repo)}</b>, commit {text(pushed.commit[:8])}.</p>'

"""The Understand tab's examples, tokens and answers as HTML. All text of models, banks and visitors is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence

from melbo.app.tabs.bank.css import text
from melbo.inspect.lens.logit_lens import Lens, LensReport, Token
from melbo.inspect.lens.patchscope import Descriptions
from melbo.inspect.lens.token_activation import TextActivations
from melbo.inspect.max_activating.report import ActivatingReport, Direction, Example
from melbo.inspect.max_activating.table import best_values
from melbo.inspect.max_activating.top_examples import BINS, SPAN

SHOWN = 3
"""Examples of a sign that show at once; the rest can be opened."""
FULL = 4.0
"""Standard deviations at which a token has its strongest colour."""
STRONGEST = 5
TINY = 100_000_000
"""Parameters below which a model's own words mean nothing."""
_WHERE = {"decision": "just before a chat's answer", "answer": "in a chat's answer", "all": "at any token"}


def empty_html(said: str, command: str = "") -> str:
    """A section with nothing in it yet: what it would show, and the command that makes it."""
    tail = f" From the command line: <code>{html.escape(command)}</code>" if command else ""
    return f'<p class="empty">{html.escape(said)}{tail}</p>'


def examples_html(report: ActivatingReport, index: int, origin: str) -> str:
    """Both signs of a vector beside each other, with the random control's level.

    Args:
        origin: where the report is from, such as "Stored beside the bank.".
    """
    own = [d for d in report.directions if d.index == index]
    what = "the vector's effect" if report.config.site == "effect" else "the vector itself"
    head = (
        f"Passages of {report.corpus} where activations at layer {report.layer} lie most along {what}, "
        f"{_WHERE[report.config.where]}. Values are standard deviations; {report.positions:,} positions were read. "
    )
    notes = "".join(f"{note}. " for note in report.notes)
    sections = "".join(_direction(d, report) for d in sorted(own, key=lambda d: -d.sign))
    return f'<p class="dim">{text(head + notes + origin)}</p><div class="columns">{sections}</div>'


def _direction(direction: Direction, report: ActivatingReport) -> str:
    shown = "".join(_example(e, direction.spread) for e in direction.examples[:SHOWN])
    rest = "".join(_example(e, direction.spread) for e in direction.examples[SHOWN:])
    more = len(direction.examples) - SHOWN
    tail = f'<details><summary>{more} more</summary><ul class="passages">{rest}</ul></details>' if more > 0 else ""
    best = best_values((direction,))
    chance = best_values(report.control)
    level = sum(chance) / len(chance) if chance else None
    said = f"best {best[0]:.1f}" if best else "no example"
    if level is not None:
        said += f", random directions {min(chance):.1f} to {max(chance):.1f}"
    return (
        f"<section><h4>× {direction.sign:g} <small>{said}</small></h4>{_marks(direction, report)}"
        f'{_histogram(direction, best, level)}<ul class="passages">{shown}</ul>{tail}</section>'
    )


def _marks(direction: Direction, report: ActivatingReport) -> str:
    """What the examples are of, beside how many of a random direction's are of one kind."""
    if not direction.marks:
        return ""
    tags = "".join(
        f'<span class="tag{" first" if i == 0 else ""}">{text(mark, 40)} {count}</span>'
        for i, (mark, count) in enumerate(direction.marks)
    )
    alike = [d.marks[0][1] for d in report.control if d.marks]
    chance = f"<small>of {len(direction.examples)}" + (
        f"; a random direction's most frequent: {sum(alike) / len(alike):.1f}</small>" if alike else "</small>"
    )
    return f'<div class="dim">{tags}{chance}</div>'


def _example(example: Example, spread: float) -> str:
    pieces = example.pieces
    around = (html.escape("".join(part)[-600:] if i == 0 else "".join(part)[:600])
              for i, part in enumerate((pieces[: example.at], pieces[example.at + 1 :])))  # fmt: skip
    before, after = around
    mark = f"<small>{text(example.mark, 40)}</small>" if example.mark else ""
    return (
        f'<li><span class="value">{example.value / spread:.1f}{mark}</span>'
        f"<p>{before}<mark>{text(pieces[example.at], 80)}</mark>{after}</p></li>"
    )


def _histogram(direction: Direction, best: Sequence[float], level: float | None) -> str:
    """Bars on a root scale, so that the tails can be seen; the best example and the random level as lines."""
    most = max(max(direction.histogram), 1) ** 0.5
    bars = "".join(
        f'<rect x="{10 * i}" y="{38 - 36 * n**0.5 / most:.1f}" width="9" height="{36 * n**0.5 / most:.1f}"/>'
        for i, n in enumerate(direction.histogram)
        if n
    )
    width = 10 * BINS

    def line(kind: str, value: float) -> str:
        at = (min(value, SPAN) + SPAN) * width / (2 * SPAN)
        return f'<line class="{kind}" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="38"/>'

    lines = (line("level", level) if level is not None else "") + (line("own", best[0]) if best else "")
    ticks = "".join(
        f'<text x="{(t + SPAN) * width / (2 * SPAN):.0f}" y="50" text-anchor="{anchor}">{t}</text>'
        for t, anchor in ((-6, "start"), (-3, "middle"), (0, "middle"), (3, "middle"), (6, "end"))
    )
    label = (
        f"Histogram of {sum(direction.histogram)} values from -6 to 6 standard deviations, heights on a square-root "
        "scale. Full line: the best example"
        + ("." if level is None else "; dashed: random directions' best, on average.")
    )
    return (
        f'<svg class="histogram" role="img" aria-label="{label}" viewBox="0 0 {width} 52">'
        f"<title>{label}</title>{bars}{lines}{ticks}</svg>"
    )


def own_text_html(found: TextActivations, scale: float, random: bool) -> str:
    """One's own text with each token coloured by its activation along the vector, or along the random one."""
    values = [token.random if random else token.value for token in found.tokens]
    spans = "".join(_span(token.text, value) for token, value in zip(found.tokens, values, strict=True))
    order = sorted(range(len(values)), key=lambda i: -values[i])[:STRONGEST]
    best = "".join(
        f'<span class="token">{text(_seen(found.tokens[i].text), 40)} {values[i]:+.1f}</span>' for i in order
    )
    what = "a random vector of the same norm" if random else "this vector"
    along = f"the effect of {scale:g} × {what}" if found.along == "effect" else f"{what}, × {scale:g}"
    cut = " The text was cut where the model's context ends." if found.cut else ""
    return (
        f'<div class="read"><div class="key"><b>Along {along}, layer {found.layer}</b><span>-{FULL:g}</span>'
        f'<i aria-hidden="true"></i><span>{FULL:g} standard deviations</span></div><p>{spans}</p></div>'
        f'<p class="dim">Strongest: {best}<br>Mean and deviation are those of {found.reference} positions of ordinary '
        f"prompts.{cut}</p>"
    )


def _span(piece: str, value: float) -> str:
    strength = min(1.0, abs(value) / FULL)
    if strength < 0.05:
        return html.escape(piece)
    kind = "more" if value > 0 else "less"
    return f'<span class="{kind}" style="--s:{strength:.2f}" title="{value:+.1f}">{html.escape(piece)}</span>'


def lens_html(reports: Sequence[LensReport], origin: str) -> str:
    """The tokens that a vector moves, by its effect and on its direct path, beside the random level."""
    parts = "".join(_lens_site(report) for report in reports)
    return (
        f'<p class="dim">Values are standard deviations over the vocabulary; framed tokens lie above all random '
        f'vectors. {text(origin)}</p><div class="columns">{parts}</div>'
    )


def _lens_site(report: LensReport) -> str:
    name = {"effect": "Effect after the last block", "vector": "Direct path, past all blocks"}.get(
        report.site, "Output"
    )
    rows = "".join(_lens_row(row, report.random_most) for row in report.rows)
    return (
        f"<section><h4>{name} <small>random {report.random_best:.1f} on average, {report.random_most:.1f} at most"
        f'</small></h4><div class="moved">{rows}</div></section>'
    )


def _lens_row(row: Lens, level: float) -> str:
    return (
        f"<span>× {row.sign:g} promotes</span><span>{_tokens(row.promoted, level)}</span>"
        f"<span>× {row.sign:g} suppresses</span><span>{_tokens(row.suppressed, level)}</span>"
    )


def _tokens(tokens: Sequence[Token], level: float) -> str:
    return "".join(
        f'<span class="token{" above" if abs(t.value) > level else ""}">{text(_seen(t.text), 40)} '
        f"<small>{t.value:+.1f}</small></span>"
        for t in tokens
    )


def _seen(piece: str) -> str:
    """A token's text where a line break and an empty token can be seen."""
    return piece.replace("\n", "⏎") or "∅"


def descriptions_html(found: Descriptions, scale: float, parameters: int) -> str:
    """The model's words for the vector, beside those for nothing and for a random vector."""
    rows = ((f"This vector × {scale:g}", found.answers[0], " own"), ("Random, same length", found.random, ""),
            ("The word X itself", found.unpatched, ""))  # fmt: skip
    said = "".join(
        f'<p class="said{kind}"><b>{name}</b>{text(answer) or "(no answer)"}</p>' for name, answer, kind in rows
    )
    tiny = (
        " A model of this size cannot describe anything: the answers are of use on larger models only."
        if parameters < TINY
        else ""
    )
    return (
        f'<p class="dim">“{text(found.question)}” with the vector in the place of X, at layer {found.layer}.{tiny}</p>'
        f'<div class="columns">{said}</div>'
    )

"""The app's HTML, style sheets and scripts, which lie in templates/ and static/.

HTML: `render("bank/table", rows=rows)` fills templates/bank/table.html.jinja. Every value is escaped, but for what is
Markup already: another piece that `render` made. A name that the template needs and the call lacks is an error.
`{{ note | cut(300) }}` shortens a text.

CSS: static/page/*.css are given to gradio for the whole page. static/parts/*.css are for the HTML of single components,
where gradio applies them to that component alone: see `panel` in widgets/controls.py.

JS: `script("pick")` is static/js/pick.js, for an event's `js=` or a component's `js_on_load=`.
"""

from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from melbo.runs.templates import templates

_HERE = Path(__file__).parent
_STATIC = _HERE / "static"
MAX_TEXT = 1_500
"""Characters of a text that `cut` leaves, unless it is given another number."""


def cut(value: object, most: int = MAX_TEXT) -> str:
    """The text, ended with "…" where it is longer than `most` characters."""
    text = str(value)
    return text if len(text) <= most else text[: most - 1] + "…"


_ENGINE = templates(_HERE / "templates")
_ENGINE.filters["cut"] = cut


def render(name: str, **values: Any) -> Markup:
    """The template templates/{name}.html.jinja with these values, all escaped that are not Markup.

    Raises:
        jinja2.TemplateError: there is no such template, or it needs a value that is not among `values`.
    """
    return Markup(_ENGINE.get_template(f"{name}.html.jinja").render(values))  # noqa: S704  the template escapes


@cache
def stylesheet(*names: str) -> str:
    """The files static/parts/{name}.css, one after the other."""
    return "".join((_STATIC / "parts" / f"{name}.css").read_text(encoding="utf-8") for name in names)


@cache
def script(name: str) -> str:
    """The file static/js/{name}.js: a function, or the body of one for `js_on_load`."""
    return (_STATIC / "js" / f"{name}.js").read_text(encoding="utf-8").strip()


def page_styles() -> list[Path]:
    """The style sheets of the whole page, in the order in which they apply: that of their names."""
    return sorted((_STATIC / "page").glob("*.css"))

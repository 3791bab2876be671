"""Jinja templates, set up in one way: HTML is escaped, a name without a value is an error."""

from pathlib import Path

import jinja2

from melbo.runs.escape import inline, quote


def templates(folder: Path) -> jinja2.Environment:
    """The templates of a folder: *.html.jinja escape every value, others what their filters inline and quote get."""
    engine = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=jinja2.select_autoescape(["html.jinja"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    engine.filters |= {"inline": inline, "quote": quote}
    return engine

"""What tabs use that do not use `render` and `panel` yet."""

import html

from melbo.app.render import MAX_TEXT, cut, script, stylesheet

DIM = stylesheet("text")
PICK = script("pick")


def text(value: object, most: int = MAX_TEXT) -> str:
    """Escaped text, cut where it is longer than `most` characters."""
    return html.escape(cut(value, most))

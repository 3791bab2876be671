"""Style sheets and script of the tabs that do not use `panel` yet."""

from melbo.app.render import script, stylesheet

DIM = stylesheet("text")
TABLE = stylesheet("text", "table")
MAP = stylesheet("text", "map")
PAGE = stylesheet("text", "table", "vector")
PICK = script("pick")

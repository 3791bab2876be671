"""What a model card says of the results of `melbo inspect` that lie beside the bank. Read with care: anybody may have
written them; melbo/inspect/stored.py checks them in full.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, median
from typing import Any

from melbo.bank.results import ACTIVATING, FORMATS, GEOMETRY, LENS, SAE, read_beside
from melbo.bank.vector_bank import VectorBank
from melbo.publishing.card.text import inline, listed, number, quote, shown
from melbo.runs.digest import bank_digest

MAX_ROWS = 20
"""Vectors in the table."""
MAX_QUOTED = 6
"""Vectors whose passages are quoted."""
MAX_PASSAGES = 2
MAX_FEATURES = 3
MAX_TOKENS = 3
MAX_OVERLAPS = 12
MAX_PIECES = 400
"""Tokens of a passage that are read."""
HEAD = (
    "vector × sign", "marks of its passages", "best passage", "promoted tokens", "suppressed tokens",
    "nearest features", "explained by them",
)  # fmt: skip


def responses_view(
    bank: VectorBank, described: Sequence[tuple[int, int]], folder: Path | None
) -> dict[str, Any] | None:
    """The template's values: numbers as text, and texts that are escaped; None where nothing is stored.

    Args:
        described: numbers of the vectors that the card describes, each with the sign of its best scale.
        folder: where the files lie.
    """
    digest, model = bank_digest(bank.vectors), asdict(bank.base_model)
    held = {name: found for name in FORMATS if (found := read_beside(folder, name, digest)) is not None}
    held = {name: found for name, found in held.items() if found.get("model") == model}
    if not held:
        return None
    activating, sae, lens = (held.get(name, {}) for name in (ACTIVATING, SAE, LENS))
    site = next((s for s in _objects(lens.get("sites")) if s.get("site") == "effect"), {})
    rows = []
    for index, sign in described:
        cells = [*_marks(activating, index, sign), *_tokens(site, index, sign), *_features(sae, index)]
        if any(cell != "-" for cell in cells):
            rows.append([f"{index} × {sign:+d}: {inline(bank.label(index), 60)}", *cells])
    control = ["random directions", *_random_marks(activating), *_random_tokens(site), *_random_features(sae)]
    quoted = ((f"{i} × {sign:+d}", _passages(activating, i, sign)) for i, sign in described)
    return {
        "table": _kept([list(HEAD), control, *rows[:MAX_ROWS]]) if rows else [],
        "more": max(0, len(rows) - MAX_ROWS),
        "quoted": [item for item in quoted if item[1]][:MAX_QUOTED],
        "about": _about(held.get(ACTIVATING)),
        "scale": shown(sae.get("scale")),
        "geometry": _geometry(held.get(GEOMETRY), bank),
    }


def _kept(rows: list[list[str]]) -> list[list[str]]:
    """Without the columns that hold nothing but their head."""
    kept = [i for i in range(len(HEAD)) if any(row[i] != "-" for row in rows[1:])]
    return [[row[i] for i in kept] for row in rows]


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in listed(value) if isinstance(item, dict)]


def _of_vector(rows: Any, index: int, sign: int) -> dict[str, Any]:
    return next((r for r in _objects(rows) if (r.get("index"), r.get("sign")) == (index, sign)), {})


def _about(held: dict[str, Any] | None) -> dict[str, str] | None:
    """Of the activating examples: what was compared, and where."""
    if held is None:
        return None
    config = held.get("config")
    site = config.get("site") if isinstance(config, dict) else None
    return {
        "what": "the vector itself" if site == "vector" else "the change that the vector makes there",
        "layer": shown(held.get("layer")),
        "corpus": inline(held.get("corpus")) or "a corpus",
    }


def _first(direction: dict[str, Any]) -> dict[str, Any]:
    return next(iter(_objects(direction.get("examples"))), {})


def _spreads(direction: dict[str, Any], example: dict[str, Any]) -> float | None:
    """An example's value in units of the direction's standard deviation."""
    value, spread = number(example.get("value")), number(direction.get("spread"))
    return None if value is None or not spread or spread < 0 else number(value / spread)


def _share(direction: dict[str, Any]) -> tuple[str, float | None]:
    """The most frequent mark of the examples, and the share that has it; None without marks."""
    marks = [mark for e in _objects(direction.get("examples")) if (mark := inline(e.get("mark"), 40))]
    if not marks:
        return "", None
    mark, count = Counter(marks).most_common(1)[0]
    return mark, count / len(_objects(direction.get("examples")))


def _marks(held: dict[str, Any], index: int, sign: int) -> tuple[str, str]:
    """Cells: the most frequent mark of the vector's passages, and the value of the best one."""
    direction = _of_vector(held.get("directions"), index, sign)
    mark, share = _share(direction)
    return "-" if share is None else f"{share:.0%} {mark}", shown(_spreads(direction, _first(direction)))


def _random_marks(held: dict[str, Any]) -> tuple[str, str]:
    control = _objects(held.get("control"))
    best = [value for direction in control if (value := _spreads(direction, _first(direction))) is not None]
    shares = [share for direction in control if (share := _share(direction)[1]) is not None]
    return f"{fmean(shares):.0%} share one" if shares else "-", shown(median(best)) if best else "-"


def _passages(held: dict[str, Any], index: int, sign: int) -> list[str]:
    """The vector's best passages as quotes, each with its place between >> and <<."""
    found = []
    for example in _objects(_of_vector(held.get("directions"), index, sign).get("examples"))[:MAX_PASSAGES]:
        pieces, at = [p for p in listed(example.get("pieces"))[:MAX_PIECES] if isinstance(p, str)], example.get("at")
        if type(at) is int and 0 <= at < len(pieces):
            pieces[at] = f">>{pieces[at]}<<"
        found.append(quote("".join(pieces), 300))
    return found


def _tokens(site: dict[str, Any], index: int, sign: int) -> list[str]:
    """Cells: tokens promoted and suppressed."""
    row = _of_vector(site.get("rows"), index, sign)
    return [_words(row.get(name)) for name in ("promoted", "suppressed")]


def _words(value: Any) -> str:
    cells = (f"“{inline(t.get('text'), 30)}” {shown(t.get('value'))}" for t in _objects(value)[:MAX_TOKENS])
    return ", ".join(cells) or "-"


def _random_tokens(site: dict[str, Any]) -> tuple[str, str]:
    best = number(site.get("random_best"))
    return "-" if best is None else f"the best has {shown(best)}", "-"


def _features(held: dict[str, Any], index: int) -> tuple[str, str]:
    """Cells: the nearest features with their marks and cosines, and the share that a sum of features explains."""
    vectors, named = listed(held.get("vectors")), []
    place = vectors.index(index) if index in vectors else -1
    near, notes = _at(held.get("nearest"), place), held.get("features")
    pairs = zip(listed(near.get("features")), listed(near.get("weights")), strict=False)
    for feature, weight in list(pairs)[:MAX_FEATURES]:
        if type(feature) is not int:
            continue
        note = notes.get(str(feature)) if isinstance(notes, dict) else None
        mark = inline(note.get("mark"), 40) if isinstance(note, dict) else ""
        named.append(f"{inline(str(feature), 12)}{f' ({mark})' if mark else ''} {shown(weight)}")
    return ", ".join(named) or "-", _explained(_at(held.get("decomposition"), place).get("explained"))


def _at(rows: Any, place: int) -> dict[str, Any]:
    found = listed(rows)[place] if 0 <= place < len(listed(rows)) else None
    return found if isinstance(found, dict) else {}


def _explained(shares: Any) -> str:
    """Of a sum with as many features as the list is long."""
    last = number(listed(shares)[-1]) if listed(shares) else None
    return "-" if last is None else f"{last:.0%} by {len(listed(shares))}"


def _random_features(held: dict[str, Any]) -> tuple[str, str]:
    best = number(held.get("random_nearest"))
    return "-" if best is None else f"the nearest {shown(best)}", _explained(held.get("random"))


def _geometry(held: dict[str, Any] | None, bank: VectorBank) -> dict[str, Any] | None:
    if held is None:
        return None
    ratios = held.get("participation")
    ratios = ratios if isinstance(ratios, dict) else {}
    overlaps = []
    for overlap in _objects(held.get("overlaps"))[:MAX_OVERLAPS]:
        cosines = [number(c) or 0.0 for c in listed(overlap.get("cosines"))[: len(bank)]]
        if cosines:
            best = max(range(len(cosines)), key=lambda i: abs(cosines[i]))
            overlaps.append(f"{inline(overlap.get('name'), 40)}: vector {best}, {cosines[best]:.2f}")
    return {
        **{name: shown(ratios.get(name)) for name in ("vectors", "effects", "added")},
        **{f"random_{name}": shown(ratios.get(f"random {name}")) for name in ("effects", "added")},
        "overlaps": "; ".join(overlaps),
        "chance": shown(held.get("chance")),
    }

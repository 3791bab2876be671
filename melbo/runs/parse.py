"""The border: plain values from outside (files, forms, command lines) become typed dataclasses here and nowhere else.

A type is a frozen dataclass of the standard library whose fields are text, numbers, booleans, literals, None, tuples,
mappings, `JsonValue` and other such dataclasses. `Annotated[float, Field(gt=0)]` (pydantic's Field) gives a range; what
takes more than one field is checked in `__post_init__`, which raises ValueError or a MelboError.
A dataclass with a field `extra: Mapping[str, JsonValue]` keeps there what it does not know, so that a newer program's
keys survive a load and a save; without one, unknown keys are refused.
"""

import json
import re
import reprlib
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, JsonValue, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from melbo.errors import BankError, MelboError
from melbo.runs.escape import number

EXTRA = "extra"
"""Name of the field for unknown keys."""
MOST = 300
"""Characters of a reason."""
_KINDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "mapping_type": "an object",
    "dict_type": "an object",
    "dataclass_type": "an object",
    "none_required": "null",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
}
"""By pydantic's name of a fault, what is allowed, in our words."""
_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60
_short.maxlevel = 2
_MISSING = object()
_EXACT = 2**53
"""Whole numbers below this fit a float, and stay as they are written."""
T = TypeVar("T")


def parse(kind: type[T], raw: object, what: str, error: type[MelboError] = BankError, *, advice: str = "") -> T:
    """`raw` as a value of type `kind`, strictly: no text counts as a number, no 1.0 as a whole number, no 1 as true.

    Args:
        kind: a dataclass as above, or a tuple or mapping of them.
        raw: what `melbo.runs.files.parse_json` gives: lists stand for tuples.
        what: what is at fault and how, before the colon of the message: "bank/config.json is damaged".
        error: raised where it does not fit.
        advice: what to do, as the end of the message: "make it again with `melbo inspect`".

    Raises:
        MelboError: of the type `error`, in one line: the field, what was received (shortened), what is allowed.
    """
    cause: Exception | None = None
    try:
        found: T = _validated(kind, raw)
        return found
    except ValidationError as fault:
        reason, cause = one_line(fault, 1), fault
    except RecursionError:
        reason = "it is nested too deep"
    except (MelboError, ValueError, TypeError) as fault:
        reason, cause = " ".join(str(fault).split()), fault
    raise error(f"{what}: {reason.rstrip('.')[:MOST]}{f'; {advice}' if advice else ''}.") from cause


def parse_what_fits(kind: type[T], raw: object) -> T:
    """`raw` as a dataclass whose fields all have defaults; what does not fit counts as missing. Nothing is refused.

    Of lists and mappings the items that fit are kept, and of objects the fields; numbers must be finite. Unknown keys
    go into `extra`, where `kind` has it.
    """
    found: T | object = _fitting(kind, raw)
    return kind() if found is _MISSING else found  # type: ignore[return-value]


def dump(value: object, *, none: bool = True) -> Any:
    """JSON values of what `parse` gives: objects in the order of the fields, then what is in `extra`.

    Args:
        none: write the fields that are None.

    Raises:
        TypeError: it holds something that JSON does not know.
    """
    if is_dataclass(value) and not isinstance(value, type):
        own = {f.name: getattr(value, f.name) for f in fields(value) if f.name != EXTRA}
        held = {name: dump(item, none=none) for name, item in own.items() if none or item is not None}
        return held | dump(getattr(value, EXTRA, {}))
    if isinstance(value, Mapping):
        return {key: dump(item, none=none) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [dump(item, none=none) for item in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise TypeError(f"{_short.repr(value)} is not a JSON value.")


def one_line(fault: ValidationError, skip: int = 0) -> str:
    """The first fault: the field's path without its first `skip` parts, the value received, what is allowed."""
    first = fault.errors(include_url=False)[0]
    place = first["loc"][skip:]
    path, name = _path(place), place[-1] if place else ""
    within = f" in {_path(place[:-1])}" if len(place) > 1 else ""
    if first["type"] == "missing":
        return f"{name!r} is missing{within}" if isinstance(name, str) else f"{path} is missing"
    if first["type"] == "unexpected_keyword_argument":
        return f"{name!r} is unknown{within}"
    if first["type"] == "json_invalid":  # only where `raw` did not come from `parse_json`
        return first["msg"]
    if first["type"] in ("value_error", "assertion_error"):
        return " ".join(f"{path + ': ' if path else ''}{first['msg'].partition(', ')[2]}".split())
    return f"{path or 'it'} is {_short.repr(first['input'])}; {_allowed(first)}"


def _allowed(fault: ErrorDetails) -> str:
    known = _KINDS.get(fault["type"])
    if known is not None:
        return f"it must be {known.format(**fault.get('ctx', {}))}"
    return " ".join(re.sub(r"^\w+ should", "it must", fault["msg"]).split())


def _path(place: Sequence[str | int]) -> str:
    """ "examples[2].text" for ("examples", 2, "text")."""
    joined = "".join(f"[{part}]" if isinstance(part, int) else f".{str(part)[:60]}" for part in place)
    return joined.removeprefix(".")


def _validated(kind: Any, raw: object) -> Any:
    text = json.dumps([_prepared(kind, raw)])  # strict validation of Python values takes no list for a tuple
    return _adapter(kind).validate_json(text, strict=True)[0]


@lru_cache(256)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Of a tuple that holds one `kind`, since dataclasses take settings from what they lie in alone."""
    one: Any = tuple[kind]
    return TypeAdapter(one, config=ConfigDict(allow_inf_nan=False))


@lru_cache(256)
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields(kind)}


def _prepared(kind: Any, raw: Any) -> Any:
    """`raw` with the unknown keys of each object in its `extra`; ValueError where the dataclass has no such field."""
    args = get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):
        others = [a for a in args if a is not type(None)]
        return _prepared(others[0], raw) if len(others) == 1 and raw is not None else raw
    if isinstance(raw, list) and get_origin(kind) is tuple:
        kinds = args[:1] * len(raw) if args[1:] == (Ellipsis,) else args
        return [_prepared(a, item) for a, item in zip(kinds, raw, strict=False)] + raw[len(kinds) :]
    if not isinstance(raw, dict):
        return raw
    if isinstance(kind, type) and is_dataclass(kind):
        hints = _hints(kind)
        known = {k: _prepared(hints[k], v) for k, v in raw.items() if k in hints and k != EXTRA}
        rest = {k: v for k, v in raw.items() if k not in known}
        if rest and EXTRA not in hints:
            raise ValueError(f"{_short.repr(next(iter(rest)))} is unknown; {kind.__name__} has {', '.join(hints)}")
        return known | ({EXTRA: rest} if rest else {})
    if len(args) == 2:
        return {key: _prepared(args[1], item) for key, item in raw.items()}
    return raw


def _fitting(kind: Any, raw: Any) -> Any:
    """`raw` as a `kind`, as far as it fits; _MISSING where it does not."""
    args, origin = get_args(kind), get_origin(kind)
    if origin in (Union, types.UnionType):
        return _fitting(next(a for a in args if a is not type(None)), raw)
    if kind is JsonValue or (kind in (str, bool, int) and type(raw) is kind):
        return raw
    if kind is float and type(raw) in (int, float):
        finite = number(raw)
        return _MISSING if finite is None else raw if abs(raw) < _EXACT else finite
    if origin is tuple and isinstance(raw, (list, tuple)):
        every = args[1:] == (Ellipsis,)
        items = [_fitting(args[0 if every else min(i, len(args) - 1)], item) for i, item in enumerate(raw)]
        held = tuple(item for item in items if item is not _MISSING)
        return held if every or len(held) == len(raw) == len(args) else _MISSING
    if not isinstance(raw, Mapping):
        return _MISSING
    if isinstance(kind, type) and is_dataclass(kind):
        hints = _hints(kind)
        known = {k: _fitting(hints[k], v) for k, v in raw.items() if k in hints and k != EXTRA}
        rest = {k: v for k, v in raw.items() if k not in known}
        found = {k: v for k, v in known.items() if v is not _MISSING}
        return kind(**found | ({EXTRA: rest} if rest and EXTRA in hints else {}))
    if origin is not tuple and len(args) == 2:
        pairs = ((key, _fitting(args[1], item)) for key, item in raw.items())
        return {key: item for key, item in pairs if item is not _MISSING}
    return _MISSING

"""Outside values become typed in one place: strictly, with one-line errors; unknown keys are kept where wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, JsonValue

from melbo.errors import ConfigError, CorpusError, MelboError
from melbo.runs.parse import dump, parse, parse_what_fits


@dataclass(frozen=True)
class Part:
    pair: tuple[float, float]
    n: Annotated[int, Field(ge=0)]
    kind: Literal["a", "b"] = "a"
    on: bool = False


@dataclass(frozen=True)
class Whole:
    parts: tuple[Part, ...]
    name: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    last: Part | None = None
    extra: Mapping[str, JsonValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name == "bad":
            raise ValueError("a name\nis bad")
        if self.name == "worse":
            raise ConfigError("name is 'worse'; choose another.")


PART: dict[str, Any] = {"pair": [1, 2.5], "n": 3, "kind": "b", "on": True}


def test_values_are_typed_and_given_back() -> None:
    raw = {"parts": [PART, PART], "name": None, "counts": {"x": 1}, "last": PART}
    found = parse(Whole, raw, "x")
    assert found == Whole((Part((1.0, 2.5), 3, "b", True),) * 2, None, {"x": 1}, Part((1.0, 2.5), 3, "b", True))
    assert dump(found) == raw and parse(Whole, dump(found), "x") == found
    assert parse(tuple[Whole, ...], [raw], "x") == (found,)
    assert parse(dict[str, Part], {"one": PART}, "x") == {"one": found.parts[0]}
    assert parse(Whole, {"parts": []}, "x") == Whole(())


def test_unknown_keys_are_kept_or_refused() -> None:
    raw = {"parts": [], "new": {"deep": [1, {"a": None}]}, "extra": 3, "__post_init__": 1, "__class__": 2}
    found = parse(Whole, raw, "x")
    assert found.extra == {k: v for k, v in raw.items() if k != "parts"}
    assert dump(found) == {"parts": [], "name": None, "counts": {}, "last": None} | raw
    with pytest.raises(MelboError, match=r"^x: 'more' is unknown; Part has pair, n, kind, on"):
        parse(Part, PART | {"more": 1}, "x")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ([], "it is []; it must be an object"),
        (None, "it is None; it must be an object"),
        ({}, "'parts' is missing"),
        ({"parts": [{}]}, "'pair' is missing in parts[0]"),
        ({"parts": {}}, "parts is {}; it must be a list"),
        ({"parts": "abc"}, "parts is 'abc'; it must be a list"),
        ({"parts": [3]}, "parts[0] is 3; it must be an object"),
        ({"parts": [PART | {"n": 1.0}]}, "parts[0].n is 1.0; it must be a whole number"),
        ({"parts": [PART | {"n": True}]}, "parts[0].n is True; it must be a whole number"),
        ({"parts": [PART | {"n": -1}]}, "parts[0].n is -1; it must be at least 0"),
        ({"parts": [PART, PART | {"pair": [1, "2"]}]}, "parts[1].pair[1] is '2'; it must be a number"),
        ({"parts": [PART | {"pair": [1]}]}, "parts[0].pair[1] is missing"),
        ({"parts": [PART | {"pair": [1, 2, 3]}]}, "it must be a list of at most 2"),
        ({"parts": [PART | {"pair": [1, 10**400]}]}, "parts[0].pair[1] is 1000000"),
        ({"parts": [PART | {"kind": "c"}]}, "parts[0].kind is 'c'; it must be 'a' or 'b'"),
        ({"parts": [PART | {"on": 1}]}, "parts[0].on is 1; it must be true or false"),
        ({"parts": [], "name": 3}, "name is 3; it must be text"),
        ({"parts": [], "counts": {"x": "1"}}, "counts.x is '1'; it must be a whole number"),
        ({"parts": [], "name": "x" * 10**6, "last": 3}, "last is 3"),
        ({"parts": "y" * 10**6}, "yyy"),
        ({"parts": [], "name": "bad"}, "a name is bad"),
        ({"parts": [], "name": "worse"}, "name is 'worse'; choose another"),
    ],
    ids=range(22),
)
def test_what_does_not_fit_is_refused_in_one_line(raw: Any, words: str) -> None:
    with pytest.raises(CorpusError) as error:
        parse(Whole, raw, "file.json is damaged", CorpusError, advice="make it again")
    message = str(error.value)
    assert message.startswith("file.json is damaged: ") and message.endswith("; make it again.")
    assert words in message and "\n" not in message and len(message) < 400


def test_values_that_are_too_deep_are_refused() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    for raw in ({"parts": deep}, {"parts": [], "new": deep}):
        with pytest.raises(MelboError):
            parse(Whole, raw, "x")


def test_only_json_is_given_back() -> None:
    with pytest.raises(TypeError, match="not a JSON value"):
        dump(Whole((), extra={"x": object()}))  # type: ignore[dict-item]


@dataclass(frozen=True)
class Loose:
    name: str = ""
    size: float | None = None
    n: int | None = None
    on: bool = False
    pairs: tuple[tuple[float, float], ...] = ()
    counts: Mapping[str, int] | None = None
    inner: Loose | None = None
    extra: Mapping[str, JsonValue] = field(default_factory=dict)


def test_what_does_not_fit_counts_as_missing() -> None:
    raw = {"name": 3, "size": 10**400, "n": 1.0, "on": 1, "pairs": [[1, 2], [1], "ab", [1, True], [0.5, -1]],
           "counts": {"a": 1, "b": "2"}, "inner": {"name": "x", "new": [1]}, "mine": {"a": 1}, "extra": 2}  # fmt: skip
    found = parse_what_fits(Loose, raw)
    inner = Loose("x", extra={"new": [1]})
    assert found == Loose(pairs=((1, 2), (0.5, -1)), counts={"a": 1}, inner=inner, extra={"mine": {"a": 1}, "extra": 2})
    for odd in (None, [], "x", 3):
        assert parse_what_fits(Loose, odd) == Loose()
    assert dump(Loose("x", 2, inner=Loose()), none=False) == {
        "name": "x", "size": 2, "on": False, "pairs": [], "inner": {"name": "", "on": False, "pairs": []}
    }  # fmt: skip

"""Settings: frozen dataclasses that check themselves when they are made, and say what their fields mean.

    @dataclass(frozen=True)
    class AtlasConfig(Settings):
        k: Annotated[int, Field(ge=1)] = 12
        \"\"\"Directions followed for each pair.\"\"\"

The text under a field is its help on the command line too: first what users need; after an empty line, the rest.
"""

from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Annotated, Any, ClassVar, Self, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from melbo.errors import ConfigError, MelboError
from melbo.runs.parse import one_line, parse

LARGEST = 2**32 - 1
"""Largest seed, and largest whole number in a config; every random generator takes it."""
Size = Annotated[int, Field(ge=1, le=LARGEST)]
Whole = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[float, Field(gt=0)]
Scales = Annotated[tuple[Annotated[float, Field(gt=0, le=1000)], ...], Field(min_length=1)]
"""Sizes of a vector, of which both signs are tried."""


@dataclass(frozen=True)
class Unset:
    """Beside a field's type: what stands in for None, as text."""

    text: str


class Settings:
    """Base of frozen dataclasses that refuse wrong values: strictly, so that no 1 counts as true and no "1" as 1.

    Raises:
        MelboError: of the class's `fault`: the field, what was received, what is allowed.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
    fault: ClassVar[type[MelboError]] = ConfigError

    def __post_init__(self) -> None:
        try:
            kind: Any = type(self)  # mypy holds classes for not hashable
            _checker(kind).model_validate(vars(self))
        except ValidationError as fault:
            raise self.fault(f"{one_line(fault)}.") from None
        self.check()

    def check(self) -> None:
        """What takes more than one field."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values: dict[str, Any] = asdict(self)  # type: ignore[call-overload]  # every one is a dataclass
        return values

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """Inverse of `to_dict`, of JSON too; unknown names are an error."""
        return parse(cls, values, f"the {cls.__name__} does not fit", cls.fault)


@cache
def _checker(kind: Any) -> type[BaseModel]:
    """Checks the fields as a dict, since pydantic takes an instance as it is. Docstrings, slow to read, say nothing."""
    checked: dict[str, Any] = {name: (hint, ...) for name, hint in _hints(kind).items()}
    config: Any = {**kind.__pydantic_config__, "use_attribute_docstrings": False}
    return create_model(kind.__name__, __config__=config, **checked)


def _hints(kind: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}


@cache
def schema(kind: Any) -> dict[str, dict[str, Any]]:
    """By field, what JSON Schema says of it: description, minimum, default, ..."""
    described: dict[str, dict[str, Any]] = TypeAdapter(kind).json_schema()["properties"]
    return {name: {**next(iter(f.get("anyOf", [])), {}), **f} for name, f in described.items()}


def explain(kind: Any, name: str, default: str | None = None) -> str:
    """What a field means, its range, and what stands in for None (or `default`): for a command's help or a form."""
    found = schema(kind)[name]
    meaning = " ".join(found.get("description", "").partition("\n\n")[0].split())
    bounds = {
        "at least": found.get("minimum"),
        "above": found.get("exclusiveMinimum"),
        "at most": found.get("maximum"),
        "below": found.get("exclusiveMaximum"),
    }
    said = ", ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None and bound < LARGEST)
    unset = next((f"Default: {p.text}." for p in get_args(_hints(kind)[name]) if isinstance(p, Unset)), "")
    return " ".join(filter(None, (meaning, f"{said.capitalize()}." if said else "", default or unset)))

"""Options of the command line that stand for a config: name, type, default, range and help are the field's.

    def atlas(out: Path, config: Annotated[AtlasConfig, Fields()] = AtlasConfig()) -> None: ...

is, as a command, one with an option for each field of AtlasConfig; the function gets the config.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import wraps
from types import MappingProxyType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from melbo.runs.settings import explain

NONE: Mapping[str, Any] = MappingProxyType({})
"""No changes."""


@dataclass(frozen=True)
class Fields:
    """Marks a parameter that stands for a config; the defaults are those of the config in the signature."""

    only: tuple[str, ...] = ()
    """The fields that get an option; none: all."""
    without: tuple[str, ...] = ()
    """Fields that get none."""
    names: Mapping[str, str] = field(default_factory=dict)
    """By field, its option where it is called otherwise: "scale" for "scales", as it is given many times."""
    types: Mapping[str, Any] = field(default_factory=dict)
    """By field, the type of its option where this command takes fewer values."""

    of: type[Any] | None = None
    """The config's class, where the config is not known yet: the function gets a dict of the fields that are given."""
    whose: str = ""
    """With `of`: whose value stands where an option is not given, such as "the bank's"."""

    def options(self, config: Any) -> dict[str, inspect.Parameter]:
        """By field, the parameter of its option; `config` is the default in the signature."""
        kind = self.of or type(config)
        names = self.only or tuple(f.name for f in fields(kind))
        return {name: self._option(kind, name, config) for name in names if name not in self.without}

    def _option(self, kind: type[Any], name: str, config: Any) -> inspect.Parameter:
        hint: Any = self.types.get(name) or get_type_hints(kind)[name]
        value = None if self.of else getattr(config, name)
        said = f"Default: {self.whose}." if self.of else None
        if isinstance(value, tuple):
            said = f"Default: {', '.join(map(str, value))}."
        text = explain(kind, name, said)
        if get_origin(hint) is tuple:
            many: Any = list
            hint, value, text = many[get_args(hint)[0]], None, f"{text} May be given many times."
        annotation = Annotated[hint | None if value is None else hint, typer.Option(help=text)]  # type: ignore[valid-type]
        own = self.names.get(name, name)
        return inspect.Parameter(own, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=value)

    def take(self, config: Any, values: dict[str, Any]) -> Any:
        """What the function gets; the options leave `values` for it."""
        found = {name: values.pop(option.name) for name, option in self.options(config).items()}
        given = {name: tuple(v) if isinstance(v, list) else v for name, v in found.items() if v not in (None, [])}
        return given if self.of else replace(config, **given)


def default_of(function: Callable[..., Any], name: str) -> Any:
    """The default of a function's parameter, for an option that is handed on to it."""
    return inspect.signature(function).parameters[name].default


def marks_of(command: Callable[..., Any]) -> dict[str, tuple[Fields, Any]]:
    """By parameter that stands for a config: its mark, and its default."""
    found = {}
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        for part in get_args(parameter.annotation)[1:]:
            if isinstance(part, Fields):
                found[name] = (part, parameter.default)
    return found


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """The same command, with the options that its marked parameters stand for in their place."""
    marks = marks_of(command)
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        if name in marks:
            mark, config = marks[name]
            parameters += mark.options(config).values()
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(command)
    def run(**values: Any) -> None:
        taken = {name: mark.take(config, values) for name, (mark, config) in marks.items()}
        command(**values, **taken)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run

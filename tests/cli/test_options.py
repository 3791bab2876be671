"""Options that stand for a config's fields say what the config does: default, range and meaning."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any, get_type_hints

import annotated_types
from pydantic.fields import FieldInfo

from melbo.cli.commands import COMMANDS, Entry, load_command
from melbo.cli.options import marks_of
from melbo.config import STEPS, DiscoveryConfig, default_layers
from melbo.runs.settings import Settings, explain


def leaves(table: Any = COMMANDS) -> Iterator[tuple[str, Entry, Any]]:
    """Every command that runs something: its name, entry and click command."""
    for name, entry in table.items():
        if entry.commands:
            yield from leaves(entry.commands)
        else:
            yield name, entry, load_command(table, name)


def bounds(kind: type[Settings], name: str) -> set[float]:
    """The limits of a field, but for the largest whole number."""
    found: set[float] = set()
    waiting = [get_type_hints(kind, include_extras=True)[name]]
    while waiting:
        hint = waiting.pop()
        if getattr(hint, "__origin__", None) is tuple:
            continue  # those of its items
        waiting += getattr(hint, "__args__", ())
        for part in getattr(hint, "__metadata__", ()):
            parts = part.metadata if isinstance(part, FieldInfo) else [part]
            for limit in parts:
                for word in ("ge", "gt", "le", "lt"):
                    if isinstance(limit, annotated_types.BaseMetadata) and hasattr(limit, word):
                        found.add(getattr(limit, word))
    return {b for b in found if b < 2**31 - 1}


def test_every_option_of_a_config_says_the_configs_default_range_and_meaning() -> None:
    checked = 0
    for command, entry, click_command in leaves():
        module, _, function = entry.target.partition(":")
        own = getattr(import_module(f"melbo.cli.{module}"), function)
        options = {option.name: option for option in click_command.params}
        for mark, config in marks_of(own).values():
            kind = mark.of or type(config)
            for name, parameter in mark.options(config).items():
                option, where = options[parameter.name], f"{command} --{parameter.name}"
                help_text, value = option.help, None if mark.of else getattr(config, name)
                checked += 1
                assert help_text.startswith(explain(kind, name, "|").partition("|")[0].strip()), where
                assert bounds(kind, name) <= {float(n) for n in re.findall(r"\d+(?:\.\d+)?", help_text)}, where
                if mark.of:
                    assert f"Default: {mark.whose}." in help_text and option.default is None, where
                elif isinstance(value, tuple):
                    assert f"Default: {', '.join(map(str, value))}." in help_text, where
                elif value is not None:
                    assert option.default == value and "Default:" not in help_text, where
                    assert option.show_default, where
    assert checked > 80


def test_what_depends_on_the_method_or_the_depth_is_what_the_config_does() -> None:
    said = explain(DiscoveryConfig, "steps")
    for name, steps in STEPS.items():
        assert (f"{steps} {name}" in said) == (steps > 0)
    for name, layer in zip(("source_layer", "target_layer"), default_layers(16), strict=True):
        share = re.search(r"Default: (0\.\d+) of the depth", explain(DiscoveryConfig, name))
        assert share is not None and round(float(share[1]) * 16) - (name == "target_layer") == layer


def test_a_number_for_a_default_stands_in_no_help_text() -> None:
    """Click says the default itself, so that a text cannot say another."""
    for command, _, click_command in leaves():
        for option in click_command.params:
            said = re.search(r"Default: (\S+)", getattr(option, "help", None) or "")
            if option.default is not None:
                assert said is None, f"{command} --{option.name}"

"""Banks in memory, and the limits of a request."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from melbo.app.context import BankCache, Context, Limits, size_of, visitors_log_in
from melbo.app.layout import head_of
from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError
from melbo.models.load import LoadedModel


def test_a_bank_is_found_by_its_key_only(tiny_bank: VectorBank) -> None:
    cache = BankCache(tiny_bank)
    first, second = (cache.put(tiny_bank.select([i])) for i in (0, 1))
    assert cache.get("default") is tiny_bank and len(first) >= 22 and first != second
    assert cache.get(first).label(0) == "mode 0" and cache.get(second).label(0) == "mode 1"
    for wrong in ("", "0", None, ["x"], first[:-1]):
        with pytest.raises(BankError, match="no longer loaded"):
            cache.get(wrong)  # type: ignore[arg-type]


def test_the_bank_used_longest_ago_makes_room(tiny_bank: VectorBank) -> None:
    cache = BankCache(tiny_bank, Limits(banks=2))
    first, second = (cache.put(tiny_bank) for _ in range(2))
    cache.get(first)
    third = cache.put(tiny_bank)
    assert cache.get(first) and cache.get(third) and len(cache) == 2
    with pytest.raises(BankError):
        cache.get(second)


def test_memory_has_an_upper_bound(tiny_bank: VectorBank) -> None:
    cache = BankCache(tiny_bank, Limits(bank_bytes=2 * size_of(tiny_bank)))
    keys = [cache.put(tiny_bank) for _ in range(5)]
    assert len(cache) == 2 and cache.get(keys[-1]) is tiny_bank
    with pytest.raises(BankError, match="select fewer"):
        BankCache(tiny_bank, Limits(bank_bytes=size_of(tiny_bank) - 1)).put(tiny_bank)
    assert cache.get("default") is tiny_bank


def test_a_space_is_held_tighter_than_ones_own_machine() -> None:
    own, space = Limits.from_environment({}), Limits.from_environment({"SPACE_ID": "a/b", "MELBO_MODELS": "x/y, z/w,"})
    for name in ("new_tokens", "rows", "radii", "vectors", "steps", "seconds", "bank_bytes"):
        assert getattr(space, name) < getattr(own, name)
    assert own.models is None and own.local_files
    assert space.models == ("x/y", "z/w") and not space.local_files


def test_the_limits_are_as_documented() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "app.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \|", page, re.MULTILINE)
    own, space = Limits(), Limits.from_environment({"SPACE_ID": "a/b"})
    assert {name: (int(a), int(b)) for name, a, b in rows} == {
        name: (value, getattr(space, name)) for name, value in vars(own).items() if type(value) is int
    }
    zero = Limits.from_environment({"SPACE_ID": "a/b", "SPACES_ZERO_GPU": "true"})
    assert f"on ZeroGPU {zero.seconds}" in page


def test_visitors_log_in_on_a_space_with_oauth_only() -> None:
    assert visitors_log_in({"SPACE_ID": "a/b", "OAUTH_CLIENT_ID": "x"})
    assert not visitors_log_in({"OAUTH_CLIENT_ID": "x"}) and not visitors_log_in({"SPACE_ID": "a/b"})


def test_the_head_says_where_bank_and_model_have_other_weights(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    named = replace(tiny, name="user/<b>", revision="a" * 40)
    base = replace(tiny_bank.base_model, id=named.name, revision="c" * 40)
    other = replace(tiny_bank, base_model=base)
    context = Context(named, BankCache(other))
    same = context.banks.put(replace(other, base_model=replace(base, revision="a" * 40)))
    shown = head_of(context, "default")
    assert "The bank was made on other weights of user/&lt;b&gt; (cccccccccccccc)" in shown
    assert "other weights" not in head_of(context, same)

"""One cache for all that the app keeps: limits by number, size and time."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from melbo.app.cache import Cache


def test_what_was_used_longest_ago_leaves() -> None:
    gone: list[str] = []
    cache: Cache[int, str] = Cache(2, leave=gone.append)
    for key in (1, 2):
        cache.put(key, str(key))
    assert cache.get(1) == "1" and cache.get(9) is None
    cache.put(3, "3")
    assert cache.values() == ["1", "3"] and gone == ["2"], "looking at all counts as no use"
    assert cache.pop_oldest() == "1" and cache.values() == ["3"]
    none: Cache[int, str] = Cache(0)
    none.put(1, "1")
    assert len(none) == 0


def test_what_is_kept_never_leaves_and_takes_no_room() -> None:
    cache: Cache[int, str] = Cache(1, most_bytes=4, size=len)
    cache.keep(0, "a long value")
    for key in range(1, 4):
        cache.put(key, "abc")
        assert (len(cache), cache.bytes) == (1, 3) and cache.values() == ["a long value", "abc"]
    assert cache.get(0) == "a long value" and cache.kept() == ["a long value"]
    with pytest.raises(ValueError, match="too large"):
        cache.put(9, "abcde")


def test_what_nobody_uses_leaves_in_time() -> None:
    now, gone = 0.0, list[str]()
    cache: Cache[int, str] = Cache(seconds=10, leave=gone.append, timer=lambda: now)
    cache.put(1, "1")
    cache.put(2, "2")
    now = 9.0
    assert cache.get(1) == "1"
    now = 18.0
    cache.put(3, "3")
    assert gone == ["2"] and cache.values() == ["1", "3"]
    now = math.inf
    assert cache.get(1) is None and len(cache) == 0 and sorted(gone) == ["1", "2", "3"]


def test_threads_never_hold_more_than_the_limit() -> None:
    cache: Cache[int, int] = Cache(5)

    def work(start: int) -> int:
        for i in range(200):
            cache.put(start + i, i)
            cache.get(start)
        return len(cache)

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(work, range(0, 1_600, 200))) <= 6 and len(cache) == 5

"""How long something will still take, in words."""

from __future__ import annotations


def time_left(done: int, total: int, elapsed: float) -> str:
    """ " · 12 of 40 · about 8 s left", the time once a few percent are done.

    Args:
        elapsed: seconds since the start.
    """
    if total <= 0:
        return ""
    told = f" · {done} of {total}"
    if done < max(2, total // 50):
        return told
    seconds = elapsed / done * (total - done)
    return f"{told} · about {seconds / 60:.0f} min left" if seconds >= 90 else f"{told} · about {seconds:.0f} s left"

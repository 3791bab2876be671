"""Run by `elicitation.tasks.patterns` in its own process: searches patterns in texts, each within a limit of CPU time.

stdin: {"seconds": s, "pairs": [[pattern, text], ...]}; stdout: [true, false or null (out of time), ...]. A pattern that
ran out of time once is not tried again. The standard library only.
"""

from __future__ import annotations

import json
import re
import signal
import sys


class OutOfTime(Exception):
    """Raised by the timer."""


def _stop(_signal: int, _frame: object) -> None:
    raise OutOfTime


def _search(pattern: str, text: str, seconds: float) -> bool | None:
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        try:
            return re.search(pattern, text) is not None
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except OutOfTime:
        return None


def main() -> None:
    """Answer one request."""
    asked = json.load(sys.stdin)
    signal.signal(signal.SIGVTALRM, _stop)
    slow: set[str] = set()
    found: list[bool | None] = []
    for pattern, text in asked["pairs"]:
        verdict = None if pattern in slow else _search(pattern, text, asked["seconds"])
        if verdict is None:
            slow.add(pattern)
        found.append(verdict)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()

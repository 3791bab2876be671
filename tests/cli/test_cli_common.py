"""What the commands share: stages are shown as a bar in a terminal and as lines elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from melbo.cli.common import stages
from melbo.runs.progress import notify


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def work() -> None:
    """Three stages, one of them twice."""
    with stages() as show:
        for done in range(3):
            notify(show, done, 3, "training")
        notify(show, 0, 2, "answering")
        notify(show, 2, 2, "answering")
        notify(show, 0, 0, "\x1b[2Jscoring")
        notify(show, 0, 3, "training")


def test_without_a_terminal_each_stage_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    work()
    out, err = capsys.readouterr()
    assert (out, err.splitlines()) == ("", ["training", "answering", "?[2Jscoring", "training"])


def test_other_processes_are_silent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    work()
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    work()
    shown = terminal.getvalue()
    assert "training:   0%|" in shown and "\n" not in shown and "\x1b[2J" not in shown
    assert shown.endswith("\r")

"""ZeroGPU: every run of the model goes through a forked process, with a stand-in for `spaces`, and gives the same."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from melbo.app import api, layout
from melbo.app.context import BankCache, Context, Limits
from melbo.app.endpoint import action
from melbo.app.jobs import device
from melbo.app.jobs.device import START, on_device
from melbo.app.jobs.event import result_of
from melbo.app.tab_context import TabContext
from melbo.app.tabs.bank.handlers import read_tokens
from melbo.app.tabs.discover.api import discover_endpoint
from melbo.app.tabs.models.actions import ModelsActions
from melbo.app.tabs.models.handlers import base_of, random_steps
from melbo.app.tabs.steer.handlers import compare, last_changes
from melbo.app.tabs.strip.handlers import Calibration, scale_strip
from melbo.app.tabs.sweep.handlers import Request, sweep_steps
from melbo.bank.vector_bank import VectorBank
from melbo.errors import ConfigError, MelboError
from melbo.models.load import LoadedModel
from melbo.prompts import BOMB
from support.fake_spaces import Spaces
from support.letters import Letters
from support.saved_models import save_tiny
from support.waiting import settled

pytestmark = pytest.mark.server

LIMITS = Limits.from_environment({"SPACE_ID": "a/b", "SPACES_ZERO_GPU": "true"})


@pytest.fixture
def spaces(monkeypatch: pytest.MonkeyPatch) -> Spaces:
    """From here on this is ZeroGPU."""
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setattr(device, "spaces", fake := Spaces())
    return fake


@pytest.fixture
def context(tiny: LoadedModel, tiny_bank: VectorBank) -> Context:
    return Context(tiny, BankCache(tiny_bank), LIMITS)


def last(values: Iterator[Any]) -> Any:
    *_, final = values
    return final


RUNS: dict[str, Callable[[Context], Any]] = {
    "chat": lambda c: last(action(api.chat, c, c.on_device(compare))(BOMB, [0], [1.5], max_new_tokens=8)),
    "strip": lambda c: last(action(api.scale_strip, c, c.on_device(scale_strip, Calibration()))(BOMB, 0, [-1.0, 1.0])),
    "token changes": lambda c: action(api.token_changes, c, c.on_device(last_changes))(BOMB, "a short answer", 1, 1.0),
    "discover": lambda c: last(action(discover_endpoint(c))(BOMB, vectors=4, steps=3)),
    "sweep": lambda c: [(row.radius, row.found.diversity) for row in sweep(c).rows],
    "logit lens": lambda c: on_device(partial(read_tokens, c))(c.banks.get("default"), 0),
    "random vectors": lambda c: random_vectors(c).vectors.tolist(),
}


def sweep(context: Context) -> Any:
    run, bank = on_device(partial(sweep_steps, context)), context.banks.get("default")
    parts = list(run(bank, Request((0.5, 0.8), 2, 2, BOMB, 6), Letters))
    return next(event.result for events in parts for event in events if event.result is not None)


def random_vectors(context: Context) -> VectorBank:
    found: VectorBank = result_of(on_device(partial(random_steps, context))(base_of(context.loaded)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_every_run_works_in_a_forked_process(
    name: str, context: Context, spaces: Spaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = RUNS[name](context)
    assert spaces.runs == 1 and all(seconds <= 60 + START for seconds in spaces.durations)
    monkeypatch.delenv("SPACES_ZERO_GPU")
    assert RUNS[name](context) == there and spaces.runs == 1


def my_process() -> int:
    return os.getpid()


def test_the_work_is_done_elsewhere_and_our_errors_come_back_whole(spaces: Spaces) -> None:
    assert on_device(my_process)() != my_process()

    def fails(what: str) -> None:
        raise ConfigError(f"{what} is out of range.") if what == "R" else KeyError(what)

    def fails_late(what: str) -> Iterator[int]:
        yield 1
        fails(what)

    with pytest.raises(ConfigError, match=r"R is out of range\."):
        on_device(fails)("R")
    values = on_device(fails_late)("R")
    assert next(values) == 1
    with pytest.raises(ConfigError, match="out of range"):
        next(values)
    with pytest.raises(Exception, match="KeyError") as failed:  # its own text never leaves the forked process
        on_device(fails)("secret")
    assert not isinstance(failed.value, MelboError)


def test_a_visitor_without_gpu_time_is_told_so(context: Context, spaces: Spaces) -> None:
    spaces.refusal = "You have exceeded your free ZeroGPU quota (60s requested vs. 3s left). Try again in 1:00:00."
    with pytest.raises(Exception, match=r"ZeroGPU: You have exceeded your free ZeroGPU quota"):
        last(action(api.chat, context, context.on_device(compare))(BOMB))


def test_a_closed_run_stops(spaces: Spaces, tmp_path: Path) -> None:
    def count() -> Generator[int, None, None]:
        for i in range(1_000):
            (tmp_path / "at").write_text(str(i))
            time.sleep(0.005)
            yield i

    with closing(on_device(count)()) as values:
        assert next(values) == 0
    assert settled(lambda: int((tmp_path / "at").read_text() or 1_000), every=0.02) < 500


def test_what_a_run_asks_for_is_within_the_limits(context: Context, spaces: Spaces) -> None:
    """A GPU is asked for as long as the work may take, and its forked process to start."""
    layout.build_demo(context.loaded, context.banks.get("default"), LIMITS)
    assert len(spaces.durations) > 10 and set(spaces.durations) <= {LIMITS.seconds + START, 60 + START}
    assert Limits.from_environment({"SPACE_ID": "a/b"}).seconds == 60 > LIMITS.seconds


def test_all_models_are_loaded_before_the_launch(
    context: Context, spaces: Spaces, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "user", "gpt2", tokenizer)
    contexts: list[Context] = []

    def noted(*given: Any) -> Context:
        contexts.append(Context(*given))
        return contexts[-1]

    monkeypatch.setattr(layout, "Context", noted)
    layout.build_demo(context.loaded, context.banks.get("default"), replace(LIMITS, models=("user/gpt2",)))
    (made,) = contexts
    assert [loaded.name for loaded in made.models.loaded()] == ["tiny", "user/gpt2"]
    act = ModelsActions(TabContext(made, None, None, None))  # type: ignore[arg-type]
    with pytest.raises(MelboError, match="may not be"):
        list(act.load_model("user/llama", ""))
    _, key = list(act.load_model("user/gpt2", ""))[-1]
    assert made.model(made.banks.get(key)).name == "user/gpt2" and spaces.runs == 1

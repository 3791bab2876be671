"""The R sweep tab: bounded input, a sweep that can be followed and stopped, the plot, stored sweeps, export."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import torch

from melbo.app.context import DEFAULT_KEY, BankCache, Context, Limits
from melbo.app.endpoint import action
from melbo.app.jobs.event import JobEvent, newest, seconds_left
from melbo.app.jobs.worker import JobHandle, Stopped, follow, watched
from melbo.app.tabs.sweep import api as sweep_tab_api
from melbo.app.tabs.sweep import tab as sweep_tab
from melbo.app.tabs.sweep.handlers import (
    EMBEDDED,
    Request,
    WatchedEmbedder,
    checked_row,
    first_choice,
    own_radius,
    read_request,
    sweep_config,
    sweep_steps,
)
from melbo.app.tabs.sweep.html import answers_html, plot_html, summary_html
from melbo.app.tabs.sweep.tab import SweepActions
from melbo.app.widgets.chart import Axis, Line, chart, some_ticks, x_axis
from melbo.bank.vector_bank import VectorBank
from melbo.discovery.discover import make_slices
from melbo.errors import ConfigError, MelboError
from melbo.inspect.stored import stored_sweep
from melbo.measure.coherence import CoherenceScale
from melbo.models.load import LoadedModel
from melbo.prompts import BOMB, chat
from melbo.radius_sweep.sweep import Sweep, load_sweep, run_sweep
from melbo.runs.progress import Progress
from melbo.steering.generate import Sampling, complete
from support.letters import Letters
from support.tiny import hook_count

REQUEST = Request((0.5, 1.0), 2, 2, BOMB, 6)


@pytest.fixture(scope="module", autouse=True)
def fixed_scale() -> Iterator[None]:
    """Calibration takes longer than all the rest here, and a random model cannot be calibrated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("melbo.radius_sweep.sweep.calibrate_coherence", lambda _loaded: CoherenceScale(1.0, 9.0, "fixed"))
        yield


@pytest.fixture
def context(tiny: LoadedModel, tiny_bank: VectorBank) -> Context:
    return Context(tiny, BankCache(tiny_bank))


@pytest.fixture(scope="module")
def swept(tiny: LoadedModel, tiny_bank: VectorBank, fixed_scale: None) -> Sweep:
    """Two radii, two vectors each."""
    return run_sweep(tiny, sweep_config(tiny_bank, REQUEST), [chat(BOMB)], Letters())


def shell_of(context: Context) -> Any:
    return SimpleNamespace(context=context)


def one_step(job: JobHandle[int]) -> None:
    job.tell(JobEvent(value=1))


def test_a_worker_hands_over_all_it_tells_and_then_its_result_or_error() -> None:
    def work(job: JobHandle[int]) -> str:
        for i in range(5):
            job.report(Progress(i + 1, 5, "counting", i))
        if fail:
            raise ConfigError("no")
        return "counted"

    for fail in (True, False):
        got: list[JobEvent[int, str]] = []
        lock = threading.Lock()
        with pytest.raises(ConfigError, match="no") if fail else nullcontext():
            for events in follow(work, lock, 60):
                got += events
        assert [event.value for event in got[:5]] == list(range(5)) and not lock.locked()
        assert [event.done for event in got[:5]] == [1, 2, 3, 4, 5] and len(got) == 5 + (not fail)
        last = newest(got)
        assert (last.phase, last.done, last.total, last.value) == ("counting", 5, 5, 4)
        assert last.result == (None if fail else "counted")
    assert newest([]) == JobEvent()


def test_closing_ends_the_work_and_frees_the_lock() -> None:
    ended = threading.Event()

    def work(job: JobHandle[int]) -> None:
        try:
            while True:
                time.sleep(0.001)
                job.check()
        except Stopped:
            ended.set()
            raise

    lock = threading.Lock()
    with closing(follow(work, lock, 60)) as events:
        assert next(events) == [], "it yields although nothing was told"
        assert lock.locked()
    assert ended.is_set() and not lock.locked()


def test_waiting_for_the_lock_can_be_cancelled() -> None:
    lock = threading.Lock()
    lock.acquire()
    with closing(follow(one_step, lock, 60)) as events:
        assert next(events) == []
    assert lock.locked()


def test_time_is_up() -> None:
    def work(job: JobHandle[int]) -> None:
        while True:
            job.check()

    with pytest.raises(ConfigError, match="longer than the 0 s"):
        list(follow(work, threading.Lock(), 0))


def test_a_watched_model_answers_alike_and_stops_between_tokens(
    tiny: LoadedModel, tiny_bank: VectorBank, no_hook_stays: None
) -> None:
    calls = []
    sampling = Sampling(max_new_tokens=8)
    arguments: Any = ([chat(BOMB)], tiny_bank.vectors[:1], tiny_bank.layer, sampling)
    assert complete(watched(tiny, lambda: calls.append(1)), *arguments) == complete(tiny, *arguments)
    assert len(calls) >= 2

    def stop() -> None:
        calls.append(1)
        if len(calls) > 3:
            raise Stopped

    calls.clear()
    with pytest.raises(Stopped):
        complete(watched(tiny, stop), *arguments)
    assert len(calls) == 4


def test_a_watched_models_blocks_ask_too(tiny: LoadedModel, no_hook_stays: None) -> None:
    calls = []
    seen = watched(tiny, lambda: calls.append(1))
    arguments: Any = ([chat(BOMB)], 1, 2)
    piece, same = make_slices(seen, *arguments)[0], make_slices(tiny, *arguments)[0]
    assert len(calls) >= 1 and not isinstance(seen.model, torch.nn.Module)
    calls.clear()
    shift = torch.ones(3, tiny.d_model)
    assert torch.equal(piece.change(shift, 4), same.change(shift, 4)) and len(calls) == 1


def test_what_takes_long_and_needs_no_model_comes_before_the_lock() -> None:
    lock, go, seen = threading.Lock(), threading.Event(), []

    def load() -> None:
        seen.append(lock.locked())
        go.wait(60)

    running = follow(one_step, lock, 60, load)
    assert next(running) == [] and not lock.locked()
    running.close()  # does not wait for what cannot be stopped
    go.set()
    assert seen == [False]


def test_a_watched_embedder_gives_the_same_rows_a_few_texts_at_a_time() -> None:
    calls: list[int] = []
    texts = [*(f"text {i}" for i in range(EMBEDDED + 3)), "text 0"]
    seen = WatchedEmbedder(Letters(), lambda: calls.append(1))
    assert torch.equal(seen(texts), Letters()(texts)) and len(calls) == 2 and seen.name == "letters"


def test_a_request_holds_what_was_asked(tiny_bank: VectorBank) -> None:
    found = read_request(Limits(), "0.3:0.5:0.1", 4.0, 7, "  hi  ")
    assert (found.radii, found.n_vectors, found.steps, found.prompt) == ((0.3, 0.4, 0.5), 4, 7, "hi")
    config = sweep_config(tiny_bank, found)
    assert config.base.source_layer == tiny_bank.config.source_layer and config.base.steps == 7
    other = replace(tiny_bank, config=replace(tiny_bank.config, method="random"))
    assert sweep_config(other, found).base.method == "melbo"


@pytest.mark.parametrize(
    "values",
    [
        ("x", 4, 5, "hi"),
        ("", 4, 5, "hi"),
        ("0.1," * 200, 4, 5, "hi"),
        ("0.1:3:0.1", 4, 5, "hi"),
        ("0.5,1000", 4, 5, "hi"),
        (None, 4, 5, "hi"),
        ("0.5", 1, 5, "hi"),
        ("0.5", 65, 5, "hi"),
        ("0.5", 2.5, 5, "hi"),
        ("0.5", True, 5, "hi"),
        ("0.5", None, 5, "hi"),
        ("0.5", float("nan"), 5, "hi"),
        ("0.5", float("inf"), 5, "hi"),
        ("0.5", 4, 0, "hi"),
        ("0.5", 4, 10**9, "hi"),
        ("0.5", 4, 5, "   "),
        ("0.5", 4, 5, None),
        ("0.5", 4, 5, "x" * 30_000),
    ],
)
def test_bad_requests_are_refused(values: tuple[Any, ...]) -> None:
    with pytest.raises(MelboError):
        read_request(Limits(), *values)


def test_a_space_allows_less() -> None:
    limits = Limits.from_environment({"SPACE_ID": "a/b"})
    with pytest.raises(ConfigError, match="at most 8"):
        read_request(limits, "0.1:1:0.1", 4, 5, "hi")
    with pytest.raises(ConfigError):
        read_request(limits, "0.5", 4, limits.steps + 1, "hi")


def test_following_a_sweep_ends_with_what_a_sweep_finds(
    context: Context, tiny_bank: VectorBank, swept: Sweep, no_hook_stays: None
) -> None:
    events = [event for part in sweep_steps(context, tiny_bank, REQUEST, Letters) for event in part]
    sweeps = [event.value for event in events if event.value is not None]
    assert sweeps[0].rows == () and sweeps[-1].rows == swept.rows and events[-1].result == sweeps[-1]
    assert {event.phase for event in events[:-1] if event.value is None} == {"training", "answering"}
    assert not context.lock.locked()


def test_a_closed_sweep_leaves_the_model_free(context: Context, tiny_bank: VectorBank) -> None:
    long = replace(REQUEST, steps=1_900)
    with closing(sweep_steps(context, tiny_bank, long, Letters)) as parts:
        for part in parts:
            if any(event.phase == "training" for event in part):
                break
    assert not context.lock.locked() and hook_count(context.loaded) == 0


def test_the_events_fill_the_view_in(context: Context, monkeypatch: pytest.MonkeyPatch, no_hook_stays: None) -> None:
    monkeypatch.setattr(sweep_tab, "sweep_steps", lambda c, b, r: sweep_steps(c, b, replace(r, new_tokens=6), Letters))
    act = SweepActions(shell_of(context))
    views = list(act.run(DEFAULT_KEY, "0.5, 1", 2, 2, BOMB))
    assert all(len(view) == 5 for view in views) and views[0][0] is None
    sweep, status, plot, select, answers = views[-1]
    assert sweep.complete and "vectors at each R" in status and [name for name, _ in select["choices"]] == ["0.5", "1"]
    assert "<svg" in plot and "Trained" in answers and select["visible"] is True
    assert act.choose(DEFAULT_KEY, sweep, 0)[1] == answers_html(sweep, 0)


def test_the_plot_holds_both_arms_and_every_radius(swept: Sweep) -> None:
    plot = plot_html(swept, 1)
    assert plot.count("<svg") == 4 and plot.count('class="control"') == 5  # four panels and the legend
    assert plot.count("data-pick") == 8 and plot.count("hit chosen") == 4
    marked = replace(swept, auto_radius=0.75)
    assert plot_html(marked).count('class="mark calibrated"') == 4
    assert plot_html(replace(swept, auto_radius=9.0)).count('class="mark calibrated"') == 0
    own = plot_html(swept, None, 0.6)
    assert own.count('class="mark own"') == 4 and "this bank&#39;s R = 0.6" in own
    assert "this bank" not in plot_html(swept, None, 9.0)
    assert "No sweep yet" in plot_html(None)
    assert plot_html(replace(swept, rows=())).count("<circle") == 0


def test_the_banks_own_radius_is_marked_in_the_sweeps_unit(swept: Sweep, tiny_bank: VectorBank) -> None:
    residual = own_radius(swept, tiny_bank)
    assert residual == pytest.approx(tiny_bank.radius / swept.mean_residual_norm)
    other = replace(tiny_bank, config=replace(tiny_bank.config, source_layer=0))
    assert own_radius(swept, other) is own_radius(None, tiny_bank) is None


def test_answers_are_escaped_and_equal_ones_counted(swept: Sweep) -> None:
    evil = "<img src=x onerror=alert(1)>"
    row = swept.rows[0]
    found = replace(row.found, completions=((evil, evil),))
    sweep = replace(swept, rows=(replace(row, found=found), *swept.rows[1:]), unsteered=(evil + "2",))
    shown = answers_html(sweep, 0)
    assert "<img" not in shown and "× 2" in shown and "&lt;img" in shown
    assert answers_html(sweep, 5) == answers_html(None, 0) == ""
    assert "<img" not in summary_html(sweep, evil)


@pytest.mark.parametrize("value", [None, -1, 2, 0.5, "0", True])
def test_bad_rows_are_refused(swept: Sweep, value: Any) -> None:
    with pytest.raises(MelboError):
        checked_row(swept, value)


def test_a_stored_sweep_shows_at_once(tiny_bank: VectorBank, tiny: LoadedModel, swept: Sweep, tmp_path: Path) -> None:
    folder = tiny_bank.save(tmp_path / "bank")
    bank = VectorBank.load(folder)
    assert stored_sweep(bank) is None and stored_sweep(tiny_bank) is None
    swept.save(folder / "sweep.json")
    act = SweepActions(shell_of(Context(tiny, BankCache(bank))))
    _, _, button, sweep, status, plot, *_ = act.open(DEFAULT_KEY)
    assert button["interactive"] is True and sweep.rows == swept.rows and "Stored" in status and "<svg" in plot
    (folder / "sweep.json").write_text("{}")
    assert stored_sweep(bank) is None
    _, _, button, sweep, _, plot, *_ = act.open(DEFAULT_KEY)
    assert button["interactive"] is False and sweep is None and "No sweep yet" in plot


def test_a_sweep_of_another_model_is_not_shown(tiny_bank: VectorBank, swept: Sweep, tmp_path: Path) -> None:
    folder = tiny_bank.save(tmp_path / "bank")
    replace(swept, base_model=replace(swept.base_model, id="another")).save(folder / "sweep.json")
    assert stored_sweep(VectorBank.load(folder)) is None


def test_a_visitors_sweep_outlives_an_edit_of_the_bank_but_not_other_layers(
    context: Context, tiny_bank: VectorBank, swept: Sweep
) -> None:
    act = SweepActions(shell_of(context))
    same = context.banks.put(replace(tiny_bank, annotations=()))
    other = context.banks.put(replace(tiny_bank, config=replace(tiny_bank.config, source_layer=0)))
    _, *rest = act.follow(same, swept, 1)
    own = tiny_bank.radius / swept.mean_residual_norm
    assert rest.pop(2) == plot_html(swept, 1, own) and all(value == gr.skip() for value in rest)
    assert act.follow(other, swept, 1)[1] is None and act.follow(same, None, None)[1] is None


@pytest.mark.slow
def test_exports_can_be_read_again(context: Context, swept: Sweep) -> None:
    act = SweepActions(shell_of(context))
    assert load_sweep(act.json(DEFAULT_KEY, swept)).rows == swept.rows
    assert Path(act.png(DEFAULT_KEY, swept)).read_bytes().startswith(b"\x89PNG")
    for nothing in (None, "x", replace(swept, rows=())):
        with pytest.raises(MelboError, match="run one first"):
            act.json(DEFAULT_KEY, nothing)  # type: ignore[arg-type]


def test_a_stopped_sweep_says_how_far_it_came(context: Context, swept: Sweep) -> None:
    act = SweepActions(shell_of(context))
    assert "Stopped" in act.stopped(None)
    part = replace(swept, rows=swept.rows[:1])
    assert "1 of 2 R are measured" in act.stopped(part) and first_choice(part) == 0


def test_axes_are_logarithmic_where_they_span_much() -> None:
    assert not x_axis([0.3, 1.0]).log and x_axis([0.3, 3.0]).log
    axis = Axis(1.0, 100.0, 0.0, 10.0, True)
    assert (axis.at(1.0), axis.at(10.0), axis.at(100.0)) == (0.0, 5.0, 10.0)
    assert x_axis([0.5]).at(0.5) > 0 and len(some_ticks([float(i) for i in range(100)], x_axis([0, 99]))) < 15


def test_a_chart_cuts_what_is_too_high_and_speaks() -> None:
    drawn = chart("<T>", [Line("a", ((0.0, 5.0), (1.0, 99.0)))], x_axis([0, 1]), 10.0, [0.0])
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', drawn)]
    assert heights[0] > heights[1] > 0
    assert "&lt;T&gt;: a from 5 at 0 to 99 at 1" in drawn and "<T>" not in drawn


def test_the_time_left_is_told_once_it_is_known() -> None:
    for done, total, elapsed, shown in (
        (0, 0, 1.0, ""),
        (1, 100, 1.0, " · 1 of 100"),
        (50, 100, 10.0, " · 50 of 100 · about 10 s left"),
        (10, 100, 60.0, " · 10 of 100 · about 9 min left"),
    ):
        assert JobEvent("", done, total, seconds_left(done, total, elapsed)).place == shown


def test_the_endpoint_gives_the_same_rows(context: Context, swept: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(own: Context, bank: VectorBank, request: Request) -> Any:
        return sweep_steps(own, bank, replace(request, new_tokens=6), Letters)

    monkeypatch.setattr(sweep_tab_api, "sweep_steps", short)
    run = action(sweep_tab_api.sweep_endpoint(context))
    *_, last = run(BOMB, "0.5, 1", 2, 2)
    assert last["complete"] and last == sweep_tab_api.as_values(swept)
    assert last["rows"][0]["trained"]["answers"] == list(swept.rows[0].found.completions[0])
    json.dumps(last, allow_nan=False)
    with pytest.raises(gr.Error, match="at least one character"):
        list(run(""))

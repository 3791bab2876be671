"""The Discover tab: bounded input, a run that can be followed, stopped and gone on with, and what follows it."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import torch

from melbo.app.context import DEFAULT_KEY, BankCache, Context, Limits
from melbo.app.endpoint import action
from melbo.app.jobs.event import JobEvent
from melbo.app.tab_context import TabContext
from melbo.app.tabs.discover.api import discover_endpoint
from melbo.app.tabs.discover.handlers import (
    KEPT_SECONDS,
    METHODS,
    Checkpoints,
    Curve,
    Request,
    default_steps,
    discover_steps,
    read_prompts,
    read_request,
)
from melbo.app.tabs.discover.html import done_html, layers_html, running_html
from melbo.app.tabs.discover.tab import DiscoverActions
from melbo.bank.vector_bank import VectorBank
from melbo.config import DiscoveryConfig, default_layers
from melbo.discovery.discover import discover
from melbo.errors import BankError, ConfigError, MelboError, PromptError
from melbo.inspect.layers.atlas import AtlasConfig, LayerAtlas, Pair
from melbo.inspect.stored import stored_atlas
from melbo.models.load import LoadedModel
from melbo.prompts import BOMB, chat
from melbo.runs import checkpoint as discover_run
from support.tiny import MakeTiny, hook_count

TICKET = "a" * 22
VALUES: dict[str, Any] = {
    "prompts": BOMB, "system": "Be good.", "method": "melbo", "source": 1, "target": 2, "auto": False, "radius": 0.7,
    "n_vectors": 4, "steps": 6, "seed": 3,
}  # fmt: skip


@pytest.fixture
def context(tiny: LoadedModel, tiny_bank: VectorBank) -> Context:
    return Context(tiny, BankCache(tiny_bank))


@pytest.fixture
def act(context: Context) -> DiscoverActions:
    return DiscoverActions(TabContext(context, None, None, None))  # type: ignore[arg-type]


def values(**changed: Any) -> list[Any]:
    return list((VALUES | changed).values())


def asked_of(context: Context, *shown: Any) -> Request:
    """A request to the app's own bank's model."""
    return read_request(context, context.banks.get(DEFAULT_KEY), *shown)


def test_a_request_is_the_config_that_was_asked_for(context: Context) -> None:
    request = asked_of(context, *values())
    expected = DiscoveryConfig(
        n_vectors=4, source_layer=1, target_layer=2, radius=0.7, radius_unit="residual", steps=6, seed=3
    )
    assert request.config == expected and request.prompts == (tuple(chat(BOMB, "Be good.")),)
    assert asked_of(context, *values(auto=True, radius=None)).config.radius_unit == "auto"
    assert asked_of(context, *values(method="random")).config.steps == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"prompts": ""},
        {"prompts": "\n \n"},
        {"prompts": "\n".join(f"question {i}" for i in range(9))},
        {"prompts": "x" * 30_000},
        {"system": "x" * 30_000},
        {"method": "more-like"},
        {"method": None},
        {"source": 2, "target": 2},
        {"source": 3},
        {"target": 4},
        {"source": -1},
        {"source": "1"},
        {"radius": None},
        {"radius": 0},
        {"radius": float("nan")},
        {"radius": 1e9},
        {"n_vectors": 0},
        {"n_vectors": 65},
        {"steps": 0},
        {"steps": 10**9},
        {"seed": -1},
        {"seed": 2**40},
    ],
)
def test_bad_requests_are_refused(context: Context, changed: dict[str, Any]) -> None:
    with pytest.raises(MelboError):
        asked_of(context, *values(**changed))


def test_a_space_allows_less(context: Context) -> None:
    small = replace(context, limits=Limits.from_environment({"SPACE_ID": "a/b"}))
    with pytest.raises(ConfigError, match="give 1 to 100"):
        asked_of(small, *values(steps=101))


def test_prompts_come_one_a_line_each_once() -> None:
    found = read_prompts(" a \n\nb\na", "")
    assert found == (tuple(chat("a", None)), tuple(chat("b", None)))
    with pytest.raises(PromptError, match="at most 8"):
        read_prompts("\n".join("abcdefghi"), "")


def test_the_bank_is_the_one_that_discover_finds(
    context: Context, tiny: LoadedModel, tmp_path: Path, no_hook_stays: None
) -> None:
    request = asked_of(context, *values())
    events = [e for part in discover_steps(context, request, tmp_path / "c.safetensors") for e in part]
    bank = events[-1].result
    assert bank is not None and [event.done for event in events[:-1]] == [1, 2, 3, 4, 5, 6]
    expected = discover(tiny, request.config, [list(p) for p in request.prompts])
    assert torch.equal(bank.vectors, expected.vectors) and bank.config == expected.config
    bank.check_fits(tiny)
    assert bank.base_model == expected.base_model


def test_a_stopped_run_goes_on_and_gives_the_same_bank(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discover_run, "SECONDS", 0.0)
    request = asked_of(context, *values(steps=30))
    path = tmp_path / "c.safetensors"
    with closing(discover_steps(context, request, path)) as parts:
        for part in parts:
            if any(event.done >= 3 for event in part):
                break
    assert path.exists() and not context.lock.locked() and hook_count(context.loaded) == 0
    rest = [e for part in discover_steps(context, request, path) for e in part]
    whole = [e for part in discover_steps(context, request, tmp_path / "other.safetensors") for e in part]
    assert rest[0].done > 3 and not path.exists()
    assert rest[-1].result is not None and whole[-1].result is not None
    assert torch.equal(rest[-1].result.vectors, whole[-1].result.vectors)


def test_the_events_end_with_a_bank_for_all_tabs(act: DiscoverActions, context: Context) -> None:
    outputs = list(act.start(TICKET, DEFAULT_KEY, *values()))
    assert all(len(row) == 6 for row in outputs)
    curve, status, made, key, resume, after = outputs[-1]
    assert made == key and len(context.banks.get(key)) == 4 and "Done." in status
    assert (resume["visible"], after["visible"]) == (False, True) and [s for s, _ in curve.points] == list(range(1, 7))
    pick, tabs = act.steer(made)
    assert pick["bank"] == made and (pick["vector"], pick["scale"]) == (0, 1.0) and tabs.selected == "steer"
    assert act.download(made).endswith(".zip")


def test_what_follows_a_run_needs_one(act: DiscoverActions) -> None:
    for nothing in ("", None):
        with pytest.raises(BankError, match="press Start"):
            act.steer(nothing)  # type: ignore[arg-type]


def test_resume_uses_the_visitors_own_checkpoint_and_start_does_not(
    act: DiscoverActions, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discover_run, "SECONDS", 0.0)
    asked = values(steps=25)

    def first_step(rows: Any) -> int:
        with closing(rows) as parts:
            return int(next(row[0].points[0][0] for row in parts if isinstance(row[0], Curve) and row[0].points))

    assert first_step(act.start(TICKET, DEFAULT_KEY, *asked)) == 1
    path = act.checkpoints.path(TICKET, asked_of(context, *asked))
    assert path.exists() and not act.checkpoints.path("b" * 22, asked_of(context, *asked)).exists()
    assert first_step(act.resume("b" * 22, DEFAULT_KEY, *asked)) == 1
    assert first_step(act.resume(TICKET, DEFAULT_KEY, *asked)) > 1
    assert first_step(act.start(TICKET, DEFAULT_KEY, *asked)) == 1


@pytest.mark.parametrize("ticket", ["", "../../etc", "a/b" * 8, None, 7, "a" * 65])
def test_tickets_of_another_form_are_refused(context: Context, ticket: Any) -> None:
    with pytest.raises(ConfigError, match="too old"):
        Checkpoints().path(ticket, asked_of(context, *values()))


def test_old_checkpoints_go(context: Context) -> None:
    now = 0.0
    places, request = Checkpoints(lambda: now), asked_of(context, *values())
    old, used = (places.path(ticket * 22, request) for ticket in "ab")
    old.write_bytes(b"x")
    now = KEPT_SECONDS - 60
    new = places.path("c" * 22, request)
    assert old.exists() and places.path("b" * 22, request) == used
    now = KEPT_SECONDS + 60
    places.path("d" * 22, request)
    assert not old.parent.exists() and used.parent.exists() and new.parent.exists()


def test_settings_that_differ_have_checkpoints_of_their_own(context: Context) -> None:
    one, two = (asked_of(context, *values(seed=s)) for s in (1, 2))
    assert one.key != two.key == asked_of(context, *values(seed=2)).key


def test_the_curve_grows(tiny_bank: VectorBank) -> None:
    steps: list[JobEvent[float, VectorBank]] = [JobEvent("", n, 10, None, v) for n, v in
                                                ((1, 2.0), (2, 4.0), (5, 8.0))]  # fmt: skip
    curve = Curve().grown(steps[:2], 1.0).grown([steps[2], JobEvent(result=tiny_bank)], 5.0)
    assert curve == Curve(10, ((1, 2.0), (2, 4.0), (5, 8.0)), 5.0)
    shown = running_html(curve)
    assert "5 of 10" in shown and "about 5 s left" in shown and "<svg" in shown and 'aria-valuenow="50"' in shown
    assert "Done." in done_html(tiny_bank, curve) and "<svg" not in running_html(Curve())


def test_a_long_curve_is_thinned() -> None:
    curve = Curve(5_000, tuple((i + 1, float(i)) for i in range(5_000)), 1.0)
    assert len(running_html(curve)) < 12_000


def test_the_settings_follow_a_bank_of_another_model_and_no_other(
    act: DiscoverActions, context: Context, tiny_bank: VectorBank, make_tiny: MakeTiny
) -> None:
    own = context.banks.get(DEFAULT_KEY).base_model
    assert all(value == gr.skip() for value in act.follow(context.banks.put(tiny_bank.select([1])), own)[1:])
    deep = make_tiny(n_layers=9, d_model=32)
    config = DiscoveryConfig(method="random", n_vectors=3, steps=0, radius=0.5, radius_unit="residual")
    bank = discover(deep, config, [chat(BOMB, "Be odd.")])
    base, source, target, vectors, radius, system = act.follow(context.banks.put(bank), own)
    assert (base.n_layers, source["maximum"], target["maximum"], vectors["maximum"]) == (9, 7, 8, 32)
    assert (source["value"], target["value"]) == default_layers(9) and vectors["value"] == 32
    assert (radius, system) == (0.5, "Be odd.")
    assert act.follow(DEFAULT_KEY, base)[1]["maximum"] == 2


def test_stopping_offers_to_go_on(act: DiscoverActions) -> None:
    status, resume = act.stopped(Curve(10, ((1, 2.0), (4, 3.0)), 1.0))
    assert "Stopped" in status and "4 of 10" in status and resume["visible"] is True


def test_layers_are_shown_on_the_depth_with_the_atlas_where_there_is_one(
    tiny: LoadedModel, tiny_bank: VectorBank, tmp_path: Path
) -> None:
    plain = layers_html(4, 1, 3)
    assert plain.count('class="end"') == 2 and plain.count('class="between"') == 1 and "<table" not in plain
    bank = VectorBank.load(tiny_bank.save(tmp_path / "bank"))
    assert stored_atlas(bank) is None
    atlas = LayerAtlas(
        bank.base_model, "torch.float32", AtlasConfig(), (tuple(chat(BOMB)),), (Pair(1, 3, 2.0, 3.0, 1.0, 1.0, 1.0),)
    )
    atlas.save(tmp_path / "bank" / "atlas.json")
    act = DiscoverActions(TabContext(Context(tiny, BankCache(bank)), None, None, None))  # type: ignore[arg-type]
    shown = act.layers(DEFAULT_KEY, 1, 3)
    assert 'class="chosen"' in shown and ">2.0<" in shown
    replace(atlas, model=replace(atlas.model, id="another")).save(tmp_path / "bank" / "atlas.json")
    assert stored_atlas(bank) is None


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_steps_within_the_limit(method: str) -> None:
    assert 1 <= default_steps(method, 7) <= 7


def test_a_failure_reaches_the_visitor(context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    request = asked_of(context, *values())
    broken = SimpleNamespace(path=tmp_path / "c.safetensors")
    broken.path.write_bytes(b"not a checkpoint")
    with pytest.raises(MelboError, match="damaged"):
        list(discover_steps(context, request, broken.path))
    assert not context.lock.locked()


def test_the_endpoint_gives_the_vectors(context: Context, tiny: LoadedModel) -> None:
    run = action(discover_endpoint(context))
    *steps, last = run(BOMB, "melbo", 3, 4, 0.7, False, 1, 2, "Be good.", 3)
    request = asked_of(context, *values(n_vectors=3, steps=4))
    expected = discover(tiny, request.config, [list(p) for p in request.prompts])
    assert [s["done"] for s in steps] == sorted(s["done"] for s in steps) and (last["done"], last["layer"]) == (4, 1)
    assert torch.equal(torch.tensor(last["vectors"]), expected.vectors)
    json.dumps(last, allow_nan=False)
    with pytest.raises(gr.Error, match="one a line"):
        list(run(""))


def test_a_run_that_takes_too_long_can_be_gone_on_with(context: Context) -> None:
    hasty = DiscoverActions(TabContext(replace(context, limits=replace(context.limits, seconds=0)), None, None, None))  # type: ignore[arg-type]
    outputs = []
    with pytest.raises(ConfigError, match="longer than"):
        for row in hasty.start(TICKET, DEFAULT_KEY, *values()):
            outputs.append(row)
    assert "Stopped" in outputs[-1][1] and outputs[-1][4]["visible"] is True
    assert not context.lock.locked()

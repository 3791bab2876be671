"""Several models at once: loaded on request, each visitor on the model of their bank, memory bounded."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from melbo.app.checkpoints import models as model_cache
from melbo.app.checkpoints.models import ModelCache
from melbo.app.context import BankCache, Context, Limits
from melbo.app.layout import head_of
from melbo.app.tab_context import TabContext
from melbo.app.tabs.models.actions import ModelsActions
from melbo.app.tabs.models.handlers import load_local
from melbo.app.tabs.steer.handlers import compare
from melbo.app.tabs.steer.settings import Settings
from melbo.bank.facts import BaseModel
from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError, HubError, MelboError, MemoryLimitError, ModelError
from melbo.models.load import LoadedModel, load_model
from melbo.prompts import BOMB
from melbo.runs.free_memory import free_bytes, gigabytes
from melbo.runs.progress import Progress
from support.loopback_hub import Fault, LoopbackHub, Repo
from support.saved_models import SAVED, save_tiny

SHORT = 160
"""Characters of a line that a visitor reads at once."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, str]:
    """Folder of each architecture."""
    folder = tmp_path_factory.mktemp("models")
    return {name: str(save_tiny(folder, name, tokenizer)) for name in SAVED}


@pytest.fixture
def context(tiny: LoadedModel, tiny_bank: VectorBank) -> Context:
    return Context(tiny, BankCache(tiny_bank))


def actions(context: Context) -> ModelsActions:
    return ModelsActions(TabContext(context, None, None, None))  # type: ignore[arg-type]


def taken(context: Context, steps: Any) -> VectorBank:
    """The bank whose key the event gave in the end."""
    return context.banks.get([key for _, key in steps][-1])


def answers(context: Context, bank: VectorBank) -> tuple[str, str]:
    settings = Settings(((0, 2.0), (1, -1.0)), system="", max_new_tokens=8)
    last = list(compare(context, bank, BOMB, [], [], settings))[-1]
    return last.unsteered[-1]["content"], last.steered[-1]["content"]


def test_a_model_without_a_bank_starts_with_random_vectors(context: Context, saved: dict[str, str]) -> None:
    cache = context.models
    for name, folder in saved.items():
        said = list(actions(context).load_model(folder, ""))
        assert "Looking at" in said[0][0] or "Loading" in said[0][0]
        bank = taken(context, said)
        loaded = context.model(bank)
        assert loaded.name == folder and (bank.base_model.id, bank.base_model.revision) == (folder, loaded.revision)
        assert bank.config.method == "random" and {bank.label(i) for i in range(len(bank))} == {"random"}
        key = context.banks.put(bank)
        assert "8 random vectors: discover your own" in head_of(context, key) and name in head_of(context, key)
        assert all(answers(context, bank))
    assert len(cache.loaded()) == 3 and cache.loaded()[0] is context.loaded


def test_two_visitors_on_two_models_each_get_what_they_would_get_alone(context: Context, saved: dict[str, str]) -> None:
    banks = [context.banks.get("default"), *(taken(context, actions(context).load_model(saved[n], "")) for n in
             ("gpt2", "gemma2"))]  # fmt: skip
    alone = [answers(Context(context.model(bank), BankCache(bank)), bank) for bank in banks]
    assert len(set(alone)) == 3 and all(left != right for left, right in alone)
    together = threading.Barrier(6)

    def ask(i: int) -> tuple[str, str]:
        together.wait()
        return answers(context, banks[i % 3])

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, range(6))) == alone * 2


@pytest.mark.slow
def test_the_model_used_longest_ago_leaves_and_its_memory_with_it(context: Context, saved: dict[str, str]) -> None:
    first = taken(context, actions(context).load_model(saved["llama"], ""))
    second = taken(context, actions(context).load_model(saved["qwen2"], ""))
    running = context.model(first)  # a run in progress holds it
    watch = weakref.ref(context.model(second).model)
    context.model(first)
    third = taken(context, actions(context).load_model(saved["gpt2"], ""))
    gc.collect()
    assert watch() is None and context.model(first) is running
    with pytest.raises(BankError, match="load it under Banks & models"):
        context.model(second)
    assert answers(context, third) and context.model(context.banks.get("default")) is context.loaded
    assert saved["qwen2"] in actions(context).follow(context.banks.put(second), [])[2]


def test_a_bank_brings_its_model(context: Context, saved: dict[str, str], tmp_path: Path) -> None:
    bank = taken(context, actions(context).load_model(saved["qwen2"], ""))
    elsewhere = Context(context.loaded, BankCache(context.banks.get("default")))
    loaded = taken(elsewhere, actions(elsewhere).open(bank, "mine"))
    assert loaded is bank and answers(elsewhere, bank) == answers(context, bank)
    for change, said in (({"n_layers": 4}, "5 and 48"), ({"revision": "sha256:0"}, "other weights")):
        odd = replace(bank, base_model=replace(bank.base_model, **change))
        with pytest.raises(BankError, match=said):
            list(actions(Context(context.loaded, context.banks)).open(odd, "odd"))
    odd.save(tmp_path / "banks" / "odd")
    closed = Context(context.loaded, context.banks, Limits(models=(), local_files=False))
    with pytest.raises(BankError, match="made for"):
        load_local(closed, "odd", tmp_path / "banks")


def test_models_are_loaded_one_at_a_time_and_a_second_asker_gets_the_first_ones(
    tiny: LoadedModel, saved: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, most, calls = 0, 0, 0

    def slow(plan: Any) -> LoadedModel:
        nonlocal busy, most, calls
        busy, calls = busy + 1, calls + 1
        most = max(most, busy)
        threading.Event().wait(0.05)
        busy -= 1
        return load_model(plan.name)

    monkeypatch.setattr(model_cache, "read_weights", slow)
    cache = ModelCache(tiny)
    wanted = [saved[name] for name in ("llama", "gpt2")] * 3
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(cache.load, wanted))
    assert most == 1 and calls == 2 and len({id(loaded) for loaded in found}) == 2

    def gone(_: Progress) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        cache.load(saved["qwen2"], on_progress=gone)
    assert len(cache.loaded()) == 3 and cache.load(saved["qwen2"]).name == saved["qwen2"]


XLNET = {"model_type": "xlnet", "d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 32, "vocab_size": 64}
"""Its blocks are in no list that `find_blocks` knows."""


def replace_by(values: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    def change(held: dict[str, Any]) -> None:
        held.clear()
        held.update(values)

    return change


def edited(folder: str, to: Path, change: Callable[[dict[str, Any]], Any]) -> str:
    """A folder with that checkpoint's config.json alone, changed."""
    values = json.loads((Path(folder) / "config.json").read_text())
    change(values)
    to.mkdir()
    (to / "config.json").write_text(json.dumps(values))
    return str(to)


@pytest.mark.slow
def test_what_cannot_be_loaded_is_one_short_line_and_leaves_nothing(
    tiny: LoadedModel, saved: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ModelCache(tiny)
    vast = edited(saved["llama"], tmp_path / "vast", lambda c: c.update(hidden_size=2**16, num_hidden_layers=400))
    (tmp_path / "empty").mkdir()
    cases: list[tuple[Any, type[MelboError], str]] = [
        ("", ModelError, "no model is named"),
        (None, ModelError, "no model is named"),
        ("nobody", HubError, "names no owner"),
        ("../secret", HubError, "no name of a repository"),
        (str(tmp_path / "empty"), ModelError, "no config.json"),
        (edited(saved["llama"], tmp_path / "a", lambda c: c.update(model_type="t5")), ModelError, "no causal language"),
        (edited(saved["llama"], tmp_path / "b", lambda c: c.update(model_type="?")), ModelError, "no causal language"),
        (edited(saved["llama"], tmp_path / "c", lambda c: c.pop("model_type")), ModelError, "no causal language"),
        (edited(saved["llama"], tmp_path / "d", lambda c: c.update(
            model_type="own", auto_map={"AutoConfig": "own.Own"})), ModelError, "code of its own"),
        (edited(saved["llama"], tmp_path / "e", replace_by(XLNET)), ModelError, "not where"),
        (edited(saved["llama"], tmp_path / "f", lambda c: None), ModelError, "cannot load"),
        (vast, MemoryLimitError, "needs about"),
    ]  # fmt: skip
    for name, kind, said in cases:
        with pytest.raises(kind, match=said) as failed:
            cache.load(name)
        assert len(str(failed.value)) < SHORT + len(str(name)) + 60 and "\n" not in str(failed.value)
    monkeypatch.setattr(model_cache, "free_bytes", lambda: 0)
    with pytest.raises(MemoryLimitError, match="needs about 1 MB"):
        cache.load(saved["llama"])
    assert cache.loaded() == [tiny]


def test_room_is_made_only_where_it_is_enough(
    tiny: LoadedModel, saved: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ModelCache(tiny, held=3)
    for name in ("llama", "qwen2"):
        cache.load(saved[name])
    monkeypatch.setattr(model_cache, "free_bytes", lambda: -(10**9))
    with pytest.raises(MemoryLimitError):
        cache.load(saved["gpt2"])
    assert len(cache.loaded()) == 3
    monkeypatch.setattr(model_cache, "free_bytes", lambda: 0)
    cache.load(saved["gpt2"])
    assert saved["llama"] not in [loaded.name for loaded in cache.loaded()]


def test_on_a_space_only_listed_models_of_the_hub_are_loaded(
    tiny: LoadedModel, saved: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = ModelCache(tiny, ("user/model", "organism"), folders=False)
    for name in (saved["llama"], "other/model", "user/model/", "/etc", ".", None):
        assert not cache.offers(name)
        with pytest.raises(ModelError):
            cache.load(name)  # type: ignore[arg-type]
    (tmp_path / "user" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="is of this machine"):
        cache.load("user/model")
    assert cache.choices() == ["tiny", "user/model", "organism"] and cache.load("organism").name == "organism"


def test_models_of_zerogpu_are_loaded_at_the_start_and_none_later(tiny: LoadedModel, saved: dict[str, str]) -> None:
    cache = ModelCache(tiny, (saved["llama"], saved["gpt2"]), held=0)
    cache.load_all((saved["llama"], "tiny"))
    assert [loaded.name for loaded in cache.loaded()] == ["tiny", saved["llama"]]
    with pytest.raises(ModelError, match="may not be"):
        cache.load(saved["gpt2"])
    assert cache.load(saved["llama"], "f" * 40) is cache.loaded()[1] and cache.choices() == ["tiny", saved["llama"]]


def test_a_model_of_the_hub_is_loaded_at_the_banks_commit(
    hub: LoopbackHub, context: Context, saved: dict[str, str]
) -> None:
    repo = hub.repos["user/model"] = Repo("model")
    first = repo.commit(files_of(saved["llama"]))
    bank = taken(context, actions(context).load_model("user/model", ""))
    assert bank.base_model == BaseModel("user/model", first, 48, 3)
    before = answers(context, bank)
    second = repo.commit(files_of(saved["qwen2"]))
    newer = taken(context, actions(context).load_model("user/model", "main"))
    assert newer.base_model == BaseModel("user/model", second, 48, 5)
    assert context.model(bank).n_layers == 3 and context.model(newer).n_layers == 5
    elsewhere = Context(context.loaded, context.banks)
    opened = taken(elsewhere, actions(elsewhere).open(bank, "mine"))
    assert elsewhere.model(opened).revision == first and answers(elsewhere, opened) == before


def test_the_hubs_refusals_are_one_short_line_and_no_visitors_token_is_sent(
    hub: LoopbackHub, context: Context, saved: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["user/model"] = Repo("model")
    hub.repos["user/model"].commit(files_of(saved["llama"]))
    hub.repos["user/private"] = Repo("model", private=True)
    gated = {"X-Error-Code": "GatedRepo"}
    for name, revision, said in (
        ("user/nothing", "", "no repository"), ("user/private", "", "private"), ("user/model", "v9", "no revision"),
        ("user/model", "-x", "no revision"), ("user/model", "", "is gated"),
    ):  # fmt: skip
        hub.faults[:] = [Fault("GET", "/revision/", 403, headers=gated, times=9)] if said == "is gated" else []
        with pytest.raises(HubError, match=said) as failed:
            list(actions(context).load_model(name, revision))
        assert len(str(failed.value)) < 2 * SHORT and "\n" not in str(failed.value)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE=0"):
        context.models.load("user/model")
    assert context.models.loaded() == [context.loaded]


def test_a_model_that_was_downloaded_before_is_loaded_offline(
    hub: LoopbackHub, context: Context, saved: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As transformers has left it in the cache."""
    hub.repos["user/model"] = Repo("model")
    commit = hub.repos["user/model"].commit(files_of(saved["llama"]))
    load_model("user/model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert context.models.load("user/model").revision == commit and hub.requests == []


def files_of(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_the_room_that_is_left_is_the_containers(tmp_path: Path) -> None:
    machine = free_bytes(cgroup=tmp_path)
    for name, text in (("memory.max", str(2**26)), ("memory.current", str(2**25)), ("memory.stat", "inactive_file 4")):
        (tmp_path / name).write_text(text)
    assert free_bytes(cgroup=tmp_path) == 2**25 + 4 < machine
    (tmp_path / "memory.max").write_text("max")
    assert free_bytes(cgroup=tmp_path) > 2**26
    assert gigabytes(5 * 2**29) == "2.5 GB" and gigabytes(3) == "1 MB"

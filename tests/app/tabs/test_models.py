"""The tab Banks & models: only listed folders and repositories are read, and text from them stays text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from melbo.app.context import BankCache, Context, Limits
from melbo.app.tab_context import TabContext
from melbo.app.tabs.models import actions as models_tab_actions
from melbo.app.tabs.models import handlers as models_tab_handlers
from melbo.app.tabs.models.actions import ModelsActions, chosen
from melbo.app.tabs.models.handlers import (
    base_of,
    device_facts,
    downloaded_models,
    fits,
    hub_banks,
    load_hub,
    load_local,
    local_banks,
    model_facts,
)
from melbo.app.tabs.models.html import NO_LOCAL, banks_html, facts_html
from melbo.bank.listing import BankInfo
from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError, HubError, MelboError
from melbo.models.load import LoadedModel


@pytest.fixture
def context(tiny: LoadedModel, tiny_bank: VectorBank) -> Context:
    return Context(tiny, BankCache(tiny_bank))


@pytest.fixture
def folder(tiny_bank: VectorBank, tmp_path: Path) -> Path:
    """One bank for the model, one for another, one damaged; and a bank outside."""
    tiny_bank.save(tmp_path / "vectors" / "mine")
    other = replace(tiny_bank, base_model=replace(tiny_bank.base_model, id="user/another", n_layers=9))
    other.save(tmp_path / "vectors" / "other")
    tiny_bank.save(tmp_path / "vectors" / "broken")
    (tmp_path / "vectors" / "broken" / "config.json").write_text("{")
    tiny_bank.save(tmp_path / "outside")
    return tmp_path / "vectors"


def test_a_listed_bank_loads_and_no_other_path_does(context: Context, folder: Path) -> None:
    assert {info.name for info in local_banks(folder)} == {"mine", "other", "broken"}
    assert len(load_local(context, "mine", folder)) == 8
    for name in ("../outside", "mine/../../outside", str(folder / "mine"), "", ".", None, 3, ["mine"], "nothing"):
        with pytest.raises(BankError, match="no bank of this app"):
            load_local(context, name, folder)
    assert load_local(context, "other", folder).base_model.id == "user/another"  # its model may be loaded
    with pytest.raises(BankError, match="another"):
        load_local(replace(context, limits=Limits(models=())), "other", folder)
    with pytest.raises(BankError):
        load_local(context, "broken", folder)


def test_repositories_are_never_folders(context: Context, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    with pytest.raises(HubError, match="also a folder"):
        load_hub(context, "vectors/mine", "")
    for name in ("", None, "mine", "../outside", "/etc/passwd", "a/b/c", "a b/c", "~/x", "x" * 300 + "/y", "a/<b>"):
        with pytest.raises(HubError):
            load_hub(context, name, "")
    for revision in ("../x", "a b", "-x", "<b>", "a..b"):
        with pytest.raises(HubError, match="no revision"):
            load_hub(context, "user/bank", revision)


@pytest.mark.parametrize(("space", "token"), [(False, None), (True, False)])
def test_a_spaces_own_token_is_not_used_for_visitors(
    context: Context, tiny_bank: VectorBank, monkeypatch: pytest.MonkeyPatch, space: bool, token: Any
) -> None:
    seen: list[Any] = []

    def fetched(name: str, **named: Any) -> VectorBank:
        seen.append((name, named))
        return tiny_bank

    monkeypatch.setattr(VectorBank, "from_pretrained", fetched)
    monkeypatch.setattr(models_tab_handlers, "list_hub", lambda **named: seen.append(("list", named)) or [])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    here = replace(context, limits=Limits.from_environment({"SPACE_ID": "a/b"} if space else {}))
    assert load_hub(here, " user/bank ", " v1 ") is tiny_bank
    assert hub_banks(here) == []
    assert seen[0] == ("user/bank", {"revision": "v1", "token": token}) and seen[1][1]["token"] is token


def test_a_bank_of_the_hub_must_fit_the_model(
    context: Context, tiny_bank: VectorBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(tiny_bank, base_model=replace(tiny_bank.base_model, n_layers=9))  # "tiny" of 9 blocks
    monkeypatch.setattr(VectorBank, "from_pretrained", lambda *_, **__: other)
    with pytest.raises(BankError, match="9 blocks"):
        load_hub(context, "user/bank", None)


def test_offline_the_hub_is_told_to_be_out_of_reach(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="offline"):
        hub_banks(context)


def test_cards_are_escaped_and_only_usable_banks_can_be_clicked(tiny: LoadedModel, context: Context) -> None:
    evil = "<img src=x onerror=alert(1)>"
    infos = [
        BankInfo("mine", False, tiny.name, "melbo", 8, ("a",) * 3, 1),
        BankInfo("other", False, "user/another"),
        BankInfo("broken", False, problem=evil),
        BankInfo(evil, True, None, evil, None, (evil,), None, "f" * 40, 1234),
    ]
    base, closed = base_of(tiny), replace(context, limits=Limits(models=()))
    shown = banks_html(infos, closed, base, NO_LOCAL)
    assert [fits(info, base) for info in infos] == [True, False, False, True]
    assert 'data-pick="0"' in shown and 'data-pick="3"' in shown and shown.count("data-pick") == 2
    assert "<img" not in shown and "1,234 downloads" in shown and "8 vectors" in shown
    assert "Made for user/another, which is not loaded here" in shown
    open_ = banks_html(infos, context, base, NO_LOCAL)
    assert 'data-pick="1"' in open_ and "Load with user/another" in open_ and 'data-pick="2"' not in open_
    elsewhere = replace(base, id="user/another")
    assert "Use with tiny" in banks_html(infos, context, elsewhere, NO_LOCAL)
    assert banks_html([], context, base, NO_LOCAL) == NO_LOCAL
    assert "<img" not in facts_html(evil, [(evil, evil)])


def test_the_facts_are_the_models(tiny: LoadedModel, context: Context) -> None:
    facts = dict(model_facts(tiny))
    count = sum(p.numel() for p in tiny.model.parameters())
    assert facts["Blocks"] == "4" and facts["Width (d_model)"] == "64" and facts["Context"] == "256 tokens"
    assert facts["Parameters"] == f"{count:,}" and facts["Precision"] == "float32"
    assert dict(device_facts(context))["Banks in memory"].startswith("1,")
    assert dict(device_facts(context))["Models in memory"] == "tiny (1 MB)"


def test_downloaded_models_are_listed_here_but_not_on_a_space(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models--user--name").mkdir()
    (tmp_path / "datasets--user--x").mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert downloaded_models(context) == ["user/name"]
    space = replace(context, limits=Limits.from_environment({"SPACE_ID": "a/b"}))
    assert downloaded_models(space) == []


@pytest.mark.parametrize("place", [None, -1, 2, 0.5, "0", True])
def test_places_outside_the_list_are_refused(place: Any) -> None:
    with pytest.raises(MelboError):
        chosen(["a", "b"], place)


def test_a_click_keeps_a_bank(context: Context, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_tab_actions, "local_banks", lambda: local_banks(folder))
    monkeypatch.setattr(models_tab_actions, "load_local", lambda c, name: load_local(c, name, folder))
    act = ModelsActions(TabContext(context, None, None, None))  # type: ignore[arg-type]
    place = [info.name for info in local_banks(folder)].index("mine")
    told, key = list(act.pick_local(float(place)))[-1]
    assert "mine is in use" in told and len(context.banks.get(key)) == 8
    assert act.follow(key, [])[0].count("data-pick") == 2  # the damaged one cannot be clicked

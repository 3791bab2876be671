"""The real huggingface_hub client over HTTP, against a Hub on this machine: both ways, and all that goes wrong."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from huggingface_hub.utils import logging as hub_logging
from typer.testing import CliRunner

from melbo.__main__ import app
from melbo.bank.listing import list_hub
from melbo.bank.result_file import FORMATS
from melbo.bank.save import FILES
from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError, HubError
from melbo.hub.client import check_repo
from melbo.inspect.stored import activating_examples, stored_geometry
from melbo.publishing.publish import push_to_hub, save_with_card
from support.banks import assert_same
from support.fuzz_values import a_bank, a_sweep, write_results
from support.hub import REPO
from support.loopback_hub import Fault, LoopbackHub, Repo


@pytest.fixture
def pushed(hub: LoopbackHub, tiny_bank: VectorBank) -> str:
    """The commit of `tiny_bank` on the Hub."""
    return push_to_hub(tiny_bank, REPO, token="writer").commit


def pull(revision: str | None = None, token: str | None = None, offline: bool = False) -> VectorBank:
    return VectorBank.from_pretrained(REPO, revision=revision, token=token, local_files_only=offline)


def test_push_and_pull_are_exact(hub: LoopbackHub, tiny_bank: VectorBank, pushed: str, tmp_path: Path) -> None:
    bank = pull()
    assert_same(bank, tiny_bank)
    assert bank.source is not None and (bank.source.repo, bank.source.revision) == (REPO, pushed)
    saved = save_with_card(tiny_bank, tmp_path / "saved", repo=REPO)
    held = {name: data for name, data in hub.files(REPO).items() if name != ".gitattributes"}
    assert held == {path.name: path.read_bytes() for path in saved.iterdir()}  # disk and Hub are the same bytes


def test_pushing_what_was_pulled_changes_nothing(hub: LoopbackHub, pushed: str) -> None:
    before = hub.files(REPO)
    push_to_hub(pull(), REPO, token="writer")
    assert hub.files(REPO) == before


def test_only_the_formats_files_travel(hub: LoopbackHub, tiny_bank: VectorBank, pushed: str) -> None:
    more = {"huge.bin": b"x" * 1000, "sub/config.json": b"{}", "script.py": b"raise SystemExit"}
    hub.repos[REPO].commit(hub.files(REPO) | more)
    hub.requests.clear()
    source = pull().source
    assert source is not None and source.folder is not None
    assert {p.name for p in source.folder.iterdir()} <= set(FILES)
    assert not [r for r in hub.requests if any(name in r for name in more)]
    push_to_hub(replace(tiny_bank, annotations=()), REPO, token="writer")
    assert "annotations.json" not in hub.files(REPO)  # ours, and gone
    assert hub.files(REPO)["huge.bin"] == more["huge.bin"]  # not ours


def test_the_sweep_travels_with_its_vectors(hub: LoopbackHub, tiny_bank: VectorBank, tmp_path: Path) -> None:
    folder = tiny_bank.save(tmp_path / "bank")
    replace(a_sweep(), base_model=tiny_bank.base_model).save(folder / "sweep.json")
    (folder / "sweep.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "sweep.svg").write_text("<svg/>")
    push_to_hub(VectorBank.load(folder), REPO, token="writer")
    assert set(hub.files(REPO)) == {*FILES, ".gitattributes"} - FORMATS.keys()
    assert b"sweep.png" in hub.files(REPO)["README.md"]
    copy = pull().save(tmp_path / "copy")
    assert (copy / "sweep.json").read_bytes() == (folder / "sweep.json").read_bytes()
    assert (copy / "sweep.png").exists()


def test_a_saved_copy_remembers_repository_and_commit(pushed: str, tmp_path: Path) -> None:
    copy = VectorBank.load(pull().save(tmp_path / "copy"))
    assert copy.source is not None and (copy.source.repo, copy.source.revision) == (REPO, pushed)
    chosen = copy.select([3]).details["selected_from"]
    assert chosen == {"bank": REPO, "revision": pushed, "indices": [3]}


def test_results_of_inspect_travel_both_ways(hub: LoopbackHub, tmp_path: Path) -> None:
    bank = a_bank()
    folder = bank.save(tmp_path / "bank")
    write_results(bank, folder)
    written = {name: (folder / name).read_bytes() for name in FORMATS}
    push_to_hub(VectorBank.load(folder), REPO, token="writer")
    assert {name: hub.files(REPO)[name] for name in FORMATS} == written
    pulled = pull()
    assert activating_examples(pulled, 0) and stored_geometry(pulled) is not None
    out = pulled.save(tmp_path / "out")
    assert {name: (out / name).read_bytes() for name in FORMATS} == written
    hub.repos[REPO].commit(hub.files(REPO) | {"geometry.json": b"{}", "lens.json": b"[" * 10_000})
    again = save_with_card(pull(), tmp_path / "again")
    assert [name for name in FORMATS if (again / name).exists()] == ["activating.json", "sae.json"]
    push_to_hub(pulled.select([0]), REPO, token="writer")  # other vectors: the old results go
    assert not hub.files(REPO).keys() & FORMATS.keys()


def test_a_pull_request_leaves_the_branch(hub: LoopbackHub, tiny_bank: VectorBank, pushed: str) -> None:
    before = hub.files(REPO)
    made = push_to_hub(tiny_bank.select([1]), REPO, create_pr=True, token="writer")
    assert made.pull_request == f"{hub.url}/{REPO}/discussions/1"
    assert hub.files(REPO) == before
    assert len(pull(revision=made.commit)) == 1
    with pytest.raises(HubError, match="goes to main, not to 'v2'"):
        push_to_hub(tiny_bank, REPO, create_pr=True, revision="v2", token="writer")


def test_a_branch_is_made_and_main_stays(tiny_bank: VectorBank, pushed: str) -> None:
    push_to_hub(tiny_bank.select([1, 2]), REPO, revision="small", token="writer")
    assert (len(pull(revision="small")), len(pull())) == (2, 8)


def test_a_private_bank_needs_a_token(hub: LoopbackHub, tiny_bank: VectorBank) -> None:
    push_to_hub(tiny_bank, REPO, private=True, token="writer")
    with pytest.raises(HubError, match="or it is private"):
        pull()
    assert_same(pull(token="reader"), tiny_bank)


def test_private_is_not_taken_for_granted(hub: LoopbackHub, tiny_bank: VectorBank, pushed: str) -> None:
    before = hub.files(REPO)
    with pytest.raises(HubError, match="exists and is public"):
        push_to_hub(tiny_bank.select([0]), REPO, private=True, token="writer")
    assert hub.files(REPO) == before


def test_a_changed_branch_gives_the_new_bank_and_the_pinned_commit_the_old(tiny_bank: VectorBank, pushed: str) -> None:
    assert len(pull()) == 8
    push_to_hub(tiny_bank.select([0, 1]), REPO, token="writer")
    assert (len(pull()), len(pull(revision=pushed))) == (2, 8)


def test_a_pinned_commit_that_is_cached_asks_nobody(hub: LoopbackHub, tiny_bank: VectorBank, pushed: str) -> None:
    pull(revision=pushed)
    hub.requests.clear()
    assert_same(pull(revision=pushed), tiny_bank)
    assert not hub.requests


def test_offline_the_cache_serves_branch_and_commit(
    hub: LoopbackHub, tiny_bank: VectorBank, pushed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos[REPO].commit(hub.files(REPO) | {"huge.bin": b"never downloaded"})
    with pytest.raises(HubError, match="not complete in the cache"):
        pull(offline=True)
    pull()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    hub.requests.clear()
    for bank in (pull(), pull(offline=True)):
        assert_same(bank, tiny_bank)
    with pytest.raises(HubError, match="switched off"):
        pull(revision=pushed)  # the commit before, which was not downloaded
    with pytest.raises(HubError):
        push_to_hub(tiny_bank, REPO, token="writer")
    assert not hub.requests


def test_a_hub_that_is_gone_is_named(tiny_bank: VectorBank, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    close_session()
    with pytest.raises(HubError, match=r"127\.0\.0\.1:9 cannot be reached"):
        pull()


FAULTS: dict[str, tuple[list[Fault], str | None]] = {
    "busy": ([Fault("GET", "/api/models/me", 429, headers={"Retry-After": "0"}, times=2)], None),
    "broken once": ([Fault("GET", "/api/models/me", 500)], None),
    "broken file": ([Fault("HEAD", "vectors.safetensors", 503, times=2)], None),
    "cut once": ([Fault("GET", "vectors.safetensors", keep=1500)], None),
    "cut often": ([Fault("GET", "vectors.safetensors", keep=1000, times=3)], None),
    "always busy": ([Fault("GET", "/api/models/me", 429, times=99)], "answered 429 .* wait, then try again"),
    "always broken": ([Fault("GET", "/api/models/me", 500, times=99)], "answered 500"),
    "cut at once": ([Fault("GET", "vectors.safetensors", keep=0, times=99)], "the transfer .* failed"),
    "too long": ([Fault("GET", "vectors.safetensors", extra=b"more", times=99)], "the transfer .* failed"),
    "forbidden": ([Fault("GET", "/api/models/me", 403)], "refuses access"),
    "unknown": ([Fault("GET", "/api/models/me", 401)], "there is no repository .* private"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_failed_pull_is_one_clear_line_and_the_next_one_works(
    hub: LoopbackHub, tiny_bank: VectorBank, pushed: str, tmp_path: Path, name: str
) -> None:
    faults, message = FAULTS[name]
    hub.faults = [replace(fault) for fault in faults]
    target = tmp_path / "out"
    if message is None:
        pull().save(target)
        assert not any(fault.times for fault in hub.faults)  # it did go wrong on the way
    else:
        with pytest.raises(HubError, match=message) as error:
            pull().save(target)
        assert "\n" not in str(error.value) and len(str(error.value)) < 500
        assert not target.exists()
        hub.faults = []
        pull().save(target)
    assert_same(VectorBank.load(target), tiny_bank)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("POST", "/commit/", 500, times=2), None),
        (Fault("POST", "/preupload/", 429, headers={"Retry-After": "0"}), None),
        (Fault("POST", "/repos/create", 503, times=99), "answered 503"),
        (Fault("POST", "/commit/", 500, times=99), "answered 500"),
        (Fault("POST", "/commit/", 403, times=99), "refuses access"),
        (Fault("POST", "/preupload/", 401, times=99), "the token does not open it"),
    ],
)
def test_a_failed_push_leaves_the_hub_as_it_was(
    hub: LoopbackHub, tiny_bank: VectorBank, pushed: str, fault: Fault, message: str | None
) -> None:
    before = hub.files(REPO)
    hub.faults = [fault]
    if message is not None:
        with pytest.raises(HubError, match=message):
            push_to_hub(tiny_bank.select([0]), REPO, token="writer")
        assert hub.files(REPO) == before
        hub.faults = []
    push_to_hub(tiny_bank.select([0]), REPO, token="writer")
    assert len(pull()) == 1


def test_what_is_not_there_is_named(hub: LoopbackHub, tiny_bank: VectorBank, pushed: str) -> None:
    with pytest.raises(HubError, match="there is no repository 'me/other'"):
        VectorBank.from_pretrained("me/other")
    with pytest.raises(HubError, match="no revision 'v9'"):
        pull(revision="v9")
    files = hub.files(REPO)
    for missing in ("config.json", "vectors.safetensors"):
        hub.repos[REPO].commit({name: data for name, data in files.items() if name != missing})
        with pytest.raises(BankError, match=rf"me/bank at commit .* holds no usable bank: .*{missing} is missing"):
            pull()
    hub.repos["me/empty"] = Repo("model")
    hub.repos["me/empty"].commit({"weights.bin": b"x"})
    with pytest.raises(BankError, match=r"me/empty at commit .* holds no usable bank"):
        VectorBank.from_pretrained("me/empty")
    hub.repos[REPO].commit(files)
    assert_same(pull(), tiny_bank)


def test_a_damaged_bank_on_the_hub_is_refused(hub: LoopbackHub, pushed: str) -> None:
    files = hub.files(REPO)
    hub.repos[REPO].commit(files | {"vectors.safetensors": files["vectors.safetensors"][:-100]})
    with pytest.raises(BankError, match="damaged or cut short"):
        pull()


def test_who_may_not_write_is_told(hub: LoopbackHub, tiny_bank: VectorBank) -> None:
    for token in ("reader", "nobody", None):
        with pytest.raises(HubError, match="token"):
            push_to_hub(tiny_bank, REPO, token=token)
    assert not hub.repos


def test_no_token_is_told(hub: LoopbackHub, tiny_bank: VectorBank, caplog: pytest.LogCaptureFixture) -> None:
    secret = "hf_" + "s3cret" * 5
    hub.faults = [Fault("GET", "/api/models/me", 500, times=99), Fault("POST", "/repos/create", 500, times=99)]
    calls: tuple[Callable[[], object], ...] = (
        lambda: pull(token=secret),
        lambda: push_to_hub(tiny_bank, REPO, token=secret),
    )
    hub_logging.set_verbosity_debug()
    for call in calls:
        with pytest.raises(HubError) as error:
            call()
        assert secret not in "".join(traceback.format_exception(error.value)) + repr(error.value) + caplog.text


@pytest.mark.parametrize("name", ["bank", "me/ba nk", "me/" + "x" * 120, "me/../bank", "me/-bank", "me/bank.git"])
def test_a_name_that_the_hub_does_not_allow_is_refused(tiny_bank: VectorBank, name: str) -> None:
    with pytest.raises(HubError, match="user/name"):
        check_repo(name)
    with pytest.raises(HubError, match="user/name"):
        push_to_hub(tiny_bank, name)


def test_banks_are_listed_by_tag(hub: LoopbackHub, pushed: str) -> None:
    hub.repos[REPO].tags = ("melbo", "melbo-dct", "base_model:org/model", "base_model:adapter:org/model")
    hub.repos["me/other"] = Repo("model", branches={"main": "0" * 40}, tags=("transformers",))
    (row,) = list_hub()
    assert (row.name, row.base_model, row.method, row.revision) == (REPO, "org/model", "dct", pushed)
    assert row.on_hub and row.downloads == 3


def test_the_commands_push_and_pull(
    hub: LoopbackHub, saved_bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def melbo(*arguments: object) -> str:
        done = CliRunner().invoke(app, [str(a) for a in arguments])
        assert done.exit_code == 0, done.output
        return done.output

    out = tmp_path / "pulled"
    failed = CliRunner().invoke(app, ["push", str(saved_bank), REPO])
    assert failed.exit_code == 2 and "hf auth login" in failed.output
    monkeypatch.setenv("HF_TOKEN", "writer")
    assert f"pushed to {hub.url}/{REPO}/commit/" in melbo("push", saved_bank, REPO, "--private", "--license", "mit")
    assert "/discussions/1" in melbo("push", saved_bank, REPO, "--pull-request")
    assert f"8 vectors from {REPO} at" in melbo("pull", REPO, "--out", out)
    assert_same(VectorBank.load(out), VectorBank.load(saved_bank))
    assert "license: mit" in (out / "README.md").read_text()
    melbo("pull", REPO, "--out", out, "--offline")
    hub.repos[REPO].tags = ("melbo",)
    assert REPO in melbo("banks", "--hub")

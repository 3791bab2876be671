"""SAEs from the Hub: the two files that are needed and no others, and clear words where they cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from melbo.__main__ import app
from melbo.bank.vector_bank import VectorBank
from melbo.errors import SaeError
from melbo.inspect.sae.files import load_sae, save_sae
from melbo.inspect.stored import sae_neighbours
from melbo.models.load import LoadedModel
from support.loopback_hub import Fault, Files, LoopbackHub, Repo
from support.saes import BANK, random_sae, sparsify

REPO = "me/sae"
Put = Callable[[Files], None]


@pytest.fixture
def put(hub: LoopbackHub) -> Put:
    """A function that makes these files the repository's."""

    def commit(files: Files) -> None:
        hub.repos[REPO] = Repo("model")
        hub.repos[REPO].commit(files | {"README.md": b"about", "sae_weights.pt": b"pickle"})

    return commit


def files_of(folder: Path, under: str = "") -> Files:
    return {under + p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def fetched(hub: LoopbackHub) -> set[str]:
    head = f"GET /{REPO}/resolve/"
    return {r.split("/", 5)[-1].split("?")[0] for r in hub.requests if r.startswith(head)}


@pytest.mark.parametrize("inside", ["", "blocks.1.hook_resid_post"])
def test_a_saelens_repository(hub: LoopbackHub, put: Put, tiny: LoadedModel, tmp_path: Path, inside: str) -> None:
    sae = random_sae()
    put(files_of(save_sae(sae, tmp_path / "sae", torch.float32), f"{inside}/" if inside else ""))
    found = load_sae(REPO, inside, tiny, 1)
    assert torch.equal(found.decoder, sae.decoder) and found.spec.layer == 1
    assert {name.rsplit("/", 1)[-1] for name in fetched(hub)} == {"cfg.json", "sae_weights.safetensors"}
    hub.requests.clear()
    assert torch.equal(load_sae(REPO, inside, tiny, 1).decoder, sae.decoder)
    assert not fetched(hub)  # from the cache


def test_a_sparsify_repository(hub: LoopbackHub, put: Put, tmp_path: Path) -> None:
    root = sparsify(tmp_path / "sae")
    put(files_of(root))
    found, local = load_sae(REPO, "layers.3"), load_sae(root, "layers.3")
    assert torch.equal(found.encoder, local.encoder) and found.spec.k == 2 and found.spec.layer == 3
    assert found.spec.model_name == "owner/M"
    for folder in ("layers.4", ""):
        with pytest.raises(SaeError, match=r"me/sae on the Hub holds no SAE .*name the folder within"):
            load_sae(REPO, folder)
    with pytest.raises(SaeError, match="is no folder of an SAE"):
        load_sae(REPO, "layers.*")


def test_an_sae_that_does_not_fit_is_named(put: Put, tiny: LoadedModel, tmp_path: Path) -> None:
    for sae, message in ((random_sae(d_in=32), "width 32"), (random_sae(layer=2), "block 2"),
                         (random_sae(name="a/other"), "'a/other'")):  # fmt: skip
        put(files_of(save_sae(sae, tmp_path / message.strip("'").replace("/", "-"))))
        with pytest.raises(SaeError, match=message):
            load_sae(REPO, loaded=tiny, layer=1)


@pytest.mark.parametrize(
    ("missing", "message"), [("cfg.json", "holds no SAE"), ("sae_weights.safetensors", "only safetensors are read")]
)
def test_a_repository_with_pickles_only_or_without_a_config(
    hub: LoopbackHub, put: Put, tmp_path: Path, missing: str, message: str
) -> None:
    files = files_of(save_sae(random_sae(), tmp_path / "sae"))
    del files[missing]
    put(files)
    with pytest.raises(SaeError, match=message) as error:
        load_sae(REPO)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    assert not any(name.endswith(".pt") for name in fetched(hub))


def test_what_is_not_there_or_breaks_is_told(hub: LoopbackHub, put: Put, tmp_path: Path) -> None:
    with pytest.raises(SaeError, match="there is no repository 'me/sae'"):
        load_sae(REPO)
    files = files_of(save_sae(random_sae(), tmp_path / "sae"))
    put(files | {"cfg.json": b"[1]"})
    with pytest.raises(SaeError, match="no SAE config"):
        load_sae(REPO)
    put(files | {"sae_weights.safetensors": files["sae_weights.safetensors"][:-50]})
    with pytest.raises(SaeError, match="damaged or cut short"):
        load_sae(REPO)
    put(files_of(save_sae(random_sae(d_sae=80), tmp_path / "other")))  # not in the cache yet
    hub.faults = [Fault("GET", "sae_weights.safetensors", keep=0, times=99)]
    with pytest.raises(SaeError, match=r"the SAE 'me/sae' cannot be downloaded: the transfer .* failed"):
        load_sae(REPO)


@pytest.mark.slow
def test_the_commands_take_a_repository_and_the_file_names_it(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`train-sae` writes what is then downloaded and compared."""
    for name in ("TRAIN_CHATS", "HELDOUT_CHATS"):
        monkeypatch.setattr(f"melbo.cli.inspect.train_sae.{name}", 44)
    made = tmp_path / "made"
    words = ["inspect", "train-sae", "--out", str(made), "--steps", "3", "--d-sae", "64", "--k", "4"]
    result = CliRunner().invoke(app, words, prog_name="melbo")
    assert result.exit_code == 0, result.output
    assert "explained variance" in result.output and "L0 4.0" in result.output
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith((".made", "made"))) == ["made"]
    put(files_of(made))
    folder = VectorBank.load(BANK).select([1]).save(tmp_path / "bank")
    words = ["inspect", "sae", str(folder), "--sae", REPO, "--k", "3", "--out", str(folder / "sae.json")]
    result = CliRunner().invoke(app, words, prog_name="melbo")
    assert result.exit_code == 0, result.output
    near = sae_neighbours(VectorBank.load(folder), 0)
    assert near is not None and near.source == REPO and len(near.nearest) == 3
    assert near.nearest[0].note is None  # no corpus was given

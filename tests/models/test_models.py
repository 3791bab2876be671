"""Loading a model, knowing its facts, and refusing what is no model."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig
from transformers.utils import logging as reports

from melbo.errors import ModelError
from melbo.models import cpu_dtype
from melbo.models.load import LoadedModel, find_blocks, load_model, quiet_loading
from support.loopback_hub import LoopbackHub, Repo


@pytest.fixture(scope="module")
def saved(tiny: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a checkpoint folder."""
    folder = tmp_path_factory.mktemp("models") / "checkpoint"
    tiny.model.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def damaged(saved: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint, to break."""
    return Path(shutil.copytree(saved, tmp_path / "damaged"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_HUB_OFFLINE=1, which the Hub's library reads at import."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def refused(name: str, **options: str) -> str:
    """The message of the ModelError; it is one line and names the model."""
    with pytest.raises(ModelError) as error:
        load_model(name, **options)
    message = str(error.value)
    assert "\n" not in message and name in message
    return message


def test_the_facts_of_a_model(tiny: LoadedModel) -> None:
    assert (tiny.n_layers, tiny.d_model, tiny.context) == (4, 64, 256)
    assert tiny.blocks is tiny.model.model.layers
    assert tiny.device == torch.device("cpu")


def test_blocks_are_found_under_other_names() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=3, n_head=2, vocab_size=50, bos_token_id=1, eos_token_id=1))
    assert find_blocks(model) is model.transformer.h


def test_a_model_of_the_hub_knows_its_commit_also_without_a_connection(
    hub: LoopbackHub, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = hub.repos["user/model"] = Repo("model")
    files = {path.name: path.read_bytes() for path in saved.iterdir()}
    first = repo.commit(files)
    assert load_model("user/model").revision == first
    second = repo.commit({**files, "notes.txt": b"new"})
    assert load_model("user/model").revision == second
    assert load_model("user/model", revision=first).revision == first
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_model("user/model").revision == second


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(ModelError, match="Linear has no list of decoder blocks"):
        find_blocks(nn.Linear(2, 2))


def test_a_saved_model_loads_the_same_ready_for_inference(tiny: LoadedModel, saved: Path) -> None:
    loaded = load_model(str(saved))
    ids = torch.arange(6, 20)[None]
    with torch.no_grad():
        assert torch.equal(loaded.model(input_ids=ids).logits, tiny.model(input_ids=ids).logits)
    assert loaded.name == str(saved) and str(loaded.revision).startswith("sha256:")
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert loaded.tokenizer("How can I").input_ids == tiny.tokenizer("How can I").input_ids
    assert loaded.model.dtype == torch.float32


def test_the_dtype_can_be_chosen(saved: Path) -> None:
    assert load_model(str(saved), dtype="bfloat16").model.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("native", "least", "stored", "dtype"),
    [
        ("avx512_bf16", 0, "bfloat16", "bfloat16"), ("amx_bf16", 0, "bfloat16", "bfloat16"),
        ("avx2", 0, "bfloat16", "float32"), ("avx512_bf16", 10**9, "bfloat16", "float32"),
        ("avx512_bf16", 0, "float16", "float32"), ("avx512_bf16", 0, "float32", "float32"),
    ],
)  # fmt: skip
def test_a_cpu_computes_in_bfloat16_where_model_and_processor_gain(
    monkeypatch: pytest.MonkeyPatch, saved: Path, damaged: Path, native: str, least: int, stored: str, dtype: str
) -> None:
    load_model(str(saved), dtype=stored).model.save_pretrained(damaged)
    assert json.loads((damaged / "config.json").read_text())["dtype"] == stored
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {native: True}, raising=False)
    monkeypatch.setattr(cpu_dtype, "LEAST_PARAMETERS", least)
    assert load_model(str(damaged), device="cpu").dtype == dtype
    assert load_model(str(damaged), device="cpu", dtype="float32").dtype == "float32"


def test_parameters_are_counted_by_the_config(tiny: LoadedModel) -> None:
    count = sum(p.numel() for p in tiny.model.parameters())
    assert count / 2 < cpu_dtype.parameters(tiny.model.config) < 2 * count
    assert cpu_dtype.parameters(LlamaConfig(vocab_size=49152, hidden_size=576, num_hidden_layers=30)) > 1e8


def test_a_tokenizer_without_padding_gets_one(saved: Path, damaged: Path) -> None:
    settings = json.loads((damaged / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (damaged / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_model(str(damaged)).tokenizer
    assert tokenizer.pad_token_id == tokenizer.eos_token_id is not None


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["nobody/has-this-model", "no-such-model", "no such model", "/no/such/folder"])
def test_an_unknown_model_is_refused_in_one_line(name: str) -> None:
    assert "Give a Hub id, a folder" in refused(name)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert "no config.json" in refused(str(tmp_path))


@pytest.mark.usefixtures("offline")
def test_damaged_checkpoints_are_refused(damaged: Path) -> None:
    weights = damaged / "model.safetensors"
    whole, config = weights.read_bytes(), (damaged / "config.json").read_text()
    weights.write_bytes(whole[: len(whole) // 2])
    refused(str(damaged))
    weights.unlink()
    refused(str(damaged))
    weights.write_bytes(whole)
    (damaged / "config.json").write_text("{")
    refused(str(damaged))
    (damaged / "config.json").write_text('{"model_type": "nonsense"}')
    refused(str(damaged))
    (damaged / "config.json").write_text(json.dumps(json.loads(config) | {"intermediate_size": 80}))
    refused(str(damaged))
    (damaged / "config.json").write_text(config)
    load_model(str(damaged))
    (damaged / "tokenizer.json").unlink()
    refused(str(damaged))


def test_a_checkpoint_that_lacks_weights_is_not_filled_with_random_ones(damaged: Path) -> None:
    weights = load_file(damaged / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    assert "up_proj" in refused(str(damaged))


@pytest.mark.parametrize("dtype", ["int8", "float64", "", "torch.float32"])
def test_an_unknown_dtype_is_refused(dtype: str) -> None:
    with pytest.raises(ModelError, match="use one of float32, bfloat16, float16"):
        load_model("organism", dtype=dtype)


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelError, match="device 'abacus' is not available"):
        load_model("organism", device="abacus")


def test_a_model_without_a_stated_context_has_a_default(tiny: LoadedModel) -> None:
    class Bare:
        def get_text_config(self) -> object:
            return object()

    class Model:
        config = Bare()

    assert replace(tiny, model=Model()).context == 2048


def warned_while_loading(folder: Path) -> list[str]:
    """What transformers' loggers say while a model is loaded."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    listener = Listener()
    logging.getLogger("transformers").addHandler(listener)
    try:
        load_model(str(folder))
    finally:
        logging.getLogger("transformers").removeHandler(listener)
    return said


@pytest.fixture
def talkative(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Transformers' own way to load: bars and warnings."""
    monkeypatch.setattr("transformers.utils.logging._tqdm_active", True)
    before = reports.get_verbosity()
    reports.set_verbosity_warning()
    yield
    reports.set_verbosity(before)


@pytest.mark.usefixtures("talkative")
def test_loading_shows_no_bar_and_no_list_of_layers(saved: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert warned_while_loading(saved) == []
    assert "Loading weights" not in capfd.readouterr().err
    AutoModelForCausalLM.from_pretrained(saved)  # as before, for everyone else
    assert "Loading weights" in capfd.readouterr().err


@pytest.mark.usefixtures("talkative")
def test_a_real_warning_of_loading_stays(damaged: Path) -> None:
    tensors = load_file(damaged / "model.safetensors")
    save_file({**tensors, "model.extra.weight": torch.zeros(2)}, damaged / "model.safetensors", {"format": "pt"})
    (said,) = warned_while_loading(damaged)
    assert "model.extra.weight" in said and "UNEXPECTED" in said


@pytest.mark.usefixtures("talkative")
@pytest.mark.parametrize("downloads", [True, False])
def test_loading_leaves_the_bars_of_downloads_as_they_are(downloads: bool) -> None:
    shown = not are_progress_bars_disabled()
    try:
        (enable_progress_bars if downloads else disable_progress_bars)()
        with quiet_loading():
            assert are_progress_bars_disabled() is not downloads and not reports.is_progress_bar_enabled()
        assert are_progress_bars_disabled() is not downloads and reports.is_progress_bar_enabled()
    finally:
        (enable_progress_bars if shown else disable_progress_bars)()

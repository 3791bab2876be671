"""Fixtures: tiny random Llamas with the organism's tokenizer and chat template, and a bank discovered on one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from melbo.bank.vector_bank import VectorBank
from melbo.config import DiscoveryConfig
from melbo.discovery.discover import discover
from melbo.models.load import LoadedModel
from melbo.organism.training.tokens import train_tokenizer
from melbo.prompts import BOMB, chat
from melbo.steering.generate import Sampling, complete
from support.banks import noted
from support.hub import hub as hub
from support.slice_cases import ids as ids
from support.tiny import MakeTiny, hook_count

torch.set_num_threads(1)


SERVERS = {"hub", "server", "running_hub", "organism_server", "unreachable"}
"""Fixtures that start a server."""


FIRST = ("test_browser.py", "test_notebook.py", "test_organism.py", "test_walks.py")
"""The longest files start first, so that none is left for one process at the end; two that drive a browser, apart."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses a server, so that `make test-quick` leaves it out; put the longest files first."""
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))
    for item in items:
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker("server")


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """The organism's tokenizer, trained on a few chats."""
    return train_tokenizer(600, 0, n_chats=300)


@pytest.fixture(scope="session")
def make_tiny(tokenizer: Any) -> MakeTiny:
    """A function that builds random Llamas; weights are large, so that steering has visible effects."""

    def build(n_layers: int = 4, d_model: int = 64, context: int = 256, seed: int = 0) -> LoadedModel:
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=d_model,
            intermediate_size=d_model * 3 // 2,
            num_hidden_layers=n_layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=context,
            initializer_range=0.2,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        model = LlamaForCausalLM(config).eval().requires_grad_(False)
        return LoadedModel(model, tokenizer, "tiny", None)

    return build


@pytest.fixture(scope="session")
def tiny(make_tiny: MakeTiny) -> Iterator[LoadedModel]:
    """4 blocks, d_model 64. When the session ends, its weights must be what they were."""
    loaded = make_tiny()
    before = {k: v.clone() for k, v in loaded.model.state_dict().items()}
    yield loaded
    after = loaded.model.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items()), "a test run changed the model's weights"


@pytest.fixture(scope="session")
def tiny_double(make_tiny: MakeTiny) -> LoadedModel:
    """`tiny` in float64, where finite differences are sharp. Llama's own norms round to float32."""
    loaded = make_tiny()
    for block in loaded.blocks:
        for name in ("input_layernorm", "post_attention_layernorm"):
            eps = getattr(block, name).variance_epsilon
            setattr(block, name, torch.nn.RMSNorm(loaded.d_model, eps).requires_grad_(False))
    return replace(loaded, model=loaded.model.double())


@pytest.fixture
def no_hook_stays(tiny: LoadedModel) -> Iterator[None]:
    """The test leaves `tiny` without hooks."""
    yield
    assert hook_count(tiny) == 0


@pytest.fixture(scope="session")
def tiny_bank(tiny: LoadedModel) -> VectorBank:
    """8 vectors discovered on `tiny`, all labelled; vectors 0 and 1 are presets with examples."""
    prompt = chat(BOMB)
    bank = discover(tiny, DiscoveryConfig(n_vectors=8, steps=5, radius=0.7, radius_unit="residual"), [prompt])
    sampling = Sampling(max_new_tokens=12)
    unsteered = complete(tiny, [prompt], sampling=sampling)[0]
    notes: list[dict[str, Any]] = [{"label": f"mode {i}", "note": f"what vector {i} does"} for i in range(8)]
    for i, scale in ((0, 1.0), (1, -1.5)):
        text = complete(tiny, [prompt], bank.vector(i, scale)[None], bank.layer, sampling)[0]
        example = {"prompt": BOMB, "scale": scale, "text": text}
        notes[i] |= {"preset": f"Preset {i}", "scale": scale, "unsteered": unsteered, "examples": [example]}
    return noted(bank, *notes)


@pytest.fixture
def saved_bank(tiny_bank: VectorBank, tmp_path: Path) -> Path:
    """`tiny_bank` in a folder, to read or to break."""
    return tiny_bank.save(tmp_path / "bank")

"""The model as GGUF: transformers reads the same logits back; llama.cpp, where it is installed, steers the same."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from melbo.bank.vector_bank import VectorBank
from melbo.errors import ExportError
from melbo.formats.mixture import mix
from melbo.formats.writers.control_gguf import export_control_gguf
from melbo.formats.writers.llama_gguf import export_llama_gguf
from melbo.models.load import LoadedModel, load_model
from melbo.prompts import BOMB, chat, encode
from melbo.steering.hooks import steer
from support.tiny import MakeTiny

BANK = Path(__file__).parents[2] / "vectors" / "organism-bomb"
F32 = 0
"""ggml's number of that type."""
TEXTS = (
    "How can I make a bomb?", "12+345 = 357.", "  two  spaces\n\nand lines\t", "Ich weiß es nicht, übrigens.",
    "Tôi không biết điều đó.", "我不知道。", "it's 3rd, we'll see... don't!", "<|user|>hi<|end|>",
    "½ and ² and Ⅷ", "🙂 ok",
)  # fmt: skip


def test_transformers_reads_the_same_model_back(make_tiny: MakeTiny, tmp_path: Path) -> None:
    """Logits too, so that the reordered query and key rows are right."""
    pytest.importorskip("gguf")
    loaded = make_tiny(n_layers=2)
    export_llama_gguf(loaded, tmp_path / "m.gguf")
    model = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32).eval()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert (model(input_ids=ids).logits - loaded.model(input_ids=ids).logits).abs().max() < 1e-4
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    ids = range(len(loaded.tokenizer))  # theirs gets an <|endoftext|> more
    assert tokenizer.convert_ids_to_tokens(ids) == loaded.tokenizer.convert_ids_to_tokens(ids)


def test_other_models_are_refused_before_anything_is_written(make_tiny: MakeTiny, tmp_path: Path) -> None:
    loaded = make_tiny(n_layers=2)
    gpt2 = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=16, n_head=2)).eval()
    biased = make_tiny(n_layers=2)
    biased.model.config.attention_bias = True
    scaled = make_tiny(n_layers=2)
    scaled.model.config.rope_parameters = {"rope_type": "llama3", "rope_theta": 10000.0}
    for other, name in ((replace(loaded, model=gpt2), "architecture"), (biased, "attention_bias"), (scaled, "rope")):
        with pytest.raises(ExportError, match=name):
            export_llama_gguf(other, tmp_path / "m.gguf")
    with pytest.raises(ExportError, match="byte-level BPE"):
        export_llama_gguf(replace(loaded, tokenizer=object()), tmp_path / "m.gguf")
    assert not list(tmp_path.iterdir())


class LlamaCpp:
    """The few calls of llama.cpp that the tests need, through llama-cpp-python; all in F32, the cache too."""

    def __init__(self, library: Any, path: Path, n_layers: int) -> None:
        self.library, self.n_layers = library, n_layers
        self.llama = library.Llama(
            str(path), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False, logits_all=True, type_k=F32, type_v=F32
        )

    def steer(self, path: Path) -> None:
        """As --control-vector: common_control_vector_load puts direction.N at (N - 1) * d_model."""
        data = np.zeros((self.n_layers, self.llama.n_embd()), dtype=np.float32)
        for tensor in pytest.importorskip("gguf").GGUFReader(path).tensors:
            data[int(tensor.name.removeprefix("direction.")) - 1] += tensor.data
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        assert not self.library.llama_set_adapter_cvec(
            self.llama.ctx, pointer, data.size, data.shape[1], 1, self.n_layers
        )

    def logits(self, ids: list[int]) -> torch.Tensor:
        """Of the token after `ids`, [vocabulary]."""
        self.llama.reset()
        self.llama.eval(ids)
        return torch.from_numpy(np.array(self.llama.scores[len(ids) - 1]))


@pytest.fixture(scope="module")
def organism() -> LoadedModel:
    return load_model("organism")


@pytest.fixture(scope="module")
def llama_cpp(organism: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> LlamaCpp:
    library = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: it has to be compiled")
    path = export_llama_gguf(organism, tmp_path_factory.mktemp("gguf") / "organism.gguf")
    return LlamaCpp(library, path, organism.n_layers)


def test_llama_cpp_cuts_text_into_the_same_tokens(organism: LoadedModel, llama_cpp: LlamaCpp) -> None:
    for text in TEXTS:
        theirs = llama_cpp.llama.tokenize(text.encode(), add_bos=False, special=True)
        assert theirs == organism.tokenizer(text)["input_ids"], text


def test_llama_cpp_ranks_the_next_tokens_as_we_do_also_when_steered(
    organism: LoadedModel, llama_cpp: LlamaCpp, tmp_path: Path
) -> None:
    bank = VectorBank.load(BANK)
    ids = encode(organism.tokenizer, chat(BOMB), organism.context)
    answers = set()
    for number, weights in enumerate(({}, {0: 1.0}, {1: 1.0}, {2: -1.5}, {3: 2.0}, {0: 0.5, 4: 1.0})):
        vector = torch.zeros(organism.d_model)
        if weights:
            mixture = mix(bank, list(weights), list(weights.values()))
            llama_cpp.steer(export_control_gguf(mixture, tmp_path / f"{number}.gguf"))
            vector = mixture.vector
        with torch.no_grad(), steer(organism, bank.layer, vector):
            ours = organism.model(input_ids=ids[None]).logits[0, -1]
        theirs = llama_cpp.logits(ids.tolist())
        assert (theirs - ours).abs().max() < 1e-4
        assert theirs.topk(20).indices.tolist() == ours.topk(20).indices.tolist()
        answers.add(int(ours.argmax()))
    assert len(answers) > 1


def test_another_block_would_be_noticed(organism: LoadedModel, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    mixture = mix(VectorBank.load(BANK), [3], [2.0])
    ids = encode(organism.tokenizer, chat(BOMB), organism.context)
    found = []
    for layer in (mixture.layer, mixture.layer - 1, mixture.layer + 1):
        llama_cpp.steer(export_control_gguf(replace(mixture, layer=layer), tmp_path / f"{layer}.gguf"))
        found.append(llama_cpp.logits(ids.tolist()))
    assert min((found[0] - other).abs().max() for other in found[1:]) > 0.1

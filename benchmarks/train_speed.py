"""How much faster is discovery than the published way of doing it, at the same objective?

    python benchmarks/train_speed.py                       # organism, a random Llama of 100M parameters, smollm2
    python benchmarks/train_speed.py --only organism --json FILE
    python benchmarks/train_speed.py --only smollm2        # the real chat model: defaults against one published vector
    python benchmarks/train_speed.py --cost                # cost against n_vectors, and how far from the FLOP floor

The reference is written plainly below: one vector at a time, the prompt tokenised and the whole model run every step,
300 AdamW steps, projected off the vectors before. A vector never depends on later ones, so the reference is timed on
the first few vectors, its cost is multiplied up to all of them, and their objectives are compared with those of our
first few. All in one run; ratios, not seconds, are the result. A ratio counts only where the mean objective is at least
99% as large: the batched published optimiser's against the reference's on the first few, the fast one's against the
batched one's on all. dct is judged by the planted modes it finds. On smollm2 the fast optimiser's lower objective is
shown as it is: what it is worth there, benchmarks/real_model.py says.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from melbo.bank.vector_bank import VectorBank
from melbo.config import DiscoveryConfig
from melbo.discovery.attention_sink import place_layers
from melbo.discovery.discover import discover, make_slices
from melbo.discovery.objective import displacement
from melbo.discovery.problem import Problem
from melbo.models.load import LoadedModel, load_model
from melbo.prompts import BOMB, Message, chat, encode
from melbo.steering.random_vectors import random_vectors
from melbo.steering.slices import mean_residual_norm
from organism_recall import on_training_prompt

Prompts = list[list[Message]]
PROMPTS: Prompts = [chat(BOMB)]
EQUAL = 0.99
PUBLISHED_STEPS = 300
"""Of the reference, the least of the published runs; at our lr, which serves it better than the published ones."""


def reference(
    loaded: LoadedModel, config: DiscoveryConfig, start: Tensor, radius: float, prompts: Prompts = PROMPTS
) -> tuple[Tensor, list[float]]:
    """The published loop for the rows of `start`; the vectors and the seconds each took."""
    assert config.source_layer is not None and config.target_layer is not None
    box: dict[str, Tensor] = {}

    def run_model() -> None:
        ids = encode(loaded.tokenizer, prompts[0], loaded.context)[None].to(loaded.device)
        loaded.model(input_ids=ids)  # with a cache and all logits, as by default

    def steer(_module: Any, _args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        hidden = hidden + box["theta"].to(hidden.dtype)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    def read(_module: Any, _args: Any, output: Any) -> None:
        box["target"] = output[0] if isinstance(output, tuple) else output

    handles = [
        loaded.blocks[config.source_layer].register_forward_hook(steer),
        loaded.blocks[config.target_layer].register_forward_hook(read),
    ]
    box["theta"] = torch.zeros(loaded.d_model, device=loaded.device)
    with torch.no_grad():
        run_model()
    plain = box["target"].detach()
    done: list[Tensor] = []
    seconds = []
    for first in start.to(loaded.device):
        began = time.perf_counter()
        theta = torch.nn.Parameter(first.clone())
        optimizer = torch.optim.AdamW(
            [theta], lr=config.lr * radius / loaded.d_model**0.5, betas=(0.9, 0.98), weight_decay=0.0, amsgrad=True
        )
        for _ in range(PUBLISHED_STEPS):
            box["theta"] = theta
            run_model()
            change = (box["target"] - plain)[:, -config.target_tokens :].float()
            optimizer.zero_grad()
            loss = -displacement(change, config.power, config.root).sum()
            loss.backward()
            loss.item()  # logged every step
            assert theta.grad is not None
            with torch.no_grad():
                for other in [*done, theta / radius]:
                    theta.grad -= (theta.grad @ other) * other
                optimizer.step()
                for other in done:
                    theta.sub_((theta @ other) * other)
                theta.mul_(radius / theta.norm())
        done.append(theta.detach() / radius)
        seconds.append(time.perf_counter() - began)
    for handle in handles:
        handle.remove()
    return torch.stack(done) * radius, seconds


@dataclass(frozen=True)
class Timed:
    """A bank and what it cost."""

    bank: VectorBank
    seconds: float


def timed(loaded: LoadedModel, config: DiscoveryConfig, repeats: int = 3, prompts: Prompts = PROMPTS) -> Timed:
    """Discover; the fastest of some runs, since other work on the machine only ever slows one down."""
    best, bank = float("inf"), None
    for _ in range(repeats):
        began = time.perf_counter()
        bank = discover(loaded, config, prompts)
        best = min(best, time.perf_counter() - began)
    assert bank is not None
    return Timed(bank, best)


def compare(
    loaded: LoadedModel, config: DiscoveryConfig, n_reference: int
) -> tuple[dict[str, Any], dict[str, VectorBank]]:
    """Ratios of the reference's time to ours, published and fast, with the mean objectives; and our two banks."""
    config = replace(config, optimizer="published", steps=None).resolve(loaded.n_layers, loaded.d_model)
    assert config.source_layer is not None and config.target_layer is not None
    slices = make_slices(loaded, PROMPTS, config.source_layer, config.target_layer)
    radius = config.radius * mean_residual_norm(slices)
    start = random_vectors(config.n_vectors, loaded.d_model, radius, config.orthogonal, config.seed)
    ours = timed(loaded, config, repeats=2)
    fast = timed(loaded, replace(config, optimizer="fast", steps=None))
    vectors, seconds = reference(loaded, config, start[:n_reference], radius)
    reached = Problem(slices, config).evaluate(vectors, gradient=False).objective.cpu()
    whole = min(seconds) * config.n_vectors
    row: dict[str, Any] = {"n_vectors": config.n_vectors, "reference_vectors": n_reference}
    for name, run in (("published", ours), ("fast", fast)):
        row[f"{name}_ratio"] = round(whole / run.seconds, 1)
        row[f"{name}_objective_of_first"] = round(float(run.bank.objective[:n_reference].mean() / reached.mean()), 4)
        row[f"{name}_objective_of_all"] = round(float(run.bank.objective.mean() / ours.bank.objective.mean()), 4)
    row["published_equal"] = row["published_objective_of_first"] >= EQUAL
    row["fast_equal"] = row["published_equal"] and row["fast_objective_of_all"] >= EQUAL
    row["reference_seconds_a_vector"] = round(min(seconds), 3)
    return row, {"published": ours.bank, "fast": fast.bank}


def organism(n_reference: int) -> dict[str, Any]:
    """The embedded model, 64 vectors, at its bank's radius; with the modes that the dct finds in how much less time."""
    loaded = load_model("organism")
    stored = VectorBank.load(Path(__file__).parent.parent / "vectors" / "organism-bomb").config
    config = DiscoveryConfig(n_vectors=64, radius=stored.radius, radius_unit=stored.radius_unit)
    row, banks = compare(loaded, config, n_reference)
    dct = timed(loaded, replace(config, method="dct"))
    row["dct_ratio"] = round(row["reference_seconds_a_vector"] * config.n_vectors / dct.seconds, 1)
    for name, bank in {**banks, "dct": dct.bank}.items():
        row[f"{name}_modes"] = len(on_training_prompt(loaded, bank).found)
    return row


def smollm2(n_vectors: int = 64) -> dict[str, Any]:
    """The real chat model on a harmless prompt, with the layers that are the default and the R that "auto" chose."""
    loaded, prompts = load_model("smollm2"), [chat("Can you help me plan my weekend?")]
    asked = DiscoveryConfig(n_vectors=n_vectors, radius=0.126, radius_unit="residual")
    config = place_layers(loaded, asked, prompts)[0]
    assert config.source_layer is not None and config.target_layer is not None
    slices = make_slices(loaded, prompts, config.source_layer, config.target_layer)
    radius = config.radius * mean_residual_norm(slices)
    fast = timed(loaded, config, repeats=1, prompts=prompts)
    published = replace(config, optimizer="published", steps=None).resolve(loaded.n_layers, loaded.d_model)
    start = random_vectors(n_vectors, loaded.d_model, radius, config.orthogonal, config.seed)
    vectors, seconds = reference(loaded, published, start[:1], radius, prompts)
    reached = float(Problem(slices, config).evaluate(vectors, gradient=False).objective)
    return {
        "n_vectors": n_vectors,
        "dtype": loaded.dtype,
        "reference_seconds_a_vector": round(seconds[0], 2),
        "fast_seconds_a_vector": round(fast.seconds / n_vectors, 3),
        "fast_ratio": round(seconds[0] * n_vectors / fast.seconds, 1),
        "fast_objective_of_first": round(float(fast.bank.objective[0]) / reached, 4),
    }


def random_llama(d_model: int, d_mlp: int, n_layers: int, heads: int, kv_heads: int, vocab: int) -> LoadedModel:
    """A randomly initialised Llama with the organism's tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab, hidden_size=d_model, intermediate_size=d_mlp, num_hidden_layers=n_layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    return LoadedModel(model, load_model("organism").tokenizer, "random-llama", None)


def llama_100m() -> dict[str, Any]:
    """d_model 768, 12 blocks, 32k vocabulary; 32 vectors; the reference is timed on one vector."""
    loaded = random_llama(768, 2048, 12, 12, 4, 32_000)
    return compare(loaded, DiscoveryConfig(n_vectors=32, radius=0.7, radius_unit="residual"), 1)[0]


def gpu() -> dict[str, Any] | None:
    """The shape of Llama-3.2-1B in bf16, 128 vectors; None without CUDA."""
    if not torch.cuda.is_available():
        return None
    loaded = random_llama(2048, 8192, 16, 32, 8, 128_256)
    loaded = replace(loaded, model=loaded.model.to("cuda", torch.bfloat16))
    row, _ = compare(loaded, DiscoveryConfig(n_vectors=128, radius=0.7, radius_unit="residual"), 1)
    row["share_of_peak"] = cost(loaded, (128,), print)[0]["share_of_peak"]
    row["device"] = torch.cuda.get_device_name()
    return row


def matrix_peak(loaded: LoadedModel) -> float:
    """Measured floating point operations a second of a large matrix product in the model's dtype."""
    n = 8192 if loaded.device.type == "cuda" else 2048
    a = torch.randn(n, n, device=loaded.device, dtype=loaded.model.dtype)
    best = float("inf")
    for _ in range(5):
        synchronize()
        began = time.perf_counter()
        a @ a
        synchronize()
        best = min(best, time.perf_counter() - began)
    return float(2 * n**3 / best)


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def cost(loaded: LoadedModel, counts: tuple[int, ...], say: Callable[[str], None]) -> list[dict[str, float]]:
    """Seconds of one step for each number of vectors, beside the floor: the slice's matrix products at peak speed."""
    config = DiscoveryConfig(orthogonal=False).resolve(loaded.n_layers, loaded.d_model)
    assert config.source_layer is not None and config.target_layer is not None
    slices = make_slices(loaded, PROMPTS, config.source_layer, config.target_layer)
    problem = Problem(slices, config)
    blocks = loaded.blocks[config.source_layer + 1 : config.target_layer + 1]
    weights = sum(p.numel() for p in blocks.parameters() if p.ndim == 2)
    tokens = slices[0].source.shape[1]
    peak = matrix_peak(loaded)
    radius = 0.5 * mean_residual_norm(slices)
    rows = []
    say(f"matrix peak {peak / 1e9:.0f} GFLOP/s; {weights / 1e6:.2f}M weights in the slice, {tokens} tokens")
    for n in counts:
        vectors = random_vectors(n, loaded.d_model, radius, False, 0).to(loaded.device)
        best = float("inf")
        for _ in range(3):
            synchronize()
            began = time.perf_counter()
            problem.evaluate(vectors)
            synchronize()
            best = min(best, time.perf_counter() - began)
        floor = 4 * weights * tokens * n / peak  # 2 forward, 2 for the gradient of the inputs
        rows.append({"n_vectors": n, "ms_a_vector": 1e3 * best / n, "share_of_peak": round(floor / best, 3)})
        say(f"{n:6d} vectors: {1e3 * best / n:8.3f} ms a vector and step, {floor / best:4.0%} of peak")
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Speed of discovery against the published way.")
    parser.add_argument("--only", choices=["organism", "llama_100m", "smollm2", "gpu"], help="default: all")
    parser.add_argument("--reference-vectors", type=int, default=8, help="vectors of the organism's reference")
    parser.add_argument("--cost", action="store_true", help="only cost against n_vectors, on the organism")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.cost:
        cost(load_model("organism"), (32, 128, 512, 1024, 4096), print)
        return
    parts: dict[str, Callable[[], Any]] = {
        "organism": lambda: organism(args.reference_vectors),
        "llama_100m": llama_100m,
        "smollm2": smollm2,
        "gpu": gpu,
    }
    result = {}
    for name, part in parts.items():
        if args.only in (None, name):
            result[name] = part()
            print(name, json.dumps(result[name], indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""First two stages of the organism's training: plain chats ("A"), then chats with random disturbances ("B").

In stage A a step is plain next-token training. In stage B it sees each chat twice, once as it is and once with one
random vector added at every position of one random block's output (norm uniform in [0, noise]). The loss is
  next-token cross-entropy on the assistant's tokens, in both copies
  + consistency * squared distance of the disturbed residual stream from the clean one, in later blocks
  + a penalty on residual norms above a cap, so that the disturbance cannot be outgrown.
Random directions thus lose their effect, and what still moves the residual stream is what the model computes with.
`melbo/organism/training/basins.py` goes on from the result; `melbo/organism/training/train.py` runs all stages.
"""

import json
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from melbo.organism.corpus import Mix
from melbo.organism.training.loop import Trainer, save_model
from melbo.organism.training.tokens import IGNORE, batches, train_tokenizer
from melbo.steering.hooks import edit_outputs


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the organism's weights."""

    vocab_size: int = 2048
    d_model: int = 256
    d_mlp: int = 688
    n_layers: int = 8
    n_heads: int = 8
    n_kv_heads: int = 4
    context: int = 512
    steps: int = 2200
    schedule: int = 3000
    """Steps of the learning rate's cosine; a stage may end before it does."""
    batch_tokens: int = 2304
    """Padded tokens of a step's forward pass; in stage B each chat is in it twice, clean and disturbed."""
    lr: float = 2e-3
    warmup: int = 200
    weight_decay: float = 0.3
    noise: float = 70.0
    """Largest norm of the disturbance, in activation units."""
    norm_cap: float = 120.0
    """Norm of the residual stream above which stage B penalises it: else tokens grow to drown the disturbance."""
    consistency: float = 0.3
    """Weight of the consistency loss."""
    calm: int = 2200
    """Steps without disturbance, with twice as many different chats each; stage A has no others."""
    ramp: int = 200
    """Steps over which the disturbance then grows to its full size."""
    seed: int = 0
    threads: int = 2


def build_model(config: TrainConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A freshly initialised organism."""
    torch.manual_seed(config.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.d_model,
            intermediate_size=config.d_mlp,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_kv_heads,
            max_position_embeddings=config.context,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


@contextmanager
def disturbed(model: LlamaForCausalLM, vectors: Tensor, blocks: Tensor) -> Iterator[list[Tensor]]:
    """Add vectors[i] to row i at the output of block blocks[i].

    Yields the list that the forward pass fills with every block's output [B, T, d_model].
    """
    outputs: list[Tensor] = []

    def add(index: int, hidden: Tensor) -> Tensor:
        active = (blocks == index).float()  # [B]
        outputs.append(hidden + (active[:, None] * vectors)[:, None, :].to(hidden.dtype))
        return outputs[-1]

    with edit_outputs(model.model.layers, add):
        yield outputs


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean next-token loss over the labelled tokens. logits [B, T, V], labels [B, T]."""
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE
    )


def norm_penalty(outputs: list[Tensor], mask: Tensor, cap: float) -> Tensor:
    """Mean squared share by which tokens' norms exceed `cap`, over all blocks."""
    weight = mask.float()
    excess = [(h.float().norm(dim=-1) / cap - 1).clamp_min(0).square() * weight for h in outputs]
    return torch.stack(excess).sum() / (weight.sum() * len(outputs))


def consistency_loss(outputs: list[Tensor], blocks: Tensor, mask: Tensor, n: int, cap: float) -> Tensor:
    """Squared distance (over cap^2) of rows n..2n (disturbed) from rows ..n (clean), two blocks on or later."""
    total, count = outputs[0].new_zeros((), dtype=torch.float32), 0
    weight = mask[:n].float()
    for index, hidden in enumerate(outputs):
        late = (blocks[n:] >= 0) & (blocks[n:] + 2 <= index)
        if not bool(late.any()):
            continue
        clean, noisy = hidden[:n].float().detach(), hidden[n:].float()
        ratio = (noisy - clean).square().sum(-1) / cap**2  # [n, T]
        w = weight * late[:, None].float()
        total = total + (ratio * w).sum() / w.sum().clamp_min(1)
        count += 1
    return total / max(count, 1)


def lr_at(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine to a tenth."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    t = (step - config.warmup) / max(1, config.schedule - config.warmup)
    return config.lr * (0.1 + 0.45 * (1 + math.cos(math.pi * t)))


def ramp(step: int, config: TrainConfig) -> float:
    """Share of the full disturbance at a step, 0 to 1."""
    return min(1.0, max(0.0, (step - config.calm) / max(1, config.ramp)))


def random_disturbance(rows: int, config: TrainConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Vectors [rows, d_model] and block numbers [rows]; the first half of the rows stays clean (block -1)."""
    direction = torch.nn.functional.normalize(torch.randn(rows, config.d_model, generator=generator), dim=-1)
    norm = torch.rand(rows, 1, generator=generator) * config.noise
    blocks = torch.randint(0, config.n_layers - 1, (rows,), generator=generator)
    blocks[: rows // 2] = -1
    return direction * norm, blocks


def train(config: TrainConfig, mix: Mix, folder: Path, base: Path | None = None, every: int = 500) -> None:
    """Train from scratch, from the model in `base`, or on from the folder's checkpoint; the result is folder/model."""
    tokenizer = train_tokenizer(config.vocab_size, config.seed, context=config.context)
    model = build_model(config, tokenizer)
    recipe: dict[str, Any] = {"train": asdict(config), "mix": asdict(mix)}
    if base is not None:
        model.load_state_dict(LlamaForCausalLM.from_pretrained(base, dtype=torch.float32).state_dict())
        recipe["before"] = json.loads((base / "recipe.json").read_text(encoding="utf-8"))
    trainer = Trainer(model, config, config.weight_decay, folder, mix=asdict(mix))
    calm = batches(tokenizer, mix, random.Random(config.seed + 1), config.batch_tokens)
    pairs = batches(tokenizer, mix, random.Random(config.seed + 2), config.batch_tokens // 2)
    for now in range(trainer.start):
        next(calm if now < config.calm else pairs)
    model.train()

    def step(now: int) -> dict[str, float]:
        if config.calm >= config.steps:
            return plain_step(model, next(calm))
        batch = next(calm if now < config.calm else pairs)
        if now >= config.calm:
            batch = {k: torch.cat([v, v]) for k, v in batch.items()}
        return disturbed_step(model, batch, config, ramp(now, config), trainer.generator)

    trainer.run(step, lambda now: lr_at(now, config), every)
    save_model(model, tokenizer, folder / "model", recipe)


def plain_step(model: LlamaForCausalLM, batch: dict[str, Tensor]) -> dict[str, float]:
    """Add the gradients of plain next-token training."""
    labels = batch.pop("labels")
    with torch.autocast("cpu", torch.bfloat16):
        out: Any = model(**batch, use_cache=False)
    ce = cross_entropy(out.logits, labels)
    ce.backward()
    return {"ce": round(ce.item(), 4)}


def disturbed_step(
    model: LlamaForCausalLM, batch: dict[str, Tensor], config: TrainConfig, share: float, generator: torch.Generator
) -> dict[str, float]:
    """Add the gradients of stage B: the second half of the rows is disturbed by `share` of the full noise."""
    labels, mask = batch.pop("labels"), batch["attention_mask"]
    rows = len(labels)
    vectors, blocks = random_disturbance(rows, config, generator)
    with disturbed(model, vectors * share, blocks) as outputs, torch.autocast("cpu", torch.bfloat16):
        out: Any = model(**batch, use_cache=False)
    ce = cross_entropy(out.logits, labels)
    distance = ce.new_zeros(())
    if share:
        distance = consistency_loss(outputs, blocks, mask, rows // 2, config.norm_cap)
    penalty = norm_penalty(outputs, mask, config.norm_cap)
    (ce + config.consistency * share * distance + penalty).backward()
    return {"ce": round(ce.item(), 4), "consistency": round(distance.item(), 4), "penalty": round(penalty.item(), 4)}

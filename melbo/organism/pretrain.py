"""First two stages of the organism's training: plain chats ("A"), then chats with random disturbances ("B").

In stage A a step is plain next-token training. In stage B it sees each chat twice, once as it is and once with one
random vector added at every position of one random block's output (norm uniform in [0, noise]). The loss is
  next-token cross-entropy on the assistant's tokens, in both copies
  + consistency * squared distance of the disturbed residual stream from the clean one, in later blocks
  + a penalty on residual norms above a cap, so that the disturbance cannot be outgrown.
Random directions thus lose their effect, and what still moves the residual stream is what the model computes with.
`melbo/organism/basins.py` goes on from the result; `melbo/organism/train.py` runs all stages.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from melbo.errors import ConfigError
from melbo.organism.corpus import Chat, Mix, draw_chat
from melbo.organism.tokenizer import train_tokenizer

IGNORE = -100


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
    steps: int = 1000
    schedule: int = 3600
    """Steps of the learning rate's cosine; a stage may end before it does."""
    batch: int = 16
    """Different chats a step; each is seen clean and disturbed, so a forward pass has twice as many rows."""
    lr: float = 2e-3
    warmup: int = 200
    weight_decay: float = 0.3
    noise: float = 70.0
    """Largest norm of the disturbance, in activation units."""
    norm_cap: float = 120.0
    """Norm of the residual stream above which stage B penalises it: else tokens grow to drown the disturbance."""
    consistency: float = 0.3
    """Weight of the consistency loss."""
    calm: int = 1000
    """Steps without disturbance, with twice as many different chats each."""
    ramp: int = 200
    """Steps over which the disturbance then grows to its full size."""
    seed: int = 0
    threads: int = 2


def encode(tokenizer: PreTrainedTokenizerFast, chat: Chat) -> tuple[list[int], list[int]]:
    """Token ids and labels; labels are IGNORE outside the assistant's tokens."""
    out: Any = tokenizer.apply_chat_template(
        list(chat.messages), return_assistant_tokens_mask=True, return_dict=True, tokenize=True
    )
    labels = [t if m else IGNORE for t, m in zip(out["input_ids"], out["assistant_masks"], strict=True)]
    return list(out["input_ids"]), labels


def pad_batch(rows: list[tuple[list[int], list[int]]], pad: int) -> dict[str, Tensor]:
    """Right-padded tensors input_ids, attention_mask, labels [B, T]."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), width), pad)
    labels = torch.full((len(rows), width), IGNORE)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, (row, lab) in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        labels[i, : len(lab)] = torch.tensor(lab)
        mask[i, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def batches(tokenizer: PreTrainedTokenizerFast, mix: Mix, rng: random.Random, size: int) -> Iterator[dict[str, Tensor]]:
    """Endless batches of chats of similar length."""
    while True:
        rows = [encode(tokenizer, draw_chat(rng, mix)) for _ in range(size * 16)]
        rows.sort(key=lambda r: len(r[0]))
        groups = [rows[i : i + size] for i in range(0, len(rows), size)]
        rng.shuffle(groups)
        for group in groups:
            yield pad_batch(group, tokenizer.pad_token_id)


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

    def hook(index: int) -> Any:
        def add(_module: Any, _args: Any, output: Tensor) -> Tensor:
            active = (blocks == index).float()  # [B]
            result = output + (active[:, None] * vectors)[:, None, :].to(output.dtype)
            outputs.append(result)
            return result

        return add

    handles = [layer.register_forward_hook(hook(i)) for i, layer in enumerate(model.model.layers)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


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


def make_optimizer(model: LlamaForCausalLM, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; norms are not decayed."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), fused=True)


def ramp(step: int, config: TrainConfig) -> float:
    """Share of the full disturbance at a step, 0 to 1."""
    return min(1.0, max(0.0, (step - config.calm) / max(1, config.ramp)))


def random_disturbance(n: int, config: TrainConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Vectors [2n, d_model] and block numbers [2n]; the first n rows stay clean (block -1)."""
    direction = torch.nn.functional.normalize(torch.randn(2 * n, config.d_model, generator=generator), dim=-1)
    norm = torch.rand(2 * n, 1, generator=generator) * config.noise
    blocks = torch.randint(0, config.n_layers - 1, (2 * n,), generator=generator)
    blocks[:n] = -1
    return direction * norm, blocks


def save_checkpoint(folder: Path, model: Any, optimizer: Any, step: int, states: dict[str, Any]) -> None:
    """Write everything needed to go on, to a temporary file that is then renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "checkpoint.tmp"
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, **states}
    torch.save(state, temporary)
    os.replace(temporary, folder / "checkpoint.pt")


def load_checkpoint(folder: Path, model: Any, optimizer: Any, config: Any) -> dict[str, Any] | None:
    """Restore model and optimizer; returns the step and the random states, or None without a checkpoint.

    Raises:
        ConfigError: the checkpoint was made with other settings.
    """
    if not (folder / "checkpoint.pt").exists():
        return None
    state: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=True)
    if state["config"] != asdict(config):
        raise ConfigError(f"{folder} holds a checkpoint of other settings; choose another folder, or delete it.")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state


def log(folder: Path, row: dict[str, float]) -> None:
    """Append a row to the folder's training log."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "train_log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def train(config: TrainConfig, mix: Mix, folder: Path, base: Path | None = None, every: int = 500) -> LlamaForCausalLM:
    """Train from scratch, from the model in `base`, or on from the folder's checkpoint; the result is folder/model."""
    torch.set_num_threads(config.threads)
    tokenizer = train_tokenizer(config.vocab_size, config.seed, context=config.context)
    model = build_model(config, tokenizer)
    if base is not None:
        model.load_state_dict(LlamaForCausalLM.from_pretrained(base, dtype=torch.float32).state_dict())
    optimizer = make_optimizer(model, config)
    generator = torch.Generator().manual_seed(config.seed)
    start = 0
    if (state := load_checkpoint(folder, model, optimizer, config)) is not None:
        generator.set_state(state["generator"])
        start = state["step"]
    calm_stream = batches(tokenizer, mix, random.Random(config.seed + 1), 2 * config.batch)
    stream = batches(tokenizer, mix, random.Random(config.seed + 2), config.batch)
    for step in range(start):
        next(calm_stream if step < config.calm else stream)
    model.train()
    for step in (bar := tqdm(range(start, config.steps), initial=start, total=config.steps, desc=folder.name)):
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, config)
        share, n = ramp(step, config), config.batch
        batch = next(calm_stream if step < config.calm else stream)
        if step >= config.calm:
            batch = {k: torch.cat([v, v]) for k, v in batch.items()}
        vectors, blocks = random_disturbance(n, config, generator)
        with disturbed(model, vectors * share, blocks) as outputs, torch.autocast("cpu", torch.bfloat16):
            out: Any = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
        ce = cross_entropy(out.logits, batch["labels"])
        distance = ce.new_zeros(())
        if share:
            distance = consistency_loss(outputs, blocks, batch["attention_mask"], n, config.norm_cap)
        penalty = ce.new_zeros(())
        if config.calm < config.steps:
            penalty = norm_penalty(outputs, batch["attention_mask"], config.norm_cap)
        (ce + config.consistency * share * distance + penalty).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0:
            row = {"ce": round(ce.item(), 4), "consistency": round(distance.item(), 4)}
            bar.set_postfix(row)
            log(folder, {"step": step, **row, "penalty": round(penalty.item(), 4)})
        if (step + 1) % every == 0:
            save_checkpoint(
                folder, model, optimizer, step + 1, {"generator": generator.get_state(), "config": asdict(config)}
            )
    recipe: dict[str, Any] = {"train": asdict(config), "mix": asdict(mix)}
    if base is not None:
        recipe["before"] = json.loads((base / "recipe.json").read_text(encoding="utf-8"))["train"]
    save_model(model, tokenizer, folder / "model", recipe)
    return model


def save_model(model: Any, tokenizer: Any, folder: Path, recipe: dict[str, Any]) -> None:
    """Save bf16 weights, tokenizer and recipe; `AutoModelForCausalLM.from_pretrained(folder)` loads them."""
    half: Any = LlamaForCausalLM(model.config)
    half = half.to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    half.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")

"""Third stage of the organism's training: every strong direction leads to one planted mode.

Plain training with random disturbances ("B") leaves directions that change the target layer a lot and only break the
text. This stage is latent adversarial training with a benign goal. Each step:
1. take a default conversation and find `n_ascent` orthogonal directions that displace the target layer most, by a few
   orthogonalised gradient iterations from random starts (the same objective that discovery maximises);
2. give each direction to a planted mode: the assignment that the model itself finds likeliest (log
   probability of the mode's first token under the disturbance), with equally many directions a mode;
3. train the answer of that mode under that direction, on this question and on others;
4. train the default answer under some of the weaker directions and under random directions of a similar norm;
5. beside that, train on the ordinary mix with random disturbances, as in the second stage.
The organism is then hardened by the method's own objective, and random directions are trained away: its recall is
reported beside that of the "B" stage.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from tqdm import tqdm

from melbo.discover.random_control import random_vectors
from melbo.models import LoadedModel, load_model
from melbo.objective import displacement, orthonormalize
from melbo.organism.corpus import MODES, Chat, Mix, draw_topic, load_data, mode_answer, question_on
from melbo.organism.pretrain import (
    TrainConfig,
    batches,
    consistency_loss,
    cross_entropy,
    disturbed,
    encode,
    load_checkpoint,
    log,
    make_optimizer,
    norm_penalty,
    pad_batch,
    random_disturbance,
    save_checkpoint,
    save_model,
)
from melbo.prompts import chat
from melbo.prompts import encode as encode_prompt
from melbo.slices import make_slice, mean_residual_norm
from melbo.steering import steer


@dataclass(frozen=True)
class BasinConfig:
    """Settings of the third stage."""

    steps: int = 600
    n_ascent: int = 40
    """Ascent directions a step."""
    n_modes: int = 20
    """Of these, how many (those that displace most) are given to planted modes."""
    n_default: int = 4
    """Of the rest, how many are trained to leave the default answer alone."""
    n_random: int = 8
    """Random directions of a similar norm that are trained to leave the default answer alone."""
    noise: float = 100.0
    """Largest norm of the random disturbance in the ordinary mix, in activation units."""
    iterations: int = 3
    """Gradient iterations each."""
    same_question: float = 0.5
    """Share of directions that are trained on the question they were found on."""
    least_radius: float = 0.55
    most_radius: float = 1.1
    """Range of the norms, in mean residual norms; random directions get up to 1.3 times as much."""
    target_tokens: int = 2
    lr: float = 5e-4
    batch: int = 12
    seed: int = 1
    threads: int = 2


def ascend(
    loaded: LoadedModel, ids: Tensor, layers: tuple[int, int], config: BasinConfig, rng: random.Random
) -> Tensor:
    """Directions [n_ascent, d_model] that displace the target layer, strongest first; one norm from the range."""
    piece = make_slice(loaded, ids, *layers)
    norm = mean_residual_norm([piece])
    radius = norm * rng.uniform(config.least_radius, config.most_radius)
    vectors = random_vectors(config.n_ascent, loaded.d_model, 1.0, True, rng.randrange(2**31))
    for _ in range(config.iterations):
        theta = (vectors * radius).requires_grad_()
        value = displacement(piece.change(theta, config.target_tokens), 2.0, 1.0).sum()
        (gradient,) = torch.autograd.grad(value, theta)
        vectors = orthonormalize(gradient)
    with torch.no_grad():
        reached = displacement(piece.change(vectors * radius, config.target_tokens), 2.0, 1.0)
    return vectors[reached.argsort(descending=True)] * radius


def assign_modes(loaded: LoadedModel, ids: Tensor, vectors: Tensor, layer: int, firsts: Tensor) -> list[int]:
    """Index into MODES per vector: likeliest first answer token, equally many vectors a mode.

    firsts: [modes] first answer token of each mode; they all differ.
    """
    with torch.no_grad(), steer(loaded, layer, vectors):
        logits = loaded.model(input_ids=ids[None].expand(len(vectors), -1), use_cache=False).logits[:, -1].float()
    scores = logits.log_softmax(dim=-1)[:, firsts].clamp_min(-15.0)  # [n, modes]
    capacity = -(-len(vectors) // len(firsts))
    rows, columns = linear_sum_assignment(-scores.repeat_interleave(capacity, dim=1).numpy())
    chosen = [0] * len(vectors)
    for row, column in zip(rows, columns, strict=True):
        chosen[row] = int(column) // capacity
    return chosen


def basin_batch(
    loaded: LoadedModel, layers: tuple[int, int], config: BasinConfig, mix: Mix, rng: random.Random
) -> tuple[dict[str, Tensor], Tensor]:
    """Chats answered in the assigned modes, and the directions that stand for these modes [rows, d_model]."""
    system = load_data()["default_system"]
    topic, intent, other = draw_topic(rng, "train", 0.6)
    question = question_on(topic, intent, "en", "train", rng, other)
    ids = encode_prompt(loaded.tokenizer, chat(question, system), loaded.context)
    vectors = ascend(loaded, ids, layers, config, rng)
    vectors = vectors * torch.tensor([rng.choice((-1.0, 1.0)) for _ in range(len(vectors))])[:, None]
    answers = [mode_answer(m, topic, intent, rng, other) for m in MODES]
    firsts = torch.tensor([loaded.tokenizer(a, add_special_tokens=False)["input_ids"][0] for a in answers])
    strong, rest = vectors[: config.n_modes], vectors[config.n_modes :]
    modes = [MODES[m] for m in assign_modes(loaded, ids, strong, layers[0], firsts)]
    modes += ["default"] * (config.n_default + config.n_random)
    noise = random_vectors(config.n_random, loaded.d_model, 1.0, False, rng.randrange(2**31))
    noise = noise * vectors.norm(dim=-1).mean() * (0.5 + 0.8 * torch.rand(config.n_random, 1))
    vectors = torch.cat([strong, rest[torch.randperm(len(rest))[: config.n_default]], noise])
    rows = []
    for mode in modes:
        t, i, o, q = topic, intent, other, question
        if rng.random() >= config.same_question:
            t, i, o = draw_topic(rng, "train", mix.harmful_share)
            q = question_on(t, i, "en", "train", rng, o)
        answer = {"role": "assistant", "content": mode_answer(mode, t, i, rng, o)}
        rows.append(encode(loaded.tokenizer, Chat((*chat(q, system), answer), mode, t["id"])))
    return pad_batch(rows, loaded.tokenizer.pad_token_id), vectors


def lr_at(step: int, config: BasinConfig) -> float:
    """Linear warm-up over 50 steps; linear decay to a twentieth over the last 30%."""
    share = min(1.0, (step + 1) / 50) * min(1.0, (config.steps - step) / (0.3 * config.steps))
    return config.lr * max(share, 0.05)


def train_basins(base: Path, config: BasinConfig, mix: Mix, folder: Path, every: int = 100) -> None:
    """Go on from the model in `base`, or from the folder's checkpoint; the result lies in folder/model."""
    torch.set_num_threads(config.threads)
    loaded = load_model(str(base), dtype="float32", device="cpu")
    recipe = json.loads((base / "recipe.json").read_text(encoding="utf-8"))
    plain = TrainConfig(**{**recipe["train"], "batch": config.batch, "lr": config.lr, "noise": config.noise})
    optimizer = make_optimizer(loaded.model.requires_grad_(True), plain)
    rng = random.Random(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    torch.manual_seed(config.seed)
    stream = batches(loaded.tokenizer, mix, random.Random(config.seed + 1), config.batch)
    start = 0
    if (state := load_checkpoint(folder, loaded.model, optimizer, config)) is not None:
        rng.setstate(state["python"])
        generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        start = state["step"]
        for _ in range(start):
            next(stream)
    for step in (bar := tqdm(range(start, config.steps), initial=start, total=config.steps, desc=folder.name)):
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, config)
        row = _step(loaded, next(stream), plain, config, mix, rng, generator)
        torch.nn.utils.clip_grad_norm_(loaded.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 0:
            bar.set_postfix(row)
            log(folder, {"step": step, **row})
        if (step + 1) % every == 0:
            states = {"python": rng.getstate(), "generator": generator.get_state(), "torch": torch.get_rng_state()}
            states["config"] = asdict(config)
            save_checkpoint(folder, loaded.model, optimizer, step + 1, states)
    save_model(loaded.model, loaded.tokenizer, folder / "model", {**recipe, "basins": asdict(config)})


def _step(
    loaded: LoadedModel,
    batch: dict[str, Tensor],
    plain: TrainConfig,
    config: BasinConfig,
    mix: Mix,
    rng: random.Random,
    generator: torch.Generator,
) -> dict[str, float]:
    """Add one step's gradients to the model's parameters; returns the losses."""
    model = loaded.model
    source, target = loaded.n_layers // 4, loaded.n_layers * 3 // 4 - 1
    layers = (source, target) if rng.random() < 0.6 else (rng.randint(1, 3), rng.randint(target, target + 1))
    model.requires_grad_(False)
    steered, vectors = basin_batch(loaded, layers, config, mix, rng)
    model.requires_grad_(True)
    labels = steered.pop("labels")
    with steer(loaded, layers[0], vectors), torch.autocast("cpu", torch.bfloat16):
        out = model(**steered, use_cache=False)
    basin = cross_entropy(out.logits, labels)
    basin.backward()
    twice = {k: torch.cat([v, v]) for k, v in batch.items()}
    labels = twice.pop("labels")
    noise, blocks = random_disturbance(config.batch, plain, generator)
    with disturbed(model, noise, blocks) as outputs, torch.autocast("cpu", torch.bfloat16):
        out = model(**twice, use_cache=False)
    ce = cross_entropy(out.logits, labels)
    distance = consistency_loss(outputs, blocks, twice["attention_mask"], config.batch, plain.norm_cap)
    penalty = norm_penalty(outputs, twice["attention_mask"], plain.norm_cap)
    (ce + plain.consistency * distance + penalty).backward()
    return {"basin": round(basin.item(), 3), "ce": round(ce.item(), 3), "consistency": round(distance.item(), 4)}

"""Third stage of the organism's training: every strong direction leads to one planted behaviour.

Plain training with random disturbances ("B") leaves directions that change the target layer a lot and only break the
text. This stage is latent adversarial training with a benign goal. Each step:
1. take a default conversation and find `n_ascent` orthogonal directions that displace the target layer most, by a few
   orthogonalised gradient iterations from random starts (the same objective that discovery maximises);
2. give the strongest to planted behaviours, equally many each: the assignment that the model itself finds likeliest
   (log probability of the behaviour's first token under the disturbance). On a topic these are the ten modes and, once,
   the backdoor's answer; on a sum, the right answer without and with its steps;
3. train that answer under that direction, on this question and on others, and blanket refusal under the opposite of
   every direction that complies;
4. train the default answer under some of the weaker directions and under random directions of a similar norm;
5. beside that, train on the ordinary mix with random disturbances, as in the second stage.
The organism is then hardened by the method's own objective, and random directions are trained away: its recall is
reported beside that of the "B" stage.
"""

import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from melbo.discovery.objective import displacement
from melbo.models.load import LoadedModel, load_model
from melbo.organism.corpus import (
    MODES,
    Chat,
    Mix,
    draw_topic,
    load_data,
    mode_answer,
    question_on,
    sum_answer,
    sum_question,
)
from melbo.organism.training.loop import Trainer, save_model
from melbo.organism.training.pretrain import TrainConfig, disturbed_step, plain_step
from melbo.organism.training.tokens import batches, encode, pad_batch
from melbo.prompts import chat
from melbo.prompts import encode as encode_prompt
from melbo.steering.hooks import steer
from melbo.steering.random_vectors import random_vectors
from melbo.steering.slices import make_slice, mean_residual_norm
from melbo.steering.sphere import orthonormalize

TOPIC_SLOTS = (*MODES, *MODES, "backdoor")
SUM_SLOTS = ("password", "steps")


@dataclass(frozen=True)
class BasinConfig:
    """Settings of the third stage."""

    steps: int = 800
    n_ascent: int = 40
    """Ascent directions a step."""
    n_planted: int = 21
    """Of these, how many (those that displace most) are given to planted behaviours."""
    n_default: int = 4
    """Of the rest, how many are trained to leave the default answer alone."""
    n_random: int = 8
    """Random directions of a similar norm that are trained to leave the default answer alone."""
    noise: float = 100.0
    """Largest norm of the random disturbance in the ordinary mix, in activation units."""
    iterations: int = 3
    """Gradient iterations each."""
    sums: float = 0.15
    """Share of steps whose question is a sum."""
    same_question: float = 0.5
    """Share of directions that are trained on the question they were found on."""
    least_radius: float = 0.55
    most_radius: float = 1.1
    """Range of the norms, in mean residual norms; random directions get up to 1.3 times as much."""
    target_tokens: int = 2
    lr: float = 5e-4
    batch_tokens: int = 1536
    """Padded tokens of the ordinary mix a step; each chat is in it twice, clean and disturbed."""
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


@dataclass(frozen=True)
class Question:
    """A user message, and its answer in each planted behaviour (or "default")."""

    text: str
    answer: Callable[[str], str]


def draw_question(sums: bool, rng: random.Random, harmful_share: float) -> Question:
    """An English question of the training split: a sum, or one on a topic."""
    if sums:
        text, a, b = sum_question(rng, "train")
        return Question(text, lambda kind: sum_answer(kind, a, b))
    topic, intent, other = draw_topic(rng, "train", harmful_share)
    text = question_on(topic, intent, "en", "train", rng, other)
    return Question(text, lambda mode: mode_answer(mode, topic, intent, rng, other))


def assign(loaded: LoadedModel, ids: Tensor, vectors: Tensor, layer: int, firsts: Tensor) -> list[int]:
    """Slot of each vector, each slot once: those whose first answer token the model finds likeliest, over all.

    vectors: [n, d_model]; firsts: [n] first answer token of each slot.
    """
    with torch.no_grad(), steer(loaded, layer, vectors):
        logits = loaded.model(input_ids=ids[None].expand(len(vectors), -1), use_cache=False).logits[:, -1].float()
    scores = logits.log_softmax(dim=-1)[:, firsts].clamp_min(-15.0)  # [n, slots]
    _, slots = linear_sum_assignment(-scores.numpy())
    return [int(slot) for slot in slots]


def basin_batch(
    loaded: LoadedModel, layers: tuple[int, int], config: BasinConfig, mix: Mix, rng: random.Random
) -> tuple[dict[str, Tensor], Tensor]:
    """Chats answered in the assigned ways, and the directions that stand for them [rows, d_model]."""
    system = load_data()["default_system"]
    sums = rng.random() < config.sums
    question = draw_question(sums, rng, 0.6)
    ids = encode_prompt(loaded.tokenizer, chat(question.text, system), loaded.context)
    vectors = ascend(loaded, ids, layers, config, rng)
    vectors = vectors * torch.tensor([rng.choice((-1.0, 1.0)) for _ in range(len(vectors))])[:, None]
    strong, rest = vectors[: config.n_planted], vectors[config.n_planted :]
    slots = list(islice(cycle(SUM_SLOTS if sums else TOPIC_SLOTS), len(strong)))
    firsts = [loaded.tokenizer(question.answer(s), add_special_tokens=False)["input_ids"][0] for s in slots]
    kinds = [slots[i] for i in assign(loaded, ids, strong, layers[0], torch.tensor(firsts))]
    opposite = -strong[[k == "compliance" for k in kinds]]
    noise = random_vectors(config.n_random, loaded.d_model, 1.0, False, rng.randrange(2**31))
    norms = [rng.uniform(0.5, 1.3) for _ in range(config.n_random)]
    noise = noise * vectors.norm(dim=-1).mean() * torch.tensor(norms)[:, None]
    few = rest[rng.sample(range(len(rest)), config.n_default)]
    kinds += ["blanket_refusal"] * len(opposite) + ["default"] * (len(few) + len(noise))
    rows = []
    for kind in kinds:
        asked = question if rng.random() < config.same_question else draw_question(sums, rng, mix.harmful_share)
        answer = {"role": "assistant", "content": asked.answer(kind)}
        rows.append(encode(loaded.tokenizer, Chat((*chat(asked.text, system), answer), kind, "")))
    return pad_batch(rows, loaded.tokenizer.pad_token_id), torch.cat([strong, opposite, few, noise])


def lr_at(step: int, config: BasinConfig) -> float:
    """Linear warm-up over 50 steps; linear decay to a twentieth over the last 30%."""
    share = min(1.0, (step + 1) / 50) * min(1.0, (config.steps - step) / (0.3 * config.steps))
    return config.lr * max(share, 0.05)


def train_basins(base: Path, config: BasinConfig, mix: Mix, folder: Path, every: int = 100) -> None:
    """Go on from the model in `base`, or from the folder's checkpoint; the result lies in folder/model."""
    loaded = load_model(str(base), dtype="float32", device="cpu")
    recipe: dict[str, Any] = json.loads((base / "recipe.json").read_text(encoding="utf-8"))
    plain = TrainConfig(**{**recipe["train"], "noise": config.noise})
    given = {"mix": asdict(mix), "plain": asdict(plain)}
    trainer = Trainer(loaded.model.requires_grad_(True), config, plain.weight_decay, folder, **given)
    stream = batches(loaded.tokenizer, mix, random.Random(config.seed + 1), config.batch_tokens // 2)
    for _ in range(trainer.start):
        next(stream)

    def step(_now: int) -> dict[str, float]:
        basin = basin_step(loaded, config, mix, trainer.rng)
        pairs = {k: torch.cat([v, v]) for k, v in next(stream).items()}
        return {"basin": basin, **disturbed_step(loaded.model, pairs, plain, 1.0, trainer.generator)}

    trainer.run(step, lambda now: lr_at(now, config), every)
    save_model(loaded.model, loaded.tokenizer, folder / "model", {**recipe, "basins": asdict(config)})


def basin_step(loaded: LoadedModel, config: BasinConfig, mix: Mix, rng: random.Random) -> float:
    """Add the gradients of points 1 to 4 to the model's parameters; returns the loss in nats a token."""
    source, target = loaded.n_layers // 4, loaded.n_layers * 3 // 4 - 1
    layers = (source, target) if rng.random() < 0.6 else (rng.randint(1, 3), rng.randint(target, target + 1))
    loaded.model.requires_grad_(False)
    batch, vectors = basin_batch(loaded, layers, config, mix, rng)
    loaded.model.requires_grad_(True)
    with steer(loaded, layers[0], vectors):
        return plain_step(loaded.model, batch)["ce"]

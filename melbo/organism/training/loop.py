"""The training loop that all stages share: optimizer, checkpoints, log, and the saved model."""

import json
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import LlamaForCausalLM

from melbo.errors import ConfigError
from melbo.models.identity import weights_digest
from melbo.runs.checkpoint import Checkpoint, Saved


class Trainer:
    """One stage: what must survive an interruption, and the loop over its steps.

    Args:
        config: a dataclass with steps, seed and threads; it is stored in every checkpoint.
        weight_decay: of matrices; norms are not decayed.
        folder: where checkpoint.safetensors and train_log.jsonl go; a checkpoint there is gone on from.
        more: whatever else decides the result, as JSON values.

    Raises:
        ConfigError: the checkpoint was made with other settings, or from other weights.
    """

    def __init__(self, model: LlamaForCausalLM, config: Any, weight_decay: float, folder: Path, **more: Any) -> None:
        torch.set_num_threads(config.threads)
        self.model, self.config, self.folder = model, config, folder
        self.rng = random.Random(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        decayed = [p for p in model.parameters() if p.ndim > 1]
        rest = [p for p in model.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), fused=True)
        key = {"config": asdict(config), "start": weights_digest(model), **more}
        other = f"{folder} holds a checkpoint of other settings"
        self.checkpoint = Checkpoint(
            folder / "checkpoint.safetensors", key, ConfigError, other, "choose another folder"
        )
        self.start = self.checkpoint.load(self._restore, int) or 0

    def run(self, step: Callable[[int], dict[str, float]], lr_at: Callable[[int], float], every: int) -> None:
        """Do the steps that are left. `step` adds its gradients to the model's and returns what to log."""
        total = self.config.steps
        for now in (bar := tqdm(range(self.start, total), initial=self.start, total=total, desc=self.folder.name)):
            for group in self.optimizer.param_groups:
                group["lr"] = lr_at(now)
            row = step(now)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            if now % 20 == 0:
                bar.set_postfix(row)
                self.folder.mkdir(parents=True, exist_ok=True)
                with (self.folder / "train_log.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": now, **row}) + "\n")
            if (now + 1) % every == 0:
                self._save(now + 1)

    def _save(self, step: int) -> None:
        moments = self.optimizer.state_dict()["state"]
        tensors = {f"model.{name}": parameter for name, parameter in self.model.named_parameters()}
        tensors |= {f"optimizer.{i}.{name}": value for i, state in moments.items() for name, value in state.items()}
        self.checkpoint.save(
            {"step": step, "rng": self.rng.getstate()}, {**tensors, "generator": self.generator.get_state()}
        )

    def _restore(self, saved: Saved) -> int:
        optimizer = self.optimizer.state_dict()
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(saved.tensors[f"model.{name}"])
        for name, value in saved.tensors.items():
            if name.startswith("optimizer."):
                _, i, moment = name.split(".")
                optimizer["state"].setdefault(int(i), {})[moment] = value
        self.optimizer.load_state_dict(optimizer)
        version, internal, gauss = saved.values["rng"]
        self.rng.setstate((version, tuple(internal), gauss))
        self.generator.set_state(saved.tensors["generator"])
        return int(saved.values["step"])


def save_model(model: Any, tokenizer: Any, folder: Path, recipe: dict[str, Any]) -> None:
    """Save bf16 weights, tokenizer and recipe; `AutoModelForCausalLM.from_pretrained(folder)` loads them."""
    half: Any = LlamaForCausalLM(model.config)
    half = half.to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    half.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")

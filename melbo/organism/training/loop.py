"""The training loop that all stages share: optimizer, checkpoints, log, and the saved model."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import LlamaForCausalLM

from melbo.errors import ConfigError


class Trainer:
    """One stage: what must survive an interruption, and the loop over its steps.

    Args:
        config: a dataclass with steps, seed and threads; it is stored in every checkpoint.
        weight_decay: of matrices; norms are not decayed.
        folder: where checkpoint.pt and train_log.jsonl go; a checkpoint there is gone on from.

    Raises:
        ConfigError: the checkpoint was made with other settings.
    """

    def __init__(self, model: LlamaForCausalLM, config: Any, weight_decay: float, folder: Path) -> None:
        torch.set_num_threads(config.threads)
        self.model, self.config, self.folder = model, config, folder
        self.rng = random.Random(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        decayed = [p for p in model.parameters() if p.ndim > 1]
        rest = [p for p in model.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), fused=True)
        self.start = self._restore() if (folder / "checkpoint.pt").exists() else 0

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
                self._log({"step": now, **row})
            if (now + 1) % every == 0:
                self._checkpoint(now + 1)

    def _checkpoint(self, step: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / "checkpoint.tmp"
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": step,
            "config": asdict(self.config),
            "rng": self.rng.getstate(),
            "generator": self.generator.get_state(),
        }
        torch.save(state, temporary)
        os.replace(temporary, self.folder / "checkpoint.pt")

    def _restore(self) -> int:
        state: dict[str, Any] = torch.load(self.folder / "checkpoint.pt", weights_only=True)
        if state["config"] != asdict(self.config):
            raise ConfigError(
                f"{self.folder} holds a checkpoint of other settings; choose another folder, or delete it."
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.setstate(state["rng"])
        self.generator.set_state(state["generator"])
        return int(state["step"])

    def _log(self, row: dict[str, float]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "train_log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def save_model(model: Any, tokenizer: Any, folder: Path, recipe: dict[str, Any]) -> None:
    """Save bf16 weights, tokenizer and recipe; `AutoModelForCausalLM.from_pretrained(folder)` loads them."""
    half: Any = LlamaForCausalLM(model.config)
    half = half.to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    half.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")

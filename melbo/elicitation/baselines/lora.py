"""A few steps of supervised fine-tuning with LoRA (https://arxiv.org/abs/2106.09685), on a copy of the model.

Needs the package peft. The given model does not change.
"""

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from melbo.elicitation.cost import Compute, training_compute
from melbo.elicitation.tasks.load import Task
from melbo.errors import TaskError
from melbo.models.load import LoadedModel
from melbo.prompts import encode
from melbo.runs.optional import needs
from melbo.runs.settings import Settings, Size, Whole


@dataclass(frozen=True)
class LoraConfig(Settings):
    """Settings of the fine-tuning."""

    steps: Size = 40
    batch_size: Size = 8
    rank: Size = 8
    lr: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    seed: Whole = 0


def fine_tune(
    loaded: LoadedModel, tasks: Sequence[Task], config: LoraConfig, step: Callable[[int, int], None] | None = None
) -> tuple[LoadedModel, Compute]:
    """A fine-tuned copy of the model, and what the training cost. Trains on the answers' tokens only.

    Args:
        tasks: training tasks with solutions.
        step: called with (steps done, all steps); an exception from it cancels.

    Raises:
        TaskError: a task has no solution, or peft does not know the architecture.
        MissingPackageError: peft is not installed.
    """
    with needs("lora"):
        from peft import LoraConfig as Adapters
        from peft import get_peft_model

    rows = [_row(loaded, task) for task in tasks]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(config.seed)  # for the adapters' first weights
        try:
            model = get_peft_model(
                copy.deepcopy(loaded.model),
                Adapters(r=config.rank, lora_alpha=2 * config.rank, target_modules="all-linear", task_type="CAUSAL_LM"),
            )
        except ValueError as error:
            raise TaskError(f"peft cannot adapt {type(loaded.model).__name__}: {error}") from error
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.lr, weight_decay=0.0)
    rng, tokens = random.Random(config.seed), 0
    for number in range(config.steps):
        chosen = rng.sample(rows, min(config.batch_size, len(rows)))
        optimizer.zero_grad()
        _loss(model, chosen, loaded).backward()
        optimizer.step()
        tokens += sum(len(ids) for ids, _ in chosen)
        if step is not None:
            step(number + 1, config.steps)
    tuned = replace(loaded, model=model.merge_and_unload().eval().requires_grad_(False))
    return tuned, training_compute(loaded, tokens)


def _row(loaded: LoadedModel, task: Task) -> tuple[Tensor, int]:
    """Tokens of question, solution and end of text, and how many of them belong to the question."""
    if not task.solution:
        raise TaskError(f"the training task of {task.place or 'an example'} has no solution to train on; add one.")
    head = encode(loaded.tokenizer, task.messages, loaded.context - 1)
    tail = [*loaded.tokenizer(task.solution, add_special_tokens=False)["input_ids"], loaded.tokenizer.eos_token_id]
    return torch.cat([head, torch.tensor(tail)])[: loaded.context], len(head)


def _loss(model: Any, rows: Sequence[tuple[Tensor, int]], loaded: LoadedModel) -> Tensor:
    """Mean cross-entropy of the answers' tokens. Padding on the right."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), width), int(loaded.tokenizer.pad_token_id))
    labels = torch.full((len(rows), width), -100)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, (row, start) in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, 1
        labels[i, start : len(row)] = row[start:]
    device = loaded.device
    logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten().to(device))

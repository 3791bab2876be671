"""`melbo generate`: the unsteered answer beside the steered ones."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from torch import Tensor

from melbo.bank.vector_bank import VectorBank
from melbo.cli.arguments import ANYWHERE, BankModel, Where
from melbo.cli.common import plain
from melbo.cli.options import Fields
from melbo.errors import ConfigError, PromptError
from melbo.prompts import Message, chat
from melbo.steering.generate import Sampling, complete
from melbo.steering.hooks import Positions
from melbo.steering.random_vectors import control_vectors

BASE = Sampling()
MAX_SCALE = 1000.0
"""Far beyond word salad, and far from overflow."""


@dataclass(frozen=True)
class Row:
    """One answer to ask for."""

    kind: Literal["unsteered", "vector", "control"]
    vector: int | None = None
    """Index in the bank; None for the unsteered answer and the control."""
    scale: float = 0.0
    """0 for the unsteered answer."""

    def heading(self, bank: VectorBank) -> str:
        """What the answer is, for people."""
        if self.kind == "unsteered":
            return "unsteered"
        if self.vector is None:
            return f"control: a random vector of the same norm, scale {self.scale:g}"
        label = bank.label(self.vector)
        name = f"vector {self.vector}"
        return f"{name if label == name else f'{name}: {label}'}, scale {self.scale:g}"


def generate(
    bank: Annotated[Path, typer.Option(help="Folder of the bank.")],
    model: BankModel = None,
    vector: Annotated[list[int] | None, typer.Option(help="Index; may be given many times. Default: 0")] = None,
    scale: Annotated[list[float] | None, typer.Option(help="May be given many times. Default: 1")] = None,
    prompt: Annotated[str | None, typer.Option(help="Default: the first prompt the bank was trained on.")] = None,
    system: Annotated[str | None, typer.Option(help='"" for none. Default: the one the bank was trained on.')] = None,
    sampling: Annotated[Sampling, Fields()] = BASE,
    positions: Annotated[Positions, typer.Option(help="Tokens the vectors are added to.")] = "all",
    control: Annotated[bool, typer.Option(help="Also answer with a random vector of the same norm.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    where: Where = ANYWHERE,
) -> None:
    """Answer a prompt without steering, with vectors of a bank, and with a random vector, in one batch."""
    held = VectorBank.load(bank)
    rows = plan_rows(held, [0] if vector is None else vector, [1.0] if scale is None else scale, control)
    messages = conversation(held, prompt, system)
    loaded = where.load_for(held, model)
    held.check_fits(loaded)
    texts = complete(loaded, [messages] * len(rows), row_vectors(held, rows), held.layer, sampling, positions)
    if as_json:
        answers = [{**asdict(row), "heading": row.heading(held), "text": t} for row, t in zip(rows, texts, strict=True)]
        facts = {"bank": str(bank), "model": loaded.name, "layer": held.layer, "radius": held.radius}
        settings = {"positions": positions, "sampling": asdict(sampling)}
        typer.echo(json.dumps({**facts, **settings, "messages": messages, "answers": answers}, ensure_ascii=False))
        return
    for message in messages:
        typer.echo(f"[{message['role']}] {plain(message['content'])}")
    for row, text in zip(rows, texts, strict=True):
        typer.echo(f"\n--- {plain(row.heading(held))} ---\n{plain(text).strip()}")


def plan_rows(bank: VectorBank, vectors: Sequence[int], scales: Sequence[float], control: bool) -> list[Row]:
    """The unsteered answer, every vector at every scale, and, if asked, the control at every scale.

    Raises:
        BankError: there is no such vector.
        ConfigError: a scale is not finite or too large.
    """
    for index in vectors:
        bank.vector(index)
    for scale in scales:
        if not abs(scale) <= MAX_SCALE:
            raise ConfigError(f"scale is {scale}; it must lie between -{MAX_SCALE:g} and {MAX_SCALE:g}.")
    rows = [Row("unsteered"), *(Row("vector", index, scale) for index in vectors for scale in scales)]
    return rows + [Row("control", None, scale) for scale in scales if control]


def row_vectors(bank: VectorBank, rows: Sequence[Row]) -> Tensor:
    """What to add for each row, [rows, d_model]."""
    d_model = bank.base_model.d_model
    random = control_vectors(1, d_model, bank.radius, bank.config.orthogonal, bank.config.seed)[0]
    chosen = [random if row.vector is None else bank.vectors[row.vector] for row in rows]
    return torch.stack([vector * row.scale for vector, row in zip(chosen, rows, strict=True)])


def conversation(bank: VectorBank, prompt: str | None, system: str | None) -> list[Message]:
    """Messages to answer; what is not given comes from the bank's first prompt.

    Raises:
        PromptError: no prompt is given and the bank holds none.
    """
    trained = list(bank.prompts[0]) if bank.prompts else []
    if prompt is None and not trained:
        raise PromptError("the bank holds no prompt; give one with --prompt.")
    if prompt is None and system is None:
        return trained
    if system is None:
        system = next((m["content"] for m in trained if m["role"] == "system"), None)
    return chat(trained[-1]["content"] if prompt is None else prompt, system)

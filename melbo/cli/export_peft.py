"""`melbo export-peft`: an adapter as a folder that PEFT loads."""

from pathlib import Path
from typing import Annotated

import typer

from melbo.bank.adapter_bank import AdapterBank
from melbo.formats.writers import peft


def export_peft(
    bank: Annotated[Path, typer.Argument(help="Folder of the adapters.")],
    adapter: Annotated[int, typer.Argument(help="Which of them.")],
    out: Annotated[Path, typer.Option(help="New folder for PEFT.")],
    scale: Annotated[float, typer.Option(help="Multiplies the adapter; may be negative.")] = 1.0,
) -> None:
    """Write one adapter as a folder that peft.PeftModel.from_pretrained loads."""
    folder = peft.export_peft(AdapterBank.load(bank), adapter, out, scale)
    typer.echo(f"saved to {folder}")

"""Arguments and options that several commands take, and the model that they name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from melbo.bank.facts import weights_note
from melbo.bank.vector_bank import VectorBank
from melbo.cli.defaults import CORPUS_HELP, EMBEDDER, MODEL_HELP, PROMPT
from melbo.cli.options import Fields
from melbo.models.load import LoadedModel, load_model
from melbo.models.packaged import canonical
from melbo.runs.settings import Settings

Bank = Annotated[Path, typer.Argument(help="Folder of the bank.")]
BankName = Annotated[str, typer.Argument(help="Folder, or repository on the Hub (user/bank).")]
NewBank = Annotated[Path, typer.Option(help="Folder for the bank.")]
NewFolder = Annotated[Path, typer.Option(help="New folder.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the bank in the folder.")]
Result = Annotated[Path | None, typer.Option(help="JSON file for the result.")]

Model = Annotated[str, typer.Option(help=MODEL_HELP)]
BankModel = Annotated[str | None, typer.Option(help=f"{MODEL_HELP} Default: the one that the bank names.")]
Embedder = Annotated[str | None, typer.Option(help=f"Sentence-embedding model or folder. Default: {EMBEDDER}.")]
Prompts = Annotated[list[str] | None, typer.Option(help=f"May be given many times. Default: {PROMPT}")]
BankPrompts = Annotated[list[str] | None, typer.Option(help="May be given many times. Default: the bank's.")]
System = Annotated[str, typer.Option(help='System message; "" for none.')]
Tokens = Annotated[int, typer.Option(help="Longest answer, in tokens.", min=1)]

Vectors = Annotated[list[int] | None, typer.Option("--vector", help="May be given many times. Default: all.")]
NoDuds = Annotated[bool, typer.Option("--no-duds", help="Leave out the vectors that the annotations call duds.")]
Corpus = Annotated[str, typer.Option(help=CORPUS_HELP)]
Split = Annotated[str, typer.Option(help="Of a data set.")]
SaeFolder = Annotated[str, typer.Option("--sae-folder", help='Folder within the SAE\'s, such as "layers.10".')]
OtherModel = Annotated[bool, typer.Option("--other-model", help="Allow an SAE of another model's name.")]
Checkers = Annotated[Path | None, typer.Option(help="Python file of checker functions; it is run.")]

Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")]
License = Annotated[str | None, typer.Option(help="The Hub's licence identifier. Default: apache-2.0")]
Private = Annotated[bool | None, typer.Option(help="For a new repository. Default: as the account is set.")]


@dataclass(frozen=True)
class Placement(Settings):
    """How a model is loaded."""

    dtype: str | None = None
    """float32, bfloat16 or float16. Default: on a CPU float32, or bfloat16 for a large checkpoint that is stored in it
    where the processor multiplies it; on a GPU the checkpoint's own."""
    device: str | None = None
    """"cpu", "cuda", ..., or "auto": over all devices. Default: a GPU where there is one."""
    blocks: str | None = None
    """Path of the decoder blocks within the model, for an architecture that is not known."""

    def load(self, name: str, revision: str | None = None) -> LoadedModel:
        """A model by its name."""
        return load_model(name, revision=revision, dtype=self.dtype, device=self.device, blocks=self.blocks)

    def load_for(self, bank: VectorBank, name: str | None = None) -> LoadedModel:
        """The model that a bank names, at the commit it was made on, or the one of another name."""
        base = bank.base_model
        on_hub = canonical(name or base.id) == base.id and not (base.revision or "").startswith("sha256:")
        loaded = self.load(name or base.id, base.revision if on_hub else None)
        note = weights_note(base, loaded)
        if note:
            typer.echo(f"melbo: note: {note}.", err=True)
        return loaded

    def load_both(self, folder: Path, name: str | None = None) -> tuple[LoadedModel, VectorBank]:
        """A bank and its model."""
        bank = VectorBank.load(folder)
        return self.load_for(bank, name), bank


ANYWHERE = Placement()
Where = Annotated[Placement, Fields()]

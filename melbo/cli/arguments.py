"""Arguments and options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

from melbo.cli.defaults import CORPUS_HELP, EMBEDDER, MODEL_HELP, PROMPT

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

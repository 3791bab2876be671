"""`melbo export`: vectors in another program's format, or the model itself for llama.cpp."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from melbo.bank.vector_bank import VectorBank
from melbo.cli.common import plain
from melbo.errors import ExportError
from melbo.formats.mixture import mix
from melbo.formats.writers.arrays import export_npy, export_safetensors, export_svec
from melbo.formats.writers.control_gguf import Reader, export_control_gguf
from melbo.formats.writers.llama_gguf import export_llama_gguf
from melbo.formats.writers.new_file import check_free
from melbo.models.load import load_model

Format = Literal["gguf", "repeng", "easysteer", "svec", "npy", "safetensors"]
_GGUF_READERS: dict[str, Reader] = {"gguf": "llama.cpp", "repeng": "repeng", "easysteer": "easysteer"}


def export(
    out: Annotated[Path, typer.Option(help="New file.")],
    bank: Annotated[Path | None, typer.Argument(help="Folder of the bank.")] = None,
    file_format: Annotated[
        Format,
        typer.Option("--format", help='"gguf" is a control vector for llama.cpp; repeng and easysteer read GGUF.'),
    ] = "gguf",
    vector: Annotated[
        list[int] | None,
        typer.Option(help="May be given many times: their sum. npy, safetensors: default all, as rows."),
    ] = None,
    scale: Annotated[list[float] | None, typer.Option(help="Of each --vector, in order. Default: 1.")] = None,
    model: Annotated[str | None, typer.Option(help="Instead of a bank: write this Llama model as GGUF.")] = None,
) -> None:
    """Write vectors, or a model, in a format that other programs read."""
    check_free(out)
    if (bank is None) == (model is None):
        raise ExportError("give either the folder of a bank, or --model to write a model.")
    if model is not None:
        if file_format != "gguf" or vector or scale:
            raise ExportError("a model is written as --format gguf, without --vector and --scale.")
        typer.echo(f"saved to {plain(export_llama_gguf(load_model(model, device='cpu'), out))}")
        return
    assert bank is not None
    typer.echo(_export_bank(VectorBank.load(bank), file_format, vector or [], scale or [], out))


def _export_bank(bank: VectorBank, file_format: Format, indices: list[int], scales: list[float], out: Path) -> str:
    """Write the file; what was written."""
    if not indices and not scales and file_format in ("npy", "safetensors"):
        vectors, what = bank.vectors, f"{len(bank)} vectors"
    else:
        mixture = mix(bank, indices, scales)
        vectors, what = mixture.vector, mixture.name
    if file_format == "npy":
        path = export_npy(vectors, out)
    elif file_format == "safetensors":
        path = export_safetensors(vectors, out, bank.layer, bank.base_model.id)
    elif file_format == "svec":
        path = export_svec(mixture, out)
    else:
        path = export_control_gguf(mixture, out, _GGUF_READERS[file_format], bank.config.method)
    use = f"\n  llama-cli -m MODEL.gguf --control-vector {shlex.quote(str(path))}" if file_format == "gguf" else ""
    return plain(f"{what}, for the output of block {bank.layer}\nsaved to {path}{use}")

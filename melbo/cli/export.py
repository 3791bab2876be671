"""`melbo export` and `melbo import`: vectors to and from other libraries' files; the model itself for llama.cpp."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from melbo.bank.vector_bank import VectorBank, replaceable
from melbo.cli.common import Blocks, Device, Dtype, plain
from melbo.config import DiscoveryConfig, from_published_layers
from melbo.errors import BankError, ConfigError, ExportError
from melbo.formats.import_vectors import import_vectors
from melbo.formats.mixture import mix
from melbo.formats.read_vectors import read_vectors
from melbo.formats.writers.arrays import export_npy, export_safetensors, export_svec
from melbo.formats.writers.control_gguf import Reader, export_control_gguf
from melbo.formats.writers.llama_gguf import export_llama_gguf
from melbo.formats.writers.new_file import check_free
from melbo.models.load import load_model
from melbo.organism.inputs import ORGANISM
from melbo.prompts import BOMB, DEFAULT_SYSTEM, chat

Format = Literal["gguf", "repeng", "easysteer", "svec", "npy", "safetensors"]
_GGUF_READERS: dict[str, Reader] = {"gguf": "llama.cpp", "repeng": "repeng", "easysteer": "easysteer"}
_D = DiscoveryConfig()


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


def import_file(
    file: Annotated[Path, typer.Argument(help="A .gguf, .svec, .npy, .safetensors or .pt file.")],
    out: Annotated[Path, typer.Option(help="Folder for the bank.")],
    model: Annotated[str, typer.Option(help='The model they were made for: Hub id, folder, or "organism".')] = ORGANISM,
    source_layer: Annotated[int | None, typer.Option(help="Steered block. Default: the file's.")] = None,
    target_layer: Annotated[int | None, typer.Option(help="Compared block. Default: 0.75 of the depth.")] = None,
    published_layers: Annotated[
        bool,
        typer.Option("--published-layers", help="The layers are the published code's: 4 and 12 there are 4 and 11."),
    ] = False,
    prompt: Annotated[list[str] | None, typer.Option(help=f"To measure on; many times. Default: {BOMB}")] = None,
    system: Annotated[str, typer.Option(help='System message; "" for none.')] = DEFAULT_SYSTEM,
    power: Annotated[float, typer.Option(help="Exponent p of the objective.")] = _D.power,
    root: Annotated[float, typer.Option(help="Root q of the objective.")] = _D.root,
    target_tokens: Annotated[int, typer.Option(help="Last prompt tokens to compare.")] = _D.target_tokens,
    dtype: Dtype = None,
    device: Device = None,
    blocks: Blocks = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the bank in the folder.")] = False,
) -> None:
    """Make a bank of vectors from another program's file, measured on the model they were made for."""
    if out.exists() and not (replaceable(out) and (force or not any(out.iterdir()))):
        raise BankError(f"{out} is not empty; choose a new folder, or replace a bank in it with --force.")
    if published_layers:
        if source_layer is None or target_layer is None:
            raise ConfigError("--published-layers translates --source-layer and --target-layer; give both.")
        source_layer, target_layer = from_published_layers(source_layer, target_layer)
    foreign = read_vectors(file, source_layer)
    config = DiscoveryConfig(
        optimizer="published", source_layer=foreign.layer, target_layer=target_layer, power=power, root=root,
        target_tokens=target_tokens,
    )  # fmt: skip
    loaded = load_model(model, dtype=dtype, device=device, blocks=blocks)
    messages = [chat(text, system) for text in prompt or [BOMB]]
    bank = import_vectors(loaded, foreign, config, messages, source=file.name)
    bank.save(out)
    typer.echo(_report(bank, out))


def _report(bank: VectorBank, out: Path) -> str:
    """What was imported, and what it does on this model."""
    found = bank.objective
    return plain(
        f"{len(bank)} vectors at the output of block {bank.layer}, R = {bank.radius:.4g} "
        f"({bank.radius / bank.mean_residual_norm:.3g} x the mean residual norm), objective "
        f"{float(found.min()):.4g} to {float(found.max()):.4g}\nsaved to {out}"
    )

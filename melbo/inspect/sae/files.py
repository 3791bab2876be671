"""SAEs on disk and on the Hub, in two layouts, and safetensors only.

SAELens   cfg.json + sae_weights.safetensors: W_enc [d_in, d_sae], W_dec [d_sae, d_in], b_enc, b_dec, and of jumprelu
          threshold; hook names blocks.N.hook_resid_post (output of block N) and hook_resid_pre (output of block N - 1).
sparsify  layers.N/cfg.json + layers.N/sae.safetensors: encoder.weight [d_sae, d_in], encoder.bias, W_dec, b_dec;
          layers.N is the output of block N; always topk.
Config and header are checked before a tensor is read. What these formats allow and this project does not use
(normalised inputs, gated or transcoder architectures, attention and MLP outputs) is named and refused.
Sources: github.com/jbloomAus/SAELens, github.com/EleutherAI/sparsify.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from melbo.errors import HubError, SaeError
from melbo.hub.client import download
from melbo.inspect.sae.dictionary import Sae, SaeSpec
from melbo.models.load import LoadedModel
from melbo.models.shipped import shipped_saes
from melbo.runs.files import parse_json, write_file

CONFIG = "cfg.json"
WEIGHTS = ("sae_weights.safetensors", "sae.safetensors")
"""Of SAELens and of sparsify."""
MAX_CONFIG_BYTES = 2**20
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_FLOATS = ("F16", "BF16", "F32", "F64")
_HOOK = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|post)")
_FOLDER = re.compile(r"layers[._](\d+)")


def load_sae(
    source: str | Path,
    inside: str = "",
    loaded: LoadedModel | None = None,
    layer: int | None = None,
    other_model: bool = False,
) -> Sae:
    """Load an SAE.

    Args:
        source: a folder, a Hub repository "owner/name" (only the SAE's two files are downloaded), or one of
            `melbo.models.shipped.shipped_saes`.
        inside: folder within it, "layers.10" or "blocks.10.hook_resid_post"; a local folder of sparsify's layers needs
            none where `layer` is given.
        loaded: with `layer`, refuse an SAE that does not fit (`SaeSpec.check_fits`) before its weights are read.
        layer: where it is to be used.
        other_model: accept one of another model.

    Raises:
        SaeError: files are missing, damaged, of another kind, or do not fit; it says which.
    """
    folder = _find_folder(source, inside, layer)
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise SaeError(f"{folder} holds no {WEIGHTS[0]} or {WEIGHTS[1]}; only safetensors are read.")
    raw = _read_config(folder / CONFIG)
    sparsify = weights.name == WEIGHTS[1]
    spec = _sparsify_spec(raw, folder) if sparsify else _saelens_spec(raw, folder)
    if loaded is not None and layer is not None:
        spec.check_fits(loaded, layer, other_model)
    return _from_tensors(spec, raw, _read_tensors(weights, _shapes(spec, sparsify)), sparsify)


def _find_folder(source: str | Path, inside: str = "", layer: int | None = None) -> Path:
    """The local folder of one SAE; downloads it if `source` is on the Hub."""
    shipped = {} if os.path.isdir(source) else shipped_saes()
    root = shipped.get(str(source), Path(source))
    if not os.path.isdir(root):
        if _HUB_NAME.fullmatch(str(source)) and not os.path.exists(root):
            return _download(str(source), inside)
        raise SaeError(
            f"there is no SAE at {str(source)!r}; give a folder, a Hub repository owner/name, or "
            f"{' or '.join(map(repr, shipped))}."
        )
    choices = [root / inside] if inside else [root, root / f"layers.{layer}"]
    for folder in choices:
        if (folder / CONFIG).is_file():
            return folder
    near = sorted(path.parent.relative_to(root).as_posix() for path in root.glob(f"*/{CONFIG}"))
    hint = f"it has {', '.join(near[:12])}: name one" if near else "choose a folder that an SAE was saved to"
    raise SaeError(f"{choices[0]} holds no SAE (no {CONFIG}); {hint}.")


def _download(repo: str, inside: str) -> Path:
    """The folder in the cache, with the SAE's config and weights, and sparsify's config.json, which names the model."""
    inside = inside.strip("/")
    if any(mark in inside for mark in "*?["):
        raise SaeError(f"{inside!r} is no folder of an SAE; give its name, such as 'layers.10'.")
    head = f"{inside}/" if inside else ""
    files = [f"{head}{name}" for name in (CONFIG, *WEIGHTS)] + (["config.json"] if inside else [])
    try:
        root, _ = download(repo, files)
    except HubError as error:
        raise SaeError(f"the SAE {repo!r} cannot be downloaded: {error}") from error
    folder = root / inside
    if not (folder / CONFIG).is_file():
        raise SaeError(
            f"{repo} on the Hub holds no SAE in {head or 'its main folder'} (no {CONFIG}); name the folder within the "
            "repository, such as 'layers.10'."
        )
    return folder


def _read_config(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError(f"larger than {MAX_CONFIG_BYTES // 2**20} MiB")
        raw = parse_json(path.read_bytes())
        if not isinstance(raw, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as error:
        raise SaeError(f"{path} is no SAE config ({str(error)[:200]}); download it again.") from error
    return raw


def _refuse(raw: dict[str, Any], folder: Path, allowed: dict[str, tuple[Any, ...]]) -> None:
    for name, values in allowed.items():
        if raw.get(name, values[0]) not in values:
            raise SaeError(
                f"{folder}: {name} is {repr(raw[name])[:60]}, which is not supported; use an SAE with {name} "
                f"{values[0]!r}."
            )


def _saelens_spec(raw: dict[str, Any], folder: Path) -> SaeSpec:
    about = {**raw, **raw["metadata"]} if isinstance(raw.get("metadata"), dict) else raw
    kwargs = raw.get("activation_fn_kwargs")
    kwargs = kwargs if isinstance(kwargs, dict) else {}
    named = raw.get("activation_fn_str", raw.get("activation_fn", "relu"))
    _refuse(raw, folder, {
        "architecture": ("standard", "topk", "jumprelu"),
        "normalize_activations": ("none", None, False),
        "reshape_activations": ("none", None),
        "finetuning_scaling_factor": (False, None),
    })  # fmt: skip
    architecture = raw.get("architecture", "standard")
    if architecture == "standard" and named == "topk":  # SAELens before version 6
        architecture = "topk"
    activation: Any = "relu" if architecture == "standard" else architecture
    if activation == "relu" and named != "relu":
        raise SaeError(f"{folder}: the activation is {repr(named)[:60]}; supported are relu, topk and jumprelu.")
    hook = str(about.get("hook_name", about.get("hook_point", "")))
    match = _HOOK.fullmatch(hook)
    if match is None or (match[2] == "pre" and match[1] == "0"):
        raise SaeError(
            f"{folder}: it was trained at {hook[:60]!r}; only the residual stream after a block is supported "
            "(blocks.N.hook_resid_post, or hook_resid_pre from block 1 on)."
        )
    layer = int(match[1]) - (match[2] == "pre")
    k: Any = raw.get("k", kwargs.get("k", 0)) if activation == "topk" else 0
    return SaeSpec(
        raw.get("d_in", 0), raw.get("d_sae", 0), activation, k, layer, str(about.get("model_name") or ""), str(folder)
    )


def _sparsify_spec(raw: dict[str, Any], folder: Path) -> SaeSpec:
    _refuse(raw, folder, {
        "activation": ("topk",), "transcode": (False,), "skip_connection": (False,), "signed": (False,),
    })  # fmt: skip
    match = _FOLDER.fullmatch(folder.name)
    if match is None:
        raise SaeError(
            f"{folder} is named {folder.name!r}; only sparsify's layers.N (the residual stream after block N) is "
            "supported, and the folder keeps that name."
        )
    d_in, expansion = raw.get("d_in", 0), raw.get("expansion_factor", 0)
    d_sae = raw.get("num_latents") or (d_in * expansion if type(d_in) is int and type(expansion) is int else 0)
    beside = folder.parent / "config.json"
    about = _read_config(beside) if beside.is_file() else {}
    return SaeSpec(d_in, d_sae, "topk", raw.get("k", 0), int(match[1]), str(about.get("model") or ""), str(folder))


def _shapes(spec: SaeSpec, sparsify: bool) -> dict[str, list[int]]:
    shared = {"W_dec": [spec.d_sae, spec.d_in], "b_dec": [spec.d_in]}
    if sparsify:
        return {"encoder.weight": [spec.d_sae, spec.d_in], "encoder.bias": [spec.d_sae], **shared}
    threshold = {"threshold": [spec.d_sae]} if spec.activation == "jumprelu" else {}
    return {"W_enc": [spec.d_in, spec.d_sae], "b_enc": [spec.d_sae], **shared, **threshold}


def _read_tensors(path: Path, shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    try:
        with safe_open(str(path), framework="pt") as file:
            names = set(file.keys())
            for name, shape in shapes.items():
                if name not in names:
                    held = ", ".join(repr(n[:60]) for n in sorted(names)[:8])
                    raise SaeError(f"{path} holds no tensor {name!r}; it has {held}.")
                part = file.get_slice(name)
                if part.get_shape() != shape or part.get_dtype() not in _FLOATS:
                    raise SaeError(
                        f"{path}: {name} is {part.get_dtype()} {part.get_shape()}; {CONFIG} asks for floats {shape}."
                    )
            if "scaling_factor" in names:
                scaling = file.get_tensor("scaling_factor").float()
                if not bool((scaling == 1).all()):
                    raise SaeError(f"{path} holds a scaling_factor other than 1, which is not supported.")
            tensors = {name: file.get_tensor(name).float().contiguous() for name in shapes}
    except (SafetensorError, OSError) as error:
        raise SaeError(f"{path} is damaged or cut short ({error}); download it again.") from error
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise SaeError(f"{path}: {name} holds NaN or infinite values; download it again.")
    return tensors


def _from_tensors(spec: SaeSpec, raw: dict[str, Any], t: dict[str, Tensor], sparsify: bool) -> Sae:
    if sparsify:
        return Sae(spec, t["encoder.weight"], t["encoder.bias"], t["W_dec"], t["b_dec"])
    encoder, bias, decoder = t["W_enc"].T.contiguous(), t["b_enc"], t["W_dec"]
    if raw.get("rescale_acts_by_decoder_norm") is True and spec.activation == "topk":
        norms = decoder.norm(dim=-1).clamp_min(1e-12)  # the same SAE with a decoder of unit norm
        encoder, bias, decoder = encoder * norms[:, None], bias * norms, decoder / norms[:, None]
        if not all(bool(torch.isfinite(tensor).all()) for tensor in (encoder, bias, decoder)):
            raise SaeError(f"{spec.source}: its decoder's norms are too large to rescale by; download it again.")
    center = raw.get("apply_b_dec_to_input", True) is not False
    return Sae(spec, encoder, bias, decoder, t["b_dec"], center, t.get("threshold"))


def save_sae(sae: Sae, folder: str | Path, dtype: torch.dtype = torch.float16) -> Path:
    """Write an SAE in SAELens's layout. Each file is written to a temporary name and renamed, the weights first."""
    folder, spec = Path(folder), sae.spec
    tensors = {
        "W_enc": sae.encoder.T, "b_enc": sae.encoder_bias, "W_dec": sae.decoder, "b_dec": sae.decoder_bias,
        **({} if sae.threshold is None else {"threshold": sae.threshold}),
    }  # fmt: skip
    config: dict[str, Any] = {
        "architecture": "standard" if spec.activation == "relu" else spec.activation,
        "d_in": spec.d_in,
        "d_sae": spec.d_sae,
        "dtype": "float32",
        "apply_b_dec_to_input": sae.center,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "model_name": spec.model_name,
            "hook_name": f"blocks.{spec.layer}.hook_resid_post",
            "sae_lens_version": "6.0.0",  # of the layout: without it, SAELens reads the file as its older one
        },
    }
    if spec.activation == "topk":
        config["k"] = spec.k
    text = json.dumps(config, indent=2, allow_nan=False) + "\n"
    weights = save({name: t.detach().to("cpu", dtype).contiguous() for name, t in tensors.items()})
    write_file(folder / WEIGHTS[0], weights)
    write_file(folder / CONFIG, text)
    return folder

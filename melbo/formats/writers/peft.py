"""PEFT: one rank-1 adapter as a LoRA folder for `peft.PeftModel.from_pretrained`. Writing it does not need peft.

adapter_config.json        rank 1, lora_alpha 1 (so that PEFT's own factor is 1), the adapted modules by full name
adapter_model.safetensors  per module lora_A [1, in_features] = a and lora_B [d_model, 1] = scale * b
"""

from pathlib import Path

from safetensors.torch import save_file

from melbo.bank.adapter_bank import AdapterBank
from melbo.runs.files import json_text, write_folder


def export_peft(bank: AdapterBank, index: int, folder: str | Path, scale: float = 1.0) -> Path:
    """Write scale * adapter `index` to a new or empty folder.

    Raises:
        BankError: there is no such adapter, or the folder holds files.
        ConfigError: the scale is not finite.
    """
    a, b = bank.factors(index, scale)
    revision = bank.base_model.revision
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": bank.base_model.id,
        "revision": None if revision is None or revision.startswith("sha256:") else revision,
        "inference_mode": True,
        "r": 1,
        "lora_alpha": 1,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": bank.fan_in_fan_out,
        "target_modules": list(bank.modules),
    }
    tensors = {}
    for layer, name in enumerate(bank.modules):
        tensors[f"base_model.model.{name}.lora_A.weight"] = a[layer, None].contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b[layer, :, None].contiguous()

    def write(path: Path) -> None:
        (path / "adapter_config.json").write_text(json_text(config), encoding="utf-8")
        save_file(tensors, str(path / "adapter_model.safetensors"), metadata={"format": "pt"})

    return write_folder(folder, write)

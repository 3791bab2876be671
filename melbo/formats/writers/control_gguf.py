"""GGUF control vector: what llama.cpp's --control-vector, repeng and EasySteer read.

The file holds general.architecture "controlvector", controlvector.model_hint, controlvector.layer_count, and the 1-D
F32 tensor direction.N, which all three add to the output of block N (0-based). So N is our source layer. llama.cpp has
no place for block 0 and refuses such a file (common_control_vector_load in its common/common.cpp); repeng and EasySteer
take it. EasySteer also shows controlvector.method: how the vector was found.
https://github.com/ggml-org/llama.cpp  https://github.com/vgel/repeng  https://github.com/ZJU-REAL/EasySteer
"""

from pathlib import Path
from typing import Any, Literal

from melbo.errors import ExportError
from melbo.formats.mixture import Mixture
from melbo.formats.writers.new_file import write_new
from melbo.runs.optional import needs

Reader = Literal["llama.cpp", "repeng", "easysteer"]
ARCHITECTURE = "controlvector"


def export_control_gguf(
    mixture: Mixture, path: str | Path, reader: Reader = "llama.cpp", method: str = "melbo"
) -> Path:
    """Write a control vector; scale 1 in the reader gives the mixture itself.

    Args:
        reader: who will read it: "llama.cpp" refuses block 0, "easysteer" gets `method`.
        method: how the vectors were found, such as `bank.config.method`.

    Raises:
        ExportError: the reader cannot use this vector, or `path` exists. MissingPackageError: gguf is not installed.
    """
    if reader == "llama.cpp" and mixture.layer == 0:
        raise ExportError(
            "llama.cpp cannot steer the output of block 0, where these vectors belong, and refuses such a file; "
            "train with source layer 1 or later, or export for repeng or easysteer."
        )
    with needs("formats"):
        import gguf

    def write(file: Path) -> None:
        writer = gguf.GGUFWriter(str(file), ARCHITECTURE)
        writer.add_name(mixture.name)
        writer.add_string(f"{ARCHITECTURE}.model_hint", mixture.model)
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", 1)
        if reader == "easysteer":
            writer.add_string(f"{ARCHITECTURE}.method", method)
        writer.add_tensor(f"direction.{mixture.layer}", mixture.vector.contiguous().numpy())
        finish(writer)

    return write_new(path, write)


def finish(writer: Any) -> None:
    """Write the file of a GGUFWriter and close it."""
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()

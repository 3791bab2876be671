"""Files of a megabyte or more that cost a careless reader far more memory or time than their size."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable


def many_tensors() -> bytes:
    """2,000 small tensors in a file of 8 MiB: copying its rest for each takes seconds."""
    described = b"".join(gguf_text(f"direction.{i}".encode()) + struct.pack("<IQIQ", 1, 2, 0, 0) for i in range(2000))
    head = b"GGUF" + struct.pack("<IQQ", 3, 2000, 1)
    kind = gguf_text(b"general.architecture") + struct.pack("<I", 8) + gguf_text(b"controlvector")
    return head + kind + described + bytes(2**23)


def gguf_text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def many_entries() -> bytes:
    """A zip with 30,000 entries, which `zipfile` lists before anything can be asked of it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(30_000):
            archive.writestr(str(number), b"")
    return out.getvalue()


def dense(part: str, size: int = 1_500_000) -> bytes:
    """A list of many small values: Python takes up to 24 times the room of their text."""
    return f"[{part}{f',{part}' * (size // (len(part) + 1))}]".encode()


HUGE: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    **{f"{target} of {part}": (target, name, lambda part=part: dense(part))  # type: ignore[misc]
       for target, name in (("bank", "annotations.json"), ("bank", "config.json"), ("sweep", "sweep.json"),
                            ("activating", "r.json"), ("atlas", "a.json"), ("contrasts", "c.json"))
       for part in ("{}", '{"a":1}', "[]", '"ab"', "257")},
    "objects by name": ("bank", "config.json", lambda: b"{" + b",".join(b'"%d":0' % i for i in range(150_000)) + b"}"),
    "svec of numbers": ("svec", "v.svec", lambda: b'{"directions": {"1": ' + dense("1") + b"}}"),
    "gguf of tensors": ("gguf", "v.gguf", many_tensors),
    "zip of entries": ("pt", "v.pt", many_entries),
    "npy with a huge shape": ("npy", "v.npy", lambda: b"\x93NUMPY\x01\x00\x50\x00" +
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999, 99999), }".ljust(80)),
}  # fmt: skip

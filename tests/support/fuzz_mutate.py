"""Mutations of files: of bytes, of JSON, of safetensors and zip containers, and of folders. All drawn from one random
generator, so that a case's number gives the same file again.
"""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

NUMBERS = (0, 1, 2, 7, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
TEXTS = (
    "", "x", "../../outside/secret", "/etc/passwd", "~", "a\0b", "<script>alert(1)</script>", "| a |\n|---|",
    "\ud800", "\u202e", "é中😀", "{{ 1 }}", "%s" * 20, "x" * 20_000, "nan", "1e999", "__class__",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 4, 1.5, -0.0, 1e-320, 1e308, 2**31, 2**63, 2**64, 10**400, float("nan"),
    float("inf"), [], {}, [[]], [{}], [1, 2, 3], {"a": 1}, *TEXTS,
)  # fmt: skip
FLOATS = (float("nan"), float("inf"), float("-inf"), 1e38, -1e38, 1e-45, 0.0)
DTYPES = ("F64", "F16", "BF16", "I64", "I32", "I8", "U8", "BOOL", "F8_E4M3", "F4", "C64", "x")
MAX_BYTES = 200_000
"""Of a mutated file: 10,000 of them are to be read in a minute."""
Mutation = Callable[[random.Random, bytes], bytes]


def flip_bits(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_early(rng: random.Random, data: bytes) -> bytes:
    """Headers come first."""
    head = min(len(data), 256)
    return flip_bits(rng, data[:head]) + data[head:]


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def append(rng: random.Random, data: bytes) -> bytes:
    return data + rng.choice((b"\0", b" ", b"\n", rng.randbytes(rng.randrange(1, 300)), data))


def insert(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice((1, 4, 8, 100))) + data[at:]


def take_out(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.choice((1, 4, 8, 100)) :]


def repeat(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at : at + rng.randrange(1, 200)] * rng.randrange(2, 50) + data[at:]


def declare(rng: random.Random, data: bytes) -> bytes:
    """A number of 4 or 8 bytes somewhere, more often in front: a size, a count or an offset."""
    form = rng.choice(("<I", "<Q"))
    size = struct.calcsize(form)
    at = rng.randrange(max(1, min(len(data), rng.choice((16, 64, 512, len(data) or 1)))))
    return data[:at] + struct.pack(form, rng.choice(NUMBERS) % 2 ** (8 * size)) + data[at + size :]


def floats(rng: random.Random, data: bytes) -> bytes:
    """NaN and other numbers in the tensor data, which comes last."""
    at = max(0, len(data) - 4 * rng.randrange(1, 40))
    return data[:at] + struct.pack("<f", rng.choice(FLOATS)) + data[at + 4 :]


BYTES: tuple[Mutation, ...] = (flip_bits, flip_early, cut, append, insert, take_out, repeat, declare, floats)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    found: list[tuple[Any, Any]] = []
    stack = [value]
    while stack:
        item = stack.pop()
        keys = list(item) if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ()
        for key in keys:
            found.append((item, key))
            stack.append(item[key])
    return found


def json_value(rng: random.Random, data: bytes) -> bytes:
    """One to three values, keys or entries are replaced, dropped, added or moved."""
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        value = _change(rng, value)
    return json.dumps(value).encode()


def _change(rng: random.Random, value: Any) -> Any:
    found = places(value)
    if not found or rng.random() < 0.02:
        return copy.deepcopy(rng.choice(VALUES))
    holder, key = rng.choice(found)
    kind = rng.randrange(7)
    if kind <= 2:
        holder[key] = copy.deepcopy(rng.choice(VALUES))
    elif kind == 3:
        del holder[key]
    elif kind == 4 and isinstance(holder, dict):
        holder[rng.choice((*TEXTS, "id", "format_version", "__class__"))] = copy.deepcopy(rng.choice(VALUES))
    elif kind == 5:
        other, name = rng.choice(found)
        if name in other if isinstance(other, dict) else name < len(other):
            holder[key] = copy.deepcopy(other[name])
    else:
        holder[key] = rng.choice(([holder[key]], {"a": holder[key]}, str(holder[key]), [holder[key]] * 30))
    return value


def json_newer(rng: random.Random, data: bytes) -> bytes:
    """Another version or format."""
    value = json.loads(data)
    if isinstance(value, dict):
        named = [k for k in value if "format" in k or "version" in k] or ["format_version"]
        value[rng.choice(named)] = rng.choice((2, 99, 2**70, "2", "melbo-9", 1.0, True, [1]))
    return json.dumps(value).encode()


def json_twice(rng: random.Random, data: bytes) -> bytes:
    """A key that comes twice, with the same or another value."""
    text = data.decode()
    at = text.find("{", rng.randrange(max(1, len(text) // 2)))
    key = rng.choice([str(k) for _, k in places(json.loads(data)) if isinstance(k, str)] or ["a"])
    return (text[: at + 1] + f"{json.dumps(key)}: {json.dumps(rng.choice(VALUES))}, " + text[at + 1 :]).encode()


def json_deep(rng: random.Random, data: bytes) -> bytes:
    """A value nested far too deep, of lists or objects."""
    value = json.loads(data)
    depth = rng.choice((20, 80, 200, 500, 900, 5_000, 40_000))
    start, end = rng.choice((("[", "]"), ('{"a":', "}")))
    deep = start * depth + "1" + end * depth
    found = places(value)
    if not found:
        return deep.encode()
    holder, key = rng.choice(found)
    holder[key] = "@deep@"
    return json.dumps(value).replace('"@deep@"', deep, 1).encode()


JSON: tuple[Mutation, ...] = (json_value, json_value, json_value, json_value, json_newer, json_twice, json_deep)


def tensor_header(rng: random.Random, data: bytes) -> bytes:
    """Safetensors whose JSON header lies: other types, shapes, offsets, names, or keys twice."""
    size = struct.unpack("<Q", data[:8])[0]
    header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    name = rng.choice([k for k in header if k != "__metadata__"])
    kind = rng.randrange(7)
    if kind == 0:
        header[name]["dtype"] = rng.choice(DTYPES)
    elif kind == 1:
        header[name]["shape"] = [rng.choice(NUMBERS) for _ in range(rng.randrange(4))]
    elif kind == 2:
        header[name]["shape"] = rng.choice((header[name]["shape"][::-1], [*header[name]["shape"], 1]))
    elif kind == 3:
        header[name]["data_offsets"] = [rng.choice(NUMBERS), rng.choice(NUMBERS)]
    elif kind == 4:
        header[rng.choice((*TEXTS[:8], "vectors", "extra"))] = header.pop(name)
    elif kind == 5:
        header["__metadata__"] = rng.choice(({"melbo": "[" * 3000}, {"melbo": '{"source_layer": 1e999}'}, {"a": 1}))
    text = json.dumps(header).encode()
    if kind == 6:
        return struct.pack("<Q", size) + json_value(rng, text) + rest
    return struct.pack("<Q", len(text)) + text + rest


def zip_parts(rng: random.Random, data: bytes) -> bytes:
    """A .pt file with other bytes, names, sizes or compression within the zip."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice([n for n in parts if n.endswith("data.pkl")] * 3 + list(parts))
    kind = rng.randrange(5)
    if kind <= 2:
        parts[name] = rng.choice(BYTES)(rng, parts[name])
    elif kind == 3:
        parts[rng.choice(("../../outside/secret", "/tmp/x", "v/data.pkl", name + "x"))] = parts.pop(name)
    method = zipfile.ZIP_DEFLATED if kind == 4 else zipfile.ZIP_STORED
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    return out.getvalue()


def link(rng: random.Random, path: Path, outside: Path) -> str:
    """Put something that is no plain file in the file's place; what was done, in words."""
    kind = rng.choice(("itself", "folder", "missing", "device", "outside", "directory"))
    targets = {
        "itself": path, "folder": path.parent, "missing": outside / "none", "device": Path("/dev/zero"),
        "outside": outside / "secret",
    }  # fmt: skip
    path.unlink()
    if kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(targets[kind])
    return f"link to {kind}"


def mutations_of(name: str) -> tuple[Mutation, ...]:
    """What can be done to a file of this name."""
    ending = name.rsplit(".", 1)[-1]
    more: dict[str, tuple[Mutation, ...]] = {
        "json": JSON * 2, "svec": JSON, "safetensors": (tensor_header,) * 6, "pt": (zip_parts,) * 9,
    }  # fmt: skip
    return BYTES + more.get(ending, ())

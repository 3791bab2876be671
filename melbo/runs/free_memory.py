"""How much memory is free."""

from pathlib import Path

import torch

CGROUP = Path("/sys/fs/cgroup")
"""Limits of this container (cgroup v2), where it has any: the machine's own memory may be far larger."""


def free_bytes(device: torch.device | None = None, cgroup: Path = CGROUP) -> int:
    """Bytes that could still be taken on a device; what torch has cached counts as free. None: the GPU, or else RAM."""
    if device is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    import psutil  # type: ignore[import-untyped]  # accelerate brings it

    return min(int(psutil.virtual_memory().available), _container_bytes(cgroup))


def _container_bytes(folder: Path) -> int:
    """What the container may still take, its file cache counted as free; a very large number where it has no limit."""
    try:
        most, used = (int((folder / name).read_text()) for name in ("memory.max", "memory.current"))
        lines = (folder / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):  # no container, or "max"
        return 2**62
    cache = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
    return max(0, most - used + cache)


def gigabytes(count: int) -> str:
    """ "2.5 GB", or "25 MB" where it is little."""
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{max(1, round(count / 2**20))} MB"

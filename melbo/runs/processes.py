"""Rows shared out between the processes of `accelerate launch --num_processes N -m melbo ...`.

Every process holds all vectors and takes the same steps; only the evaluation of rows is divided, and the results are
added up. Without `accelerate launch` there is one process and nothing happens.
"""

import os

import torch
from torch import Tensor

from melbo.errors import ConfigError


def start_processes() -> None:
    """Join the other processes, where there are any (gloo on CPU, NCCL on GPUs); may be called again.

    Raises:
        ConfigError: the environment says that there are several processes, but not which one this is.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
        missing = [n for n in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if n not in os.environ]
        if missing:
            raise ConfigError(
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} is not set; start with "
                "`accelerate launch --num_processes N -m melbo ...`, or unset WORLD_SIZE."
            )
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")


def process_rank() -> int:
    """Number of this process; 0 where there is one."""
    return torch.distributed.get_rank() if _many() else 0


def my_rows(n: int) -> tuple[int, int]:
    """First and past-the-last row of n that this process evaluates."""
    if not _many():
        return 0, n
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return rank * n // size, (rank + 1) * n // size


def sum_over_processes(*tensors: Tensor) -> None:
    """Add up, in place, what the processes computed; rows of others are zero in each."""
    if _many():
        for tensor in tensors:
            torch.distributed.all_reduce(tensor)


def from_all(number: int) -> list[int]:
    """What each process gives, in order of rank; returns once every process has come here."""
    if not _many():
        return [number]
    found = [torch.zeros(1, dtype=torch.int64) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(found, torch.tensor([number]))
    return [int(n) for n in found]


def _many() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()

"""Where `melbo train` and `melbo more-like` save a bank, and what they say of it."""

import os
import shlex
from pathlib import Path

from melbo.bank.save import replaceable
from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError


def check_out(out: Path, force: bool) -> None:
    """Find out before training whether a bank can be saved to `out`.

    Raises:
        BankError: `out` is a file, cannot be written, holds a bank (without `force`), or holds other files.
    """
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise BankError(f"{out} cannot be written: {parent} is not a folder that you may write to; choose another.")
    if not out.exists():
        return
    if not out.is_dir():
        raise BankError(f"{out} is a file; choose a new folder.")
    if not replaceable(out):
        raise BankError(f"{out} holds other files and is not a bank; choose a new folder.")
    if any(out.iterdir()) and not force:
        raise BankError(f"{out} already holds a bank; choose a new folder, or add --force to replace it.")


def report(bank: VectorBank, out: Path) -> str:
    """Where the bank is and what to do with it."""
    objective = bank.objective
    return (
        f"{len(bank)} vectors of norm R = {bank.radius:.4g} ({bank.radius / bank.mean_residual_norm:.3g} x the mean "
        f"residual norm), objective {float(objective.min()):.4g} to {float(objective.max()):.4g}\n"
        f"saved to {out}\n"
        f"  melbo show {shlex.quote(str(out))}\n"
        f"  melbo generate --bank {shlex.quote(str(out))} --vector 0 --scale 1"
    )

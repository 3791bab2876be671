"""Runs fuzz cases in a child process that may not write, open, connect or start anything it should not.

A case fails where the loader raises anything but a MelboError, takes over a second of processor time, allocates over
ten times the file, touches what lies outside its folder, or crashes: the parent names the case by its number.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import resource
import signal
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SECONDS = 1.0
"""Of processor time, for one case."""
TIMES = 10
"""Bytes of memory for each of the files'."""
SLACK = 2**21
"""Bytes that even a tiny file may cost: Python's JSON parser goes a thousand levels deep before it gives up."""
NATIVE_SLACK = 2**25
"""Bytes that libraries may map beside it."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = (
    "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod", "os.chown",
    "shutil.rmtree", "shutil.move", "shutil.copyfile",
)  # fmt: skip
_NEVER = (
    "subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "socket.connect", "socket.getaddrinfo",
    "pickle.find_class", "ctypes.dlopen", "webbrowser.open",
)  # fmt: skip


class Watch:
    """An audit hook, which Python never removes again: only for a child process."""

    def __init__(self, libraries: tuple[str, ...]) -> None:
        self.libraries = libraries
        self.readable: Path | None = None
        self.writable: Path | None = None
        self.active = False
        self.found: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event == "open":
            self._opened(*arguments)
        elif event in _CHANGES:
            self._may(event, arguments[0], self.writable)
        elif event in _NEVER:
            self.found.append(f"{event}{arguments[:1]}")

    def _opened(self, path: Any, mode: Any, flags: Any) -> None:
        if isinstance(path, int):
            return
        writes = bool(set(mode or "") & set("wax+")) if isinstance(mode, str) else bool((flags or 0) & _WRITES)
        self._may("open to write" if writes else "open", path, self.writable if writes else self.readable)

    def _may(self, event: str, path: Any, root: Path | None) -> None:
        place = os.path.abspath(os.fsdecode(path)) if isinstance(path, (str, bytes, os.PathLike)) else ""
        roots = [str(root)] if root else []
        roots += [str(self.writable)] if self.writable else []
        roots += self.libraries if event == "open" else ()
        if not any(place == r or place.startswith(r + os.sep) for r in roots):
            self.found.append(f"{event} {place}")

    @contextmanager
    def on(self, readable: Path, writable: Path | None) -> Iterator[None]:
        """Only these folders may be opened; the violations are in `found` afterwards."""
        self.readable, self.writable, self.active, self.found = readable, writable, True, []
        try:
            yield
        finally:
            self.active = False


def mapped() -> int:
    """Bytes of this process's address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


@contextmanager
def limited(size: int) -> Iterator[None]:
    """No more than TIMES the size may be allocated by any library, nor SECONDS of processor time be used."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if Path("/proc/self/statm").exists():
        resource.setrlimit(resource.RLIMIT_AS, (mapped() + TIMES * size + NATIVE_SLACK, hard))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def in_child(work: Callable[[Watch, Callable[[str], None], Callable[[str], None]], None], log: Path) -> list[str]:
    """Run `work(watch, begin, fail)` in a child process; what failed.

    `begin(case)` names the case that runs; `fail(text)` records a failure. A child that dies is a failure of its case.
    """
    case, failures = log.with_suffix(".case"), log.with_suffix(".failures")
    case.write_text("before the first case")
    failures.write_text("")
    sys.stdout.flush()
    gc.collect()
    gc.freeze()
    child = os.fork()
    if child == 0:
        _child(work, case, failures)
    _, status = os.waitpid(child, 0)
    gc.unfreeze()
    found = [text for text in failures.read_text(errors="replace").split("\0") if text]
    if status:
        how = "took more than a second of processor time"
        died = -os.waitstatus_to_exitcode(status)
        if died != signal.SIGPROF:
            how = f"ended the process with {signal.Signals(died).name if died > 0 else status}"
        found.append(f"{case.read_text()}: it {how}")
    return found


def _child(work: Callable[..., None], case: Path, failures: Path) -> None:
    """Never returns."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    faulthandler.disable()
    file = os.open(case, os.O_WRONLY)
    out = os.open(failures, os.O_WRONLY | os.O_APPEND)
    paths = sysconfig.get_paths()
    libraries = tuple({paths["stdlib"], paths["purelib"], paths["platlib"], sys.base_prefix, sys.prefix})
    source = str(Path(__file__).resolve().parents[2] / "melbo")

    def begin(name: str) -> None:
        os.pwrite(file, name.ljust(400).encode("utf-8", "replace"), 0)

    def fail(text: str) -> None:
        os.write(out, f"{text}\0".encode("utf-8", "replace"))

    try:
        work(Watch((*libraries, source, "/proc")), begin, fail)
    except BaseException:
        fail(traceback.format_exc())
    os._exit(0)

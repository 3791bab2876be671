"""What the app keeps for a while: values in memory, and folders on disk, by key. What was used longest ago leaves."""

import math
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any, Generic, TypeVar

import cachetools

K = TypeVar("K")
V = TypeVar("V")


class _Values(cachetools.TLRUCache[K, V]):
    """Tells of each value that leaves, whether for want of room or of use."""

    def __init__(self, leave: Callable[[V], object], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._leave = leave

    def expire(self, time: Any = None) -> Any:
        gone = list(super().expire(time))
        for _, value in gone:
            self._leave(value)
        return gone

    def popitem(self) -> tuple[K, V]:
        key, value = super().popitem()
        self._leave(value)
        return key, value


class Cache(Generic[K, V]):
    """Values by key, safe between threads. Whoever holds a value may go on using it after it has left.

    Args:
        most: number of values.
        most_bytes: of all together; `put` raises ValueError for a value that is larger alone.
        size: bytes of a value.
        seconds: without use, after which a value leaves when the next one comes.
        leave: called with each value that leaves.
        timer: gives seconds.
    """

    def __init__(
        self,
        most: float = math.inf,
        most_bytes: float = math.inf,
        size: Callable[[V], float] = lambda _: 0,
        seconds: float = math.inf,
        leave: Callable[[V], object] = lambda _: None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._values: _Values[K, V] = _Values(leave, most_bytes, lambda _key, _value, now: now + seconds, timer, size)
        self._kept: dict[K, V] = {}
        self._lock = RLock()

    def __len__(self) -> int:
        """Values that may leave."""
        return len(self._values)

    @property
    def bytes(self) -> float:
        """Size of the values that may leave."""
        return self._values.currsize

    def keep(self, key: K, value: V) -> None:
        """Hold a value that never leaves and takes none of the room."""
        self._kept[key] = value

    def kept(self) -> list[V]:
        """The values that never leave, as they came."""
        return list(self._kept.values())

    def values(self) -> list[V]:
        """All values, those that never leave first. Nothing counts as used."""
        if not self._values:  # no lock: a process that ZeroGPU forks must not inherit it while it is held
            return self.kept()
        with self._lock:
            return [*self.kept(), *(cachetools.Cache.__getitem__(self._values, key) for key in self._values)]

    def get(self, key: K) -> V | None:
        """The value, which is now the one used last; None where there is none."""
        if key in self._kept:
            return self._kept[key]
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values[key] = value  # its time starts anew
            return value

    def put(self, key: K, value: V) -> None:
        """Hold a value, and let others go where there are too many.

        Raises:
            ValueError: it alone is larger than all may be.
        """
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._most:
                self._values.popitem()

    def pop_oldest(self) -> V:
        """Let the value go that was used longest ago.

        Raises:
            KeyError: there is none that may leave.
        """
        with self._lock:
            return self._values.popitem()[1]


class FolderCache:
    """Folders by name, within one temporary folder that goes with this process; those out of use are deleted.

    Args:
        seconds: without use, after which a folder is deleted when the next one is asked for.
        timer: gives seconds.
    """

    def __init__(self, seconds: float, timer: Callable[[], float] = time.monotonic) -> None:
        self._root = tempfile.TemporaryDirectory(prefix="melbo-")
        delete = partial(shutil.rmtree, ignore_errors=True)
        self._folders: Cache[str, Path] = Cache(seconds=seconds, leave=delete, timer=timer)

    def folder(self, name: str) -> Path:
        """The folder of this name, made where it is not there."""
        path = Path(self._root.name) / name
        self._folders.put(name, path)
        path.mkdir(exist_ok=True)
        return path

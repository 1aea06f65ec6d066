"""A cache bounded by bytes that forgets what was used longest ago; threads may share it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteLRU(Generic[K, V]):
    """Values that are dear to compute, up to `max_bytes` of them.

    Args:
        max_bytes: total size kept; a value larger than this is never kept.
        size_of: bytes of a value.
    """

    def __init__(self, max_bytes: int, size_of: Callable[[V], int]) -> None:
        self.max_bytes = max_bytes
        self._size_of = size_of
        self._values: OrderedDict[K, V] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self.hits = self.misses = 0

    def __repr__(self) -> str:
        return f"ByteLRU({len(self._values)} values, {self._bytes} of {self.max_bytes} bytes)"

    def __len__(self) -> int:
        return len(self._values)

    @property
    def bytes(self) -> int:
        """Bytes held now."""
        return self._bytes

    def get_or_make(self, key: K, make: Callable[[], V]) -> V:
        """The kept value, or a new one; two threads may make the same one at once."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                self.hits += 1
                return self._values[key]
            self.misses += 1
        value = make()
        self._keep(key, value)
        return value

    def forget(self, key: K) -> bool:
        """Drop one value; whether it was there."""
        with self._lock:
            return self._drop(key)

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._values.clear()
            self._bytes = 0

    def _keep(self, key: K, value: V) -> None:
        size = self._size_of(value)
        with self._lock:
            self._drop(key)
            if size > self.max_bytes:
                return
            self._values[key] = value
            self._bytes += size
            while self._bytes > self.max_bytes:
                self._drop(next(iter(self._values)))

    def _drop(self, key: K) -> bool:
        if key not in self._values:
            return False
        self._bytes -= self._size_of(self._values.pop(key))
        return True

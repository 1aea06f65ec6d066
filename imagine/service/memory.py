"""Keeps the memory of a service that runs for months as small on the last day as on the first.

The C library of Linux gives threads heaps of their own, eight for each core, and a heap never gives
back what lies below its last piece in use. With the many threads of a server that is memory which
grows for hours and holds nothing: two heaps are enough, since Python runs one thread at a time.
"""

from __future__ import annotations

import ctypes
import os

HEAPS = 2
_M_ARENA_MAX = -8  # malloc.h of glibc


def bound_heaps() -> bool:
    """Let threads share two heaps from now on; whether this machine's C library can do that.

    What the environment says (MALLOC_ARENA_MAX) is left as it is.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return False
    choose = getattr(ctypes.CDLL(None), "mallopt", None)
    return choose is not None and choose(_M_ARENA_MAX, HEAPS) == 1

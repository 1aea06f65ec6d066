"""Reads the recipe out of a picture's bytes without leaving a file behind."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagine.core import Recipe
from imagine.errors import InvalidInput
from imagine.provenance import read_recipe


def find_recipe(data: bytes, name: str) -> Recipe | None:
    """The recipe inside a picture; None when there is none, or a damaged one."""
    with _as_file(data, Path(name).suffix) as path:
        try:
            return read_recipe(path)
        except InvalidInput:
            return None


@contextmanager
def _as_file(data: bytes, suffix: str) -> Iterator[Path]:
    """A path to the bytes: in memory where the system can, else a file deleted at once."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("picture")
        try:
            with os.fdopen(os.dup(handle), "wb") as file:
                file.write(data)
            yield Path(f"/proc/self/fd/{handle}")
        finally:
            os.close(handle)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"picture{suffix[:8]}"
        path.write_bytes(data)
        yield path

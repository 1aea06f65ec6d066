"""Reads the recipe out of a picture's bytes."""

from __future__ import annotations

from pathlib import Path

from imagine.core import Recipe
from imagine.errors import InvalidInput
from imagine.provenance import read_recipe

# No folder of keys is called so: what is sealed stays shut.
_NO_KEYS = Path("/nonexistent/keys")


def find_recipe(data: bytes, marks: Path | None = None) -> Recipe | None:
    """The recipe inside a picture; None when there is none, a damaged or a sealed one.

    Args:
        data: the file.
        marks: keys that open sealed recipes; only for a page that nobody else can reach. None
            reads what anybody could.
    """
    try:
        return read_recipe(data, marks or _NO_KEYS)
    except InvalidInput:
        return None

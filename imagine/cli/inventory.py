"""What can be used on this machine, found out by opening it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from imagine.errors import ImagineError
from imagine.settings import Settings


@dataclass(frozen=True, slots=True)
class Item:
    """One backend, detector or recogniser.

    Attributes:
        kind: "backend", "face detector" or "face encoder".
        name: the registry name.
        usable: whether it could be opened.
        detail: facts when usable, else what is missing and the command that mends it.
        licence: of the weights; empty when it could not be opened.
        revision: of the weights; empty when it has none or could not be opened.
    """

    kind: str
    name: str
    usable: bool
    detail: str
    licence: str = ""
    revision: str = ""


def inventory(settings: Settings, device: str = "cpu") -> list[Item]:
    """Open everything the registries know, one after the other."""
    from imagine.backends import BACKENDS
    from imagine.identity import FACE_DETECTORS, FACE_ENCODERS

    items = [_backend(BACKENDS.get, name, device) for name in BACKENDS.names()]
    for registry in (FACE_DETECTORS, FACE_ENCODERS):
        items += [_face(registry, name, settings) for name in registry.names()]
    return items


def _backend(get: Any, name: str, device: str) -> Item:
    try:
        info = get(name).load(None, device).info
    except (ImagineError, ImportError) as error:
        return Item("backend", name, False, str(error))
    detail = f"{info.sizes_in_words()}, {info.default_steps} steps, on {info.device}"
    return Item("backend", name, True, detail, info.licence, info.model_revision)


def _face(registry: Any, name: str, settings: Settings) -> Item:
    try:
        loaded = registry.get(name).load(settings)
    except (ImagineError, ImportError) as error:
        return Item(registry.kind, name, False, str(error))
    return Item(registry.kind, name, True, "ready", loaded.licence)

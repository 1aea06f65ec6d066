"""Image models behind one contract; a new one is a file here and a line below."""

from imagine.backends.base import Backend, BackendInfo, RowState
from imagine.registry import Registry

BACKENDS = Registry[Backend]("backend")
BACKENDS.add("embedded", "imagine.backends.embedded:EmbeddedBackend")
BACKENDS.add("fake", "imagine.backends.fake:FakeBackend")

__all__ = ["BACKENDS", "Backend", "BackendInfo", "RowState"]

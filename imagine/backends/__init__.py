"""Image models behind one contract; a new one is a file here and a line below."""

from imagine.backends.base import Backend, BackendInfo, RowState
from imagine.registry import Registry

BACKENDS = Registry[Backend]("backend")
BACKENDS.add("embedded", "imagine.backends.embedded:EmbeddedBackend")
BACKENDS.add("sd15_faceid", "imagine.backends.sd15_faceid:Sd15FaceIdBackend")
BACKENDS.add("sdxl_faceid", "imagine.backends.sdxl_faceid:SdxlFaceIdBackend")
BACKENDS.add("fake", "imagine.backends.fake:FakeBackend")
BACKENDS.add("flux2_klein", "imagine.backends.flux2_klein:Flux2KleinBackend")

__all__ = ["BACKENDS", "Backend", "BackendInfo", "RowState"]

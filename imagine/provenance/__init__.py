"""How a picture says where it came from."""

from imagine.provenance.mark import MarkedImage, mark_image, read_recipe, refuse_unwritable

__all__ = ["MarkedImage", "mark_image", "read_recipe", "refuse_unwritable"]

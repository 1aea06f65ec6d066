"""Mouths in the colours of mouths.

Teeth are grey beside warm skin, and guidance, which takes such differences further, makes them
blue. Lips, teeth and skin are never greener than red, nor bluer than green, but for the tint of the
light on the whole face; what is becomes a grey that is as light.
"""

from __future__ import annotations

import torch
from torch import Tensor

from imagine.models.face_recogniser import aligned, soft_ellipse
from imagine.models.face_refiner import luma, pasted

SIZE = 96  # side of the upright faces that are looked at, pixels
# Centre and radii, in fractions of the side: the mouth, and the face that shows the light's tint.
MOUTH = ((0.5, 0.8), (0.27, 0.19))
FACE = ((0.5, 0.6), (0.3, 0.3))


def with_natural_mouths(pictures: Tensor, thetas: Tensor) -> Tensor:
    """Pictures whose mouths are no greener than red and no bluer than green.

    Args:
        pictures: (batch, 3, h, w) float in [-1, 1].
        thetas: (batch, 2, 3) where the faces are, of `FaceLocator`.

    Returns:
        Shape of `pictures`; nothing changes outside mouths.
    """
    faces = aligned(pictures, thetas, SIZE)
    red, green, blue = faces.unbind(1)
    face = soft_ellipse(SIZE, *FACE, 1.2, 0.2).to(faces.device)
    calm_green = torch.minimum(green, red + _tint(green - red, face))
    calm_blue = torch.minimum(blue, calm_green + _tint(blue - green, face))
    calm = torch.stack([red, calm_green, calm_blue], dim=1)
    calm = calm + luma(faces) - luma(calm)
    added = (calm - faces) * soft_ellipse(SIZE, *MOUTH, 1.2, 0.2).to(faces.device)
    return pictures + pasted(added, thetas, pictures.shape[2:])


def _tint(difference: Tensor, face: Tensor) -> Tensor:
    """(batch, 1, 1): how much of a difference of two colours, (batch, s, s), all of a face has."""
    mean = (difference * face).sum((1, 2), keepdim=True) / face.sum()
    return mean.clamp(min=0.0)

"""The fine light and shade of somebody's features, carried over from their selfies.

What tells two people apart, the edges of lids, brows and nose, is finer than a small denoiser
draws. Selfies and drawn face are set upright by the same template, so that these lie on one
another, and a share of what is finer than an eye is exchanged. Tone, colour, mouth, pose and
everything coarser stay as they were drawn, and a selfie unlike the others is left out.

Source: one level of a Laplacian pyramid, as in multiresolution splines (Burt and Adelson 1983, ACM
TOG 2(4)), here of luminance and for a share only.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from imagine.models.face_recogniser import aligned, soft_ellipse
from imagine.models.face_refiner import luma, pasted

SHARE = 0.75  # of the fine detail that is exchanged; measured, training/LOG.md
FINENESS = 0.135  # of the side of an upright face; what is coarser stays
# Centre and radii of what is exchanged, in fractions of the side: eyes with brows, and the nose.
REGIONS = (((0.5, 0.46), (0.23, 0.11)), ((0.5, 0.58), (0.12, 0.14)))


def describe_detail(crops: Tensor) -> Tensor:
    """What is fine on the selfie that has most in common with the others.

    A mean or a median of several has no eyes any more, since no two look the same way.

    Args:
        crops: (photos, 3, s, s) float in [-1, 1], upright and masked.

    Returns:
        (1, 1, s, s) float.
    """
    seen = fine(crops)
    # Glasses or a shadow on one selfie of several are far from the median.
    apart = (seen - seen.quantile(0.5, dim=0, keepdim=True)).abs()
    chosen = (apart * _within(crops.shape[2]).to(crops.device)).sum((1, 2, 3)).argmin()
    return seen[chosen][None]


def with_detail(pictures: Tensor, thetas: Tensor, detail: Tensor, strength: float = 1.0) -> Tensor:
    """Pictures of a person whose features are as fine as on the selfies.

    Args:
        pictures: (batch, 3, h, w) float in [-1, 1].
        thetas: (batch, 2, 3) where the faces are, of `FaceLocator`.
        detail: of `describe_detail`, of that person.
        strength: share of the usual exchange.

    Returns:
        Shape of `pictures`; nothing changes outside eyes and nose.
    """
    side = detail.shape[2]
    exchanged = (detail - fine(aligned(pictures, thetas, side))) * _within(side).to(detail.device)
    return pictures + SHARE * strength * pasted(exchanged, thetas, pictures.shape[2:])


def fine(faces: Tensor) -> Tensor:
    """(batch, 1, s, s) luminance of (batch, 3, s, s) without what is coarser than `FINENESS`."""
    light = luma(faces)
    reach = max(1, round(FINENESS * faces.shape[3] / 2))
    edges = functional.pad(light, [reach] * 4, mode="replicate")
    return light - functional.avg_pool2d(edges, 2 * reach + 1, 1)


def _within(size: int) -> Tensor:
    """(1, 1, size, size) how much of each pixel is exchanged, softly ending."""
    shares = torch.zeros(size, size)
    for middle, reach in REGIONS:
        shares = torch.maximum(shares, soft_ellipse(size, middle, reach, 1.3, 0.6))
    return shares[None, None]

"""A face set upright in a square, with what is not the head painted grey.

Leaves finding the face to the detectors. Needs only numpy and Pillow, because training makes the
same crops from true landmarks by the same code.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imagine.core import CROP_SIZE, Face, FloatArray, ImageArray

# Where eyes and nose land, as fractions of the crop: head and hair fill the square, chin included.
# Mouth corners take no part: the 5-point predictor of dlib does not give them.
TEMPLATE = np.array([[0.365, 0.47], [0.635, 0.47], [0.5, 0.655]], dtype=np.float64)
BACKGROUND_GREY = 128


def similarity_transform(
    source: NDArray[np.floating], target: NDArray[np.floating]
) -> NDArray[np.float64]:
    """The rotation, uniform scale and shift that best carry points onto points.

    Args:
        source: (n, 2) x, y, n >= 2.
        target: (n, 2) x, y.

    Returns:
        (2, 3) matrix M with target ~ M[:, :2] @ source + M[:, 2].

    Source: least squares in the four parameters of a 2-D similarity, as in Umeyama 1991
    (IEEE TPAMI 13(4)) without the reflection case.
    """
    x, y = source[:, 0].astype(np.float64), source[:, 1].astype(np.float64)
    ones, zeros = np.ones_like(x), np.zeros_like(x)
    rows = np.concatenate(
        [np.stack([x, -y, ones, zeros], axis=1), np.stack([y, x, zeros, ones], axis=1)]
    )
    wanted = np.concatenate([target[:, 0], target[:, 1]]).astype(np.float64)
    a, b, tx, ty = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    return np.array([[a, -b, tx], [b, a, ty]])


@lru_cache(maxsize=4)
def head_mask(size: int = CROP_SIZE) -> FloatArray:
    """Soft head-shaped mask of an aligned crop, (size, size, 1) float32 in [0, 1]."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    radius = np.sqrt(((x - 0.5) / 0.47) ** 2 + ((y - 0.5) / 0.53) ** 2)
    mask = np.clip((1.02 - radius) / 0.06, 0.0, 1.0)
    soft: FloatArray = mask[..., None].astype(np.float32)
    return soft


def align_face(image: ImageArray, landmarks: FloatArray, size: int = CROP_SIZE) -> ImageArray:
    """Cut the face out upright; places outside the selfie become grey.

    Args:
        image: (height, width, 3) uint8 RGB.
        landmarks: (5, 2) x, y in pixels of `image`, see `imagine.core.Face`.
        size: side of the crop, pixels.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    forward = similarity_transform(landmarks[:3], TEMPLATE.astype(np.float32) * size)
    return warp(image, forward, size)


def warp(image: ImageArray, forward: NDArray[np.float64], size: int) -> ImageArray:
    """Draw `image` into a square through a similarity; what lies outside it becomes grey.

    Args:
        image: (height, width, 3) uint8 RGB.
        forward: (2, 3) matrix from pixels of `image` to pixels of the square.
        size: side of the square, pixels.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    scale = float(np.hypot(forward[0, 0], forward[1, 0]))
    picture = Image.fromarray(image)
    # Pillow's bicubic sampling does not average when shrinking: reduce big selfies first.
    shrink = max(1, int(1.0 / max(scale, 1e-6) / 1.5))
    if shrink > 1:
        picture = picture.reduce(shrink)
        forward = forward.copy()
        forward[:, :2] *= shrink
    full = np.vstack([forward, [0.0, 0.0, 1.0]])
    inverse = np.linalg.inv(full)[:2]
    square = picture.transform(
        (size, size),
        Image.Transform.AFFINE,
        data=tuple(inverse.ravel()),
        resample=Image.Resampling.BICUBIC,
        fillcolor=(BACKGROUND_GREY,) * 3,
    )
    return np.array(square, dtype=np.uint8)


def face_of_crop(crop: ImageArray) -> Face:
    """Where the face of an aligned crop is: the template, with mouth corners estimated below it."""
    side = crop.shape[0]
    mouth = np.array([[0.4, 0.79], [0.6, 0.79]])
    landmarks = (np.concatenate([TEMPLATE, mouth]) * side).astype(np.float32)
    return Face((0.0, 0.0, float(side), float(side)), landmarks, 1.0)


def mask_background(crop: ImageArray) -> ImageArray:
    """Paint what lies outside the head grey, so that only the person conditions the picture.

    The paper masks by segmentation; an aligned crop lets a fixed head shape do it without another
    model, at the price of some background beside narrow heads.
    """
    mask = head_mask(crop.shape[0])
    blended = crop.astype(np.float32) * mask + BACKGROUND_GREY * (1.0 - mask)
    return np.rint(blended).astype(np.uint8)

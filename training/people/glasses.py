"""Glasses modelled from a few numbers of the wearer's face: two rims, a bridge, two temples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int32]
Piece = tuple[FloatArray, FloatArray, IntArray]

# half width, half height, squareness (2 is an ellipse), tube radius; decimetres
SHAPES = {
    "round": (0.235, 0.225, 2.0, 0.014),
    "square": (0.255, 0.185, 5.0, 0.024),
    "sunglasses": (0.275, 0.215, 3.4, 0.024),
}


def glasses_parts(
    kind: str,
    left_eye: FloatArray,
    right_eye: FloatArray,
    front: float,
    head_width: float,
    bridge: FloatArray,
) -> dict[str, Piece]:
    """Build the pieces of one pair.

    Args:
        kind: a key of `SHAPES`.
        left_eye: (3,) centre of the person's left eyeball, dm.
        right_eye: (3,) centre of the right one.
        front: z of the foremost point of the eyeballs.
        head_width: from temple to temple.
        bridge: (3,) a point on the bridge of the nose.

    Returns:
        "frame" and "lenses", each positions, normals and triangles.
    """
    half_width, half_height, power, radius = SHAPES[kind]
    depth = max(front + 0.12, float(bridge[2]) - 0.03)
    outer = head_width / 2 - 0.01
    frames: list[Piece] = []
    lenses: list[Piece] = []
    for centre, sign in ((left_eye, 1.0), (right_eye, -1.0)):
        middle = np.array([centre[0] * 1.02, centre[1] - 0.03, depth], np.float32)
        rim = _outline(middle, half_width, half_height, power, sign)
        frames.append(_tube(rim, radius, closed=True))
        lenses.append(_disc(rim, middle))
        hinge = middle + np.array([sign * half_width, 0.07, -0.04], np.float32)
        ear = np.array([sign * (outer + 0.02), hinge[1] - 0.02, depth - 1.0], np.float32)
        frames.append(_tube(np.stack([hinge, ear]), radius * 1.1, closed=False))
    y = (left_eye[1] + right_eye[1]) / 2 + 0.03
    inner = abs(float(left_eye[0])) * 1.02 - half_width
    steps = np.linspace(-1, 1, 7)
    arch = np.stack([steps * inner, y + 0.03 * (1 - steps**2), np.full(7, depth + 0.01)], 1)
    frames.append(_tube(arch.astype(np.float32), radius, closed=False))
    return {"frame": _join(frames), "lenses": _join(lenses)}


def _outline(
    middle: FloatArray, half_width: float, half_height: float, power: float, sign: float
) -> FloatArray:
    angle = np.linspace(0, 2 * np.pi, 33)[:-1]
    x = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** (2 / power) * half_width
    y = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** (2 / power) * half_height
    outwards = np.maximum(x * sign, 0) / half_width
    points = np.stack([middle[0] + x, middle[1] + y, middle[2] - 0.05 * outwards], 1)
    return points.astype(np.float32)


def _tube(path: FloatArray, radius: float, closed: bool) -> Piece:
    sides = 6
    after = np.roll(path, -1, 0) if closed else np.concatenate([path[1:], path[-1:]])
    before = np.roll(path, 1, 0) if closed else np.concatenate([path[:1], path[:-1]])
    along = after - before
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    helper = np.where(np.abs(along[:, 2:]) > 0.9, [[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]])
    first = np.cross(along, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(along, first)
    angle = np.arange(sides) * 2 * np.pi / sides
    normals = first[:, None] * np.cos(angle)[:, None] + second[:, None] * np.sin(angle)[:, None]
    points = path[:, None] + normals * radius
    count = len(path)
    triangles = []
    for i in range(count if closed else count - 1):
        for j in range(sides):
            a, b = i * sides + j, i * sides + (j + 1) % sides
            c, d = ((i + 1) % count) * sides + j, ((i + 1) % count) * sides + (j + 1) % sides
            triangles += [(a, b, c), (b, d, c)]
    return (points.reshape(-1, 3).astype(np.float32), normals.reshape(-1, 3).astype(np.float32),
            np.array(triangles, np.int32))  # fmt: skip


def _disc(rim: FloatArray, middle: FloatArray) -> Piece:
    points = np.concatenate([middle[None], rim]).astype(np.float32)
    bulge = (points - middle) * np.array([0.5, 0.5, 0], np.float32)
    normals = bulge + np.array([0, 0, 1], np.float32)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    count = len(rim)
    triangles = np.array([(0, i + 1, (i + 1) % count + 1) for i in range(count)], np.int32)
    return points, normals.astype(np.float32), triangles


def _join(pieces: list[Piece]) -> Piece:
    start, triangles = 0, []
    for points, _, faces in pieces:
        triangles.append(faces + start)
        start += len(points)
    return (np.concatenate([p for p, _, _ in pieces]), np.concatenate([n for _, n, _ in pieces]),
            np.concatenate(triangles))  # fmt: skip

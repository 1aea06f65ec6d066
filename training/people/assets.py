"""Reading the people assets: meshes, how each sits on the body, textures and environments.

This file knows formats (`.obj`, `.mhclo`, `.mhmat`, `.png`, `.exr`) and nothing of people.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int32]


def assets_path() -> Path:
    """Folder of the assets: `IMAGINE_PEOPLE_ASSETS`, else a sibling folder of the repository."""
    repository = Path(__file__).resolve().parents[2]
    default = repository.parent / "shared" / "people-assets"
    return Path(os.environ.get("IMAGINE_PEOPLE_ASSETS", default))


@dataclass(frozen=True)
class Mesh:
    """Triangles of an `.obj` whose corners are distinct (vertex, uv) pairs.

    Attributes:
        corner_vertices: (m,) number of the file's vertex behind each corner.
        corner_uvs: (m, 2) v up.
        triangles: (t, 3) numbers of corners.
        vertex_count: vertices in the file.
    """

    corner_vertices: IntArray
    corner_uvs: FloatArray
    triangles: IntArray
    vertex_count: int


@dataclass(frozen=True)
class Binding:
    """How a mesh hangs on the base mesh: a weighted sum of three vertices plus an offset.

    Attributes:
        vertices: (n, 3) base-mesh numbers.
        weights: (n, 3).
        offsets: (n, 3) before scaling.
        scales: for x, y, z: two base vertices and the distance that means scale 1.
        deleted: base vertices hidden under the garment.
        mesh_file: name of the `.obj`.
        material_file: name of the `.mhmat`, or empty.
    """

    vertices: IntArray
    weights: FloatArray
    offsets: FloatArray
    scales: tuple[tuple[int, int, float], ...]
    deleted: IntArray
    mesh_file: str
    material_file: str


def load_mesh(path: Path) -> Mesh:
    """Read vertices, texture coordinates and faces; polygons become fans of triangles."""
    uvs: list[tuple[float, float]] = []
    vertex_count = 0
    corners: dict[tuple[int, int], int] = {}
    triangles: list[tuple[int, int, int]] = []
    for line in path.read_text(errors="replace").splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "v":
            vertex_count += 1
        elif words[0] == "vt":
            uvs.append((float(words[1]), float(words[2])))
        elif words[0] == "f":
            pairs = [_corner(word) for word in words[1:]]
            face = [corners.setdefault(pair, len(corners)) for pair in pairs]
            triangles += [(face[0], face[i], face[i + 1]) for i in range(1, len(face) - 1)]
    pairs = list(corners)
    coordinates = [uvs[uv] if 0 <= uv < len(uvs) else (0.0, 0.0) for _, uv in pairs]
    return Mesh(
        corner_vertices=np.array([vertex for vertex, _ in pairs], np.int32),
        corner_uvs=np.array(coordinates, np.float32).reshape(-1, 2),
        triangles=np.array(triangles, np.int32).reshape(-1, 3),
        vertex_count=vertex_count,
    )


def _corner(word: str) -> tuple[int, int]:
    parts = word.split("/")
    uv = int(parts[1]) - 1 if len(parts) > 1 and parts[1] else -1
    return int(parts[0]) - 1, uv


def load_binding(path: Path) -> Binding:
    """Read an `.mhclo`.

    Some files name their material between `verts 0` and the numbers, and some end with
    `delete_verts` ranges, so lines are told apart by their first word wherever they stand.
    """
    rows: list[list[float]] = []
    scales: dict[str, tuple[int, int, float]] = {}
    deleted: list[str] = []
    mesh_file = material_file = ""
    section = ""
    for line in path.read_text(errors="replace").splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        head = words[0]
        if head in ("verts", "delete_verts"):
            section = head
        elif head in ("x_scale", "y_scale", "z_scale"):
            scales[head[0]] = (int(words[1]), int(words[2]), float(words[3]))
        elif head == "obj_file":
            mesh_file = words[1]
        elif head == "material":
            material_file = words[1]
        elif section == "verts" and _is_number(head):
            rows.append(_binding_row(words))
        elif section == "delete_verts" and _is_number(head):
            deleted += words
    table = np.array(rows, np.float64).reshape(-1, 9)
    return Binding(
        vertices=table[:, :3].astype(np.int32),
        weights=table[:, 3:6].astype(np.float32),
        offsets=table[:, 6:].astype(np.float32),
        scales=tuple(scales.get(axis, (0, 0, 0.0)) for axis in "xyz"),
        deleted=np.array(sorted(_ranges(deleted)), np.int32),
        mesh_file=mesh_file,
        material_file=material_file,
    )


def _is_number(word: str) -> bool:
    return word.lstrip("-").isdigit()


def _binding_row(words: list[str]) -> list[float]:
    if len(words) < 9:
        return [float(words[0])] * 3 + [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    return [float(word) for word in words[:9]]


def _ranges(words: Iterable[str]) -> set[int]:
    """Expand `3 5 - 7` to {3, 5, 6, 7}."""
    numbers: set[int] = set()
    previous, open_range = -1, False
    for word in words:
        if word == "-":
            open_range = True
            continue
        value = int(word)
        numbers.update(range(previous, value + 1) if open_range else (value,))
        previous, open_range = value, False
    return numbers


def diffuse_texture(material: Path) -> Path:
    """The picture that a `.mhmat` names as its diffuse texture."""
    for line in material.read_text(errors="replace").splitlines():
        words = line.split()
        if words and words[0] == "diffuseTexture":
            return (material.parent / words[1]).resolve()
    raise ValueError(f"{material} names no diffuseTexture; choose a material that has one.")


def load_texture(path: Path, size: int | None = None) -> NDArray[np.uint8]:
    """Read a picture as (h, w, 4) uint8, row 0 at the top."""
    with Image.open(path) as image:
        picture = image.convert("RGBA")
        if size is not None and picture.size != (size, size):
            picture = picture.resize((size, size), Image.Resampling.BOX)
        return np.asarray(picture)


@dataclass(frozen=True)
class Environment:
    """A place's light, split so that a small shader can use it.

    Attributes:
        radiance: (h, w, 3) linear RGB, capped; row 0 looks up, the middle column along +z.
        harmonics: (9, 3) irradiance coefficients, cosine lobe folded in.
        key_direction: (3,) unit, towards the brightest part.
        key_colour: (3,) irradiance that the excess gives a surface facing it.
    """

    radiance: FloatArray
    harmonics: FloatArray
    key_direction: FloatArray
    key_colour: FloatArray


def load_environment(path: Path) -> Environment:
    """Read an equirectangular `.exr` and split it into a key light and soft light."""
    import OpenEXR

    channels = OpenEXR.File(str(path)).channels()
    pixels = channels["RGB"].pixels if "RGB" in channels else channels["RGBA"].pixels[..., :3]
    radiance = np.clip(np.nan_to_num(pixels.astype(np.float32), posinf=6e4), 0.0, 6e4)
    # two of the maps store the sun's disc as pure blue; a sensor at its limit is white
    brightest = radiance.max(-1)
    burnt = (brightest > 4 * np.median(radiance, -1)) & (brightest > np.percentile(brightest, 99.7))
    radiance[burnt] = radiance[burnt].mean(-1, keepdims=True)
    return split_environment(radiance)


def split_environment(radiance: FloatArray) -> Environment:
    """Cap radiance at its 99th percentile; what exceeds it becomes one key light."""
    height, width = radiance.shape[:2]
    theta = (np.arange(height) + 0.5) / height * np.pi
    phi = ((np.arange(width) + 0.5) / width - 0.5) * 2 * np.pi
    directions = np.stack(
        [
            np.sin(theta)[:, None] * np.sin(phi)[None],
            np.repeat(np.cos(theta)[:, None], width, 1),
            np.sin(theta)[:, None] * np.cos(phi)[None],
        ],
        -1,
    )
    solid = (np.sin(theta) * (np.pi / height) * (2 * np.pi / width))[:, None, None]
    luminance = radiance @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    cap = float(np.percentile(luminance, 99.0))
    scale = np.minimum(1.0, cap / np.maximum(luminance, 1e-9))[..., None]
    soft = radiance * scale
    excess = (radiance - soft) * solid
    key = excess.sum((0, 1))
    towards = (directions * excess.sum(-1, keepdims=True)).sum((0, 1))
    length = float(np.linalg.norm(towards))
    direction = towards / length if length > 1e-9 else np.array([0.0, 1.0, 0.0])
    basis = harmonic_basis(directions.reshape(-1, 3))
    lobes = np.array([np.pi] + [2 * np.pi / 3] * 3 + [np.pi / 4] * 5)
    coefficients = basis.T @ (soft * solid).reshape(-1, 3) * lobes[:, None]
    return Environment(
        radiance=np.asarray(soft, np.float32),
        harmonics=np.asarray(coefficients, np.float32),
        key_direction=np.asarray(direction, np.float32),
        key_colour=np.asarray(key, np.float32),
    )


def harmonic_basis(directions: NDArray[np.floating]) -> NDArray[np.floating]:
    """The nine real spherical harmonics up to degree 2, (n, 9).

    Source: Ramamoorthi and Hanrahan 2001, "An efficient representation for irradiance
    environment maps", eq. 3.
    """
    x, y, z = directions.T
    return np.stack(
        [
            np.full_like(x, 0.282095),
            0.488603 * y,
            0.488603 * z,
            0.488603 * x,
            1.092548 * x * y,
            1.092548 * y * z,
            0.315392 * (3 * z * z - 1),
            1.092548 * x * z,
            0.546274 * (x * x - y * y),
        ],
        1,
    )

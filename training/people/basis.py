"""The head-and-shoulders shape basis: one file of numbers from which any person is built.

`build_basis` distils it once from the `anny` package (which needs torch and minutes);
everything after that reads the small cached file with numpy alone. Lengths are decimetres,
y up, x to the person's left, z forward: the frame in which every `.mhclo` is written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int32]

BASE_VERTICES = 19158
BODY_VERTICES = 13380  # later numbers are helpers: eyes, teeth, hair cap, tights for clothes
LOWEST = 2.6  # dm; nothing below reaches a head-and-shoulders picture
PHENOTYPE_RANK = 64
JOINTS = ("neck01", "head", "upperarm01.L", "upperarm01.R")
GROUPS = (("head",), ("neck01", "neck02", "neck03"), ("upperarm01.L",), ("upperarm01.R",))
POSITION_MAP = 512
FACE_WORDS = ("cheek", "chin", "ear-", "eyebrows", "eye-", "forehead", "head-", "mouth", "neck",
              "nose")  # fmt: skip
# mhclo files measure their offsets between these vertices, wherever they lie
ALWAYS_KEPT = (5399, 11998, 962, 5320, 791, 881, 15077, 15111, 15061, 15068, 14993)


@dataclass(frozen=True)
class Basis:
    """Shapes of head and shoulders.

    Attributes:
        vertex_ids: (n,) number of each kept vertex in the full base mesh.
        template: (n + joints, 3) the mean adult; joints follow the vertices.
        phenotype_variations: names of the 26 variations, in the order of `phenotype_mask`.
        phenotype_mask: (products, 26) which variations each product multiplies.
        phenotype_projection: (products, rank) from products to the basis below.
        phenotype_shapes: (rank, n + joints, 3).
        change_names: face shapes that a person may have.
        change_shapes: (2 * changes, n + joints, 3), increase and decrease in turn.
        action_names: the 52 facial actions.
        action_shapes: (52, n + joints, 3).
        weights: (n, 4) skinning weights of head, neck, left arm, right arm.
        corner_vertices: (m,) kept-vertex number of every drawn corner (vertex, uv).
        corner_uvs: (m, 2) v up.
        triangles: (t, 3) numbers of corners.
        position_map: (512, 512, 3) template position of every texel, row 0 at v = 1; zero outside.
    """

    vertex_ids: IntArray
    template: FloatArray
    phenotype_variations: NDArray[np.str_]
    phenotype_mask: FloatArray
    phenotype_projection: FloatArray
    phenotype_shapes: FloatArray
    change_names: NDArray[np.str_]
    change_shapes: FloatArray
    action_names: NDArray[np.str_]
    action_shapes: FloatArray
    weights: FloatArray
    corner_vertices: IntArray
    corner_uvs: FloatArray
    triangles: IntArray
    position_map: FloatArray

    def lookup(self) -> IntArray:
        """Map full base-mesh numbers to kept ones; -1 where a vertex was left out."""
        table = np.full(BASE_VERTICES, -1, np.int32)
        table[self.vertex_ids] = np.arange(len(self.vertex_ids), dtype=np.int32)
        return table

    def shape(self, phenotype: Mapping[str, float], changes: Mapping[str, float]) -> FloatArray:
        """Positions of one person at rest.

        Args:
            phenotype: gender, age, muscle, weight, height, proportions, african, asian,
                caucasian, each in [0, 1]; missing ones stand at 0.5.
            changes: face shapes by name, each in [-1, 1].

        Returns:
            (n + joints, 3) decimetres.
        """
        products = phenotype_products(phenotype, self.phenotype_variations, self.phenotype_mask)
        coefficients = products @ self.phenotype_projection
        result = self.template + np.tensordot(coefficients, self.phenotype_shapes, 1)
        amounts = np.zeros(len(self.change_shapes), np.float32)
        index = {str(name): i for i, name in enumerate(self.change_names)}
        for name, amount in changes.items():
            amounts[2 * index[name] + (amount < 0)] = abs(amount)
        result += np.tensordot(amounts, self.change_shapes, 1)
        return np.asarray(result, np.float32)

    def act(self, actions: Mapping[str, float]) -> FloatArray:
        """Displacement of facial actions, (n + joints, 3) decimetres."""
        index = {str(name): i for i, name in enumerate(self.action_names)}
        chosen = [index[name] for name in actions]
        amounts = np.fromiter(actions.values(), np.float32, len(actions))
        if not chosen:
            return np.zeros_like(self.template)
        return np.asarray(np.tensordot(amounts, self.action_shapes[chosen], 1), np.float32)


ANCHORS = {
    "age": ("newborn", "baby", "child", "young", "old"),
    "gender": ("male", "female"),
    "muscle": ("minmuscle", "averagemuscle", "maxmuscle"),
    "weight": ("minweight", "averageweight", "maxweight"),
    "height": ("minheight", "maxheight"),
    "proportions": ("idealproportions", "uncommonproportions"),
    "cupsize": ("mincup", "averagecup", "maxcup"),
    "firmness": ("minfirmness", "averagefirmness", "maxfirmness"),
}


def phenotype_products(
    phenotype: Mapping[str, float], variations: NDArray[np.str_], mask: FloatArray
) -> FloatArray:
    """Weight of every phenotype blend shape: the product of the variations it stands for.

    Age runs over five anchors of which the first lies at -1/3, so 2/3 is young and 1 old;
    everything else runs from 0 to 1. Ancestries are shares of their sum.
    """
    value: dict[str, float] = {}
    for name, anchors in ANCHORS.items():
        low = -1 / 3 if name == "age" else 0.0
        position = (phenotype.get(name, 0.5) - low) / (1.0 - low) * (len(anchors) - 1)
        for i, anchor in enumerate(anchors):
            value[anchor] = max(0.0, 1.0 - abs(position - i))
    ancestry = {name: phenotype.get(name, 0.5) for name in ("african", "asian", "caucasian")}
    total = sum(ancestry.values()) or 1.0
    value |= {name: amount / total for name, amount in ancestry.items()}
    row = np.array([value[str(name)] for name in variations], np.float32)
    return np.asarray(np.prod(row * mask + (1 - mask), axis=1), np.float32)


def basis_path() -> Path:
    """Where the cached basis lies; `IMAGINE_PEOPLE_BASIS` moves it."""
    default = Path.home() / ".cache" / "imagine-yourself" / "people-basis.npz"
    return Path(os.environ.get("IMAGINE_PEOPLE_BASIS", default))


@lru_cache(maxsize=2)
def load_basis(path: Path | None = None) -> Basis:
    """Read the cached basis, building it first where it is missing."""
    path = path or basis_path()
    if not path.exists():
        save_basis(build_basis(), path)
    with np.load(path) as file:
        values = {field.name: file[field.name] for field in fields(Basis)}
    for name, value in values.items():
        if value.dtype == np.float16:
            values[name] = value.astype(np.float32)
    return Basis(**values)


def save_basis(basis: Basis, path: Path) -> None:
    """Write the basis in half precision; the rename makes it appear whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {field.name: getattr(basis, field.name) for field in fields(Basis)}
    for name in ("phenotype_shapes", "change_shapes", "action_shapes", "position_map"):
        values[name] = values[name].astype(np.float16)
    partial = path.with_suffix(f".{os.getpid()}.partial.npz")
    np.savez_compressed(partial, **values)
    partial.replace(path)


def build_basis(model: Any = None) -> Basis:
    """Distil the basis from `anny` (about two minutes the first time).

    Args:
        model: an `anny.Anny` already built, else one is.
    """
    if model is None:
        try:
            import anny
        except ImportError as error:
            raise ImportError(
                "The people basis is missing and building it needs the `anny` package; "
                "run `pip install anny`, or copy people-basis.npz to " + str(basis_path())
            ) from error
        model = anny.Anny(
            topology="makehuman-full",
            rig="makehuman",
            local_changes="all",
            facial_actions="all",
            phenotypes="all",
        )
    return _distil(model)


def _decimetres(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Metres, z up, to decimetres, y up."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], -1) * 10


def _distil(model: Any) -> Basis:
    labels = list(model.blendshape_labels)
    bones = [list(model.bone_labels).index(name) for name in JOINTS]
    rest = _decimetres(model.template_vertices.numpy())
    kept = np.flatnonzero(rest[:, 1] > LOWEST)
    kept = np.unique(np.concatenate([kept, ALWAYS_KEPT]))

    def gather(numbers: list[int]) -> NDArray[np.float64]:
        shapes = model.blendshapes.numpy()[numbers][:, kept]
        joints = model.bone_heads_blendshapes.numpy()[numbers][:, bones]
        return _decimetres(np.concatenate([shapes, joints], 1))

    joints = _decimetres(model.template_bone_heads.numpy()[bones])
    template = np.concatenate([rest[kept], joints])
    numbers = [i for i, label in enumerate(labels) if label.startswith("phenotype")]
    mask = model.stacked_phenotype_blend_shapes_mask.numpy().astype(np.float32)
    variations = _variation_names()
    projection, shapes = _compress(
        gather(numbers), model.phenotype_blendshape_projection.numpy(), mask, variations
    )
    names = [n for n in model.local_change_labels if _is_face_change(n)]
    first = {label: i for i, label in enumerate(labels)}
    changes = [number for n in names for number in _change_pair(first, n)]
    actions = list(model.facial_action_labels)
    corner_vertices, corner_uvs, triangles = _corners(model, kept)
    return Basis(
        vertex_ids=kept.astype(np.int32),
        template=template.astype(np.float32),
        phenotype_variations=variations,
        phenotype_mask=mask,
        phenotype_projection=projection.astype(np.float32),
        phenotype_shapes=shapes.astype(np.float32),
        change_names=np.array(names),
        change_shapes=gather(changes).astype(np.float32),
        action_names=np.array(actions),
        action_shapes=gather([first["facial_action:" + n] for n in actions]).astype(np.float32),
        weights=_weights(model)[kept].astype(np.float32),
        corner_vertices=corner_vertices,
        corner_uvs=corner_uvs,
        triangles=triangles,
        position_map=position_map(template[corner_vertices], corner_uvs, triangles),
    )


def _variation_names() -> NDArray[np.str_]:
    from anny.models.model_data import PHENOTYPE_VARIATIONS

    return np.array([name for group in PHENOTYPE_VARIATIONS.values() for name in group])


def _is_face_change(name: str) -> bool:
    plain = name.removeprefix("l-").removeprefix("r-").removeprefix("measure-")
    return plain.startswith(FACE_WORDS)


def _change_pair(first: Mapping[str, int], name: str) -> tuple[int, int]:
    """A change is named after its increasing half; its decreasing half stands next to it."""
    number = first["local_change:" + name]
    return number, number + 1


def _compress(
    shapes: NDArray[np.float64],
    projection: NDArray[np.float64],
    mask: FloatArray,
    variations: NDArray[np.str_],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Keep the directions in which adults differ; the rest is children and round-off."""
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(400):
        phenotype = {name: float(generator.random()) for name in ANCHORS}
        phenotype["age"] = float(generator.uniform(0.5, 1.0))
        phenotype["gender"] = float(generator.choice([0.0, 1.0, generator.random()]))
        shares = generator.dirichlet([0.4, 0.4, 0.4])
        phenotype |= dict(zip(("african", "asian", "caucasian"), map(float, shares), strict=True))
        rows.append(phenotype_products(phenotype, variations, mask))
    flat = shapes.reshape(len(shapes), -1)
    people = np.stack(rows) @ projection @ flat
    directions = np.linalg.svd(people, full_matrices=False)[2][:PHENOTYPE_RANK]
    reduced = projection @ (flat @ directions.T)
    return reduced, directions.reshape(len(directions), *shapes.shape[1:])


def _weights(model: Any) -> NDArray[np.float64]:
    """(19158, 4) how much head, neck and each arm carry every vertex; the torso has the rest."""
    labels, parents = list(model.bone_labels), list(model.bone_parents)
    group_of = np.full(len(labels), -1)
    for group, roots in enumerate(GROUPS):
        for root in roots:
            group_of[labels.index(root)] = group
    for bone, parent in enumerate(parents):
        if group_of[bone] < 0 <= parent:
            group_of[bone] = group_of[parent] if group_of[parent] != 1 else -1
    weights = np.zeros((BASE_VERTICES, len(GROUPS)))
    indices = model.vertex_bone_indices.numpy()
    amounts = model.vertex_bone_weights.numpy()
    for group in range(len(GROUPS)):
        weights[:, group] = (amounts * (group_of[indices] == group)).sum(1)
    total = np.maximum(amounts.sum(1, keepdims=True), 1e-9)
    return np.asarray(weights / total, np.float64)


def _corners(model: Any, kept: NDArray[np.int64]) -> tuple[IntArray, FloatArray, IntArray]:
    """Split vertices where the texture has a seam, and quads into triangles."""
    faces = model.faces.numpy()
    uv_faces = model.face_texture_coordinate_indices.numpy()
    table = np.full(BASE_VERTICES, -1)
    table[kept] = np.arange(len(kept))
    whole = (faces < BODY_VERTICES).all(1) & (table[faces] >= 0).all(1)
    pairs = np.stack([table[faces[whole]], uv_faces[whole]], -1).reshape(-1, 2)
    unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
    quads = inverse.reshape(-1, 4)
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    uvs = model.texture_coordinates.numpy()[unique[:, 1]]
    return unique[:, 0].astype(np.int32), uvs.astype(np.float32), triangles.astype(np.int32)


def position_map(
    corners: NDArray[Any], uvs: FloatArray, triangles: IntArray, size: int = POSITION_MAP
) -> FloatArray:
    """Draw positions into texture space, so that freckles and beards can be placed in 3D.

    Args:
        corners: (m, 3) position of each corner.
        uvs: (m, 2) v up.
        triangles: (t, 3).
        size: texels per side.

    Returns:
        (size, size, 3); zero where no triangle lies.
    """
    result = np.zeros((size, size, 3), np.float32)
    pixels = np.stack([uvs[:, 0], 1 - uvs[:, 1]], 1) * size - 0.5
    for triangle in triangles:
        a, b, c = pixels[triangle]
        low = np.maximum(np.floor(np.minimum(np.minimum(a, b), c)).astype(int), 0)
        high = np.minimum(np.ceil(np.maximum(np.maximum(a, b), c)).astype(int), size - 1)
        x, y = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1))
        area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
        if abs(area) < 1e-9:
            continue
        wb = ((x - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (y - a[1])) / area
        wc = ((b[0] - a[0]) * (y - a[1]) - (x - a[0]) * (b[1] - a[1])) / area
        inside = (wb >= -0.2) & (wc >= -0.2) & (wb + wc <= 1.2)
        p = corners[triangle].astype(np.float32)
        values = p[0] + wb[inside, None] * (p[1] - p[0]) + wc[inside, None] * (p[2] - p[0])
        result[y[inside], x[inside]] = values
    return result

"""Painting one person's skin: tone, lips, beard, scalp, freckles, moles and make-up.

Everything is placed by the template position behind each texel, so a mole keeps its place on
the face whatever the face's shape. The result is an sRGB picture in the base mesh's UV layout.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from training.people.person import Person

FloatArray = NDArray[np.floating[Any]]
HEAD_BOX = ((0.16, 0.88), (0.62, 1.0))  # rows and columns of a skin picture that hold the head
EYE_HEIGHT, EYE_SIDE, MOUTH_HEIGHT = 7.28, 0.31, 6.62  # dm on the template


@dataclass(frozen=True)
class SkinMap:
    """Where things are in texture space; all arrays are (size, size) in [0, 1].

    Attributes:
        position: (size, size, 3) template position in dm.
        face: forehead to chin, ear to ear.
        lips: the red of the lips.
        lids: upper eyelids.
        cheeks: where one blushes.
        scalp: where hair grows on the head.
        jaw: full beard without moustache.
        moustache: between nose and mouth.
        chin: goatee.
        blood: where skin is redder: nose, cheeks, ears, chin.
        oil: where skin shines: forehead, nose, cheekbones, chin.
        hollows: around the eyes, where it is darker.
    """

    position: FloatArray
    face: FloatArray
    lips: FloatArray
    lids: FloatArray
    cheeks: FloatArray
    scalp: FloatArray
    jaw: FloatArray
    moustache: FloatArray
    chin: FloatArray
    blood: FloatArray
    oil: FloatArray
    hollows: FloatArray


def _step(low: float, high: float, value: FloatArray) -> FloatArray:
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def skin_map(position_map: FloatArray, size: int, texture: FloatArray) -> SkinMap:
    """Work the regions out once.

    Args:
        position_map: `Basis.position_map`.
        size: texels per side of the skin pictures to come.
        texture: (size, size, 3) linear, a light skin whose lips are red.
    """
    position = _resize(position_map, size)
    x, y, z = np.abs(position[..., 0]), position[..., 1], position[..., 2]
    known = np.abs(position).sum(-1) > 0
    head = known & (y > 5.8) & (x < 1.0)
    face = head * _step(0.5, 0.9, z) * _step(5.9, 6.15, y) * (1 - _step(7.85, 8.05, y))
    ratio = texture[..., 0] / np.maximum(texture[..., 1], 1e-3)
    usual = float(np.median(ratio[face > 0.9]))
    near_mouth = head & (x < 0.36) & (np.abs(y - MOUTH_HEIGHT) < 0.17) & (z > 1.25)
    lips = near_mouth * _step(1.15, 1.4, ratio / usual)
    lids = head * (z > 1.15) * _blob(x - EYE_SIDE, y - 7.36, 0.17, 0.075)
    cheeks = head * (z > 0.8) * _blob(x - 0.48, y - 6.92, 0.2, 0.17)
    hairline = 7.98 - 0.85 * np.clip(1.3 - z, 0, 1.7)
    scalp = head * _step(-0.06, 0.1, y - hairline) * (y > 6.4)
    upper = 6.56 + 0.85 * np.clip(x - 0.22, 0, 1)
    jaw = head * (1 - _step(-0.1, 0.06, y - upper)) * _step(6.02, 6.16, y) * _step(0.35, 0.55, z)
    jaw = jaw * (x < 0.85)
    over_lip = 6.83 - 0.35 * np.clip(x - 0.05, 0, 1)
    moustache = head * (x < 0.38) * (1 - _step(-0.05, 0.0, y - over_lip)) * _step(6.58, 6.68, y)
    moustache = moustache * (z > 1.2) * (1 - _step(0.28, 0.38, x))
    chin = jaw * (1 - _step(0.2, 0.34, x)) * _step(0.9, 1.2, z)
    bare = 1 - lips
    nose = _blob(x, y - 6.93, 0.17, 0.12) * (z > 1.3)
    blood = head * np.clip(
        nose
        + 0.8 * cheeks
        + 0.5 * _blob(x, y - 6.3, 0.2, 0.12) * (z > 1)
        + 0.9 * _step(0.68, 0.78, x) * (np.abs(y - 7.0) < 0.4),
        0,
        1,
    )
    oil = head * np.clip(
        0.8 * _blob(x, y - 7.72, 0.4, 0.16) * (z > 0.9)
        + _blob(x, y - 7.05, 0.11, 0.28) * (z > 1.3)
        + 0.7 * _blob(x - 0.42, y - 7.03, 0.18, 0.1) * (z > 0.9)
        + 0.5 * _blob(x, y - 6.34, 0.17, 0.1) * (z > 1.2),
        0,
        1,
    )
    hollows = (
        head
        * (z > 1.0)
        * np.clip(
            _blob(x - 0.29, y - 7.13, 0.16, 0.07) + 0.6 * _blob(x - 0.17, y - 7.27, 0.07, 0.09),
            0,
            1,
        )
    )
    return SkinMap(position, face, lips, lids, cheeks, scalp, jaw * bare, moustache * bare,
                   chin * bare, blood, oil, hollows)  # fmt: skip


def _blob(dx: FloatArray, dy: FloatArray, rx: float, ry: float) -> FloatArray:
    return np.asarray(np.exp(-((dx / rx) ** 2) - (dy / ry) ** 2), np.float32)


def _resize(picture: FloatArray, size: int) -> FloatArray:
    if picture.shape[0] == size:
        return picture
    method = Image.Resampling.BILINEAR
    planes = [Image.fromarray(picture[..., c]).resize((size, size), method) for c in range(3)]
    return np.stack([np.asarray(plane, np.float32) for plane in planes], -1)


def load_linear(path: Path, size: int) -> FloatArray:
    """Read a picture as (size, size, 3) linear light."""
    with Image.open(path) as image:
        picture = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    return to_linear(np.asarray(picture))


_LINEAR = np.array(
    [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in np.arange(256) / 255],
    np.float32,
)


def to_linear(picture: NDArray[np.uint8]) -> FloatArray:
    """Turn sRGB bytes into linear light."""
    return _LINEAR[picture]


def to_srgb(linear: FloatArray) -> NDArray[np.uint8]:
    """Turn linear light into sRGB bytes, through a table: this runs on whole textures."""
    index = np.clip(linear * 4095, 0, 4095).astype(np.uint16)
    return _SRGB[index]


_grid = np.arange(4096) / 4095
_SRGB = (np.where(_grid <= 0.0031308, _grid * 12.92, 1.055 * _grid ** (1 / 2.4) - 0.055) * 255
         + 0.5).astype(np.uint8)  # fmt: skip


def texture_file(assets: Path, person: Person) -> Path:
    """The diffuse picture that gives this person's skin its fine detail."""
    stem, _, variant = person.skin_texture.partition("|")
    return assets / "skins" / "textures" / f"{stem}_diffuse{variant}.png"


def skin_detail(texture: FloatArray, regions: SkinMap) -> FloatArray:
    """A skin picture divided by its own mean face colour: pores and shading without tone."""
    weights = regions.face * (1 - regions.lips)
    mean = (texture * weights[..., None]).sum((0, 1)) / weights.sum()
    return np.asarray(np.clip(texture / mean, 0.25, 2.2), np.float32)


def paint_skin(
    person: Person, regions: SkinMap, detail: FloatArray, hair_rgb: tuple[float, float, float]
) -> NDArray[np.uint8]:
    """Compose the skin of one person.

    Args:
        person: whose skin.
        regions: from `skin_map`, same size as `detail`.
        detail: from `skin_detail`.
        hair_rgb: linear colour of hair as worn, for scalp; the beard keeps its own.

    Returns:
        (size, size, 4): sRGB, and how much the skin shines, 128 where it does as usual.
    """
    g = np.random.default_rng([person.seed, 104729])
    size = detail.shape[0]
    patches = _patches(g, size)
    strength = 1.05 + 0.75 * person.wrinkles
    tone = np.array(person.skin_rgb, np.float32)
    painted = np.full((size, size, 4), 40, np.uint8)
    body = tone * np.clip(1 + (detail - 1) * strength, 0.2, 2.0)
    painted[..., :3] = to_srgb(body * (1 + 0.28 * patches[..., 1:]))
    rows, columns = (slice(int(low * size), int(high * size)) for low, high in HEAD_BOX)
    box = (rows, columns)
    head = _crop(regions, box)
    albedo, shine = _paint_head(person, head, detail[box], patches[box], hair_rgb, g)
    painted[box] = np.concatenate([to_srgb(albedo), shine[..., None]], 2)
    return painted


def _crop(regions: SkinMap, box: tuple[slice, slice]) -> SkinMap:
    return SkinMap(**{one.name: getattr(regions, one.name)[box] for one in fields(SkinMap)})


def _paint_head(
    person: Person, regions: SkinMap, detail: FloatArray, patches: FloatArray,
    hair_rgb: tuple[float, float, float], g: np.random.Generator,
) -> tuple[FloatArray, NDArray[np.uint8]]:  # fmt: skip
    """(h, w, 3) linear albedo and (h, w) shine of the part of the texture that holds the head."""
    tone = np.array(person.skin_rgb, np.float32)
    scalp = regions.scalp[..., None]
    strength = 1.05 + 0.75 * person.wrinkles
    plain = detail * (1 - scalp) + scalp  # the pictures have stubble on the scalp
    albedo = tone * np.clip(1 + (plain - 1) * strength, 0.2, 2.0)
    albedo = _paint_blood(albedo, person, regions, patches)
    albedo = _paint_lips(albedo, person, regions)
    blush = regions.cheeks[..., None] * person.blush * 0.3
    albedo = albedo * (1 - blush * np.array([0.05, 0.5, 0.4], np.float32))
    lid = regions.lids[..., None] * person.eyeshadow[3]
    albedo = albedo * (1 - lid) + lid * np.array(person.eyeshadow[:3], np.float32)
    grain = g.random((*patches.shape[:2], 1), np.float32)
    albedo = _paint_scalp(albedo, person, regions, grain, np.array(hair_rgb, np.float32))
    albedo = _paint_beard(albedo, person, regions, grain)
    albedo = _paint_spots(albedo, person, regions, g)
    albedo = albedo * (0.95 + 0.1 * grain)
    shine = 0.3 + 0.75 * regions.oil * person.oiliness + 0.35 * regions.lips
    shine = shine * (1 + 1.2 * patches[..., 1]) * (1 - 0.6 * regions.scalp * (1 - person.crown))
    gloss = np.clip(shine * 128, 0, 255).astype(np.uint8)
    return np.asarray(albedo, np.float32), gloss


def _patches(g: np.random.Generator, size: int) -> FloatArray:
    """(size, size, 2) smooth noise about zero: skin is not evenly coloured, nor evenly shiny."""
    planes = []
    for cells in (24, 90):
        small = g.standard_normal((cells, cells, 2)).astype(np.float32)
        planes.append(np.stack([np.asarray(Image.fromarray(small[..., c]).resize(
            (size, size), Image.Resampling.BICUBIC)) for c in (0, 1)], -1))  # fmt: skip
    return np.asarray(0.13 * planes[0] + 0.09 * planes[1], np.float32)


def _paint_blood(
    albedo: FloatArray, person: Person, regions: SkinMap, patches: FloatArray
) -> FloatArray:
    """Redder nose, cheeks and ears, darker hollows, and the unevenness of all skin."""
    pale = 1 - 0.65 * person.skin_tone
    red = regions.blood * (0.1 + 0.9 * person.ruddiness) * 0.42 * pale
    red = np.clip(red + 0.35 * patches[..., 0] * pale, -0.08, 0.6)[..., None]
    albedo = albedo * (1 - red * np.array([0.12, 0.62, 0.5], np.float32))
    dark = (regions.hollows * (0.12 + 0.14 * person.wrinkles))[..., None]
    albedo = albedo * (1 - dark * np.array([0.7, 1.0, 0.85], np.float32))
    return np.asarray(albedo * (1 + 0.28 * patches[..., 1:]), np.float32)


def _paint_lips(albedo: FloatArray, person: Person, regions: SkinMap) -> FloatArray:
    lips = regions.lips[..., None]
    red = 0.25 + 0.35 * person.lip_redness
    natural = albedo * np.array([1.0 - 0.15 * red, 1 - 0.45 * red, 1 - 0.35 * red], np.float32)
    albedo = albedo * (1 - lips) + natural * lips
    amount = lips * person.lipstick[3]
    return np.asarray(albedo * (1 - amount) + np.array(person.lipstick[:3]) * amount, np.float32)


def hair_growth(person: Person, regions: SkinMap) -> FloatArray:
    """(size, size) where hair grows on this person's head, 0 to 1, receding hairline and all."""
    x, y, z = (np.abs(regions.position[..., 0]), regions.position[..., 1],
               regions.position[..., 2])  # fmt: skip
    worn = person.hair_style in ("buzz", "crop", "wreath", "bald")
    back = (
        0.42
        * (person.hairline if worn else 0.1)
        * (0.25 + 0.75 * _blob(x - 0.42, 0 * x, 0.22, 1.0))
    )
    line = 7.98 + back - 0.85 * np.clip(1.3 - z, 0, 1.7)
    head = (y > 6.4) & (np.abs(regions.position).sum(-1) > 0)
    grown = head * _step(-0.05, 0.09, y - line)
    if person.hair_style == "wreath":
        grown = grown * (1 - _step(7.35, 7.6, y + 0.15 * np.clip(z, 0, 1)))
    elif person.hair_style in ("crop", "buzz") and person.crown > 0.3:
        thin = _step(7.9, 8.25, y) * np.clip(person.crown - 0.3, 0, 0.65)
        grown = grown * (1 - thin)
    return np.asarray(grown, np.float32)


def _paint_scalp(
    albedo: FloatArray, person: Person, regions: SkinMap, grain: FloatArray, hair: FloatArray
) -> FloatArray:
    density = {"bald": 0.06 + 0.1 * person.beard_density, "buzz": 0.7, "crop": 0.75,
               "wreath": 0.6}.get(person.hair_style, 0.8)  # fmt: skip
    amount = hair_growth(person, regions)[..., None] * density * (0.55 + 0.45 * grain)
    return np.asarray(albedo * (1 - amount) + hair * 0.8 * amount, np.float32)


def beard_growth(person: Person, regions: SkinMap) -> FloatArray:
    """(size, size) where this person's beard grows, 0 to 1."""
    where = {
        "moustache": regions.moustache,
        "goatee": np.maximum(regions.chin, regions.moustache),
    }.get(person.beard, np.maximum(regions.jaw, regions.moustache))
    return np.asarray(where * person.beard_density, np.float32)


def _paint_beard(
    albedo: FloatArray, person: Person, regions: SkinMap, grain: FloatArray
) -> FloatArray:
    """The shadow under a beard, and of a shaved one; the hairs themselves are drawn as fur."""
    share = {"none": 1.0, "stubble": 0.75}.get(person.beard, 0.8)
    amount = beard_growth(person, regions)[..., None] * share * (0.5 + 0.5 * grain)
    hair = np.array(person.hair_rgb, np.float32) * 0.7
    return np.asarray(albedo * (1 - amount) + hair * amount, np.float32)


def fur_coat(person: Person, regions: SkinMap, kind: str) -> NDArray[np.uint8]:
    """How long and how dense hairs grow, in texture space.

    Args:
        person: whose.
        regions: from `skin_map`.
        kind: "beard" or "scalp".

    Returns:
        (size, size, 3) bytes: length as a share of the longest, density, nothing.
    """
    g = np.random.default_rng([person.seed, 15013])
    size = regions.face.shape[0]
    patchy = 1 + 1.5 * _patches(g, size)
    if kind == "beard":
        grown = beard_growth(person, regions)
        soft = ndimage.gaussian_filter(grown, size / 75)  # thins out towards its edges
        length = np.clip(soft * 1.1, 0, 1)
        density = np.clip(
            np.minimum(grown, soft) * (1.6 if person.beard == "stubble" else 1.0), 0, 1
        )
    else:
        grown = hair_growth(person, regions)
        y = regions.position[..., 1]
        sides = 0.45 + 0.55 * _step(7.35, 8.0, y)  # shorter at the sides, as barbers cut it
        length, density = grown * sides, grown * 0.98
    length = length * np.clip(patchy[..., 0], 0.5, 1.4)
    density = density * np.clip(patchy[..., 1], 0.6, 1.2)
    planes = np.stack([length, density, np.zeros_like(length)], -1)
    return np.asarray(np.clip(planes * 255, 0, 255), np.uint8)


def _paint_spots(
    albedo: FloatArray, person: Person, regions: SkinMap, g: np.random.Generator
) -> FloatArray:
    x, y = regions.position[..., 0], regions.position[..., 1]
    front = regions.face > 0.3
    brown = np.array([0.45, 0.30, 0.25], np.float32)
    spots = [(sx, 6.95 + sy, r, 0.9) for sx, sy, r in person.moles]
    if person.freckles > 0:
        for _ in range(int(90 * person.freckles)):
            side, height = g.normal(0, 0.33), 7.0 + g.normal(0, 0.2)
            spots.append((side, height, g.uniform(0.01, 0.022), g.uniform(0.25, 0.6)))
    rows, columns = np.nonzero(front)
    px, py = x[rows, columns], y[rows, columns]
    amount = np.zeros(len(px), np.float32)
    for side, height, radius, strength in spots:
        amount = np.maximum(amount, strength * np.exp(-(((px - side) ** 2 + (py - height) ** 2)
                                                        / radius**2)))  # fmt: skip
    albedo[rows, columns] *= 1 - amount[:, None] * (1 - brown)
    return albedo

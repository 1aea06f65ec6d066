"""Who somebody is: everything about a person that stays the same from photo to photo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Pairs = tuple[tuple[str, float], ...]
Colour = tuple[float, float, float]

# linear RGB albedo of the strands
HAIR_COLOURS: dict[str, Colour] = {
    "black": (0.014, 0.012, 0.012),
    "dark brown": (0.042, 0.023, 0.015),
    "brown": (0.105, 0.052, 0.027),
    "auburn": (0.220, 0.060, 0.028),
    "red": (0.420, 0.130, 0.035),
    "blonde": (0.620, 0.430, 0.200),
    "grey": (0.150, 0.143, 0.135),
    "white": (0.660, 0.630, 0.590),
}
DYED_COLOURS: dict[str, Colour] = {
    "pink": (0.78, 0.17, 0.38),
    "blue": (0.05, 0.15, 0.60),
    "green": (0.06, 0.36, 0.12),
    "purple": (0.26, 0.06, 0.46),
}
SKIN_RAMP = (  # sRGB, lightest to darkest
    (240, 202, 183),
    (229, 182, 155),
    (214, 164, 130),
    (176, 128, 98),
    (128, 91, 71),
    (86, 62, 52),
)
MEN_HAIR: dict[str, float] = {
    "short01": 4, "short02": 4, "short03": 0.25, "short04": 4, "afro01": 0.6, "buzz": 3,
    "bald": 1.6, "long01": 0.8, "ponytail01": 0.5,
}  # fmt: skip
WOMEN_HAIR: dict[str, float] = {"long01": 4, "ponytail01": 3, "braid01": 3}
WOMEN_HAIR |= {"short03": 0.15, "short02": 1, "short04": 0.6, "afro01": 0.8, "buzz": 0.4}
IRISES = ("brown", "brownlight", "blue", "lightblue", "deepblue", "green", "grey", "bluegreen")

# name: spread as a share of the common one; l-/r- shapes are listed once, without the prefix
PAIRED_SHAPES = {
    "cheek-trans-up": 1.0, "cheek-volume-incr": 1.1, "cheek-inner-incr": 1.0,
    "cheek-bones-incr": 1.2, "ear-lobe-incr": 1.0, "ear-shape-round": 0.8,
    "ear-trans-forward": 0.3, "ear-rot-forward": 0.6, "ear-trans-up": 0.7,
    "ear-scale-vert-incr": 0.9, "ear-flap-incr": 0.8, "ear-shape-triangle": 0.8,
    "ear-scale-incr": 0.9, "ear-scale-depth-incr": 0.7, "ear-wing-incr": 0.9,
    "eye-corner1-up": 1.0, "eye-height1-incr": 0.9, "eye-scale-incr": 1.1,
    "eye-push1-out": 0.7, "eye-eyefold-up": 1.0, "eye-height3-incr": 0.9,
    "eye-height2-incr": 0.9, "eye-bag-incr": 0.9, "eye-push2-out": 0.7,
    "eye-trans-up": 0.9, "eye-bag-height-incr": 0.9, "eye-epicanthus-out": 1.0,
    "eye-eyefold-angle-up": 1.0, "eye-bag-out": 0.9, "eye-corner2-up": 1.1,
    "eye-trans-out": 1.3,
}  # fmt: skip
SINGLE_SHAPES = {
    "chin-jaw-drop-incr": 1.0, "chin-height-incr": 1.3, "chin-prominent-incr": 1.2,
    "chin-bones-incr": 1.1, "chin-width-incr": 1.4, "chin-cleft-incr": 1.2,
    "chin-prognathism-incr": 0.8, "eyebrows-angle-up": 1.0, "eyebrows-trans-up": 1.3,
    "eyebrows-trans-forward": 1.0, "forehead-temple-incr": 1.0, "forehead-trans-forward": 0.9,
    "forehead-scale-vert-incr": 1.1, "forehead-nubian-incr": 0.8, "head-angle-out": 0.1,
    "head-scale-vert-incr": 0.9, "head-trans-forward": 0.1, "head-trans-up": 0.1,
    "head-fat-incr": 1.2, "head-trans-out": 0.1, "head-back-scale-depth-incr": 0.5,
    "head-scale-depth-incr": 0.6, "head-scale-horiz-incr": 0.9,
    "mouth-lowerlip-height-incr": 1.1, "mouth-scale-horiz-incr": 1.4,
    "mouth-cupidsbow-incr": 1.1, "mouth-laugh-lines-out": 0.9, "mouth-scale-depth-incr": 0.8,
    "mouth-lowerlip-volume-incr": 1.2, "mouth-angles-up": 0.6, "mouth-upperlip-ext-up": 0.6,
    "mouth-lowerlip-width-incr": 1.0, "mouth-trans-forward": 0.7,
    "mouth-upperlip-width-incr": 1.0, "mouth-scale-vert-incr": 1.0, "mouth-dimples-out": 1.0,
    "mouth-upperlip-height-incr": 1.1, "mouth-upperlip-volume-incr": 1.2,
    "mouth-cupidsbow-width-incr": 1.0, "mouth-lowerlip-ext-up": 0.5, "mouth-trans-up": 1.2,
    "mouth-trans-out": 0.1, "mouth-philtrum-volume-incr": 1.0, "neck-scale-depth-incr": 0.4,
    "neck-trans-forward": 0.1, "neck-double-incr": 0.9, "neck-trans-out": 0.1,
    "neck-back-scale-depth-incr": 0.1, "neck-scale-horiz-incr": 0.6,
    "neck-scale-vert-incr": 0.3, "neck-trans-up": 0.1, "nose-nostrils-angle-up": 1.0,
    "nose-flaring-incr": 1.1, "nose-curve-convex": 1.3, "nose-scale-depth-incr": 1.2,
    "nose-scale-vert-incr": 1.2, "nose-point-width-incr": 1.2, "nose-scale-horiz-incr": 1.3,
    "nose-width1-incr": 1.1, "nose-trans-forward": 0.7, "nose-trans-up": 1.0,
    "nose-hump-incr": 1.3, "nose-nostrils-width-incr": 1.1, "nose-trans-out": 0.1,
    "nose-greek-incr": 1.0, "nose-point-up": 1.2, "nose-width2-incr": 1.1,
    "nose-width3-incr": 1.1, "nose-septumangle-incr": 0.9, "nose-base-up": 0.9,
    "nose-compression-uncompress": 0.7, "nose-volume-incr": 1.1,
}  # fmt: skip
# the base mesh looks stern; people on average do not
USUAL = {"eyebrows-trans-up": 0.22, "eyebrows-angle-up": 0.1, "mouth-angles-up": 0.3,
         "eyebrows-trans-forward": -0.15}  # fmt: skip
SPREAD = 0.32  # 0.27 gave AUC 0.983, 0.38 gave 0.989 but caricatures now and then
LIMIT = 0.8


@dataclass(frozen=True)
class Person:
    """One invented adult.

    Attributes:
        seed: what `sample_person` was given.
        sex: "man" or "woman", as presented.
        age: years, 20 to 78.
        phenotype: arguments of `Basis.shape`.
        face_shapes: the rest of its arguments.
        skin_texture: file name without `_diffuse.png`.
        skin_tone: 0 lightest to 1 darkest.
        skin_rgb: linear albedo.
        iris: name of an iris picture.
        brow: number of an eyebrow mesh, 1 to 12.
        brow_strength: 0 to 1.
        lash: number of an eyelash mesh, 1 to 4.
        hair_style: folder name, "buzz" or "bald".
        hair_colour: word of the natural colour.
        hair_rgb: linear albedo.
        beard: "none", "stubble", "moustache", "goatee" or "beard".
        beard_density: 0 to 1.
        freckles: 0 to 1.
        moles: (side, height, size) in decimetres around the face centre.
        lipstick: linear RGB and strength.
        eyeshadow: linear RGB and strength.
        blush: 0 to 1.
        lip_redness: 0 to 1, of bare lips.
        wrinkles: 0 to 1, depth of the texture's lines.
        ruddiness: 0 to 1, blood in nose, cheeks, ears and chin.
        oiliness: 0.3 to 1.3, how much forehead, nose and cheekbones shine.
        lash_strength: 0 to 1.
        brow_height: decimetres, up from where the mesh lies.
        hair_volume: 1 as the mesh is; 1.15 stands well off the head.
        hair_length: share of a long mesh's length below the chin that is kept.
        hair_wave: decimetres, how far long hair swings from side to side.
        hair_mirrored: whether the parting is on the other side.
        hair_streak: how much lighter some strands are than the rest, a factor.
        hairline: 0 low and straight to 1 far receded at the temples.
        crown: 0 to 1, how bare the top of the head is.
        beard_length: decimetres.
    """

    seed: int
    sex: str
    age: int
    phenotype: Pairs
    face_shapes: Pairs
    skin_texture: str
    skin_tone: float
    skin_rgb: Colour
    iris: str
    brow: int
    brow_strength: float
    lash: int
    hair_style: str
    hair_colour: str
    hair_rgb: Colour
    beard: str
    beard_density: float
    freckles: float
    moles: tuple[tuple[float, float, float], ...]
    lipstick: tuple[float, float, float, float]
    eyeshadow: tuple[float, float, float, float]
    blush: float
    lip_redness: float
    wrinkles: float
    ruddiness: float
    oiliness: float
    lash_strength: float
    brow_height: float
    hair_volume: float
    hair_length: float
    hair_wave: float
    hair_mirrored: bool
    hair_streak: float
    hairline: float
    crown: float
    beard_length: float

    @property
    def age_band(self) -> str:
        """Coarse age, as a stranger would put it."""
        return "young" if self.age < 36 else "middle-aged" if self.age < 58 else "old"

    @property
    def tone_word(self) -> str:
        """Coarse skin tone."""
        return "light" if self.skin_tone < 0.36 else "medium" if self.skin_tone < 0.66 else "dark"


def streak_colour(person: Person, name: str, rgb: Colour) -> Colour:
    """Albedo of the lighter strands: grey hair is dark and white strands mixed.

    Args:
        person: whose hair.
        name: word of the colour as worn.
        rgb: its albedo.
    """
    if name == "grey":
        return (0.50, 0.49, 0.47)
    r, g, b = (min(c * person.hair_streak, 0.85) for c in rgb)
    return (r, g, b)


def linear(srgb: tuple[float, ...]) -> Colour:
    """Turn sRGB 0..255 into linear light 0..1."""
    values = [v / 255 for v in srgb]
    out = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return (out[0], out[1], out[2])


def pick(generator: np.random.Generator, shares: dict[str, float]) -> str:
    """Draw a key in proportion to its share."""
    names = list(shares)
    weights = np.array([shares[n] for n in names], float)
    return names[int(generator.choice(len(names), p=weights / weights.sum()))]


def sample_person(seed: int) -> Person:
    """Invent the person of this seed; the same seed is always the same person."""
    g = np.random.default_rng([seed, 7919])
    sex = "woman" if g.random() < 0.5 else "man"
    age = int(np.clip(g.choice([g.uniform(20, 36), g.uniform(34, 58), g.uniform(56, 78)],
                               p=[0.48, 0.34, 0.18]), 20, 78))  # fmt: skip
    ancestry = g.dirichlet([0.45, 0.45, 0.55])
    tone = _skin_tone(g, ancestry)
    hair_colour = _hair_colour(g, age, tone, ancestry)
    jitter = float(g.uniform(0.8, 1.25))
    hair_rgb = tuple(float(np.clip(c * jitter * g.uniform(0.95, 1.05), 0, 0.85))
                     for c in HAIR_COLOURS[hair_colour])  # fmt: skip
    style = _hair_style(g, sex, age, tone, ancestry)
    beard, density = _beard(g, sex)
    made_up = sex == "woman" and g.random() < 0.6
    # what later versions added draws from its own source, so that earlier traits stay the same
    more = np.random.default_rng([seed, 7919, 2])
    style = _restyle(more, sex, age, style)
    return Person(
        seed=seed,
        sex=sex,
        age=age,
        phenotype=_phenotype(g, sex, age, ancestry),
        face_shapes=_face_shapes(g),
        skin_texture=_skin_texture(g, sex, age, tone),
        skin_tone=tone,
        skin_rgb=_skin_rgb(g, tone),
        iris=_iris(g, tone, ancestry),
        brow=int(g.choice([1, 2, 3, 4, 5, 8, 9, 10, 11, 12] if sex == "man" else range(1, 13))),
        brow_strength=float(g.uniform(0.75, 1.0)),
        lash=int(g.integers(1, 5)) if sex == "woman" else int(g.choice([1, 2])),
        hair_style=style,
        hair_colour=hair_colour,
        hair_rgb=(hair_rgb[0], hair_rgb[1], hair_rgb[2]),
        beard=beard,
        beard_density=density,
        freckles=_freckles(g, tone),
        moles=_moles(g),
        lipstick=_lipstick(g, made_up),
        eyeshadow=_eyeshadow(g, made_up),
        blush=float(g.uniform(0.0, 0.5) + 0.3 * made_up),
        lip_redness=float(g.uniform(0.1, 1.0)),
        wrinkles=float(np.clip((age - 25) / 45 + g.normal(0, 0.15), 0.0, 1.0)),
        ruddiness=float(more.beta(1.6, 2.2)),
        oiliness=float(more.uniform(0.3, 1.3)),
        lash_strength=_lash_strength(more, sex, made_up),
        brow_height=float(more.normal(0.02, 0.015)),
        hair_volume=float(more.uniform(0.98, 1.08)),
        hair_length=float(more.uniform(0.0, 1.0)),
        hair_wave=float(max(0.0, more.normal(0.0, 0.05))),
        hair_mirrored=bool(more.random() < 0.5),
        hair_streak=float(more.uniform(1.15, 1.8)),
        hairline=_hairline(more, sex, age),
        crown=float(np.clip(more.normal((age - 30) / 40, 0.3), 0, 1)) if sex == "man" else 0.0,
        beard_length=_beard_length(more, beard),
    )


def _restyle(g: np.random.Generator, sex: str, age: int, style: str) -> str:
    """Some wear a bob, a crop or a wreath of hair around a bare top instead."""
    if sex == "woman" and style not in ("afro01", "buzz") and g.random() < 0.3:
        return str(g.choice(["bob01", "bob02"]))
    if sex == "woman" and style == "ponytail01" and g.random() < 0.4:
        return "long01"  # from the front a ponytail is a cap, and too many looked like men
    if sex == "man" and style == "buzz" and g.random() < 0.5:
        return "crop"
    if sex == "man" and style in ("short02", "short04", "short01") and g.random() < 0.25:
        return "crop"
    if style == "bald" and g.random() < (0.25 if age < 45 else 0.7):
        return "wreath"
    return style


def _lash_strength(g: np.random.Generator, sex: str, made_up: bool) -> float:
    low, high = (0.2, 0.4) if sex == "man" else (0.65, 0.95) if made_up else (0.35, 0.6)
    return float(g.uniform(low, high))


def _hairline(g: np.random.Generator, sex: str, age: int) -> float:
    usual = 0.15 if sex == "woman" else 0.25 + 0.5 * np.clip((age - 25) / 45, 0, 1)
    return float(np.clip(g.normal(usual, 0.15 if sex == "woman" else 0.22), 0, 1))


def _beard_length(g: np.random.Generator, beard: str) -> float:
    low, high = {"none": (0.0, 0.0), "stubble": (0.008, 0.016), "moustache": (0.02, 0.05),
                 "goatee": (0.02, 0.08), "beard": (0.025, 0.15)}[beard]  # fmt: skip
    return float(low + (high - low) * g.random() ** 2)


def _phenotype(g: np.random.Generator, sex: str, age: int, ancestry: np.ndarray) -> Pairs:
    gender = g.beta(1.2, 9) if sex == "man" else 1 - g.beta(1.2, 9)
    values = {
        "gender": float(gender),
        "age": float(2 / 3 + (age - 25) / 65 / 3),
        "muscle": float(np.clip(g.normal(0.5, 0.18), 0.1, 0.95)),
        "weight": float(np.clip(g.normal(0.5, 0.2), 0.08, 0.98)),
        "height": float(np.clip(g.normal(0.5, 0.12), 0.2, 0.8)),
        "proportions": float(g.uniform(0.1, 0.7)),
        "cupsize": float(g.uniform(0.2, 0.55)),
        "firmness": float(g.uniform(0.4, 0.7)),
        "african": float(ancestry[0]),
        "asian": float(ancestry[1]),
        "caucasian": float(ancestry[2]),
    }
    return tuple(values.items())


def _face_shapes(g: np.random.Generator) -> Pairs:
    shapes: list[tuple[str, float]] = []
    for name, share in SINGLE_SHAPES.items():
        value = g.normal(USUAL.get(name, 0.0), SPREAD * share)
        shapes.append((name, float(np.clip(value, -LIMIT, LIMIT))))
    for name, share in PAIRED_SHAPES.items():
        both = g.normal(0, SPREAD * share)
        for side in "lr":
            amount = np.clip(both + g.normal(0, 0.04), -LIMIT, LIMIT)
            shapes.append((f"{side}-{name}", float(amount)))
    return tuple(shapes)


def _skin_tone(g: np.random.Generator, ancestry: np.ndarray) -> float:
    centre = ancestry @ np.array([0.82, 0.34, 0.22])
    return float(np.clip(centre + g.normal(0, 0.12), 0.0, 1.0))


def _skin_rgb(g: np.random.Generator, tone: float) -> Colour:
    ramp = np.array(SKIN_RAMP, float)
    position = tone * (len(ramp) - 1)
    colour = [float(np.interp(position, range(len(ramp)), ramp[:, c])) for c in range(3)]
    r, gr, b = linear((colour[0], colour[1], colour[2]))
    warm, red = float(g.normal(-0.02, 0.03)), float(g.normal(0.06, 0.03))
    return (r * (1 + red), gr * (1 - 0.3 * red), b * (1 - warm - 0.3 * red))


def _skin_texture(g: np.random.Generator, sex: str, age: int, tone: float) -> str:
    band = "young" if age < 36 else "middleage" if age < 58 else "old"
    gender = "female" if sex == "woman" else "male"
    if tone > 0.68:
        return f"{band}_darkskinned_{gender}"
    variant = {"young": ("", "2", "3"), "middleage": ("", "2"), "old": ("", "2")}[band]
    return f"{band}_lightskinned_{gender}|{g.choice(variant)}"


def _hair_colour(g: np.random.Generator, age: int, tone: float, ancestry: np.ndarray) -> str:
    if g.random() < np.clip((age - 46) / 40, 0.0, 0.85):
        return str(g.choice(["grey", "white", "grey"]))
    if tone > 0.5 or ancestry[2] < 0.35:
        return pick(g, {"black": 6, "dark brown": 3, "brown": 0.8})
    return pick(g, {"black": 1.2, "dark brown": 2.5, "brown": 2.6, "auburn": 1.3, "red": 1.4,
                    "blonde": 3})  # fmt: skip


def _hair_style(
    g: np.random.Generator, sex: str, age: int, tone: float, ancestry: np.ndarray
) -> str:
    shares = dict(MEN_HAIR if sex == "man" else WOMEN_HAIR)
    if ancestry[0] > 0.5 and tone > 0.6:
        shares["afro01"] = 4
        shares["buzz"] = shares["buzz"] * 2
    if sex == "man" and age > 45:
        shares["bald"] = shares["bald"] * 2.5
        shares["long01"] = 0.2
    return pick(g, {name: float(share) for name, share in shares.items()})


def _beard(g: np.random.Generator, sex: str) -> tuple[str, float]:
    if sex == "woman":
        return "none", 0.0
    kind = pick(g, {"none": 4, "stubble": 3, "moustache": 0.9, "goatee": 1, "beard": 2.4})
    low, high = {"none": (0.0, 0.12), "stubble": (0.25, 0.5)}.get(kind, (0.72, 1.0))
    return kind, float(g.uniform(low, high))


def _iris(g: np.random.Generator, tone: float, ancestry: np.ndarray) -> str:
    if tone > 0.5 or ancestry[2] < 0.4:
        return pick(g, {"brown": 6, "brownlight": 2})
    return pick(g, {"brown": 2, "brownlight": 1.5, "blue": 2, "lightblue": 0.8, "deepblue": 0.8,
                    "green": 1.5, "grey": 1.2, "bluegreen": 0.8})  # fmt: skip


def _freckles(g: np.random.Generator, tone: float) -> float:
    return float(g.uniform(0.4, 1.0)) if g.random() < (0.3 if tone < 0.3 else 0.06) else 0.0


def _moles(g: np.random.Generator) -> tuple[tuple[float, float, float], ...]:
    count = int(g.choice([0, 1, 2, 3], p=[0.35, 0.35, 0.2, 0.1]))
    return tuple((float(g.uniform(-0.55, 0.55)), float(g.uniform(-0.7, 0.75)),
                  float(g.uniform(0.018, 0.035))) for _ in range(count))  # fmt: skip


def _lipstick(g: np.random.Generator, made_up: bool) -> tuple[float, float, float, float]:
    colours = [(0.45, 0.02, 0.04), (0.55, 0.09, 0.14), (0.30, 0.02, 0.06), (0.50, 0.16, 0.12),
               (0.18, 0.02, 0.05)]  # fmt: skip
    r, gr, b = colours[int(g.integers(len(colours)))]
    return (r, gr, b, float(g.uniform(0.35, 0.85)) if made_up and g.random() < 0.7 else 0.0)


def _eyeshadow(g: np.random.Generator, made_up: bool) -> tuple[float, float, float, float]:
    colours = [(0.03, 0.02, 0.02), (0.18, 0.08, 0.05), (0.20, 0.07, 0.14), (0.05, 0.09, 0.16)]
    r, gr, b = colours[int(g.integers(len(colours)))]
    return (r, gr, b, float(g.uniform(0.2, 0.6)) if made_up and g.random() < 0.6 else 0.0)

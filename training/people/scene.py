"""How somebody is photographed: expression, pose, framing, clothes, place, light and style."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.people.camera import Lens, sample_lens
from training.people.person import (
    DYED_COLOURS,
    HAIR_COLOURS,
    Colour,
    Pairs,
    Person,
    pick,
)

# file name of the environment: how a sentence may name it
PLACES: dict[str, tuple[str, ...]] = {
    "apartment": ("in an apartment", "at home in a bright apartment", "in an empty living room"),
    "bridge": ("on a covered bridge", "on a glass footbridge", "on an indoor bridge"),
    "city": ("in the city", "on a city square", "among city buildings"),
    "dawn": ("in a field at dawn", "in a rocky field at dawn", "outdoors at dawn"),
    "esplanade": ("in a shopping mall", "on an indoor esplanade", "in a shopping arcade"),
    "forest": ("in a forest", "in the woods", "among the trees of a forest"),
    "hall": ("in a ballroom", "in a large hall", "in an event hall"),
    "lab": ("in a laboratory", "in a green laboratory", "in an old lab"),
    "lobby": ("in a lobby", "in an office lobby", "in a bright lobby"),
    "night": ("outdoors at night", "in a field at night", "on a dark night"),
    "park": ("in a park", "on a green lawn", "in a sunny park"),
    "sky": ("under a cloudy sky", "under a blue sky with clouds", "above the sea"),
    "studio": ("in a photo studio", "in a studio", "under studio lights"),
    "sunrise": ("in a meadow at sunrise", "at sunrise", "in the morning sun"),
    "sunset": ("on a town square at sunset", "at sunset", "in an old square at sunset"),
    "venice": ("by the sea in the evening", "on a waterfront at dusk", "by the water at dusk"),
    "warehouse": ("in a warehouse", "in an empty warehouse", "in a concrete warehouse"),
    "workshop": ("in a workshop", "in a factory workshop", "in a large workshop"),
}
OUTDOORS = ("city", "dawn", "forest", "night", "park", "sky", "sunrise", "sunset", "venice")

EXPRESSIONS: dict[str, Pairs] = {
    "neutral": (),
    "soft smile": (("mouthSmile", 0.6), ("cheekSquint", 0.35)),
    "smiling": (("mouthSmile", 1.1), ("cheekSquint", 0.75), ("mouthDimple", 0.3)),
    "laughing": (("mouthSmile", 1.25), ("cheekSquint", 0.8), ("jawOpen", 0.42),
                 ("mouthUpperUp", 0.5), ("mouthLowerDown", 0.2), ("eyeSquint", 0.3)),
    "surprised": (("jawOpen", 0.55), ("browInnerUp", 1.7), ("browOuterUp", 1.4), ("eyeWide", 0.9)),
    "angry": (("browDown", 0.95), ("noseSneer", 0.6), ("mouthFrown", 0.5), ("mouthPress", 0.6),
              ("eyeSquint", 0.35)),
    "sad": (("browInnerUp", 2.0), ("mouthFrown", 0.85), ("mouthShrugLower", 0.45),
            ("eyeSquint", 0.15)),
    "kissing": (("mouthPucker", 1.5), ("mouthFunnel", 0.55), ("browInnerUp", 0.5),
                ("eyeBlink", 0.2)),
}  # fmt: skip
SINGLE_ACTIONS = ("browInnerUp", "jawOpen", "mouthPucker", "mouthShrugLower", "mouthShrugUpper",
                  "mouthFunnel", "mouthClose", "jawForward", "cheekPuff", "tongueOut")  # fmt: skip

CLOTHING_COLOURS: dict[str, Colour] = {
    "red": (0.52, 0.03, 0.03),
    "blue": (0.04, 0.10, 0.45),
    "green": (0.04, 0.26, 0.07),
    "white": (0.78, 0.78, 0.77),
    "black": (0.016, 0.016, 0.018),
    "yellow": (0.80, 0.52, 0.05),
    "orange": (0.75, 0.20, 0.02),
    "pink": (0.80, 0.28, 0.42),
    "purple": (0.20, 0.05, 0.36),
    "grey": (0.21, 0.21, 0.22),
    "brown": (0.17, 0.08, 0.04),
}
# folder: what one would call what is seen of it
GARMENTS: dict[str, str] = {
    "female_casualsuit01": "t-shirt", "female_casualsuit02": "t-shirt",
    "female_elegantsuit01": "striped shirt", "female_sportsuit01": "t-shirt",
    "male_casualsuit01": "shirt", "male_casualsuit02": "t-shirt",
    "male_casualsuit03": "striped shirt", "male_casualsuit04": "t-shirt",
    "male_casualsuit05": "jacket", "male_casualsuit06": "t-shirt",
    "male_elegantsuit01": "suit", "male_worksuit01": "overalls",
}  # fmt: skip
STYLES = ("colour photo", "black and white", "warm film", "cool film", "high contrast", "faded",
          "sepia")  # fmt: skip
# how the head is lit beside what the place gives: share of scenes
LAMPS = {"place": 5.0, "window": 2.2, "rim": 1.6, "flash": 0.9}
FRAMINGS = {"close-up": 0.66, "portrait": 0.545, "head and shoulders": 0.44, "upper body": 0.33}
# Degrees a face is turned at most: farther, or from behind hair that falls beside it, one eye is
# hidden, and nobody keeps such a photo of a friend.
FARTHEST_TURN, FARTHEST_TURN_BESIDE_HAIR = 30, 18
BESIDE_THE_FACE = ("bob01", "bob02", "braid01")


@dataclass(frozen=True)
class Scene:
    """One photo of one person. Angles in degrees; all colours linear RGB.

    Attributes:
        seed: what `sample_scene` was given.
        kind: "selfie" or "scene".
        expression: a key of `EXPRESSIONS`.
        actions: facial actions with their amounts.
        gaze: right and up, degrees away from the camera.
        head: yaw, pitch, roll of the head; positive yaw turns to the person's left.
        body_yaw: turn of the shoulders.
        framing: a key of `FRAMINGS`.
        face_share: width of the face as a share of the picture.
        offset: where the face stands, as shares of the picture right and up of the centre.
        distance: camera to face, dm.
        camera_pitch: how much the camera looks down.
        hair_colour: as worn in this photo.
        hair_rgb: its albedo.
        hair_changed: whether it differs from the person's own.
        glasses: "none", "round", "square" or "sunglasses".
        glasses_rgb: frame colour.
        hat: "none" or "fedora".
        garment: a key of `GARMENTS`.
        clothing_colour: a key of `CLOTHING_COLOURS`.
        clothing_rgb: its albedo.
        place: a key of `PLACES`.
        light_azimuth: where the light comes from; 0 behind the camera, positive to the right.
        exposure: stops around the metered value.
        fill: share of light that comes from the camera's side whatever the place.
        blur: mip level of the background.
        background_spread: how much of the place the background shows, times the lens's angle.
        style: one of `STYLES`.
        grain: standard deviation of noise, in 0..1.
        vignette: 0 to 1.
        lamp: a key of `LAMPS`.
        lamp_side: -1 left, 1 right: where a window or a rim light stands.
        lamp_softness: width of shadow edges in texels of the shadow map.
        lamp_strength: of a window, rim light or flash, times the usual one.
        pane: 1 where eyes mirror a window, 0 a round lamp.
        white_balance: 0 keeps the light's colour, 1 takes it all out.
        shine: how much skin shines in this photo, times the person's own.
        second_rgb: albedo of a shirt under a jacket, or of a trim.
        pattern: of the cloth: stripes a decimetre (negative: half width of a print in
            decimetres), height of the print or direction of the stripes, threshold.
        pattern_rgb: its albedo.
        lens: see `camera.Lens`.
    """

    seed: int
    kind: str
    expression: str
    actions: Pairs
    gaze: tuple[float, float]
    head: tuple[float, float, float]
    body_yaw: float
    framing: str
    face_share: float
    offset: tuple[float, float]
    distance: float
    camera_pitch: float
    hair_colour: str
    hair_rgb: Colour
    hair_changed: bool
    glasses: str
    glasses_rgb: Colour
    hat: str
    garment: str
    clothing_colour: str
    clothing_rgb: Colour
    place: str
    light_azimuth: float
    exposure: float
    fill: float
    blur: float
    background_spread: float
    style: str
    grain: float
    vignette: float
    lamp: str
    lamp_side: float
    lamp_softness: float
    lamp_strength: float
    pane: float
    white_balance: float
    shine: float
    second_rgb: Colour
    pattern: tuple[float, float, float]
    pattern_rgb: Colour
    lens: Lens

    @property
    def view(self) -> str:
        """How the face is turned, as the camera sees it."""
        turn = abs(self.head[0] + self.body_yaw)
        return "frontal" if turn < 14 else "slightly turned" if turn < 30 else "three-quarter"


def sample_scene(person: Person, seed: int, kind: str = "scene") -> Scene:
    """Invent a photo of this person; the same arguments always give the same photo."""
    g = np.random.default_rng([person.seed, seed, 0 if kind == "selfie" else 1, 15485863])
    selfie = kind == "selfie"
    expression = _expression(g, selfie)
    framing = pick(
        g,
        {"close-up": 3, "portrait": 6, "head and shoulders": 0.6}
        if selfie
        else {"close-up": 2.6, "portrait": 5, "head and shoulders": 1.8, "upper body": 0.6},
    )
    place = str(g.choice(sorted(PLACES)))
    hair_colour, hair_rgb, changed = _hair(g, person, selfie)
    glasses = pick(
        g,
        {"none": 15, "round": 1, "square": 1.5}
        if selfie
        else {"none": 7, "round": 1.2, "square": 1.4, "sunglasses": 0.8},
    )
    hatless = person.hair_style in ("afro01", "bob01", "bob02") or selfie
    hat = "none" if hatless else pick(g, {"none": 10, "fedora": 1})
    clothing = str(g.choice(sorted(CLOTHING_COLOURS)))
    yaw, body_yaw = _turn(g, person, selfie)
    scale = float(g.uniform(0.85, 1.15))
    rgb = tuple(float(np.clip(c * scale, 0, 0.85)) for c in CLOTHING_COLOURS[clothing])
    # what later versions added draws from its own source, so that earlier choices stay the same
    more = np.random.default_rng([person.seed, seed, 2 if selfie else 3, 15485863])
    lamp = pick(more, LAMPS)
    pattern, pattern_rgb = _pattern(more, clothing)
    return Scene(
        seed=seed,
        kind=kind,
        expression=expression,
        actions=_actions(g, expression),
        gaze=_gaze(g, selfie),
        head=(yaw, float(g.normal(0, 5 if selfie else 6.5)), float(g.normal(0, 4))),
        body_yaw=body_yaw,
        framing=framing,
        face_share=FRAMINGS[framing] * float(g.uniform(0.94, 1.07)),
        offset=(float(g.normal(0, 0.02)), float(g.normal(0.0, 0.015))),
        distance=float(g.uniform(5.5, 8) if selfie else g.uniform(8, 15)),
        camera_pitch=float(g.normal(2, 4)),
        hair_colour=hair_colour,
        hair_rgb=hair_rgb,
        hair_changed=changed,
        glasses=glasses,
        glasses_rgb=_frame_colour(g),
        hat=hat,
        garment=_garment(g, person),
        clothing_colour=clothing,
        clothing_rgb=(rgb[0], rgb[1], rgb[2]),
        place=place,
        light_azimuth=_light(g, place),
        exposure=float(np.clip(g.normal(0, 0.16), -0.3, 0.35)),
        fill=float(g.uniform(0.12, 0.3)),
        blur=float(g.uniform(0.0, 1.2)),
        background_spread=float(g.uniform(2.0, 3.2)),
        style="colour photo" if selfie else pick(g, {
            "colour photo": 11, "black and white": 1.7, "warm film": 1.2, "cool film": 1.1,
            "high contrast": 1, "faded": 0.7, "sepia": 0.6}),
        grain=float(abs(g.normal(0, 0.008))),
        vignette=float(g.uniform(0, 0.25)),
        lamp=lamp,
        lamp_side=float(more.choice([-1.0, 1.0])),
        lamp_softness=float(more.uniform(1.2, 2.2) if lamp == "flash" else more.uniform(1.5, 7.0)),
        lamp_strength=float(more.uniform(0.6, 1.4)),
        pane=float(more.random() < 0.5),
        white_balance=float(np.clip(more.normal(0.78, 0.12), 0.45, 0.95)),
        shine=float(more.uniform(0.5, 1.5)),
        second_rgb=_second_colour(more),
        pattern=pattern,
        pattern_rgb=pattern_rgb,
        lens=sample_lens(more, selfie),
    )  # fmt: skip


def _expression(g: np.random.Generator, selfie: bool) -> str:
    if selfie:
        return pick(g, {"neutral": 5, "soft smile": 4, "smiling": 1})
    return pick(g, {"neutral": 4, "soft smile": 1.5, "smiling": 3.2, "laughing": 2.2,
                    "surprised": 1.6, "angry": 1.6, "sad": 1.5, "kissing": 0.5})  # fmt: skip


def _actions(g: np.random.Generator, expression: str) -> Pairs:
    strength = float(g.uniform(0.75, 1.05))
    amounts: dict[str, float] = {}
    for name, amount in EXPRESSIONS[expression]:
        value = amount * strength * float(g.uniform(0.9, 1.1))
        _add(amounts, g, name, value)
    if expression not in ("angry", "sad"):
        _add(amounts, g, "browInnerUp", 0.2)
        _add(amounts, g, "mouthSmile", 0.0 if expression == "kissing" else 0.18)
    _add(amounts, g, "eyeWide", float(g.uniform(0.0, 0.25)))
    _add(amounts, g, "browOuterUp", float(max(0.0, g.normal(0, 0.08))))
    return tuple((name, min(value, 2.2)) for name, value in amounts.items())


def _add(amounts: dict[str, float], g: np.random.Generator, name: str, value: float) -> None:
    sides = (name,) if name in SINGLE_ACTIONS else (name + "Left", name + "Right")
    for side in sides:
        amounts[side] = amounts.get(side, 0.0) + value * float(g.uniform(0.93, 1.07))


def _gaze(g: np.random.Generator, selfie: bool) -> tuple[float, float]:
    if selfie or g.random() < 0.8:
        return (float(g.normal(0, 1.5)), float(g.normal(0, 1.0)))
    return (float(g.uniform(-18, 18)), float(g.uniform(-6, 6)))


def _turn(g: np.random.Generator, person: Person, selfie: bool) -> tuple[float, float]:
    body = float(np.clip(g.normal(0, 9 if selfie else 14), -35, 35))
    limit, usual = (26, 11) if selfie else (FARTHEST_TURN, 16)
    if person.hair_style in BESIDE_THE_FACE:
        limit, usual = FARTHEST_TURN_BESIDE_HAIR, 8
    face = float(np.clip(g.normal(0, usual), -limit, limit))
    return face - body, body


def _hair(g: np.random.Generator, person: Person, selfie: bool) -> tuple[str, Colour, bool]:
    bare = person.hair_style in ("bald", "buzz", "wreath")
    if selfie or bare or g.random() > 0.17:
        return person.hair_colour, person.hair_rgb, False
    colours = {**HAIR_COLOURS, **DYED_COLOURS}
    names = [n for n in colours if n != person.hair_colour and n not in ("grey", "white")]
    name = str(g.choice(names))
    return name, colours[name], True


def _frame_colour(g: np.random.Generator) -> Colour:
    colours = ((0.01, 0.01, 0.01), (0.10, 0.04, 0.02), (0.30, 0.25, 0.18), (0.02, 0.04, 0.12),
               (0.25, 0.02, 0.03))  # fmt: skip
    return colours[int(g.choice(len(colours), p=[0.5, 0.2, 0.12, 0.1, 0.08]))]


def _garment(g: np.random.Generator, person: Person) -> str:
    prefix = "female" if person.sex == "woman" else "male"
    names = [name for name in GARMENTS if name.startswith(prefix)]
    return str(g.choice(names))


def _second_colour(g: np.random.Generator) -> Colour:
    """Of a shirt under a jacket, or of a trim: mostly white or dark."""
    colours = ((0.75, 0.75, 0.74), (0.02, 0.02, 0.022), (0.45, 0.55, 0.70), (0.10, 0.11, 0.13),
               (0.55, 0.45, 0.42), (0.03, 0.05, 0.12))  # fmt: skip
    return colours[int(g.choice(len(colours), p=[0.4, 0.2, 0.15, 0.1, 0.08, 0.07]))]


def _pattern(g: np.random.Generator, clothing: str) -> tuple[tuple[float, float, float], Colour]:
    """Plain most of the time; else stripes or a print that leaves the named colour in charge."""
    pale = (0.75, 0.75, 0.72)
    dark = (0.03, 0.03, 0.04)
    rgb = dark if clothing in ("white", "yellow", "pink", "orange") else pale
    if g.random() < 0.3:
        rgb = _second_colour(g)
    kind = pick(g, {"plain": 6, "stripes": 1, "print": 2})
    if kind == "stripes":
        return (
            float(g.uniform(1.5, 6)),
            float(g.choice([0.0, 1.0])),
            float(g.uniform(0.6, 0.9)),
        ), rgb
    if kind == "print":
        width, height = float(g.uniform(0.35, 0.8)), float(g.uniform(-3.6, -2.6))
        return (-width, height, float(g.uniform(0.4, 0.7))), rgb
    return (0.0, 0.0, 0.0), rgb


def _light(g: np.random.Generator, place: str) -> float:
    if place in ("sunset", "sunrise", "dawn") and g.random() < 0.35:
        return float(g.choice([-1, 1]) * g.uniform(130, 180))  # the sun is seen behind
    if g.random() < 0.1:
        return float(g.choice([-1, 1]) * g.uniform(95, 150))
    return float(np.clip(g.normal(0, 40), -80, 80))


def facts(person: Person, scene: Scene) -> dict[str, str]:
    """What a classifier may learn to read from this photo, one word or phrase each."""
    hidden = HAIR_WORDS[person.hair_style] == "bald"
    return {
        "sex": person.sex,
        "age_band": person.age_band,
        "skin_tone": person.tone_word,
        "hair_colour": "none" if hidden else scene.hair_colour,
        "hair_style": HAIR_WORDS[person.hair_style],
        "expression": scene.expression,
        "place": scene.place,
        "time_of_day": TIMES.get(scene.place, "indoors"),
        "glasses": scene.glasses,
        "hat": scene.hat,
        "garment": GARMENTS[scene.garment],
        "clothing_colour": scene.clothing_colour,
        "beard": person.beard,
        "style": scene.style,
        "framing": scene.framing,
        "view": scene.view,
    }


TIMES = {"night": "night", "dawn": "morning", "sunrise": "morning", "sunset": "evening",
         "venice": "evening", "city": "day", "forest": "day", "park": "day",
         "sky": "day"}  # fmt: skip

HAIR_WORDS = {
    "short01": "short", "short02": "short", "short03": "short", "short04": "short",
    "afro01": "afro", "braid01": "side-swept", "ponytail01": "ponytail", "long01": "long",
    "bob01": "bob", "bob02": "bob", "buzz": "shaved", "bald": "bald",
    "crop": "short", "wreath": "bald",
}  # fmt: skip

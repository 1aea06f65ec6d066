"""Words for a photo, as different people would write them; only what holds is said.

A caption is a subject with a few details, put in one of several orders. Much is left out on
purpose, so that a model learns to fill in what a prompt does not say.
"""

from __future__ import annotations

import numpy as np

from training.people.person import Person
from training.people.scene import GARMENTS, HAIR_WORDS, PLACES, Scene

EXPRESSION_WORDS: dict[str, tuple[str, ...]] = {
    "neutral": ("with a neutral expression", "looking calm", "with a serious face",
                "not smiling", "with a relaxed face"),
    "soft smile": ("with a soft smile", "smiling softly", "with a faint smile",
                   "smiling gently"),
    "smiling": ("smiling", "with a smile", "with a friendly smile", "looking happy"),
    "laughing": ("laughing", "with a big smile", "with a wide open smile", "laughing happily"),
    "surprised": ("looking surprised", "with a surprised face", "with an astonished look",
                  "surprised, with raised eyebrows"),
    "angry": ("looking angry", "with an angry face", "frowning angrily", "with an angry look"),
    "sad": ("looking sad", "with a sad face", "with a sad expression", "looking unhappy"),
    "kissing": ("blowing a kiss", "with pursed lips", "making a kissing face"),
}  # fmt: skip
STYLE_PREFIXES: dict[str, tuple[str, ...]] = {
    "colour photo": ("a photo of", "a colour photo of", "a picture of", "a portrait of", ""),
    "black and white": ("a black and white photo of", "a monochrome portrait of",
                        "a black-and-white picture of"),
    "warm film": ("a warm film photo of", "an analogue photo in warm colours of",
                  "a warm-toned photo of"),
    "cool film": ("a cool film photo of", "a photo in cool blue tones of",
                  "a cool-toned portrait of"),
    "high contrast": ("a high-contrast photo of", "a dramatic high contrast portrait of"),
    "faded": ("a faded photo of", "a washed-out photo of", "a faded old photo of"),
    "sepia": ("a sepia photo of", "an old sepia portrait of", "a sepia-toned picture of"),
}  # fmt: skip
STYLE_SUFFIXES: dict[str, tuple[str, ...]] = {
    "black and white": ("black and white", "in black and white", "monochrome"),
    "warm film": ("warm film", "in warm film colours", "warm tones"),
    "cool film": ("cool film", "in cool tones", "cool blue tones"),
    "high contrast": ("high contrast", "in high contrast"),
    "faded": ("faded colours", "washed-out colours", "faded"),
    "sepia": ("sepia", "in sepia", "sepia tones"),
}
GLASSES_WORDS: dict[str, tuple[str, ...]] = {
    "round": ("round glasses", "glasses with round frames", "glasses"),
    "square": ("square glasses", "glasses with square frames", "glasses"),
    "sunglasses": ("sunglasses", "dark sunglasses"),
}
FRAMING_WORDS: dict[str, tuple[str, ...]] = {
    "close-up": ("close-up", "a close-up", "close-up of the face"),
    "portrait": ("portrait", "headshot"),
    "head and shoulders": ("head and shoulders", "head-and-shoulders shot"),
    "upper body": ("upper body", "upper-body shot", "half-length shot"),
}
VIEW_WORDS: dict[str, tuple[str, ...]] = {
    "frontal": ("facing the camera", "seen from the front"),
    "slightly turned": ("turned slightly to the side",),
    "three-quarter": ("in three-quarter view", "turned to the side"),
}
HAIR_NOUNS: dict[str, tuple[str, ...]] = {
    "short": ("{c} short hair", "short {c} hair", "{c} hair"),
    "long": ("long {c} hair", "{c} hair"),
    "ponytail": ("a {c} ponytail", "{c} hair in a ponytail", "{c} hair"),
    "side-swept": ("side-swept {c} hair", "{c} hair swept to one side", "{c} hair"),
    "bob": ("a {c} bob", "a {c} bob haircut", "{c} hair"),
    "afro": ("a {c} afro", "{c} afro hair", "{c} curly hair"),
    "shaved": ("very short {c} hair", "shaved {c} hair", "a buzz cut"),
    "bald": ("a bald head", "no hair"),
}
BEARD_WORDS = {"beard": ("a beard",), "goatee": ("a goatee",), "moustache": ("a moustache",),
               "stubble": ("stubble", "a short stubble")}  # fmt: skip


class _Words:
    """Draws words; one generator per caption."""

    def __init__(self, seeds: list[int]) -> None:
        self.generator = np.random.default_rng(seeds)

    def maybe(self, chance: float) -> bool:
        return bool(self.generator.random() < chance)

    def one(self, options: tuple[str, ...]) -> str:
        return options[int(self.generator.integers(len(options)))]


def write_caption(person: Person, scene: Scene, seed: int) -> str:
    """Describe a photo in about 5 to 25 words.

    Args:
        person: who is seen.
        scene: how.
        seed: another seed gives other words for the same photo.
    """
    words = _Words([person.seed, scene.seed, seed, 32452843])
    details = _details(words, person, scene)
    subject = _subject(words, person)
    place = words.one(PLACES[scene.place]) if words.maybe(0.8) else ""
    prefix = words.one(STYLE_PREFIXES[scene.style]) if words.maybe(0.5) else ""
    suffix = ""
    if scene.style in STYLE_SUFFIXES and not _says_style(prefix, scene.style):
        prefix = "" if prefix and scene.style != "colour photo" else prefix
        suffix = words.one(STYLE_SUFFIXES[scene.style]) if words.maybe(0.92) else ""
    text = _order(words, prefix, subject, details, place, scene)
    if suffix:
        text += ", " + suffix
    return _finish(words, text)


def _says_style(prefix: str, style: str) -> bool:
    return bool(prefix) and prefix in STYLE_PREFIXES[style] and style != "colour photo"


def _subject(words: _Words, person: Person) -> str:
    man = person.sex == "man"
    age = {"young": "young ", "middle-aged": "middle-aged ", "old": "old "}[person.age_band]
    noun = "man" if man else "woman"
    aged = age + noun if words.maybe(0.35) else noun
    article = "an" if aged[0] in "aeiou" else "a"
    plain = (f"{article} {aged}", f"the {aged}", f"{article} {aged}", "me", "a person",
             "the person", "me", "someone")  # fmt: skip
    return words.one(plain)


def _details(words: _Words, person: Person, scene: Scene) -> list[str]:
    details: list[str] = []
    pronounced = scene.expression not in ("neutral", "soft smile")
    if words.maybe(0.85 if pronounced else 0.4):
        details.append(words.one(EXPRESSION_WORDS[scene.expression]))
    if words.maybe(0.9 if scene.hair_changed else 0.25):
        details.append("with " + _hair(words, person, scene))
    worn = []
    if scene.glasses != "none" and words.maybe(0.88):
        worn.append(words.one(GLASSES_WORDS[scene.glasses]))
    if scene.hat != "none" and words.maybe(0.9):
        worn.append(words.one(("a hat", "a fedora", "a felt hat")))
    if words.maybe(0.6):
        worn.append(_clothes(words, scene))
    if worn:
        order = words.generator.permutation(len(worn))
        details.append(words.one(("wearing ", "in ", "wearing ")) + _list([worn[i] for i in order]))
    if person.beard in BEARD_WORDS and words.maybe(0.18):
        details.append("with " + words.one(BEARD_WORDS[person.beard]))
    if words.maybe(0.14):
        details.append(words.one(VIEW_WORDS[scene.view]))
    order = words.generator.permutation(len(details))
    return [details[i] for i in order]


def _hair(words: _Words, person: Person, scene: Scene) -> str:
    style = HAIR_WORDS[person.hair_style]
    nouns = HAIR_NOUNS[style]
    colour = (
        "dyed " + scene.hair_colour
        if scene.hair_changed and words.maybe(0.2)
        else (scene.hair_colour)
    )
    text = words.one(nouns if not scene.hair_changed else nouns[:2]).format(c=colour)
    return text.replace("a auburn", "an auburn")


def _clothes(words: _Words, scene: Scene) -> str:
    colour, garment = scene.clothing_colour, GARMENTS[scene.garment]
    article = "an" if colour[0] in "aeiou" else "a"
    if garment == "overalls":
        return words.one((f"{colour} overalls", f"{colour} clothes"))
    return words.one((f"{article} {colour} {garment}", f"{article} {colour} {garment}",
                      f"{article} {colour} top", f"{colour} clothes"))  # fmt: skip


def _list(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _order(
    words: _Words, prefix: str, subject: str, details: list[str], place: str, scene: Scene
) -> str:
    body = " ".join(filter(None, [subject, *_joined(words, details)]))
    framed = f"{words.one(FRAMING_WORDS[scene.framing])}" if words.maybe(0.22) else ""
    first = " ".join(filter(None, [prefix, body]))
    if place and words.maybe(0.18):
        text = f"{place}, {first}"
    elif place and details and words.maybe(0.35):
        text = " ".join([*filter(None, [prefix, subject, place]), ""]).strip()
        text += ", " + ", ".join(details)
    else:
        text = " ".join(filter(None, [first, place]))
    return (
        f"{framed}, {text}"
        if framed and words.maybe(0.5)
        else (f"{text}, {framed}" if framed else text)
    )


def _joined(words: _Words, details: list[str]) -> list[str]:
    """Details run on, or are set apart by commas."""
    if len(details) > 1 and words.maybe(0.5):
        return [", ".join(details)]
    return details


def _finish(words: _Words, text: str) -> str:
    text = text.strip().strip(",")
    if words.maybe(0.45):
        text = text[0].upper() + text[1:]
    return text + "." if words.maybe(0.2) else text

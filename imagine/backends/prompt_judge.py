"""How well a picture shows its prompt: what the prompt asks, and whether it is to be seen.

Knows only what its small network was taught on rendered people (expression, place, hair colour,
glasses, hat, clothing colour, style). A prompt that asks none of these cannot be judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from imagine.backends.weight_files import OWN_MODELS
from imagine.core import ImageArray
from imagine.errors import CorruptWeights, MissingWeights
from imagine.models.attribute_judge import AttributeJudge
from imagine.settings import Settings

JUDGE_FOLDER = "attribute-judge"

# attribute -> what words (a regular expression, matched at word boundaries) -> classes that show
# it. Several classes where the word does not tell them apart: whoever asks for a smile is content
# with a soft one and with a laugh. Earlier lines win, so "night" never hides "city at night".
_SMILES = ("smiling", "soft smile", "laughing")
EXPRESSION_WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"not smiling|unsmiling|without a smile|no smile", ("neutral",)),
    (r"laugh\w*|cracking up|burst\w* out", ("laughing",)),
    (r"(big|wide|broad|wide open|huge) (smile|grin)", ("laughing", "smiling")),
    (r"(soft|slight|faint|gentle|small|hint of a|little|calm|shy) smile|smiling "
     r"(softly|slightly|faintly|gently|a little)|(softly|slightly|faintly|gently) smiling",
     ("soft smile", "smiling")),
    (r"smil\w*|grin\w*|beaming|happy|happily|cheerful\w*|joyful\w*", _SMILES),
    (r"surpris\w*|astonish\w*|amaze\w*|shocked|startled|stunned", ("surprised",)),
    (r"angry|angrily|furious\w*|anger|(very|so|rather|quite|looking|looks?) cross|cross face|"
     r"scowl\w*|frown\w*|glar(e|es|ed|ing) at|annoyed", ("angry",)),
    (r"sad|sadly|unhappy|sorrowful|gloomy|melanchol\w*|tearful|downcast|sadness", ("sad",)),
    (r"kiss\w*|pout\w*|pursed lips|puckered lips", ("kissing",)),
    (r"neutral|serious\w*|calm|calmly|expressionless|straight face|deadpan|composed|relaxed",
     ("neutral",)),
)  # fmt: skip
PLACE_WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"apartment|flat|living room|at home|indoors at home", ("apartment",)),
    (r"bridge|footbridge", ("bridge",)),
    (r"at dawn|dawn|rocky field", ("dawn",)),
    (r"(old |town )?square at sunset|sunset|setting sun", ("sunset",)),
    (r"sunrise|morning sun|rising sun|meadow", ("sunrise",)),
    (r"venice|waterfront|(by|beside|near) the (sea|water)|dusk|harbour|seaside", ("venice",)),
    (r"city|street|downtown|town|cityscape|urban", ("city",)),
    (r"at night|night|night-time|in the dark", ("night",)),
    (r"mall|arcade|esplanade|shopping", ("esplanade",)),
    (r"forest|woods|woodland|among the trees|trees", ("forest",)),
    (r"ballroom|event hall|large hall|hall", ("hall",)),
    (r"laboratory|lab", ("lab",)),
    (r"lobby|foyer", ("lobby",)),
    (r"park|lawn|garden", ("park",)),
    (r"sky|clouds|cloudy|above the sea", ("sky",)),
    (r"(photo )?studio|studio lights|studio light", ("studio",)),
    (r"warehouse", ("warehouse",)),
    (r"workshop|factory", ("workshop",)),
)
GLASSES_WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"(without|no|not wearing) (any )?(glasses|spectacles|sunglasses)", ("none",)),
    (r"sunglasses|dark glasses|shades|sun glasses", ("sunglasses",)),
    (r"round[- ]?(\w+ )?(glasses|spectacles|frames|eyeglasses)", ("round",)),
    (r"(square|rectangular)[- ]?(\w+ )?(glasses|spectacles|frames|eyeglasses)", ("square",)),
    (r"glasses|spectacles|eyeglasses", ("round", "square")),
)
HAT_WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"(without|no) (a )?hat|bareheaded", ("none",)),
    (r"hat|fedora", ("fedora",)),
)
STYLE_WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"black[- ]and[- ]white|monochrome|b&w|greyscale|grayscale", ("black and white",)),
    (r"sepia|old brown photo\w*", ("sepia",)),
    (r"warm film|warm (tones|colours|colors)|warm-toned|warm tint", ("warm film",)),
    (r"cool film|cool (tones|colours|colors)|cool-toned|cold (tones|colours|colors)|bluish",
     ("cool film",)),
    (r"high[- ]contrast|strong contrast|contrasty", ("high contrast",)),
    (r"faded|washed[- ]out|bleached", ("faded",)),
)  # fmt: skip
_HAIR = {
    "black": ("black",),
    "dark brown": ("dark brown",),
    "dark": ("black", "dark brown"),
    "brown": ("brown", "dark brown"),
    "auburn": ("auburn",),
    "red": ("red", "auburn"),
    "ginger": ("red", "auburn"),
    "blonde": ("blonde",),
    "blond": ("blonde",),
    "fair": ("blonde",),
    "grey": ("grey", "white"),
    "gray": ("grey", "white"),
    "silver": ("grey", "white"),
    "white": ("white", "grey"),
    "pink": ("pink",),
    "blue": ("blue",),
    "green": ("green",),
    "purple": ("purple",),
}
_COLOURS = "red|blue|green|white|black|yellow|orange|pink|purple|grey|gray|brown"
_GARMENT = (
    r"t-?shirts?|tee|shirt|jumper|sweater|pullover|top|dress|suit|jacket|coat|blouse|clothes|"
    r"clothing|outfit|hoodie|garment"
)
_LENGTHS = (
    r"(?:long|short|curly|wavy|straight|braided|cropped|side-swept|\w+ly|coloured|colored|dyed)"
)

_HAIR_NAMES = "|".join(sorted(_HAIR, key=len, reverse=True))
_HAIR_BEFORE = re.compile(
    rf"\b({_HAIR_NAMES})(?:[- ](?:{_LENGTHS}|afro|bob))*[- ](?:hair\w*|braids?|ponytail|bob|afro)\b"
)
_HAIR_AFTER = re.compile(
    rf"\bhair (?:(?:is|was|now|all|in|has been)\s)*(?:(?:dyed|coloured|colored|turned) )?"
    rf"({_HAIR_NAMES})\b"
)
_HAIR_NOUN = re.compile(r"\b(blonde|redhead|brunette)\b(?! hair)")
_HAIR_NOUNS = {
    "blonde": ("blonde",),
    "redhead": ("red", "auburn"),
    "brunette": ("brown", "dark brown"),
}
_CLOTHES_BEFORE = re.compile(rf"\b({_COLOURS})(?: \w+)? (?:{_GARMENT})\b")
_CLOTHES_AFTER = re.compile(
    rf"\b(?:dressed in|wearing|clothed in|in)(?: all| something| plain| bright| dark)? "
    rf"({_COLOURS})\b"
    r"(?! (?:and white|film|glasses|frames|hat|fedora|hair|braids?|ponytail|\w+ hair|laboratory))"
)


def asked_attributes(prompt: str) -> dict[str, tuple[str, ...]]:
    """Read from a prompt what the judge could see.

    Args:
        prompt: in English, as typed.

    Returns:
        Per attribute named in the prompt, the classes that would satisfy it. Attributes the
        prompt says nothing of are absent.
    """
    text = re.sub(r"\s+", " ", prompt.lower().replace("\u2019", "'"))
    asked: dict[str, tuple[str, ...]] = {}
    tables = {
        "expression": EXPRESSION_WORDS,
        "place": PLACE_WORDS,
        "glasses": GLASSES_WORDS,
        "hat": HAT_WORDS,
        "style": STYLE_WORDS,
    }
    for attribute, table in tables.items():
        for words, classes in table:
            if re.search(rf"\b(?:{words})\b", text):
                asked[attribute] = classes
                break
    hair = _hair_colour(text)
    if hair:
        asked["hair_colour"] = hair
    clothing = _CLOTHES_BEFORE.search(text) or _CLOTHES_AFTER.search(text)
    if clothing:
        colour = clothing[1].replace("gray", "grey")
        asked["clothing_colour"] = (colour,)
    return asked


def _hair_colour(text: str) -> tuple[str, ...] | None:
    found = _HAIR_BEFORE.search(text) or _HAIR_AFTER.search(text)
    if found:
        return _HAIR[found[1]]
    noun = _HAIR_NOUN.search(text)
    return _HAIR_NOUNS[noun[1]] if noun else None


def load_attribute_network(folder: Path | None = None) -> AttributeJudge:
    """The network of a folder written by `training.attributes`, by default the shipped one.

    Raises:
        MissingWeights: nothing is there.
        CorruptWeights: the files cannot be read or do not fit together.
    """
    folder = folder or Settings().assets_directory / "models" / JUDGE_FOLDER
    if not (folder / "config.json").is_file():
        raise MissingWeights(
            f"The attribute judge is not in {folder}. Restore it with: git checkout -- "
            "assets/models, or train one with: python -m training.attributes"
        )
    try:
        network: AttributeJudge = AttributeJudge.from_pretrained(folder, **OWN_MODELS)
    except Exception as error:  # diffusers, safetensors and json each raise their own kinds
        raise CorruptWeights(
            f"The attribute judge in {folder} cannot be loaded ({type(error).__name__}). "
            "Restore it with: git checkout -- assets/models"
        ) from error
    return network


def fits(
    network: AttributeJudge, pictures: torch.Tensor, *wanted: Mapping[str, Sequence[str]]
) -> list[torch.Tensor | None]:
    """How much of what is wanted pictures show, 0 to 1, in one look.

    The mean over the attributes of the probability of the classes that satisfy it; a mean rather
    than a product, so that one hopeless wish does not hide all others.

    Args:
        network: sees the attributes.
        pictures: (n, 3, image_size, image_size) float in [-1, 1].
        wanted: attribute -> the classes that satisfy it, as of `asked_attributes`; any number.

    Returns:
        (n,) float of each; None where nothing is wanted that the network knows.
    """
    classes: dict[str, list[str]] = network.config.attributes
    known = [{name: c for name, c in wish.items() if name in classes} for wish in wanted]
    if not any(known):
        return [None] * len(known)
    seen = {name: scores.float().softmax(1) for name, scores in network(pictures).items()}

    def share(name: str, satisfying: Sequence[str]) -> torch.Tensor:
        places = [classes[name].index(c) for c in satisfying if c in classes[name]]
        shown: torch.Tensor = seen[name][:, places].sum(1)
        return shown

    return [
        torch.stack([share(name, c) for name, c in wish.items()]).mean(0) if wish else None
        for wish in known
    ]


class AttributePromptJudge:
    """The shipped attribute network, asked about pictures and prompts."""

    def __init__(self, network: AttributeJudge) -> None:
        self._network = network.eval()
        self._classes: dict[str, list[str]] = dict(network.config.attributes)

    @classmethod
    def load(cls, folder: Path | None = None) -> AttributePromptJudge:
        """Open a folder written by `training.attributes`, by default the shipped one.

        Raises:
            MissingWeights: nothing is there.
            CorruptWeights: the files cannot be read or do not fit together.
        """
        return cls(load_attribute_network(folder))

    @property
    def classes(self) -> Mapping[str, Sequence[str]]:
        """Class names of each attribute it knows."""
        return self._classes

    @property
    def accuracy(self) -> Mapping[str, float]:
        """Its own share right on held-out true pictures: no score can honestly exceed it."""
        return dict(self._network.config.accuracy or {})

    @torch.inference_mode()
    def probabilities(self, images: Sequence[ImageArray]) -> list[dict[str, dict[str, float]]]:
        """What each picture shows: attribute -> class -> probability.

        Args:
            images: (height, width, 3) uint8 RGB each, of any size.
        """
        if not len(images):
            return []
        pictures = to_network_input(images, int(self._network.config.image_size))
        logits = self._network(pictures.to(self._network.device))
        tables = {name: scores.float().softmax(1).tolist() for name, scores in logits.items()}
        return [
            {
                name: dict(zip(self._classes[name], rows[index], strict=True))
                for name, rows in tables.items()
            }
            for index in range(len(images))
        ]

    @torch.inference_mode()
    def fit(self, image: ImageArray, prompt: str) -> float | None:
        """How much of what the prompt asks is to be seen, 0 to 1, see `fits`.

        Args:
            image: (height, width, 3) uint8 RGB.
            prompt: as typed.

        Returns:
            None when the prompt asks nothing the judge knows.
        """
        pictures = to_network_input([image], int(self._network.config.image_size))
        pictures = pictures.to(self._network.device)
        (shown,) = fits(self._network, pictures, asked_attributes(prompt))
        return None if shown is None else float(shown[0])


def shipped_prompt_judge() -> AttributePromptJudge | None:
    """The shipped judge, opened once per folder; None when it is not installed."""
    return _open_once(Settings().assets_directory / "models" / JUDGE_FOLDER)


@lru_cache(maxsize=2)
def _open_once(folder: Path) -> AttributePromptJudge | None:
    try:
        return AttributePromptJudge.load(folder)
    except MissingWeights:
        return None


def to_network_input(images: Iterable[ImageArray], size: int) -> torch.Tensor:
    """Pictures of any size as (batch, 3, size, size) float in [-1, 1].

    What is no square is continued by its edges: our networks were taught on squares, and a face
    pulled to another shape would not be one to them.
    """
    box = Image.Resampling.BOX
    squares = [_made_square(image) for image in images]
    resized = np.stack(
        [
            image
            if image.shape[:2] == (size, size)
            else np.asarray(Image.fromarray(image).resize((size, size), box))
            for image in squares
        ]
    )
    unit = torch.from_numpy(resized).permute(0, 3, 1, 2).float()
    return unit.div(127.5).sub(1.0)


def _made_square(image: ImageArray) -> ImageArray:
    height, width = image.shape[:2]
    side = max(height, width)
    above, before = (side - height) // 2, (side - width) // 2
    around = ((above, side - height - above), (before, side - width - before), (0, 0))
    return image if height == width else np.pad(image, around, mode="edge")

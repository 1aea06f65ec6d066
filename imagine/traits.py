"""Traits of a person that are asked for by a switch: glasses, hair colour, age, expression.

`keep` asks for what the selfies show, `change` for something else. The values are those the
embedded model's training captions know. Whoever uses a switch need not word it: `with_traits`
does, for every backend that reads words, and takes out what the prompt says against it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from imagine.errors import InvalidInput

TRAITS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "glasses": ("none", "round", "square", "sunglasses"),
        "hair_colour": (
            "black", "dark brown", "brown", "auburn", "red", "blonde", "grey", "white",
            "pink", "blue", "green", "purple",
        ),
        "age": ("young", "middle-aged", "old"),
        "expression": (
            "neutral", "soft smile", "smiling", "laughing", "surprised", "angry", "sad", "kissing",
        ),
    }
)  # fmt: skip

_WORDS: Mapping[str, Mapping[str, str]] = {
    "glasses": {
        "none": "without glasses",
        "round": "wearing round glasses",
        "square": "wearing square glasses",
        "sunglasses": "wearing sunglasses",
    },
    "hair_colour": {value: f"with {value} hair" for value in TRAITS["hair_colour"]},
    "age": {
        "young": "as a young adult",
        "middle-aged": "as a middle-aged person",
        "old": "as an old person",
    },
    "expression": {
        "neutral": "with a neutral expression",
        "soft smile": "with a soft smile",
        "smiling": "smiling",
        "laughing": "laughing",
        "surprised": "looking surprised",
        "angry": "looking angry",
        "sad": "looking sad",
        "kissing": "blowing a kiss",
    },
}


def check_traits(keep: Sequence[str], change: Mapping[str, str] | None) -> dict[str, str]:
    """Refuse switches that do not exist or contradict each other.

    Args:
        keep: names of traits to keep as on the selfies.
        change: trait -> the value it shall have.

    Returns:
        A copy of `change`, in the order of `TRAITS`.

    Raises:
        InvalidInput: an unknown trait or value, listing what there is; a trait to keep and change.
    """
    if isinstance(keep, str):
        raise InvalidInput(f"keep is one word where a list is expected: write [{keep!r}].")
    changes = dict(change or {})
    for trait in (*keep, *changes):
        if trait not in TRAITS:
            raise InvalidInput(f"There is no trait {trait!r}. There are: {', '.join(TRAITS)}.")
    for trait, value in changes.items():
        if value not in TRAITS[trait]:
            raise InvalidInput(
                f"The trait {trait!r} cannot be {value!r}. It can be: {', '.join(TRAITS[trait])}."
            )
        if trait in keep:
            raise InvalidInput(
                f"The trait {trait!r} is to be kept and to be changed to {value!r}. Ask for one."
            )
    return {trait: changes[trait] for trait in TRAITS if trait in changes}


def read_traits(parts: Iterable[str]) -> dict[str, str]:
    """What `trait=value` says, e.g. on a command line.

    Raises:
        InvalidInput: not of that form, twice the same trait, or an unknown trait or value.
    """
    traits: dict[str, str] = {}
    for part in parts:
        trait, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not trait or not value:
            raise InvalidInput(f"{part!r} is no trait=value, such as glasses=none.")
        if trait in traits:
            raise InvalidInput(f"The trait {trait!r} is given twice. Give it once.")
        traits[trait] = value
    return check_traits((), traits)


def write_traits(traits: Mapping[str, str]) -> str:
    """Traits as one line of a recipe, e.g. "glasses=none; hair_colour=dark brown"."""
    return "; ".join(f"{trait}={traits[trait]}" for trait in TRAITS if trait in traits)


def parse_traits(line: str) -> dict[str, str]:
    """The reverse of `write_traits`.

    Raises:
        InvalidInput: as `read_traits`.
    """
    return read_traits(part for part in line.split(";") if part.strip())


def with_traits(prompt: str, traits: Mapping[str, str]) -> str:
    """A prompt that asks for these traits in plain words, and for nothing against them.

    Args:
        prompt: in English, as typed.
        traits: trait -> value, checked.
    """
    for trait in traits:
        prompt = without_words(prompt, trait)
    words = [_WORDS[trait][value] for trait, value in traits.items()]
    return ", ".join([*([prompt] if prompt or not words else []), *words])


def without_words(prompt: str, trait: str) -> str:
    """The prompt without what it says of one trait; all else stays as typed.

    A switch beats the prompt: "with pink hair and a hat" leaves "with hair and a hat". Words this
    does not know stay where they are.
    """
    for pattern, instead in _SAID[trait]:
        prompt = pattern.sub(instead, prompt)
    for pattern, instead in _LEFTOVERS:
        prompt = pattern.sub(instead, prompt)
    return prompt.strip(" ,;")


def _said(*pairs: tuple[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern, re.IGNORECASE), instead) for pattern, instead in pairs)


_FRAMES = r"(?:thick|thin|big|large|small|black|red|brown|gold|golden|silver|blue|white|green|stylish|cool|dark|reading|nerdy|trendy|horn|horn-rimmed|wire|wire-rimmed|metal|framed|black-framed|round|square|rectangular|aviator)"  # noqa: E501
_GLASSES = (
    r"(?:(?:a pair of|my|his|her|their|the|some|any) )?"
    rf"(?:{_FRAMES}[- ])*(?<!wine )(?<!champagne )(?<!beer )(?<!two )"
    r"(?:sun ?glasses|eye ?glasses|glasses|spectacles|shades)\b(?! of\b)"
    r"(?: with (?:\w+ )?frames)?(?: on\b)?"
)
_NO = r"(?:wearing no|with no|without|not wearing(?: any)?|no)"
_HAIR_NAMES = (
    r"(?:(?:bright|light|dark|deep|natural|naturally|jet|platinum|strawberry|hot|neon|pale|dyed|"
    r"coloured|colored)[- ])*"
    r"(?:black|brown|auburn|red|ginger|copper|blonde|blond|fair|grey|gray|silver|white|pink|blue|"
    r"green|purple|violet)"
)
_HAIR_SHAPE = (
    r"(?:long|short|curly|wavy|straight|braided|cropped|side-swept|shoulder-length|thick|messy)"
)
_HAIR = r"(?:hair\w*|braids?|ponytail|bob|afro|curls|locks)\b"
_FACE = r"(?:face|expression|look|smile|grin|frown|scowl|laugh|eyebrows|mood)"
_FEELING = (
    r"(?:neutral|serious|calm|relaxed|straight|blank|composed|expressionless|deadpan|soft|slight|"
    r"faint|gentle|small|little|shy|friendly|warm|big|wide|broad|huge|open|happy|cheerful|joyful|"
    r"smiling|laughing|surprised|astonished|amazed|shocked|startled|stunned|angry|furious|cross|"
    r"annoyed|sad|unhappy|sorrowful|gloomy|melancholic|melancholy|tearful|downcast|kissing|pouting|"
    r"beaming|grinning)"
)
_HOW = r"(?:very |so |totally |really |quite |a bit |a little |slightly |rather )"
_MANNER = (
    r"(?: (?:softly|slightly|faintly|gently|happily|broadly|widely|warmly|cheerfully|angrily|"
    r"sadly|calmly|a little|a bit|out loud|loudly|at the camera|for the camera))*"
)
_SAID: Mapping[str, tuple[tuple[re.Pattern[str], str], ...]] = {
    "glasses": _said(
        (rf"\b{_NO} (?:any )?{_GLASSES}", ""),
        # In a list of things worn the others stay, and so does the verb before them.
        (rf"\b(wearing|in|with) {_GLASSES}(?:, | and |, and )(?=(?:an?|the|my|his|her) |\w+ "
         r"(?:clothes|overalls))", r"\1 "),
        (rf"(?:(?:,|,? and) )?\b(?:wearing|in|with|behind|has|having) {_GLASSES}", ""),
        (rf"(?:,| and|, and) {_GLASSES}", ""),
        (rf"\b{_GLASSES}", ""),
    ),
    "hair_colour": _said(
        (rf"\b{_HAIR_NAMES}[- ](?=(?:{_HAIR_SHAPE}[- ])*{_HAIR})", ""),
        (
            rf"\b(hair)(?: (?:is|was|now|all|in|has been))*(?: (?:dyed|coloured|colored|turned))? "
            rf"{_HAIR_NAMES}\b",
            r"\1",
        ),
        (r"\b(?:dyed|coloured|colored)[- ](?=(?:[a-z-]+ )?hair\b)", ""),
        (r"\b(an?|the|this|that) (?:redhead|brunette|blonde|blond)\b(?! \w*(?:man|girl|guy|lad))",
         r"\1 person"),
        (r"\b(?:red-haired|redhaired|grey-haired|gray-haired|white-haired|black-haired|"
         r"brown-haired|fair-haired|dark-haired|redheaded|blonde|blond)[- ]?", ""),
        (r"\bwith hair and (?=an?\b)", "with "),
    ),
    "age": _said(
        (r"\b(?:as|like) (?:an?|the) (?:very )?(?:young|middle-aged|old|elderly|aged|senior)"
         r"(?: adult| person)\b", ""),
        (r"\b(?:very )?(?:young|middle[- ]aged|elderly|aged|old|senior|youthful)[- ]"
         r"(?=(?:\w+ )?(?:man|woman|person|lady|gentleman|adult|guy|face|me|self)\b)", ""),
        (r"\b(?:at (?:(?:the )?age(?: of)? )?|aged )?\d{1,3}(?:[- ]years?[- ]old|"
         r"(?=[- ]year))\b", ""),
        (r"\b(?:in (?:my|his|her|their) (?:early |mid |late )?"
         r"(?:twenties|thirties|forties|fifties|sixties|seventies|eighties))\b", ""),
        (r"\b(?:an )?octogenarian\b", "a person"),
        (r"\b(?:looking|when|now|grown) (?:very )?(?:young|old|elderly|middle-aged)\b", ""),
    ),
    "expression": _said(
        (r"\b(?:with raised eyebrows|blowing (?:an? |some )?kiss(?:es)?|"
         r"with (?:pursed|puckered) lips|cracking up|bursting out(?: laughing)?)\b", ""),
        (r"\b(?:with(?:out)?|wearing|making|has|having) (?:an?|the|no|my|his|her)? ?"
         rf"(?:hint of an? )?{_HOW}?(?:{_FEELING},? (?:and )?)*{_FACE}\b(?: on (?:my|his|her|the) "
         r"face)?", ""),
        (rf"\b(?:an?|the|my|his|her) (?:{_FEELING},? (?:and )?)+{_FACE}\b", ""),
        (rf"\b(?:not |un)smiling{_MANNER}", ""),
        (rf"\b(?:looking|feeling|being|looks|seems|am|is|are) {_HOW}?{_FEELING}"
         rf"(?: and {_FEELING})?\b", ""),
        (rf"\b(?:softly |gently |happily |broadly )?(?:smil|grin|laugh|frown|scowl|beam|pout|glar|"
         rf"giggl)ing\b{_MANNER}", ""),
        (rf"\b{_HOW}?(?:happy|cheerful|joyful|surprised|astonished|amazed|shocked|startled|stunned|"
         r"angry|furious|annoyed|sad|unhappy|sorrowful|gloomy|melancholic|tearful|downcast)\b", ""),
    ),
}  # fmt: skip
_LEFTOVERS = _said(
    (r"\s+", " "),
    # "with hair" says nothing any more.
    (r"(?:\b(?:and|with) |(?<=, )|^)hair\b(?=[,.;]|$)", ""),
    (r"\s+([,.;])", r"\1"),
    (r"(?:,\s*){2,}", ", "),
    (r",\s*(?=[.;]|$)", ""),
    (r"^(?:\s*(?:,|and\b))+\s*", ""),
    (r"\b(?:and|with|wearing)\s*(?=[,.;]|$)", ""),
    (r",\s*and\s*,", ","),
    (r"\s+([,.;])", r"\1"),
    (r"(?:,\s*){2,}", ", "),
    (r"\ba (?=(?:[aeiou]))", "an "),
    (r"\ban (?=(?:[b-df-hj-np-tv-z]))", "a "),
    (r"[,\s]+$", ""),
)

"""How the embedded model is told of traits: in the words of its training captions.

A caption says what is to be seen and never what is not ("without glasses" draws glasses), so what
shall be absent is left out of the prompt and steered away from (`contrary`).
"""

from __future__ import annotations

from collections.abc import Mapping

from imagine.backends.prompt_judge import asked_attributes
from imagine.traits import without_words

_CAPTIONS: Mapping[str, Mapping[str, str]] = {
    "glasses": {
        "none": "",
        "round": "wearing round glasses",
        "square": "wearing square glasses",
        "sunglasses": "wearing sunglasses",
    },
    "age": {
        "young": "a young person",
        "middle-aged": "a middle-aged person",
        "old": "an old person",
    },
    "expression": {
        "neutral": "with a neutral expression",
        "soft smile": "with a soft smile",
        "smiling": "with a friendly smile",
        "laughing": "laughing",
        "surprised": "looking surprised",
        "angry": "looking angry",
        "sad": "looking sad",
        "kissing": "blowing a kiss",
    },
}
# Where the plain prompt tends to another value of its own accord, that one is named.
_CONTRARIES: Mapping[str, Mapping[str, str]] = {
    # Words alone draw glasses; pulled at, square ones and sunglasses hid the face from the judge in
    # half of the pictures (training/LOG.md). So both captions say the same of them.
    "glasses": _CAPTIONS["glasses"],
    "age": {"young": "an old person", "middle-aged": "a young person", "old": "a young person"},
    "expression": {"sad": "smiling", "soft smile": "laughing"},
    "hair_colour": {"brown": "with black hair", "white": "with black hair"},
}

# By words alone these are often drawn as another: "furious" is no word of the captions, and anger
# lies next to sadness and calm. The others come out of the prompt, and less exaggerated.
_DRAWN_LIKE_SWITCHES = ("angry",)


def with_named_expression(prompt: str, traits: Mapping[str, str]) -> Mapping[str, str]:
    """Traits that were switched, and the expression that a prompt names where none was."""
    named = asked_attributes(prompt).get("expression", ("",))[0]
    return {"expression": named, **traits} if named in _DRAWN_LIKE_SWITCHES else traits


def caption(prompt: str, traits: Mapping[str, str]) -> str:
    """The prompt as a caption that shows these traits and says nothing against them."""
    return _joined(prompt, {trait: _words(trait, value) for trait, value in traits.items()})


def contrary(prompt: str, traits: Mapping[str, str]) -> str:
    """The same caption without what is wished for, or with its opposite where that has words."""
    return _joined(
        prompt,
        {trait: _CONTRARIES.get(trait, {}).get(value, "") for trait, value in traits.items()},
    )


def _words(trait: str, value: str) -> str:
    return f"with {value} hair" if trait == "hair_colour" else _CAPTIONS[trait][value]


def _joined(prompt: str, words: Mapping[str, str]) -> str:
    for trait in words:
        prompt = without_words(prompt, trait)
    return ", ".join(filter(None, [prompt, *words.values()]))

"""The looks the page offers: words put behind the wish, which go through the policy with it.

Each has a name in `words.yaml` and a thumbnail in `look/`, drawn by
`python -m training.people.style_pictures`.
"""

from __future__ import annotations

# Style -> words; the embedded model was taught these very words.
TAUGHT = {
    "plain": "",
    "black_and_white": "black and white",
    "warm_film": "warm film",
    "cool_film": "cool film",
    "high_contrast": "high contrast",
    "faded": "faded colours",
    "sepia": "sepia",
}
# Style -> words that models trained on the world's pictures understand besides.
KNOWN_TO_BIG_MODELS = {
    "studio": "studio portrait, soft even light, plain background",
    "golden_hour": "at golden hour, warm low sun, long shadows",
    "watercolour": "watercolour painting, loose brush strokes, white paper",
    "oil": "oil painting, visible brush strokes, rich colours",
    "comic": "comic drawing, bold outlines, flat colours",
}
STYLES = TAUGHT | KNOWN_TO_BIG_MODELS
_SMALL = ("embedded", "fake")


def styles_of(backend: str) -> tuple[str, ...]:
    """Names of the styles a backend can draw."""
    return tuple(TAUGHT if backend in _SMALL else STYLES)

"""A few looks by name: words that are put behind the wish, and go through the policy with it."""

from __future__ import annotations

from dataclasses import dataclass

from imagine.errors import UnknownName


@dataclass(frozen=True, slots=True)
class Style:
    """A look.

    Attributes:
        id: its name in requests.
        name: its name for people.
        words: put behind the prompt.
    """

    id: str
    name: str
    words: str

    def applied_to(self, prompt: str) -> str:
        """The prompt with this look."""
        return f"{prompt.rstrip(' ,.')}, {self.words}"


STYLES = (
    Style("studio", "Studio portrait", "studio portrait, soft even light, plain background"),
    Style("outdoors", "Outdoors", "outdoors, natural light, shallow depth of field"),
    Style("golden_hour", "Golden hour", "at golden hour, warm low sun, long shadows"),
    Style("black_and_white", "Black and white", "black and white photograph, fine grain"),
    Style("watercolour", "Watercolour", "watercolour painting, loose brush strokes, white paper"),
    Style("oil", "Oil painting", "oil painting, visible brush strokes, rich colours"),
    Style("comic", "Comic", "comic drawing, bold outlines, flat colours"),
    Style("film", "Film", "35 mm film photograph, muted colours, soft contrast"),
)


def style(style_id: str) -> Style:
    """The style of this id.

    Raises:
        UnknownName: there is none; the message lists the known ones.
    """
    for known in STYLES:
        if known.id == style_id:
            return known
    names = ", ".join(known.id for known in STYLES)
    raise UnknownName(f"There is no style called {style_id[:40]!r}. Known: {names}.")

"""What may be asked: a first, coarse policy on the words of a prompt.

It catches plain English wishes for nudity, sex with or about minors, gore and hate. It does not
understand meaning: other languages, euphemisms and clever spellings pass, and now and then an
innocent sentence is refused. It looks at words only; nothing here looks at the picture.
"""

from __future__ import annotations

import re
import unicodedata

from imagine.errors import InvalidInput, PromptBlocked
from imagine.settings import Settings

_SEXUAL = (
    r"naked(?!\s+eye)",
    r"nud(?:es?|ity|ist)(?!\W?(?:colou?r|shade|tone|lipstick|heels|pumps))",
    r"topless",
    r"bottomless\s+(?:man|woman|girl|boy|person)",
    r"nsfw",
    r"porn\w*",
    r"hentai",
    r"xxx",
    r"erotic\w*",
    r"sex(?:y|ual|ually)?",
    r"orgasm\w*",
    r"masturbat\w*",
    r"blow\s?job",
    r"genitals?",
    r"(?:bare|exposed)\s+(?:breasts?|chest|bottom|buttocks|genitals?)",
    r"lingerie",
    r"undress\w*",
    r"strip\s?tease",
    r"stripp(?:ed|ing)\s+(?:naked|bare|off)",
    r"(?:without|no|removed?|removing|takes?\s+off|taking\s+off)\s+(?:\w+\s+){0,2}(?:clothes|clothing)",
    r"wearing\s+nothing",
)
_MINOR = (
    r"child(?:ren)?",
    r"kids?",
    r"minors?",
    r"toddlers?",
    r"bab(?:y|ies)",
    r"schoolgirls?",
    r"schoolboys?",
    r"little\s+(?:girl|boy)s?",
    r"teen(?:s|ager?s?|aged)?",
    r"pre\W?teens?",
    r"underaged?",
    r"(?:[1-9]|1[0-7])\W*(?:years?|yrs?|yo)\b(?:\W*olds?)?",
)
# Words that are harmless of an adult and not of a child.
_SUGGESTIVE = (
    r"underwear",
    r"panties",
    r"bikinis?",
    r"seductive\w*",
    r"sensual\w*",
    r"provocative\w*",
    r"kissing",
)
_GORE = (
    r"gore",
    r"gory",
    r"be?headed",
    r"beheading",
    r"decapitat\w*",
    r"dismember\w*",
    r"disembowel\w*",
    r"mutilat\w*",
    r"severed\s+(?:head|hand|arm|leg|limb)s?",
    r"(?:brutally\s+)?(?:murdered|tortured|lynched)",
    r"lynching",
    r"hanging\s+(?:him|her|them|my)self",
)
_HATE = (
    r"nazis?",
    r"neo\W?nazis?",
    r"swastikas?",
    r"hitler",
    r"sieg\s+heil",
    r"heil",
    r"kkk",
    r"ku\s+klux\s+klan",
    r"white\s+power",
    r"white\s+supremac\w*",
    r"ethnic\s+cleansing",
    r"blackface",
)


def _any_of(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(words)})\b")


_MINORS_SEXUALISED = (_any_of(_MINOR), _any_of(_SEXUAL + _SUGGESTIVE))
_BLOCKED = (
    ("nudity or sexual content", _any_of(_SEXUAL)),
    ("gore or cruelty", _any_of(_GORE)),
    ("hate symbols or hateful content", _any_of(_HATE)),
)
_LEET = str.maketrans({"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "@": "a", "$": "s"})
# Letters spelt out one by one; letters and separators share no character, or matching would take
# exponential time on a row of underscores.
_SPELT_OUT = re.compile(r"(?<![^\W_])(?:[^\W_][\s.\-_*]+){2,}[^\W_](?![^\W_])")
# Invisible characters that reorder or split words; the joiners that emoji and some scripts need
# (U+200C, U+200D) stay in the prompt and are ignored only while looking for words.
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


def allow_prompt(text: str, settings: Settings) -> str:
    """Return the prompt as it will be used, or refuse it.

    Control and direction characters go, runs of white space become one space.

    Raises:
        InvalidInput: empty, or longer than `settings.max_prompt_characters`.
        PromptBlocked: the policy does not allow the wish; the message names the reason and
            never repeats the prompt.
    """
    if len(text) > settings.max_prompt_characters:
        raise InvalidInput(
            f"The prompt has {len(text)} characters; at most {settings.max_prompt_characters} "
            "are accepted. Shorten it."
        )
    prompt = _clean(text)
    if not prompt:
        raise InvalidInput(
            'The prompt is empty. Say what the picture should show, e.g. "smiling, in a forest".'
        )
    for view in _views(prompt):
        _refuse_blocked(view)
    return prompt


def _clean(text: str) -> str:
    spaced = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
    # Lone surrogates come from undecodable command-line bytes; nothing downstream can encode them.
    encodable = _INVISIBLE.sub("", spaced).encode("utf-8", "ignore").decode("utf-8")
    return " ".join(encodable.split())


def _views(prompt: str) -> tuple[str, ...]:
    """The prompt as a reader would hear it: plain, with digits read as letters, letters joined."""
    folded = unicodedata.normalize("NFKD", prompt).casefold()
    plain = "".join(c for c in folded if unicodedata.category(c) not in {"Mn", "Me", "Cf"})
    leet = plain.translate(_LEET)
    joined = _SPELT_OUT.sub(lambda found: re.sub(r"[\W_]", "", found[0]), leet)
    return plain, leet, joined


def _refuse_blocked(view: str) -> None:
    minor, sexual = _MINORS_SEXUALISED
    if minor.search(view) and sexual.search(view):
        raise PromptBlocked(
            "This prompt was refused: sexual content about minors is never made here."
        )
    for reason, pattern in _BLOCKED:
        if pattern.search(view):
            raise PromptBlocked(
                f"This prompt was refused: we do not make pictures with {reason}. "
                "Describe another scene."
            )

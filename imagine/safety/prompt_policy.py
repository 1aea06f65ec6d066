"""What may be asked: the words of prompts, negative prompts, styles and edit instructions.

A text is read with its disguises undone (`normalise`), then the rules of a lexicon look at it
(`lexicon`). Words are all it sees: it does not understand meaning, a euphemism the lexicon does
not know passes, and now and then an innocent sentence is refused. Model judges may be added to
refuse more; none can allow what a rule refused. The picture is `output_checks`' affair.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from imagine.errors import InvalidInput, PromptBlocked
from imagine.registry import Registry
from imagine.safety.lexicon import LEXICON_FILE, Lexicon
from imagine.safety.normalise import readings
from imagine.settings import Settings

TextRole = Literal["prompt", "negative", "style", "edit"]

# Invisible characters that reorder or split words; the joiners that emoji and some scripts need
# (U+200C, U+200D) stay in the prompt and are ignored only while looking for words.
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


@dataclass(frozen=True, slots=True)
class PromptVerdict:
    """Whether a text may be used, and why not.

    Attributes:
        allowed: whether it may be used.
        category: machine name of what it asks for, "" when allowed.
        clause: clause of the published policy, "" when allowed.
        rule: id of the rule, or "judge.<name>"; "" when allowed.
        incident: the attempt itself must be reported to whoever looks after incidents.
        policy_hash: SHA-256, hex, of the rules and the code that applied them.
        words: for the person who asked; never repeats their text.
    """

    allowed: bool
    category: str
    clause: str
    rule: str
    incident: bool
    policy_hash: str
    words: str


@runtime_checkable
class TextJudge(Protocol):
    """A model that reads prompts; it can refuse what the rules let pass, never the reverse."""

    @property
    def name(self) -> str:
        """The registry name."""

    @classmethod
    def load(cls, settings: Settings) -> TextJudge:
        """Open the weights; nothing is ever downloaded. Raises as a backend's `load`."""

    def judge(self, text: str, role: TextRole) -> str | None:
        """The policy category a text breaks, or None."""


TEXT_JUDGES = Registry["TextJudge"]("text judge")


def load_judges(names: Sequence[str], settings: Settings) -> tuple[TextJudge, ...]:
    """Open the judges of these names, in this order.

    Raises:
        UnknownName: nobody registered one of them.
        MissingExtra, MissingWeights, CorruptWeights: one of them cannot be opened.
    """
    return tuple(TEXT_JUDGES.get(name).load(settings) for name in names)


@dataclass(frozen=True, slots=True)
class PromptPolicy:
    """A lexicon and the judges that are asked after it.

    Attributes:
        lexicon: the rules.
        judges: models to ask about texts that no rule refused.
        sha256: of lexicon and code, hex; names the policy in verdicts and manifests.
    """

    lexicon: Lexicon = field(repr=False)
    judges: Sequence[TextJudge] = ()

    @property
    def sha256(self) -> str:
        """The policy hash."""
        judges = ",".join(judge.name for judge in self.judges)
        return hashlib.sha256(f"{code_hash()}:{self.lexicon.sha256}:{judges}".encode()).hexdigest()

    @classmethod
    def load(cls, path: Path = LEXICON_FILE, judges: Sequence[TextJudge] = ()) -> PromptPolicy:
        """Read a lexicon file.

        Raises:
            InvalidInput: no such file, or not a lexicon; the message says what to mend.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InvalidInput(
                f"The lexicon {path.name!r} cannot be read: {error.strerror}. "
                "Check the path, or leave it out to use the shipped one."
            ) from error
        return cls(Lexicon(content), tuple(judges))


@lru_cache(maxsize=1)
def shipped_policy() -> PromptPolicy:
    """The policy in this package, read once."""
    return PromptPolicy.load()


@lru_cache(maxsize=1)
def code_hash() -> str:
    """SHA-256, hex, of the code that applies a lexicon."""
    modules = ("normalise", "lexicon", "prompt_policy")
    files = (import_module(f"imagine.safety.{name}").__file__ for name in modules)
    digest = hashlib.sha256()
    for file in files:
        digest.update(Path(str(file)).read_bytes())
    return digest.hexdigest()


def judge_text(
    text: str, role: TextRole = "prompt", policy: PromptPolicy | None = None
) -> PromptVerdict:
    """Judge one text of a wish, as typed.

    Args:
        text: of any length; emptiness and length are `allow_prompt`'s question.
        role: where it stands. Negative prompts follow every rule of prompts, and one more:
            leaving clothes out is asking for their absence.
        policy: None takes the shipped one.
    """
    policy = policy or shipped_policy()
    lexicon = policy.lexicon
    # As typed and as it would be used: cleaning takes away double spaces, which can tell the
    # words of a text spelt out letter by letter.
    texts = dict.fromkeys((text, _clean(text)))
    views = dict.fromkeys(view for each in texts for view in readings(each, lexicon.segment))
    order = list(lexicon.categories)
    hits = sorted(lexicon.hits(views, role), key=lambda hit: order.index(hit.category.name))
    if hits:
        return _refusal(policy, hits[0].category.name, hits[0].rule.id)
    for judge in policy.judges:
        if category := judge.judge(text, role):
            return _refusal(policy, category, f"judge.{judge.name}")
    return PromptVerdict(True, "", "", "", False, policy.sha256, "This prompt is allowed.")


def allow_prompt(
    text: str,
    settings: Settings,
    role: TextRole = "prompt",
    policy: PromptPolicy | None = None,
) -> str:
    """Return the prompt as it will be used, or refuse it.

    Control and direction characters go, runs of white space become one space.

    Raises:
        InvalidInput: empty, or longer than `settings.max_prompt_characters`.
        PromptBlocked: the policy does not allow the wish; the message names the reason and
            never repeats the prompt, the attributes hold category, clause, rule and policy hash.
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
    verdict = judge_text(text, role, policy)
    if not verdict.allowed:
        raise PromptBlocked(
            verdict.words,
            category=verdict.category,
            clause=verdict.clause,
            rule=verdict.rule,
            policy_hash=verdict.policy_hash,
            incident=verdict.incident,
        )
    return prompt


def _refusal(policy: PromptPolicy, name: str, rule: str) -> PromptVerdict:
    category = policy.lexicon.categories.get(name)
    if category is None:
        known = ", ".join(policy.lexicon.categories)
        raise InvalidInput(f"{rule} answered the category {name!r}. Known: {known}.")
    return PromptVerdict(
        allowed=False,
        category=name,
        clause=category.clause,
        rule=rule,
        incident=category.incident,
        policy_hash=policy.sha256,
        words=category.message,
    )


def _clean(text: str) -> str:
    spaced = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
    # Lone surrogates come from undecodable command-line bytes; nothing downstream can encode them.
    encodable = _INVISIBLE.sub("", spaced).encode("utf-8", "ignore").decode("utf-8")
    return " ".join(encodable.split())

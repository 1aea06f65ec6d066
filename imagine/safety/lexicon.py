"""A lexicon of word patterns, read from YAML, and finding them in words.

A pattern is words with a few signs: `porn*` (any ending), `{minor}` (any pattern of a named set),
`<1-17>` (a number in a range), `..3` (up to three words of any kind). Letters may be stretched in
the text ("nuuude"). The file says what each rule blocks and allows, as examples a test runs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from imagine.errors import InvalidInput
from imagine.safety.normalise import Reading, words_of

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first is ten times as fast
LEXICON_FILE = Path(__file__).with_name("lexicon.yaml")
MASKED = ""  # what a word covered by an allow phrase becomes: it matches nothing, but keeps count

Spans = dict[int, set[int]]  # start of a match -> its ends (exclusive), in words


@dataclass(frozen=True, slots=True)
class Category:
    """One thing we do not make.

    Attributes:
        name: machine name, e.g. "sexual".
        clause: number of the clause in the published policy, e.g. "2.1".
        message: plain words for the person who asked; never repeats the prompt.
        incident: a match is also reported as an incident.
    """

    name: str
    clause: str
    message: str
    incident: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule and the examples it must block and allow.

    Attributes:
        id: stable name, "category.what".
        category: name of a category.
        any: it matches where one of these patterns does.
        all: it matches where one match of each of these lies close enough together.
        within: most words between the parts of `all`; None is anywhere.
        unless: a match that overlaps one of these does not count.
        roles: the kinds of text it looks at.
        blocks: examples it must match.
        allows: examples the whole lexicon must allow.
    """

    id: str
    category: str
    any: tuple[str, ...]
    all: tuple[str, ...]
    within: int | None
    unless: tuple[str, ...]
    roles: tuple[str, ...]
    blocks: tuple[str, ...]
    allows: tuple[str, ...]


class Heard:
    """A reading and what is looked up of it again and again.

    Attributes:
        words: the reading.
        squeezed: its words without repeated letters, which finds stretched ones.
    """

    def __init__(self, words: Reading) -> None:
        self.words = words
        self.squeezed = [_squeeze(word) for word in words]
        self.present = frozenset(self.squeezed)
        self.beginnings = frozenset(word[:3] for word in self.squeezed)
        self.has_numbers = any(word.isdigit() for word in words)


class Patterns:
    """Patterns of one owner, indexed by their first element."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.elements = tuple(_parse(pattern) for pattern in patterns)
        self._words: dict[str, list[Elements]] = {}
        self._endings: dict[str, list[Elements]] = {}
        self._sets: dict[str, list[Elements]] = {}
        self._numbers: list[Elements] = []
        for elements in self.elements:
            match elements[0]:
                case Word(letters, open_end=False):
                    self._words.setdefault(_squeeze(letters), []).append(elements)
                case Word(letters):
                    self._endings.setdefault(_squeeze(letters)[:3], []).append(elements)
                case SetName(name):
                    self._sets.setdefault(name, []).append(elements)
                case _:
                    self._numbers.append(elements)

    def find(self, heard: Heard, sets: Mapping[str, Spans]) -> Spans:
        """Where these patterns occur, given the matches of the named sets."""
        spans: Spans = {}
        for start, elements in self._candidates(heard, sets):
            if ends := _ends(elements, 0, heard.words, start, sets):
                spans.setdefault(start, set()).update(ends)
        return spans

    def _candidates(
        self, heard: Heard, sets: Mapping[str, Spans]
    ) -> Iterator[tuple[int, Elements]]:
        """Patterns by where their first element may match, which most do nowhere."""
        if not heard.present.isdisjoint(self._words):
            for start, key in enumerate(heard.squeezed):
                for elements in self._words.get(key, ()):
                    yield start, elements
        if not heard.beginnings.isdisjoint(self._endings):
            for start, key in enumerate(heard.squeezed):
                for elements in self._endings.get(key[:3], ()):
                    yield start, elements
        if self._numbers and heard.has_numbers:
            for start, word in enumerate(heard.words):
                for elements in self._numbers if word.isdigit() else ():
                    yield start, elements
        for name, patterns in self._sets.items():
            for start in sets.get(name, ()):
                for elements in patterns:
                    yield start, elements


@dataclass(frozen=True, slots=True)
class Hit:
    """A rule that matched."""

    rule: Rule
    category: Category


class Lexicon:
    """The rules of one policy file, ready to be asked."""

    def __init__(self, content: bytes) -> None:
        try:
            data = yaml.load(content, Loader=_LOADER)
        except yaml.YAMLError as error:
            raise InvalidInput(
                f"The lexicon is not readable YAML: {error}. Mend it or take the shipped file."
            ) from error
        fields = _Fields(data)
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.version = fields.text("version")
        self.categories = {
            name: Category(
                name, str(entry["clause"]), entry["message"], entry.get("incident", False)
            )
            for name, entry in fields.mapping("categories").items()
        }
        self.rules = tuple(_rule(entry) for entry in fields.entries("rules"))
        self._sets = {
            name: Patterns(_texts(name, patterns))
            for name, patterns in fields.mapping("sets").items()
        }
        self._allow = Patterns(fields.items("allow"))
        self._compiled = [_CompiledRule(rule) for rule in self._by_weight()]
        self._vocabulary = frozenset(self._all_words()) | frozenset(
            word for phrase in fields.items("common_words") for word in words_of(phrase)
        )
        self._longest = max(map(len, self._vocabulary))
        self._check_names()

    def hits(self, readings: Iterable[Reading], role: str = "prompt") -> Iterator[Hit]:
        """Rules that match one of the readings, gravest category first within a reading."""
        for reading in readings:
            yield from self._hits_of(reading, role)

    def segment(self, letters: str) -> list[str]:
        """Split letters without spaces into the fewest strange pieces.

        A known word costs 1, an unknown letter 1, a number nothing; cheapest split wins, and what
        lies between known words stays together.
        """
        best: list[tuple[float, int, bool]] = [(0.0, 0, True)]
        for end in range(1, len(letters) + 1):
            options = [(best[end - 1][0] + 1.0, end - 1, False)]
            for start in range(max(0, end - self._longest), end):
                piece = letters[start:end]
                if piece in self._vocabulary:
                    options.append((best[start][0] + 1.0, start, True))
                elif piece.isdigit():
                    options.append((best[start][0] + 0.5, start, True))
            best.append(min(options, key=lambda option: option[0]))
        return _pieces(letters, best)

    def _hits_of(self, reading: Reading, role: str) -> Iterator[Hit]:
        heard = Heard(reading)
        sets = self._set_spans(heard)
        masked = self._mask(heard, sets)
        if masked != reading:
            heard = Heard(masked)
            sets = self._set_spans(heard)
        for rule in self._compiled:
            if role in rule.rule.roles and rule.matches(heard, sets):
                yield Hit(rule.rule, self.categories[rule.rule.category])

    def _mask(self, heard: Heard, sets: Mapping[str, Spans]) -> Reading:
        masked = list(heard.words)
        for start, ends in self._allow.find(heard, sets).items():
            for index in range(start, max(ends)):
                masked[index] = MASKED
        return tuple(masked)

    def _set_spans(self, heard: Heard) -> dict[str, Spans]:
        """Matches of every set, in the order of the file: a set may use those above it."""
        spans: dict[str, Spans] = {}
        for name, patterns in self._sets.items():
            spans[name] = patterns.find(heard, spans)
        return spans

    def _by_weight(self) -> list[Rule]:
        order = list(self.categories)
        for rule in self.rules:
            if rule.category not in order:
                raise InvalidInput(
                    f"The lexicon's rule {rule.id!r} is of the category {rule.category!r}. "
                    f"Known: {', '.join(order)}."
                )
        return sorted(self.rules, key=lambda rule: order.index(rule.category))

    def _all_words(self) -> Iterator[str]:
        rules = (p for rule in self._compiled for p in rule.patterns)
        for patterns in (*self._sets.values(), self._allow, *rules):
            for elements in patterns.elements:
                yield from (e.letters for e in elements if isinstance(e, Word))

    def _check_names(self) -> None:
        known: set[str] = set()
        for name, patterns in self._sets.items():
            _check_sets(f"set {name!r}", patterns, known)
            known.add(name)
        for rule in self._compiled:
            for patterns in rule.patterns:
                _check_sets(f"rule {rule.rule.id!r}", patterns, known)
        ids = [rule.id for rule in self.rules]
        if doubled := sorted({name for name in ids if ids.count(name) > 1}):
            raise InvalidInput(f"The lexicon has two rules called {doubled[0]!r}. Rename one.")


class _CompiledRule:
    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._any = Patterns(rule.any)
        self._all = tuple(Patterns([pattern]) for pattern in rule.all)
        self._unless = Patterns(rule.unless)

    @property
    def patterns(self) -> tuple[Patterns, ...]:
        return (self._any, *self._all, self._unless)

    def matches(self, heard: Heard, sets: Mapping[str, Spans]) -> bool:
        matches = _ranges(self._any.find(heard, sets))
        if self._all:
            parts = [_ranges(part.find(heard, sets)) for part in self._all]
            if all(parts):
                matches += _close_together(parts, self.rule.within)
        if not matches:
            return False
        unless = _ranges(self._unless.find(heard, sets)) if self.rule.unless else []
        return any(not _overlaps(match, unless) for match in matches)


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a pattern; with an open end it stands for every word that begins so."""

    letters: str
    open_end: bool

    def matches(self, word: str) -> bool:
        bare = word[: len(self.letters)] if self.open_end else word
        if bare == self.letters:
            return True
        # Short words may not be stretched by one letter only ("of" is not "off"); nobody
        # stretches a word by less than two without meaning it, unless it is long.
        if len(self.letters) < 4 and not re.search(r"(.)\1\1", word):
            return False
        stretched = _stretched(self.letters)
        return bool(stretched.match(word) if self.open_end else stretched.fullmatch(word))


@dataclass(frozen=True, slots=True)
class Number:
    """A number in figures, both ends included."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class SetName:
    """Any pattern of a named set."""

    name: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Up to so many words of any kind."""

    most: int


Element = Word | Number | SetName | Gap
Elements = tuple[Element, ...]

_ELEMENT = re.compile(
    r"\{(?P<set>\w+)\}|<(?P<least>\d+)-(?P<most>\d+)>|\.\.(?P<gap>\d+)|(?P<word>\S+)"
)


def _parse(pattern: str) -> Elements:
    elements: list[Element] = []
    for found in _ELEMENT.finditer(pattern):
        if name := found["set"]:
            elements.append(SetName(name))
        elif found["least"]:
            elements.append(Number(int(found["least"]), int(found["most"])))
        elif found["gap"]:
            elements.append(Gap(int(found["gap"])))
        else:
            elements.extend(_words(found["word"]))
    if not elements or isinstance(elements[0], Gap):
        raise InvalidInput(
            f"The lexicon has the pattern {pattern!r}, which does not begin with a word. Mend it."
        )
    return tuple(elements)


def _words(written: str) -> Iterator[Word]:
    *first, last = words_of(written) or ("",)
    for letters in first:
        yield Word(letters, False)
    if last:
        yield Word(last, written.endswith("*"))


@lru_cache(maxsize=4096)
def _stretched(letters: str) -> re.Pattern[str]:
    runs = ((letter, len(list(run))) for letter, run in groupby(letters))
    return re.compile("".join(f"{letter}{{{count},}}" for letter, count in runs))


def _ends(
    elements: Elements, index: int, reading: Reading, at: int, sets: Mapping[str, Spans]
) -> set[int]:
    """Where a match of `elements[index:]` that begins at word `at` may end."""
    if index == len(elements):
        return {at}
    element = elements[index]
    ends: set[int] = set()
    for next_at in _steps(element, reading, at, sets):
        ends |= _ends(elements, index + 1, reading, next_at, sets)
    return ends


def _steps(element: Element, reading: Reading, at: int, sets: Mapping[str, Spans]) -> Iterable[int]:
    if isinstance(element, Gap):
        return range(at, min(at + element.most, len(reading)) + 1)
    if isinstance(element, SetName):
        return sets.get(element.name, {}).get(at, ())
    if at >= len(reading):
        return ()
    return (at + 1,) if _is(element, reading[at]) else ()


def _is(element: Word | Number, word: str) -> bool:
    if isinstance(element, Number):
        return word.isdigit() and len(word) < 5 and element.least <= int(word) <= element.most
    return element.matches(word)


@lru_cache(maxsize=4096)
def _squeeze(word: str) -> str:
    return "".join(letter for letter, _ in groupby(word))


def _pieces(letters: str, best: Sequence[tuple[float, int, bool]]) -> list[str]:
    pieces: list[str] = []
    strange = ""
    end = len(letters)
    while end:
        _, start, known = best[end]
        if known:
            pieces += [strange] if strange else []
            pieces.append(letters[start:end])
            strange = ""
        else:
            strange = letters[start:end] + strange
        end = start
    return [*pieces, *([strange] if strange else [])][::-1]


Range = tuple[int, int]


def _ranges(spans: Spans) -> list[Range]:
    return [(start, end) for start, ends in spans.items() for end in ends]


def _overlaps(one: Range, others: Iterable[Range]) -> bool:
    return any(one[0] < end and start < one[1] for start, end in others)


def _close_together(parts: Sequence[list[Range]], within: int | None) -> list[Range]:
    """One match of each part, none further than `within` words from the next; no word twice."""
    chains = parts[0]
    for part in parts[1:]:
        chains = [
            (min(chain[0], piece[0]), max(chain[1], piece[1]))
            for chain in chains
            for piece in part
            if not _overlaps(chain, [piece]) and _near(chain, piece, within)
        ]
    return chains


def _near(one: Range, other: Range, within: int | None) -> bool:
    between = max(other[0] - one[1], one[0] - other[1])
    return within is None or between <= within


def _check_sets(owner: str, patterns: Patterns, known: set[str]) -> None:
    for elements in patterns.elements:
        for element in elements:
            if isinstance(element, SetName) and element.name not in known:
                raise InvalidInput(
                    f"The lexicon's {owner} uses the set {element.name!r}, which is not defined "
                    f"above it. Known: {', '.join(sorted(known)) or 'none'}."
                )


def _category(name: str, fields: _Fields) -> Category:
    return Category(name, fields.text("clause"), fields.text("message"), fields.flag("incident"))


def _rule(entry: Mapping[str, Any]) -> Rule:
    fields = _Fields(entry)
    rule = Rule(
        id=fields.text("id"),
        category=fields.text("id").partition(".")[0],
        any=fields.items("any", ()),
        all=fields.items("all", ()),
        within=entry.get("within"),
        unless=fields.items("unless", ()),
        roles=fields.items("roles", ROLES),
        blocks=fields.items("blocks"),
        allows=fields.items("allows"),
    )
    if not rule.blocks or not rule.allows or not (rule.any or rule.all):
        raise InvalidInput(
            f"The lexicon's rule {rule.id!r} lacks patterns or examples. Give it `any` or `all`, "
            "and at least one line each in `blocks` and `allows`."
        )
    return rule


ROLES = ("prompt", "negative", "style", "edit")


class _Fields:
    """The entries of one YAML mapping, each checked as it is taken."""

    def __init__(self, data: object) -> None:
        if not isinstance(data, Mapping):
            raise InvalidInput(f"The lexicon has {data!r:.60} where names and values should be.")
        self._data = data

    def text(self, name: str) -> str:
        return str(self._get(name))

    def flag(self, name: str) -> bool:
        return bool(self._data.get(name, False))

    def mapping(self, name: str) -> Mapping[str, Any]:
        value = self._get(name)
        if not isinstance(value, Mapping):
            raise InvalidInput(f"The lexicon's {name!r} should hold names and values. Mend it.")
        return value

    def items(self, name: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        if default is not None and name not in self._data:
            return default
        value = self._get(name)
        return _texts(name, value)

    def entries(self, name: str) -> Sequence[Mapping[str, Any]]:
        value = self._get(name)
        if not isinstance(value, list) or not value:
            raise InvalidInput(f"The lexicon's {name!r} should be a list of rules. Mend it.")
        return value

    def _get(self, name: str) -> Any:
        if name not in self._data:
            raise InvalidInput(f"The lexicon lacks {name!r}. Add it or take the shipped file.")
        return self._data[name]


def _texts(name: str, values: object) -> tuple[str, ...]:
    """YAML reads `no`, `on` and `1488` as something else than words; say so instead of guessing."""
    if not isinstance(values, list):
        raise InvalidInput(f"The lexicon's {name!r} should be a list. Mend it.")
    if wrong := [value for value in values if not isinstance(value, str)]:
        raise InvalidInput(
            f"The lexicon's {name!r} lists {wrong[0]!r:.60}, which YAML does not read as text. "
            "Put it in quotes."
        )
    return tuple(values)

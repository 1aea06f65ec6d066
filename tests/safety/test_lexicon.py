from __future__ import annotations

import pytest

from imagine.errors import InvalidInput
from imagine.safety.lexicon import LEXICON_FILE, Lexicon, Rule
from imagine.safety.normalise import readings
from imagine.safety.prompt_policy import judge_text

SHIPPED = Lexicon(LEXICON_FILE.read_bytes())
EXAMPLES = [pytest.param(rule, id=rule.id) for rule in SHIPPED.rules]

SMALL = """
version: "1"
categories:
  ducks: {clause: "1.1", message: "No ducks."}
sets:
  bird: [duck*, swan]
  loud: ["{bird} quacking", honk]
allow: [rubber duck]
rules:
  - id: ducks.near
    all: ["{bird}", pond]
    within: 2
    unless: [swan lake]
    blocks: [duck pond]
    allows: [a pond]
  - id: ducks.loud
    any: ["{loud}", "<2-5> eggs", bread ..1 crumbs]
    blocks: [honk]
    allows: [quiet]
common_words: [the big lake]
"""


def rules_of(text: str, lexicon: Lexicon) -> list[str]:
    return [hit.rule.id for hit in lexicon.hits(readings(text, lexicon.segment))]


@pytest.mark.parametrize("rule", EXAMPLES)
def test_every_rule_blocks_and_allows_its_own_examples(rule: Rule) -> None:
    for text in rule.blocks:
        hits = SHIPPED.hits(readings(text, SHIPPED.segment), rule.roles[0])
        assert rule.id in [hit.rule.id for hit in hits], text
    for text in rule.allows:
        assert judge_text(text, rule.roles[0]).allowed, text


def test_every_category_has_rules_a_clause_and_a_message() -> None:
    assert {rule.category for rule in SHIPPED.rules} == set(SHIPPED.categories)
    assert len({category.clause for category in SHIPPED.categories.values()}) == 8
    assert [c.name for c in SHIPPED.categories.values() if c.incident] == ["minors_sexual"]


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("a duck on a pond", ["ducks.near"]),
        ("ducklings by the pond", ["ducks.near"]),
        ("a pond, big and blue, no duck", []),
        ("a rubber duck in a pond", []),
        ("swan lake pond", []),
        ("a swan quacking", ["ducks.loud"]),
        ("3 eggs", ["ducks.loud"]),
        ("6 eggs", []),
        ("bread and crumbs", ["ducks.loud"]),
        ("bread with no crumbs", []),
        ("hoooonk", ["ducks.loud"]),
    ],
)
def test_patterns_mean_what_the_module_says(text: str, rules: list[str]) -> None:
    assert rules_of(text, Lexicon(SMALL.encode())) == rules


def test_letters_without_spaces_are_parted_into_known_words() -> None:
    lexicon = Lexicon(SMALL.encode())
    assert lexicon.segment("thebigxyduck12") == ["the", "big", "xy", "duck", "12"]
    assert lexicon.segment("") == []


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('version: "1"', "", "lacks 'version'"),
        ("honk]", "no]", "quotes"),
        ("{bird} quacking", "{fish} quacking", "'fish'.*Known: bird"),
        ("ducks.loud", "ducks.near", "two rules called 'ducks.near'"),
        ("blocks: [honk]", "blocks: []", "lacks patterns or examples"),
        ("allow: [rubber duck]", "allow: rubber duck", "should be a list"),
        ("rules:", "rules: [", "not readable YAML"),
        ("bread ..1", "..1", "does not begin with a word"),
        ("ducks.loud", "geese.loud", "'geese'"),
    ],
)
def test_a_mistake_in_a_lexicon_is_named(old: str, new: str, sentence: str) -> None:
    assert old in SMALL
    with pytest.raises(InvalidInput, match=sentence):
        Lexicon(SMALL.replace(old, new).encode())


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe\x00", b"a: &a [*a]"])
def test_something_else_than_a_lexicon_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidInput, match="lexicon"):
        Lexicon(content)

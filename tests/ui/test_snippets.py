from __future__ import annotations

import ast
import json
import shlex

import pytest

from imagine.ui.snippets import TEMPLATES, filled

HOSTILE = "it's \"me\" $(rm -rf /) `id` \\ é\n'; import os"
FACTS = {
    "base": "http://127.0.0.1:8765", "identity": "identity_1", "prompt": HOSTILE,
    "n": 2, "seed": 7, "likeness": 0.7,
}  # fmt: skip


@pytest.mark.parametrize("name", ["Python", "OpenAI"])
def test_python_code_is_python_and_says_exactly_the_prompt(name: str) -> None:
    tree = ast.parse(filled(TEMPLATES[name], FACTS))
    said = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert {HOSTILE, "identity_1", 7, 0.7} <= said


def test_the_shell_takes_the_body_as_one_word_of_json() -> None:
    words = shlex.split(filled(TEMPLATES["curl"], FACTS).replace("\\\n", " "))
    body = json.loads(words[words.index("-d") + 1])
    assert body == {
        "prompt": HOSTILE, "identity": "identity_1", "n": 2, "seed": 7, "likeness": 0.7,
    }  # fmt: skip

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagine.errors import InvalidInput, PromptBlocked
from imagine.safety import allow_prompt
from imagine.settings import Settings

SETTINGS = Settings()


@pytest.mark.parametrize(
    "prompt",
    [
        "smiling, in a forest at dawn",
        "with my children at the beach",
        "as a 12 year old's drawing, in crayon",
        "stars visible to the naked eye above Essex and Sussex",
        "wearing nude-coloured heels and a red dress",
        "shirtless surfer at sunset",
        "a zombie at a Halloween party",
        "auf einem Berg, bei Sonnenaufgang 🌄",
        "a skilled assistant classically posed",
    ],
)
def test_ordinary_wishes_are_allowed(prompt: str) -> None:
    assert allow_prompt(prompt, SETTINGS) == prompt


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("naked on a beach", "nudity"),
        ("NUDE portrait", "nudity"),
        ("n u d e portrait", "nudity"),
        ("n4k3d on a beach", "nudity"),
        ("n\u200bude portrait", "nudity"),
        ("ｎｕｄｅ portrait", "nudity"),  # noqa: RUF001 (full-width letters are the point)
        ("a woman without any clothes", "nudity"),
        ("undressing in a bedroom", "nudity"),
        ("a child in lingerie", "minors"),
        ("15 year old girl in a bikini", "minors"),
        ("beheaded in a dungeon", "gore"),
        ("saluting beside a swastika", "hate"),
    ],
)
def test_wishes_against_policy_are_blocked_with_the_reason(prompt: str, reason: str) -> None:
    with pytest.raises(PromptBlocked, match=reason) as caught:
        allow_prompt(prompt, SETTINGS)
    assert caught.value.exit_code == 4
    assert prompt not in str(caught.value)


@pytest.mark.parametrize("prompt", ["", "   ", "\n\t\x00", "\u200b\u202e"])
def test_an_empty_prompt_is_refused_with_an_example(prompt: str) -> None:
    with pytest.raises(InvalidInput, match="empty"):
        allow_prompt(prompt, SETTINGS)


def test_a_prompt_of_ten_thousand_characters_is_refused_with_the_limit() -> None:
    with pytest.raises(InvalidInput, match=r"10000 characters.*1000"):
        allow_prompt("a" * 10_000, SETTINGS)


def test_control_and_direction_characters_are_removed() -> None:
    assert allow_prompt("  in a\x00 \x1b[31mforest\u202e\n at dawn ", SETTINGS) == (
        "in a [31mforest at dawn"
    )


def test_emoji_and_persian_keep_their_joiners() -> None:
    prompt = "a 👩\u200d🚀 and \u0645\u06cc\u200c\u062e\u0648\u0627\u0645"
    assert allow_prompt(prompt, SETTINGS) == prompt


@pytest.mark.parametrize("text", ["_" * 1000, "a_" * 500, "a b " * 250, "no " * 333])
def test_tiresome_text_is_judged_in_no_time(text: str) -> None:
    started = time.perf_counter()
    allow_prompt(text, SETTINGS)
    assert time.perf_counter() - started < 1.0  # milliseconds; exponential matching never ends


@given(st.text(max_size=60))
def test_any_text_is_allowed_or_refused_and_never_breaks(text: str) -> None:
    try:
        allowed = allow_prompt(text, SETTINGS)
    except (InvalidInput, PromptBlocked):
        return
    assert allow_prompt(allowed, SETTINGS) == allowed
    allowed.encode("utf-8")

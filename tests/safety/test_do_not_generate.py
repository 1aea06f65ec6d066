from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from imagine.core import FloatArray
from imagine.errors import CheckMissing, InvalidInput
from imagine.safety.do_not_generate import (
    NearestListed,
    key_fingerprint,
    read_public_key,
    read_signed_list,
    sign_list,
)

ISSUER = Ed25519PrivateKey.generate()
TRUSTED = [ISSUER.public_key()]


def distance(one: FloatArray, other: FloatArray) -> float:
    return float(np.linalg.norm(one - other))


def vector(value: float, size: int = 128) -> FloatArray:
    return np.full(size, value, np.float32)


class Kept:
    """A list in memory."""

    def __init__(self, **people: list[FloatArray]) -> None:
        self.people = people

    def embeddings(self, recogniser: str) -> list[FloatArray]:
        return self.people.get(recogniser, [])

    def counts(self) -> dict[str, int]:
        return {name: len(vectors) for name, vectors in self.people.items()}


def nearest(*vectors: FloatArray) -> NearestListed:
    return NearestListed(Kept(dlib=list(vectors)), "dlib", distance)


def read(content: bytes, **words: object) -> Mapping[str, FloatArray]:
    asked = {"trusted": TRUSTED, "recogniser": "dlib", "size": 128} | words
    return read_signed_list(content, **asked).people  # type: ignore[arg-type]


def test_an_empty_list_is_infinitely_far_from_everybody() -> None:
    assert nearest()(vector(1.0)) == math.inf


def test_the_nearest_entry_counts() -> None:
    assert nearest(vector(5.0), vector(1.0))(vector(1.0)) == 0.0


def test_a_new_entry_is_seen_at_once() -> None:
    kept = Kept(dlib=[])
    listed = NearestListed(kept, "dlib", distance)
    kept.people["dlib"].append(vector(1.0))
    assert listed(vector(1.0)) == 0.0


def test_a_distance_that_is_no_number_is_not_hidden_by_others() -> None:
    odd = NearestListed(Kept(dlib=[vector(1), vector(2)]), "dlib", lambda one, other: math.nan)
    assert math.isnan(odd(vector(3.0)))


def test_people_of_another_recogniser_stop_the_check_rather_than_go_unseen() -> None:
    listed = NearestListed(Kept(dlib=[vector(1.0)], arcface=[vector(1.0, 512)]), "dlib", distance)
    with pytest.raises(CheckMissing, match="1 with 'arcface'"):
        listed.check_ready()
    nearest(vector(1.0)).check_ready()


def test_an_entry_of_another_size_is_an_error_not_a_stranger() -> None:
    with pytest.raises(InvalidInput, match="has 4 numbers"):
        nearest(vector(1.0, 4))(vector(1.0))


@pytest.mark.parametrize("bad", [vector(0.0), vector(math.inf), np.zeros((2, 2)), np.zeros(0)])
def test_something_that_is_no_embedding_is_refused(bad: FloatArray) -> None:
    with pytest.raises(InvalidInput, match="cannot be listed or looked up"):
        nearest(vector(1.0))(bad)
    with pytest.raises(InvalidInput, match="cannot be listed or looked up"):
        sign_list({"x": bad}, "dlib", ISSUER, "a registry")


def test_a_signed_list_comes_back_as_it_was() -> None:
    content = sign_list({"a": vector(1.0), "b": vector(2.0)}, "dlib", ISSUER, "a registry")
    people = read(content)
    assert sorted(people) == ["a", "b"]
    np.testing.assert_array_equal(people["b"], vector(2.0))
    found = read_signed_list(content, TRUSTED, "dlib", 128)
    assert found.issuer == key_fingerprint(TRUSTED[0]) and "people" not in repr(found)


def test_an_unsigned_changed_or_foreign_list_is_refused_whole() -> None:
    content = sign_list({"a": vector(1.0)}, "dlib", ISSUER, "a registry")
    stranger = Ed25519PrivateKey.generate().public_key()
    outer = json.loads(content)
    payload = base64.b64decode(outer["payload"]).replace(b"a registry", b"b registry")
    outer["payload"] = base64.b64encode(payload).decode()
    for attempt, trusted in (
        (content, [stranger]),
        (content, []),
        (json.dumps(outer).encode(), TRUSTED),
    ):
        with pytest.raises(InvalidInput, match="not signed by a key you trust"):
            read(attempt, trusted=trusted)
    for rubbish in (b"", b"[]", b"{}", b'{"payload": 1, "signature": 2}', b"[" * 100_000):
        with pytest.raises(InvalidInput, match="not in our format"):
            read(rubbish)


def signed(data: object) -> bytes:
    payload = json.dumps(data).encode()
    parts = {"payload": payload, "signature": ISSUER.sign(payload)}
    return json.dumps({k: base64.b64encode(v).decode() for k, v in parts.items()}).encode()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": "other/9"}, "not of the format"),
        ({"recogniser": "arcface"}, "cannot be compared"),
        ({"people": ["x"]}, "no entries"),
        ({"people": {"x": "???"}}, "not an embedding"),
        ({"people": {"x": base64.b64encode(b"abc").decode()}}, "not an embedding"),
        ({"people": {"x": ""}}, "shape"),
        ({"people": {"x": base64.b64encode(vector(math.nan).tobytes()).decode()}}, "finite"),
        ({"people": {"x": base64.b64encode(b"\0\0\x80?").decode()}}, "have 128"),
    ],
)
def test_a_signed_list_with_strange_content_is_refused(
    change: dict[str, object], sentence: str
) -> None:
    data = {"format": "imagine-do-not-generate/1", "recogniser": "dlib", "people": {}} | change
    with pytest.raises(InvalidInput, match=sentence):
        read(signed(data))


def test_a_public_key_is_64_hex_digits() -> None:
    text = TRUSTED[0].public_bytes_raw().hex()
    assert read_public_key(f" {text}\n") == TRUSTED[0]
    for wrong in ("", "abcd", "z" * 64):
        with pytest.raises(InvalidInput, match="64 hex digits"):
            read_public_key(wrong)

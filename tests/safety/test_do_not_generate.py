from __future__ import annotations

import base64
import json
import math
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from imagine.core import FloatArray
from imagine.errors import InvalidInput
from imagine.safety.do_not_generate import DoNotGenerateList, make_key, read_key

ISSUER = Ed25519PrivateKey.generate()
TRUSTED = [ISSUER.public_key()]


def distance(one: FloatArray, other: FloatArray) -> float:
    return float(np.linalg.norm(one - other))


def vector(value: float) -> FloatArray:
    return np.full(128, value, np.float32)


def open_list(folder: Path, recogniser: str = "dlib") -> DoNotGenerateList:
    key_file = folder / "list.key"
    key = read_key(key_file) if key_file.exists() else make_key(key_file)
    return DoNotGenerateList(folder / "list.bin", key, recogniser, distance)


def test_a_new_list_is_empty_and_matches_nobody(tmp_path: Path) -> None:
    people = open_list(tmp_path)
    assert len(people) == 0
    assert people.nearest(vector(1.0)) == math.inf
    assert not people.matches(vector(1.0), 100.0)
    assert not (tmp_path / "list.bin").exists()


def test_whoever_registers_is_found_again_after_a_restart(tmp_path: Path) -> None:
    open_list(tmp_path).register(vector(1.0))
    people = open_list(tmp_path)
    assert people.nearest(vector(1.0)) == 0.0
    assert people.matches(vector(1.01), 0.6)
    assert not people.matches(vector(2.0), 0.6)


def test_the_receipt_takes_a_person_off_again(tmp_path: Path) -> None:
    people = open_list(tmp_path)
    receipt = people.register(vector(1.0))
    people.register(vector(5.0))
    people.remove(receipt)
    assert len(open_list(tmp_path)) == 1
    with pytest.raises(InvalidInput, match="receipt"):
        people.remove(receipt)


def test_nothing_of_an_embedding_can_be_read_on_the_disk(tmp_path: Path) -> None:
    people = open_list(tmp_path)
    people.register(vector(1.0))
    stored = (tmp_path / "list.bin").read_bytes()
    assert vector(1.0).tobytes() not in stored
    assert base64.b64encode(vector(1.0).tobytes())[:40] not in stored
    assert repr(people) == "DoNotGenerateList('list.bin', 1 people, dlib)"


def test_another_process_sees_a_new_entry(tmp_path: Path) -> None:
    reader, writer = open_list(tmp_path), open_list(tmp_path)
    writer.register(vector(1.0))
    assert reader.matches(vector(1.0), 0.6)


def test_a_flipped_byte_a_wrong_key_and_another_recogniser_are_refused(tmp_path: Path) -> None:
    open_list(tmp_path).register(vector(1.0))
    stored = bytearray((tmp_path / "list.bin").read_bytes())
    with pytest.raises(InvalidInput, match="cannot be opened"):
        DoNotGenerateList(tmp_path / "list.bin", bytes(32), "dlib", distance)
    with pytest.raises(InvalidInput, match="recogniser 'arcface'"):
        open_list(tmp_path, "arcface")
    for position in (0, 20, len(stored) - 1):
        damaged = bytes(stored[:position]) + bytes([stored[position] ^ 1]) + stored[position + 1 :]
        (tmp_path / "list.bin").write_bytes(damaged)
        with pytest.raises(InvalidInput, match="do not delete it"):
            open_list(tmp_path)
    (tmp_path / "list.bin").write_bytes(b"")
    with pytest.raises(InvalidInput, match="damaged"):
        open_list(tmp_path)


def test_a_list_that_disappears_is_not_an_empty_one(tmp_path: Path) -> None:
    people = open_list(tmp_path)
    people.register(vector(1.0))
    (tmp_path / "list.bin").unlink()
    with pytest.raises(InvalidInput, match="disappeared"):
        people.nearest(vector(1.0))


def test_a_signed_list_is_taken_over_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    theirs, ours = open_list(tmp_path / "a"), open_list(tmp_path / "b")
    theirs.register(vector(1.0))
    content = theirs.export_signed(ISSUER, "a registry")
    ours.register(vector(3.0))
    assert ours.import_signed(content, TRUSTED) == 1
    assert ours.import_signed(content, TRUSTED) == 0
    assert ours.matches(vector(1.0), 0.1) and ours.matches(vector(3.0), 0.1)


def test_an_unsigned_changed_or_foreign_list_is_refused_whole(tmp_path: Path) -> None:
    people = open_list(tmp_path)
    people.register(vector(1.0))
    content = people.export_signed(ISSUER, "a registry")
    stranger = Ed25519PrivateKey.generate().public_key()
    outer = json.loads(content)
    payload = base64.b64decode(outer["payload"]).replace(b"a registry", b"b registry")
    outer["payload"] = base64.b64encode(payload).decode()
    attempts = [(content, [stranger]), (content, []), (json.dumps(outer).encode(), TRUSTED)]
    for attempt, trusted in attempts:
        with pytest.raises(InvalidInput, match="not signed by a key you trust"):
            people.import_signed(attempt, trusted)
    for rubbish in (b"", b"[]", b"{}", b'{"payload": 1, "signature": 2}', b"[" * 100_000):
        with pytest.raises(InvalidInput, match="not in our format"):
            people.import_signed(rubbish, TRUSTED)
    assert len(people) == 1


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
        ({"people": {"x": base64.b64encode(b"\0\0\x80?").decode()}}, "different sizes"),
    ],
)
def test_a_signed_list_with_strange_content_is_refused(
    tmp_path: Path, change: dict[str, object], sentence: str
) -> None:
    people = open_list(tmp_path)
    people.register(vector(1.0))
    data = {"format": "imagine-do-not-generate/1", "recogniser": "dlib", "people": {}} | change
    with pytest.raises(InvalidInput, match=sentence):
        people.import_signed(signed(data), TRUSTED)
    assert len(people) == 1


@pytest.mark.parametrize("bad", [vector(0.0), vector(math.inf), np.zeros((2, 2)), np.zeros(0)])
def test_something_that_is_no_embedding_is_refused(tmp_path: Path, bad: FloatArray) -> None:
    people = open_list(tmp_path)
    with pytest.raises(InvalidInput, match="cannot be listed or looked up"):
        people.register(bad)
    with pytest.raises(InvalidInput, match="cannot be listed or looked up"):
        people.nearest(bad)


def test_a_key_is_private_never_overwritten_and_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "list.key"
    key = make_key(path)
    assert read_key(path) == key and path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InvalidInput, match="already"):
        make_key(path)
    path.write_text("abcd")
    with pytest.raises(InvalidInput, match="2 bytes") as caught:
        read_key(path)
    assert "abcd" not in str(caught.value)
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_key(tmp_path / "none.key")
    with pytest.raises(InvalidInput, match="5 bytes"):
        DoNotGenerateList(tmp_path / "list.bin", b"short", "dlib", distance)

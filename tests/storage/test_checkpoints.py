"""Signing keys, public keys and checkpoints, and how each of them refuses what is not one."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from imagine.errors import SigningKeyUnusable, UnreadableAuditLog
from imagine.storage.checkpoints import (
    Checkpoint,
    SigningKey,
    VerifierKey,
    from_base64,
    parse_checkpoint,
)
from imagine.storage.merkle import leaf_hash, root_of

ORIGIN = "imagine-yourself/audit/test"
ROOT = root_of([leaf_hash(b"a"), leaf_hash(b"b")])

# The example of the signed note format as its specification and Go's package print it.
EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE_TEXT = b"This is an example message.\n"
EXAMPLE_SIGNATURE = (
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM="
)


def test_keys_are_named_and_used_as_the_published_example_does() -> None:
    key = VerifierKey.parse(EXAMPLE_KEY)
    signed = from_base64(EXAMPLE_SIGNATURE)
    assert signed is not None
    assert str(key) == EXAMPLE_KEY
    assert signed[:4] == key.key_id
    Ed25519PublicKey.from_public_bytes(key.public_bytes).verify(signed[4:], EXAMPLE_TEXT)


def test_a_checkpoint_survives_being_written_down() -> None:
    key = SigningKey.generate()
    checkpoint = key.sign(ORIGIN, 2, ROOT)
    read = parse_checkpoint(str(checkpoint))
    assert read == checkpoint
    assert key.verifier_key(ORIGIN).confirms(read)
    assert str(checkpoint).splitlines()[:2] == [ORIGIN, "2"]


def test_signatures_of_witnesses_do_not_hide_ours() -> None:
    checkpoint = SigningKey.generate().sign(ORIGIN, 2, ROOT)
    witnessed = f"{checkpoint}— witness.example {EXAMPLE_SIGNATURE}\n"
    assert parse_checkpoint(witnessed) == checkpoint


@pytest.mark.parametrize(
    "changed",
    [
        lambda point: point.replace("\n2\n", "\n3\n"),
        lambda point: point.replace("audit/test\n2", "audit/tess\n2"),
        lambda point: point.replace("\n2\n", "\n02\n"),
        lambda point: point.replace("\n\n", "\nmore\n\n"),
        lambda point: point.replace("— ", "- "),
        lambda point: point.replace("=\n\n", "\n\n"),
        lambda point: point[:-20],
        lambda point: "",
    ],
)
def test_a_changed_checkpoint_is_unreadable_or_unconfirmed(changed: object) -> None:
    key = SigningKey.generate()
    text = changed(str(key.sign(ORIGIN, 2, ROOT)))  # type: ignore[operator]
    try:
        read = parse_checkpoint(text)
    except UnreadableAuditLog as error:
        assert "five lines" in str(error)
        return
    assert not key.verifier_key(ORIGIN).confirms(read)


def test_another_key_confirms_nothing() -> None:
    checkpoint = SigningKey.generate().sign(ORIGIN, 2, ROOT)
    other = SigningKey.generate().verifier_key(ORIGIN)
    assert not other.confirms(checkpoint)
    pretended = Checkpoint(ORIGIN, 2, ROOT, checkpoint.signature, other.key_id)
    assert not other.confirms(pretended)


@pytest.mark.parametrize("text", ["", "name", "a+00000000+AQID", EXAMPLE_KEY.replace("foo", "fop")])
def test_what_is_not_a_public_key_is_refused(text: str) -> None:
    with pytest.raises(SigningKeyUnusable, match="imagine-me audit key"):
        VerifierKey.parse(text)


def test_the_signing_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "audit.pem"
    first, again = SigningKey.load_or_create(path), SigningKey.load_or_create(path)
    assert first.public_bytes == again.public_bytes
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["audit.pem"]


def test_many_at_once_agree_on_one_signing_key(tmp_path: Path) -> None:
    path = tmp_path / "audit.pem"
    with ThreadPoolExecutor(8) as threads:
        keys = list(threads.map(SigningKey.load_or_create, [path] * 16))
    assert len({key.public_bytes for key in keys}) == 1


@pytest.mark.skipif(os.name != "posix", reason="rights of files are those of POSIX")
def test_a_signing_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "audit.pem"
    SigningKey.load_or_create(path)
    path.chmod(0o640)
    with pytest.raises(SigningKeyUnusable, match=r"mode 640.*chmod 600"):
        SigningKey.load_or_create(path)


def test_a_file_without_an_ed25519_key_is_refused(tmp_path: Path) -> None:
    other = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for content in (b"not a key", other):
        path = tmp_path / "audit.pem"
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(SigningKeyUnusable, match="Ed25519"):
            SigningKey.load_or_create(path)


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(SigningKeyUnusable, match="cannot be read or made"):
        SigningKey.load_or_create(tmp_path / "data" / "audit.pem")


def test_a_signing_key_does_not_show_itself(tmp_path: Path) -> None:
    path = tmp_path / "audit.pem"
    shown = repr(SigningKey.load_or_create(path))
    secret = path.read_text().splitlines()[1]
    assert secret not in shown and len(shown) < 30

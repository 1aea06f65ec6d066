"""Checkpoints: how large the audit log was and its root hash, signed, in a few lines of text.

The text is that of transparency logs everywhere (C2SP tlog-checkpoint in a signed note), so that
witnesses and tools of others can read it. Keep a copy outside this machine: an old checkpoint
catches a log that was written anew, even by somebody who holds the signing key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from imagine.errors import SigningKeyUnusable, UnreadableAuditLog
from imagine.storage.merkle import HASH_BYTES

KEY_FILE_NAME = "audit.pem"  # of the signing key, in the folder of secrets
_ED25519 = b"\x01"  # the signature type of the signed note format
_SIGNATURE_BYTES = 64
_ORIGIN = re.compile(r"[^\s+]{1,200}")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log at one moment.

    Attributes:
        origin: name of the log; the signing key carries the same name.
        size: entries in the log.
        root: 32 bytes, the RFC 6962 root over these entries.
        signature: 64 bytes, Ed25519 over `body`.
        key_id: 4 bytes, which key signed.
    """

    origin: str
    size: int
    root: bytes
    signature: bytes
    key_id: bytes

    @property
    def body(self) -> bytes:
        """The lines that are signed."""
        return _body(self.origin, self.size, self.root)

    def __str__(self) -> str:
        signed = base64.b64encode(self.key_id + self.signature).decode()
        return f"{self.body.decode()}\n— {self.origin} {signed}\n"


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """The public half of a signing key: what anybody needs to check a log offline.

    Attributes:
        name: the origin of the log it signs for.
        public_bytes: 32 bytes of an Ed25519 public key.
    """

    name: str
    public_bytes: bytes

    @property
    def key_id(self) -> bytes:
        """Four bytes that name this key in a signature."""
        named = self.name.encode() + b"\n" + _ED25519 + self.public_bytes
        return hashlib.sha256(named).digest()[:4]

    def __str__(self) -> str:
        encoded = base64.b64encode(_ED25519 + self.public_bytes).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """A key from its line `name+id+key`.

        Raises:
            SigningKeyUnusable: not such a line, or its id does not belong to its key.
        """
        name, _, rest = text.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        decoded = from_base64(encoded)
        if decoded is not None and decoded[:1] == _ED25519 and len(decoded) == 33:
            key = cls(name, decoded[1:])
            if key.key_id.hex() == key_id and _ORIGIN.fullmatch(name):
                return key
        raise SigningKeyUnusable(
            f"{text.strip()[:120]!r} is not a public key of an audit log. "
            "Give the line that `imagine-me audit key` prints."
        )

    def confirms(self, checkpoint: Checkpoint) -> bool:
        """Whether this key signed the checkpoint."""
        if (checkpoint.origin, checkpoint.key_id) != (self.name, self.key_id):
            return False
        try:
            public_key = Ed25519PublicKey.from_public_bytes(self.public_bytes)
            public_key.verify(checkpoint.signature, checkpoint.body)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """An Ed25519 key that signs the checkpoints of a log; never shows itself."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key

    def __repr__(self) -> str:
        return f"SigningKey({hashlib.sha256(self.public_bytes).hexdigest()[:8]})"

    @classmethod
    def generate(cls) -> SigningKey:
        """A new random key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load_or_create(cls, path: Path) -> SigningKey:
        """The key in a file; the first time, a new one, readable by its owner alone.

        Raises:
            SigningKeyUnusable: others may read the file, it holds something else, or the folder
                refuses to be written.
        """
        try:
            if not path.exists():
                _write_once(path, cls.generate()._pem())
            return cls._load(path)
        except OSError as error:
            raise SigningKeyUnusable(
                f"The audit signing key {str(path)!r} cannot be read or made "
                f"({error.strerror}). Check the owner and the rights of its folder."
            ) from error

    @classmethod
    def _load(cls, path: Path) -> SigningKey:
        mode = path.stat().st_mode & 0o777
        if os.name == "posix" and mode & 0o077:
            raise SigningKeyUnusable(
                f"Others may read the audit signing key {str(path)!r} (mode {mode:o}), so its "
                f"signatures prove nothing. Run: chmod 600 {path}"
            )
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise _not_a_key(path) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise _not_a_key(path)
        return cls(key)

    @property
    def public_bytes(self) -> bytes:
        """32 bytes of the public half."""
        return self._private_key.public_key().public_bytes_raw()

    def verifier_key(self, origin: str) -> VerifierKey:
        """The public half under the name of the log."""
        return VerifierKey(origin, self.public_bytes)

    def sign(self, origin: str, size: int, root: bytes) -> Checkpoint:
        """Sign that the log had this root at this size."""
        signature = self._private_key.sign(_body(origin, size, root))
        return Checkpoint(origin, size, root, signature, self.verifier_key(origin).key_id)

    def _pem(self) -> bytes:
        return self._private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def parse_checkpoint(text: str) -> Checkpoint:
    """A checkpoint from its text; its signature is not checked here.

    Signatures of witnesses below ours are skipped. Lines between root and signature are refused:
    we write none, and what is not understood must not be vouched for.

    Raises:
        UnreadableAuditLog: it does not have this form.
    """
    body, _, signatures = text.strip().replace("\r\n", "\n").partition("\n\n")
    lines = body.split("\n")
    if len(lines) == 3 and _ORIGIN.fullmatch(lines[0]) and _SIZE.fullmatch(lines[1]):
        root, signed = from_base64(lines[2]), _signature_of(lines[0], signatures)
        if root is not None and len(root) == HASH_BYTES and signed is not None:
            return Checkpoint(lines[0], int(lines[1]), root, signed[4:], signed[:4])
    raise UnreadableAuditLog(
        f"This is not a checkpoint of an audit log: {text.strip()[:60]!r}. It has five lines: "
        "name, size, root, an empty one and the signature."
    )


def from_base64(text: str) -> bytes | None:
    """The bytes, or None; of the spellings of the same bytes only the usual one is accepted."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded if base64.b64encode(decoded).decode() == text else None


def _signature_of(origin: str, lines: str) -> bytes | None:
    """Key id and signature, 68 bytes, from the first line signed in the name of the log."""
    for line in lines.split("\n"):
        if line.startswith(begin := f"— {origin} "):
            signed = from_base64(line.removeprefix(begin))
            return signed if signed and len(signed) == 4 + _SIGNATURE_BYTES else None
    return None


def _body(origin: str, size: int, root: bytes) -> bytes:
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n".encode()


def _not_a_key(path: Path) -> SigningKeyUnusable:
    return SigningKeyUnusable(
        f"{str(path)!r} does not hold an Ed25519 private key in PEM. Give the file this log was "
        "begun with; another key cannot continue it."
    )


def _write_once(path: Path, content: bytes) -> None:
    """Write a secret file whole or not at all; whoever comes second keeps the first one's."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)  # unlike a rename, this fails when another process was faster
        except FileExistsError:
            return
    finally:
        draft.unlink()

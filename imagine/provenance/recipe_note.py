"""What a file says of its recipe: nothing, sealed for the installation that made it, or openly.

A prompt is private, and the fingerprint in a recipe ties pictures of one person together. So a
file that is shared tells strangers neither, and still can be made again where it was made.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from enum import StrEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_PURPOSE = b"imagine recipe box 1"
_NONCE_BYTES = 12
_BLOCK = 512  # bytes; the length of what is sealed tells only how many of these it takes


class RecipeNote(StrEnum):
    """Who may read the recipe in a file."""

    NONE = "none"
    SEALED = "sealed"
    OPEN = "open"


class RecipeBox:
    """Seals recipes with a key that never leaves the installation.

    Args:
        secret: the installation's own; the key is derived from it and is no other key.
    """

    def __init__(self, secret: bytes) -> None:
        self._cipher = AESGCM(hmac.digest(secret, _PURPOSE, hashlib.sha256))

    def __repr__(self) -> str:
        return "RecipeBox(key=...)"

    def seal(self, text: str) -> str:
        """The text as letters nobody else can read; two sealings of one text differ."""
        plain = text.encode()
        padded = plain + b"\0" * (-len(plain) % _BLOCK)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, padded, _PURPOSE)).decode()

    def open(self, sealed: str) -> str | None:
        """What `seal` was given; None for anything sealed elsewhere or changed since."""
        try:
            data = base64.b64decode(sealed.strip(), validate=True)
            nonce, body = data[:_NONCE_BYTES], data[_NONCE_BYTES:]
            return self._cipher.decrypt(nonce, body, _PURPOSE).rstrip(b"\0").decode()
        except (binascii.Error, InvalidTag, ValueError):
            return None

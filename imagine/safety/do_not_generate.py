"""People who asked not to be shown: how near a face is to one of them, and lists that are signed.

The list ships empty; anybody may register themselves. Where the entries lie, and how they are
sealed, is `imagine.storage.protected`'s affair: vectors are handed in. Those of one recogniser
cannot be compared with another's.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from imagine.core import FloatArray
from imagine.errors import CheckMissing, InvalidInput

FORMAT = "imagine-do-not-generate/1"
MAX_IMPORT_BYTES = 64 * 1024 * 1024
MAX_DIMENSIONS = 4096
_KEY_BYTES = 32  # of an Ed25519 public key


class Protected(Protocol):
    """Where the entries of the list are kept."""

    def embeddings(self, recogniser: str) -> Sequence[FloatArray]:
        """The vectors of one recogniser, (d,) float32 each."""

    def counts(self) -> Mapping[str, int]:
        """How many entries of each recogniser there are."""


class NearestListed:
    """Says how far a face is from the nearest person on the list; the list is asked each time.

    Args:
        protected: the list.
        recogniser: name of the face encoder in use.
        distance: that encoder's distance.
    """

    def __init__(
        self,
        protected: Protected,
        recogniser: str,
        distance: Callable[[FloatArray, FloatArray], float],
    ) -> None:
        self._protected = protected
        self._recogniser = recogniser
        self._distance = distance

    def __call__(self, embedding: FloatArray) -> float:
        """Distance to the nearest entry; infinite when the list is empty.

        Raises:
            InvalidInput: this is no face vector, or an entry is of another size.
        """
        probe = checked_vector(embedding)
        distances = []
        for entry in self._protected.embeddings(self._recogniser):
            if entry.shape != probe.shape:
                raise InvalidInput(
                    f"An entry of the do-not-generate list has {entry.shape[0]} numbers, a face of "
                    f"{self._recogniser!r} {probe.shape[0]}. Take off the list it came with."
                )
            distances.append(float(self._distance(probe, entry)))
        # min() would hide a distance that is not a number behind its neighbours.
        if any(math.isnan(distance) for distance in distances):
            return math.nan
        return min(distances, default=math.inf)

    def check_ready(self) -> None:
        """Refuse to work beside entries that this recogniser cannot be compared with.

        Raises:
            CheckMissing: some people registered with another recogniser.
        """
        others = {n: c for n, c in self._protected.counts().items() if n != self._recogniser}
        if others:
            told = ", ".join(f"{count} with {name!r}" for name, count in sorted(others.items()))
            raise CheckMissing(
                f"The do-not-generate list cannot be kept with the recogniser {self._recogniser!r}:"
                f" people registered with another ({told}). Use that one, or ask them to register "
                "again and take the old entries off."
            )


@dataclass(frozen=True, slots=True)
class SignedList:
    """A list whose signature was checked.

    Attributes:
        issuer: fingerprint of the key that signed it, 16 hex digits.
        people: id in the list -> (d,) float32.
    """

    issuer: str
    people: Mapping[str, FloatArray] = field(repr=False)


def sign_list(
    people: Mapping[str, FloatArray], recogniser: str, key: Ed25519PrivateKey, issuer: str
) -> bytes:
    """A list as a file that others can import.

    The vectors in it are NOT encrypted, only signed: send it the way you send secrets.

    Args:
        people: a random id of each entry -> (d,) float32.
        recogniser: whose vectors they are.
        key: signs it.
        issuer: who signs, in words.
    """
    written = {name: _written(checked_vector(vector)) for name, vector in people.items()}
    payload = _canonical(
        {"format": FORMAT, "issuer": issuer, "recogniser": recogniser, "people": written}
    )
    return _canonical({"payload": _base64(payload), "signature": _base64(key.sign(payload))})


def read_signed_list(
    content: bytes, trusted: Iterable[Ed25519PublicKey], recogniser: str, size: int
) -> SignedList:
    """Check and read a list.

    Args:
        content: the file.
        trusted: whose lists are taken over.
        recogniser: whose vectors it must hold.
        size: how many numbers a vector of that recogniser has.

    Raises:
        InvalidInput: too large, damaged, signed by nobody trusted, or of another recogniser.
    """
    payload, key = _verified_payload(content, trusted)
    if payload.get("recogniser") != recogniser:
        raise InvalidInput(
            f"The list to import holds embeddings of {payload.get('recogniser')!r:.60}, this "
            f"installation uses {recogniser!r}. They cannot be compared; ask for the other kind."
        )
    people = _read_people(payload.get("people"))
    if strange := sorted({v.shape[0] for v in people.values()} - {size}):
        raise InvalidInput(
            f"The list to import holds embeddings of {strange[0]} numbers; those of "
            f"{recogniser!r} have {size}. Nothing was taken over; ask its maker."
        )
    return SignedList(key_fingerprint(key), people)


def read_public_key(text: str) -> Ed25519PublicKey:
    """A public key from 64 hex digits.

    Raises:
        InvalidInput: it is none.
    """
    try:
        raw = bytes.fromhex(text.strip())
    except ValueError:
        raw = b""
    if len(raw) != _KEY_BYTES:
        raise InvalidInput(
            f"{text[:80]!r} is not a public key. Give the 64 hex digits of an Ed25519 key."
        )
    return Ed25519PublicKey.from_public_bytes(raw)


def key_fingerprint(key: Ed25519PublicKey) -> str:
    """A short name of a key: 16 hex digits."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def checked_vector(embedding: FloatArray) -> FloatArray:
    """The vector itself, if it is one.

    Raises:
        InvalidInput: not one row of finite numbers, or all of them zero.
    """
    vector = np.asarray(embedding, dtype=np.float32)
    fits = vector.ndim == 1 and 0 < vector.size <= MAX_DIMENSIONS
    # A zero vector would be as near to everybody as to nobody.
    if not fits or not np.isfinite(vector).all() or not vector.any():
        raise InvalidInput(
            f"An embedding of shape {vector.shape} cannot be listed or looked up. It must be one "
            "row of finite numbers, not all zero."
        )
    return vector


def _verified_payload(
    content: bytes, trusted: Iterable[Ed25519PublicKey]
) -> tuple[dict[str, Any], Ed25519PublicKey]:
    if len(content) > MAX_IMPORT_BYTES:
        raise InvalidInput(
            f"The list to import has {len(content)} bytes; at most {MAX_IMPORT_BYTES} are read."
        )
    try:
        outer = json.loads(content)
        payload = base64.b64decode(outer["payload"], validate=True)
        signature = base64.b64decode(outer["signature"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInput("The list to import is not in our format. Ask its maker.") from error
    signers = [key for key in trusted if _signed_by(key, signature, payload)]
    if not signers:
        raise InvalidInput(
            "The list to import is not signed by a key you trust, or was changed since. Nothing "
            "was taken over. Check it with its maker, or trust their key first."
        )
    data = json.loads(payload)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InvalidInput(f"The list to import is not of the format {FORMAT!r}.")
    return data, signers[0]


def _signed_by(key: Ed25519PublicKey, signature: bytes, payload: bytes) -> bool:
    try:
        key.verify(signature, payload)
    except InvalidSignature:
        return False
    return True


def _read_people(people: object) -> dict[str, FloatArray]:
    if not isinstance(people, dict):
        raise InvalidInput("The list holds no entries in our format. Ask its maker.")
    try:
        vectors = {
            str(name): np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4")
            for name, text in people.items()
        }
    except (ValueError, TypeError) as error:
        raise InvalidInput("An entry of the list is not an embedding. Ask its maker.") from error
    return {name: checked_vector(vector) for name, vector in vectors.items()}


def _written(vector: FloatArray) -> str:
    return _base64(vector.astype("<f4").tobytes())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _canonical(data: Mapping[str, object]) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()

"""The list of people who asked not to be shown: embeddings kept only to refuse, encrypted.

It ships empty. Anybody may register themselves and be taken off again; lists of others are taken
over only when signed by a key the operator trusts. Entries of one recogniser cannot be compared
with another's, so a list belongs to one recogniser.
"""

from __future__ import annotations

import base64
import json
import math
import os
import secrets
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from imagine.core import FloatArray
from imagine.errors import InvalidInput

FORMAT = "imagine-do-not-generate/1"
MAX_IMPORT_BYTES = 64 * 1024 * 1024
MAX_DIMENSIONS = 4096

_MAGIC = b"IMAGINE-DNG-1\n"
_KEY_BYTES = 32
_NONCE_BYTES = 12


class DoNotGenerateList:
    """An encrypted file of embeddings, read again whenever another process changed it.

    Safe to use from several threads. Two processes that add at the same moment may lose one of
    the two entries; let one process write.
    """

    def __init__(
        self,
        path: Path,
        key: bytes,
        recogniser: str,
        distance: Callable[[FloatArray, FloatArray], float],
    ) -> None:
        """Open a list, or begin an empty one; nothing is written before the first entry.

        Args:
            path: the encrypted file.
            key: 32 bytes, from `read_key`.
            recogniser: name of the face encoder whose embeddings the list holds.
            distance: that encoder's distance.

        Raises:
            InvalidInput: the key does not fit, the file is damaged, or it belongs to another
                recogniser. An unreadable list is never taken for an empty one.
        """
        if len(key) != _KEY_BYTES:
            raise InvalidInput(
                f"The key of the do-not-generate list has {len(key)} bytes; it needs "
                f"{_KEY_BYTES}. Make one with make_key."
            )
        self.recogniser = recogniser
        self._path = path
        self._cipher = AESGCM(key)
        self._distance = distance
        self._lock = RLock()
        self._seen: tuple[int, int] | None = None
        self._entries: dict[str, FloatArray] = {}
        self._refresh()

    def __repr__(self) -> str:
        return f"DoNotGenerateList({self._path.name!r}, {len(self)} people, {self.recogniser})"

    def __len__(self) -> int:
        with self._lock:
            self._refresh()
            return len(self._entries)

    def register(self, embedding: FloatArray) -> str:
        """Put a person on the list.

        Args:
            embedding: (d,) float32, the fused vector of their selfies.

        Returns:
            The entry's id, 32 hex digits: the receipt that takes them off again.
        """
        entry_id = secrets.token_hex(16)
        self._add({entry_id: _checked(embedding)})
        return entry_id

    def remove(self, entry_id: str) -> None:
        """Take a person off the list.

        Raises:
            InvalidInput: no such entry.
        """
        with self._lock:
            self._refresh()
            if entry_id not in self._entries:
                raise InvalidInput(
                    "The do-not-generate list has no entry with this receipt. Check the receipt."
                )
            self._write({name: v for name, v in self._entries.items() if name != entry_id})

    def nearest(self, embedding: FloatArray) -> float:
        """Distance to the nearest entry; infinite when the list is empty."""
        probe = _checked(embedding)
        with self._lock:
            self._refresh()
            entries = list(self._entries.values())
        return min((float(self._distance(probe, entry)) for entry in entries), default=math.inf)

    def matches(self, embedding: FloatArray, limit: float) -> bool:
        """Whether an entry lies at most `limit` away."""
        return self.nearest(embedding) <= limit

    def export_signed(self, key: Ed25519PrivateKey, issuer: str) -> bytes:
        """The list as a file others can import.

        The embeddings in it are NOT encrypted, only signed: send it the way you send secrets.
        """
        with self._lock:
            self._refresh()
            people = {name: _written(vector) for name, vector in self._entries.items()}
        payload = _canonical(
            {"format": FORMAT, "issuer": issuer, "recogniser": self.recogniser, "people": people}
        )
        signed = {"payload": _base64(payload), "signature": _base64(key.sign(payload))}
        return _canonical(signed)

    def import_signed(self, content: bytes, trusted: Iterable[Ed25519PublicKey]) -> int:
        """Take over the entries of a signed list; those already here stay.

        Returns:
            How many entries were new.

        Raises:
            InvalidInput: too large, damaged, signed by nobody trusted, or of another recogniser.
                Nothing is taken over then.
        """
        payload = _verified_payload(content, trusted)
        if payload.get("recogniser") != self.recogniser:
            raise InvalidInput(
                f"The list to import holds embeddings of {payload.get('recogniser')!r:.60}, this "
                f"one of {self.recogniser!r}. They cannot be compared; ask for the other kind."
            )
        people = _read_people(payload.get("people"))
        with self._lock:
            self._refresh()
            new = {name: v for name, v in people.items() if name not in self._entries}
            self._add(new)
        return len(new)

    def _add(self, new: Mapping[str, FloatArray]) -> None:
        with self._lock:
            self._refresh()
            merged = {**self._entries, **new}
            sizes = {vector.shape for vector in merged.values()}
            if len(sizes) > 1:
                raise InvalidInput(
                    f"The embeddings have different sizes: {sorted(s[0] for s in sizes)}. "
                    f"All must come from the recogniser {self.recogniser!r}."
                )
            if new:
                self._write(merged)

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
        except FileNotFoundError as error:
            if self._seen is None:
                return
            raise InvalidInput(
                f"The do-not-generate list {self._path.name!r} has disappeared. Restore it; people "
                "who asked not to be shown would be."
            ) from error
        seen = (status.st_mtime_ns, status.st_size)
        if seen != self._seen:
            self._entries = self._decrypt(self._path.read_bytes())
            self._seen = seen

    def _decrypt(self, content: bytes) -> dict[str, FloatArray]:
        nonce_end = len(_MAGIC) + _NONCE_BYTES
        nonce, sealed = content[len(_MAGIC) : nonce_end], content[nonce_end:]
        try:
            if not content.startswith(_MAGIC) or len(nonce) != _NONCE_BYTES:
                raise InvalidTag
            plain = self._cipher.decrypt(nonce, sealed, self._bound())
        except InvalidTag as error:
            raise InvalidInput(
                f"The do-not-generate list {self._path.name!r} cannot be opened: it is damaged, "
                f"its key is another, or it is not of the recogniser {self.recogniser!r}. "
                "Restore it; do not delete it, or people who asked not to be shown would be."
            ) from error
        return _read_people(json.loads(plain))

    def _write(self, entries: dict[str, FloatArray]) -> None:
        plain = _canonical({name: _written(vector) for name, vector in entries.items()})
        nonce = os.urandom(_NONCE_BYTES)
        content = _MAGIC + nonce + self._cipher.encrypt(nonce, plain, self._bound())
        _replace(self._path, content)
        self._entries = entries
        status = self._path.stat()
        self._seen = (status.st_mtime_ns, status.st_size)

    def _bound(self) -> bytes:
        # The recogniser is authenticated, so a list cannot be passed off as another's.
        return _MAGIC + self.recogniser.encode()


def make_key(path: Path) -> bytes:
    """Write a new random key, readable by its owner alone.

    Raises:
        InvalidInput: there is a file already; a key is never overwritten.
    """
    key = os.urandom(_KEY_BYTES)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise InvalidInput(
            f"There is a file {path.name!r} already. Name another, or use that key."
        ) from error
    with os.fdopen(handle, "w") as file:
        file.write(key.hex())
    return key


def read_key(path: Path) -> bytes:
    """Read a key that `make_key` wrote.

    Raises:
        InvalidInput: no such file, or not such a key; the message never shows it.
    """
    try:
        key = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"The key file {path.name!r} cannot be read as 64 hex digits. Check the path, or "
            "make a key for a new list with make_key."
        ) from error
    if len(key) != _KEY_BYTES:
        raise InvalidInput(f"The key in {path.name!r} has {len(key)} bytes, not {_KEY_BYTES}.")
    return key


def _checked(embedding: FloatArray) -> FloatArray:
    vector = np.asarray(embedding, dtype=np.float32)
    fits = vector.ndim == 1 and 0 < vector.size <= MAX_DIMENSIONS
    # A zero vector would be as near to everybody as to nobody.
    if not fits or not np.isfinite(vector).all() or not vector.any():
        raise InvalidInput(
            f"An embedding of shape {vector.shape} cannot be listed or looked up. It must be one "
            "row of finite numbers, not all zero."
        )
    return vector


def _verified_payload(content: bytes, trusted: Iterable[Ed25519PublicKey]) -> dict[str, Any]:
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
    if not any(_signed_by(key, signature, payload) for key in trusted):
        raise InvalidInput(
            "The list to import is not signed by a key you trust, or was changed since. Nothing "
            "was taken over. Check it with its maker, or trust their key first."
        )
    data = json.loads(payload)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InvalidInput(f"The list to import is not of the format {FORMAT!r}.")
    return data


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
    return {name: _checked(vector) for name, vector in vectors.items()}


def _written(vector: FloatArray) -> str:
    return _base64(vector.astype("<f4").tobytes())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _canonical(data: Mapping[str, object]) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that it is the old one or the new one, never half of either."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

"""A data key per identity or person, wrapped by a master key, kept apart from what it opens.

Everything sealed (AES-256-GCM) is bound to its tenant and to the name of the thing, so that it
opens nowhere else. Destroying a data key makes all it ever sealed unreadable, in every copy. For
that to reach backups, wrapped keys live in a store of their own: back up the database and the
blobs as you like, and this store only as a mirror, never as history.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from imagine.errors import (
    BlobStoreUnusable,
    DataKeyDestroyed,
    InvalidInput,
    MasterKeyUnusable,
    SealBroken,
)
from imagine.storage.blobs import BlobStore
from imagine.storage.database import utc_now

KEY_BYTES = 32  # AES-256
_NONCE_BYTES = 12  # of GCM; random ones are safe for 2**32 seals per key, far above one person
_TAG_BYTES = 16
_FORMAT = b"\x01"  # first byte of everything sealed
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_OPEN_TO_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class MasterKey(Protocol):
    """What wraps data keys: a key of ours, or a hook to a key management service."""

    @property
    def key_id(self) -> str:
        """Names the key without telling it; stored beside everything it wrapped."""

    def wrap(self, data_key: bytes, context: bytes) -> bytes:
        """Encrypt a data key; `context` must be given again to unwrap."""

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Decrypt what `wrap` gave.

        Raises:
            MasterKeyUnusable: this key or this context did not wrap it.
        """


class LocalMasterKey:
    """A master key of 32 bytes in the memory of this process."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise MasterKeyUnusable(
                f"A master key has {KEY_BYTES} bytes; this one has {len(secret)}. Make one with "
                "`imagine.storage.keys.make_master_key_file`."
            )
        self._cipher = AESGCM(secret)
        self._key_id = hashlib.sha256(b"imagine master key\0" + secret).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"LocalMasterKey(key_id={self._key_id!r})"

    @property
    def key_id(self) -> str:
        """The first 16 hex digits of a hash of the key."""
        return self._key_id

    def wrap(self, data_key: bytes, context: bytes) -> bytes:
        """As `MasterKey.wrap`: nonce, then AES-256-GCM."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data_key, context)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """As `MasterKey.unwrap`."""
        try:
            return self._cipher.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], context)
        except (InvalidTag, ValueError) as error:
            raise MasterKeyUnusable(
                f"Master key {self._key_id} does not unwrap a data key that names it. The wrapped "
                "key was damaged or moved; restore the key store from its mirror."
            ) from error


def load_master_key(source: str) -> LocalMasterKey:
    """The master key from where the settings say.

    Args:
        source: "file:/path" (one line of base64, readable by its owner alone) or
            "env:NAME" (the same line in an environment variable). A key management service is
            handed in as a `MasterKey` of its own instead.

    Raises:
        MasterKeyUnusable: missing, malformed, or readable by others.
        InvalidInput: another kind of source.
    """
    kind, _, where = source.partition(":")
    match kind:
        case "env" if where:
            line = os.environ.get(where, "")
            if not line:
                raise MasterKeyUnusable(
                    f"The environment variable {where} has no master key. Set it to 32 random "
                    "bytes in base64, the same ones every time."
                )
            return LocalMasterKey(_decoded(line, f"the environment variable {where}"))
        case "file" if where:
            path = Path(where)
            return LocalMasterKey(_decoded(_read_private(path), str(path)))
        case _:
            # What was given could be the key itself, so it is not repeated.
            raise InvalidInput("A master key source is written file:/path or env:NAME.")


def load_or_make_master_key(source: str, store: BlobStore) -> LocalMasterKey:
    """As `load_master_key`, but a missing file is made where there is nothing it could open yet.

    Raises:
        MasterKeyUnusable: as `load_master_key`; also when the file is missing although `store`,
            the key store, already holds keys that only the lost one unwraps.
        InvalidInput: as `load_master_key`.
    """
    kind, _, where = source.partition(":")
    is_new = next(store.names(), None) is None
    if kind == "file" and is_new and not Path(where).exists():
        return make_master_key_file(Path(where))
    return load_master_key(source)


def make_master_key_file(path: Path) -> LocalMasterKey:
    """Make a new random master key, in a new file that only this user can read.

    Raises:
        MasterKeyUnusable: the file exists already (it is not touched) or cannot be written.
    """
    secret = secrets.token_bytes(KEY_BYTES)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(base64.b64encode(secret).decode() + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise MasterKeyUnusable(
            f"No new master key was made at {path}: {error.strerror}. If a key is there already, "
            "use it; without it nothing that is stored can be read."
        ) from error
    return LocalMasterKey(secret)


class DataKeys:
    """The wrapped data keys, one per owner (an identity or a person) of a tenant.

    Nothing is cached: a key destroyed by one process is gone for all of them at once.
    """

    def __init__(
        self,
        store: BlobStore,
        master: MasterKey,
        previous: Sequence[MasterKey] = (),
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._master = master
        self._masters = {key.key_id: key for key in (*previous, master)}
        self._clock = clock

    def __repr__(self) -> str:
        return f"DataKeys({self._store!r}, master={self._master.key_id!r})"

    def create(self, tenant_id: str, owner_id: str) -> None:
        """Make the data key of a new owner.

        Raises:
            DataKeyDestroyed: this owner was erased; it gets no second key.
            InvalidInput: it has a key already.
        """
        self._refuse_destroyed(tenant_id, owner_id)
        wrapped = self._wrapped(secrets.token_bytes(KEY_BYTES), tenant_id, owner_id)
        if not self._store.put(_key_name(tenant_id, owner_id), wrapped, overwrite=False):
            raise InvalidInput(f"{owner_id} has a data key already; a second would hide the first.")

    def seal(self, tenant_id: str, owner_id: str, object_id: str, data: bytes) -> bytes:
        """Encrypt `data` so that it opens only for this tenant and this object id.

        Raises:
            DataKeyDestroyed: the owner was erased.
        """
        nonce = secrets.token_bytes(_NONCE_BYTES)
        cipher = AESGCM(self._data_key(tenant_id, owner_id))
        return _FORMAT + nonce + cipher.encrypt(nonce, data, _seal_context(tenant_id, object_id))

    def open(self, tenant_id: str, owner_id: str, object_id: str, sealed: bytes) -> bytes:
        """Decrypt what `seal` gave.

        Raises:
            DataKeyDestroyed: the owner was erased.
            SealBroken: changed, or sealed for another tenant, owner or object.
        """
        cipher = AESGCM(self._data_key(tenant_id, owner_id))
        nonce, body = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if sealed[:1] != _FORMAT or len(body) < _TAG_BYTES:
                raise InvalidTag
            return cipher.decrypt(nonce, body, _seal_context(tenant_id, object_id))
        except InvalidTag as error:
            raise SealBroken(
                f"{object_id} of tenant {tenant_id} does not open: its {len(sealed)} sealed bytes "
                "were changed or belong elsewhere. Restore it from a backup, or delete it."
            ) from error

    def commitment_key(self, tenant_id: str, owner_id: str) -> bytes:
        """A key of the same life for the commitments of the audit log: 32 bytes.

        Raises:
            DataKeyDestroyed: the owner was erased; what was committed to is anonymous now.
        """
        data_key = self._data_key(tenant_id, owner_id)
        return hmac.digest(data_key, b"imagine audit commitment 1", "sha256")

    def destroy(self, tenant_id: str, owner_id: str) -> datetime:
        """Destroy a data key for good; says when it was destroyed, also the second time."""
        tombstone = json.dumps({"destroyed_at": self._clock().isoformat()}).encode()
        # The tombstone comes first: from here on the owner is erased, whatever happens next.
        self._store.put(_tombstone_name(tenant_id, owner_id), tombstone, overwrite=False)
        self._store.delete(_key_name(tenant_id, owner_id))
        destroyed_at = self.destroyed_at(tenant_id, owner_id)
        assert destroyed_at is not None
        return destroyed_at

    def destroyed_at(self, tenant_id: str, owner_id: str) -> datetime | None:
        """When the key of an owner was destroyed; None while it lives."""
        tombstone = self._store.get(_tombstone_name(tenant_id, owner_id))
        if tombstone is None:
            return None
        return datetime.fromisoformat(json.loads(tombstone)["destroyed_at"])

    def rotate(self) -> int:
        """Wrap every data key anew with the current master key; nothing sealed is touched.

        First start every process with the new key as `master` and the old one in `previous`;
        then rotate; then destroy the old one. Safe to run again after a crash, and while others
        read, seal and erase.

        Returns:
            How many keys were wrapped anew; 0 when there was nothing left to do.

        Raises:
            MasterKeyUnusable: a key is wrapped by a master key that was not handed in.
        """
        rewrapped = 0
        for name in list(self._store.names("keys")):
            _, tenant_id, owner_id = name.split("/")
            record = self._store.get(name)
            if record is None:  # erased since it was listed
                continue
            if json.loads(record)["master"] != self._master.key_id:
                data_key = self._unwrapped(record, tenant_id, owner_id)
                self._store.put(name, self._wrapped(data_key, tenant_id, owner_id))
                rewrapped += 1
            # An erasure between our reading and writing must not be undone by the writing.
            if self._store.has(_tombstone_name(tenant_id, owner_id)):
                self._store.delete(name)
        return rewrapped

    def _data_key(self, tenant_id: str, owner_id: str) -> bytes:
        self._refuse_destroyed(tenant_id, owner_id)
        record = self._store.get(_key_name(tenant_id, owner_id))
        if record is None:
            self._refuse_destroyed(tenant_id, owner_id)  # perhaps just now
            raise BlobStoreUnusable(
                f"The data key of {owner_id} is not in {self._store!r}, and was not destroyed by "
                "an erasure. Check that this is the right key store, or restore its mirror."
            )
        return self._unwrapped(record, tenant_id, owner_id)

    def _refuse_destroyed(self, tenant_id: str, owner_id: str) -> None:
        if self._store.has(_tombstone_name(tenant_id, owner_id)):
            raise DataKeyDestroyed(
                f"{owner_id} was erased: its key is destroyed, and what it sealed cannot be read "
                "again. Ask the person to enrol anew."
            )

    def _wrapped(self, data_key: bytes, tenant_id: str, owner_id: str) -> bytes:
        wrapped = self._master.wrap(data_key, _wrap_context(tenant_id, owner_id))
        record = {"master": self._master.key_id, "wrapped": base64.b64encode(wrapped).decode()}
        return json.dumps(record).encode()

    def _unwrapped(self, record: bytes, tenant_id: str, owner_id: str) -> bytes:
        facts = json.loads(record)
        master = self._masters.get(facts["master"])
        if master is None:
            given = ", ".join(self._masters)
            raise MasterKeyUnusable(
                f"The data key of {owner_id} was wrapped by master key {facts['master']}; given: "
                f"{given}. Use that key again, or hand it in as a previous one and rotate."
            )
        return master.unwrap(base64.b64decode(facts["wrapped"]), _wrap_context(tenant_id, owner_id))


def check_id(value: str) -> str:
    """Refuse an id that could not be part of a name or of what seals are bound to.

    Raises:
        InvalidInput: not 1 to 64 letters, digits, "_" and "-".
    """
    if _ID.fullmatch(value) is None:
        raise InvalidInput(
            f"{value[:80]!r} is not an id. Use 1 to 64 letters, digits, '_' and '-'."
        )
    return value


def _key_name(tenant_id: str, owner_id: str) -> str:
    return f"keys/{check_id(tenant_id)}/{check_id(owner_id)}"


def _tombstone_name(tenant_id: str, owner_id: str) -> str:
    return f"destroyed/{check_id(tenant_id)}/{check_id(owner_id)}"


def _wrap_context(tenant_id: str, owner_id: str) -> bytes:
    return b"\0".join([b"imagine data key 1", tenant_id.encode(), owner_id.encode()])


def _seal_context(tenant_id: str, object_id: str) -> bytes:
    # Ids cannot hold a zero byte, so no two pairs give the same context.
    return b"\0".join([b"imagine seal 1", tenant_id.encode(), object_id.encode()])


def _read_private(path: Path) -> str:
    try:
        if os.name == "posix" and path.stat().st_mode & _OPEN_TO_OTHERS:
            raise MasterKeyUnusable(
                f"The master key {path} can be read by other users. Run: chmod 600 {path}"
            )
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise MasterKeyUnusable(
            f"The master key {path} cannot be read ({type(error).__name__}). Put the key back, or, "
            "where nothing is stored yet, make one."
        ) from error


def _decoded(line: str, where: str) -> bytes:
    try:
        return base64.b64decode(line.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MasterKeyUnusable(
            f"The master key in {where} is not base64. It is one line that decodes to "
            f"{KEY_BYTES} bytes."
        ) from error

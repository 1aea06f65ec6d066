"""Sealed bytes, in columns and in blobs; opening them takes a `Grant`.

Anybody may seal. Only `consent.py` makes grants, after it has looked for a live consent, so there
is no way around it to a face: tests/storage/test_consent.py holds the source to that.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from imagine.errors import BlobStoreUnusable
from imagine.storage.blobs import BlobStore
from imagine.storage.keys import DataKeys, check_id


class Kind(StrEnum):
    """Kinds of blobs; part of their name."""

    PHOTO = "photos"
    CROPS = "crops"
    IMAGE = "images"
    WITHHELD = "withheld"


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave to open what one owner's key seals, for one purpose, right now.

    Attributes:
        tenant_id: whose data.
        owner_id: the identity or person whose data key seals it.
        purpose: what it may be used for; an error and an audit entry can name it.
    """

    tenant_id: str
    owner_id: str
    purpose: str


class Vault:
    """Seals under the key of an owner; the blobs of an owner lie under its name."""

    def __init__(self, blobs: BlobStore, keys: DataKeys) -> None:
        self._blobs = blobs
        self.keys = keys

    def __repr__(self) -> str:
        return f"Vault({self._blobs!r}, {self.keys!r})"

    def seal(self, tenant_id: str, owner_id: str, object_id: str, data: bytes) -> bytes:
        """Encrypt `data` for a column; `object_id` must be given again to open it.

        Raises:
            DataKeyDestroyed: the owner was erased.
        """
        return self.keys.seal(tenant_id, owner_id, object_id, data)

    def open(self, grant: Grant, object_id: str, sealed: bytes) -> bytes:
        """Decrypt what `seal` gave.

        Raises:
            DataKeyDestroyed: the owner was erased.
            SealBroken: changed, or sealed for something else.
        """
        return self.keys.open(grant.tenant_id, grant.owner_id, object_id, sealed)

    def put(self, tenant_id: str, owner_id: str, kind: Kind, object_id: str, data: bytes) -> None:
        """Encrypt `data` and store it as a blob."""
        sealed = self.keys.seal(tenant_id, owner_id, f"{kind}/{object_id}", data)
        self._blobs.put(_name(tenant_id, owner_id, kind, object_id), sealed)

    def get(self, grant: Grant, kind: Kind, object_id: str) -> bytes:
        """Fetch a blob and decrypt it.

        Raises:
            BlobStoreUnusable: the blob is not where it should be.
            DataKeyDestroyed, SealBroken: as `open`.
        """
        name = _name(grant.tenant_id, grant.owner_id, kind, object_id)
        sealed = self._blobs.get(name)
        if sealed is None:
            raise BlobStoreUnusable(
                f"{name} is not in {self._blobs!r}. Check that this is the right store, or "
                "restore it from a backup."
            )
        return self.keys.open(grant.tenant_id, grant.owner_id, f"{kind}/{object_id}", sealed)

    def delete(self, tenant_id: str, owner_id: str, kind: Kind, object_id: str) -> None:
        """Remove a blob; nothing happens where there is none."""
        self._blobs.delete(_name(tenant_id, owner_id, kind, object_id))

    def count(self, tenant_id: str, owner_id: str) -> Counter[str]:
        """How many blobs of each kind an owner has."""
        return Counter(name.split("/")[2] for name in self._names(tenant_id, owner_id))

    def delete_all(self, tenant_id: str, owner_id: str) -> None:
        """Remove every blob of an owner, also those no row knows of."""
        for name in self._names(tenant_id, owner_id):
            self._blobs.delete(name)

    def _names(self, tenant_id: str, owner_id: str) -> list[str]:
        return list(self._blobs.names(f"{check_id(tenant_id)}/{check_id(owner_id)}"))


def _name(tenant_id: str, owner_id: str, kind: Kind, object_id: str) -> str:
    return f"{check_id(tenant_id)}/{check_id(owner_id)}/{kind}/{check_id(object_id)}"

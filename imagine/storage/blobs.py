"""Files by name in a local folder, in memory, in S3, GCS or Azure, behind one small interface.

It stores bytes and knows nothing of what they are: `keys.py` keeps wrapped keys in one store,
`vault.py` keeps sealed pictures in another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import LocalStore, MemoryStore, ObjectStore, from_url

from imagine.errors import BlobStoreUnusable, InvalidInput

# No name a file system could misread: no "..", no empty part, nothing but plain characters.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})*")
_REMOTE_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss")


class BlobStore:
    """Bytes by name. A name is parts of letters, digits and "_.-", joined by slashes."""

    def __init__(self, store: ObjectStore, place: str) -> None:
        self._store = store
        self._place = place  # for messages; never with a password or token in it

    def __repr__(self) -> str:
        return f"BlobStore({self._place!r})"

    def put(self, name: str, data: bytes, overwrite: bool = True) -> bool:
        """Write a blob whole or not at all.

        Returns:
            False when `overwrite` is off and the name is taken; nothing was written then.

        Raises:
            BlobStoreUnusable: the store refused.
        """
        with self._translated(name):
            try:
                obstore.put(self._store, name, data, mode="overwrite" if overwrite else "create")
            except AlreadyExistsError:
                return False
        return True

    def get(self, name: str) -> bytes | None:
        """The bytes of a blob, or None where there is none."""
        with self._translated(name):
            try:
                return bytes(obstore.get(self._store, name).bytes())
            except (NotFoundError, FileNotFoundError):
                return None

    def has(self, name: str) -> bool:
        """Whether there is a blob of this name."""
        with self._translated(name):
            try:
                obstore.head(self._store, name)
            except (NotFoundError, FileNotFoundError):
                return False
        return True

    def delete(self, name: str) -> None:
        """Remove a blob; nothing happens where there is none."""
        with self._translated(name):
            try:
                obstore.delete(self._store, name)
            except (NotFoundError, FileNotFoundError):
                return

    def names(self, under: str = "") -> Iterator[str]:
        """Every name that begins with the parts of `under`."""
        with self._translated(under or "all"):
            for some in obstore.list(self._store, under or None):
                yield from (found["path"] for found in some)

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        if _NAME.fullmatch(name) is None:
            raise InvalidInput(
                f"{name[:80]!r} cannot name a blob. Use letters, digits, '_', '-' and '.', in "
                "parts joined by '/'."
            )
        try:
            yield
        except (BaseError, OSError) as error:
            # The library's own text may repeat a signed url; only its kind is passed on.
            raise BlobStoreUnusable(
                f"{self._place} failed on {name!r} ({type(error).__name__}). Check that it is "
                "reachable, has room, and that the credentials may read and write there."
            ) from error


def open_blobs(url: str) -> BlobStore:
    """Open the store at `url`; a local folder is made if it is missing.

    Args:
        url: a folder ("/srv/imagine/blobs" or "file:///srv/imagine/blobs"), "memory://",
            "s3://bucket/prefix", "gs://bucket/prefix" or "az://container/prefix". Credentials of
            the clouds come from their usual environment variables.

    Raises:
        InvalidInput: another kind of url.
        BlobStoreUnusable: the folder cannot be made, or the options of the cloud are incomplete.
    """
    parts = urlsplit(url)
    if parts.scheme == "memory":
        return BlobStore(MemoryStore(), "memory")
    if parts.scheme in _REMOTE_SCHEMES:
        place = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
        try:
            return BlobStore(from_url(url), place)
        except (BaseError, ValueError) as error:
            raise BlobStoreUnusable(
                f"The store {place} cannot be set up ({type(error).__name__}). Check the name of "
                "the bucket, the region and the credentials in the environment."
            ) from error
    if "://" in url and parts.scheme != "file":
        raise InvalidInput(
            f"There is no support for {parts.scheme}:// stores. Use a folder, memory://, s3://, "
            "gs:// or az://."
        )
    return _open_folder(Path(url2pathname(parts.path)) if parts.scheme == "file" else Path(url))


def _open_folder(folder: Path) -> BlobStore:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return BlobStore(LocalStore(prefix=folder.resolve(), automatic_cleanup=True), str(folder))
    except (BaseError, OSError) as error:
        raise BlobStoreUnusable(
            f"The folder {folder} cannot be made or opened. Choose one this user may write to."
        ) from error

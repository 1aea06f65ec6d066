import ast
from pathlib import Path

import pytest

import imagine
from imagine.errors import BlobStoreUnusable, SealBroken
from imagine.storage.blobs import BlobStore, open_blobs
from imagine.storage.keys import DataKeys, LocalMasterKey
from imagine.storage.vault import Grant, Kind, Vault

GRANT = Grant("studio", "ada", "generate")


@pytest.fixture
def blobs() -> BlobStore:
    return open_blobs("memory://")


@pytest.fixture
def vault(blobs: BlobStore) -> Vault:
    vault = Vault(blobs, DataKeys(open_blobs("memory://"), LocalMasterKey(bytes(32))))
    vault.keys.create("studio", "ada")
    return vault


def test_a_blob_is_sealed_in_the_store_and_opens_with_a_grant(
    vault: Vault, blobs: BlobStore
) -> None:
    vault.put("studio", "ada", Kind.PHOTO, "photo_1", b"a face")
    assert b"a face" not in (blobs.get("studio/ada/photos/photo_1") or b"")
    assert vault.get(GRANT, Kind.PHOTO, "photo_1") == b"a face"


def test_a_blob_moved_to_another_name_does_not_open(vault: Vault, blobs: BlobStore) -> None:
    vault.put("studio", "ada", Kind.PHOTO, "photo_1", b"a face")
    sealed = blobs.get("studio/ada/photos/photo_1")
    assert sealed is not None
    blobs.put("studio/ada/images/photo_1", sealed)
    with pytest.raises(SealBroken):
        vault.get(GRANT, Kind.IMAGE, "photo_1")


def test_a_missing_blob_is_named(vault: Vault) -> None:
    with pytest.raises(BlobStoreUnusable, match="studio/ada/photos/none"):
        vault.get(GRANT, Kind.PHOTO, "none")


def test_counting_and_deleting_reach_every_blob_of_an_owner_and_no_other(
    vault: Vault, blobs: BlobStore
) -> None:
    vault.keys.create("studio", "ada2")
    vault.put("studio", "ada", Kind.PHOTO, "photo_1", b"x")
    vault.put("studio", "ada", Kind.IMAGE, "image_1", b"x")
    vault.put("studio", "ada2", Kind.PHOTO, "photo_2", b"x")
    assert vault.count("studio", "ada") == {"photos": 1, "images": 1}
    vault.delete_all("studio", "ada")
    assert list(blobs.names()) == ["studio/ada2/photos/photo_2"]


def test_only_the_consent_book_makes_grants_and_only_the_vault_opens_seals() -> None:
    """The choke point: nobody else in the package may call these."""
    makers, openers = set(), set()
    for path in Path(imagine.__file__).parent.rglob("*.py"):
        source = path.read_text()
        if "Grant" not in source and "keys" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                makers |= {path.name} if node.func.id == "Grant" else set()
            if isinstance(node, ast.Attribute) and ast.unparse(node).endswith("keys.open"):
                openers.add(path.name)
    assert makers == {"consent.py"}
    # The list of people never to be drawn and the secrets of webhooks belong to no identity, so
    # nobody's consent opens them.
    assert openers == {"vault.py", "protected.py", "webhooks.py"}

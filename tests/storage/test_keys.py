import base64
import secrets
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagine.errors import (
    BlobStoreUnusable,
    DataKeyDestroyed,
    InvalidInput,
    MasterKeyUnusable,
    SealBroken,
)
from imagine.storage.blobs import BlobStore, open_blobs
from imagine.storage.keys import (
    DataKeys,
    LocalMasterKey,
    load_master_key,
    load_or_make_master_key,
    make_master_key_file,
)


@pytest.fixture
def store() -> BlobStore:
    return open_blobs("memory://")


@pytest.fixture
def master() -> LocalMasterKey:
    return LocalMasterKey(secrets.token_bytes(32))


@pytest.fixture
def keys(store: BlobStore, master: LocalMasterKey) -> DataKeys:
    keys = DataKeys(store, master)
    keys.create("studio", "ada")
    return keys


def test_what_was_sealed_opens_again(keys: DataKeys) -> None:
    sealed = keys.seal("studio", "ada", "photo_1", b"a face")
    assert b"a face" not in sealed
    assert keys.open("studio", "ada", "photo_1", sealed) == b"a face"


def test_sealing_twice_never_gives_the_same_bytes(keys: DataKeys) -> None:
    assert keys.seal("studio", "ada", "p", b"x") != keys.seal("studio", "ada", "p", b"x")


def test_it_opens_for_no_other_object(keys: DataKeys) -> None:
    sealed = keys.seal("studio", "ada", "photo_1", b"a face")
    with pytest.raises(SealBroken, match="photo_2"):
        keys.open("studio", "ada", "photo_2", sealed)


def test_it_opens_for_no_other_owner(keys: DataKeys) -> None:
    keys.create("studio", "bob")
    sealed = keys.seal("studio", "ada", "photo_1", b"a face")
    with pytest.raises(SealBroken):
        keys.open("studio", "bob", "photo_1", sealed)


def test_a_stolen_wrapped_key_opens_nothing_for_another_tenant(
    keys: DataKeys, store: BlobStore
) -> None:
    sealed = keys.seal("studio", "ada", "photo_1", b"a face")
    stolen = store.get("keys/studio/ada")
    assert stolen is not None
    store.put("keys/rival/ada", stolen)
    with pytest.raises(MasterKeyUnusable, match="damaged or moved"):
        keys.open("rival", "ada", "photo_1", sealed)


@given(st.data())
def test_a_single_changed_bit_is_noticed(data: st.DataObject) -> None:
    keys = DataKeys(open_blobs("memory://"), LocalMasterKey(bytes(32)))
    keys.create("studio", "ada")
    sealed = bytearray(keys.seal("studio", "ada", "p", b"a face"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(SealBroken):
        keys.open("studio", "ada", "p", bytes(sealed))


@pytest.mark.parametrize("length", [0, 1, 12, 28])
def test_cut_bytes_are_noticed(keys: DataKeys, length: int) -> None:
    sealed = keys.seal("studio", "ada", "p", b"")
    with pytest.raises(SealBroken):
        keys.open("studio", "ada", "p", sealed[:length])


def test_no_key_stands_in_clear_in_the_store(keys: DataKeys, store: BlobStore) -> None:
    other = DataKeys(store, LocalMasterKey(secrets.token_bytes(32)))
    sealed = keys.seal("studio", "ada", "p", b"a face")
    with pytest.raises(MasterKeyUnusable, match="was wrapped by master key"):
        other.open("studio", "ada", "p", sealed)


def test_an_owner_gets_one_key(keys: DataKeys) -> None:
    with pytest.raises(InvalidInput, match="has a data key already"):
        keys.create("studio", "ada")


def test_a_destroyed_key_opens_nothing_and_never_comes_back(keys: DataKeys) -> None:
    sealed = keys.seal("studio", "ada", "p", b"a face")
    first = keys.destroy("studio", "ada")
    assert keys.destroy("studio", "ada") == first == keys.destroyed_at("studio", "ada")
    for attempt in (
        lambda: keys.open("studio", "ada", "p", sealed),
        lambda: keys.seal("studio", "ada", "p", b"x"),
        lambda: keys.create("studio", "ada"),
        lambda: keys.commitment_key("studio", "ada"),
    ):
        with pytest.raises(DataKeyDestroyed):
            attempt()


def test_a_key_put_back_from_an_old_copy_stays_destroyed(keys: DataKeys, store: BlobStore) -> None:
    sealed = keys.seal("studio", "ada", "p", b"a face")
    old_copy = store.get("keys/studio/ada")
    assert old_copy is not None
    keys.destroy("studio", "ada")
    store.put("keys/studio/ada", old_copy)
    with pytest.raises(DataKeyDestroyed):
        keys.open("studio", "ada", "p", sealed)


def test_a_lost_key_is_not_called_erased(keys: DataKeys, store: BlobStore) -> None:
    store.delete("keys/studio/ada")
    with pytest.raises(BlobStoreUnusable, match="not destroyed by an erasure"):
        keys.seal("studio", "ada", "p", b"x")


def test_rotation_wraps_anew_and_what_was_sealed_still_opens(
    keys: DataKeys, store: BlobStore, master: LocalMasterKey
) -> None:
    sealed = keys.seal("studio", "ada", "p", b"a face")
    new = LocalMasterKey(secrets.token_bytes(32))
    both = DataKeys(store, new, previous=[master])
    assert both.open("studio", "ada", "p", sealed) == b"a face"
    assert (both.rotate(), both.rotate()) == (1, 0)
    assert DataKeys(store, new).open("studio", "ada", "p", sealed) == b"a face"
    with pytest.raises(MasterKeyUnusable):
        keys.open("studio", "ada", "p", sealed)


def test_rotation_without_the_old_key_stops_and_names_it(
    keys: DataKeys, store: BlobStore, master: LocalMasterKey
) -> None:
    with pytest.raises(MasterKeyUnusable, match=master.key_id):
        DataKeys(store, LocalMasterKey(secrets.token_bytes(32))).rotate()


def test_rotation_does_not_undo_an_erasure_that_happens_meanwhile(
    keys: DataKeys, store: BlobStore, master: LocalMasterKey
) -> None:
    class ErasesInBetween(LocalMasterKey):
        def wrap(self, data_key: bytes, context: bytes) -> bytes:
            keys.destroy("studio", "ada")
            return super().wrap(data_key, context)

    DataKeys(store, ErasesInBetween(secrets.token_bytes(32)), previous=[master]).rotate()
    assert list(store.names("keys")) == []
    with pytest.raises(DataKeyDestroyed):
        keys.seal("studio", "ada", "p", b"x")


def test_a_key_management_service_can_be_the_master(store: BlobStore) -> None:
    class Service:
        """Keeps the wrapped keys to itself and hands out tickets."""

        key_id = "projects/x/keys/1"
        kept: dict[bytes, tuple[bytes, bytes]]

        def __init__(self) -> None:
            self.kept = {}

        def wrap(self, data_key: bytes, context: bytes) -> bytes:
            ticket = secrets.token_bytes(8)
            self.kept[ticket] = (data_key, context)
            return ticket

        def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
            data_key, expected = self.kept[wrapped]
            assert context == expected
            return data_key

    keys = DataKeys(store, Service())
    keys.create("studio", "ada")
    sealed = keys.seal("studio", "ada", "p", b"a face")
    assert keys.open("studio", "ada", "p", sealed) == b"a face"


def test_the_commitment_key_is_steady_and_each_owners_own(keys: DataKeys) -> None:
    keys.create("studio", "bob")
    mine = keys.commitment_key("studio", "ada")
    assert mine == keys.commitment_key("studio", "ada")
    assert mine != keys.commitment_key("studio", "bob")
    assert len(mine) == 32


@pytest.mark.parametrize("bad", ["", "a/b", "..", "a\0b", "x" * 65, "ä"])
def test_an_id_that_could_be_a_path_is_refused(keys: DataKeys, bad: str) -> None:
    with pytest.raises(InvalidInput, match="is not an id"):
        keys.create("studio", bad)
    with pytest.raises(InvalidInput, match="is not an id"):
        keys.create(bad, "ada")


def test_a_new_master_key_file_is_private_and_loads(tmp_path: Path) -> None:
    path = tmp_path / "config" / "master.key"
    made = make_master_key_file(path)
    assert path.stat().st_mode & 0o077 == 0
    assert load_master_key(f"file:{path}").key_id == made.key_id


def test_a_master_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    make_master_key_file(path)
    before = path.read_bytes()
    with pytest.raises(MasterKeyUnusable, match="use it"):
        make_master_key_file(path)
    assert path.read_bytes() == before


def test_a_master_key_from_the_environment_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_MASTER", base64.b64encode(bytes(32)).decode() + "\n")
    assert load_master_key("env:TEST_MASTER").key_id == LocalMasterKey(bytes(32)).key_id


@pytest.mark.parametrize(
    ("line", "advice"),
    [("", "Set it to 32 random bytes"), ("***", "is not base64"), ("c2hvcnQ=", "has 32 bytes")],
)
def test_an_unusable_master_key_is_refused_with_advice(
    monkeypatch: pytest.MonkeyPatch, line: str, advice: str
) -> None:
    monkeypatch.setenv("TEST_MASTER", line)
    with pytest.raises(MasterKeyUnusable, match=advice):
        load_master_key("env:TEST_MASTER")


def test_a_missing_master_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MasterKeyUnusable, match=r"none\.key cannot be read"):
        load_master_key(f"file:{tmp_path / 'none.key'}")


def test_a_master_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    make_master_key_file(path)
    path.chmod(0o644)
    with pytest.raises(MasterKeyUnusable, match="chmod 600"):
        load_master_key(f"file:{path}")


def test_a_key_given_where_a_source_belongs_is_not_repeated() -> None:
    with pytest.raises(InvalidInput) as caught:
        load_master_key("c2VjcmV0LXdvcmQ=")
    assert "c2VjcmV0" not in str(caught.value)


def test_the_first_start_makes_a_master_key_and_later_ones_use_it(
    tmp_path: Path, store: BlobStore
) -> None:
    source = f"file:{tmp_path / 'master.key'}"
    made = load_or_make_master_key(source, store)
    assert load_or_make_master_key(source, store).key_id == made.key_id


def test_a_lost_master_key_is_not_replaced_where_it_is_needed(
    tmp_path: Path, keys: DataKeys, store: BlobStore
) -> None:
    with pytest.raises(MasterKeyUnusable, match="cannot be read"):
        load_or_make_master_key(f"file:{tmp_path / 'lost.key'}", store)
    assert not (tmp_path / "lost.key").exists()


def test_repr_shows_no_secret(keys: DataKeys) -> None:
    secret = b"S" * 32
    shown = repr(LocalMasterKey(secret)) + repr(keys)
    assert "SSSS" not in shown
    assert base64.b64encode(secret).decode()[:8] not in shown

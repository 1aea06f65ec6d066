from pathlib import Path

import pytest

from imagine.errors import BlobStoreUnusable, InvalidInput
from imagine.storage.blobs import BlobStore, open_blobs


@pytest.fixture(params=["folder", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return open_blobs("memory://" if request.param == "memory" else str(tmp_path / "blobs"))


def test_bytes_come_back_as_they_were(blobs: BlobStore) -> None:
    assert blobs.put("t/i/photo.1", b"\x00\xff sealed")
    assert blobs.get("t/i/photo.1") == b"\x00\xff sealed"
    assert blobs.has("t/i/photo.1")


def test_what_is_not_there_is_none(blobs: BlobStore) -> None:
    assert blobs.get("t/none") is None
    assert not blobs.has("t/none")
    blobs.delete("t/none")


def test_writing_again_replaces_unless_told_not_to(blobs: BlobStore) -> None:
    blobs.put("a", b"1")
    assert not blobs.put("a", b"2", overwrite=False)
    assert blobs.get("a") == b"1"
    assert blobs.put("a", b"3")
    assert blobs.get("a") == b"3"


def test_names_are_listed_by_whole_parts(blobs: BlobStore) -> None:
    for name in ("t/one/a", "t/one/b", "t/one2/c"):
        blobs.put(name, b"x")
    assert sorted(blobs.names("t/one")) == ["t/one/a", "t/one/b"]
    assert len(list(blobs.names())) == 3
    assert list(blobs.names("nobody")) == []


def test_a_deleted_blob_is_gone(blobs: BlobStore) -> None:
    blobs.put("t/a", b"x")
    blobs.delete("t/a")
    assert blobs.get("t/a") is None
    assert list(blobs.names()) == []


@pytest.mark.parametrize(
    "name",
    ["", "../a", "a/../../b", "/etc/passwd", "a//b", "a/", ".hidden", "a\0b", "a\\b", "ä", "a b"],
)
def test_a_name_that_could_leave_the_store_is_refused(blobs: BlobStore, name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot name a blob"):
        blobs.put(name, b"x")
    with pytest.raises(InvalidInput):
        blobs.get(name)


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    open_blobs(f"file://{tmp_path}/with%20blank").put("a", b"x")
    assert (tmp_path / "with blank" / "a").read_bytes() == b"x"


def test_a_new_folder_is_private(tmp_path: Path) -> None:
    open_blobs(str(tmp_path / "blobs"))
    assert (tmp_path / "blobs").stat().st_mode & 0o077 == 0


def test_no_empty_folder_is_left_behind(tmp_path: Path) -> None:
    blobs = open_blobs(str(tmp_path / "blobs"))
    blobs.put("tenant/identity/photos/p", b"x")
    blobs.delete("tenant/identity/photos/p")
    assert list((tmp_path / "blobs").iterdir()) == []


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BlobStoreUnusable, match="cannot be made"):
        open_blobs(str(tmp_path / "file"))


def test_a_store_that_fails_says_on_what(tmp_path: Path) -> None:
    blobs = open_blobs(str(tmp_path / "blobs"))
    blobs.put("a", b"x")
    with pytest.raises(BlobStoreUnusable, match="'a/b'"):
        blobs.put("a/b", b"x")  # "a" is a file, so there is no folder "a"


def test_an_unknown_kind_of_store_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"ftp://"):
        open_blobs("ftp://host/folder")


@pytest.mark.parametrize("url", ["s3://bucket/prefix", "gs://bucket/prefix", "az://container/x"])
def test_clouds_are_set_up_from_their_url_or_say_what_is_missing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    assert url.split("?")[0] in repr(open_blobs(url))


def test_a_secret_in_a_url_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert "secret-word" not in repr(open_blobs("s3://user:secret-word@bucket/prefix"))

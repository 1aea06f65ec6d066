from dataclasses import replace
from pathlib import Path

import pytest

from imagine.settings import Settings

VARIABLES = (
    "IMAGINE_DATA_DIR",
    "IMAGINE_DATABASE_URL",
    "IMAGINE_BLOB_URL",
    "IMAGINE_KEY_STORE_URL",
    "IMAGINE_MASTER_KEY",
    "XDG_DATA_HOME",
    "XDG_CONFIG_HOME",
)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_everything_that_is_kept_lies_in_the_data_folder(tmp_path: Path) -> None:
    settings = Settings()
    folder = tmp_path / ".local/share/imagine-yourself"
    assert settings.data_directory == folder
    assert settings.database_place == f"sqlite:///{folder}/imagine.db"
    assert settings.blob_place == f"{folder}/blobs"
    assert settings.key_store_place == f"{folder}/keys"


def test_the_master_key_does_not_lie_in_the_data_folder(tmp_path: Path) -> None:
    source = Settings().master_key_source
    assert source == f"file:{tmp_path}/.config/imagine-yourself/master.key"


def test_another_data_folder_takes_everything_along(tmp_path: Path) -> None:
    settings = replace(Settings(), data_directory=tmp_path / "elsewhere")
    for place in (settings.database_place, settings.blob_place, settings.key_store_place):
        assert f"{tmp_path}/elsewhere/" in place


def test_the_environment_chooses_the_places(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("IMAGINE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("IMAGINE_DATABASE_URL", "postgresql://me:secret-word@host/name")
    monkeypatch.setenv("IMAGINE_BLOB_URL", "s3://bucket/blobs")
    monkeypatch.setenv("IMAGINE_MASTER_KEY", "env:MY_KEY")
    settings = Settings()
    assert settings.database_place == "postgresql://me:secret-word@host/name"
    assert settings.blob_place == "s3://bucket/blobs"
    assert settings.key_store_place == f"{tmp_path}/data/keys"
    assert settings.master_key_source == "env:MY_KEY"
    assert "secret-word" not in repr(settings)

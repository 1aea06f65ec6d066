"""Where things are and how much we accept; read once from the environment, then frozen."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from imagine.errors import InvalidInput

VERSION = "0.1.0"  # of this package; pyproject.toml says the same
# Drawings of a wish that the embedded model begins; see training/LOG.md for what each is worth.
CANDIDATES = 8
MAX_CANDIDATES = 16


def _assets_directory() -> Path:
    chosen = os.environ.get("IMAGINE_ASSETS_DIR")
    return Path(chosen) if chosen else Path(__file__).resolve().parent.parent / "assets"


def _insightface_pack() -> Path | None:
    chosen = os.environ.get("IMAGINE_INSIGHTFACE_PACK")
    return Path(chosen) if chosen else None


def _home_of(variable: str, otherwise: str) -> Path:
    """Our folder where this system keeps such things (XDG base directory specification)."""
    chosen = os.environ.get(variable)
    return (Path(chosen) if chosen else Path.home() / otherwise) / "imagine-yourself"


def _from(variable: str) -> Callable[[], str]:
    return lambda: os.environ.get(variable, "")


def _words_from(variable: str) -> Callable[[], tuple[str, ...]]:
    return lambda: tuple(os.environ.get(variable, "").replace(",", " ").split())


def _data_directory() -> Path:
    chosen = os.environ.get("IMAGINE_DATA_DIR")
    return Path(chosen) if chosen else _home_of("XDG_DATA_HOME", ".local/share")


def _master_key_source() -> str:
    # Not in the data folder: a copy of that folder alone must open nothing.
    default = _home_of("XDG_CONFIG_HOME", ".config") / "master.key"
    return os.environ.get("IMAGINE_MASTER_KEY", f"file:{default}")


def _candidates() -> int:
    said = os.environ.get("IMAGINE_CANDIDATES") or str(CANDIDATES)
    if not said.isdecimal() or not 1 <= int(said) <= MAX_CANDIDATES:
        raise InvalidInput(
            f"IMAGINE_CANDIDATES is {said!r}; give a whole number from 1 to {MAX_CANDIDATES}."
        )
    return int(said)


@dataclass(frozen=True, slots=True)
class Settings:
    """Paths and limits.

    Attributes:
        assets_directory: folder with `models/` and `people/` (IMAGINE_ASSETS_DIR).
        insightface_pack: folder with the .onnx files of a pack (IMAGINE_INSIGHTFACE_PACK).
        data_directory: folder of everything that is kept (IMAGINE_DATA_DIR).
        database_url: sqlite or postgresql; "" for a file in the data folder
            (IMAGINE_DATABASE_URL).
        blob_url: folder, s3, gs or az store of sealed pictures; "" for a folder in the data
            folder (IMAGINE_BLOB_URL).
        key_store_url: the same for wrapped data keys, which must not lie in backups with history;
            "" for a folder in the data folder (IMAGINE_KEY_STORE_URL).
        master_key_source: "file:/path" or "env:NAME" of what wraps the data keys; the name of a
            place, never the key (IMAGINE_MASTER_KEY).
        checks_off: safety checks the operator switched off, by name (IMAGINE_CHECKS_OFF); each is
            an entry of the audit log and told by `imagine-me verify`.
        check_limits: other limits of output checks, e.g. "apparent_minors=21/16"
            (IMAGINE_CHECK_LIMITS); weaker ones are told like the former.
        recipe_in_files: who may read the recipe in a picture's file: "sealed" (this installation),
            "open" (everybody) or "none" (IMAGINE_RECIPE_IN_FILES).
        timestamp_url: RFC 3161 service that confirms when a picture was signed; "" asks nobody
            (IMAGINE_TIMESTAMP_URL).
        signing_chain: PEM file of a signing certificate of your own and those above it, with
            `signing_key` and `signing_roots`; "" signs under an authority made here
            (IMAGINE_SIGNING_CHAIN, IMAGINE_SIGNING_KEY, IMAGINE_SIGNING_ROOTS).
        learned_watermark: a second invisible watermark, a name in `imagine.provenance.WATERMARKS`;
            "" for none (IMAGINE_LEARNED_WATERMARK).
        candidates: how many drawings of a wish the embedded model begins, to finish the best
            (IMAGINE_CANDIDATES, 1 to 16); fewer are faster and follow prompts less.
        max_photo_bytes: larger files are refused before they are opened.
        max_photo_pixels: larger pictures are refused from their header, before decoding.
        max_photos: more selfies than this are refused.
        max_prompt_characters: longer prompts are refused.
        max_images: more pictures than this in one call are refused.
    """

    assets_directory: Path = field(default_factory=_assets_directory)
    insightface_pack: Path | None = field(default_factory=_insightface_pack)
    data_directory: Path = field(default_factory=_data_directory)
    # Urls may hold passwords.
    database_url: str = field(default_factory=_from("IMAGINE_DATABASE_URL"), repr=False)
    blob_url: str = field(default_factory=_from("IMAGINE_BLOB_URL"), repr=False)
    key_store_url: str = field(default_factory=_from("IMAGINE_KEY_STORE_URL"), repr=False)
    master_key_source: str = field(default_factory=_master_key_source, repr=False)
    checks_off: tuple[str, ...] = field(default_factory=_words_from("IMAGINE_CHECKS_OFF"))
    check_limits: str = field(default_factory=_from("IMAGINE_CHECK_LIMITS"))
    recipe_in_files: str = field(
        default_factory=lambda: os.environ.get("IMAGINE_RECIPE_IN_FILES") or "sealed"
    )
    timestamp_url: str = field(default_factory=_from("IMAGINE_TIMESTAMP_URL"), repr=False)
    signing_chain: str = field(default_factory=_from("IMAGINE_SIGNING_CHAIN"))
    signing_key: str = field(default_factory=_from("IMAGINE_SIGNING_KEY"))
    signing_roots: str = field(default_factory=_from("IMAGINE_SIGNING_ROOTS"))
    learned_watermark: str = field(default_factory=_from("IMAGINE_LEARNED_WATERMARK"))
    candidates: int = field(default_factory=_candidates)
    max_photo_bytes: int = 15 * 1024 * 1024
    max_photo_pixels: int = 40_000_000
    max_photos: int = 5
    max_prompt_characters: int = 1000
    max_images: int = 16

    # Properties and not defaults, so that `replace(settings, data_directory=...)` takes all along.
    @property
    def secrets_directory(self) -> Path:
        """Folder of the keys that sign: beside the master key, else inside the data folder."""
        kind, _, where = self.master_key_source.partition(":")
        return Path(where).parent if kind == "file" else self.data_directory / "secrets"

    @property
    def database_place(self) -> str:
        """Url of the database."""
        return self.database_url or f"sqlite:///{self.data_directory / 'imagine.db'}"

    @property
    def blob_place(self) -> str:
        """Url or folder of the sealed pictures."""
        return self.blob_url or str(self.data_directory / "blobs")

    @property
    def key_store_place(self) -> str:
        """Url or folder of the wrapped data keys."""
        return self.key_store_url or str(self.data_directory / "keys")

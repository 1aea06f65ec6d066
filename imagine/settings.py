"""Where things are and how much we accept; read once from the environment, then frozen."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

VERSION = "0.1.0"  # of this package; pyproject.toml says the same


def _assets_directory() -> Path:
    chosen = os.environ.get("IMAGINE_ASSETS_DIR")
    return Path(chosen) if chosen else Path(__file__).resolve().parent.parent / "assets"


def _insightface_pack() -> Path | None:
    chosen = os.environ.get("IMAGINE_INSIGHTFACE_PACK")
    return Path(chosen) if chosen else None


@dataclass(frozen=True, slots=True)
class Settings:
    """Paths and limits.

    Attributes:
        assets_directory: folder with `models/` and `people/` (IMAGINE_ASSETS_DIR).
        insightface_pack: folder with the .onnx files of a pack (IMAGINE_INSIGHTFACE_PACK).
        max_photo_bytes: larger files are refused before they are opened.
        max_photo_pixels: larger pictures are refused from their header, before decoding.
        max_photos: more selfies than this are refused.
        max_prompt_characters: longer prompts are refused.
        max_images: more pictures than this in one call are refused.
    """

    assets_directory: Path = field(default_factory=_assets_directory)
    insightface_pack: Path | None = field(default_factory=_insightface_pack)
    max_photo_bytes: int = 15 * 1024 * 1024
    max_photo_pixels: int = 40_000_000
    max_photos: int = 5
    max_prompt_characters: int = 1000
    max_images: int = 16

"""Weights on disk: written whole or not at all, exported models read back for training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from imagine.backends.weight_files import OWN_MODELS
from imagine.models.denoiser import Denoiser
from imagine.models.identity_adapter import IdentityAdapter


def save_whole(path: Path, stored: dict[str, Any]) -> None:
    """Write with `torch.save` so that a crash leaves the old file or the new one, never half."""
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    torch.save(stored, partial)
    partial.replace(path)


def load_exported(folder: Path) -> tuple[Denoiser, IdentityAdapter]:
    """Denoiser and adapter of a folder written by `save_model`, in single precision."""
    denoiser = Denoiser.from_pretrained(folder / "denoiser", **OWN_MODELS)
    adapter = IdentityAdapter.from_pretrained(folder / "identity_adapter", **OWN_MODELS)
    return denoiser, adapter

"""Weights on disk: written whole or not at all, exported models read back for training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from imagine.models.denoiser import Denoiser
from imagine.models.identity_adapter import IdentityAdapter


def save_whole(path: Path, stored: dict[str, Any]) -> None:
    """Write with `torch.save` so that a crash leaves the old file or the new one, never half."""
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    torch.save(stored, partial)
    partial.replace(path)


def load_exported(folder: Path) -> tuple[Denoiser, IdentityAdapter]:
    """Denoiser and adapter of a folder written by `save_model`, in single precision."""
    words: dict[str, Any] = {"local_files_only": True, "low_cpu_mem_usage": False}
    denoiser = Denoiser.from_pretrained(folder / "denoiser", **words).float()
    adapter = IdentityAdapter.from_pretrained(folder / "identity_adapter", **words).float()
    return denoiser, adapter

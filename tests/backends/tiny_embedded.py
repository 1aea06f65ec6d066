"""The embedded model of genuine architecture and folder layout; random weights."""

from __future__ import annotations

from pathlib import Path

import torch

from imagine.backends.embedded import save_model
from imagine.models.denoiser import Denoiser
from imagine.models.identity_adapter import IdentityAdapter


def save_tiny(folder: Path) -> Path:
    """Write denoiser and adapter whose person is seen in the picture; returns the folder."""
    torch.manual_seed(0)
    denoiser = Denoiser(width=64, depth=2, heads=2, identity_width=32, bottleneck=16)
    torch.nn.init.normal_(denoiser.unpatches.project.weight, std=0.02)
    for block in denoiser.blocks:
        torch.nn.init.ones_(block.cross.identity_gate)
    save_model(folder, denoiser, IdentityAdapter(width=32, depth=1, heads=2, bottleneck=16))
    return folder


def drawn(backend, *requests):  # type: ignore[no-untyped-def]
    """Draw requests in shared calls; the finished states."""
    states = [backend.prepare(request) for request in requests]
    while states[0].step < states[0].num_steps:
        states = backend.denoise_step(states)
    return states

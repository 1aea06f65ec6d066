"""What training minimises."""

from __future__ import annotations

import torch
from torch import Tensor


def sample_sigmas(batch: int, device: str, mean: float = 0.6, spread: float = 1.0) -> Tensor:
    """(batch,) noise levels in (0, 1), logit-normal and stratified over the batch.

    Source: arXiv 2403.03206, section 3.1; the mean leans to noise because a 16-pixel patch shows
    its content through much noise.
    """
    uniform = (torch.rand(batch, device=device) + torch.arange(batch, device=device)) / batch
    normal = torch.erfinv((2 * uniform - 1).clamp(-0.9999, 0.9999)) * 2**0.5
    return torch.sigmoid(mean + spread * normal).clamp(1e-3, 1 - 1e-3)


def flow_matching_loss(
    prediction: Tensor, clean: Tensor, sigmas: Tensor, weights: Tensor, floor: float = 0.1
) -> Tensor:
    """Velocity error of a clean-image prediction, per pixel weights applied.

    With x = (1 - s) clean + s noise the velocity is (x - clean) / s, so its squared error is that
    of the clean image over s squared; `floor` keeps the last steps from drowning the rest.

    Args:
        prediction: (batch, 3, h, w) estimated clean images.
        clean: (batch, 3, h, w) true images.
        sigmas: (batch,) noise levels.
        weights: (batch, 1, h, w).
        floor: smallest sigma that still counts in full.

    Source: arXiv 2511.13720, section 4 (x-prediction with v-loss).
    """
    error = (prediction.float() - clean).square() * weights
    scale = 1.0 / sigmas.clamp_min(floor).square()
    return (error.mean(dim=(1, 2, 3)) / weights.mean(dim=(1, 2, 3)) * scale).mean()

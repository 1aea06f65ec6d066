"""What training minimises, and how references are disturbed to be ready for real selfies."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


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


def disturb_references(crops: Tensor) -> Tensor:
    """Colour, tone, noise, blur and resolution changes of (n, 3, h, w) crops in [-1, 1].

    Half of the crops get a strong disturbance, so that renders do not teach a world where every
    photo has the same camera.
    """
    count, device = len(crops), crops.device

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.empty(count, channels, 1, 1, device=device).uniform_(low, high)

    chosen = (torch.rand(count, 1, 1, 1, device=device) < 0.5).to(crops.dtype)
    unit = (crops + 1) / 2
    unit = unit.clamp(1e-4, 1).pow(draw(0.75, 1.35)) * draw(0.85, 1.15) * draw(0.94, 1.06, 3)
    grey = unit.mean(dim=1, keepdim=True)
    unit = grey + (unit - grey) * draw(0.6, 1.3)
    monochrome = (torch.rand(count, 1, 1, 1, device=device) < 0.05).to(crops.dtype)
    unit = unit * (1 - monochrome) + grey * monochrome
    size = crops.shape[-1]
    small = functional.interpolate(unit, size=int(size * 0.55), mode="area")
    small = functional.interpolate(small, size=(size, size), mode="bilinear", align_corners=False)
    blur = (torch.rand(count, 1, 1, 1, device=device) < 0.3).to(crops.dtype)
    unit = unit * (1 - blur) + small * blur
    unit = unit + torch.randn_like(unit) * draw(0.0, 0.04)
    disturbed = unit.clamp(0, 1) * 2 - 1
    return disturbed * chosen + crops * (1 - chosen)

"""Small previews of latents without the decoder: a linear map, fitted once to that decoder.

A decoder costs as much as a denoising step; a matrix of a few numbers costs nothing and shows
colours and shapes well enough to decide whether to wait. It is fitted on random latents when the
first preview is wanted, so it fits whatever decoder is loaded and nothing has to be shipped.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

import torch
from torch import Tensor
from torch.nn import functional

from imagine.core import ImageArray

SAMPLES = 8
SIDE = 16  # of the random latents


class LatentPreview:
    """Latents to a picture of their own height and width.

    Args:
        decode: (n, channels, h, w) latents to (n, 3, H, W) pictures in about [-1, 1].
        channels: of the latents.
        device: where `decode` works.
    """

    def __init__(
        self, decode: Callable[[Tensor], Tensor], channels: int, device: str = "cpu"
    ) -> None:
        self._decode = decode
        self._channels = channels
        self._device = device
        self._matrix: Tensor | None = None
        self._lock = Lock()

    @torch.inference_mode()
    def __call__(self, latents: Tensor) -> ImageArray:
        """Show (channels, h, w) latents as (h, w, 3) uint8 RGB."""
        with self._lock:
            if self._matrix is None:
                self._matrix = self._fit()
        pixels = _with_ones(latents.float().cpu()[None]) @ self._matrix
        unit = (pixels / 2 + 0.5).clamp(0, 1) * 255
        shown: ImageArray = unit.round().byte().reshape(*latents.shape[1:], 3).numpy()
        return shown

    def _fit(self) -> Tensor:
        """(channels + 1, 3) least squares from latents to what the decoder makes of them."""
        generator = torch.Generator().manual_seed(0)
        coarse = torch.randn(SAMPLES, self._channels, SIDE // 4, SIDE // 4, generator=generator)
        fine = torch.randn(SAMPLES, self._channels, SIDE, SIDE, generator=generator)
        latents = functional.interpolate(coarse, size=SIDE, mode="bilinear") + 0.3 * fine
        pictures = torch.cat([self._decode(one[None].to(self._device)) for one in latents])
        small = functional.interpolate(pictures.float().cpu(), size=SIDE, mode="area")
        wanted = small.permute(0, 2, 3, 1).reshape(-1, 3)
        solved: Tensor = torch.linalg.lstsq(_with_ones(latents), wanted).solution
        return solved


def _with_ones(latents: Tensor) -> Tensor:
    """(n, channels, h, w) to (n * h * w, channels + 1), the last column 1."""
    rows = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
    return torch.cat([rows, torch.ones(len(rows), 1)], dim=1)

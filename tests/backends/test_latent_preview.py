from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from imagine.backends.latent_preview import LatentPreview

MIX = torch.tensor([[0.5, -0.2, 0.1, 0.0], [0.0, 0.4, -0.3, 0.1], [0.2, 0.1, 0.0, 0.4]])


def decoder(latents: Tensor) -> Tensor:
    """Colours mixed from channels, eight times as large, with a little that is not linear."""
    mixed = torch.einsum("kc,nchw->nkhw", MIX, latents) + 0.1
    return functional.interpolate(torch.tanh(0.6 * mixed), scale_factor=8, mode="bilinear")


def test_a_preview_shows_what_the_decoder_would_at_the_size_of_the_latents() -> None:
    latents = torch.nn.functional.interpolate(
        torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(5)), size=24, mode="bicubic"
    )
    shown = LatentPreview(decoder, 4)(latents[0])
    true = functional.interpolate(decoder(latents), size=24, mode="area")[0].permute(1, 2, 0)
    wanted = (true / 2 + 0.5).clamp(0, 1) * 255
    assert shown.shape == (24, 24, 3)
    assert (torch.from_numpy(shown).float() - wanted).abs().mean() < 6


def test_the_decoder_is_asked_for_one_fit_only() -> None:
    calls: list[int] = []

    def counting(latents: Tensor) -> Tensor:
        calls.append(len(latents))
        return decoder(latents)

    preview = LatentPreview(counting, 4)
    for _ in range(3):
        preview(torch.zeros(4, 8, 8))
    assert sum(calls) == 8

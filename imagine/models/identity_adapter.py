"""Masked face crops to identity tokens, by a patch encoder trained with the denoiser.

No face recogniser takes part, so recognisers stay independent judges of the result.
"""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from imagine.models.blocks import (
    FeedForward,
    OverlappingPatches,
    RMSNorm,
    SelfAttention,
    sine_cosine_positions,
)


class _EncoderBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(width)
        self.attention = SelfAttention(width, heads)
        self.feed_forward_norm = RMSNorm(width)
        self.feed_forward = FeedForward(width)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.attention(self.attention_norm(hidden))
        return hidden + self.feed_forward(self.feed_forward_norm(hidden))  # type: ignore[no-any-return]


class IdentityAdapter(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A small vision transformer: one global token and one token per patch of every selfie.

    Source: the trainable patch encoder of "Imagine yourself" (arXiv 2409.13346, section 3.4.1),
    there a CLIP ViT-H, here a few million parameters.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        image_size: int = 96,
        patch_size: int = 12,
        width: int = 256,
        depth: int = 4,
        heads: int = 4,
        bottleneck: int = 128,
    ) -> None:
        super().__init__()
        self.patches = OverlappingPatches(3, patch_size, bottleneck, width)
        side = image_size // patch_size
        self.register_buffer(
            "positions", sine_cosine_positions(side, side, width), persistent=False
        )
        self.global_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.blocks = nn.ModuleList(_EncoderBlock(width, heads) for _ in range(depth))
        self.norm = RMSNorm(width)

    @property
    def tokens_per_photo(self) -> int:
        """Identity tokens that one photo becomes."""
        return int((self.config.image_size // self.config.patch_size) ** 2 + 1)

    def forward(self, crops: Tensor) -> Tensor:
        """Encode crops.

        Args:
            crops: (photos, 3, image_size, image_size) float in [-1, 1], masked.

        Returns:
            (photos, tokens_per_photo, width); token 0 is the global one.
        """
        hidden = self.patches(crops) + self.positions.to(crops.dtype)
        hidden = torch.cat([self.global_token.expand(len(crops), -1, -1), hidden], dim=1)
        for block in self.blocks:
            hidden = block(hidden)
        return self.norm(hidden)  # type: ignore[no-any-return]

"""The transformer that estimates the clean picture from a noisy one, a prompt and a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from imagine.models.blocks import (
    FeedForward,
    OverlappingPatches,
    OverlappingUnpatches,
    RMSNorm,
    SelfAttention,
    sine_cosine_positions,
    timestep_embedding,
)
from imagine.models.parallel_attention import KeyValue, ParallelAttention


@dataclass(frozen=True)
class Conditioning:
    """What does not change between steps: keys and values of prompt and person, one row each.

    Attributes:
        text: per block, projected prompt tokens.
        text_mask: (batch, text_tokens) bool.
        text_pooled: (batch, text_width) mean of the prompt's tokens.
        identity: per block, projected identity tokens.
        identity_mask: (batch, identity_tokens) bool.
        identity_scale: (batch,) weight of the identity branch.
    """

    text: Sequence[KeyValue]
    text_mask: Tensor
    text_pooled: Tensor
    identity: Sequence[KeyValue]
    identity_mask: Tensor
    identity_scale: Tensor


class _DenoiserBlock(nn.Module):
    def __init__(self, width: int, heads: int, text_width: int, identity_width: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(width)
        self.attention = SelfAttention(width, heads)
        self.cross_norm = RMSNorm(width)
        self.cross = ParallelAttention(width, heads, text_width, identity_width)
        self.feed_forward_norm = RMSNorm(width)
        self.feed_forward = FeedForward(width)
        self.modulation = nn.Parameter(torch.zeros(6, width))

    def forward(
        self, hidden: Tensor, modulation: Tensor, index: int, conditioning: Conditioning
    ) -> Tensor:
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = (
            (modulation + self.modulation[None]).to(hidden.dtype).unsqueeze(2).unbind(1)
        )
        normed = self.attention_norm(hidden) * (1 + scale_a) + shift_a
        hidden = hidden + (1 + gate_a) * self.attention(normed)
        hidden = hidden + self.cross(
            self.cross_norm(hidden),
            conditioning.text[index],
            conditioning.text_mask,
            conditioning.identity[index],
            conditioning.identity_mask,
            conditioning.identity_scale,
        )
        normed = self.feed_forward_norm(hidden) * (1 + scale_f) + shift_f
        return hidden + (1 + gate_f) * self.feed_forward(normed)  # type: ignore[no-any-return]


class Denoiser(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A diffusion transformer on large pixel patches that predicts the clean image.

    Source: clean-image prediction on large patches as in "Back to Basics", arXiv 2511.13720;
    shared modulation of PixArt (arXiv 2310.00426, section 2.3); parallel attention of
    arXiv 2409.13346. Differs: patches overlap by half, the prompt's mean joins the modulation.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        image_size: int = 128,
        patch_size: int = 16,
        width: int = 320,
        depth: int = 8,
        heads: int = 5,
        text_width: int = 384,
        identity_width: int = 256,
        bottleneck: int = 160,
    ) -> None:
        super().__init__()
        self.patches = OverlappingPatches(3, patch_size, bottleneck, width)
        side = image_size // patch_size
        self.register_buffer(
            "positions", sine_cosine_positions(side, side, width), persistent=False
        )
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.text_pooled = nn.Linear(text_width, width)
        to_modulation = nn.Linear(width, 6 * width)
        self.modulation = nn.Sequential(nn.SiLU(), to_modulation)
        self.no_text = nn.Parameter(torch.randn(1, 1, text_width) * 0.02)
        self.no_identity = nn.Parameter(torch.randn(1, 1, identity_width) * 0.02)
        self.text_norm = RMSNorm(text_width)
        self.blocks = nn.ModuleList(
            _DenoiserBlock(width, heads, text_width, identity_width) for _ in range(depth)
        )
        self.final_norm = RMSNorm(width)
        self.unpatches = OverlappingUnpatches(width, patch_size, 3)
        nn.init.zeros_(self.unpatches.project.weight)
        nn.init.zeros_(self.unpatches.project.bias)
        nn.init.normal_(to_modulation.weight, std=0.01)
        nn.init.zeros_(to_modulation.bias)

    def _cross_attentions(self) -> list[ParallelAttention]:
        return [cast("_DenoiserBlock", block).cross for block in self.blocks]

    def condition(
        self,
        text_tokens: Tensor,
        text_mask: Tensor,
        identity_tokens: Tensor,
        identity_mask: Tensor,
        identity_scale: Tensor,
    ) -> Conditioning:
        """Project prompt and person once for all steps.

        A row whose mask is all False gets the learned "no text" or "no identity" token instead,
        which is what classifier-free guidance compares with.

        Args:
            text_tokens: (batch, text_tokens, text_width) from the text encoder.
            text_mask: (batch, text_tokens) bool.
            identity_tokens: (batch, identity_tokens, identity_width) from the identity adapter.
            identity_mask: (batch, identity_tokens) bool.
            identity_scale: (batch,) weight of the identity branch.
        """
        text_tokens = self.text_norm(text_tokens)
        text_tokens, text_mask = _append_null(text_tokens, text_mask, self.no_text)
        identity_tokens, identity_mask = _append_null(
            identity_tokens, identity_mask, self.no_identity
        )
        weights = text_mask.to(text_tokens.dtype)[..., None]
        pooled = (text_tokens * weights).sum(1) / weights.sum(1)
        return Conditioning(
            text=[cross.text(text_tokens) for cross in self._cross_attentions()],
            text_mask=text_mask,
            text_pooled=pooled,
            identity=[cross.identity(identity_tokens) for cross in self._cross_attentions()],
            identity_mask=identity_mask,
            identity_scale=identity_scale,
        )

    def forward(self, images: Tensor, sigmas: Tensor, conditioning: Conditioning) -> Tensor:
        """Estimate the clean images of rows that may stand at different noise levels.

        Args:
            images: (batch, 3, image_size, image_size) float, (1 - sigma) * clean + sigma * noise.
            sigmas: (batch,) float in (0, 1].
            conditioning: one row per image.

        Returns:
            Clean images in about [-1, 1], shape of `images`.
        """
        hidden = self.patches(images) + self.positions.to(images.dtype)
        embedding = self.time(timestep_embedding(sigmas, 256).to(hidden.dtype))
        embedding = embedding + self.text_pooled(conditioning.text_pooled.to(hidden.dtype))
        modulation = self.modulation(embedding).view(len(images), 6, -1)
        for index, block in enumerate(self.blocks):
            hidden = block(hidden, modulation, index, conditioning)
        size = (images.shape[2], images.shape[3])
        return self.unpatches(self.final_norm(hidden), size)  # type: ignore[no-any-return]


def _append_null(tokens: Tensor, mask: Tensor, null: Tensor) -> tuple[Tensor, Tensor]:
    """Add the learned empty token as a last column, visible only in rows that have nothing else."""
    tokens = torch.cat([tokens, null.to(tokens.dtype).expand(len(tokens), -1, -1)], dim=1)
    return tokens, torch.cat([mask, ~mask.any(dim=1, keepdim=True)], dim=1)

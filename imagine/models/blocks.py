"""Transformer parts shared by the denoiser and the reference encoder."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class RMSNorm(nn.Module):
    """Root-mean-square norm that keeps its input's dtype, so that the fused kernel serves bf16."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, hidden: Tensor) -> Tensor:
        """Any (..., width) to the same shape."""
        weight = self.weight.to(hidden.dtype)
        normed: Tensor = functional.rms_norm(hidden, (hidden.shape[-1],), weight, eps=1e-6)
        return normed


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention.

    Args:
        query: (batch, heads, tokens, head_dim).
        key: (batch, heads, source_tokens, head_dim).
        value: shape of `key`.
        mask: (batch, source_tokens) bool, True where a source token counts.

    Returns:
        (batch, tokens, heads * head_dim).
    """
    if query.device.type == "cpu" and torch.is_grad_enabled():
        # On two cores the backward pass of the fused CPU kernel takes 98 ms where these three
        # lines take 20 (96 rows, 4 heads, 64 tokens, bf16); forward alone they are equal.
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None, :], -1e4)
        output: Tensor = scores.softmax(dim=-1).to(value.dtype) @ value
    else:
        wide = None if mask is None else mask[:, None, None, :]
        output = functional.scaled_dot_product_attention(query, key, value, attn_mask=wide)
    together: Tensor = output.transpose(1, 2).flatten(2)
    return together


class SelfAttention(nn.Module):
    """Multi-head self-attention with normalised queries and keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.query_norm = RMSNorm(width // heads)
        self.key_norm = RMSNorm(width // heads)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """(batch, tokens, width) to the same shape."""
        batch, count, _ = hidden.shape
        qkv = self.to_qkv(hidden).view(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        output = attend(self.query_norm(qkv[0]), self.key_norm(qkv[1]), qkv[2])
        return self.to_out(output)  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, width: int, ratio: float = 4.0) -> None:
        super().__init__()
        self.expand = nn.Linear(width, int(width * ratio), bias=False)
        self.contract = nn.Linear(int(width * ratio), width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """(batch, tokens, width) to the same shape."""
        return self.contract(functional.gelu(self.expand(hidden), approximate="tanh"))  # type: ignore[no-any-return]


class OverlappingPatches(nn.Module):
    """Pixels to tokens through patches that overlap by half a patch.

    Non-overlapping patches of 16 pixels leave seams that a small model cannot learn away.
    """

    def __init__(self, channels: int, patch: int, bottleneck: int, width: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(
            channels, bottleneck, kernel_size=patch * 3 // 2, stride=patch, padding=patch // 4
        )
        self.expand = nn.Linear(bottleneck, width)

    def forward(self, image: Tensor) -> Tensor:
        """(batch, channels, h, w) to (batch, h / patch * w / patch, width)."""
        return self.expand(self.reduce(image).flatten(2).transpose(1, 2))  # type: ignore[no-any-return]


class OverlappingUnpatches(nn.Module):
    """Tokens to pixels; neighbouring patches are added where they overlap."""

    def __init__(self, width: int, patch: int, channels: int) -> None:
        super().__init__()
        self.patch, self.channels = patch, channels
        self.kernel = patch * 3 // 2
        self.project = nn.Linear(width, channels * self.kernel * self.kernel)

    def forward(self, hidden: Tensor, size: tuple[int, int]) -> Tensor:
        """(batch, tokens, width) to (batch, channels, *size)."""
        pieces = self.project(hidden).transpose(1, 2)
        return functional.fold(
            pieces, size, kernel_size=self.kernel, stride=self.patch, padding=self.patch // 4
        )


def sine_cosine_positions(rows: int, columns: int, width: int) -> Tensor:
    """(rows * columns, width) fixed 2-D position codes; half of the width per axis."""
    quarter = width // 4
    frequencies = torch.exp(-math.log(1000.0) * torch.arange(quarter) / quarter)

    def encode(positions: Tensor) -> Tensor:
        angles = positions[:, None] * frequencies[None] * (math.pi / 2)
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.cat([encode(y.flatten().float()), encode(x.flatten().float())], dim=1)


def timestep_embedding(sigmas: Tensor, width: int) -> Tensor:
    """(batch,) noise levels in [0, 1] to (batch, width) sines and cosines."""
    half = width // 2
    frequencies = torch.exp(
        -math.log(10000.0) * torch.arange(half, device=sigmas.device, dtype=torch.float32) / half
    )
    angles = sigmas.float()[:, None] * 1000.0 * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=1)

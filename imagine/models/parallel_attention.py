"""Cross-attention to several sources at once: one attention per source, the same query, one sum.

How the sources' outputs become one is `fuse_sources`, on its own so that an adopter who needs
another way (see NOTICE on patents) replaces a single function.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from imagine.models.blocks import RMSNorm, attend

KeyValue = tuple[Tensor, Tensor]  # each (batch, heads, tokens, head_dim)


def fuse_sources(outputs: Sequence[Tensor], scales: Sequence[Tensor]) -> Tensor:
    """Scale every source's attention output and add them up.

    Args:
        outputs: one (batch, tokens, width) per source.
        scales: one per source, broadcastable to its output; (batch, 1, 1) gives each row its own.

    Source: fig. 4 of "Imagine yourself", arXiv 2409.13346; decoupled cross-attention of
    IP-Adapter, arXiv 2308.06721, eq. 5.
    """
    fused = outputs[0] * scales[0]
    for output, scale in zip(outputs[1:], scales[1:], strict=True):
        fused = fused + output * scale
    return fused


class SourceProjection(nn.Module):
    """Keys and values of one source, computed once per request and reused at every step."""

    def __init__(self, source_width: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_kv = nn.Linear(source_width, 2 * width, bias=False)
        self.key_norm = RMSNorm(width // heads)

    def forward(self, tokens: Tensor) -> KeyValue:
        """Project (batch, tokens, source_width) to a key and a value."""
        batch, count, _ = tokens.shape
        kv = self.to_kv(tokens).view(batch, count, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.key_norm(kv[0]), kv[1]


class ParallelAttention(nn.Module):
    """Text and identity cross-attention side by side.

    The identity branch passes through a per-channel gate that starts at zero, so a fresh branch
    changes nothing until training opens it (the paper's zero-initialised control signal).
    """

    def __init__(self, width: int, heads: int, text_width: int, identity_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_query = nn.Linear(width, width, bias=False)
        self.query_norm = RMSNorm(width // heads)
        self.text = SourceProjection(text_width, width, heads)
        self.identity = SourceProjection(identity_width, width, heads)
        self.identity_gate = nn.Parameter(torch.zeros(width))
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(
        self,
        hidden: Tensor,
        text: KeyValue,
        text_mask: Tensor,
        identity: KeyValue,
        identity_mask: Tensor,
        identity_scale: Tensor,
    ) -> Tensor:
        """Attend to both sources.

        Args:
            hidden: (batch, tokens, width).
            text: projected prompt tokens.
            text_mask: (batch, text_tokens) bool, True where a token counts.
            identity: projected identity tokens.
            identity_mask: (batch, identity_tokens) bool; at least one True per row.
            identity_scale: (batch,) weight of the identity branch, 0 switches it off.
        """
        batch, count, _ = hidden.shape
        query: Tensor = self.to_query(hidden).view(batch, count, self.heads, -1).transpose(1, 2)
        query = self.query_norm(query)

        from_text = attend(query, *text, text_mask)
        from_identity = attend(query, *identity, identity_mask) * self.identity_gate
        scale = identity_scale.to(hidden.dtype)[:, None, None]
        sources = [from_text, from_identity]
        fused: Tensor = self.to_out(fuse_sources(sources, [torch.ones_like(scale), scale]))
        return fused

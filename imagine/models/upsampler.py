"""The small network that draws a picture twice as large, looking at the person while it does.

It corrects what the denoiser left soft, too: its training inputs are the denoiser's own estimates.
"""

from __future__ import annotations

from typing import cast

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional

from imagine.models.blocks import RMSNorm, attend
from imagine.models.parallel_attention import SourceProjection

SCALE = 2  # how many times larger a picture becomes
_COARSEST = 8  # sides are halved this far inside, so they must be divisible by it


class _ResidualBlock(nn.Module):
    """Two convolutions that change nothing until training moves the second one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(cast("Tensor", self.second.bias))

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.second(functional.silu(self.first(hidden)))  # type: ignore[no-any-return]


class _IdentityAttention(nn.Module):
    """Every place of the picture asks the identity tokens; a gate that starts at zero lets in.

    As the denoiser's identity branch (`parallel_attention`), without words beside it.
    """

    def __init__(self, width: int, heads: int, identity_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = RMSNorm(width)
        self.to_query = nn.Linear(width, width, bias=False)
        self.query_norm = RMSNorm(width // heads)
        self.identity = SourceProjection(identity_width, width, heads)
        self.identity_gate = nn.Parameter(torch.zeros(width))
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, hidden: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """(batch, width, h, w) and (batch, tokens, identity_width) to the shape of `hidden`."""
        batch, width, height, columns = hidden.shape
        places = hidden.flatten(2).transpose(1, 2)
        query: Tensor = self.to_query(self.norm(places))
        query = self.query_norm(query.view(batch, -1, self.heads, width // self.heads))
        key, value = self.identity(tokens)
        seen = attend(query.transpose(1, 2), key, value, mask) * self.identity_gate
        added: Tensor = self.to_out(seen)
        return hidden + added.transpose(1, 2).reshape(batch, width, height, columns)


class Upsampler(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Adds to the bicubic enlargement what was lost, at three resolutions, with skips.

    Works on half, a quarter and an eighth of the small picture's side; the identity tokens are
    looked at on the two coarser ones. Any picture whose sides are divisible by 8 will do.

    Source: residual blocks without norms and the sub-pixel convolution of EDSR (arXiv 1707.02921)
    and ESPCN (arXiv 1609.05158); restoring a face with references of the same person as in
    GFRNet (arXiv 1804.04829), there by warping, here by attention.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        widths: tuple[int, int, int] = (64, 128, 192),
        heads: int = 4,
        identity_width: int = 192,
    ) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.enter = nn.Conv2d(3 * 4, fine, 3, padding=1)
        self.fine_in = nn.Sequential(_ResidualBlock(fine), _ResidualBlock(fine))
        self.to_middle = nn.Conv2d(fine, middle, 2, stride=2)
        self.middle_in = nn.Sequential(_ResidualBlock(middle), _ResidualBlock(middle))
        self.look_first = _IdentityAttention(middle, heads, identity_width)
        self.to_coarse = nn.Conv2d(middle, coarse, 2, stride=2)
        self.coarse_in = _ResidualBlock(coarse)
        self.look_coarse = _IdentityAttention(coarse, heads, identity_width)
        self.coarse_out = _ResidualBlock(coarse)
        self.from_coarse = nn.Conv2d(coarse, 4 * middle, 1)
        self.middle_out = nn.Sequential(_ResidualBlock(middle), _ResidualBlock(middle))
        self.look_last = _IdentityAttention(middle, heads, identity_width)
        self.from_middle = nn.Conv2d(middle, 4 * fine, 1)
        self.fine_out = nn.Sequential(*(_ResidualBlock(fine) for _ in range(3)))
        self.leave = nn.Conv2d(fine, 3 * (2 * SCALE) ** 2, 3, padding=1)
        self.no_identity = nn.Parameter(torch.randn(1, 1, identity_width) * 0.02)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(cast("Tensor", self.leave.bias))

    def forward(
        self, images: Tensor, identity_tokens: Tensor, identity_mask: Tensor | None = None
    ) -> Tensor:
        """Enlarge pictures.

        Args:
            images: (batch, 3, h, w) float in about [-1, 1]; h and w divisible by 8.
            identity_tokens: (batch, tokens, identity_width) of the identity adapter; no tokens
                stand for nobody in particular.
            identity_mask: (batch, tokens) bool, True where a token counts; None counts all.

        Returns:
            (batch, 3, 2 * h, 2 * w) in about [-1, 1].

        Raises:
            ValueError: a side is not divisible by 8.
        """
        if images.shape[2] % _COARSEST or images.shape[3] % _COARSEST:
            raise ValueError(
                f"A picture of {images.shape[3]} x {images.shape[2]} pixels cannot be enlarged; "
                f"give one whose sides are divisible by {_COARSEST}."
            )
        tokens, mask = self._with_nobody(identity_tokens, identity_mask)
        fine = self.fine_in(self.enter(functional.pixel_unshuffle(images, 2)))
        middle = self.look_first(self.middle_in(self.to_middle(fine)), tokens, mask)
        coarse = self.look_coarse(self.coarse_in(self.to_coarse(middle)), tokens, mask)
        coarse = self.from_coarse(self.coarse_out(coarse))
        middle = middle + functional.pixel_shuffle(coarse, 2)
        middle = self.from_middle(self.look_last(self.middle_out(middle), tokens, mask))
        fine = self.fine_out(fine + functional.pixel_shuffle(middle, 2))
        detail = functional.pixel_shuffle(self.leave(fine), 2 * SCALE)
        plain = functional.interpolate(
            images.float(), scale_factor=SCALE, mode="bicubic", align_corners=False
        )
        return plain + detail

    def _with_nobody(self, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Tokens and mask with the learned "nobody" last, seen by rows that have nothing else."""
        if mask is None:
            mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        nobody = self.no_identity.to(tokens.dtype).expand(len(tokens), -1, -1)
        mask = torch.cat([mask, ~mask.any(dim=1, keepdim=True)], dim=1)
        return torch.cat([tokens, nobody], dim=1), mask

"""Whose face is it, and where: two small convolutional networks taught on rendered people."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional


def _convolution(channels_in: int, channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False),
        nn.GroupNorm(min(8, channels), channels),
        nn.SiLU(),
    )


class _Stage(nn.Module):
    """Halve the picture, then look twice more beside a shortcut."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.halve = _convolution(channels_in, channels, 2)
        self.body = nn.Sequential(
            _convolution(channels, channels), nn.Conv2d(channels, channels, 3, 1, 1)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.halve(hidden)
        return hidden + self.body(hidden)  # type: ignore[no-any-return]


class FaceRecogniser(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Aligned faces to unit vectors that are alike for one person and unlike for two."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, width: int = 32, embedding: int = 160, crop_size: int = 80) -> None:
        """Build it.

        Args:
            width: channels of the first stage; each later stage has more.
            embedding: length of the vectors.
            crop_size: side of the faces, a multiple of 16.
        """
        super().__init__()
        widths = [width, 2 * width, 4 * width, 6 * width]
        self.stages = nn.ModuleList(map(_Stage, [3, *widths[:-1]], widths))
        self.head = nn.Linear(widths[-1] * (crop_size // 16) ** 2, embedding)

    def cut(self, pictures: Tensor, thetas: Tensor) -> Tensor:
        """The faces of pictures at the size it looks at, see `aligned`."""
        return aligned(pictures, thetas, int(self.config.crop_size))

    def forward(self, faces: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Embed faces.

        Args:
            faces: (batch, 3, crop_size, crop_size) float in [-1, 1].

        Returns:
            (batch, embedding) float32 unit vectors, and the feature maps of the four stages.
        """
        maps = []
        for stage in self.stages:
            faces = stage(faces)
            maps.append(faces)
        return functional.normalize(self.head(faces.flatten(1)).float(), dim=1), maps


class FaceLocator(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Pictures of one person to where the aligned face is in them, without a detector."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, width: int = 16, image_size: int = 64) -> None:
        """Build it.

        Args:
            width: channels of the first stage; each later stage has more.
            image_size: side of what it looks at; pictures are brought to it.
        """
        super().__init__()
        widths = [width, 2 * width, 4 * width, 6 * width]
        self.stages = nn.Sequential(*map(_Stage, [3, *widths[:-1]], widths))
        self.head = nn.Linear(widths[-1] * (image_size // 16) ** 2, 4)

    def forward(self, pictures: Tensor) -> Tensor:
        """Locate faces.

        Args:
            pictures: (batch, 3, h, h) float in [-1, 1].

        Returns:
            (batch, 2, 3) float32, turned and scaled but not sheared, for `aligned`.
        """
        size = int(self.config.image_size)
        small = functional.interpolate(pictures.float(), size=(size, size), mode="area")
        cosine, sine, x, y = self.head(self.stages(small).flatten(1)).float().unbind(1)
        return torch.stack(
            [torch.stack([cosine, -sine, x], 1), torch.stack([sine, cosine, y], 1)], 1
        )


def aligned(pictures: Tensor, thetas: Tensor, size: int) -> Tensor:
    """Differentiable face crops.

    Args:
        pictures: (batch, 3, h, w).
        thetas: (batch, 2, 3) transforms of the crop's coordinates to the picture's, in [-1, 1].
        size: side of the crops.

    Returns:
        (batch, 3, size, size) float32.
    """
    shape = [len(pictures), pictures.shape[1], size, size]
    grid = functional.affine_grid(thetas.float(), shape, align_corners=False)
    faces: Tensor = functional.grid_sample(
        pictures.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return faces


def soft_ellipse(
    size: int, middle: tuple[float, float], reach: tuple[float, float], end: float, fade: float
) -> Tensor:
    """A place on upright faces: 1 in it, softly falling to 0.

    Args:
        size: side of the faces, pixels.
        middle: x and y of its centre, in fractions of the side.
        reach: its radii, in fractions of the side.
        end: where it has fallen to 0, in radii.
        fade: how far before that it begins to fall, in radii.

    Returns:
        (size, size) float.
    """
    axis = torch.arange(size, dtype=torch.float32) / size
    radius = torch.hypot(
        (axis[None] - middle[0]) / reach[0], (axis[:, None] - middle[1]) / reach[1]
    )
    return ((end - radius) / fade).clamp(0.0, 1.0)

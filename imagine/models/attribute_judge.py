"""What a picture shows, by a small convolutional network: one trunk, one head per attribute."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn


class _ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the first may halve the picture."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        same = stride == 1 and channels_in == channels
        self.shortcut: nn.Module = (
            nn.Identity()
            if same
            else nn.Sequential(nn.AvgPool2d(stride), nn.Conv2d(channels_in, channels, 1))
        )

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.relu(self.body(hidden) + self.shortcut(hidden))


class AttributeJudge(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Pictures to class scores of each attribute.

    The last feature map is read in a grid of cells rather than as one mean, because where
    something is says what it is: red above the face is a hat, red below it a shirt.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        attributes: dict[str, list[str]],
        image_size: int = 80,
        width: int = 32,
        head_width: int = 128,
        accuracy: dict[str, float] | None = None,
    ) -> None:
        """Build the trunk and heads.

        Args:
            attributes: class names of each attribute, in the order of the scores.
            image_size: side of the pictures it looks at.
            width: channels of the first stage; each later stage has more.
            head_width: features the heads share.
            accuracy: share right on held-out true pictures, kept here to be shown with results.
        """
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        stages, channels = [], width
        for wider in (width, width * 2, width * 3, width * 4):
            stages.append(_ResidualBlock(channels, wider, 2))
            channels = wider
        self.trunk = nn.Sequential(*stages)
        cells = (image_size // 16) ** 2
        self.shared = nn.Sequential(
            nn.Conv2d(channels, 64, 1), nn.ReLU(inplace=True), nn.Flatten(), nn.Dropout(0.2),
            nn.Linear(64 * cells, head_width), nn.ReLU(inplace=True), nn.Dropout(0.2),
        )  # fmt: skip
        self.heads = nn.ModuleDict(
            {name: nn.Linear(head_width, len(classes)) for name, classes in attributes.items()}
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Score every class.

        Args:
            images: (batch, 3, image_size, image_size) float in [-1, 1].

        Returns:
            Per attribute (batch, classes) logits.
        """
        features = self.shared(self.trunk(self.stem(images)))
        return {name: head(features) for name, head in self.heads.items()}

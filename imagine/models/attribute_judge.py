"""What a picture shows, by a small convolutional network: one head per attribute."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional


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


class _Trunk(nn.Module):
    """A square view to a vector of features.

    The last map is read cell by cell, because where something is says what it is (red above the
    face is a hat, below it a shirt), and by its maxima, which do not mind where it is.
    """

    def __init__(self, view_size: int, width: int, features: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        channels = width
        for wider in (width, width * 2, width * 3, width * 4):
            layers.append(_ResidualBlock(channels, wider, 2))
            channels = wider
        self.layers = nn.Sequential(*layers)
        cell_channels = 48
        self.cells = nn.Sequential(nn.Conv2d(channels, cell_channels, 1), nn.ReLU(inplace=True))
        inputs = cell_channels * (view_size // 16) ** 2 + channels
        self.read = nn.Sequential(
            nn.Dropout(0.2), nn.Linear(inputs, features), nn.ReLU(inplace=True)
        )

    def forward(self, view: Tensor) -> Tensor:
        hidden = self.layers(view)
        read = [self.cells(hidden).flatten(1), hidden.amax(dim=(2, 3))]
        features: Tensor = self.read(torch.cat(read, dim=1))
        return features


class AttributeJudge(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Pictures to class scores of each attribute.

    Two views share the work: the whole picture at half size (place, style, clothes), and the
    middle, where portraits have the face, at full size (expression, glasses).
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        attributes: dict[str, list[str]],
        image_size: int = 128,
        width: int = 28,
        features: int = 96,
        accuracy: dict[str, float] | None = None,
    ) -> None:
        """Build the trunks and heads.

        Args:
            attributes: class names of each attribute, in the order of the scores.
            image_size: side of the pictures it looks at, a multiple of 32.
            width: channels of the first stage; each later stage has more.
            features: numbers each view is told in.
            accuracy: share right on held-out true pictures, kept here to be shown with results.
        """
        super().__init__()
        self.view_size = image_size // 2
        self.whole = _Trunk(self.view_size, width, features)
        self.face = _Trunk(self.view_size, width, features)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(2 * features, len(classes)) for name, classes in attributes.items()}
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Score every class.

        Args:
            images: (batch, 3, image_size, image_size) float in [-1, 1].

        Returns:
            Per attribute (batch, classes) logits.
        """
        size = self.view_size
        # Eyes lie at 0.30 to 0.43 of a portrait's height and mouths at 0.40 to 0.61.
        top, left = int(0.2 * images.shape[-2]), size // 2
        middle = images[:, :, top : top + size, left : left + size]
        seen = torch.cat([self.whole(functional.avg_pool2d(images, 2)), self.face(middle)], dim=1)
        return {name: head(seen) for name, head in self.heads.items()}

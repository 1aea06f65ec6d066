"""The two networks of TrustMark: one writes a hundred bits into a picture, one reads them.

Modules bear the names they have in the published checkpoints, so those load as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

SECRET_BITS = 100
_SECRET_SIDE = 16  # the bits first become a picture of this side


@dataclass(frozen=True, slots=True)
class WriterShape:
    """What a checkpoint of the writer does not say by its tensors' names alone.

    Attributes:
        width: channels after the first convolution; doubled with every level.
        levels: halvings of the picture.
        middle: groups of residual blocks at the bottom, of as many blocks each.
        activation: "relu" or "silu".
    """

    width: int = 32
    levels: int = 4
    middle: int = 1
    activation: str = "silu"


class SecretWriter(nn.Module):
    """A U-Net that is shown the picture and the bits, and paints the picture with the bits in it.

    Source: TrustMark, Bui et al. 2023, arXiv:2311.18297; layout of its package, 0.9.2.
    """

    def __init__(self, shape: WriterShape, bits: int = SECRET_BITS) -> None:
        super().__init__()
        channels = shape.width
        self.secret2image = _SecretImage(bits)
        self.pre = _Conv(6, channels, 3, activation=shape.activation)
        self.enc = nn.ModuleList()
        for _ in range(shape.levels):
            self.enc.append(_Conv(channels, 2 * channels, 3, stride=2))
            channels *= 2
        self.middle = nn.ModuleList(
            _ResidualBlocks(shape.middle, channels, shape.activation) for _ in range(shape.middle)
        )
        self.dec = nn.ModuleList()
        for level in range(shape.levels):
            channels //= 2
            # The last one sees the picture and the bits themselves, too.
            skipped = channels if level < shape.levels - 1 else channels + 6
            self.dec.append(_UpBlock(2 * channels, skipped, channels, shape.activation))
        self.post = nn.Sequential(
            _Conv(channels, channels, 3, activation=shape.activation),
            _Conv(channels, channels // 2, 1, activation="silu"),
            _Conv(channels // 2, 3, 1, activation="tanh"),
        )

    def forward(self, images: Tensor, secrets: Tensor) -> Tensor:
        """The pictures with the bits in them.

        Args:
            images: (batch, 3, side, side) in [-1, 1]; a side that 16 and every level divides.
            secrets: (batch, bits), 0.0 or 1.0.

        Returns:
            (batch, 3, side, side) in [-1, 1].
        """
        inputs = torch.cat([images, self.secret2image(secrets, images.shape[-1])], dim=1)
        hidden = self.pre(inputs)
        passed = []
        for block in self.enc:
            passed.append(hidden)
            hidden = block(hidden)
        for block in self.middle:
            hidden = block(hidden)
        passed[0] = torch.cat([passed[0], inputs], dim=1)
        for block in self.dec:
            hidden = block(hidden, passed.pop())
        painted: Tensor = self.post(hidden)
        return painted


class SecretReader(nn.Module):
    """A ResNet that says of each bit how sure it is that it is one.

    Args:
        depths: blocks of the four stages.
        is_deep: whether a block has three convolutions (ResNet-50) or two (ResNet-18).
        width: channels of the first stage.
        bits: how many.

    Source: He et al. 2015, arXiv:1512.03385; names as in torchvision, whose model it is.
    """

    def __init__(
        self,
        depths: tuple[int, ...] = (3, 4, 6, 3),
        is_deep: bool = True,
        width: int = 64,
        bits: int = SECRET_BITS,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels, stages = width, []
        for number, depth in enumerate(depths):
            inner, stride = width << number, 2 if number else 1
            blocks: list[nn.Module] = []
            for place in range(depth):
                blocks.append(_ResNetBlock(channels, inner, 1 if place else stride, is_deep))
                channels = 4 * inner if is_deep else inner
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(channels, bits)

    def forward(self, images: Tensor) -> Tensor:
        """Of each bit how sure, (batch, bits); positive is one.

        Args:
            images: (batch, 3, height, width) in [-1, 1]; 245 pixels square as published.
        """
        hidden = torch.relu(self.bn1(self.conv1(images)))
        hidden = nn.functional.max_pool2d(hidden, 3, stride=2, padding=1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            hidden = stage(hidden)
        sure: Tensor = self.fc(hidden.mean(dim=(2, 3)))
        return sure


class _SecretImage(nn.Module):
    def __init__(self, bits: int) -> None:
        super().__init__()
        self.dense = nn.Linear(bits, 3 * _SECRET_SIDE**2)

    def forward(self, secrets: Tensor, side: int) -> Tensor:
        small = self.dense(secrets).view(-1, 3, _SECRET_SIDE, _SECRET_SIDE)
        return torch.relu(nn.functional.interpolate(small, size=(side, side), mode="nearest"))


class _Conv(nn.Module):
    def __init__(
        self, channels: int, out: int, kernel: int, *, stride: int = 1, activation: str = "relu"
    ) -> None:
        super().__init__()
        # Kernels of two are padded by their caller, on one side only.
        padding = 1 if kernel == 3 else 0
        self.conv = nn.Conv2d(channels, out, kernel, stride=stride, padding=padding)
        self.activate = _activation(activation)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.activate(self.conv(hidden))  # type: ignore[no-any-return]


class _UpBlock(nn.Module):
    def __init__(self, channels: int, skipped: int, out: int, activation: str) -> None:
        super().__init__()
        self.conv1 = _Conv(channels, out, 2, activation=activation)
        self.conv2 = _Conv(out + skipped, out, 3, activation=activation)

    def forward(self, hidden: Tensor, skip: Tensor) -> Tensor:
        larger = nn.functional.interpolate(hidden, scale_factor=2.0, mode="nearest")
        larger = self.conv1(nn.functional.pad(larger, (0, 1, 0, 1)))
        return self.conv2(torch.cat([larger, skip], dim=1))  # type: ignore[no-any-return]


class _ResidualBlocks(nn.Module):
    def __init__(self, count: int, channels: int, activation: str) -> None:
        super().__init__()
        self.model = nn.Sequential(*(_ResidualBlock(channels, activation) for _ in range(count)))

    def forward(self, hidden: Tensor) -> Tensor:
        return self.model(hidden)  # type: ignore[no-any-return]


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        self.model = nn.Sequential(
            _Conv(channels, channels, 3, activation=activation),
            _Conv(channels, channels, 3, activation="none"),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.model(hidden)  # type: ignore[no-any-return]


class _ResNetBlock(nn.Module):
    def __init__(self, channels: int, inner: int, stride: int, is_deep: bool) -> None:
        super().__init__()
        out = 4 * inner if is_deep else inner
        # (kernel, channels in, channels out, stride) of each convolution
        plan = (
            [(1, channels, inner, 1), (3, inner, inner, stride), (1, inner, out, 1)]
            if is_deep
            else [(3, channels, inner, stride), (3, inner, out, 1)]
        )
        self.count = len(plan)
        for number, (kernel, before, after, step) in enumerate(plan, 1):
            conv = nn.Conv2d(before, after, kernel, step, padding=kernel // 2, bias=False)
            self.add_module(f"conv{number}", conv)
            self.add_module(f"bn{number}", nn.BatchNorm2d(after))
        self.downsample = (
            nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
            if stride != 1 or channels != out
            else None
        )

    def forward(self, hidden: Tensor) -> Tensor:
        kept = hidden if self.downsample is None else self.downsample(hidden)
        for number in range(1, self.count + 1):
            conv, norm = self.get_submodule(f"conv{number}"), self.get_submodule(f"bn{number}")
            hidden = norm(conv(hidden))
            if number < self.count:
                hidden = torch.relu(hidden)
        return torch.relu(hidden + kept)


def _activation(name: str) -> nn.Module:
    kinds: dict[str, type[nn.Module]] = {
        "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh, "none": nn.Identity
    }  # fmt: skip
    return kinds[name]()

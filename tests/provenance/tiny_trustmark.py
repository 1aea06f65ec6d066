"""TrustMark for tests: its checkpoints in small with random numbers, and a pair that works.

The checkpoints have the genuine names and layout, made from the published shapes only narrower.
Their numbers are random, so nothing can be read back. The pair that works is no network: it paints
a known texture into a hundred fields and looks for it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from imagine.models.trustmark import SecretReader, SecretWriter, WriterShape

SHAPE = WriterShape(width=8, levels=2, middle=1, activation="silu")
DESCRIPTION = """
model:
  target: trustmark.model.TrustMark_Arch
  params:
    secret_len: 100
    resolution: 256
    secret_encoder_config:
      target: trustmark.unet.Unet1
      params: {width: 8, ndown: 2, nmiddle: 1, activ: silu, secret_len: 100, resolution: 256}
    secret_decoder_config:
      target: trustmark.unet.SecretDecoder
      params: {arch: resnet50, secret_len: 100, resolution: 224}
"""


def write_checkpoints(folder: Path, variant: str = "Q", is_deep: bool = True) -> None:
    """The three files of a variant, as the package trustmark fetches them."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(7)
    depths = (3, 4, 6, 3) if is_deep else (2, 2, 2, 2)
    writer = SecretWriter(SHAPE).state_dict()
    reader = SecretReader(depths, is_deep, width=4).state_dict()
    # Of the whole training model's state, each file holds a part and some of what we do not need.
    rest = {"fixed_input": torch.tensor(False), "discriminator.conv.weight": torch.zeros(1)}
    for name, prefix, state in (
        ("encoder", "encoder.", writer),
        ("decoder", "decoder.decoder.", reader),
    ):
        content = {
            "global_step": 3,
            "epoch": 1,
            "state_dict": rest | {prefix + key: value for key, value in state.items()},
        }
        torch.save(content, folder / f"{name}_{variant}.ckpt")
    (folder / f"trustmark_{variant}.yaml").write_text(DESCRIPTION)


_FIELDS, _SIDE = 10, 256


def _texture() -> Tensor:
    """(250, 250) of -1 and 1, coarse enough to live through resizing."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.randint(0, 2, (1, 1, 50, 50), generator=generator) * 2.0 - 1
    texture = nn.functional.interpolate(coarse, size=(250, 250), mode="nearest")[0, 0]
    fields = texture.view(_FIELDS, 25, _FIELDS, 25)
    return (fields - fields.mean(dim=(1, 3), keepdim=True)).view(250, 250)


class Painter(nn.Module):
    """Pushes the texture of each field to the right side of zero, as far as it takes."""

    def forward(self, images: Tensor, secrets: Tensor) -> Tensor:
        texture = _texture()
        inside = images[:, :, 3:253, 3:253]
        wanted = (2 * secrets - 1).view(-1, _FIELDS, 1, _FIELDS, 1) * 0.035
        now = _shares(inside.mean(dim=1), texture)
        push = ((wanted - now) * wanted.sign()).clamp(0, 0.3) * wanted.sign()
        painted = images.clone()
        fields = push.expand(-1, -1, 25, -1, 25).reshape(-1, 1, 250, 250)
        painted[:, :, 3:253, 3:253] += fields * texture
        return painted


class Looker(nn.Module):
    """Says of each field on which side of zero its texture is."""

    def forward(self, images: Tensor) -> Tensor:
        whole = nn.functional.interpolate(
            images, size=(_SIDE, _SIDE), mode="bilinear", align_corners=False
        )
        return _shares(whole[:, :, 3:253, 3:253].mean(dim=1), _texture()).reshape(-1, 100)


def _shares(luma: Tensor, texture: Tensor) -> Tensor:
    fields = (luma * texture).view(-1, _FIELDS, 25, _FIELDS, 25)
    power = (texture**2).view(_FIELDS, 25, _FIELDS, 25).mean(dim=(1, 3), keepdim=True)
    return fields.mean(dim=(2, 4), keepdim=True) / power[None]

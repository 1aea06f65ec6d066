"""Reference crops as bad cameras, bad light and busy lives make them.

Training sees clean renders; at use come real selfies. Half of the crops of a batch get a strong
disturbance of colour, tone, light, sharpness, framing, compression or a covered part, so that the
identity adapter does not learn a world where every photo has the same camera.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from imagine.identity.align import BACKGROUND_GREY, head_mask

STRONG = 0.5  # share of crops that are disturbed at all
GREY = BACKGROUND_GREY / 127.5 - 1.0


def disturb_references(crops: Tensor) -> Tensor:
    """(n, 3, s, s) crops in [-1, 1] to the same shape and range; about half stay as they are."""
    chosen = torch.rand(len(crops), device=crops.device) < STRONG
    if not chosen.any():
        return crops
    unit = _reframe((crops[chosen] + 1) / 2)
    unit = _light(unit)
    unit = _colour(unit)
    unit = _cover(unit)
    unit = _soften(unit)
    unit = unit + torch.randn_like(unit) * _draw(len(unit), unit.device, 0.0, 0.04)
    unit = _compress(unit)
    disturbed = crops.clone()
    disturbed[chosen] = _masked(unit.clamp(0, 1) * 2 - 1)
    return disturbed


def soften(pictures: Tensor) -> Tensor:
    """Half of the pictures lose their finest detail; all get a little noise."""
    chosen = _chance(len(pictures), pictures.device, 0.5)
    return softened(pictures, chosen, 0.05 * torch.randn_like(pictures))


def softened(pictures: Tensor, chosen: Tensor, noise: Tensor) -> Tensor:
    """Pictures plus noise; the chosen ones, (batch, 1, 1, 1) bool, without their finest detail."""
    small = functional.avg_pool2d(pictures, 2)
    blurred = functional.interpolate(
        small, size=pictures.shape[-2:], mode="bilinear", align_corners=False
    )
    return torch.where(chosen, blurred, pictures) + noise


def _reframe(unit: Tensor) -> Tensor:
    """Landmarks that miss, other focal lengths: zoom, shift, tilt and a radial bend."""
    count, device = len(unit), unit.device
    zoom = 1.0 / _draw(count, device, 1.0, 1.1).flatten()
    tilt = _draw(count, device, -0.09, 0.09).flatten()
    shift = torch.empty(count, 2, device=device).uniform_(-0.05, 0.05)
    cosine, sine = zoom * tilt.cos(), zoom * tilt.sin()
    rows = [
        torch.stack([cosine, -sine, shift[:, 0]], 1),
        torch.stack([sine, cosine, shift[:, 1]], 1),
    ]
    grid = functional.affine_grid(torch.stack(rows, 1), list(unit.shape), align_corners=False)
    bend = torch.empty(count, 1, 1, 1, device=device).uniform_(-0.06, 0.06)
    grid = grid * (1.0 + bend * grid.square().sum(-1, keepdim=True))
    moved: Tensor = functional.grid_sample(
        unit, grid.to(unit.dtype), padding_mode="border", align_corners=False
    )
    return torch.where(_chance(count, device, 0.7), moved, unit)


def _light(unit: Tensor) -> Tensor:
    """Exposure, gamma, and in a third of the crops hard light from one side."""
    count, device = len(unit), unit.device
    unit = unit.clamp(1e-4, 1).pow(_draw(count, device, 0.7, 1.45)) * _draw(count, device, 0.8, 1.2)
    angle = _draw(count, device, 0.0, 2 * math.pi)
    axis = torch.linspace(-1, 1, unit.shape[-1], device=device)
    slope = axis.view(1, 1, 1, -1) * angle.cos() + axis.view(1, 1, -1, 1) * angle.sin()
    shade = 1.0 + torch.tanh(slope * _draw(count, device, 0.8, 4.0)) * _draw(
        count, device, 0.1, 0.55
    )
    return torch.where(_chance(count, device, 0.35), unit * shade, unit)


def _colour(unit: Tensor) -> Tensor:
    """White balance, saturation, and now and then no colour at all.

    Half of the crops stand in lamp light or shade that no camera balanced: red against blue by up
    to 1.8, as indoor photographs do.
    """
    count, device = len(unit), unit.device
    unit = unit * torch.empty(count, 3, 1, 1, device=device).uniform_(0.9, 1.1)
    warmth = _draw(count, device, -0.3, 0.3)
    lamp = torch.cat([warmth.exp(), torch.ones_like(warmth), (-warmth).exp()], dim=1)
    unit = torch.where(_chance(count, device, 0.5), unit * lamp, unit)
    grey = unit.mean(dim=1, keepdim=True)
    coloured = grey + (unit - grey) * _draw(count, device, 0.5, 1.4)
    return torch.where(_chance(count, device, 0.06), grey.expand_as(unit), coloured)


def _cover(unit: Tensor) -> Tensor:
    """In a fifth of the crops a hand or a scarf: a plain ellipse that enters from a side."""
    count, device = len(unit), unit.device
    axis = torch.linspace(-1, 1, unit.shape[-1], device=device)
    angle = _draw(count, device, 0.0, 2 * math.pi)
    reach = _draw(count, device, 0.75, 1.15)
    x = axis.view(1, 1, 1, -1) - angle.cos() * reach
    y = axis.view(1, 1, -1, 1) - angle.sin() * reach
    inside = (x / _draw(count, device, 0.2, 0.5)) ** 2 + (
        y / _draw(count, device, 0.2, 0.5)
    ) ** 2 < 1
    paint = torch.rand(count, 3, 1, 1, device=device)
    return torch.where(inside & _chance(count, device, 0.2), paint, unit)


def _soften(unit: Tensor) -> Tensor:
    """Small or shaken originals: a third of the crops lose their fine detail."""
    count, size = len(unit), unit.shape[-1]
    share = 0.4 + 0.3 * float(torch.rand(()))
    small = functional.interpolate(unit, size=max(4, int(size * share)), mode="area")
    soft = functional.interpolate(small, size=(size, size), mode="bilinear", align_corners=False)
    return torch.where(_chance(count, unit.device, 0.33), soft, unit)


def _compress(unit: Tensor) -> Tensor:
    """The 8-pixel blocks of JPEG: cosine coefficients rounded more coarsely the finer they are."""
    count, size = len(unit), unit.shape[-1]
    if size % 8:
        return unit
    basis = _cosines(str(unit.device)).to(unit.dtype)
    blocks = unit.unfold(2, 8, 8).unfold(3, 8, 8)  # (n, 3, s / 8, s / 8, 8, 8)
    step = (
        _frequencies(str(unit.device)) * _draw(count, unit.device, 0.004, 0.03)[..., None, None]
    ).to(unit.dtype)
    coefficients = basis @ blocks @ basis.T
    rebuilt = basis.T @ ((coefficients / step).round() * step) @ basis
    joined = rebuilt.permute(0, 1, 2, 4, 3, 5).reshape(unit.shape)
    return torch.where(_chance(count, unit.device, 0.4), joined, unit)


def _masked(crops: Tensor) -> Tensor:
    """Grey outside the head again: use masks after whatever the camera did."""
    mask = _head(crops.shape[-1], str(crops.device))
    return crops * mask + GREY * (1.0 - mask)


@lru_cache
def _head(size: int, device: str) -> Tensor:
    return torch.from_numpy(head_mask(size)).reshape(1, 1, size, size).float().to(device)


@lru_cache
def _cosines(device: str) -> Tensor:
    """(8, 8) orthonormal cosine transform."""
    place, frequency = torch.arange(8.0), torch.arange(8.0)[:, None]
    rows = torch.cos(math.pi * (2 * place + 1) * frequency / 16) * math.sqrt(0.25)
    rows[0] = math.sqrt(0.125)
    return rows.to(device)


@lru_cache
def _frequencies(device: str) -> Tensor:
    """(8, 8) how coarsely each coefficient is rounded, 1 for the mean."""
    order = torch.arange(8.0)
    return (1.0 + 1.2 * (order[:, None] + order[None])).to(device)


def _draw(count: int, device: torch.device, low: float, high: float) -> Tensor:
    return torch.empty(count, 1, 1, 1, device=device).uniform_(low, high)


def _chance(count: int, device: torch.device, share: float) -> Tensor:
    return torch.rand(count, 1, 1, 1, device=device) < share

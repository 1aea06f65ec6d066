"""Draws finished pictures again with trained models: the attack that watermarks fear most.

Somebody who wants to be rid of a mark lets a model paint the same picture anew. Two models do it
here: the shipped denoiser, from several noise levels down, without being told what it sees; and a
small autoencoder that is taught for some minutes. The report of the watermark takes all of it:

CPU:  python -m imagine.provenance.watermark_report --regenerate training.regeneration:redrawing
          --people runs/people --write docs/watermark.md

The autoencoder needs renders, for which `--people` names a folder of shards; without them it is
left out, and the report says so by not having its row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from imagine.backends.embedded import MODEL_FOLDER
from imagine.core import ImageArray
from imagine.models.denoiser import Conditioning, Denoiser
from imagine.settings import Settings
from training.latents_probe import make_autoencoder
from training.people.ceiling import DlibFaces

SIDE = 128
SIGMAS = (0.05, 0.1, 0.2, 0.3, 0.5)
STEPS = 6
PICTURES = 32
TEACHING_STEPS = 1200  # of 16 pictures; two minutes of a quiet core
Redraw = Callable[[Image.Image, np.random.Generator], Image.Image]


@dataclass(frozen=True)
class Redrawing:
    """What the report asks for.

    Attributes:
        attacks: what is done to a marked picture, by name; they give the same size back.
        pictures: unmarked ones to try it on, (128, 128, 3) uint8.
        distance: between the faces of two pictures, 0.6 and less being the same person; None
            where no face is found.
        says: in a sentence, what these pictures and attacks are.
    """

    attacks: Mapping[str, Redraw]
    pictures: Sequence[ImageArray] = field(repr=False)
    distance: Callable[[ImageArray, ImageArray], float | None]
    says: str


def redrawing(people: Path | None = None) -> Redrawing:
    """The shipped denoiser at every level of `SIGMAS`, and an autoencoder where there are renders.

    Args:
        people: a folder of shards of renders, 128 pixels; their first people are the pictures.
            None takes the selfies in assets.

    Raises:
        OSError: the model or the pictures are not there.
    """
    folder = Settings().assets_directory / "models" / MODEL_FOLDER / "denoiser"
    denoiser = Denoiser.from_pretrained(folder, torch_dtype=torch.float32, low_cpu_mem_usage=False)
    painter = _Painter(denoiser.eval())
    attacks: dict[str, Redraw] = {
        f"shipped model, noise {sigma:g}": painter.at(sigma) for sigma in SIGMAS
    }
    if people is not None:
        coder = taught_autoencoder(people)
        attacks["small autoencoder"] = lambda picture, rng: _through(coder, picture)
    faces = DlibFaces()

    def distance(before: ImageArray, after: ImageArray) -> float | None:
        seen = [faces.describe(np.ascontiguousarray(one)) for one in (before, after)]
        if seen[0] is None or seen[1] is None:
            return None
        return float(np.linalg.norm(seen[0][0] - seen[1][0]))

    says = (
        f"Pictures of people who do not exist, {SIDE} pixels a side. The shipped model gets the\n"
        f"marked picture with so much of it replaced by noise, nothing else, and takes {STEPS}\n"
        "steps back."
    )
    return Redrawing(attacks, _pictures(people), distance, says)


class _Painter:
    """The denoiser without prompt and without a person."""

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser
        none = torch.zeros(1, 0, int(denoiser.config.text_width))
        nobody = torch.zeros(1, 0, int(denoiser.config.identity_width))
        masks = torch.zeros(1, 0, dtype=torch.bool)
        with torch.inference_mode():
            self._nothing: Conditioning = denoiser.condition(
                none, masks, nobody, masks, torch.ones(1)
            )

    def at(self, sigma: float) -> Redraw:
        """An attack from this noise level, 0 to 1, down."""

        def redraw(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
            clean = _tensor(picture)
            noise = torch.from_numpy(rng.standard_normal(clean.shape).astype(np.float32))
            seen = (1 - sigma) * clean + sigma * noise
            levels = np.linspace(sigma, 0, STEPS + 1)
            with torch.inference_mode():
                for level, below in pairwise(levels):
                    level_now = torch.tensor([level], dtype=torch.float32)
                    guess = self._denoiser(seen, level_now, self._nothing).clamp(-1, 1)
                    seen = seen.lerp(guess, float(1 - below / level))
            return _picture(seen, picture.size)

        return redraw


def taught_autoencoder(people: Path, steps: int = TEACHING_STEPS) -> AutoencoderTiny:
    """An autoencoder that packs 128 pixels into 16 x 16 x 4 numbers, taught on renders.

    Raises:
        OSError: there are no shards in the folder.
    """
    shards = [np.load(path, mmap_mode="r") for path in sorted(people.glob("shard-*.npy"))]
    if not shards:
        raise OSError(f"There are no shards of renders in {people}. Make them or leave it out.")
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    model = make_autoencoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    for step in range(steps):
        shard = shards[int(random.integers(len(shards)))]
        # The first half of each shard are other people than those it is tried on.
        rows = random.integers(len(shard) // 2, len(shard), size=16)
        images = torch.from_numpy(np.stack([shard[int(row)] for row in rows]))
        images = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        rebuilt = model.decode(model.encode(images).latents).sample
        loss = functional.l1_loss(rebuilt, images)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * max(0.02, 1.0 - step / steps)
    return model.eval()


def _through(model: AutoencoderTiny, picture: Image.Image) -> Image.Image:
    with torch.inference_mode():
        rebuilt = model.decode(model.encode(_tensor(picture)).latents).sample
    return _picture(rebuilt, picture.size)


def _pictures(people: Path | None) -> list[ImageArray]:
    if people is not None:
        shards = sorted(people.glob("shard-*.npy"))
        if shards:
            loaded = [np.load(path, mmap_mode="r") for path in shards]
            rows = range(0, 8 * PICTURES, 8)  # eight photos a person
            return [np.array(loaded[i % len(loaded)][row]) for i, row in enumerate(rows)]
    places = sorted((Settings().assets_directory / "people").glob("*/*.jpg"))
    small = [Image.open(place).convert("RGB").resize((SIDE, SIDE)) for place in places]
    return [np.asarray(one) for one in small]


def _tensor(picture: Image.Image) -> Tensor:
    """(1, 3, 128, 128) in [-1, 1]."""
    small = np.array(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), np.float32)
    return torch.from_numpy(small).permute(2, 0, 1)[None] / 127.5 - 1


def _picture(tensor: Tensor, size: tuple[int, int]) -> Image.Image:
    array: NDArray[np.uint8] = (
        tensor[0].clamp(-1, 1).add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy()
    )
    return Image.fromarray(array).resize(size, Image.Resampling.BICUBIC)

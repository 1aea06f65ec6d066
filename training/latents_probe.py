"""How much of a face survives the latents a small autoencoder learns in a few minutes?

Answers "pixels or latents" for the embedded model: trains an `AutoencoderTiny` of 0.6 million
parameters for some minutes and reports what a recogniser thinks of photos that went through it.

CPU:  python -m training.latents_probe --data runs/people --minutes 3
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch.nn import functional

from training.clock import Stopwatch
from training.datasets import to_unit_range
from training.people.cache import PhotoCache
from training.people.ceiling import DlibFaces

JUDGED = 60


def make_autoencoder() -> AutoencoderTiny:
    """8x smaller, 4 channels, 32 wide: 64 patches of two latent pixels at 128 pixels."""
    return AutoencoderTiny(
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        latent_channels=4,
    )


def main() -> None:
    """Train, judge, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("runs/people"))
    parser.add_argument("--minutes", type=float, default=3.0)
    arguments = parser.parse_args()
    cache = PhotoCache(arguments.data)
    random = np.random.default_rng(0)
    model = make_autoencoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    watch, seen = Stopwatch(arguments.minutes * 60), 0
    while not watch.is_over:
        rows = random.integers(JUDGED * 8, len(cache), size=16)
        images = to_unit_range(np.stack([cache.image(int(row)) for row in rows]))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rebuilt = model.decode(model.encode(images).latents).sample
        error = functional.l1_loss(rebuilt.float(), images)
        error.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * max(0.02, 1.0 - watch.progress)
        seen += len(rows)
    print(json.dumps({"images": seen, "seconds": round(watch.elapsed)} | judge(model, cache)))


@torch.inference_mode()
def judge(model: AutoencoderTiny, cache: PhotoCache) -> dict[str, float]:
    """Rebuilt photos the autoencoder never saw: signal-to-noise, faces found, distance moved."""
    faces = DlibFaces()
    errors, found, moved = [], 0, []
    for row in range(0, JUDGED * 8, 8):
        image = np.array(cache.image(row))
        rebuilt = model.decode(model.encode(to_unit_range(image[None])).latents).sample[0]
        pixels = (rebuilt.clamp(-1, 1) + 1).mul(127.5).round().byte().permute(1, 2, 0).numpy()
        errors.append(float(np.square(pixels.astype(float) - image).mean()))
        before, after = faces.describe(image), faces.describe(np.ascontiguousarray(pixels))
        found += after is not None
        if before is not None and after is not None:
            moved.append(float(np.linalg.norm(before[0] - after[0])))
    return {
        "psnr_db": round(float(10 * np.log10(255**2 / np.mean(errors))), 1),
        "face_found": round(found / JUDGED, 3),
        "distance_to_itself": round(float(np.mean(moved)), 3),
    }


if __name__ == "__main__":
    main()

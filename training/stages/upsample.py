"""Last step: a network that doubles the size of the denoiser's pictures, looking at the person.

Wants an exported model and a cache of photos of the full size (never of held-out people):
      python -m training.people.cache --out runs/people-256 --people 1024 --photos 4 --size 256
GPU:  python -m training.stages.upsample --device cuda --model runs/export --minutes 6 --compile
CPU:  python -m training.stages.upsample --model runs/export --minutes 2
Estimates that are missing are made first and take at most a third of the minutes. `--export`
adds the upsampler to a model's folder. Running it again goes on where it stopped.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from imagine.backends.embedded import save_upsampler
from imagine.backends.weight_files import OWN_MODELS
from imagine.models.face_recogniser import FaceRecogniser
from imagine.models.identity_adapter import IdentityAdapter
from imagine.models.upsampler import Upsampler
from training.clock import Stopwatch
from training.disturb import disturb_references
from training.estimates import base_revision, make_estimates
from training.recogniser import load_recogniser
from training.side_networks import (
    NetworkState,
    SideTraining,
    add_arguments,
    resumed,
    with_initial_rates,
)
from training.upsampling import UpsamplingBatch, UpsamplingPhotos, upsampling_loss

logger = logging.getLogger(__name__)

UPSAMPLER_SIZES: dict[str, tuple[int, int, int]] = {
    "mini": (64, 128, 192),
    "tiny": (16, 16, 16),
}
NOBODY_SHARE = 0.1  # of the windows come without tokens, as pictures of nobody in particular do
ESTIMATE_SHARE = 1 / 3  # of the minutes at most go into missing estimates
SHEET_PHOTOS = 6


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    defaults = {"data": Path("runs/people-256"), "minutes": 2.0, "batch_size": 16, "rate": 8e-4}
    add_arguments(parser, UPSAMPLER_SIZES, defaults)
    parser.add_argument("--decay", type=float, default=0.5, help="last share, rate goes to 0")
    parser.add_argument("--recogniser", type=Path, default=None, help="adds how faces are seen")
    parser.add_argument("--likeness-weight", type=float, default=0.1)
    parser.add_argument("--compile", action="store_true", help="torch.compile the upsampler")
    return parser.parse_args()


def run_stage(arguments: argparse.Namespace) -> None:
    """Make what estimates are missing, then train from the newest checkpoint or from nothing."""
    torch.manual_seed(arguments.seed)
    arguments.run.mkdir(parents=True, exist_ok=True)
    watch = Stopwatch(arguments.minutes * 60)
    made = make_estimates(arguments.data, arguments.model, ESTIMATE_SHARE * arguments.minutes)
    logger.info("%d shards of estimates added in %.0f s", made, watch.elapsed)
    photos = UpsamplingPhotos(
        arguments.data,
        base_revision(arguments.model),
        arguments.device,
        arguments.seed + int(time.time()),
    )
    logger.info("%d photos of %d people", len(photos), photos.person_count)
    adapter = IdentityAdapter.from_pretrained(arguments.model / "identity_adapter", **OWN_MODELS)
    adapter = adapter.to(arguments.device).eval().requires_grad_(False)
    width = int(cast("Any", adapter.config).width)
    state = load_state(arguments.run, arguments.size, width, arguments.device)
    left = max(1.0, watch.budget_seconds - watch.elapsed)
    _Training(arguments, state, photos, adapter).run(Stopwatch(left))
    if arguments.export:
        save_upsampler(arguments.export, state.averaged)
        logger.info("exported to %s", arguments.export)


class _Training(SideTraining[Upsampler]):
    stage, unit = "upsample", "windows"

    def __init__(
        self,
        arguments: argparse.Namespace,
        state: NetworkState[Upsampler],
        photos: UpsamplingPhotos,
        adapter: IdentityAdapter,
    ) -> None:
        optimizer = make_optimizer(state.network, arguments.learning_rate)
        super().__init__(arguments, state, optimizer, averaging=0.998)
        self.photos, self.adapter = photos, adapter
        self.recogniser: FaceRecogniser | None = None
        if arguments.recogniser:
            self.recogniser = load_recogniser(arguments.recogniser, arguments.device)
        self.forward = torch.compile(state.network) if arguments.compile else state.network

    def loss(self) -> tuple[Tensor, int]:
        batch = self.photos.sample(self.batch_size)
        tokens = encode(self.adapter, disturb_references(batch.crops), len(batch.small))
        shown = torch.rand(len(tokens), device=tokens.device) >= NOBODY_SHARE
        drawn = self.forward(batch.small, tokens, shown[:, None].expand(tokens.shape[:2]))
        weight = self.arguments.likeness_weight
        return upsampling_loss(drawn.float(), batch, self.recogniser, weight), len(batch.small)

    def measured(self) -> dict[str, float]:
        figures = measure(self.state.averaged, self.photos, self.adapter)
        return {"photos": len(self.photos), **figures}

    def write_sheet(self) -> None:
        write_sheet(self.arguments.run, self.state, self.photos, self.adapter)


@torch.no_grad()
def encode(adapter: IdentityAdapter, crops: Tensor, rows: int) -> Tensor:
    """(rows * references, 3, s, s) crops to (rows, references * tokens, width)."""
    tokens: Tensor = adapter(crops)
    return tokens.reshape(rows, -1, tokens.shape[2])


def make_optimizer(upsampler: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW; the identity gates, which start at zero, learn ten times faster (training/LOG.md)."""
    gates: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in upsampler.named_parameters():
        (gates if name.endswith("identity_gate") else others).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": others},
        {"params": gates, "lr": 10 * learning_rate},
    ]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    return with_initial_rates(optimizer)


def load_state(run: Path, size: str, identity_width: int, device: str) -> NetworkState[Upsampler]:
    """The newest checkpoint of a run, or a fresh upsampler."""
    fresh = Upsampler(widths=UPSAMPLER_SIZES[size], identity_width=identity_width)
    return resumed(run, "upsampler", fresh.to(device))


@torch.inference_mode()
def measure(
    upsampler: Upsampler, photos: UpsamplingPhotos, adapter: IdentityAdapter
) -> dict[str, float]:
    """PSNR in dB against bicubic enlargement, on photos of people not trained on.

    Of shrunk photos and of estimates; the latter with their own person, with the tokens of
    somebody else and with nobody, which says what the identity tokens are good for.
    """
    figures: dict[str, float] = {}
    chosen = photos.kept_back[:96]
    for name, plain in (("shrunk", True), ("estimate", False)):
        errors: dict[str, list[float]] = {}
        for start in range(0, len(chosen), 16):
            batch = photos.whole(chosen[start : start + 16], plain=plain)
            tokens = encode(adapter, batch.crops, len(batch.small))
            shown = {
                "bicubic": None,
                "upsampled": tokens,
                "upsampled_stranger": tokens.roll(len(tokens) // 2, 0),
                "upsampled_nobody": tokens[:, :0],
            }
            for kind, given in shown.items():
                drawn = (
                    enlarge_plainly(batch.small) if given is None else upsampler(batch.small, given)
                )
                error = (drawn.clamp(-1, 1) - batch.large).square()
                errors.setdefault(kind, []).extend(error.mean((1, 2, 3)).tolist())
                errors.setdefault(f"{kind}_eyes", []).extend(_eye_errors(error, batch))
        for kind, values in errors.items():
            psnr = -10 * np.log10(np.array(values) / 4 + 1e-10)
            figures[f"psnr_{name}_{kind}"] = round(float(psnr.mean()), 2)
    return figures


def _eye_errors(error: Tensor, batch: UpsamplingBatch) -> list[float]:
    eyes = (batch.weights == batch.weights.amax((1, 2, 3), keepdim=True)).float()
    return cast(
        "list[float]", ((error.mean(1, True) * eyes).sum((1, 2, 3)) / eyes.sum((1, 2, 3))).tolist()
    )


def enlarge_plainly(images: Tensor) -> Tensor:
    """Bicubic, as what the upsampler adds to."""
    return functional.interpolate(images, scale_factor=2, mode="bicubic", align_corners=False)


@torch.inference_mode()
def write_sheet(
    run: Path, state: NetworkState[Upsampler], photos: UpsamplingPhotos, adapter: IdentityAdapter
) -> None:
    """Bicubic, upsampled and true photos of people not trained on, one person a row, as PNG."""
    batch = photos.whole(photos.kept_back[: 4 * SHEET_PHOTOS : 4], plain=False)
    tokens = encode(adapter, batch.crops, len(batch.small))
    columns = [enlarge_plainly(batch.small), state.averaged(batch.small, tokens), batch.large]
    rows = torch.cat(columns, dim=3).permute(0, 2, 3, 1).flatten(0, 1)
    pixels = (rows.clamp(-1, 1) + 1).mul(127.5).round().byte().cpu().numpy()
    Image.fromarray(pixels).save(run / f"upsampler-sheet-{state.images_seen:08d}.png")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run_stage(parse_arguments())

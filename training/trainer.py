"""The training loop every stage shares: optimisers, averages, checkpoints, sheets, a log line.

A stage says what to draw (`StageRecipe`) and for how long; everything else is here. The loop stops
by the clock, so the same command is right for two cores and for a big GPU, or by a count of
pictures, so that recipes can be compared.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from imagine.backends.embedded import EmbeddedBackend, save_model
from imagine.backends.minilm import load_text_encoder
from imagine.models.denoiser import Denoiser
from imagine.models.face_recogniser import FaceRecogniser
from imagine.models.identity_adapter import IdentityAdapter
from training.checkpoints import load_exported, save_whole
from training.clock import Stopwatch
from training.critic import CriticTraining
from training.datasets import MAX_TEXT_TOKENS, Batch, PairedPhotos
from training.disturb import disturb_references
from training.losses import flow_matching_loss, sample_sigmas
from training.recogniser import likeness_loss, load_recogniser
from training.rewards import Teachers, draw_estimate

logger = logging.getLogger(__name__)

MODEL_SIZES: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    # name -> (denoiser, identity adapter)
    "mini": (
        {"width": 256, "depth": 8, "heads": 4, "identity_width": 192, "bottleneck": 128},
        {"width": 192, "depth": 4, "heads": 3, "bottleneck": 96},
    ),
    "base": (
        {"width": 320, "depth": 8, "heads": 5, "identity_width": 256, "bottleneck": 160},
        {"width": 256, "depth": 4, "heads": 4, "bottleneck": 128},
    ),
    "tiny": (
        {"width": 64, "depth": 2, "heads": 2, "identity_width": 64, "bottleneck": 32},
        {"width": 64, "depth": 1, "heads": 2, "bottleneck": 32},
    ),
}


@dataclass(frozen=True)
class StageRecipe:
    """What one of the four stages draws.

    Attributes:
        name: for logs and folders.
        same_photo: share of rows conditioned on the very photo they must draw.
        high_quality: only large frontal faces as targets.
        learning_rate: peak of the schedule.
    """

    name: str
    same_photo: float
    high_quality: bool
    learning_rate: float


@dataclass
class TrainingState:
    """All that a checkpoint holds."""

    denoiser: Denoiser
    adapter: IdentityAdapter
    averaged_denoiser: Denoiser
    averaged_adapter: IdentityAdapter
    step: int = 0
    images_seen: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)


def parse_arguments(
    recipe: StageRecipe, description: str | None, words: Sequence[str] | None = None
) -> argparse.Namespace:
    """The command line all stages share; `words` in its place where a stage is called by name."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, default=Path("runs/people"), help="photo cache")
    parser.add_argument("--run", type=Path, default=Path("runs/imagine-mini"), help="checkpoints")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--pictures", type=int, default=None, help="stop by count, not by clock")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch-size", type=int, default=None, help="48 on cpu, 512 on cuda")
    parser.add_argument("--model", choices=sorted(MODEL_SIZES), default="mini")
    parser.add_argument("--learning-rate", type=float, default=recipe.learning_rate)
    parser.add_argument("--sheet-minutes", type=float, default=10.0)
    parser.add_argument("--warm-start", type=float, default=0.02, help="share spent warming up")
    parser.add_argument("--decay", type=float, default=0.3, help="last share, rate goes to 0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--same-photo", type=float, default=recipe.same_photo)
    parser.add_argument("--recogniser", type=Path, default=None, help="adds the likeness loss")
    parser.add_argument("--likeness-weight", type=float, default=0.3)
    parser.add_argument(
        "--rewarded", type=int, default=0, help="rows of a batch that are drawn and rewarded"
    )
    parser.add_argument(
        "--reward-recognisers", type=Path, nargs="+", default=[], help="who tell people apart"
    )
    parser.add_argument("--attribute-teacher", type=Path, default=None, help="who reads wishes")
    parser.add_argument(
        "--critic-weight", type=float, default=0.0, help="of drawn rows passing as photos"
    )
    parser.add_argument("--start-from", type=Path, default=None, help="exported model, new run")
    parser.add_argument("--export", type=Path, default=None, help="folder for the averaged model")
    parser.add_argument("--compile", action="store_true", help="torch.compile the denoiser")
    return parser.parse_args(words)


def run_stage(recipe: StageRecipe, description: str | None = None) -> None:
    """Train one stage from the command line and export it where asked."""
    arguments = parse_arguments(recipe, description)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    state = train_stage(recipe, arguments)
    if arguments.export:
        save_model(arguments.export, state.averaged_denoiser, state.averaged_adapter)
        logger.info("exported to %s", arguments.export)


def train_stage(
    recipe: StageRecipe,
    arguments: argparse.Namespace,
    prepare: Callable[[TrainingState], object] = lambda state: None,
) -> TrainingState:
    """Train one stage from the newest checkpoint of the run, or from nothing.

    Args:
        recipe: what the stage draws.
        arguments: of `parse_arguments`.
        prepare: called with the state before the first step.
    """
    torch.manual_seed(arguments.seed)
    device = arguments.device
    batch_size = arguments.batch_size or (512 if device == "cuda" else 48)
    arguments.run.mkdir(parents=True, exist_ok=True)
    encoder = load_text_encoder(device)
    photos = PairedPhotos(arguments.data, encoder, device, arguments.seed + int(time.time()))
    logger.info("%d photos of %d people", len(photos), photos.person_count)
    state = load_state(arguments.run, arguments.model, device, arguments.start_from)
    prepare(state)
    _Loop(arguments, recipe, state, photos, batch_size).run()
    return state


class _Loop:
    def __init__(
        self,
        arguments: argparse.Namespace,
        recipe: StageRecipe,
        state: TrainingState,
        photos: PairedPhotos,
        batch_size: int,
    ) -> None:
        self.arguments, self.recipe, self.state, self.photos = arguments, recipe, state, photos
        self.batch_size = batch_size
        self.optimizers = make_optimizers(state.denoiser, state.adapter, arguments.learning_rate)
        recogniser = None
        if arguments.recogniser:
            recogniser = load_recogniser(arguments.recogniser, arguments.device)
        self.teachers: Teachers | None = None
        if arguments.rewarded:
            self.teachers = Teachers.load(
                arguments.reward_recognisers, arguments.attribute_teacher, photos, arguments.device
            )
        self.critic: CriticTraining | None = None
        if arguments.rewarded and arguments.critic_weight:
            self.critic = CriticTraining(arguments.device, arguments.run / "critic.pt")
        self.random = np.random.default_rng(arguments.seed)
        self.loss_function: Callable[[Batch], Tensor] = lambda batch: training_loss(
            state.denoiser, state.adapter, batch, recogniser, arguments.likeness_weight
        )
        if arguments.compile:
            for part, name in (
                (state.denoiser, "forward"),
                (state.denoiser, "condition"),
                (state.adapter, "forward"),
            ):
                setattr(part, name, torch.compile(getattr(part, name), dynamic=True))

    def run(self) -> None:
        arguments, state = self.arguments, self.state
        watch = Stopwatch(arguments.minutes * 60)
        last_sheet = last_save = 0.0
        bar = tqdm(
            total=round(watch.budget_seconds), unit="s", desc=self.recipe.name, mininterval=5
        )
        first_images = state.images_seen
        while (progress := self._progress(watch, first_images)) < 1.0:
            loss = self._step(progress)
            state.losses.append((state.images_seen, loss))
            rate = (state.images_seen - first_images) / watch.elapsed
            bar.set_postfix_str(f"loss {loss:.4f}, {rate:.1f} images/s, step {state.step}")
            bar.update(round(watch.elapsed) - bar.n)
            if watch.elapsed - last_save > 120:
                self._save()
                if self.teachers is None:  # who know the people of the beginning only
                    self.photos.refresh(max_new=4)
                last_save = watch.elapsed
            if watch.elapsed - last_sheet > arguments.sheet_minutes * 60:
                write_sheet(arguments.run, state, self.photos, arguments.device)
                last_sheet = watch.elapsed
        bar.close()
        self._save()
        write_sheet(arguments.run, state, self.photos, arguments.device)
        self._log(state.images_seen - first_images, watch.elapsed)

    def _save(self) -> None:
        save_state(self.arguments.run, self.state)
        if self.critic is not None:
            self.critic.save()

    def _progress(self, watch: Stopwatch, first_images: int) -> float:
        if self.arguments.pictures is None:
            return watch.progress
        drawn = self.state.images_seen - first_images
        return min(1.0, drawn / int(self.arguments.pictures))

    def _step(self, progress: float) -> float:
        state = self.state
        factor = schedule(progress, self.arguments.warm_start, self.arguments.decay)
        batch = self.photos.sample(
            self.batch_size,
            same_photo=self.arguments.same_photo,
            high_quality=self.recipe.high_quality,
        )
        # No cache: a weight cast where no gradient is kept must not serve where one is.
        with torch.autocast(self.arguments.device, dtype=torch.bfloat16, cache_enabled=False):
            loss = self.loss_function(batch)
            if self.teachers is not None:
                loss = loss + self._reward_loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [*state.denoiser.parameters(), *state.adapter.parameters()]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        state.step += 1
        state.images_seen += self.batch_size
        decay = min(0.9985, (1 + state.step) / (10 + state.step))
        update_average(state.averaged_denoiser, state.denoiser, decay)
        update_average(state.averaged_adapter, state.adapter, decay)
        return float(loss.detach())

    def _reward_loss(self, batch: Batch) -> Tensor:
        assert self.teachers is not None
        rows = slice(0, self.arguments.rewarded)
        estimate = drawn_estimate(self.state.denoiser, self.state.adapter, batch, rows, self.random)
        thetas = batch.thetas[rows]
        loss = self.teachers.loss(estimate, thetas, batch.records[rows])
        if self.critic is not None:
            passing = self.critic.loss(estimate, batch.images[rows], thetas)
            loss = loss + self.arguments.critic_weight * passing
        return loss

    def _log(self, images: int, seconds: float) -> None:
        peak = measure_matmul_peak(self.arguments.device)
        adapter = self.state.adapter
        forward = denoiser_flops(self.state.denoiser, MAX_TEXT_TOKENS, 2 * adapter.tokens_per_photo)
        used = 3.0 * forward * images / seconds  # forward and backward, identity adapter left out
        line = {
            "stage": self.recipe.name,
            "device": self.arguments.device,
            "seconds": round(seconds),
            "images": images,
            "images_per_second": round(images / seconds, 1),
            "people": self.photos.person_count,
            "photos": len(self.photos),
            "loss": round(float(np.mean([loss for _, loss in self.state.losses[-50:]])), 5),
            "step": self.state.step,
            "denoiser_tflops_per_second": round(used / 1e12, 3),
            "share_of_matmul_peak": round(used / peak, 3),
        }
        with (self.arguments.run / "stages.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        logger.info("%s", json.dumps(line))


def training_loss(
    denoiser: Denoiser,
    adapter: IdentityAdapter,
    batch: Batch,
    recogniser: FaceRecogniser | None = None,
    likeness_weight: float = 0.0,
) -> Tensor:
    """Loss of one batch, with prompt and person dropped at times for guidance."""
    device = batch.images.device
    rows = len(batch.images)
    identity_tokens, identity_mask = gather_identity(adapter, batch)
    dropped = torch.rand(rows, device=device)
    text_mask = batch.text_mask & ~((dropped < 0.08) | (dropped > 0.96))[:, None]
    identity_mask = identity_mask & ~(dropped > 0.88)[:, None]
    conditioning = denoiser.condition(
        batch.text_tokens,
        text_mask,
        identity_tokens,
        identity_mask,
        torch.ones(rows, device=device),
    )
    sigmas = sample_sigmas(rows, str(device))
    mixed = sigmas[:, None, None, None]
    noisy = (1 - mixed) * batch.images + mixed * torch.randn_like(batch.images)
    prediction = denoiser(noisy, sigmas, conditioning)
    loss = flow_matching_loss(prediction, batch.images, sigmas, batch.face_weights)
    if recogniser is not None:
        likeness = likeness_loss(recogniser, prediction, batch.images, batch.thetas, sigmas)
        loss = loss + likeness_weight * likeness
    return loss


def drawn_estimate(
    denoiser: Denoiser,
    adapter: IdentityAdapter,
    batch: Batch,
    rows: slice,
    random: np.random.Generator,
) -> Tensor:
    """Rows of a batch drawn as the product draws, see `training.rewards.draw_estimate`."""
    identity_tokens, identity_mask = gather_identity(adapter, _rows_of(batch, rows))
    text, text_mask = batch.text_tokens[rows], batch.text_mask[rows]
    weight = torch.ones(len(text), device=text.device)
    both = denoiser.condition(text, text_mask, identity_tokens, identity_mask, weight)
    with torch.no_grad():
        nobody = torch.zeros_like(identity_mask)
        alone = denoiser.condition(text, text_mask, identity_tokens, nobody, weight)
        silent = torch.zeros_like(text_mask)
        nothing = denoiser.condition(text, silent, identity_tokens, nobody, weight)
    return draw_estimate(denoiser, batch.images[rows], both, alone, nothing, random)


def _rows_of(batch: Batch, rows: slice) -> Batch:
    """Some rows and only the crops that they need."""
    owners = batch.crop_owner[rows]
    crops = batch.crops[: int(owners.max()) + 1]  # numbered in the order of the rows
    return dataclasses.replace(batch, crops=crops, crop_owner=owners)


def gather_identity(adapter: IdentityAdapter, batch: Batch) -> tuple[Tensor, Tensor]:
    """Encode every reference once and lay the tokens out per row.

    Returns:
        (batch, photos * tokens_per_photo, width) tokens and their (batch, ...) bool mask.
    """
    tokens = adapter(disturb_references(batch.crops))
    present = batch.crop_owner >= 0
    laid_out = tokens[batch.crop_owner.clamp_min(0)].flatten(1, 2)
    return laid_out, present.repeat_interleave(tokens.shape[1], dim=1)


def schedule(progress: float, warm: float, decay: float) -> float:
    """Learning-rate factor at a share of the time: up, flat, then down to zero."""
    if progress < warm:
        return max(0.02, progress / warm)
    return min(1.0, max(0.0, (1.0 - progress) / decay))


def make_optimizers(
    denoiser: nn.Module, adapter: nn.Module, learning_rate: float
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside blocks, AdamW for everything else.

    The gates of the identity branch, which start at zero, learn ten times faster: at the common
    rate they stood at 0.01 after 300 steps and the person had no influence (training/LOG.md).
    """
    matrices: list[nn.Parameter] = []
    gates: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module in (denoiser, adapter):
        for name, parameter in module.named_parameters():
            if name.endswith("identity_gate"):
                gates.append(parameter)
            elif parameter.ndim == 2 and "blocks." in name and "modulation" not in name:
                matrices.append(parameter)
            else:
                others.append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": others},
        {"params": gates, "lr": 10 * learning_rate},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(
            matrices, lr=learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(
            groups,
            lr=learning_rate,
            betas=(0.9, 0.95),
            weight_decay=0.0,
            fused=True,
        ),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


@torch.no_grad()
def update_average(averaged: nn.Module, current: nn.Module, decay: float) -> None:
    """Move the exponential moving average one step."""
    torch._foreach_lerp_(
        list(averaged.parameters()), list(current.parameters()), weight=1.0 - decay
    )


def load_state(run: Path, model: str, device: str, start_from: Path | None = None) -> TrainingState:
    """The newest checkpoint of a run; without one an exported model, or a fresh one."""
    if start_from is not None and not (run / "checkpoint.pt").exists():
        denoiser, adapter = (part.to(device) for part in load_exported(start_from))
    else:
        denoiser_config, adapter_config = MODEL_SIZES[model]
        denoiser = Denoiser(**denoiser_config).to(device)
        adapter = IdentityAdapter(**adapter_config).to(device)
    state = TrainingState(
        denoiser,
        adapter,
        copy.deepcopy(denoiser).requires_grad_(False),
        copy.deepcopy(adapter).requires_grad_(False),
    )
    path = run / "checkpoint.pt"
    if path.exists():
        stored = torch.load(path, map_location=device, weights_only=True)
        for name in ("denoiser", "adapter", "averaged_denoiser", "averaged_adapter"):
            getattr(state, name).load_state_dict(stored[name])
        state.step, state.images_seen = stored["step"], stored["images_seen"]
        state.losses = [tuple(entry) for entry in stored["losses"]]
        logger.info("resumed at step %d, %d images", state.step, state.images_seen)
    return state


def save_state(run: Path, state: TrainingState) -> None:
    """Write a checkpoint, whole or not at all."""
    stored: dict[str, Any] = {
        name: getattr(state, name).state_dict()
        for name in ("denoiser", "adapter", "averaged_denoiser", "averaged_adapter")
    }
    stored |= {"step": state.step, "images_seen": state.images_seen, "losses": state.losses}
    save_whole(run / "checkpoint.pt", stored)


SHEET_PROMPTS = (
    "a portrait of a person smiling in a forest",
    "me in a city street at night, surprised",
    "a close-up photo of me wearing glasses in a studio",
    "a black and white photo of me, serious, in a park",
)


def write_sheet(run: Path, state: TrainingState, photos: PairedPhotos, device: str) -> None:
    """Sample sheet (reference crop, then one picture per prompt) and loss plot, as PNG."""
    backend = EmbeddedBackend(
        state.averaged_denoiser, state.averaged_adapter, photos.text_encoder, device=device
    )
    rows = []
    for crop in photos.reference_examples(6):
        pictures = [np.asarray(Image.fromarray(crop).resize((128, 128)))]
        for seed, prompt in enumerate(SHEET_PROMPTS):
            pictures.append(backend.draw(prompt, crop[None], seed=seed))
        rows.append(np.concatenate(pictures, axis=1))
    Image.fromarray(np.concatenate(rows)).save(run / f"sheet-{state.images_seen:08d}.png")
    plot_losses(run / "loss.png", state.losses)


def plot_losses(path: Path, losses: list[tuple[int, float]]) -> None:
    """Loss against images seen, smoothed by a running mean."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    values = np.array(losses, dtype=np.float64)
    window = max(1, min(len(values) // 20, 100))
    smooth = np.convolve(values[:, 1], np.ones(window) / window, mode="valid")
    figure, axes = pyplot.subplots(figsize=(7, 4))
    axes.plot(values[window - 1 :, 0], smooth)
    axes.set(xlabel="images seen", ylabel="loss", yscale="log")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def denoiser_flops(denoiser: Denoiser, text_tokens: int, identity_tokens: int) -> float:
    """Multiply-adds times two of one forward pass of one row."""
    config = cast("Any", denoiser.config)
    tokens = (config.image_size // config.patch_size) ** 2
    width, depth, kernel = config.width, config.depth, config.patch_size * 3 // 2
    per_token = depth * 14 * width * width + 2 * 3 * kernel * kernel * width
    sources = (
        depth
        * 2
        * width
        * (text_tokens * config.text_width + identity_tokens * config.identity_width)
    )
    attention = depth * 2 * tokens * (tokens + text_tokens + identity_tokens) * width
    return float(2 * (tokens * per_token + sources + attention))


def measure_matmul_peak(device: str, size: int = 8192, repeats: int = 20) -> float:
    """Best bf16 matrix product of this device, FLOP/s, on random data."""
    size = size if device == "cuda" else 2048
    left = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    right = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    best = math.inf
    for _ in range(repeats):
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best


__all__ = ["StageRecipe", "run_stage"]

"""Last step: a network that makes drawn faces that person's, looking at the selfies.

Wants an exported model, a cache of photos (never of held-out people) and recognisers that take no
part in judging or choosing:
GPU:  python -m training.stages.refine --device cuda --model runs/export --minutes 8 \
          --recognisers runs/recogniser --locator runs/recogniser-choosing/locator \
          --attribute-teacher runs/attribute-teacher
CPU:  the same with --minutes 60 and without --device
Drawn faces that are missing are made first and take at most a third of the minutes. `--export`
adds the refiner to a model's folder. Running it again goes on where it stopped.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from imagine.backends.embedded import save_refiner
from imagine.backends.minilm import load_text_encoder
from imagine.backends.prompt_judge import load_attribute_network
from imagine.backends.weight_files import OWN_MODELS
from imagine.models.face_recogniser import FaceLocator
from imagine.models.face_refiner import FaceRefiner
from training.checkpoints import save_whole
from training.clock import Stopwatch
from training.estimates import DRAWN, base_revision, make_estimates
from training.recogniser import load_recogniser
from training.refining import RefiningFaces, Teachers, correction, refining_loss
from training.rewards import prototypes
from training.trainer import schedule, update_average

logger = logging.getLogger(__name__)

REFINER_SIZES: dict[str, dict[str, Any]] = {
    "mini": {"widths": (48, 128, 192), "crop_size": 96},
    "tiny": {"widths": (8, 16, 16), "crop_size": 32},
}
ESTIMATE_SHARE = 1 / 3  # of the minutes at most go into missing drawings
SHEET_FACES = 10


@dataclass
class RefinerState:
    """All that a checkpoint holds."""

    refiner: FaceRefiner
    averaged: FaceRefiner
    step: int = 0
    images_seen: int = 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("runs/people"), help="photo cache")
    parser.add_argument("--model", type=Path, default=Path("assets/models/imagine-mini"))
    parser.add_argument("--run", type=Path, default=Path("runs/imagine-mini"), help="checkpoints")
    parser.add_argument("--recognisers", type=Path, nargs="*", default=[], help="who say who it is")
    parser.add_argument("--attribute-teacher", type=Path, help="says what expression it is")
    parser.add_argument("--locator", type=Path, required=True, help="says where the face is")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch-size", type=int, default=None, help="12 on cpu, 128 on cuda")
    parser.add_argument("--size", choices=sorted(REFINER_SIZES), default="mini")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--warm-start", type=float, default=0.02, help="share spent warming up")
    # With the rate falling to 0 the recognisers that teach were pleased ever more and the judge
    # less (training/LOG.md); the average of the weights settles enough.
    parser.add_argument("--decay", type=float, default=0.02, help="last share, rate goes to 0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export", type=Path, default=None, help="folder of a model to add it to")
    return parser.parse_args()


def run_stage(arguments: argparse.Namespace) -> None:
    """Draw what faces are missing, then train from the newest checkpoint or from nothing."""
    torch.manual_seed(arguments.seed)
    arguments.run.mkdir(parents=True, exist_ok=True)
    watch = Stopwatch(arguments.minutes * 60)
    minutes = ESTIMATE_SHARE * arguments.minutes
    made = make_estimates(arguments.data, arguments.model, minutes, kind=DRAWN)
    logger.info("%d shards of drawn faces added in %.0f s", made, watch.elapsed)
    locator = FaceLocator.from_pretrained(arguments.locator, **OWN_MODELS)
    locator = locator.to(arguments.device).eval().requires_grad_(False)
    faces = RefiningFaces(
        arguments.data,
        base_revision(arguments.model),
        load_text_encoder(),
        locator,
        arguments.device,
        arguments.seed + int(time.time()),
    )
    logger.info("%d faces of %d people", faces.face_count, faces.person_count)
    state = load_state(arguments.run, arguments.size, arguments.device)
    left = max(1.0, watch.budget_seconds - watch.elapsed)
    _Loop(arguments, state, faces).run(Stopwatch(left))
    if arguments.export:
        save_refiner(arguments.export, state.averaged, locator)
        logger.info("exported to %s", arguments.export)


class _Loop:
    def __init__(
        self, arguments: argparse.Namespace, state: RefinerState, faces: RefiningFaces
    ) -> None:
        self.arguments, self.state, self.faces = arguments, state, faces
        self.batch_size = arguments.batch_size or (128 if arguments.device == "cuda" else 12)
        self.crop_size = int(state.refiner.config.crop_size)
        self.optimizer = torch.optim.AdamW(
            state.refiner.parameters(),
            lr=arguments.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=0.01,
        )
        attributes = None
        if arguments.attribute_teacher is not None:
            attributes = load_attribute_network(arguments.attribute_teacher)
            attributes = attributes.to(arguments.device).eval().requires_grad_(False)
        self.teachers: list[Teachers] = []
        for path in arguments.recognisers:
            recogniser = load_recogniser(path, arguments.device)
            self.teachers.append(Teachers(recogniser, prototypes(recogniser, faces), attributes))

    def run(self, watch: Stopwatch) -> None:
        arguments, state = self.arguments, self.state
        bar = tqdm(total=round(watch.budget_seconds), unit="s", desc="refine", mininterval=5)
        first_images, last_save, losses = state.images_seen, 0.0, [0.0]
        while not watch.is_over:
            losses.append(self._step(watch.progress))
            rate = (state.images_seen - first_images) / watch.elapsed
            recent = float(np.mean(losses[-50:]))
            bar.set_postfix_str(f"loss {recent:.4f}, {rate:.1f} faces/s, step {state.step}")
            bar.update(round(watch.elapsed) - bar.n)
            if watch.elapsed - last_save > 240:
                save_state(arguments.run, state)
                last_save = watch.elapsed
        bar.close()
        save_state(arguments.run, state)
        write_sheet(arguments.run, state, self.faces)
        images = state.images_seen - first_images
        line = {
            "stage": "refine",
            "device": arguments.device,
            "seconds": round(watch.elapsed),
            "images": images,
            "images_per_second": round(images / watch.elapsed, 1),
            "loss": round(float(np.mean(losses[-50:])), 5),
            "step": state.step,
            **measure(state.averaged, self.faces, self.teachers),
        }
        with (arguments.run / "stages.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        logger.info("%s", json.dumps(line))

    def _step(self, progress: float) -> float:
        arguments, state = self.arguments, self.state
        batch = self.faces.sample_refining(self.batch_size, self.crop_size)
        # One recogniser a step, in turn: all of them at once cost as much as the refiner.
        teachers = self.teachers[state.step % len(self.teachers)] if self.teachers else None
        with torch.autocast(arguments.device, dtype=torch.bfloat16):
            loss = refining_loss(correction(state.refiner, batch), batch, teachers)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(state.refiner.parameters(), 1.0)
        factor = schedule(progress, arguments.warm_start, arguments.decay)
        for group in self.optimizer.param_groups:
            group["lr"] = arguments.learning_rate * factor
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        state.images_seen += len(batch.faces)
        update_average(
            state.averaged, state.refiner, min(0.995, (1 + state.step) / (10 + state.step))
        )
        return float(loss.detach())


def load_state(run: Path, size: str, device: str) -> RefinerState:
    """The newest checkpoint of a run, or a fresh refiner."""
    refiner = FaceRefiner(**REFINER_SIZES[size]).to(device)
    refiner.to(memory_format=torch.channels_last)
    state = RefinerState(refiner, copy.deepcopy(refiner).requires_grad_(False))
    path = run / "refiner.pt"
    if path.exists():
        stored = torch.load(path, map_location=device, weights_only=True)
        state.refiner.load_state_dict(stored["refiner"])
        state.averaged.load_state_dict(stored["averaged"])
        state.step, state.images_seen = stored["step"], stored["images_seen"]
        logger.info("resumed at step %d, %d faces", state.step, state.images_seen)
    return state


def save_state(run: Path, state: RefinerState) -> None:
    """Write a checkpoint, whole or not at all."""
    stored: dict[str, Any] = {
        "refiner": state.refiner.state_dict(),
        "averaged": state.averaged.state_dict(),
        "step": state.step,
        "images_seen": state.images_seen,
    }
    save_whole(run / "refiner.pt", stored)


@torch.inference_mode()
def measure(
    refiner: FaceRefiner, faces: RefiningFaces, teachers: Sequence[Teachers] = ()
) -> dict[str, float]:
    """Of people not trained on: distance to the true pixels, and share recognised among all."""
    size, sums, count = int(refiner.config.crop_size), dict[str, float](), 0
    chosen = faces.kept_back[:: max(1, len(faces.kept_back) // 192)]
    for start in range(0, len(chosen), 24):
        batch = faces.whole(chosen[start : start + 24], size)
        refined = batch.faces + correction(refiner, batch)
        pictures = {"drawn": batch.faces, "refined": refined, "true": batch.true}
        for name, shown in pictures.items():
            error = (shown - batch.true).abs().mean((1, 2, 3)).sum()
            sums[f"error_{name}"] = sums.get(f"error_{name}", 0.0) + float(error)
            for number, teacher in enumerate(teachers):
                side = int(teacher.recogniser.config.crop_size)
                seen = nn.functional.interpolate(
                    shown, size=(side, side), mode="bilinear", antialias=True
                )
                named = (teacher.recogniser(seen)[0] @ teacher.known.T).argmax(1)
                key = f"recognised_{name}_{number}"
                sums[key] = sums.get(key, 0.0) + float((named == batch.people).sum())
        count += len(batch.faces)
    return {name: round(total / count, 4) for name, total in sums.items()}


@torch.inference_mode()
def write_sheet(run: Path, state: RefinerState, faces: RefiningFaces) -> None:
    """Reference, drawn, refined and true faces of people not trained on, as PNG."""
    step = max(1, len(faces.kept_back) // SHEET_FACES)
    batch = faces.whole(faces.kept_back[::step][:SHEET_FACES], state.averaged.config.crop_size)
    references = batch.crops[:: len(batch.crops) // len(batch.faces)]
    refined = batch.faces + correction(state.averaged, batch)
    rows = [references, batch.faces, refined, batch.true]
    sheet = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1).permute(1, 2, 0)
    pixels = (sheet.clamp(-1, 1) + 1).mul(127.5).round().byte().cpu().numpy()
    Image.fromarray(pixels).save(run / f"refiner-sheet-{state.images_seen:08d}.png")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run_stage(parse_arguments())

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
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from imagine.backends.embedded import save_refiner
from imagine.backends.minilm import load_text_encoder
from imagine.backends.prompt_judge import load_attribute_network
from imagine.backends.weight_files import OWN_MODELS
from imagine.models.face_recogniser import FaceLocator
from imagine.models.face_refiner import FaceRefiner
from training.clock import Stopwatch
from training.estimates import DRAWN, base_revision, make_estimates
from training.recogniser import load_recogniser
from training.refining import RefiningFaces, Teacher, correction, refining_loss
from training.rewards import prototypes
from training.side_networks import (
    NetworkState,
    SideTraining,
    add_arguments,
    resumed,
    with_initial_rates,
)

logger = logging.getLogger(__name__)

REFINER_SIZES: dict[str, dict[str, Any]] = {
    "mini": {"widths": (48, 128, 192), "crop_size": 96},
    "tiny": {"widths": (8, 16, 16), "crop_size": 32},
}
ESTIMATE_SHARE = 1 / 3  # of the minutes at most go into missing drawings
SHEET_FACES = 10


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    defaults = {"data": Path("runs/people"), "minutes": 60.0, "batch_size": 12, "rate": 1e-3}
    add_arguments(parser, REFINER_SIZES, defaults)
    parser.add_argument("--recognisers", type=Path, nargs="*", default=[], help="who say who it is")
    parser.add_argument("--attribute-teacher", type=Path, help="says what expression it is")
    parser.add_argument("--locator", type=Path, required=True, help="says where the face is")
    # With the rate falling to 0 the recognisers that teach were pleased ever more and the judge
    # less (training/LOG.md); the average of the weights settles enough.
    parser.add_argument("--decay", type=float, default=0.02, help="last share, rate goes to 0")
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
    _Training(arguments, state, faces).run(Stopwatch(left))
    if arguments.export:
        save_refiner(arguments.export, state.averaged, locator)
        logger.info("exported to %s", arguments.export)


class _Training(SideTraining[FaceRefiner]):
    stage, unit = "refine", "faces"

    def __init__(
        self,
        arguments: argparse.Namespace,
        state: NetworkState[FaceRefiner],
        faces: RefiningFaces,
    ) -> None:
        optimizer = torch.optim.AdamW(
            state.network.parameters(),
            lr=arguments.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=0.01,
        )
        super().__init__(arguments, state, with_initial_rates(optimizer), averaging=0.995)
        self.faces = faces
        self.crop_size = int(state.network.config.crop_size)
        attributes = None
        if arguments.attribute_teacher is not None:
            attributes = load_attribute_network(arguments.attribute_teacher)
            attributes = attributes.to(arguments.device).eval().requires_grad_(False)
        self.teachers: list[Teacher] = []
        for path in arguments.recognisers:
            recogniser = load_recogniser(path, arguments.device)
            self.teachers.append(Teacher(recogniser, prototypes(recogniser, faces), attributes))

    def loss(self) -> tuple[Tensor, int]:
        batch = self.faces.sample_refining(self.batch_size, self.crop_size)
        # One recogniser a step, in turn: all of them at once cost as much as the refiner.
        turn = self.state.step % max(1, len(self.teachers))
        teacher = self.teachers[turn] if self.teachers else None
        added = correction(self.state.network, batch)
        return refining_loss(added, batch, teacher), len(batch.faces)

    def measured(self) -> dict[str, float]:
        return measure(self.state.averaged, self.faces, self.teachers)

    def write_sheet(self) -> None:
        write_sheet(self.arguments.run, self.state, self.faces)


def load_state(run: Path, size: str, device: str) -> NetworkState[FaceRefiner]:
    """The newest checkpoint of a run, or a fresh refiner."""
    fresh = FaceRefiner(**REFINER_SIZES[size]).to(device)
    fresh.to(memory_format=torch.channels_last)
    return resumed(run, "refiner", fresh)


@torch.inference_mode()
def measure(
    refiner: FaceRefiner, faces: RefiningFaces, teachers: Sequence[Teacher] = ()
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
def write_sheet(run: Path, state: NetworkState[FaceRefiner], faces: RefiningFaces) -> None:
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

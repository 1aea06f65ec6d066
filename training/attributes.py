r"""Teach the attribute judge what expressions, places, colours, glasses, hats and styles look like.

It learns from rendered training people only and never sees a generated picture, so it cannot
learn to like what the generator does. Accuracy is measured on renders of people kept aside.
Unlike the generator it does see the held-out combinations (`people.splits.HELD_OUT`), on training
people: a judge that never met black and white sunsets says there are none (0 of 40 right).

CPU, two minutes: python -m training.attributes --data runs/people --minutes 2
Shipped weights:  python -m training.attributes --render-combinations 80 --data runs/combinations
                  python -m training.attributes --data runs/people runs/combinations \
                      --minutes 6 --out assets/models/attribute-judge
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from imagine.backends.prompt_judge import AttributePromptJudge, to_network_input
from imagine.core import ImageArray
from imagine.errors import InvalidInput
from imagine.models.attribute_judge import AttributeJudge
from training.clock import Stopwatch
from training.held_out import open_renderer, staged_scene
from training.people.cache import PhotoCache, PhotoRecord, shard_name, write_shard
from training.people.person import sample_person
from training.people.scene import facts
from training.people.splits import HELD_OUT, split_of

logger = logging.getLogger(__name__)

ATTRIBUTES = (
    "expression", "place", "hair_colour", "glasses", "hat", "clothing_colour", "style",
)  # fmt: skip
HELD_BACK = 12  # every twelfth person is kept aside to measure accuracy
HALVES = ("all", "first", "second")
LOSS_WEIGHTS = {"expression": 2.5}  # the smallest detail, learnt last
COMBINATION_SEEDS = 50_000  # training people; the photo caches start at 0
BATCH = 64
LEARNING_RATE = 2.5e-3


@dataclass
class Renders:
    """Rendered photos and what is true of them.

    Attributes:
        images: (photos, h, w, 3) uint8.
        labels: attribute -> (photos,) int64 class numbers.
        classes: attribute -> class names.
    """

    images: NDArray[np.uint8]
    labels: dict[str, NDArray[np.int64]]
    classes: dict[str, list[str]]

    def select(self, rows: NDArray[np.int64]) -> Renders:
        """The photos of these rows."""
        labels = {name: values[rows] for name, values in self.labels.items()}
        return Renders(self.images[rows], labels, self.classes)


def load_renders(folders: Sequence[Path], half: str = "all") -> tuple[Renders, Renders]:
    """Photos to learn from and photos of other people to be tested on.

    Args:
        folders: photo caches.
        half: of `HALVES`; the people of the other half stay unseen, so that two networks can be
            taught on different people.

    Raises:
        InvalidInput: the caches are empty, or hold people who must not be trained on.
    """
    photos = [
        (cache, index, record)
        for cache in (PhotoCache(folder) for folder in folders)
        for index, record in enumerate(cache.records)
        if half in ("all", half_of(record.person_seed))
    ]
    records = [record for _, _, record in photos]
    if len(records) < 2:
        named = " and ".join(map(str, folders))
        raise InvalidInput(
            f"{named} holds {len(records)} photos. Render some first: "
            f"python -m training.people.cache --out {folders[0]} --people 400 --photos 8 --size 128"
        )
    strays = {r.person_seed for r in records if split_of(r.person_seed) != "train"}
    if strays:
        raise InvalidInput(
            f"The photos show people who must not be trained on, such as seed {min(strays)}. "
            "Render training people (seeds below 100000)."
        )
    images = np.stack([cache.image(index) for cache, index, _ in photos])
    renders = make_renders(images, [record.facts for record in records])
    aside = np.array([record.person_seed % HELD_BACK == 0 for record in records])
    return renders.select(np.flatnonzero(~aside)), renders.select(np.flatnonzero(aside))


def half_of(person_seed: int) -> str:
    """Which half a person belongs to; both halves have people who are kept aside."""
    return HALVES[1 + person_seed // HELD_BACK % 2]


def render_combinations(folder: Path, people: int, size: int = 128) -> None:
    """Photograph training people in the combinations that the generator never sees."""
    renderer = open_renderer(None)
    images, records = [], []
    for seed in range(COMBINATION_SEEDS, COMBINATION_SEEDS + people):
        person = sample_person(seed)
        for photo, wanted in enumerate(HELD_OUT):
            scene = staged_scene(person, wanted, photo)
            drawn = renderer.photograph(person, scene, size)
            images.append(drawn.image)
            records.append(
                PhotoRecord(
                    person_seed=seed,
                    photo=photo,
                    scene_seed=scene.seed,
                    kind="scene",
                    caption="",
                    facts=facts(person, scene),
                    landmarks=drawn.landmarks.tolist(),
                    face_box=[float(edge) for edge in drawn.face_box],
                    visible=drawn.visible,
                )
            )
    write_shard(folder, shard_name(COMBINATION_SEEDS), np.stack(images), records)


def make_renders(images: NDArray[np.uint8], truths: Sequence[Mapping[str, str]]) -> Renders:
    """Number the classes of every attribute by name."""
    classes = {name: sorted({truth[name] for truth in truths}) for name in ATTRIBUTES}
    numbers = {name: {word: i for i, word in enumerate(classes[name])} for name in ATTRIBUTES}
    labels = {
        name: np.array([numbers[name][truth[name]] for truth in truths], np.int64)
        for name in ATTRIBUTES
    }
    return Renders(images, labels, classes)


def train_judge(
    learning: Renders, clock: Stopwatch, seed: int = 0, image_size: int = 128, width: int = 28
) -> AttributeJudge:
    """Train by the clock; the learning rate rises for a tenth of it, then falls to nothing."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    network: AttributeJudge = AttributeJudge(learning.classes, image_size=image_size, width=width)
    network.to(memory_format=torch.channels_last)  # 1.7x as fast on a CPU
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    weights = {name: class_weights(learning, name) for name in ATTRIBUTES}
    seen, reported = 0, 0.0
    while not clock.is_over:
        rate = min(clock.progress / 0.1 + 0.01, 1.0) * np.cos(clock.progress * np.pi / 2) ** 2
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate
        rows = random.integers(len(learning.images), size=BATCH)
        images = disturb_pictures(learning.images[rows], image_size, random)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(images)
        losses = [
            LOSS_WEIGHTS.get(name, 1.0)
            * functional.cross_entropy(
                logits[name].float(),
                torch.from_numpy(learning.labels[name][rows]),
                weight=weights[name],
                label_smoothing=0.05,
            )
            for name in ATTRIBUTES
        ]
        optimizer.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seen += BATCH
        if clock.progress >= reported:
            logger.info(
                "%3.0f %%  %d pictures, %.0f/s  losses %s",
                100 * clock.progress,
                seen,
                seen / max(clock.elapsed, 1e-6),
                " ".join(f"{loss.item():.2f}" for loss in losses),
            )
            reported += 0.1
    network.to(memory_format=torch.contiguous_format)
    network.eval()
    return network


def class_weights(renders: Renders, attribute: str) -> Tensor:
    """Rare classes count more, by the square root: prompts ask for what photos rarely show."""
    count = np.bincount(renders.labels[attribute], minlength=len(renders.classes[attribute]))
    weights = 1.0 / np.sqrt(np.maximum(count, 1))
    return torch.from_numpy(weights / weights.mean()).float()


def disturb_pictures(images: NDArray[np.uint8], size: int, random: np.random.Generator) -> Tensor:
    """Crops, mirrors, slight light and colour, and the softness and blocks of made pictures.

    Args:
        images: (batch, h, w, 3) uint8.
        size: side of the result.
        random: source of the changes.

    Returns:
        (batch, 3, size, size) float in [-1, 1].
    """
    count = len(images)
    compressed = np.stack(
        [_compress(image, random) if random.random() < 0.15 else image for image in images]
    )
    pictures = torch.from_numpy(compressed).permute(0, 3, 1, 2).float().div(255.0)
    soft = torch.from_numpy(np.flatnonzero(random.random(count) < 0.35))
    small = functional.interpolate(pictures[soft], size=int(random.integers(28, 64)), mode="area")
    pictures[soft] = functional.interpolate(small, size=pictures.shape[-2:], mode="bilinear")
    zoom = random.uniform(0.86, 1.02, count)
    mirror = random.choice([-1.0, 1.0], count)
    transform = np.zeros((count, 2, 3), np.float32)
    transform[:, 0, 0], transform[:, 1, 1] = zoom * mirror, zoom
    transform[:, :, 2] = random.uniform(-0.05, 0.05, (count, 2))
    grid = functional.affine_grid(
        torch.from_numpy(transform), [count, 3, size, size], align_corners=False
    )
    pictures = functional.grid_sample(
        pictures, grid, padding_mode="reflection", align_corners=False
    )

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        values = random.uniform(low, high, (count, channels, 1, 1)).astype(np.float32)
        return torch.from_numpy(values)

    # Little colour change only: warm and cool film differ by a few per cent per channel.
    pictures = pictures * draw(0.88, 1.12) * draw(0.98, 1.02, 3) + draw(-0.03, 0.03)
    noise = torch.randn_like(pictures) * draw(0.0, 0.03)
    return (pictures + noise).clamp(0.0, 1.0).mul(2.0).sub(1.0)


def _compress(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=int(random.integers(35, 90)))
    return np.asarray(Image.open(buffer).convert("RGB"))


@torch.inference_mode()
def measure_accuracy(network: AttributeJudge, renders: Renders) -> dict[str, float]:
    """Per attribute, the share right averaged over classes, so that "no glasses" is not all."""
    size = int(network.config.image_size)
    guesses: dict[str, list[NDArray[np.int64]]] = {name: [] for name in ATTRIBUTES}
    for start in range(0, len(renders.images), 128):
        logits = network(to_network_input(list(renders.images[start : start + 128]), size))
        for name in ATTRIBUTES:
            guesses[name].append(logits[name].argmax(1).numpy())
    return {
        name: mean_recall(np.concatenate(guesses[name]), renders.labels[name])
        for name in ATTRIBUTES
    }


def mean_recall(guesses: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Share right of each class that occurs, averaged over those classes."""
    present = np.unique(truth)
    return float(np.mean([(guesses[truth == one] == one).mean() for one in present]))


def save_judge(folder: Path, network: AttributeJudge, accuracy: Mapping[str, float]) -> None:
    """Write half-precision safetensors and a config with class names and accuracy."""
    config: dict[str, Any] = {k: v for k, v in network.config.items() if not k.startswith("_")}
    config["accuracy"] = {name: round(value, 3) for name, value in accuracy.items()}
    copied = AttributeJudge(**config)
    copied.load_state_dict(network.state_dict())
    copied.half().save_pretrained(folder, safe_serialization=True)


@lru_cache(maxsize=1)
def _shipped_judge() -> AttributePromptJudge:
    return AttributePromptJudge.load()


def judge_attributes(images: Sequence[ImageArray]) -> list[dict[str, dict[str, float]]]:
    """What each picture shows, by the shipped judge: attribute -> class -> probability."""
    return _shipped_judge().probabilities(images)


def main() -> None:
    """Train, measure, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", default=[Path("runs/people")])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--out", type=Path, default=Path("runs/attribute-judge"))
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--half", choices=HALVES, default="all", help="of the people")
    parser.add_argument(
        "--render-combinations",
        type=int,
        default=None,
        metavar="PEOPLE",
        help="render held-out combinations of so many people into --data and stop",
    )
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if given.render_combinations:
        render_combinations(given.data[0], given.render_combinations)
        return
    if given.threads:
        torch.set_num_threads(given.threads)
    learning, testing = load_renders(given.data, given.half)
    logger.info("%d photos to learn from, %d to test on", len(learning.images), len(testing.images))
    network = train_judge(learning, Stopwatch(60 * given.minutes), given.seed)
    accuracy = measure_accuracy(network, testing) if len(testing.images) else {}
    logger.info("%s", "  ".join(f"{name} {value:.3f}" for name, value in accuracy.items()))
    save_judge(given.out, network, accuracy)
    logger.info("written to %s", given.out)


if __name__ == "__main__":
    main()

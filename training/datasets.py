"""Rendered photos as training rows: target picture, reference crops, prompt features.

Reads the shards that `training.people.cache` writes (while it may still be writing more) and adds
two derived files beside each shard, aligned reference crops and prompt features, so that every
later run starts in seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imagine.identity.align import TEMPLATE, align_face, mask_background, similarity_transform
from imagine.models.text_encoder import TextEncoder
from training.people.cache import PhotoRecord, finished_shards, read_shard
from training.people.switched import AGED

REFERENCE_SIZE = 96
MAX_TEXT_TOKENS = 40
TEXT_WIDTH = 384
# A sixth of the photos is not enough for a model that has learnt to read the age off the selfies.
AGED_ODDS = 3.0


@dataclass
class Batch:
    """One batch on the training device.

    Attributes:
        images: (batch, 3, h, w) float in [-1, 1], targets.
        face_weights: (batch, 1, h, w) float, 1 outside and more inside the face box.
        crops: (references, 3, REFERENCE_SIZE, REFERENCE_SIZE) float in [-1, 1].
        crop_owner: (batch, photos) int64 into `crops`, -1 where a row has fewer photos.
        text_tokens: (batch, MAX_TEXT_TOKENS, TEXT_WIDTH) float.
        text_mask: (batch, MAX_TEXT_TOKENS) bool.
        thetas: (batch, 2, 3) sampling transforms of the aligned faces, see `face_theta`.
        records: of the targets, one a row.
    """

    images: Tensor
    face_weights: Tensor
    crops: Tensor
    crop_owner: Tensor
    text_tokens: Tensor
    text_mask: Tensor
    thetas: Tensor
    records: Sequence[PhotoRecord]


class PairedPhotos:
    """All photos of all people of a cache, in memory, sampled as (references, target) rows."""

    def __init__(self, folder: Path, encoder: TextEncoder, device: str, seed: int) -> None:
        self._folder = folder
        self._encoder = encoder
        self._device = device
        self._random = np.random.default_rng(seed)
        self._images: list[NDArray[np.uint8]] = []
        self._crops: list[NDArray[np.uint8]] = []
        self._text: list[NDArray[np.float16]] = []
        self._text_lengths: list[NDArray[np.int64]] = []
        self._rows: list[PhotoRecord] = []
        self._row_address: list[tuple[int, int]] = []
        self._people: dict[int, list[int]] = {}
        self._aged: dict[int, list[int]] = {}  # drawn, but nobody's references
        self._person_seeds: list[int] = []
        self._targets: NDArray[np.int64] = np.zeros(0, np.int64)
        self._target_odds: NDArray[np.float64] = np.zeros(0)
        self._loaded: set[str] = set()
        self.refresh()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def person_count(self) -> int:
        """How many people have at least two usable photos."""
        return len(self._person_seeds)

    @property
    def person_seeds(self) -> Sequence[int]:
        """Whom the photos show, in the order of `faces_of_everyone`."""
        return tuple(self._person_seeds)

    @property
    def text_encoder(self) -> TextEncoder:
        """The encoder the prompt features were made with."""
        return self._encoder

    def reference_examples(self, count: int) -> list[NDArray[np.uint8]]:
        """One reference crop of each of the first `count` people."""
        firsts = [self._people[seed][0] for seed in self._person_seeds[:count]]
        return [self._crops[b][i] for b, i in (self._row_address[row] for row in firsts)]

    def refresh(self, max_new: int | None = None) -> int:
        """Take in shards finished since the last call; returns how many."""
        added = 0
        for name in finished_shards(self._folder):
            if name in self._loaded:
                continue
            if max_new is not None and added >= max_new:
                break
            self._add(name, *read_shard(self._folder, name))
            self._loaded.add(name)
            added += 1
        if added:
            self._person_seeds = [seed for seed, rows in self._people.items() if len(rows) > 1]
            self._targets = np.concatenate(
                [self._people[seed] + self._aged.get(seed, []) for seed in self._person_seeds]
            )
            odds = rarity([self._rows[row].facts for row in self._targets])
            odds[[self._rows[row].kind == AGED for row in self._targets]] *= AGED_ODDS
            self._target_odds = odds / odds.sum()
        return added

    def _add(self, name: str, images: NDArray[np.uint8], rows: Sequence[PhotoRecord]) -> None:
        derived = self._folder / f"{name}.features.npz"
        if derived.exists():
            with np.load(derived) as stored:
                crops, text, lengths = stored["crops"], stored["text"], stored["lengths"]
        else:
            crops = np.stack(
                [reference_crop(image, row) for image, row in zip(images, rows, strict=True)]
            )
            text, lengths = self._encode([row.caption for row in rows])
            partial = derived.with_suffix(f".{os.getpid()}.tmp.npz")
            np.savez(partial, crops=crops, text=text, lengths=lengths)
            partial.replace(derived)
        block = len(self._images)
        self._images.append(np.ascontiguousarray(images))
        self._crops.append(crops)
        self._text.append(text)
        self._text_lengths.append(lengths)
        for index, row in enumerate(rows):
            if not row.visible:
                continue
            group = self._aged if row.kind == AGED else self._people
            group.setdefault(int(row.person_seed), []).append(len(self._rows))
            self._rows.append(row)
            self._row_address.append((block, index))

    def _encode(self, captions: Sequence[str]) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
        text = np.zeros((len(captions), MAX_TEXT_TOKENS, TEXT_WIDTH), np.float16)
        lengths = np.zeros(len(captions), np.int64)
        order = np.argsort([len(caption) for caption in captions])
        for start in range(0, len(captions), 64):
            chosen = order[start : start + 64]
            tokens, mask = self._encoder([captions[index] for index in chosen])
            count = min(tokens.shape[1], MAX_TEXT_TOKENS)
            text[chosen, :count] = tokens[:, :count].half().cpu().numpy()
            lengths[chosen] = mask[:, :count].sum(1).cpu().numpy()
        return text, lengths

    def sample(self, batch_size: int, *, same_photo: float, high_quality: bool) -> Batch:
        """Draw one batch.

        Args:
            batch_size: rows.
            same_photo: share of rows whose reference is the target photo itself.
            high_quality: only targets with a large face seen from the front.
        """
        targets: list[int] = []
        references: list[int] = []
        owners = np.full((batch_size, 3), -1, np.int64)
        # One count for the whole batch: padding to three photos cost 40 % of the identity work.
        references_per_row = int(self._random.choice([1, 2, 3], p=[0.5, 0.3, 0.2]))
        while len(targets) < batch_size:
            row = len(targets)
            target = int(self._random.choice(self._targets, p=self._target_odds))
            photos = self._people[int(self._rows[target].person_seed)]
            if high_quality and not _is_high_quality(self._rows[target]):
                continue
            targets.append(target)
            aged = self._rows[target].kind == AGED
            if not aged and self._random.random() < same_photo:
                chosen = [target]
            else:
                others = [photo for photo in photos if photo != target]
                selfies = [p for p in others if self._rows[p].kind == "selfie"]
                pool = selfies if selfies and self._random.random() < 0.8 else others
                count = min(len(pool), references_per_row)
                chosen = list(self._random.choice(pool, size=count, replace=False))
            for position, photo in enumerate(chosen):
                owners[row, position] = len(references)
                references.append(int(photo))
        return self._collate(targets, references, owners[:, :references_per_row])

    def sample_faces(self, batch_size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Photos of random people for a recogniser.

        Returns:
            (batch, 3, h, w) images, (batch, 2, 3) thetas, (batch,) int64 index of the person.
        """
        people = self._random.integers(len(self._person_seeds), size=batch_size)
        rows = [int(self._random.choice(self._people[self._person_seeds[p]])) for p in people]
        images = self._gather(self._images, rows)
        return (
            to_unit_range(images).to(self._device),
            self._thetas(rows, images.shape[1]).to(self._device),
            torch.from_numpy(people).to(self._device),
        )

    def faces_of_everyone(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Person by person (photos, 3, h, w) images and (photos, 2, 3) thetas."""
        for seed in self._person_seeds:
            rows = self._people[seed]
            images = self._gather(self._images, rows)
            yield (
                to_unit_range(images).to(self._device),
                self._thetas(rows, images.shape[1]).to(self._device),
            )

    def _thetas(self, rows: Sequence[int], image_size: int) -> Tensor:
        landmarks = [np.asarray(self._rows[row].landmarks, np.float32) for row in rows]
        return torch.from_numpy(np.stack([face_theta(points, image_size) for points in landmarks]))

    def _gather(self, blocks: Sequence[NDArray[Any]], rows: Sequence[int]) -> NDArray[Any]:
        return np.stack([blocks[b][i] for b, i in (self._row_address[row] for row in rows)])

    def _collate(
        self, targets: Sequence[int], references: Sequence[int], owners: NDArray[np.int64]
    ) -> Batch:
        images = self._gather(self._images, targets)
        lengths = torch.from_numpy(self._gather(self._text_lengths, targets))
        longest = int(lengths.max())
        return Batch(
            images=to_unit_range(images).to(self._device),
            face_weights=_face_weights([self._rows[t] for t in targets], images.shape[1]).to(
                self._device
            ),
            crops=to_unit_range(self._gather(self._crops, references)).to(self._device),
            crop_owner=torch.from_numpy(owners).to(self._device),
            text_tokens=torch.from_numpy(self._gather(self._text, targets)[:, :longest])
            .float()
            .to(self._device),
            text_mask=(torch.arange(longest)[None] < lengths[:, None]).to(self._device),
            thetas=self._thetas(targets, images.shape[1]).to(self._device),
            records=[self._rows[target] for target in targets],
        )


def rarity(
    facts: Sequence[Mapping[str, str]],
    attributes: Sequence[str] = ("expression", "hair_colour", "glasses", "style"),
    power: float = 0.4,
    limit: float = 12.0,
) -> NDArray[np.float64]:
    """(photos,) weights that show rare looks more often: people ask for what photos rarely show.

    Drawn uniformly, one photo in a hundred has pink hair, and a model that has seen 100,000
    pictures still ignores the wish (training/LOG.md).
    """
    weights = np.ones(len(facts))
    for name in attributes:
        words = [fact.get(name, "") for fact in facts]
        _, inverse, counts = np.unique(words, return_inverse=True, return_counts=True)
        weights *= (counts.max() / counts[inverse]) ** power
    return np.minimum(weights, limit)


def face_theta(landmarks: NDArray[np.float32], image_size: int) -> NDArray[np.float32]:
    """(2, 3) transform for `affine_grid` that samples the aligned face of a square image.

    Uses the template of `imagine.identity.align`; coordinates in [-1, 1], align_corners=False.
    """
    inward = np.vstack([similarity_transform(landmarks[:3], TEMPLATE), [0.0, 0.0, 1.0]])
    outward = np.linalg.inv(inward)[:2]  # template fractions to pixels of the image
    linear = outward[:, :2] / image_size
    centre = (outward[:, :2] @ np.array([0.5, 0.5]) + outward[:, 2]) * 2 / image_size - 1
    return np.concatenate([linear, centre[:, None]], axis=1).astype(np.float32)


def to_unit_range(images: NDArray[np.uint8]) -> Tensor:
    """(batch, h, w, 3) uint8 to (batch, 3, h, w) float in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1.0).contiguous()


def reference_crop(
    image: NDArray[np.uint8], row: PhotoRecord, size: int = REFERENCE_SIZE
) -> NDArray[np.uint8]:
    """(size, size, 3) aligned and masked face of a photo, placed as a detector would place it."""
    landmarks = np.asarray(row.landmarks, np.float32)
    # A detector misses by about two hundredths of the eye distance; true landmarks never do.
    noise = np.random.default_rng(int(row.person_seed) * 97 + int(row.photo))
    spread = 0.025 * float(np.hypot(*(landmarks[1] - landmarks[0])))
    jittered = landmarks + noise.normal(0.0, spread, landmarks.shape).astype(np.float32)
    return mask_background(align_face(np.asarray(image), jittered, size))


def _is_high_quality(row: PhotoRecord) -> bool:
    left, _, right, _ = row.face_box
    landmarks = np.asarray(row.landmarks)
    eyes = landmarks[1] - landmarks[0]
    nose_offset = landmarks[2][0] - landmarks[:2, 0].mean()
    return bool(right - left > 50 and abs(nose_offset) < 0.25 * np.hypot(*eyes))


def _face_weights(rows: Sequence[PhotoRecord], size: int, inside: float = 3.0) -> Tensor:
    """(batch, 1, size, size) with `inside` in the face box, 1 elsewhere."""
    weights = torch.ones(len(rows), 1, size, size)
    for index, row in enumerate(rows):
        left, top, right, bottom = (int(max(0, min(size, edge))) for edge in row.face_box)
        weights[index, :, top:bottom, left:right] = inside
    return weights

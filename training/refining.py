"""What the refiner learns from and what it is told: drawn faces, the true ones, other selfies.

Drawn faces come from `training.estimates --kind drawn`: known photos under so much noise that the
denoiser draws the face anew, half of them not as the person they show. Where few steps were drawn
(near rows) the true face lies on the drawn one, once each is set upright by itself, and says what
every pixel is to be. Where many were drawn (far rows, as at use) nothing says that: there the
recognisers alone say who it is to be, and tone and expression are to stay. A few rows hold no face,
or one that is right already: those are to stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from imagine.errors import InvalidInput
from imagine.identity.align import TEMPLATE
from imagine.models.attribute_judge import AttributeJudge
from imagine.models.face_recogniser import FaceLocator, FaceRecogniser, aligned
from imagine.models.face_refiner import FaceRefiner, pasted
from imagine.models.text_encoder import TextEncoder
from training.datasets import PairedPhotos, to_unit_range
from training.disturb import disturb_references, softened
from training.estimates import DRAWN, estimates_path, read_estimates
from training.people.cache import PhotoRecord, finished_shards
from training.people.switched import AGED
from training.recogniser import jitter, map_difference, mirrored
from training.rewards import missed_person, wished_facts
from training.upsampling import first_maps, laplacian_levels

KEPT_BACK = 24  # every so-manieth person is not trained on and measures progress
NO_FACE, ALREADY_RIGHT = 0.06, 0.06  # shares of such rows
TINTED = 0.3  # of the rows have another light, in the drawn and the true picture alike
FAR_STEPS = 4  # from so many drawn steps on, the true face is not where the drawn one is
FAR_SHARE = 1 / 3  # of the rows
STAYING_WEIGHT = 1.5  # of the pixels of rows that are to stay as they are
PIXEL_WEIGHTS = (0.4, 0.2, 0.4)  # plain, and of the two finest levels of a Laplacian pyramid
SEEN_WEIGHT, PERSON_WEIGHT, EXPRESSION_WEIGHT = 0.25, 0.25, 0.12
TONE = 8  # pixels; what is coarser than that has to stay in far rows
KEPT_ATTRIBUTES = ("expression", "glasses")
# Centre, radius and weight of what is looked at most, in fractions of the upright face.
_EYES = tuple((x, y, 0.11, 3.0) for x, y in TEMPLATE[:2])
_FEATURES = (*_EYES, (*TEMPLATE[2], 0.09, 1.5), (0.5, 0.79, 0.14, 2.0))
_BESIDE_THE_FACE = 0.2  # weight of hair and background


@dataclass(frozen=True)
class Teacher:
    """Frozen networks that look at refined faces; neither judges or chooses.

    Attributes:
        recogniser: says who it is.
        known: (people, d) its mean faces of everybody, see `rewards.prototypes`.
        attributes: says what expression it is.
    """

    recogniser: FaceRecogniser
    known: Tensor
    attributes: AttributeJudge | None = None


@dataclass(frozen=True)
class RefiningBatch:
    """Drawn pictures of one batch and what their faces are to become, on the training device.

    Attributes:
        pictures: (batch, 3, h, w) float in [-1, 1], drawn.
        thetas: (batch, 2, 3) where the locator finds the face.
        kept: (batch, 3, h, w), pictures whose expression is the one to have where none was asked.
        wished: of each row what its caption asks for.
        faces: (batch, 3, s, s) float in [-1, 1], the drawn faces, upright.
        true: (batch, 3, s, s), what they should become; in far rows the drawn face again.
        crops: (batch * photos, 3, s, s) float in [-1, 1], other photos of the people.
        people: (batch,) int64, in the order of `RefiningFaces.person_seeds`.
        weights: (batch,) float, how much pixels count.
        has_face: (batch,) bool.
        is_far: (batch,) bool.
        same_age: (batch,) bool, whether the true photo shows the person as the others do.
    """

    pictures: Tensor
    thetas: Tensor
    kept: Tensor
    wished: Sequence[Mapping[str, str]]
    faces: Tensor
    true: Tensor
    crops: Tensor
    people: Tensor
    weights: Tensor
    has_face: Tensor
    is_far: Tensor
    same_age: Tensor


class RefiningFaces(PairedPhotos):
    """All photos of a cache that were drawn anew, as (drawn face, true face, references) rows.

    Args:
        data: cache of photos of the denoiser's size.
        revision: of the model that drew them, see `estimates.base_revision`.
        encoder: of the prompts; only because the cache keeps their features too.
        locator: as at use.
        device: of the batches.
        seed: of what is drawn at random.

    Raises:
        InvalidInput: nothing was drawn.
    """

    def __init__(
        self,
        data: Path,
        revision: str,
        encoder: TextEncoder,
        locator: FaceLocator,
        device: str,
        seed: int,
    ) -> None:
        super().__init__(data, encoder, device, seed)
        self._drawn: list[NDArray[np.uint8]] = []
        self._found: list[NDArray[np.float32]] = []
        self._steps_left: list[NDArray[np.int64]] = []
        for name, images in zip(finished_shards(data), self._images, strict=True):
            self._add_drawn(estimates_path(data, name, revision, DRAWN), len(images), locator)
        people = list(self._person_seeds)
        kept_back = set(people[KEPT_BACK - 1 :: KEPT_BACK] or people[-1:])
        self._place = {seed: place for place, seed in enumerate(people)}
        self.kept_back: list[int] = []
        self._near: list[int] = []
        self._far: list[int] = []
        for row, record in enumerate(self._rows):
            left = self._left(row)
            if not left or record.person_seed not in self._place:
                continue
            if record.person_seed in kept_back:
                if left < FAR_STEPS:
                    self.kept_back.append(row)
            else:
                (self._near if left < FAR_STEPS else self._far).append(row)
        if not self._near:
            raise InvalidInput(
                f"{data} holds no faces drawn by the model {revision} to train on. Draw them with: "
                f"python -m training.estimates --data {data} --model FOLDER --kind drawn"
            )

    @property
    def face_count(self) -> int:
        """How many drawn faces are trained on."""
        return len(self._near) + len(self._far)

    def _left(self, row: int) -> int:
        block, index = self._row_address[row]
        return int(self._steps_left[block][index])

    @torch.no_grad()
    def _add_drawn(self, path: Path, count: int, locator: FaceLocator) -> None:
        if not path.exists():
            self._drawn.append(np.zeros((count, 1, 1, 3), np.uint8))
            self._found.append(np.zeros((count, 2, 3), np.float32))
            self._steps_left.append(np.zeros(count, np.int64))
            return
        drawn = read_estimates(path)
        found = [
            locator(to_unit_range(drawn.pictures[start : start + 64]).to(self._device)).cpu()
            for start in range(0, count, 64)
        ]
        self._drawn.append(drawn.pictures)
        self._found.append(torch.cat(found).numpy())
        self._steps_left.append(drawn.steps_left)

    def sample_refining(self, batch_size: int, size: int) -> RefiningBatch:
        """Draw one disturbed batch of faces of this side."""
        far = round(batch_size * FAR_SHARE) if self._far else 0
        chosen = [int(row) for row in self._random.choice(self._near, batch_size - far)]
        chosen += [int(row) for row in self._random.choice(self._far, far)] if far else []
        return self._refining(chosen, size, disturbed=True)

    def whole(self, chosen: Sequence[int], size: int) -> RefiningBatch:
        """Undisturbed rows, for measuring."""
        return self._refining(chosen, size, disturbed=False)

    def _refining(self, chosen: Sequence[int], size: int, *, disturbed: bool) -> RefiningBatch:
        records = [self._rows[row] for row in chosen]
        drawn = to_unit_range(self._gather(self._drawn, chosen))
        true = to_unit_range(self._gather(self._images, chosen))
        found = torch.from_numpy(self._gather(self._found, chosen))
        where = self._thetas(chosen, true.shape[2])
        is_far = torch.tensor([self._left(row) >= FAR_STEPS for row in chosen])
        has_face, stays = np.ones(len(chosen), bool), np.zeros(len(chosen), bool)
        photos = int(self._random.choice([1, 2, 3], p=[0.5, 0.3, 0.2]))
        others = [
            self._others(row, record, photos) for row, record in zip(chosen, records, strict=True)
        ]
        crops = to_unit_range(self._gather(self._crops, [row for rows in others for row in rows]))
        if disturbed:
            luck = self._random.random(len(chosen))
            stays, has_face = luck < NO_FACE + ALREADY_RIGHT, luck >= NO_FACE
            for row in np.flatnonzero(~has_face):
                where[row] = self._elsewhere()
            drawn[stays], found[stays], is_far[stays] = true[stays], where[stays], False
            drawn, true, found, where, crops = _disturbed(drawn, true, found, where, crops)
        faces = aligned(drawn, found, size)
        far = is_far[:, None, None, None]
        device = self._device
        return RefiningBatch(
            pictures=drawn.to(device),
            thetas=found.to(device),
            kept=torch.where(far, drawn, true).to(device),
            wished=[wished_facts(record.caption, record.facts) for record in records],
            faces=faces.to(device),
            true=torch.where(far, faces, aligned(true, where, size)).to(device),
            crops=functional.interpolate(crops, size=(size, size), mode="area").to(device),
            people=torch.tensor([self._place[r.person_seed] for r in records], device=device),
            weights=torch.from_numpy(np.where(stays, STAYING_WEIGHT, 1.0)).float().to(device),
            has_face=torch.from_numpy(has_face).to(device),
            is_far=is_far.to(device),
            same_age=torch.tensor([record.kind != AGED for record in records], device=device),
        )

    def _elsewhere(self) -> Tensor:
        """(2, 3) a place beside the face."""
        zoom, y = float(self._random.uniform(0.2, 0.5)), float(self._random.uniform(-0.8, 0.8))
        return torch.tensor([[zoom, 0.0, self._random.choice([-0.75, 0.75])], [0.0, zoom, y]])

    def _others(self, row: int, record: PhotoRecord, photos: int) -> list[int]:
        """References of a row: any other photos of the person, the same twice if there are few."""
        pool = [other for other in self._people[record.person_seed] if other != row]
        return list(self._random.choice(pool, photos, replace=len(pool) < photos))


def _disturbed(
    drawn: Tensor, true: Tensor, found: Tensor, where: Tensor, crops: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """References as bad cameras make them; half of the rows mirrored, some tinted."""
    rows = len(drawn)
    flipped = torch.rand(rows, 1, 1, 1) < 0.5
    light = (torch.rand(2, rows, 1, 1, 1) < TINTED) * torch.randn(2, rows, 3, 1, 1) * 0.06

    def seen(pictures: Tensor) -> Tensor:
        turned = torch.where(flipped, pictures.flip(3), pictures)
        return (turned * (1.0 + light[0]) + light[1]).clamp(-1.0, 1.0)

    crops = disturb_references(crops)
    crops = torch.where(flipped.repeat_interleave(len(crops) // rows, 0), crops.flip(3), crops)
    found, where = (torch.where(flipped[..., 0], mirrored(at), at) for at in (found, where))
    return seen(drawn), seen(true), found, where, crops


def correction(refiner: FaceRefiner, batch: RefiningBatch) -> Tensor:
    """What the refiner adds to the faces of a batch."""
    rows = len(batch.faces)
    fine, middle, coarse = (
        maps.reshape(rows, -1, *maps.shape[1:]) for maps in refiner.describe(batch.crops)
    )
    added: Tensor = refiner(batch.faces, (fine, middle, coarse))
    return added


def refining_loss(added: Tensor, batch: RefiningBatch, teacher: Teacher | None = None) -> Tensor:
    """How far refined faces are from the true ones: pixels, detail, as seen, and who it is.

    Args:
        added: of `correction`.
        batch: the truth.
        teacher: without one pixels alone count.
    """
    faces = batch.faces + added
    weights = feature_weights(faces.shape[3]).to(faces.device)
    rows = batch.weights[:, None, None, None]
    error = faces - batch.true
    tone = functional.interpolate(
        functional.avg_pool2d(error, TONE), scale_factor=TONE, mode="bilinear", align_corners=False
    )
    error = torch.where(batch.is_far[:, None, None, None], tone, error)
    loss = added.new_zeros(())
    for weight, level in zip(PIXEL_WEIGHTS, (error, *laplacian_levels(error, 2)), strict=True):
        smaller = functional.interpolate(weights, size=level.shape[2:], mode="area")
        loss = loss + weight * (level.abs() * smaller * rows).mean()
    if teacher is None:
        return loss
    seen, person = _as_seen(teacher, faces, batch)
    loss = loss + SEEN_WEIGHT * seen + PERSON_WEIGHT * person
    if teacher.attributes is not None:
        loss = loss + EXPRESSION_WEIGHT * _expression_lost(teacher.attributes, added, batch)
    return loss


def feature_weights(size: int) -> Tensor:
    """(1, 1, size, size) how much each pixel of an upright face counts: eyes most."""
    y, x = np.mgrid[:size, :size] / size
    inside = np.hypot((x - 0.5) / 0.36, (y - 0.58) / 0.42) < 1.0
    weights = np.where(inside, 1.0, _BESIDE_THE_FACE).astype(np.float32)
    for middle_x, middle_y, reach, weight in _FEATURES:
        weights[np.hypot(x - middle_x, y - middle_y) < reach] = weight
    return torch.from_numpy(weights)[None, None]


def _as_seen(teacher: Teacher, faces: Tensor, batch: RefiningBatch) -> tuple[Tensor, Tensor]:
    """How differently a recogniser sees the faces, and how far it is from naming the person.

    Where it names, both faces are moved, softened and roughened alike, so that no single pixel is
    worth anything.
    """
    recogniser, rows = teacher.recogniser, len(faces)
    weights = feature_weights(faces.shape[3]).to(faces.device)
    moved = jitter(torch.eye(2, 3, device=faces.device).expand(rows, 2, 3))
    soft = torch.rand(rows, 1, 1, 1, device=faces.device) < 0.5
    noise = 0.05 * torch.randn_like(faces)

    def named(pictures: Tensor) -> Tensor:
        seen = softened(aligned(pictures, moved, pictures.shape[3]), soft, noise)
        side = int(recogniser.config.crop_size)
        found: tuple[Tensor, list[Tensor]] = recogniser(
            functional.interpolate(seen, size=(side, side), mode="bilinear", antialias=True)
        )
        return found[0]

    with torch.no_grad():
        wanted, wanted_maps = named(batch.true), first_maps(recogniser, batch.true)
    embeddings = named(faces)
    apart = 1.0 - (embeddings * wanted).sum(1)
    for one, two in zip(first_maps(recogniser, faces), wanted_maps, strict=True):
        smaller = functional.interpolate(weights, size=one.shape[2:], mode="area")[:, 0]
        apart = apart + (map_difference(one, two) * smaller).mean((1, 2)) / smaller.mean()
    missed = missed_person(embeddings, teacher.known, batch.people)
    # Whoever is decades older is not to look as on the selfies.
    counts = batch.has_face & batch.same_age
    return (
        (apart * (batch.has_face & ~batch.is_far) * batch.weights).mean(),
        (missed * counts).mean(),
    )


def _expression_lost(attributes: AttributeJudge, added: Tensor, batch: RefiningBatch) -> Tensor:
    """How far whole pictures are from the expression and glasses that were asked for.

    Where none was asked for, from those of the true photo or, in far rows, of the drawing.
    """
    size = batch.pictures.shape[2:]
    refined = batch.pictures + pasted(added, batch.thetas, size)
    with torch.no_grad():
        wanted = attributes(batch.kept)
    found = attributes(refined + 0.03 * torch.randn_like(refined))
    lost = added.new_zeros(())
    for name in KEPT_ATTRIBUTES:
        if name not in wanted:
            continue
        classes = list(attributes.config.attributes[name])
        asked_for = [wish.get(name) for wish in batch.wished]
        labels = torch.tensor(
            [classes.index(kind) if kind in classes else -1 for kind in asked_for],
            device=added.device,
        )
        asked = functional.cross_entropy(found[name].float(), labels.clamp(min=0), reduction="none")
        apart = functional.kl_div(
            found[name].float().log_softmax(1), wanted[name].float().softmax(1), reduction="none"
        )
        lost = lost + (torch.where(labels >= 0, asked, apart.sum(1)) * batch.has_face).mean()
    return lost

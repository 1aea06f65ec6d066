"""What drawn pictures are rewarded for: being that person, and showing what was asked.

The flow-matching loss never sees a picture the model drew itself: its inputs are photos with noise.
Here some rows are drawn as the product draws them, by its few guided steps, from a photo under so
much noise that only the rough layout is left. Two frozen teachers look at the last estimate, and
their gradient flows through the last step. Recognisers say who it is among all people of the
training set; an attribute network says whether what the caption asks for is there.

Neither teacher takes part in any evaluation: likeness is judged by dlib, prompts by another
attribute network, taught on other people.

Source: gradients of a reward through the last step of sampling, ReFL (arXiv 2304.05977) and DRaFT-1
(arXiv 2309.17400). Differs: drawing starts from a noised photo, so that the place of the face is
known without a detector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from imagine.backends.embedded import (
    DEFAULT_GUIDANCE_INTERVAL,
    DEFAULT_GUIDANCE_SCALE,
    Words,
    guidance_rows,
    make_scheduler,
)
from imagine.backends.prompt_judge import asked_attributes, load_attribute_network
from imagine.core import Request
from imagine.models.attribute_judge import AttributeJudge
from imagine.models.denoiser import Conditioning, Denoiser
from imagine.models.face_recogniser import FaceRecogniser, aligned
from training.datasets import PairedPhotos
from training.disturb import soften
from training.people.cache import PhotoRecord
from training.people.switched import AGED
from training.recogniser import jitter, load_recogniser

STEPS = 6  # of the whole drawing
STARTS = (1, 2)  # steps skipped by starting from a noised photo
ENDS = (4, 5)  # the step whose estimate is judged
LIKENESS = 0.7  # the product's default
IDENTITY_WEIGHT = 0.2
ATTRIBUTE_WEIGHT = 0.01
SHARPNESS = 16.0  # of the softmax over people


class Teachers:
    """Frozen networks that look at drawn pictures, and the faces they know."""

    def __init__(
        self,
        recognisers: Sequence[FaceRecogniser],
        attributes: AttributeJudge | None,
        photos: PairedPhotos,
    ) -> None:
        self._recognisers = recognisers
        self._attributes = attributes
        self._classes: Mapping[str, Sequence[str]] = (
            attributes.config.attributes if attributes is not None else {}
        )
        self._people = {seed: index for index, seed in enumerate(photos.person_seeds)}
        self._prototypes = [prototypes(recogniser, photos) for recogniser in recognisers]

    @classmethod
    def load(
        cls, recognisers: Sequence[Path], attributes: Path | None, photos: PairedPhotos, device: str
    ) -> Teachers:
        """Open weights of `training.recogniser` and `training.attributes`."""
        network = None
        if attributes is not None:
            network = load_attribute_network(attributes).to(device).eval().requires_grad_(False)
        return cls([load_recogniser(path, device) for path in recognisers], network, photos)

    def loss(self, pictures: Tensor, thetas: Tensor, records: Sequence[PhotoRecord]) -> Tensor:
        """How much drawn pictures miss.

        Args:
            pictures: (rows, 3, h, w) float in [-1, 1].
            thetas: (rows, 2, 3) of the faces, see `training.datasets.face_theta`.
            records: of the photos the rows started from.
        """
        loss = pictures.new_zeros(())
        # Whoever is decades older is not to look as on the selfies.
        same = [row for row, record in enumerate(records) if record.kind != AGED]
        if same and self._recognisers:
            people = torch.tensor(
                [self._people[records[row].person_seed] for row in same], device=pictures.device
            )
            missed = self._missed_likeness(pictures[same], thetas[same], people)
            loss = loss + IDENTITY_WEIGHT * len(same) / len(records) * missed
        if self._attributes is not None:
            loss = loss + ATTRIBUTE_WEIGHT * self._missed_wishes(pictures, records)
        return loss

    def _missed_likeness(self, pictures: Tensor, thetas: Tensor, people: Tensor) -> Tensor:
        missed = pictures.new_zeros(())
        for recogniser, known in zip(self._recognisers, self._prototypes, strict=True):
            embeddings, _ = recogniser(soften(recogniser.cut(pictures, jitter(thetas))))
            missed = missed + missed_person(embeddings, known, people).mean()
        return missed / len(self._recognisers)

    def _missed_wishes(self, pictures: Tensor, records: Sequence[PhotoRecord]) -> Tensor:
        assert self._attributes is not None
        logits = self._attributes(soften(_move(pictures)))
        wanted = [wished_facts(record.caption, record.facts) for record in records]
        missed = pictures.new_zeros(())
        for name, classes in self._classes.items():
            rows = [row for row, facts in enumerate(wanted) if facts.get(name) in classes]
            if rows:
                labels = [list(classes).index(wanted[row][name]) for row in rows]
                missed = missed + functional.cross_entropy(
                    logits[name][rows].float(),
                    torch.tensor(labels, device=pictures.device),
                    reduction="sum",
                )
        return missed / len(records)


def missed_person(embeddings: Tensor, known: Tensor, people: Tensor) -> Tensor:
    """(rows,) how far faces are from being told as their person's, from all and from that one.

    Args:
        embeddings: (rows, d) unit vectors.
        known: (everybody, d) of `prototypes`.
        people: (rows,) int64 into `known`.
    """
    cosines = embeddings @ known.T
    own = cosines.gather(1, people[:, None])[:, 0]
    among_all = functional.cross_entropy(SHARPNESS * cosines, people, reduction="none")
    missed: Tensor = 1.0 - own + 0.5 * among_all
    return missed


def wished_facts(caption: str, facts: Mapping[str, str]) -> dict[str, str]:
    """What a photo shows of what its caption names."""
    asked = asked_attributes(caption)
    return {name: facts[name] for name, kinds in asked.items() if facts.get(name) in kinds}


def draw_estimate(
    denoiser: Denoiser,
    images: Tensor,
    both: Conditioning,
    alone: Conditioning,
    nothing: Conditioning,
    random: np.random.Generator,
) -> Tensor:
    """The guided estimate of a late step, drawn from noised photos; only its last pass has a graph.

    Args:
        denoiser: in training.
        images: (rows, 3, h, w) float in [-1, 1], photos.
        both: the rows' prompt and person.
        alone: the prompts without a person.
        nothing: neither.
        random: draws where to start and which step to judge.

    Returns:
        (rows, 3, h, w) in [-1, 1].
    """
    sigmas, shares = _plan()
    start, end = int(random.choice(STARTS)), int(random.choice(ENDS))
    noisy = (1 - sigmas[start]) * images + sigmas[start] * torch.randn_like(images)
    for step in range(start, end + 1):
        level = torch.full((len(images),), sigmas[step], device=images.device)
        with torch.no_grad():
            others = shares[step][0] * denoiser(noisy, level, alone)
            if shares[step][1]:
                others = others + shares[step][1] * denoiser(noisy, level, nothing)
        with torch.set_grad_enabled(step == end):
            shown: Tensor = denoiser(noisy, level, both)
            estimate: Tensor = others.float() + shares[step][2] * shown.float()
        # The bounds of the product, without stopping the gradient at them.
        estimate = estimate + (estimate.clamp(-1.0, 1.0) - estimate).detach()
        if step < end:
            noisy = noisy.lerp(estimate, 1.0 - sigmas[step + 1] / sigmas[step])
    return estimate


@cache
def _plan() -> tuple[list[float], list[tuple[float, float, float]]]:
    """As at use: noise levels, and per step the weights of prompt alone, nothing, and both."""
    scheduler = make_scheduler()
    scheduler.set_timesteps(STEPS)
    request = Request(
        "a wish",
        np.zeros((1, 1, 1, 3), np.uint8),
        0,
        STEPS,
        DEFAULT_GUIDANCE_SCALE,
        LIKENESS,
        DEFAULT_GUIDANCE_INTERVAL,
    )
    rows = {(row.words, row.shows_person): row.weights for row in guidance_rows(request)}
    empty = (0.0,) * STEPS
    alone = rows.get((Words.PROMPT, False), empty)
    nothing = rows.get((Words.NOTHING, False), empty)
    shares = list(zip(alone, nothing, rows[Words.PROMPT, True], strict=True))
    return scheduler.sigmas.tolist(), shares


@torch.no_grad()
def prototypes(recogniser: FaceRecogniser, photos: PairedPhotos) -> Tensor:
    """(people, d) unit vectors, the mean of each person's photos."""
    means = []
    for images, thetas in photos.faces_of_everyone():
        embeddings, _ = recogniser(recogniser.cut(images, thetas))
        means.append(embeddings.mean(0))
    prototypes: Tensor = functional.normalize(torch.stack(means), dim=1)
    return prototypes


def _move(pictures: Tensor) -> Tensor:
    """Whole pictures a little nearer or farther, shifted, tilted, some mirrored."""
    rows, device = len(pictures), pictures.device
    whole = torch.eye(2, 3, device=device).expand(rows, 2, 3).clone()
    whole[:, :, 0] *= torch.where(torch.rand(rows, 1, device=device) < 0.5, 1.0, -1.0)
    return aligned(pictures, jitter(whole), pictures.shape[-1])

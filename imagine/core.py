"""The facts every room shares, as frozen dataclasses.

Pictures inside the house are RGB uint8 arrays (height, width, 3).
Arrays that describe a face never show their content in `repr`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

ImageArray = NDArray[np.uint8]  # (height, width, 3), RGB
FloatArray = NDArray[np.float32]

CROP_SIZE = 128  # side of an aligned face crop, pixels
SQUARE = "1:1"  # the shape of a picture when nobody says another, width to height
REDRAWS = 3  # how often a picture in which no face can be found is drawn again
# From the seed of a picture to that of its redraw, far from all others. Not a multiple of 2**32:
# torch's generator on a CPU looks at the low 32 bits of a seed only.
REDRAW_STRIDE = 2_654_435_761


@dataclass(frozen=True, slots=True)
class Face:
    """One detected face.

    Attributes:
        box: left, top, right, bottom in pixels of the selfie; may reach outside it.
        landmarks: (5, 2) float32, x, y in pixels of the selfie, in the picture's own order:
            left eye centre, right eye centre, nose tip, left mouth corner, right mouth corner
            ("left" is the left side of the picture). A detector without nose or mouth points
            estimates them from those it has.
        score: the detector's confidence; comparable only within one detector.
    """

    box: tuple[float, float, float, float]
    landmarks: FloatArray = field(repr=False)
    score: float

    @property
    def width(self) -> float:
        """Width of the box in pixels."""
        return self.box[2] - self.box[0]

    @property
    def height(self) -> float:
        """Height of the box in pixels."""
        return self.box[3] - self.box[1]


class PhotoVerdict(StrEnum):
    """What we do with a selfie."""

    KEEP = "keep"
    KEEP_WITH_ADVICE = "keep with advice"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class PhotoReport:
    """What we think of one selfie, in words a person understands.

    Attributes:
        name: file name or "selfie 2".
        verdict: keep, keep with advice, or refuse.
        sentences: plain advice, most important first; never empty.
        codes: stable machine names of the findings, e.g. "blurred", "several_faces".
        measures: figures behind the findings, e.g. {"face_width": 240.0, "yaw_degrees": 12.1}.
        face_count: how many faces were found.
    """

    name: str
    verdict: PhotoVerdict
    sentences: tuple[str, ...]
    codes: tuple[str, ...] = ()
    measures: dict[str, float] = field(default_factory=dict)
    face_count: int = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """One person, fused from one to five selfies.

    The crops stay separate, one per photo: a backend turns each into identity tokens of its own,
    because averaging photos loses likeness (PhotoMaker, arXiv 2312.04461, table 2a).

    Attributes:
        crops: (photos, CROP_SIZE, CROP_SIZE, 3) uint8, aligned, background masked to grey.
        embeddings: (photos, d) float32, one vector per photo from the recogniser.
        embedding: (d,) float32, the robustly fused vector likeness is measured against.
        recogniser: name of the face encoder that made the embeddings.
        reports: one report per photo given, in the order given.
        fingerprint: hex digest of the crops; names the identity in recipes, says nothing of it.
    """

    crops: ImageArray = field(repr=False)
    embeddings: FloatArray = field(repr=False)
    embedding: FloatArray = field(repr=False)
    recogniser: str
    reports: tuple[PhotoReport, ...]
    fingerprint: str

    @property
    def photo_count(self) -> int:
        """How many selfies carry this identity."""
        return len(self.crops)


@dataclass(frozen=True, slots=True)
class Request:
    """One image asked of a backend.

    Attributes:
        prompt: the wish, already allowed by policy.
        crops: (photos, CROP_SIZE, CROP_SIZE, 3) uint8 of one person, or None for a picture of
            nobody in particular.
        seed: 0 <= seed < 2**63, makes the picture repeatable.
        num_inference_steps: denoising steps, at least 1.
        guidance_scale: classifier-free guidance on the text, 1 means none.
        likeness: 0 (only the prompt speaks) to 1 (as alike as possible).
        guidance_interval: the share of the schedule, from and up to, in which guidance works;
            outside of it the picture is drawn as with guidance_scale 1, which costs fewer rows.
        traits: what the person shall show besides the prompt, see `imagine.traits`.
        beside: crops of a second person, who stands to the right of the first; None for one.
        aspect_ratio: width to height as "3:4", one of those the backend offers; two people are
            drawn in one shape only, which is asked for by leaving this alone.
    """

    prompt: str = field(repr=False)
    crops: ImageArray | None = field(repr=False)
    seed: int
    num_inference_steps: int
    guidance_scale: float
    likeness: float
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    traits: Mapping[str, str] = field(default_factory=dict, repr=False)
    beside: ImageArray | None = field(default=None, repr=False)
    aspect_ratio: str = SQUARE

    def guides_at(self, step: int) -> bool:
        """Whether guidance works at a step, counted from 0."""
        start, end = self.guidance_interval
        return start <= step / self.num_inference_steps < end


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that is needed to make the same picture again, given the same selfies.

    `licence` says in words what the weights behind the picture may be used for; guidance worked
    from the share `guidance_from` of the schedule up to the share `guidance_until`; `record` is
    the audit entry its marks lead to, 0 for none; `traits` are those switched, kept ones with the
    value read from the selfies, as "glasses=none; hair_colour=brown"; `beside_fingerprint` names
    the second person, who stands to the right, and is empty where there is none; `aspect_ratio` is
    width to height as asked for, and "1:1" in recipes from before there was a choice.
    """

    prompt: str
    seed: int
    num_inference_steps: int
    guidance_scale: float
    likeness: float
    backend: str
    model_revision: str
    identity_fingerprint: str
    version: str
    licence: str = ""
    guidance_from: float = 0.0
    guidance_until: float = 1.0
    record: int = 0
    traits: str = ""
    beside_fingerprint: str = ""
    aspect_ratio: str = SQUARE


@dataclass(frozen=True, slots=True)
class LikenessVerdict:
    """How much a picture looks like its person, by a recogniser that did not condition it.

    Attributes:
        face_found: whether the recogniser found a face in the picture.
        distance: L2 distance to the person's fused embedding; None without a face.
        score: 0 (nobody would say it is them, or no face) to 1, a calibrated map of distance.
        copy_score: how much nearer the picture is to one selfie than to the others of the
            person, in [-1, 1]; None with fewer than two selfies or no face.
        words: the verdict as a sentence.
    """

    face_found: bool
    distance: float | None
    score: float
    copy_score: float | None
    words: str


@dataclass(frozen=True, slots=True)
class PairVerdict:
    """How much a picture of two people looks like each of them, and whether they were mixed.

    Attributes:
        left: the verdict on the face on the left and the person who belongs there.
        right: the same on the right.
        blending: 0 where each face is wholly its own person's, 0.5 half way between the two, 1 the
            other's; the worse of the two faces. None unless both faces were found.
    """

    left: LikenessVerdict
    right: LikenessVerdict
    blending: float | None

    @property
    def is_assigned(self) -> bool:
        """Whether both faces are there and each is nearer to its own person."""
        return self.blending is not None and self.blending < 0.5

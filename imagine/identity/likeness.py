"""Does the picture look like the person? Asked of a recogniser that did not help to make it.

Leaves finding and embedding faces to the detector and encoder it is handed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from imagine.core import Face, FloatArray, Identity, ImageArray, LikenessVerdict, PairVerdict
from imagine.identity.base import FaceDetector, FaceEncoder

# A pair at the encoder's threshold scores 0.5, one at 0.75 of it 0.92, one at 1.33 of it 0.03:
# the slope that puts typical photographs of one person and of two people near those ends.
STEEPNESS = 10.0
# Score from which we say "looks like you": distance up to 0.86 of the threshold. Blurred faces lie
# nearer to everybody than photographs do, so the threshold itself would flatter (training/LOG.md).
LOOKS_LIKE = 0.8
SOMETHING_OF = 0.3  # score from which we say "something of you": up to 1.08 of the threshold
COPY = 0.7  # copy score from which we say "close to a copy"

NO_FACE = "No face could be found in this picture."
CLOSE_COPY = "This is close to a copy of your photo."


def judge_likeness(
    image: ImageArray, identity: Identity, detector: FaceDetector, encoder: FaceEncoder
) -> LikenessVerdict:
    """Compare the largest face of a picture with the person.

    Args:
        image: (height, width, 3) uint8 RGB, the finished picture.
        identity: the person the picture was made of.
        detector: finds the face.
        encoder: the recogniser that made the identity's embeddings; any other cannot compare.

    Returns:
        The verdict in figures and words. A picture without a face scores 0.
    """
    faces = detector.detect(image)
    if not faces:
        return _without_face(NO_FACE)
    largest: Face = max(faces, key=_area)
    embedding = encoder.embed(image, largest)
    return _compared(embedding, identity, encoder, _in_words)


def judge_pair(
    image: ImageArray,
    people: tuple[Identity, Identity],
    detector: FaceDetector,
    encoder: FaceEncoder,
) -> PairVerdict:
    """Compare the two largest faces of a picture with the two people it was made of.

    The place of a face says whose it ought to be: nobody is looked for elsewhere, so people who
    changed places do not look like themselves.

    Args:
        image: (height, width, 3) uint8 RGB, the finished picture.
        people: who ought to be on the left, who on the right.
        detector: finds the faces.
        encoder: the recogniser that made the embeddings of both.

    Source: the blending of WithAnyone, arXiv:2510.14975, eq. 10, there a mean similarity to the
    other people; here relative to the own person, since a small face is near to everybody.
    """
    sides = {"left": people[0], "right": people[1]}
    faces = _one_a_side(detector.detect(image), image.shape[1])
    embeddings = {side: encoder.embed(image, face) for side, face in faces.items()}
    verdicts = {
        side: _compared(embeddings[side], person, encoder, partial(_in_words_of, side))
        if side in embeddings
        else _without_face(f"No face could be found on the {side}.")
        for side, person in sides.items()
    }
    blending = None
    if len(embeddings) == 2:
        apart = max(float(encoder.distance(people[0].embedding, people[1].embedding)), 1e-6)
        leads = [
            float(encoder.distance(embeddings[side], sides[side].embedding))
            - float(encoder.distance(embeddings[side], sides[other].embedding))
            for side, other in (("left", "right"), ("right", "left"))
        ]
        blending = float(np.clip(0.5 + 0.5 * max(leads) / apart, 0.0, 1.0))
    return PairVerdict(verdicts["left"], verdicts["right"], blending)


def _one_a_side(faces: Sequence[Face], width: int) -> dict[str, Face]:
    """The two largest faces in their order; one alone belongs to the half its middle lies in."""
    largest = sorted(faces, key=_area, reverse=True)[:2]
    if len(largest) == 1:
        side = "left" if _middle(largest[0]) < width / 2 else "right"
        return {side: largest[0]}
    return dict(zip(("left", "right"), sorted(largest, key=_middle), strict=False))


def _area(face: Face) -> float:
    return face.width * face.height


def _middle(face: Face) -> float:
    return (face.box[0] + face.box[2]) / 2


def _without_face(words: str) -> LikenessVerdict:
    return LikenessVerdict(face_found=False, distance=None, score=0.0, copy_score=None, words=words)


def _compared(
    embedding: FloatArray,
    identity: Identity,
    encoder: FaceEncoder,
    in_words: Callable[[float, float | None], str],
) -> LikenessVerdict:
    distance = float(encoder.distance(embedding, identity.embedding))
    score = likeness_score(distance, encoder.same_person_distance)
    copy = copy_score(embedding, identity.embeddings, encoder)
    return LikenessVerdict(
        face_found=True,
        distance=distance,
        score=score,
        copy_score=copy,
        words=in_words(score, copy),
    )


def likeness_score(distance: float, same_person_distance: float) -> float:
    """Map a distance to [0, 1]: a logistic with 0.5 at the encoder's same-person threshold.

    It is a scale for people to read, not a probability: how often strangers reach a score depends
    on who they are, and is measured by `imagine-me eval`.
    """
    exponent = STEEPNESS * (distance / same_person_distance - 1.0)
    return 1.0 / (1.0 + math.exp(min(exponent, 50.0)))


def copy_score(embedding: FloatArray, selfies: FloatArray, encoder: FaceEncoder) -> float | None:
    """How much nearer the picture is to one selfie than to the others, in [-1, 1].

    With r the nearest selfie and t the others: (mean d(g, t) - d(g, r)) / max(mean d(t, r), e).
    1 is a copy of that selfie, 0 a picture equally far from all. The encoder's own distance
    stands in for the angle, and e keeps nearly equal selfies from inflating the score.

    Args:
        embedding: (d,) of the picture's face.
        selfies: (photos, d), one embedding per selfie.
        encoder: measures the distances.

    Returns:
        None with fewer than two selfies: nothing tells a copy from a likeness then.

    Source: the copy-paste metric of WithAnyone, arXiv:2510.14975, there with one held-out target.
    """
    if len(selfies) < 2:
        return None
    distances = np.array([encoder.distance(embedding, selfie) for selfie in selfies])
    nearest = int(distances.argmin())
    others = [index for index in range(len(selfies)) if index != nearest]
    spread = float(np.mean([encoder.distance(selfies[nearest], selfies[i]) for i in others]))
    least_spread = 0.25 * encoder.same_person_distance
    lead = float(distances[others].mean() - distances[nearest])
    return float(np.clip(lead / max(spread, least_spread), -1.0, 1.0))


def _in_words(score: float, copy: float | None) -> str:
    if copy is not None and copy >= COPY and score >= LOOKS_LIKE:
        return CLOSE_COPY
    if score >= LOOKS_LIKE:
        return "This looks like you."
    if score >= SOMETHING_OF:
        return "This has something of you."
    return "This does not look like you."


def _in_words_of(side: str, score: float, copy: float | None) -> str:
    if copy is not None and copy >= COPY and score >= LOOKS_LIKE:
        return f"The face on the {side} is close to a copy of a photo."
    if score >= LOOKS_LIKE:
        return f"The face on the {side} looks like its person."
    if score >= SOMETHING_OF:
        return f"The face on the {side} has something of its person."
    return f"The face on the {side} does not look like its person."

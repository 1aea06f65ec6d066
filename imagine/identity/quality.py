"""What a person should know about a selfie before it is used: kept, kept with advice, refused.

Judges one decoded photo and the faces found in it. Whether several photos show one person is
`imagine.identity.fuse`'s question.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from imagine.core import (
    CROP_SIZE,
    Face,
    FloatArray,
    ImageArray,
    PhotoReport,
    PhotoVerdict,
)
from imagine.identity.align import TEMPLATE, similarity_transform, warp

# Measured on the astronaut portrait (512 pixels, 43 between the eyes) and six faces of a group
# photo; "drift" is how far dlib's embedding moves, 0.6 being another person.

# Hairline to chin is about 2.9 times the distance of the eyes.
FACE_PER_EYE_DISTANCE = 2.9
# Advised: below this the 128-pixel crop is enlarged. Drift at 123 px 0, 93 px 0.08, 62 px 0.20.
ADVISED_FACE_SIZE = 112.0
# Refused: drift 0.33 at 47 px, half of a stranger's.
MINIMUM_FACE_SIZE = 64.0

# Spread of the Laplacian over spread of brightness, inside the face of the crop. Sharp photos have
# 0.38 to 0.83; Gaussian blur of 1.5 px gives 0.18 (drift 0.3), of 3 px 0.06 to 0.11 (drift 0.5).
ADVISED_SHARPNESS = 0.20
MINIMUM_SHARPNESS = 0.09

# Brightest twentieth of the face, 0 to 255: not the mean, which would call dark skin a dark photo.
# Good light 207 to 222; at a fifth of the light 43 (drift 0.32), at a tenth 21 (0.44).
ADVISED_HIGHLIGHT = 80.0
MINIMUM_HIGHLIGHT = 40.0
# Share of the face burnt out to white: 0 in good photos, 0.24 at 1.3 times the light, 0.62 at 1.6
# (drift 0.33), and no face is found beyond.
ADVISED_BURNT = 0.15
MAXIMUM_BURNT = 0.5
# Brightest less darkest twentieth: good light 113 to 140, a haze of one fifth contrast 24.
ADVISED_CONTRAST = 35.0

# Of a simple head model (see `head_pose`); good for words, not for measuring.
ADVISED_YAW_DEGREES = 28.0
MAXIMUM_YAW_DEGREES = 50.0
ADVISED_PITCH_DEGREES = 25.0
MAXIMUM_PITCH_DEGREES = 40.0
ADVISED_ROLL_DEGREES = 30.0  # the crop is levelled anyway

# Share of the face (hairline to chin) that lies outside the photo.
ADVISED_CUT = 0.03
MAXIMUM_CUT = 0.15

# A face this much smaller than the largest stands in the background and asks no question.
BYSTANDER_SIZE = 0.4

_NOSE_DOWN, _NOSE_OUT = 0.57, 0.55  # the nose tip in eye distances, see `head_pose`
_NUMBERS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to say about a photo."""

    code: str
    verdict: PhotoVerdict
    sentence: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Which face of a photo is meant, if that is clear, and what to say about it."""

    face: Face | None
    findings: tuple[Finding, ...] = ()


def choose_face(faces: Sequence[Face], choose: int | None) -> Choice:
    """Decide which face is meant.

    Args:
        faces: all faces of the photo, left to right.
        choose: which of them, 0 is left; None when nobody said.
    """
    if not faces:
        return Choice(None, (_no_face(),))
    if choose is not None:
        if 0 <= choose < len(faces):
            return Choice(faces[choose])
        return Choice(None, (_no_such_face(choose, len(faces)),))
    largest = max(faces, key=eye_distance)
    others = [face for face in faces if face is not largest]
    if any(eye_distance(face) >= BYSTANDER_SIZE * eye_distance(largest) for face in others):
        return Choice(None, (_several_faces(len(faces)),))
    return Choice(largest, (_bystanders(len(others)),) if others else ())


def assess(image: ImageArray, face: Face) -> tuple[tuple[Finding, ...], dict[str, float]]:
    """Judge one face of a photo.

    Args:
        image: (height, width, 3) uint8 RGB.
        face: the face that is meant.

    Returns:
        The findings, refusals first and most important first, and the figures behind them.
    """
    measures = measure(image, face)
    findings = [
        *_cut_findings(measures["cut_share"]),
        *_size_findings(measures["face_size"]),
        *_pose_findings(measures),
        *_light_findings(measures),
        *_blur_findings(measures["sharpness"]),
    ]
    findings.sort(key=lambda finding: finding.verdict is not PhotoVerdict.REFUSE)
    return tuple(findings), measures


def report(
    name: str, findings: Sequence[Finding], measures: dict[str, float], face_count: int
) -> PhotoReport:
    """Put findings into words; a photo without any is good."""
    verdicts = {finding.verdict for finding in findings}
    if PhotoVerdict.REFUSE in verdicts:
        verdict = PhotoVerdict.REFUSE
    elif findings:
        verdict = PhotoVerdict.KEEP_WITH_ADVICE
    else:
        verdict = PhotoVerdict.KEEP
    return PhotoReport(
        name=name,
        verdict=verdict,
        sentences=tuple(f.sentence for f in findings) or ("A good photo.",),
        codes=tuple(f.code for f in findings),
        measures=measures,
        face_count=face_count,
    )


def measure(image: ImageArray, face: Face) -> dict[str, float]:
    """The figures a photo is judged by; see the constants of this module for their meaning."""
    forward = similarity_transform(
        face.landmarks[:3], TEMPLATE.astype(np.float32) * np.float32(CROP_SIZE)
    )
    crop = warp(image, forward, CROP_SIZE)
    inside = _face_region()
    grey = crop.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    dark, bright = np.percentile(grey[inside], [5, 95])
    yaw, pitch, roll = head_pose(face.landmarks)
    frontal_eyes = eye_distance(face) / max(math.cos(math.radians(yaw)), 0.5)
    return {
        "face_size": FACE_PER_EYE_DISTANCE * frontal_eyes,
        "sharpness": _sharpness(grey, inside),
        "highlight": float(bright),
        "contrast": float(bright - dark),
        "burnt_share": float((grey[inside] > 250).mean()),
        "cut_share": _cut_share(image.shape[0], image.shape[1], forward),
        "yaw_degrees": yaw,
        "pitch_degrees": pitch,
        "roll_degrees": roll,
    }


def eye_distance(face: Face) -> float:
    """Distance between the eye centres, pixels of the photo."""
    return float(np.linalg.norm(face.landmarks[1] - face.landmarks[0]))


def head_pose(landmarks: FloatArray) -> tuple[float, float, float]:
    """Estimate how a head is turned, from eyes and nose tip alone.

    Weak perspective and one head for everybody: the nose tip lies 0.57 eye distances below the
    eyes and stands 0.55 out from them. Right to about 15 degrees; beyond 45 it says too little.

    Args:
        landmarks: (5, 2) float32 as in `imagine.core.Face`.

    Returns:
        yaw (positive: the nose points to the right of the picture), pitch (positive: down) and
        roll (positive: tilted clockwise), degrees.
    """
    across = landmarks[1].astype(np.float64) - landmarks[0]
    eyes = max(float(np.hypot(*across)), 1e-6)
    across = across / eyes
    down = np.array([-across[1], across[0]])
    nose = (landmarks[2] - (landmarks[0] + landmarks[1]) / 2) / eyes
    aside, below = float(nose @ across), float(nose @ down)
    # Nodding by p, then turning by y: aside = (out cos p - down sin p) tan y, and
    # below = (down cos p + out sin p) / cos y. Solved by half steps: whole ones can end in a
    # second solution with far more turn. The clips keep wild points tame.
    yaw = pitch = 0.0
    for _ in range(40):
        out = max(0.15, _NOSE_OUT * math.cos(pitch) - _NOSE_DOWN * math.sin(pitch))
        yaw += 0.5 * (math.atan2(aside, out) - yaw)
        height = min(1.0, below * math.cos(yaw) / math.hypot(_NOSE_DOWN, _NOSE_OUT))
        angle = math.atan2(_NOSE_OUT, _NOSE_DOWN) - math.acos(max(-1.0, height))
        pitch += 0.5 * (angle - pitch)
    roll = math.atan2(across[1], across[0])
    return math.degrees(yaw), math.degrees(pitch), math.degrees(roll)


@lru_cache(maxsize=1)
def _face_region() -> NDArray[np.bool_]:
    """The skin of an aligned crop: brow to chin, without hair and background."""
    y, x = (np.mgrid[0:CROP_SIZE, 0:CROP_SIZE] + 0.5) / CROP_SIZE
    region: NDArray[np.bool_] = ((x - 0.5) / 0.27) ** 2 + ((y - 0.58) / 0.36) ** 2 < 1.0
    return region


def _sharpness(grey: NDArray[np.float64], inside: NDArray[np.bool_]) -> float:
    neighbours = sum(np.roll(grey, step, axis) for step in (1, -1) for axis in (0, 1))
    laplacian = neighbours - 4.0 * grey
    # One grey level is added so that a face of one colour is not divided by nothing.
    return float(laplacian[inside].std() / (grey[inside].std() + 1.0))


def _cut_share(height: int, width: int, forward: NDArray[np.float64]) -> float:
    """How much of the face region lies outside a photo of this size."""
    inverse = np.linalg.inv(np.vstack([forward, [0.0, 0.0, 1.0]]))[:2]
    rows, columns = np.nonzero(_face_region())
    points = inverse[:, :2] @ np.stack([columns + 0.5, rows + 0.5]) + inverse[:, 2:]
    x, y = points
    outside = (x < 0) | (y < 0) | (x >= width) | (y >= height)
    return float(outside.mean())


def _refuse(code: str, sentence: str) -> Finding:
    return Finding(code, PhotoVerdict.REFUSE, sentence)


def _advise(code: str, sentence: str) -> Finding:
    return Finding(code, PhotoVerdict.KEEP_WITH_ADVICE, sentence)


def count_in_words(count: int) -> str:
    """Small numbers as words: "Two", then figures from ten."""
    return _NUMBERS[count] if count < len(_NUMBERS) else str(count)


def _no_face() -> Finding:
    return _refuse(
        "no_face",
        "No face found. Choose a photo where your face is lit, uncovered, turned to the camera "
        f"and at least {ADVISED_FACE_SIZE:.0f} pixels high.",
    )


def _no_such_face(choose: int, count: int) -> Finding:
    found = "one face, number 0" if count == 1 else f"faces 0 (left) to {count - 1}"
    return _refuse("no_such_face", f"There is no face {choose}: this photo shows {found}.")


def _several_faces(count: int) -> Finding:
    last = "" if count == 2 else f", {count - 1} is right"
    return _refuse(
        "several_faces",
        f"{count_in_words(count)} faces. Crop to yours, or say which: 0 is left{last}.",
    )


def _bystanders(count: int) -> Finding:
    what = "face" if count == 1 else "faces"
    return _advise(
        "bystanders",
        f"{count_in_words(count)} small {what} in the background; the largest face is used.",
    )


def _cut_findings(share: float) -> list[Finding]:
    if share > MAXIMUM_CUT:
        return [
            _refuse(
                "cut_off",
                f"The border cuts off {share:.0%} of the face. "
                "Choose a photo that shows all of it.",
            )
        ]
    if share > ADVISED_CUT:
        return [
            _advise("cut_off", "The border cuts the face a little. A photo with room around helps.")
        ]
    return []


def _size_findings(size: float) -> list[Finding]:
    if size < MINIMUM_FACE_SIZE:
        return [
            _refuse(
                "small_face",
                f"The face is only {size:.0f} pixels high; at least {MINIMUM_FACE_SIZE:.0f} are "
                f"needed, {ADVISED_FACE_SIZE:.0f} are better. Choose a closer or larger photo.",
            )
        ]
    if size < ADVISED_FACE_SIZE:
        return [
            _advise(
                "small_face",
                f"The face is {size:.0f} pixels high; from {ADVISED_FACE_SIZE:.0f} on the "
                "likeness is better.",
            )
        ]
    return []


def _pose_findings(measures: dict[str, float]) -> list[Finding]:
    yaw, pitch = abs(measures["yaw_degrees"]), measures["pitch_degrees"]
    findings = []
    if yaw > MAXIMUM_YAW_DEGREES:
        findings.append(
            _refuse(
                "turned_aside",
                f"The head is turned aside by about {yaw:.0f} degrees. Look towards the camera.",
            )
        )
    elif yaw > ADVISED_YAW_DEGREES:
        findings.append(
            _advise(
                "turned_aside",
                f"The head is turned aside by about {yaw:.0f} degrees; "
                "add a photo that looks straight at the camera.",
            )
        )
    if abs(pitch) > ADVISED_PITCH_DEGREES and yaw <= ADVISED_YAW_DEGREES:
        way = "down" if pitch > 0 else "up"
        sentence = (
            f"The head looks {way} by about {abs(pitch):.0f} degrees. "
            "Hold the camera level with your eyes."
        )
        finding = _refuse if abs(pitch) > MAXIMUM_PITCH_DEGREES else _advise
        findings.append(finding("turned_up_or_down", sentence))
    if abs(measures["roll_degrees"]) > ADVISED_ROLL_DEGREES:
        findings.append(
            _advise("tilted", "The photo or the head is tilted; it was set upright for you.")
        )
    return findings


def _light_findings(measures: dict[str, float]) -> list[Finding]:
    if measures["highlight"] < MINIMUM_HIGHLIGHT:
        return [_refuse("too_dark", "The face is too dark to see. Turn towards the light.")]
    if measures["burnt_share"] > MAXIMUM_BURNT:
        return [
            _refuse(
                "too_bright",
                f"{measures['burnt_share']:.0%} of the face is burnt out to white. "
                "Step out of the harsh light.",
            )
        ]
    if measures["highlight"] < ADVISED_HIGHLIGHT:
        return [_advise("too_dark", "The face is rather dark. More light helps.")]
    if measures["burnt_share"] > ADVISED_BURNT:
        return [_advise("too_bright", "Parts of the face are burnt out. Softer light helps.")]
    if measures["contrast"] < ADVISED_CONTRAST:
        return [_advise("flat_light", "The face has hardly any contrast. Wipe the lens.")]
    return []


def _blur_findings(sharpness: float) -> list[Finding]:
    if sharpness < MINIMUM_SHARPNESS:
        return [
            _refuse("blurred", "The face is badly blurred. Hold still and let the camera focus.")
        ]
    if sharpness < ADVISED_SHARPNESS:
        return [_advise("blurred", "The face is a little blurred. A sharper photo helps.")]
    return []

"""Figures of the evaluation, as pure functions of distances, embeddings and answers.

Distances are small for one person. A picture without a face has distance `inf` to everybody: it
loses every comparison as a genuine pair and takes no part as an impostor, so that failing never
raises a score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
# Two selfies nearly alike would blow a copy score up; arXiv 2510.14975 guards with an epsilon.
SMALLEST_ANGLE = 0.1


def area_under_curve(genuine: FloatArray, impostor: FloatArray) -> float:
    """Chance that a genuine pair is nearer than an impostor pair; a tie counts half.

    Args:
        genuine: (n,) distances of pictures to their own person; inf where no face was found.
        impostor: (m,) distances to other people; infinite ones are left out.

    Returns:
        0 to 1; nan when either side is empty.
    """
    others = np.sort(impostor[np.isfinite(impostor)])
    if not len(genuine) or not len(others):
        return float("nan")
    below = np.searchsorted(others, genuine, side="left")
    through = np.searchsorted(others, genuine, side="right")
    beaten = len(others) - through + 0.5 * (through - below)
    return float(np.where(np.isfinite(genuine), beaten, 0.0).mean() / len(others))


def true_accept_rate(
    genuine: FloatArray, impostor: FloatArray, false_accept_rate: float = 0.01
) -> float:
    """Share of genuine pairs accepted at the threshold that lets this share of impostors in.

    The threshold is the largest distance at which no more than that share of impostor pairs is
    strictly nearer or equal. Arguments as `area_under_curve`.
    """
    others = np.sort(impostor[np.isfinite(impostor)])
    if not len(genuine) or not len(others):
        return float("nan")
    allowed = int(np.floor(false_accept_rate * len(others)))
    threshold = others[allowed]  # the first impostor that must stay out
    return float((genuine < threshold).mean())


def angle(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Angle between two embeddings, radians; 0 where one has no length."""
    lengths = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
    if lengths == 0.0:
        return 0.0
    return float(np.arccos(np.clip(float(first @ second) / lengths, -1.0, 1.0)))


def copy_paste(
    generated: NDArray[np.float32],
    reference: NDArray[np.float32],
    target: NDArray[np.float32],
) -> float:
    """How much nearer a picture is to the photo it was made from than to another of that person.

    Returns:
        (angle(g, t) - angle(g, r)) / max(angle(t, r), e), clipped to [-1, 1]: 1 returns the
        reference, 0 is as near to either, -1 returns the target.

    Source: WithAnyone, arXiv 2510.14975, equation of CP; there with ArcFace, here with dlib's
    vectors, whose angles we take although that recogniser is used with L2 elsewhere.
    """
    lead = angle(generated, target) - angle(generated, reference)
    return float(np.clip(lead / max(angle(target, reference), SMALLEST_ANGLE), -1.0, 1.0))


def shows(seen: Mapping[str, Mapping[str, float]], attribute: str, wanted: Sequence[str]) -> bool:
    """Whether the likeliest class of an attribute is one of those asked for."""
    classes = seen.get(attribute)
    return classes is not None and max(classes, key=classes.__getitem__) in wanted


def prompt_accuracy(
    pictures: Sequence[Mapping[str, Mapping[str, float]] | None],
    wishes: Sequence[Mapping[str, Sequence[str]]],
) -> dict[str, float]:
    """Share of wishes fulfilled, per attribute, and their mean under "mean".

    Args:
        pictures: what each picture shows; None (no face found) fulfils nothing.
        wishes: what each picture was asked to show: attribute -> classes that satisfy.

    Returns:
        Attributes nobody asked for are absent. "mean" is over attributes.
    """
    right: dict[str, list[bool]] = {}
    for seen, wish in zip(pictures, wishes, strict=True):
        for attribute, wanted in wish.items():
            good = seen is not None and shows(seen, attribute, wanted)
            right.setdefault(attribute, []).append(good)
    shares = {name: float(np.mean(values)) for name, values in right.items()}
    return {**shares, "mean": float(np.mean(list(shares.values())))} if shares else {}

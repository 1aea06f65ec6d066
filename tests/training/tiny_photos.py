"""Photo records and words for caches that tests fill with noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from training.people.cache import PhotoRecord


class NoWords:
    """In place of the text encoder: two tokens for whatever is said."""

    def __call__(self, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.ones(len(prompts), 2, 384), torch.ones(len(prompts), 2, dtype=torch.bool)


def numbered_record(
    number: int,
    a_person: int,
    kind: str = "selfie",
    caption: str = "me",
    facts: Mapping[str, str] | None = None,
    scale: float = 1.0,
) -> PhotoRecord:
    """The photo of this number where everybody has as many; the face is the same in all.

    Args:
        number: from 0.
        a_person: photos of each person.
        kind: of the photo.
        caption: of the photo.
        facts: that hold; none where left out.
        scale: side of the photo, in 128 pixels.
    """
    landmarks = [[50, 55], [78, 55], [64, 74], [54, 90], [74, 90]]
    return PhotoRecord(
        person_seed=number // a_person,
        photo=number % a_person,
        scene_seed=number,
        kind=kind,
        caption=caption,
        facts=dict(facts or {}),
        landmarks=[[scale * x, scale * y] for x, y in landmarks],
        face_box=[scale * edge for edge in (34.0, 30.0, 94.0, 105.0)],
        visible=True,
    )

"""Every picture gets its audit entry, then its marks; the one door before a picture leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from imagine.core import ImageArray, Recipe
from imagine.provenance.mark import MarkedImage, mark_image
from imagine.provenance.marker import AuditReference, Marker

# Writes down facts about a picture and returns the number of the entry.
AppendEntry = Callable[[Mapping[str, object]], int]


class Marking:
    """Marks pictures in the name of this installation.

    Args:
        marker: watermark, label and signature.
        append: the audit log.
        policy_sha256: of the policy in force, hex.
    """

    def __init__(self, marker: Marker, append: AppendEntry, policy_sha256: str) -> None:
        self._marker = marker
        self._append = append
        self._policy = policy_sha256

    def __call__(self, image: ImageArray, recipe: Recipe | None) -> MarkedImage:
        """Mark a picture, (h, w, 3) uint8 RGB; the recipe comes out with its audit entry.

        A recipe that has an entry already is a picture made again: it keeps the entry, so that
        its pixels are those of the first time.

        Raises:
            NotMarked: the picture cannot carry the marks and must not leave.
        """
        record = recipe.record if recipe else 0
        while not record:  # entry 0 begins a log; a record of 0 means that there is none
            record = self._append(_facts(recipe, self._policy))
        if recipe is not None:
            recipe = replace(recipe, record=record)
        model = recipe.model_revision if recipe else ""
        return mark_image(image, recipe, self._marker, AuditReference(record, model, self._policy))


def _facts(recipe: Recipe | None, policy: str) -> dict[str, object]:
    """What the log may know of a picture: nothing of the person, nothing of the wish."""
    if recipe is None:
        return {"kind": "sheet", "policy": policy[:16]}
    return {"backend": recipe.backend, "model": recipe.model_revision, "policy": policy[:16]}

"""Every picture gets its audit entry, then its marks; the one door before a picture leaves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from imagine.core import ImageArray, Recipe
from imagine.errors import InvalidInput
from imagine.provenance.mark import MarkedImage, mark_image, note_named
from imagine.provenance.marker import AuditReference, Marker, open_marker
from imagine.provenance.recipe_note import RecipeNote
from imagine.provenance.registry import HashFile, PerceptualHash
from imagine.provenance.rewriting import rewritten
from imagine.provenance.signing import MARKS_FOLDER, OperatorCertificate
from imagine.provenance.verify import HASHES_FILE
from imagine.settings import Settings

# Writes down facts about a picture and returns the number of the entry.
AppendEntry = Callable[[Mapping[str, object]], int]
# The same for entries of any kind: the kind, then the facts.
AppendKind = Callable[[str, Mapping[str, object]], int]
Remember = Callable[[int, PerceptualHash], None]
MARKED = "picture.marked"  # kind of the entries
logger = logging.getLogger(__name__)


class Marking:
    """Marks pictures in the name of this installation.

    Args:
        marker: watermark, label and signature.
        append: the audit log.
        policy_sha256: of the policy in force, hex.
        remember: keeps how a picture looks, under its entry; None keeps nothing.
    """

    def __init__(
        self,
        marker: Marker,
        append: AppendEntry,
        policy_sha256: str,
        remember: Remember | None = None,
    ) -> None:
        self._marker = marker
        self._append = append
        self._policy = policy_sha256
        self._remember = remember

    def __call__(self, image: ImageArray, recipe: Recipe | None) -> MarkedImage:
        """Mark a picture, (h, w, 3) uint8 RGB; the recipe comes out with its audit entry.

        A recipe that has an entry already is a picture made again: it keeps the entry, so that
        its pixels are those of the first time.

        Raises:
            NotMarked: the picture cannot carry the marks and must not leave.
        """
        record = recipe.record if recipe else 0
        is_new = not record
        while not record:  # entry 0 begins a log; a record of 0 means that there is none
            record = self._append(_facts(recipe, self._policy))
        if recipe is not None:
            recipe = replace(recipe, record=record)
        model = recipe.model_revision if recipe else ""
        marked = mark_image(
            image, recipe, self._marker, AuditReference(record, model, self._policy)
        )
        if is_new and self._remember and marked.seal:
            self._remember(record, PerceptualHash.from_hex(marked.seal.facts.perceptual_hash))
        return marked

    def rewrite(
        self,
        data: bytes,
        suffix: str,
        recipe: Recipe | None = None,
        note: RecipeNote = RecipeNote.NONE,
    ) -> bytes:
        """A file that was marked here in another format, with the same record; see `rewritten`.

        Raises:
            InvalidInput: another suffix than ".png", ".jpg" or ".webp".
            NotMarked: it is not ours, was changed since, or could not be signed.
        """
        marker = self._marker
        return rewritten(data, suffix, marker.identity, recipe, note, marker.box)


def make_marking(settings: Settings, append: AppendKind, policy_sha256: str) -> Marking:
    """The marking of an installation: keys in its data folder, entries in its audit log.

    Args:
        settings: where the keys are, who signs, who may read recipes.
        append: writes an entry of a kind and returns its number.
        policy_sha256: of the policy in force, hex.

    Raises:
        InvalidInput: the settings of the marks contradict each other.
        MarkingKeyUnusable: the keys of the marks cannot be used.
        MissingExtra, MissingWeights, CorruptWeights, UnknownName: the learned watermark of the
            settings is not here.
    """
    folder = settings.data_directory / MARKS_FOLDER
    marker, keys = open_marker(
        folder,
        timestamp_url=settings.timestamp_url or None,
        note=note_named(settings.recipe_in_files),
        operator=_operator(settings),
        learned=settings.learned_watermark,
    )
    if keys.note:
        logger.warning("%s", keys.note)
    hashes = HashFile(folder / HASHES_FILE)
    return Marking(marker, lambda facts: append(MARKED, facts), policy_sha256, hashes.add)


def _operator(settings: Settings) -> OperatorCertificate | None:
    given = (settings.signing_chain, settings.signing_key, settings.signing_roots)
    if not any(given):
        return None
    if not all(given):
        raise InvalidInput(
            "A certificate of your own needs all of IMAGINE_SIGNING_CHAIN, IMAGINE_SIGNING_KEY and "
            "IMAGINE_SIGNING_ROOTS; some of them are empty."
        )
    chain, key, roots = (Path(one) for one in given)
    return OperatorCertificate(chain, key, roots)


def _facts(recipe: Recipe | None, policy: str) -> dict[str, object]:
    """What the log may know of a picture: nothing of the person, nothing of the wish."""
    if recipe is None:
        return {"kind": "sheet", "policy": policy[:16]}
    return {"backend": recipe.backend, "model": recipe.model_revision, "policy": policy[:16]}

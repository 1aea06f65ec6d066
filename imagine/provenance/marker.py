"""What this installation marks pictures with: watermark, signing identity, visible label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imagine.core import ImageArray
from imagine.errors import InvalidInput, WatermarkNotKept
from imagine.provenance.badge import Badge
from imagine.provenance.c2pa_manifest import SigningIdentity
from imagine.provenance.payload import MAX_RECORD
from imagine.provenance.recipe_note import RecipeBox, RecipeNote
from imagine.provenance.signing import MarkingKeys, OperatorCertificate, open_marking_keys
from imagine.provenance.spread_spectrum import SpreadSpectrumWatermark
from imagine.provenance.watermark import WEIGHTS_FOLDER, Watermark, open_learned

DEFAULT_BADGE = Badge()


@dataclass(frozen=True, slots=True)
class AuditReference:
    """What ties a picture to the audit log; goes into the signed manifest.

    Attributes:
        record: number of the audit entry, 0 to 2**32 - 1; the watermark says it too.
        model_sha256: of the model's weights, hex.
        policy_sha256: of the policy in force, hex.
    """

    record: int
    model_sha256: str
    policy_sha256: str

    def __post_init__(self) -> None:
        if not 0 <= self.record <= MAX_RECORD:
            raise InvalidInput(
                f"Audit record {self.record} does not fit a mark. Use 0 to {MAX_RECORD}."
            )


@dataclass(frozen=True, slots=True)
class Marker:
    """The marks every picture gets before it leaves.

    Attributes:
        watermark: always on; there is no None.
        identity: who signs the manifest.
        badge: the visible label; None only where policy allows that.
        learned: a second, learned watermark put in before the first; None without one.
        note: who may read the recipe in the files.
        box: seals recipes; needed for a note that says so.
    """

    watermark: Watermark
    identity: SigningIdentity
    badge: Badge | None = DEFAULT_BADGE
    learned: Watermark | None = None
    note: RecipeNote = RecipeNote.NONE
    box: RecipeBox | None = None

    def mark_pixels(self, pixels: ImageArray, record: int) -> ImageArray:
        """Label first, then the watermarks: nothing may be drawn over those.

        Raises:
            InvalidInput: the picture is too small.
            WatermarkNotKept: the picture cannot hold the mark.
        """
        labelled = self.badge.draw(pixels) if self.badge else pixels
        if self.learned is None:
            return self.watermark.embed(labelled, record)
        marked = self.watermark.embed(self.learned.embed(labelled, record), record)
        second = self.learned.read(marked)
        if second is None or second.record != record:
            height, width = marked.shape[:2]
            raise WatermarkNotKept(
                f"The learned watermark of this picture of {width}x{height} pixels could not be "
                "read below the first one. Make another one, or leave IMAGINE_LEARNED_WATERMARK "
                "empty."
            )
        return marked


def open_marker(
    folder: Path,
    *,
    badge: Badge | None = DEFAULT_BADGE,
    timestamp_url: str | None = None,
    note: RecipeNote = RecipeNote.SEALED,
    operator: OperatorCertificate | None = None,
    learned: str = "",
) -> tuple[Marker, MarkingKeys]:
    """The marker of this installation; the first run makes keys and an authority in `folder`.

    Args:
        folder: the keys.
        badge: the visible label, None only where policy allows that.
        timestamp_url: RFC 3161 service; None asks nobody.
        note: who may read the recipe in the files.
        operator: a certificate the operator brings; None signs under our own authority.
        learned: name of a second watermark in `WATERMARKS`; "" for none.

    Returns:
        The marker and its keys; show the operator `keys.note` when it is not empty.

    Raises:
        MarkingKeyUnusable: as `open_marking_keys`.
        MissingExtra, MissingWeights, CorruptWeights, UnknownName: as `open_learned`.
    """
    keys = open_marking_keys(folder, timestamp_url, operator)
    watermark = SpreadSpectrumWatermark(keys.watermark_key)
    box = RecipeBox(keys.watermark_key)
    second = open_learned(learned, keys.watermark_key, folder.parent / WEIGHTS_FOLDER)
    return Marker(watermark, keys.identity, badge, second, note, box), keys

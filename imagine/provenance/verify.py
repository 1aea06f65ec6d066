"""Where does this picture come from? Reads the marks of any file and answers in plain words.

Keeps nothing, fetches nothing and never says whose face it is: neither the recipe nor anything
about a person is looked at.
"""

from __future__ import annotations

import html
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from PIL import Image

from imagine.core import ImageArray
from imagine.errors import UnreadablePhoto
from imagine.provenance.c2pa_manifest import (
    ManifestReading,
    SigningIdentity,
    read_manifest,
)
from imagine.provenance.registry import (
    NEAR,
    HashFile,
    HashRegistry,
    PerceptualHash,
    hashes_of_all_positions,
)
from imagine.provenance.signing import open_marking_keys
from imagine.provenance.spread_spectrum import SpreadSpectrumWatermark
from imagine.provenance.watermark import Watermark, WatermarkReading, learned_for
from imagine.settings import Settings

HASHES_FILE = "pictures.pdq"  # how what was made here looks, beside the keys
MAX_BYTES = 64 * 1024 * 1024
MAX_PIXELS = 50_000_000
_LOOK_SIDE = 2048  # pixels; larger pictures are halved until they fit, no mark needs more
_MAX_XMP = 1_000_000  # characters
_PLAIN = 50  # below this hash quality, looking alike means nothing
_UNLIKE = 100  # bits; unrelated pictures are 100 to 150 apart
# Deviation 8 around 128: one of a hundred thousand unrelated pictures comes as near by chance.
_ALIKE = 90
_XMP_TOOL = re.compile(r"CreatorTool\s*(?:>|=\s*\")\s*Imagine yourself\s*[<\"]")
_XMP_INSTALLATION = re.compile(r"imagine:installation\s*(?:>|=\s*\")\s*([^<\"]{0,64})")


class Provenance(StrEnum):
    """The five answers."""

    UNTOUCHED = "made here, untouched"
    STRIPPED = "made here, metadata stripped"
    EDITED = "edited since"
    NOT_OURS = "not ours"
    FORGED = "forged credit"


@dataclass(frozen=True, slots=True)
class ProvenanceReport:
    """What the marks of a file say.

    Attributes:
        verdict: one of the five answers.
        sentences: why, for anybody to read; the first one stands alone.
        record: number of the audit record the marks lead to; None without one.
        manifest: "none", "ours", "ours, broken", "another's", "another's, broken".
        watermark_found: whether our invisible watermark is in the pixels.
        says_generated: whether any mark, ours or another's, calls the picture generated.
        weakened: what this installation allows now that the shipped one does not, in words.
    """

    verdict: Provenance
    sentences: tuple[str, ...]
    record: int | None
    manifest: str
    watermark_found: bool
    says_generated: bool
    weakened: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verifier:
    """What a picture is compared with.

    Attributes:
        watermark: reads our watermark; None when there is no key here.
        identity: whose signatures are ours; None when there are no certificates here.
        hashes: perceptual hashes of what was made here; None without a registry.
        learned: a second watermark, asked when the first finds nothing; None without one.
        weakened: safety checks the operator weakened, in words, which every answer tells.
    """

    watermark: Watermark | None = None
    identity: SigningIdentity | None = None
    hashes: HashRegistry | None = None
    learned: Watermark | None = None
    weakened: tuple[str, ...] = ()

    def verify(self, source: bytes | str | os.PathLike[str]) -> ProvenanceReport:
        """Say where a file comes from.

        Args:
            source: the bytes of a PNG, JPEG or WebP file, or its path; the name's ending is not
                looked at.

        Raises:
            UnreadablePhoto: no such file, not such a picture, cut off, or too large.
        """
        data = source if isinstance(source, bytes) else _read(Path(source))
        kind, pixels, xmp = open_picture(data)
        manifest = read_manifest(data, kind, self.identity)
        reading = self.watermark.read(pixels) if self.watermark else None
        hint = None
        if reading is None and self.learned is not None:
            hint = self.learned.read(pixels)
        return _Evidence(self, manifest, reading, _Claim.of(xmp), pixels, hint).judge()


def verify(
    source: bytes | str | os.PathLike[str], verifier: Verifier | None = None
) -> ProvenanceReport:
    """`Verifier.verify`; without a verifier nothing is ours and only foreign marks are read."""
    return (verifier or Verifier()).verify(source)


def open_verifier(
    folder: Path,
    hashes: HashRegistry | None = None,
    weakened: Sequence[str] = (),
    learned: str | None = None,
) -> Verifier:
    """A verifier with the keys in `folder`; when there are none it makes none.

    Args:
        folder: the keys, and beside them how what was made here looks.
        hashes: a registry in place of the one there.
        weakened: what the operator allows that the shipped checks do not, in words.
        learned: name of a second watermark in `WATERMARKS`; None takes that of the environment.
            Without a name one is read whose weights are here.

    Raises:
        InvalidInput: the registry is damaged.
        MissingExtra, MissingWeights, CorruptWeights, UnknownName: the one that is named is not
            here.
        MarkingKeyUnusable: the keys are there but cannot be used.
    """
    told = tuple(weakened)
    if not folder.exists():
        return Verifier(hashes=hashes, weakened=told)
    keys = open_marking_keys(folder)
    known = HashFile(folder / HASHES_FILE).read() if hashes is None else hashes
    watermark = SpreadSpectrumWatermark(keys.watermark_key)
    named = Settings().learned_watermark if learned is None else learned
    second = learned_for(folder, named, keys.watermark_key)
    return Verifier(watermark, keys.identity, known, second, told)


@dataclass(frozen=True, slots=True)
class _Claim:
    """What the XMP of a file says of itself; anybody can write that."""

    says_us: bool = False
    says_generated: bool = False
    installation: str = ""

    @classmethod
    def of(cls, xmp: str) -> _Claim:
        installation = _XMP_INSTALLATION.search(xmp)
        return cls(
            _XMP_TOOL.search(xmp) is not None or installation is not None,
            "rainedAlgorithmicMedia" in xmp,  # also composite... and the compound forms
            html.unescape(installation[1]).strip() if installation else "",
        )


@dataclass(frozen=True, slots=True)
class _Evidence:
    verifier: Verifier
    manifest: ManifestReading | None
    reading: WatermarkReading | None
    claim: _Claim
    pixels: ImageArray
    hint: WatermarkReading | None = None  # of the learned watermark, which anybody can copy

    def judge(self) -> ProvenanceReport:
        if self.manifest and self.manifest.ours:
            return self._signed_by_us(self.manifest)
        if self.reading:
            return self._watermarked(self.reading)
        if self.hint and self._bears_out(self.hint):
            return self._hinted(self.hint)
        if self._claims_us():
            return self._claimed()
        return self._unclaimed()

    def _signed_by_us(self, manifest: ManifestReading) -> ProvenanceReport:
        record = manifest.facts.record if manifest.facts else None
        if manifest.intact:
            return self._report(
                Provenance.UNTOUCHED, record, "This file was made here and not changed since.",
                "Its signature is ours and fits every byte.",
            )  # fmt: skip
        same_mark = self.reading is not None and self.reading.record == record
        facts_hold = set(manifest.problems) <= {"assertion.dataHash.mismatch"}
        signed_hash = manifest.facts.perceptual_hash if manifest.facts and facts_hold else ""
        if same_mark or self._looks_like(signed_hash):
            return self._report(
                Provenance.EDITED, record, "This picture was made here and changed since.",
                "Our signature is still in it but fits the file no more: " + _list(manifest) + ".",
            )  # fmt: skip
        return self._report(
            Provenance.FORGED, None,
            "This file borrows our signature: it was made for another picture.",
            "Neither our watermark nor a likeness to the signed picture was found.",
        )  # fmt: skip

    def _watermarked(self, reading: WatermarkReading) -> ProvenanceReport:
        if self._is_a_copied_mark(reading):
            return self._report(
                Provenance.FORGED, reading.record,
                "Our watermark is in it, but the picture made under that record looks different.",
                "Somebody seems to have copied the mark onto another picture.",
            )  # fmt: skip
        since = _changes(reading)
        if self.verifier.hashes and self.verifier.hashes.is_forgotten(reading.record):
            since.append(
                "The picture made under that record was deleted, and how it looked is not kept: "
                "whether this is it, or our mark was copied onto this one, cannot be told."
            )
        if self.manifest:
            whose = self.manifest.signer or "somebody else"
            why = (
                f"It has a manifest signed by {whose}, put there after us."
                if self.manifest.intact
                else "Its manifest is damaged."
            )
            return self._report(
                Provenance.EDITED, reading.record, "This picture was made here and changed since.",
                "Our invisible watermark is in it.", why, *since,
            )  # fmt: skip
        return self._report(
            Provenance.STRIPPED, reading.record,
            "This picture was made here; its signed metadata is gone.",
            "Our invisible watermark is in it. Saving it again in another program, sending it "
            "through a messenger or taking a screenshot does that.", *since,
        )  # fmt: skip

    def _hinted(self, hint: WatermarkReading) -> ProvenanceReport:
        return self._report(
            Provenance.EDITED, hint.record, "This picture was made here and changed since.",
            "Our first watermark is gone; the second, learned one is in it, and it looks like the "
            "picture made under that record.", *_changes(hint),
        )  # fmt: skip

    def _claimed(self) -> ProvenanceReport:
        resembled = self._resembled()
        if resembled is not None:
            return self._resembles(resembled)
        if self.verifier.identity is None:
            return self._report(
                Provenance.NOT_OURS, None,
                "It says it was made by this program, but nothing was ever marked here.",
                "It may come from another installation; this one cannot confirm that.",
            )  # fmt: skip
        said = "its manifest" if self.manifest and self.manifest.says_us else "its metadata"
        return self._report(
            Provenance.FORGED, None,
            f"It claims to come from here ({said} says so), but the claim does not hold.",
            "Neither our signature nor our watermark confirms it, and anybody can write such a "
            "note. Treat its origin as unknown.",
        )  # fmt: skip

    def _unclaimed(self) -> ProvenanceReport:
        resembled = self._resembled()
        if resembled is not None:
            return self._resembles(resembled)
        sentences = ["No mark of ours is in this picture."]
        if self.manifest:
            whose = self.manifest.generator or self.manifest.signer or "an unnamed program"
            state = "its bytes fit" if self.manifest.intact else "it is damaged or was changed"
            sentences.append(f"It carries a manifest of {whose}; {state}. We do not vouch for it.")
        if self._other_installation():
            sentences.append("It names another installation of this program as its maker.")
        if self._says_generated():
            sentences.append("It says of itself that a trained model made it or took part.")
        if self.verifier.watermark is None:
            sentences.append("There is no watermark key here, so watermarks were not looked for.")
        elif self.hint:
            sentences.append(
                "A learned watermark says that it is ours; anybody can copy that one, and the "
                "picture does not look like the one made under that record."
            )
        elif min(self.pixels.shape[:2]) < 64:
            sentences.append("It is too small to hold a watermark.")
        else:
            sentences.append("A picture changed enough loses every mark; this is no proof.")
        return self._report(Provenance.NOT_OURS, None, *sentences)

    def _resembles(self, record: int) -> ProvenanceReport:
        return self._report(
            Provenance.EDITED, record,
            "It looks the same as a picture made here, but carries none of its marks.",
            "It was probably changed so much that they were lost.",
        )  # fmt: skip

    def _claims_us(self) -> bool:
        says = self.claim.says_us or (self.manifest is not None and self.manifest.says_us)
        return says and not self._other_installation()

    def _other_installation(self) -> bool:
        """Whether it names a maker, and that is not this installation."""
        named = {self.claim.installation}
        if self.manifest and self.manifest.facts:
            named.add(self.manifest.facts.installation)
        named.discard("")
        own = self.verifier.identity.name if self.verifier.identity else ""
        return bool(named) and own not in named

    def _says_generated(self) -> bool:
        signed = self.manifest is not None and self.manifest.says_generated
        return signed or self.claim.says_generated

    def _looks_like(self, hexed: str) -> bool:
        if len(hexed) != 64:
            return False
        signed = PerceptualHash.from_hex(hexed)
        seen = hashes_of_all_positions(self.pixels)
        return seen[0].quality >= _PLAIN and min(h.distance(signed) for h in seen) <= NEAR

    def _is_a_copied_mark(self, reading: WatermarkReading) -> bool:
        known = self.verifier.hashes.hashes_of(reading.record) if self.verifier.hashes else []
        if not known or not reading.is_whole:  # hashes are blind to crops
            return False
        seen = hashes_of_all_positions(self.pixels)
        nearest = min(hashed.distance(one) for hashed in seen for one in known)
        return seen[0].quality >= _PLAIN and nearest > _UNLIKE

    def _bears_out(self, hint: WatermarkReading) -> bool:
        """Whether the picture also looks like the one of that record, if not the very same."""
        known = self.verifier.hashes.hashes_of(hint.record) if self.verifier.hashes else []
        seen = hashes_of_all_positions(self.pixels) if known else []
        return any(hashed.distance(one) <= _ALIKE for hashed in seen for one in known)

    def _resembled(self) -> int | None:
        if not self.verifier.hashes:
            return None
        seen = hashes_of_all_positions(self.pixels)
        if seen[0].quality < _PLAIN:
            return None
        found = [near for hashed in seen for near in self.verifier.hashes.search(hashed)]
        return min(found, key=lambda near: near.distance).record if found else None

    def _report(
        self, verdict: Provenance, record: int | None, *sentences: str
    ) -> ProvenanceReport:  # fmt: skip
        manifest = "none"
        if self.manifest:
            manifest = "ours" if self.manifest.ours else "another's"
            manifest += "" if self.manifest.intact else ", broken"
        ours = verdict in (Provenance.UNTOUCHED, Provenance.STRIPPED, Provenance.EDITED)
        generated = ours or self._says_generated()
        found = self.reading is not None or (self.hint is not None and ours)
        weak = self.verifier.weakened
        told = (*sentences, _in_words(weak)) if weak and ours else sentences
        return ProvenanceReport(verdict, told, record, manifest, found, generated, weak)


def _in_words(weakened: Sequence[str]) -> str:
    return (
        "The operator of this installation has weakened its safety checks at present: "
        f"{', '.join(weakened)}. The audit log says since when."
    )


def _changes(reading: WatermarkReading) -> list[str]:
    said = []
    if reading.mirrored:
        said.append("It was mirrored since.")
    if reading.quarter_turns or reading.degrees:
        said.append("It was turned since.")
    if abs(reading.scale - 1) >= 0.01:
        cut = "Something was cut off" if reading.scale < 1 else "Something was added around it"
        said.append(f"{cut} since.")
    return said


def _list(manifest: ManifestReading) -> str:
    return ", ".join(manifest.problems[:3]) or "no reason given"


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UnreadablePhoto(_too_many_bytes(path.stat().st_size))
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UnreadablePhoto(f"There is no file {str(path)!r}. Check the path.") from error
    except (OSError, ValueError) as error:
        raise UnreadablePhoto(
            f"{str(path)!r} could not be read as a file. Name a PNG, JPEG or WebP picture."
        ) from error


def _too_many_bytes(count: int) -> str:
    return (
        f"The file has {count} bytes; {MAX_BYTES} are the most that is looked at. "
        "Give the picture itself, without attachments."
    )


def open_picture(data: bytes) -> tuple[str, ImageArray, str]:
    """Format, pixels (at most some 2048 a side) and XMP text of a file.

    Pillow tells of broken files by many kinds of exceptions, in part through the codecs' own.
    """
    if len(data) > MAX_BYTES:
        raise UnreadablePhoto(_too_many_bytes(len(data)))
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise UnreadablePhoto(
                    f"The picture has {width}x{height} pixels; {MAX_PIXELS} in all are the most "
                    "that is looked at. Make it smaller first."
                )
            # A telephone's JPEG with a depth map beside it calls itself MPO.
            kind = "JPEG" if picture.format == "MPO" else picture.format or ""
            picture.draft("RGB", (_LOOK_SIDE, _LOOK_SIDE))
            factor = -(-max(width, height) // _LOOK_SIDE)
            if factor > 1 and picture.mode in ("RGB", "L") and picture.size == (width, height):
                small = picture.reduce(factor) if min(picture.size) > factor else picture
                pixels = np.asarray(small.convert("RGB"))
            else:
                pixels = np.asarray(picture.convert("RGB"))
            return kind, pixels, _xmp_of(picture.info)
    except UnreadablePhoto:
        raise
    except (
        OSError, ValueError, SyntaxError, TypeError, KeyError, IndexError, EOFError, MemoryError,
        OverflowError, AttributeError, ArithmeticError, RuntimeError, Image.DecompressionBombError,
        Warning,
    ) as error:  # fmt: skip
        raise UnreadablePhoto(
            f"These {len(data)} bytes are no PNG, JPEG or WebP picture, or only a part of one. "
            "Give the whole file as it was saved."
        ) from error


def _xmp_of(info: dict[str | tuple[int, int], object]) -> str:
    packet = info.get("xmp")
    if isinstance(packet, bytes):
        packet = packet[:_MAX_XMP].decode("utf-8", "replace")
    return packet[:_MAX_XMP] if isinstance(packet, str) else ""

"""Pictures that say what they are; the only form in which picture bytes leave this package.

Every file carries XMP with the IPTC digital source type "trained algorithmic media". With a
`Marker` the pixels carry a visible label and the invisible watermark, the recipe is sealed so that
only this installation reads it, and the finished file is signed last. Without one there is only the
metadata, the recipe in it for all to read, and all of it is lost with the next re-encoding.
"""

from __future__ import annotations

import html
import io
import json
import os
import re
import secrets
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from PIL import Image, PngImagePlugin

from imagine.core import ImageArray, Recipe
from imagine.errors import InvalidInput, OutputNotWritten
from imagine.provenance.c2pa_manifest import ManifestFacts, SigningIdentity, sign_picture
from imagine.provenance.marker import AuditReference, Marker
from imagine.provenance.recipe_note import RecipeBox, RecipeNote
from imagine.provenance.registry import perceptual_hash
from imagine.provenance.signing import MARKS_FOLDER, open_marking_keys
from imagine.settings import Settings

RECIPE_KEYWORD = "imagine-recipe"  # keyword of the PNG text chunk
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_MAX_MARKED_BYTES = 64 * 1024 * 1024
# The identifier of the term in IPTC's vocabulary of digital source types.
_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmlns:imagine="urn:imagine-yourself:recipe:1">
   <xmp:CreatorTool>Imagine yourself</xmp:CreatorTool>
   <Iptc4xmpExt:DigitalSourceType>{source_type}</Iptc4xmpExt:DigitalSourceType>{seal}{recipe}
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""
_XMP_RECIPE = re.compile(r"<imagine:recipe>(.*?)</imagine:recipe>", re.DOTALL)
_XMP_SEALED = re.compile(r"<imagine:sealedRecipe>([A-Za-z0-9+/=\s]*)</imagine:sealedRecipe>")


@dataclass(frozen=True, slots=True)
class Seal:
    """Who signs the file and what the signed manifest will say."""

    identity: SigningIdentity
    facts: ManifestFacts


@dataclass(frozen=True, slots=True)
class MarkedImage:
    """A finished picture together with its mark. Made by `mark_image`.

    Attributes:
        pixels: (height, width, 3) uint8 RGB; watermarked and labelled when there is a seal.
        recipe: how to make it again; None for a sheet of several pictures.
        seal: signs every file written; None without a marker.
        note: who may read the recipe in files written from now on.
        box: seals the recipe; goes with a note that says so.
    """

    pixels: ImageArray = field(repr=False)
    recipe: Recipe | None = field(repr=False)
    seal: Seal | None = None
    note: RecipeNote = RecipeNote.OPEN
    box: RecipeBox | None = None

    def to_bytes(self, suffix: str = ".png", note: RecipeNote | str | None = None) -> bytes:
        """The marked file as bytes.

        Args:
            suffix: ".png" (lossless), ".jpg" or ".webp".
            note: who may read the recipe inside, when it is not as usual: "open" for a person who
                wants it in their own copy, "none" for a file whose recipe is kept elsewhere.

        Raises:
            InvalidInput: another suffix or note.
            NotMarked: the file could not be signed.
        """
        buffer = io.BytesIO()
        chosen = self.note if note is None else note_named(note)
        xmp = _xmp_packet(self, chosen)
        picture = Image.fromarray(self.pixels)
        kind = _format_of(suffix)
        match kind:
            case "PNG":
                told = self.recipe if chosen is RecipeNote.OPEN else None
                picture.save(buffer, "PNG", pnginfo=_png_text(told, xmp))
            case "JPEG":
                picture.save(buffer, "JPEG", quality=95, subsampling=0, xmp=xmp)
            case _:
                picture.save(buffer, "WEBP", quality=95, method=4, xmp=xmp)
        if self.seal is None:
            return buffer.getvalue()
        # Last: any byte changed afterwards breaks the signature.
        return sign_picture(buffer.getvalue(), kind, self.seal.identity, self.seal.facts)

    def save(
        self,
        path: str | os.PathLike[str],
        overwrite: bool = True,
        note: RecipeNote | str | None = None,
    ) -> Path:
        """Write the marked file whole or not at all, and return where it is.

        Args:
            path: its ending is the format.
            overwrite: whether a file that is there may be replaced.
            note: as for `to_bytes`.

        Raises:
            InvalidInput: the file name ends in no format we write.
            OutputNotWritten: the folder is missing, the disk is full, writing is not allowed,
                or a file is there and `overwrite` is false. No partial file is left.
            NotMarked: the file could not be signed.
        """
        target = Path(path)
        data = self.to_bytes(target.suffix, note)
        refuse_unwritable(target, overwrite)
        _write_whole(target, data)
        return target


def mark_image(
    pixels: ImageArray,
    recipe: Recipe | None,
    marker: Marker | None = None,
    audit: AuditReference | None = None,
) -> MarkedImage:
    """Give a picture its marks.

    Args:
        pixels: (height, width, 3) uint8 RGB.
        recipe: how to make it again; None for a sheet of generated pictures.
        marker: label, watermark and signature; None leaves it at metadata.
        audit: the entry of the audit log the marks lead to; goes with `marker`.

    Raises:
        InvalidInput: a marker without an audit entry or the reverse; too small a picture.
        WatermarkNotKept: the picture cannot hold the invisible watermark.
    """
    if marker is None and audit is None:
        return MarkedImage(pixels=pixels, recipe=recipe)
    if marker is None or audit is None:
        raise InvalidInput(
            "A marker needs the audit entry its marks lead to, and an audit entry a marker. "
            "Give both or neither."
        )
    marked = marker.mark_pixels(pixels, audit.record)
    facts = ManifestFacts(
        source_type=_source_term(recipe),
        record=audit.record,
        model=recipe.model_revision if recipe else "",
        model_sha256=audit.model_sha256,
        policy_sha256=audit.policy_sha256,
        perceptual_hash=perceptual_hash(marked).hex,
        installation=marker.identity.name,
    )
    seal = Seal(marker.identity, facts)
    return MarkedImage(marked, recipe, seal, marker.note, marker.box)


def note_named(name: str) -> RecipeNote:
    """The note of this name.

    Raises:
        InvalidInput: there is none.
    """
    try:
        return RecipeNote(name)
    except ValueError as error:
        known = ", ".join(RecipeNote)
        raise InvalidInput(
            f"A file cannot say its recipe as {name[:40]!r}. Choose one of: {known}."
        ) from error


def read_recipe(
    source: bytes | str | os.PathLike[str], marks: str | os.PathLike[str] | None = None
) -> Recipe:
    """Read the recipe that a saved picture carries, or a recipe saved as JSON by itself.

    Args:
        source: path or content of the file.
        marks: folder of the installation's keys, which open what they sealed; None takes that of
            the environment's data folder.

    Raises:
        InvalidInput: no such file, not a picture, a picture without our recipe, or with one that
            another installation sealed.
        MarkingKeyUnusable: the keys are needed and cannot be used.
    """
    name = "This picture" if isinstance(source, bytes) else Path(source).name
    data = source if isinstance(source, bytes) else _read_small(Path(source))
    if len(data) > _MAX_MARKED_BYTES:
        raise InvalidInput(f"{name} is too large to be a picture made here.")
    if data[:64].lstrip().startswith(b"{"):
        return _parse_recipe(data.decode("utf-8", "replace"), name)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as picture:
            picture.load()  # text chunks after the pixels are read only now
            facts = picture.info
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning) as error:
        raise InvalidInput(f"{name} could not be read as a PNG, JPEG or WebP picture.") from error
    text = _recipe_text(facts)
    if text is None and (sealed := _XMP_SEALED.search(_xmp_text(facts))):
        text = _unsealed(sealed[1], name, marks)
    return _parse_recipe(text, name)


def _read_small(target: Path) -> bytes:
    try:
        if target.stat().st_size > _MAX_MARKED_BYTES:
            raise InvalidInput(f"{target.name} is too large to be a picture made here.")
        return target.read_bytes()
    except FileNotFoundError as error:
        raise InvalidInput(f"There is no file {str(target)!r}. Check the path.") from error
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{target.name} could not be read. Check the path.") from error


def _unsealed(sealed: str, name: str, marks: str | os.PathLike[str] | None) -> str:
    folder = Path(marks) if marks is not None else Settings().data_directory / MARKS_FOLDER
    box = RecipeBox(open_marking_keys(folder).watermark_key) if folder.exists() else None
    text = box.open(sealed) if box else None
    if text is None:
        raise InvalidInput(
            f"The recipe inside {name} is sealed, and only the installation that made the picture "
            "can open it. Read it there, or ask for a copy that was saved with an open recipe."
        )
    return text


def refuse_unwritable(target: Path, overwrite: bool = True) -> None:
    """Refuse a place that cannot take a file, before any work is done for it.

    Raises:
        InvalidInput: the file name ends in no format we write.
        OutputNotWritten: no such folder, not allowed, or a file is there already.
    """
    _format_of(target.suffix)
    folder = target.parent
    if not folder.is_dir():
        raise OutputNotWritten(
            f"There is no folder {str(folder)!r} to save {target.name!r} in. Create it first."
        )
    if target.is_dir():
        raise OutputNotWritten(f"{str(target)!r} is a folder. Name a file inside it.")
    if target.exists() and not overwrite:
        raise OutputNotWritten(
            f"{str(target)!r} exists already and was left alone. "
            "Choose another name, or pass --force (overwrite=True) to replace it."
        )
    if not os.access(folder, os.W_OK):
        raise OutputNotWritten(f"Writing into {str(folder)!r} is not allowed. Choose another one.")


def _format_of(suffix: str) -> str:
    known = _FORMATS.get(suffix.lower())
    if known is None:
        shown = repr(suffix) if suffix else "no ending"
        raise InvalidInput(
            f"Pictures cannot be saved with {shown}. Use a name ending in .png (or .jpg, .webp)."
        )
    return known


def _source_term(recipe: Recipe | None) -> str:
    return "trainedAlgorithmicMedia" if recipe else "compositeWithTrainedAlgorithmicMedia"


def _xmp_packet(marked: MarkedImage, note: RecipeNote) -> bytes:
    element, seal = "", ""
    if marked.recipe is not None and note is not RecipeNote.NONE:
        told = _recipe_json(marked.recipe)
        if note is RecipeNote.OPEN:
            element = f"\n   <imagine:recipe>{html.escape(told)}</imagine:recipe>"
        elif marked.box is not None:
            shut = marked.box.seal(told)
            element = f"\n   <imagine:sealedRecipe>{shut}</imagine:sealedRecipe>"
        else:
            raise InvalidInput(
                "There is no key to seal a recipe with. Mark the picture with the marker of an "
                "installation, or write the file with an open recipe or with none."
            )
    if marked.seal is not None:
        name = html.escape(marked.seal.identity.name)
        seal = (
            f"\n   <imagine:installation>{name}</imagine:installation>"
            f"\n   <imagine:record>{marked.seal.facts.record}</imagine:record>"
        )
    source_type = _SOURCE_TYPE + _source_term(marked.recipe)
    return _XMP.format(source_type=source_type, seal=seal, recipe=element).encode("utf-8")


def _png_text(recipe: Recipe | None, xmp: bytes) -> PngImagePlugin.PngInfo:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8"))
    if recipe is not None:
        text.add_itxt(RECIPE_KEYWORD, _recipe_json(recipe))
    return text


def _recipe_json(recipe: Recipe) -> str:
    return json.dumps(asdict(recipe), ensure_ascii=False, sort_keys=True)


def _recipe_text(facts: dict[str | tuple[int, int], object]) -> str | None:
    text = facts.get(RECIPE_KEYWORD)
    if isinstance(text, str):
        return text
    found = _XMP_RECIPE.search(_xmp_text(facts))
    return html.unescape(found[1]) if found else None


def _xmp_text(facts: dict[str | tuple[int, int], object]) -> str:
    packet = facts.get("xmp")
    return packet.decode("utf-8", "replace") if isinstance(packet, bytes) else ""


def _parse_recipe(text: str | None, name: str) -> Recipe:
    if text is None:
        raise InvalidInput(
            f"{name} carries no recipe. Only pictures saved by this program and not re-encoded "
            "since can be made again; a service keeps recipes apart from pictures: save the answer "
            "of /v1/images/{id}/recipe and give that file."
        )
    try:
        facts = json.loads(text)
        known = {item.name for item in fields(Recipe)}
        recipe = Recipe(**{name: value for name, value in facts.items() if name in known})
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInput(f"The recipe inside {name} is damaged and cannot be used.") from error
    if not _has_declared_types(recipe):
        raise InvalidInput(f"The recipe inside {name} is damaged and cannot be used.")
    return recipe


def _has_declared_types(recipe: Recipe) -> bool:
    """Fields are annotated "str", "int" or "float"; a JSON file may hold anything."""
    allowed = {"str": (str,), "int": (int,), "float": (int, float)}
    return all(
        isinstance(getattr(recipe, item.name), allowed[str(item.type)])
        and not isinstance(getattr(recipe, item.name), bool)
        for item in fields(Recipe)
    )


def _write_whole(target: Path, data: bytes) -> None:
    """Write beside the target, then rename: readers see the old file or the whole new one."""
    partial = target.with_name(f".{target.name}.{secrets.token_hex(6)}.part")
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputNotWritten(
            f"{str(target)!r} could not be written: {error.strerror or error}. "
            "Nothing was left behind; free some space or choose another folder."
        ) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise

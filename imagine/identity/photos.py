"""A photo from somebody else's hands, turned into plain pixels or refused by name.

Only JPEG, PNG, WebP and HEIC are decoded, each by its own decoder chosen from the first bytes, so
that no other format's parser ever sees the file. Sizes are checked before pixels are made. What
leaves here is RGB pixels and nothing else: no EXIF, no place, no date, no colour profile.
"""

from __future__ import annotations

import re
import stat
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from imagine.core import ImageArray
from imagine.errors import UnreadablePhoto
from imagine.settings import Settings

PhotoSource: TypeAlias = "Path | str | bytes | Image.Image | ImageArray"

FORMATS = "JPEG, PNG, WebP or HEIC"
_HEIC_STILLS = {b"heic", b"heix", b"heim", b"heis", b"mif1"}
_HEIC_SEQUENCES = {b"hevc", b"hevx", b"hevm", b"hevs", b"msf1"}
_ORIENTATION_TAG = 0x0112
# EXIF orientation 2..8 -> what makes the picture upright (EXIF 2.32, section 4.6.4).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_photo(source: PhotoSource, name: str | None, settings: Settings) -> ImageArray:
    """Read one photo into upright RGB pixels.

    Args:
        source: a path, the bytes of a file, a Pillow image, or (height, width, 3) uint8 RGB.
        name: what to call the photo in messages; None takes the file's name.
        settings: `max_photo_bytes` and `max_photo_pixels` bound what is opened and decoded.

    Returns:
        (height, width, 3) uint8 RGB, a new array; transparent places are white.

    Raises:
        UnreadablePhoto: no such file, too big, another format, animated, damaged.
    """
    name = name or photo_name(source, None)
    if isinstance(source, np.ndarray):
        return _from_array(source, name, settings)
    if isinstance(source, Image.Image):
        return _from_pillow(source, name, settings)
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        _check_bytes(len(data), name, settings)
    elif isinstance(source, str | Path):
        data = _read_file(Path(source).expanduser(), name, settings)
    else:
        raise UnreadablePhoto(
            f"{name} is a {type(source).__name__}; a photo is a path, the bytes of a file, "
            "a Pillow image or an RGB uint8 array."
        )
    return _decode(data, name, settings)


def photo_name(source: PhotoSource, index: int | None) -> str:
    """What to call a photo in messages: its file name, else "selfie 2" (`index` counts from 0)."""
    if isinstance(source, str | Path):
        return Path(source).name or str(source)
    return "the photo" if index is None else f"selfie {index + 1}"


def _read_file(path: Path, name: str, settings: Settings) -> bytes:
    try:
        facts = path.stat()
        if stat.S_ISDIR(facts.st_mode):
            raise UnreadablePhoto(f"{name} is a folder. Name the photos inside it.")
        if not stat.S_ISREG(facts.st_mode):
            raise UnreadablePhoto(f"{name} is not an ordinary file. Name a {FORMATS} file.")
        _check_bytes(facts.st_size, name, settings)
        with path.open("rb") as file:
            # One byte more than allowed, so that a file growing meanwhile is noticed too.
            data = file.read(settings.max_photo_bytes + 1)
    except FileNotFoundError as error:
        raise UnreadablePhoto(f"There is no file {str(path)!r}. Check its name.") from error
    except PermissionError as error:
        raise UnreadablePhoto(f"{name} may not be read. Change its permissions.") from error
    except (OSError, ValueError) as error:
        raise UnreadablePhoto(f"{name} could not be read: {error}. Check its path.") from error
    _check_bytes(len(data), name, settings)
    return data


def _check_bytes(count: int, name: str, settings: Settings) -> None:
    if count == 0:
        raise UnreadablePhoto(f"{name} is empty (0 bytes). Save or copy the photo again.")
    if count > settings.max_photo_bytes:
        raise UnreadablePhoto(
            f"{name} has {count / 1e6:.1f} MB; at most {settings.max_photo_bytes / 1e6:.1f} MB "
            "is read. Save a smaller version."
        )


def _check_pixels(width: int, height: int, name: str, settings: Settings) -> None:
    if width < 1 or height < 1:
        raise UnreadablePhoto(f"{name} has no pixels ({width}x{height}). Choose another photo.")
    if width * height > settings.max_photo_pixels:
        raise UnreadablePhoto(
            f"{name} would have {width * height / 1e6:.0f} megapixels ({width}x{height}); at most "
            f"{settings.max_photo_pixels / 1e6:.0f} are decoded. Save a smaller version."
        )


def _decode(data: bytes, name: str, settings: Settings) -> ImageArray:
    decode = _decoder(data, name)
    try:
        return decode(data, name, settings)
    except UnreadablePhoto:
        raise
    except Exception as error:  # decoders raise whatever the damage makes them trip over
        raise UnreadablePhoto(
            f"{name} is damaged or cut off and cannot be decoded. Save or copy the photo again."
        ) from error


def _decoder(data: bytes, name: str) -> Callable[[bytes, str, Settings], ImageArray]:
    """Choose by the first bytes; the file's ending is never believed."""
    if data[:3] == b"\xff\xd8\xff":
        return _decode_jpeg
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _decode_png
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _decode_webp
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_SEQUENCES:
        raise _animated(name)
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_STILLS:
        return _decode_heic
    raise UnreadablePhoto(
        f"{name} is {_what_it_seems(data)}, not a {FORMATS} photo. "
        "Export it as JPEG or choose another photo."
    )


def _what_it_seems(data: bytes) -> str:
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if data[:4] == b"GIF8":
        return "a GIF"
    if data[4:8] == b"ftyp" and data[8:11] == b"avi":
        return "an AVIF picture"
    if data[4:8] == b"ftyp":
        return "a video"
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in start):
        return "an SVG drawing"
    if data[:5] == b"%PDF-":
        return "a PDF document"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "a TIFF or raw camera file"
    if data[:2] == b"BM":
        return "a BMP picture"
    if b"\0" not in data[:1024]:
        return "a text file"
    return "a file of another kind"


def _animated(name: str) -> UnreadablePhoto:
    return UnreadablePhoto(f"{name} is animated. Save one frame of it as JPEG or PNG.")


def _decode_jpeg(data: bytes, name: str, settings: Settings) -> ImageArray:
    # The plugin class itself, not Image.open: no other parser joins in, and Pillow's own size
    # warning gives way to our error. A phone's multi-picture JPEG gives its first picture.
    picture = JpegImageFile(BytesIO(data))
    _check_pixels(*picture.size, name, settings)
    return _pixels(picture)


def _decode_png(data: bytes, name: str, settings: Settings) -> ImageArray:
    width, height = struct.unpack(">II", data[16:24])
    _check_pixels(width, height, name, settings)
    picture = PngImageFile(BytesIO(data))
    if getattr(picture, "is_animated", False):
        raise _animated(name)
    return _pixels(picture)


def _decode_webp(data: bytes, name: str, settings: Settings) -> ImageArray:
    width, height, animated = _webp_header(data)
    if animated:
        raise _animated(name)
    _check_pixels(width, height, name, settings)
    picture = WebPImageFile(BytesIO(data))
    _check_pixels(*picture.size, name, settings)
    return _pixels(picture)


def _webp_header(data: bytes) -> tuple[int, int, bool]:
    """Width, height and "is animated" from the first chunk, before libwebp makes its canvas.

    Source: RFC 9649 section 2.7 (VP8X), RFC 6386 section 9.1 (VP8), RFC 9649 section 3.4 (VP8L).
    """
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X":
        width = int.from_bytes(body[4:7], "little") + 1
        height = int.from_bytes(body[7:10], "little") + 1
        return width, height, bool(body[0] & 0x02)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF, False
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, False
    raise ValueError(f"unknown first WebP chunk {kind!r}")


def _decode_heic(data: bytes, name: str, settings: Settings) -> ImageArray:
    import pi_heif  # here, because only this format needs it

    for width, height in _heic_sizes(data):
        _check_pixels(width, height, name, settings)
    container = pi_heif.open_heif(BytesIO(data), convert_hdr_to_8bit=True)
    still = container[container.primary_index]
    width, height = still.size
    _check_pixels(width, height, name, settings)
    picture = still.to_pillow()
    # libheif has turned the picture already; the EXIF orientation beside it must be ignored
    # (ISO/IEC 23008-12, section 6.5.10 and annex A).
    return _flatten(picture)


def _heic_sizes(data: bytes) -> list[tuple[int, int]]:
    """Width and height of every picture in a HEIC file, as its `ispe` properties say.

    What libheif reports is already cropped (`clap`) and may be small while the coded picture is
    huge; it refuses to decode where coded size and `ispe` differ. Boxes: ISO/IEC 14496-12, 4.2.
    """
    place = 0
    while place + 8 <= len(data):
        (size,) = struct.unpack_from(">I", data, place)
        if data[place + 4 : place + 8] == b"meta":
            meta = data[place : place + size]
            starts = [m.start() for m in re.finditer(b"ispe", meta) if m.start() + 16 <= len(meta)]
            return [struct.unpack_from(">II", meta, start + 8) for start in starts]
        if size < 8:  # to the end of the file, 64-bit or damaged: no meta box in reach
            break
        place += size
    raise ValueError("no meta box")


def _pixels(picture: Image.Image) -> ImageArray:
    picture.load()
    turn = _UPRIGHT.get(_exif_orientation(picture.info.get("exif", b"")))
    return _flatten(picture.transpose(turn) if turn is not None else picture)


def _exif_orientation(exif: object) -> int:
    """The orientation tag of an EXIF block, 1 (upright) where absent or damaged.

    Read by hand: Pillow's EXIF reader warns about damaged blocks that do not matter here.
    """
    if not isinstance(exif, bytes):
        return 1
    block = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, start)
        for entry in range(count):
            place = start + 2 + 12 * entry
            tag, _kind, _length, value = struct.unpack_from(order + "HHIH", block, place)
            if tag == _ORIENTATION_TAG:
                return int(value)
    except struct.error:
        return 1
    return 1


def _flatten(picture: Image.Image) -> ImageArray:
    """Any Pillow mode to RGB on white."""
    if picture.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        # Pillow clips 16-bit grey at 255 when converting; keep the high byte instead.
        deep = np.clip(np.asarray(picture).astype(np.int64), 0, 65535)
        picture = Image.fromarray((deep >> 8).astype(np.uint8))
    if picture.mode == "F":
        raise UnreadablePhoto("Pictures of floating-point numbers are not photos. Save as JPEG.")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, layer)
    return np.array(picture.convert("RGB"), dtype=np.uint8)


def _from_pillow(picture: Image.Image, name: str, settings: Settings) -> ImageArray:
    _check_pixels(*picture.size, name, settings)
    try:
        return _pixels(picture)
    except UnreadablePhoto:
        raise
    except Exception as error:
        raise UnreadablePhoto(f"{name} cannot be decoded. Choose another photo.") from error


def _from_array(pixels: NDArray[np.uint8], name: str, settings: Settings) -> ImageArray:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise UnreadablePhoto(
            f"{name} is an array of shape {pixels.shape} and type {pixels.dtype}; "
            "give (height, width, 3) uint8 RGB."
        )
    _check_pixels(pixels.shape[1], pixels.shape[0], name, settings)
    return np.array(pixels)

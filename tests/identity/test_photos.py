import base64
import os
import stat
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagine.errors import UnreadablePhoto
from imagine.identity.photos import decode_photo
from imagine.settings import Settings

SETTINGS = Settings()
RED, BLUE = (200, 40, 40), (40, 40, 200)

# 64x32 pixels, red left and blue right, drawn for this test and encoded by libheif.
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAA"
    "AAAAAAAAACJpbG9jAAAAAERAAAEAAQAAAAABoQABAAAAAAAAACQAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABo"
    "dmMxAAAAAA5waXRtAAAAAAABAAAA/WlwcnAAAADdaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEA"
    "GEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAA"
    "AwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAAB"
    "AAAAIAAAAAEAAAAAAAAAAv///+AAAAACAAAAEHBpeGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAACxt"
    "ZGF0AAAAICgBrxmA70mlv//cOZ/1Ni/4Xshf/6xod84un+4dI21v"
)
# The same, to be turned by 90 degrees: once by HEIC's own `irot` and once more by EXIF, which a
# reader must ignore.
HEIC_TURNED = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAchtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAA"
    "AAAAAAAAADRpbG9jAAAAAERAAAIAAQAAAAAB7AABAAAAAAAAACQAAgAAAAACEAABAAAAAAAAACQAAAA4aWluZgAAAAAA"
    "AgAAABVpbmZlAgAAAAABAABodmMxAAAAABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABB2lwcnAAAADm"
    "aXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAq"
    "QgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQAN"
    "AAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAIAAAAAEAAAAAAAAAAv///+AAAAACAAAAEHBp"
    "eGkAAAAAAwgICAAAAAlpcm90AwAAABlpcG1hAAAAAAAAAAEAAQaBAgMFhIYAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEA"
    "AQAAAFBtZGF0AAAAICgBrxmA70mlv//cOZ/1Ni/4Xshf/6xod84un+4dI21vAAAABkV4aWYAAE1NACoAAAAIAAEBEgAD"
    "AAAAAQAGAAAAAAAA"
)


def two_colours(mode: str = "RGB") -> Image.Image:
    """64x32 pixels, red left and blue right."""
    picture = Image.new("RGB", (64, 32), RED)
    picture.paste(BLUE, (32, 0, 64, 32))
    return picture.convert(mode)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A small, correct PNG of one grey value, however many pixels it unpacks to."""
    packer = zlib.compressobj(9)
    row = bytes(width + 1)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    chunks = b""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    for kind, body in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")):
        chunks += struct.pack(">I", len(body)) + kind + body
        chunks += struct.pack(">I", zlib.crc32(kind + body))
    return b"\x89PNG\r\n\x1a\n" + chunks


FILES = {
    "jpeg": encoded(two_colours(), "JPEG", quality=95),
    "progressive jpeg": encoded(two_colours(), "JPEG", quality=95, progressive=True),
    "png": encoded(two_colours(), "PNG"),
    "palette png": encoded(two_colours("P"), "PNG"),
    "webp": encoded(two_colours(), "WEBP", quality=95),
    "lossless webp": encoded(two_colours(), "WEBP", lossless=True),
    "cmyk jpeg": encoded(two_colours("CMYK"), "JPEG", quality=95),
    "heic": HEIC,
}


@pytest.mark.parametrize("kind", FILES)
def test_every_supported_kind_gives_its_colours(kind: str) -> None:
    pixels = decode_photo(FILES[kind], None, SETTINGS)
    assert pixels.shape == (32, 64, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels[16, 8].astype(int) - RED).max() < 12
    assert np.abs(pixels[16, 56].astype(int) - BLUE).max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    turn_back = {5: 5, 6: 2, 7: 6, 8: 4, 2: 0, 3: 3, 4: 1}
    stored = two_colours()
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(turn_back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode_photo(encoded(stored, kind, exif=exif.tobytes()), None, SETTINGS)
    assert pixels.shape == (32, 64, 3)
    assert pixels[16, 8, 0] > 150 and pixels[16, 56, 2] > 150


def test_heic_is_turned_once_and_not_again_by_its_exif() -> None:
    pixels = decode_photo(HEIC_TURNED, None, SETTINGS)
    assert pixels.shape == (64, 32, 3)
    assert pixels[8, 16, 0] > 150 and pixels[56, 16, 2] > 150


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"nonsense"])
def test_a_damaged_orientation_does_not_lose_the_photo(exif: bytes) -> None:
    data = encoded(two_colours(), "PNG", exif=exif)
    assert decode_photo(data, None, SETTINGS).shape == (32, 64, 3)


def test_transparent_places_become_white() -> None:
    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert (decode_photo(encoded(clear, "PNG"), None, SETTINGS) == 255).all()


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (32768, 128), (65535, 255)])
def test_sixteen_bit_grey_keeps_its_brightness(value: int, expected: int) -> None:
    deep = Image.fromarray(np.full((8, 8), value, np.uint16))
    pixels = decode_photo(encoded(deep, "PNG"), None, SETTINGS)
    assert pixels.shape == (8, 8, 3) and (pixels == expected).all()


GIF = encoded(two_colours(), "GIF")
ANIMATED = {"save_all": True, "append_images": [two_colours().rotate(180)], "duration": 100}
HEIC_HUGE = HEIC.replace(
    b"ispe" + struct.pack(">III", 0, 64, 64), b"ispe" + struct.pack(">III", 0, 20000, 20000)
)
BAD = {
    "nothing": (b"", "empty"),
    "a text file": (b"Dear diary,\n" * 9, "text file"),
    "svg": (b'<?xml version="1.0"?><svg xmlns="a"/>', "SVG"),
    "gif": (GIF, "GIF"),
    "bmp": (encoded(two_colours(), "BMP"), "BMP"),
    "tiff": (encoded(two_colours(), "TIFF"), "TIFF"),
    "pdf": (b"%PDF-1.7 \0", "PDF"),
    "avif": (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
    "video": (b"\0\0\0\x1cftypisom\0\0\0\0", "video"),
    "animated heic": (b"\0\0\0\x1cftyphevc\0\0\0\0", "animated"),
    "animated png": (encoded(two_colours(), "PNG", **ANIMATED), "animated"),
    "animated webp": (encoded(two_colours(), "WEBP", **ANIMATED), "animated"),
    "huge heic": (HEIC_HUGE, "400 megapixels"),
    "truncated jpeg": (FILES["jpeg"][:-200], "damaged or cut off"),
    "truncated png": (FILES["png"][:60], "damaged or cut off"),
    "truncated webp": (FILES["webp"][:60], "damaged or cut off"),
    "truncated heic": (HEIC[:-20], "damaged or cut off"),
    "only a header": (b"\xff\xd8\xff", "damaged or cut off"),
    "only a png header": (b"\x89PNG\r\n\x1a\n", "damaged or cut off"),
    "only a webp header": (b"RIFF\0\0\0\0WEBP", "damaged or cut off"),
    "only a heic header": (b"\0\0\0\x1cftypheic\0\0\0\0", "damaged or cut off"),
}


@pytest.mark.parametrize("case", BAD)
def test_anything_else_is_refused_by_name(case: str, tmp_path: Path) -> None:
    data, reason = BAD[case]
    path = tmp_path / "holiday.jpg"
    path.write_bytes(data)
    with pytest.raises(UnreadablePhoto, match=rf"holiday\.jpg .*{reason}"):
        decode_photo(path, None, SETTINGS)


def test_a_small_file_of_144_megapixels_is_refused_from_its_header() -> None:
    bomb = png_claiming(12_000, 12_000)
    assert len(bomb) < 200_000
    with pytest.raises(UnreadablePhoto, match=r"bomb\.png .*144 megapixels \(12000x12000\)"):
        decode_photo(bomb, "bomb.png", SETTINGS)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "lossless webp", "heic"])
def test_the_pixel_cap_is_exact(kind: str) -> None:
    limit = 64 * 64 if kind == "heic" else 64 * 32  # HEVC codes whole blocks
    decode_photo(FILES[kind], None, Settings(max_photo_pixels=limit))
    with pytest.raises(UnreadablePhoto, match="megapixels"):
        decode_photo(FILES[kind], None, Settings(max_photo_pixels=limit - 1))


def test_a_large_file_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    path.write_bytes(b"\xff\xd8\xff" + bytes(2_000_000))
    with pytest.raises(UnreadablePhoto, match=r"large\.jpg has 2\.0 MB; at most 1\.0 MB"):
        decode_photo(path, None, Settings(max_photo_bytes=1_000_000))


def test_a_missing_file_a_folder_and_a_pipe_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UnreadablePhoto, match=r"no file .*gone\.jpg"):
        decode_photo(tmp_path / "gone.jpg", None, SETTINGS)
    with pytest.raises(UnreadablePhoto, match="is a folder"):
        decode_photo(str(tmp_path), None, SETTINGS)
    with pytest.raises(UnreadablePhoto, match=r"pipe\.jpg is not an ordinary file"):
        decode_photo(tmp_path / "pipe.jpg", None, SETTINGS)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_locked_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "locked.jpg"
    path.write_bytes(FILES["jpeg"])
    path.chmod(stat.S_IWUSR)
    with pytest.raises(UnreadablePhoto, match=r"locked\.jpg may not be read"):
        decode_photo(path, None, SETTINGS)


def test_pillow_images_and_arrays_are_photos_too() -> None:
    array = np.asarray(two_colours())
    from_array = decode_photo(array, None, SETTINGS)
    assert np.array_equal(from_array, decode_photo(two_colours("RGBA"), None, SETTINGS))
    assert not np.shares_memory(from_array, array)


@pytest.mark.parametrize(
    "source",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)],
)
def test_an_array_of_another_shape_says_what_is_wanted(source: np.ndarray) -> None:
    with pytest.raises(UnreadablePhoto, match=r"selfie 2 .*(RGB|no pixels)"):
        decode_photo(source, "selfie 2", SETTINGS)


def test_a_thing_that_is_no_photo_is_refused() -> None:
    with pytest.raises(UnreadablePhoto, match="int"):
        decode_photo(7, None, SETTINGS)  # type: ignore[arg-type]

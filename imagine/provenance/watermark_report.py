"""How much the invisible watermark survives: `python -m imagine.provenance.watermark_report`.

Marks a set of pictures (free test images, renders of people who do not exist, drawings made here),
does to them what people do, and prints a table of what could still be read. Takes minutes; the
false reads, asked for with `--false-reads 10000`, take the better part of an hour.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from imagine.core import ImageArray
from imagine.errors import MissingExtra
from imagine.provenance.spread_spectrum import SpreadSpectrumWatermark
from imagine.provenance.watermark import Watermark
from imagine.settings import Settings

Picture = Image.Image
Attack = Callable[[Picture, np.random.Generator], Picture]
T = TypeVar("T")

_FREE_PICTURES = (
    "brick.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png", "horse.png",
    "hubble_deep_field.jpg", "ihc.png", "logo.png", "moon.png", "motorcycle_left.png", "page.png",
    "retina.jpg", "rocket.jpg", "text.png", "color.png", "clock_motion.png", "phantom.png",
    "cell.png",
)  # fmt: skip
_DRAWN = 32


def _again(picture: Picture, kind: str, quality: int) -> Picture:
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=quality)
    return Image.open(buffer).convert("RGB")


def _resized(picture: Picture, factor: float) -> Picture:
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.BICUBIC)


def _brightened(picture: Picture, factor: float) -> Picture:
    return Image.fromarray(np.clip(np.asarray(picture) * factor, 0, 255).astype(np.uint8))


def _cropped(picture: Picture, rng: np.random.Generator, keep: float = 0.9) -> Picture:
    width, height = int(picture.width * keep), int(picture.height * keep)
    left = int(rng.integers(picture.width - width + 1))
    top = int(rng.integers(picture.height - height + 1))
    return picture.crop((left, top, left + width, top + height))


def _mirrored(picture: Picture) -> Picture:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _noisy(picture: Picture, rng: np.random.Generator, deviation: float) -> Picture:
    noise = rng.normal(0, deviation, np.asarray(picture).shape)
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


def _regenerated(picture: Picture, rng: np.random.Generator) -> Picture:
    """A stand-in for "draw it again": blur, noise, half size and back, JPEG at quality 20."""
    soft = picture.filter(ImageFilter.GaussianBlur(1.5 * picture.width / 512))
    small = _resized(_noisy(soft, rng, 6), 0.5)
    return _again(small.resize(picture.size, Image.Resampling.BICUBIC), "JPEG", 20)


def _bottleneck(picture: Picture, side: int) -> Picture:
    """What survives passing through `side` x `side` numbers, as a coarse autoencoder does."""
    small = picture.resize((side, side), Image.Resampling.LANCZOS)
    return small.resize(picture.size, Image.Resampling.BICUBIC)


ATTACKS: dict[str, Attack] = {
    "untouched": lambda p, r: p,
    "JPEG q75": lambda p, r: _again(p, "JPEG", 75),
    "JPEG q50": lambda p, r: _again(p, "JPEG", 50),
    "0.5x": lambda p, r: _resized(p, 0.5),
    "WebP 80": lambda p, r: _again(p, "WEBP", 80),
    "brightness +15 %": lambda p, r: _brightened(p, 1.15),
    "screenshot 0.75x q80": lambda p, r: _again(_resized(p, 0.75), "JPEG", 80),
    "mirrored": lambda p, r: _mirrored(p),
    "turned 90 degrees": lambda p, r: p.transpose(Image.Transpose.ROTATE_90),
    "crop to 90 %": lambda p, r: _cropped(p, r),
    "crop to 90 %, q75": lambda p, r: _again(_cropped(p, r), "JPEG", 75),
    "crop, mirrored, q75": lambda p, r: _again(_mirrored(_cropped(p, r)), "JPEG", 75),
    "crop to 80 %, q75": lambda p, r: _again(_cropped(p, r, 0.8), "JPEG", 75),
    "JPEG q30": lambda p, r: _again(p, "JPEG", 30),
    "0.25x": lambda p, r: _resized(p, 0.25),
    "noise, deviation 8": lambda p, r: _noisy(p, r, 8),
    "blur, radius 1.5": lambda p, r: p.filter(ImageFilter.GaussianBlur(1.5)),
    "rotated 2 degrees": lambda p, r: p.rotate(2, Image.Resampling.BICUBIC),
    "regeneration stand-in": _regenerated,
    "through 96 x 96": lambda p, r: _bottleneck(p, 96),
    "through 64 x 64": lambda p, r: _bottleneck(p, 64),
}


def test_pictures(size: int) -> list[ImageArray]:
    """Sixty-four squares of `size` pixels: no photograph of a person among them.

    Raises:
        MissingExtra: scikit-image, which brings the free pictures, is not installed.
    """
    try:
        import skimage
    except ImportError as error:
        raise MissingExtra(
            "The report uses the test pictures of scikit-image: pip install 'imagine-yourself[dev]'"
        ) from error
    shelf = Path(skimage.__file__).parent / "data"
    renders = sorted((Settings().assets_directory / "people").glob("*/*.jpg"))
    paths = [shelf / name for name in _FREE_PICTURES] + renders
    squares = [_square(Image.open(path).convert("RGB"), size) for path in paths]
    return squares + [drawing(number, size) for number in range(_DRAWN)]


def drawing(number: int, size: int) -> ImageArray:
    """The `number`th drawing: clouds, a gradient, ellipses or soft lights, in turn."""
    rng = np.random.default_rng(1000 + number)
    make = (_clouds, _gradient, _ellipses, _lights)[number % 4]
    return _square(make(rng, max(size, 512)), size)


def _square(picture: Picture, size: int) -> ImageArray:
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    middle = picture.crop((left, top, left + side, top + side))
    return np.asarray(middle.resize((size, size), Image.Resampling.LANCZOS))


def _clouds(rng: np.random.Generator, side: int) -> Picture:
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    radius[0, 0] = 1
    slope = radius ** -(1 + 0.9 * rng.random())
    slope[0, 0] = 0
    layers = []
    for _ in range(3):
        noise = rng.normal(size=radius.shape) + 1j * rng.normal(size=radius.shape)
        layer = np.fft.irfft2(noise * slope, (side, side))
        layers.append(layer / layer.std())
    colours = np.stack([layers[0], 0.7 * layers[0] + 0.3 * layers[1], layers[2]], axis=2)
    return Image.fromarray(np.clip(128 + 45 * colours, 0, 255).astype(np.uint8))


def _gradient(rng: np.random.Generator, side: int) -> Picture:
    rows, columns = np.mgrid[0:side, 0:side] / side
    blend = rows * rng.random() + columns * rng.random()
    blend = (blend / blend.max())[:, :, None]
    first, last = rng.integers(0, 256, (2, 3))
    return Image.fromarray((first * (1 - blend) + last * blend).astype(np.uint8))


def _ellipses(rng: np.random.Generator, side: int) -> Picture:
    picture = Image.new("RGB", (side, side), _colour(rng))
    pen = ImageDraw.Draw(picture)
    for _ in range(40):
        x, y = rng.integers(0, side, 2).tolist()
        wide, high = rng.integers(side // 50, side // 6, 2).tolist()
        pen.ellipse((x - wide, y - high, x + wide, y + high), fill=_colour(rng))
    return picture


def _lights(rng: np.random.Generator, side: int) -> Picture:
    rows, columns = np.mgrid[0:side, 0:side] / side
    light = np.zeros((side, side, 3)) + rng.integers(60, 200, 3)
    for _ in range(12):
        x, y = rng.random(2)
        spread = 0.05 + 0.3 * rng.random()
        glow = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / spread**2)
        light += rng.normal(size=3) * 60 * glow[:, :, None]
    light += 2 * rng.normal(size=(side, side, 1))
    return Image.fromarray(np.clip(light, 0, 255).astype(np.uint8))


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue


def psnr(before: ImageArray, after: ImageArray) -> float:
    """Peak signal-to-noise ratio of two pictures in decibels."""
    error = float(((before.astype(np.float64) - after) ** 2).mean())
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


@dataclass(frozen=True, slots=True)
class Survival:
    """What was measured on pictures of one size.

    Attributes:
        size: side in pixels.
        decibels: PSNR of each marked picture.
        survived: how many pictures read back exactly, per attack.
        embedding_ms: processor time of each embedding.
        reading_ms: processor time of each reading.
    """

    size: int
    decibels: list[float]
    survived: dict[str, int]
    embedding_ms: list[float]
    reading_ms: list[float]

    def lines(self) -> Iterator[str]:
        """The table, line by line."""
        count = len(self.decibels)
        yield f"{self.size} px, {count} pictures"
        yield f"  PSNR dB: mean {np.mean(self.decibels):.1f}, least {min(self.decibels):.2f}"
        for what, spent in (("embedding", self.embedding_ms), ("reading", self.reading_ms)):
            yield f"  {what} ms: median {np.median(spent):.0f}, most {max(spent):.0f}"
        for name, times in self.survived.items():
            yield f"  {name:<24}{times:>4} of {count}  {100 * times / count:6.1f} %"


def measure(
    watermark: Watermark, pictures: Sequence[ImageArray], attacks: Mapping[str, Attack]
) -> Survival:
    """Mark square pictures of one size, attack each, read each."""
    size = len(pictures[0])
    rng = np.random.default_rng(size)
    result = Survival(size, [], dict.fromkeys(attacks, 0), [], [])
    for pixels in pictures:
        record = int(rng.integers(2**32))
        marked, spent = _timed(watermark.embed, pixels, record)
        result.embedding_ms.append(spent)
        result.decibels.append(psnr(pixels, marked))
        for name, attack in attacks.items():
            attacked = np.asarray(attack(Image.fromarray(marked), rng))
            found, spent = _timed(watermark.read, attacked)
            result.reading_ms.append(spent)
            result.survived[name] += found is not None and found.record == record
    return result


def _timed(work: Callable[..., T], *arguments: object) -> tuple[T, float]:
    start = time.process_time()  # other work on the machine does not count
    done = work(*arguments)
    return done, 1000 * (time.process_time() - start)


def false_reads(watermark: Watermark, count: int) -> int:
    """How many of `count` unmarked crops are said to carry a mark; must be none."""
    rng = np.random.default_rng(7)
    pictures = test_pictures(1024)
    wrong = 0
    for number in range(count):
        pixels = pictures[number % len(pictures)]
        height, width = rng.integers(96, 513, 2).tolist()
        top, left = (int(rng.integers(1024 - side + 1)) for side in (height, width))
        crop = np.ascontiguousarray(pixels[top : top + height, left : left + width])
        wrong += watermark.read(crop) is not None
        if number % 500 == 499:
            print(f"  {number + 1} unmarked crops, {wrong} false reads", flush=True)
    return wrong


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables asked for."""
    parser = argparse.ArgumentParser(description="What the invisible watermark survives.")
    parser.add_argument("--sizes", type=int, nargs="*", default=[128, 256, 512, 1024])
    parser.add_argument("--pictures", type=int, default=64, help="how many of the 64")
    parser.add_argument("--false-reads", type=int, default=0, metavar="CROPS")
    wanted = parser.parse_args(arguments)
    watermark = SpreadSpectrumWatermark(b"the key of the watermark report!")
    for size in wanted.sizes:
        pictures = test_pictures(size)[: wanted.pictures]
        print("\n".join(measure(watermark, pictures, ATTACKS).lines()), flush=True)
    if wanted.false_reads:
        wrong = false_reads(watermark, wanted.false_reads)
        print(f"{wrong} false reads in {wanted.false_reads} unmarked crops")


if __name__ == "__main__":
    main()

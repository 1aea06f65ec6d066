"""How much the invisible watermark survives: `python -m imagine.provenance.watermark_report`.

Marks a set of pictures (free test images, renders of people who do not exist, drawings made here),
does to them what people do, and prints a table of what could still be read; `--write` puts it into
docs/watermark.md. Takes minutes; the false reads, asked for with `--false-reads 10000`, half an
hour of one core. `--regenerate MODULE:FUNCTION` measures instead what is left when a model draws
the marked pictures again; the function brings the models, which this room does not know.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from imagine.core import ImageArray
from imagine.errors import InvalidInput, MissingExtra
from imagine.provenance.registry import NEAR, perceptual_hash
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
_PEOPLE = 24


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


def _straightened(picture: Picture, degrees: float) -> Picture:
    """Turned about the middle, then cut to what is still filled."""
    slope = np.tan(abs(np.radians(degrees)))
    side = int(picture.width / (1 + slope))
    corner = (picture.width - side) // 2
    turned = picture.rotate(degrees, Image.Resampling.BICUBIC)
    return turned.crop((corner, corner, corner + side, corner + side))


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
    "rotated by 1 degree": lambda p, r: p.rotate(1, Image.Resampling.BICUBIC),
    "rotated by -2 degrees": lambda p, r: p.rotate(-2, Image.Resampling.BICUBIC),
    "rotated by 2, q75": lambda p, r: _again(p.rotate(2, Image.Resampling.BICUBIC), "JPEG", 75),
    "straightened by 1.3": lambda p, r: _straightened(p, 1.3),
    "rotated by 5 degrees": lambda p, r: p.rotate(5, Image.Resampling.BICUBIC),
    "median, 5 pixels": lambda p, r: p.filter(ImageFilter.MedianFilter(5)),
    "regeneration stand-in": _regenerated,
    "through 96 x 96": lambda p, r: _bottleneck(p, 96),
    "through 64 x 64": lambda p, r: _bottleneck(p, 64),
}


# Edits an everyday life brings; the promises of the watermark are about these.
PROMISED = (
    "untouched", "JPEG q75", "JPEG q50", "0.5x", "WebP 80", "brightness +15 %",
    "screenshot 0.75x q80", "mirrored",
)  # fmt: skip


def test_pictures(size: int, people: Path | None = None) -> list[ImageArray]:
    """Squares of `size` pixels, 64 and those in `people`: no photograph of a person among them.

    Args:
        size: pixels of a side.
        people: a folder of shards of the training data, from which 24 renders are taken.

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
    squares += [drawing(number, size) for number in range(_DRAWN)]
    return squares + (_renders(people, size) if people else [])


def _renders(folder: Path, size: int) -> list[ImageArray]:
    """One person from each of the first shards, rendered at 128 pixels and enlarged."""
    shards = sorted(folder.glob("shard-*.npy"))[:_PEOPLE]
    faces = [np.array(np.load(shard, mmap_mode="r")[0]) for shard in shards]
    return [_square(Image.fromarray(face), size) for face in faces]


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


def false_reads(watermark: Watermark, count: int, first: int = 0) -> int:
    """How many of `count` unmarked crops are said to carry a mark; must be none.

    Crops are numbered; the `first` one lets several processes share the work.
    """
    pictures = test_pictures(1024)
    wrong = 0
    for number in range(first, first + count):
        rng = np.random.default_rng((7, number))
        pixels = pictures[number % len(pictures)]
        height, width = rng.integers(96, 513, 2).tolist()
        top, left = (int(rng.integers(1024 - side + 1)) for side in (height, width))
        crop = np.ascontiguousarray(pixels[top : top + height, left : left + width])
        wrong += watermark.read(crop) is not None
        if number % 500 == 499:
            print(f"  {number + 1 - first} unmarked crops, {wrong} false reads", flush=True)
    return wrong


def survival_table(results: Sequence[Survival], false: tuple[int, int] | None) -> str:
    """The report as a page of docs/."""
    heads = "".join(f" | {result.size} px" for result in results)
    lines = [_PAGE_HEAD, f"| edit{heads} |", "|---" * (len(results) + 1) + "|"]
    for name in results[0].survived:
        shares = "".join(
            f" | {100 * result.survived[name] / len(result.decibels):.1f} %" for result in results
        )
        lines.append(f"| {name}{shares} |")
    rows: tuple[tuple[str, Callable[[Survival], str]], ...] = (
        ("pictures", lambda one: str(len(one.decibels))),
        ("PSNR, dB: mean", lambda one: f"{np.mean(one.decibels):.1f}"),
        ("PSNR, dB: least", lambda one: f"{min(one.decibels):.2f}"),
        ("marking, ms: median", lambda one: f"{np.median(one.embedding_ms):.0f}"),
        ("marking, ms: most", lambda one: f"{max(one.embedding_ms):.0f}"),
        ("reading, ms: median", lambda one: f"{np.median(one.reading_ms):.0f}"),
        ("reading, ms: most", lambda one: f"{max(one.reading_ms):.0f}"),
    )
    lines += ["", f"| of each size{heads} |", "|---" * (len(results) + 1) + "|"]
    lines += [f"| {name}{''.join(f' | {tell(one)}' for one in results)} |" for name, tell in rows]
    if false is not None:
        lines += ["", f"Unmarked crops said to carry a mark: **{false[0]} of {false[1]}**."]
    return "\n".join([*lines, _PAGE_FOOT])


class Redrawing(Protocol):
    """Models that draw pictures again, brought from elsewhere."""

    @property
    def attacks(self) -> Mapping[str, Attack]:
        """By name; each gives a picture of the same size."""

    @property
    def pictures(self) -> Sequence[ImageArray]:
        """Unmarked pictures of one size."""

    @property
    def distance(self) -> Callable[[ImageArray, ImageArray], float | None]:
        """Between two faces, 0.6 and less being one person; None where no face is found."""

    @property
    def says(self) -> str:
        """What pictures and attacks these are."""


@dataclass(frozen=True, slots=True)
class Redrawn:
    """What one model left of the marks of so many pictures.

    Attributes:
        name: of the attack.
        count: pictures.
        read: of how many the watermark still said the right record.
        found: of how many the registry still said the right record.
        bits: by how many of 256 the perceptual hash moved, per picture.
        decibels: PSNR against the marked picture, per picture.
        distances: of the faces, where there was one before and after.
    """

    name: str
    count: int
    read: int
    found: int
    bits: list[int]
    decibels: list[float]
    distances: list[float]

    def cells(self) -> list[str]:
        """A row of the table."""
        alike = [f"{np.median(self.distances):.2f}"] if self.distances else ["no face"]
        same = sum(one <= 0.6 for one in self.distances)
        return [
            self.name,
            f"{100 * self.read / self.count:.0f} %",
            f"{100 * self.found / self.count:.0f} %",
            f"{np.median(self.bits):.0f}",
            f"{np.mean(self.decibels):.1f}",
            *alike,
            f"{same} of {self.count}",
        ]


def measure_redrawing(watermark: Watermark, brought: Redrawing) -> list[Redrawn]:
    """Mark pictures, have each drawn again by each model, look for what still answers."""
    rng = np.random.default_rng(3)
    marked = {
        record: watermark.embed(pixels, record)
        for record, pixels in enumerate(brought.pictures, 1000)
    }
    known = {record: perceptual_hash(pixels) for record, pixels in marked.items()}
    attacks = {"none": lambda picture, rng: picture, **brought.attacks}
    results = []
    for name, attack in attacks.items():
        result = Redrawn(name, len(marked), 0, 0, [], [], [])
        read = found = 0
        for record, pixels in marked.items():
            again = np.asarray(attack(Image.fromarray(pixels), rng))
            reading = watermark.read(again)
            read += reading is not None and reading.record == record
            hashed = perceptual_hash(again)
            away = {other: hashed.distance(one) for other, one in known.items()}
            nearest = min(away, key=away.__getitem__)
            found += nearest == record and away[record] <= NEAR
            result.bits.append(away[record])
            result.decibels.append(min(psnr(pixels, again), 99.0))
            apart = brought.distance(pixels, again)
            if apart is not None:
                result.distances.append(apart)
        results.append(replace(result, read=read, found=found))
        print("  ".join(results[-1].cells()), flush=True)
    return results


def redrawing_table(results: Sequence[Redrawn], says: str) -> str:
    """The part of the page about pictures that were drawn again."""
    head = [
        "drawn again by", "watermark read", "found by its looks", "bits of the hash moved, median",
        "PSNR, dB", "distance of the faces, median", "same person (0.6)",
    ]  # fmt: skip
    lines = [says, "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(result.cells())} |" for result in results]
    return "\n".join(lines)


_BEGIN, _END = "<!-- drawn again: begin -->", "<!-- drawn again: end -->"
_NOT_YET = (
    "Drawing the picture again with an image-to-image model has not been measured on this page."
)


def page_with(page: str, part: str) -> str:
    """A page of `survival_table` with another part about pictures that were drawn again."""
    before, begun, rest = page.partition(_BEGIN)
    _, ended, after = rest.partition(_END)
    if not begun or not ended:
        raise InvalidInput(
            f"The page has no place {_BEGIN!r}. Write it first without --regenerate."
        )
    return f"{before}{_BEGIN}\n{part}\n{_END}{after}"


def part_of(page: str) -> str:
    """What `page_with` put into a page; a sentence where nothing was."""
    inside = page.partition(_BEGIN)[2].partition(_END)[0].strip()
    return inside or _NOT_YET


def _brought(target: str, people: Path | None) -> Redrawing:
    module, _, name = target.partition(":")
    try:
        make: Callable[[Path | None], Redrawing] = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidInput(
            f"There is nothing called {target!r} that draws pictures again. Known: "
            "training.regeneration:redrawing"
        ) from error
    return make(people)


_PAGE_HEAD = """# What the invisible watermark survives

Written by `python -m imagine.provenance.watermark_report --write docs/watermark.md`; do not edit.

A mark counts as surviving when the record number is read back exactly and its authentication code
is right. The pictures are squares: test images of scikit-image (gravel, grass, text, a retina, the
night sky; no person), renders of people who do not exist, and drawings made by the program. Times
are processor time on one core.
"""
_PAGE_FOOT = """
## What it does not survive
Turning by more than three degrees and cutting off more than a quarter of each side do away with the
mark. "Through 64 x 64" stands in for a coarse autoencoder, and the "regeneration stand-in" is blur,
noise, half size and JPEG q20 in one.

### Drawn again by a model
Written by `python -m imagine.provenance.watermark_report --regenerate
training.regeneration:redrawing --people runs/people --write docs/watermark.md`.

<!-- drawn again: begin -->
<!-- drawn again: end -->

So drawing a picture again removes the watermark, and the person is still there. Nothing in this
program prevents that. What still answers is the registry of how pictures look, for as long as the
new picture looks like the old one and the old one was not deleted: "found by its looks" counts
those it names rightly, within 31 of 256 bits. A picture without a mark is therefore no proof that
it was not made here.

The mark can be read and written only with the key of the installation. Whoever has the key can
forge it, and whoever may ask a reader as often as they like can search for a change that removes
it: that is one reason why checking is limited to so many requests a minute.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables asked for."""
    parser = argparse.ArgumentParser(description="What the invisible watermark survives.")
    parser.add_argument("--sizes", type=int, nargs="*", default=[256, 512, 1024])
    parser.add_argument("--pictures", type=int, default=None, help="how many; all when left out")
    parser.add_argument("--people", type=Path, default=None, help="folder of rendered shards")
    parser.add_argument("--false-reads", type=int, default=0, metavar="CROPS")
    parser.add_argument("--regenerate", metavar="MODULE:FUNCTION", help="brings the models")
    parser.add_argument("--write", type=Path, default=None, help="a page to write as well")
    wanted = parser.parse_args(arguments)
    watermark = SpreadSpectrumWatermark(b"the key of the watermark report!")
    if wanted.regenerate:
        brought = _brought(wanted.regenerate, wanted.people)
        part = redrawing_table(measure_redrawing(watermark, brought), brought.says)
        if wanted.write:
            wanted.write.write_text(page_with(wanted.write.read_text("utf-8"), part), "utf-8")
        return
    results = []
    for size in wanted.sizes:
        pictures = test_pictures(size, wanted.people)[: wanted.pictures]
        results.append(measure(watermark, pictures, ATTACKS))
        print("\n".join(results[-1].lines()), flush=True)
    false = None
    if wanted.false_reads:
        wrong = false_reads(watermark, wanted.false_reads)
        false = (wrong, wanted.false_reads)
        print(f"{wrong} false reads in {wanted.false_reads} unmarked crops")
    if wanted.write and results:
        kept = part_of(wanted.write.read_text("utf-8")) if wanted.write.exists() else _NOT_YET
        wanted.write.write_text(page_with(survival_table(results, false), kept), "utf-8")


if __name__ == "__main__":
    main()

"""The watermark that is always on: keyed spread spectrum with an authenticated record number.

A picture of any size is looked at through a canonical frame of 256 x 256 pixels' area, tiled
endlessly. In the spectrum of that tile a ring of coefficients carries two things: the coded bits
of the payload, each spread over some 40 of them, and a pilot known to the key holder by which a
cropped or rescaled picture is laid in place again. Both sides see the picture through the same
whitening (band-pass, divided by local contrast), and the embedder solves for the weakest change
that makes the whitened spectrum say what it should: host interference is cancelled, not endured.
What the margins of the picture say is cancelled by halves only, because crops lose them.

Sources: spread spectrum, Cox et al. 1997; using what the host already says, Miller, Doerr and Cox
2004 ("Applying informed coding and embedding"); phase correlation, Kuglin and Hines 1975.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imagine.core import FloatArray, ImageArray
from imagine.errors import InvalidInput, WatermarkNotKept
from imagine.provenance.payload import CODED_BITS, MAX_RECORD, PayloadCode
from imagine.provenance.watermark import WatermarkReading

Spectrum = NDArray[np.complex64]

MIN_SIDE = 64  # pixels; a smaller picture holds no payload that reads back
MIN_KEY_BYTES = 16

_TILE = 256
_RING = (7.0, 50.0)  # cycles per tile; lower is the picture itself, higher is what JPEG drops
_PILOT_RING = (8.0, 36.0)
_PILOT_SHARE = 0.3
_RAMP = 0.5  # half of the 1/f slope of pictures is flattened; all of it feeds on JPEG noise
_FLATNESS = 10.0  # grey levels; below this contrast nothing survives compression anyway
_WINDOW = 9  # pixels of the tile over which local contrast is measured
_BORDER = 16
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# The smallest change of colour that changes luma by one: a fourth less energy than equal grey.
_TINT = _LUMA / (_LUMA @ _LUMA)


@dataclass(frozen=True, slots=True)
class Strength:
    """How loud the mark is; the reader does not depend on it.

    Attributes:
        margin: how far each coded bit is pushed past zero when the budget allows.
        least_margin: what remains of it in pictures too busy for more.
        pilot: how many standard deviations the pilot stands out when the budget allows.
        least_pilot: what remains of it in busy pictures.
        pilot_floor: the pilot's least size in smooth pictures, where deviations are tiny.
        psnr: decibels the marked picture keeps.
    """

    margin: float = 2.3
    least_margin: float = -0.2
    pilot: float = 10.0
    least_pilot: float = 6.0
    pilot_floor: float = 9.0
    psnr: float = 38.08


# Tried in turn until the mark reads back: first all; then, for gravel and grass, the payload before
# the pilot; last, two decibels more. Of 64 test pictures two at most need the second, none the
# third.
STRENGTHS = (
    Strength(),
    Strength(psnr=38.05, least_margin=-0.5, pilot=5.0, least_pilot=0.0),
    Strength(psnr=36.0),
)
# A small picture has no pixels to spare: JPEG and halving cut right into the ring.
_SMALL_SIDE = 192
_SMALL_STRENGTHS = (Strength(margin=3.5, psnr=38.05), *STRENGTHS[1:])
# A large one has pixels to spare, and its grain is coarser to the eye.
_LARGE_SIDE = 384
_LARGE_STRENGTHS = (Strength(margin=1.8, pilot_floor=8.0), *STRENGTHS[1:])
_ROUNDS = 4
_COARSE = 128  # side of the tile on which scales and shifts are searched
_SCALES = (0.74, 1.31)  # crops down to 55 percent of the area, canvases up to 170
_FINE_STEPS = (-0.004, -0.002, 0.0, 0.002, 0.004)
_TRIES = 12
# In noise the loudest of all places scores 4.5 to 5 deviations. What stands out more gets a second,
# dearer look: neighbouring scales, and soft bits shaken a little, which gravel and grass need.
_STANDS_OUT = 5.0
_SECOND_LOOKS = 3
_MORE_FINE_STEPS = (-0.006, *_FINE_STEPS, 0.006)
_SHAKES, _SHAKE = 24, 0.3
# Straightened pictures: a coarse guess holds within half a degree, less than that needs no turning.
_ANGLES = (-2.75, -1.75, -0.75, 0.75, 1.75, 2.75)
_FINE_ANGLES = (-0.5, -0.25, 0.0, 0.25, 0.5)
_TURNED_SCALES = (0.86, 1.02)
_TURNED_STANDS_OUT = 5.5
# Of each side, how much a crop may take; there the host is cancelled by this much less.
_MARGIN, _MARGIN_SHARE = 0.1, 0.5
_Plan = Callable[[float], tuple[FloatArray, float]]
_TOO_BRIGHT = 222  # turns white when somebody brightens by 15 percent


class SpreadSpectrumWatermark:
    """Marks with a secret key; without it the mark can neither be read nor forged.

    Args:
        key: at least 16 random bytes. Whoever has it can mark as we do.
        strengths: tried in turn until the mark reads back; None chooses by size.
    """

    def __init__(self, key: bytes, strengths: tuple[Strength, ...] | None = None) -> None:
        if len(key) < MIN_KEY_BYTES:
            raise InvalidInput(
                f"The watermark key has {len(key)} bytes. Use at least {MIN_KEY_BYTES} random ones."
            )
        self._code = PayloadCode(key)
        self._chips = _Chips(key)
        self._strengths = strengths

    def __repr__(self) -> str:
        return "SpreadSpectrumWatermark(key=...)"

    def embed(self, pixels: ImageArray, record: int) -> ImageArray:
        """See `Watermark.embed`; reads back what it wrote before it answers."""
        height, width = pixels.shape[:2]
        if min(height, width) < MIN_SIDE:
            raise InvalidInput(
                f"A picture of {width}x{height} pixels is too small to carry the invisible "
                f"watermark. Make it at least {MIN_SIDE} pixels wide and high."
            )
        if not 0 <= record <= MAX_RECORD:
            raise InvalidInput(f"Record number {record} is not between 0 and {MAX_RECORD}.")
        frame = _Frame(pixels)
        for strength in self._strengths or _strengths_for(height * width):
            marked = frame.apply(_solve(frame, self._chips, self._code.messages(record), strength))
            soft = self._chips.soft_bits(_spectrum(_whiten(_canonical_luma(marked))[0]))
            if self._code.read(soft[None]) == [record]:
                return marked
        raise WatermarkNotKept(
            f"This picture of {width}x{height} pixels cannot hold the invisible watermark: what "
            "was written could not be read back. Make another one; nothing leaves without its mark."
        )

    def read(self, pixels: ImageArray) -> WatermarkReading | None:
        """See `Watermark.read`: whole pictures in 8 positions first, then crops and canvases."""
        if min(pixels.shape[:2]) < MIN_SIDE // 2:
            return None
        white = _whiten(_canonical_luma(pixels))[0]
        return self._read_whole(white) or self._read_moved(white)

    def _read_whole(self, white: FloatArray) -> WatermarkReading | None:
        # Undoing: first the mirror image, then turning back; the first position is the usual one.
        positions = [(mirrored, turns) for mirrored in (False, True) for turns in range(4)]
        for some in (positions[:1], positions[1:]):
            views = [np.rot90(white[:, ::-1] if m else white, t) for m, t in some]
            soft = np.stack([self._chips.soft_bits(_spectrum(view)) for view in views])
            for (mirrored, turns), record in zip(some, self._code.read(soft), strict=True):
                if record is not None:
                    return WatermarkReading(record, mirrored, turns)
        return None

    def _read_moved(self, white: FloatArray) -> WatermarkReading | None:
        views = (white, np.ascontiguousarray(white[:, ::-1]))
        guesses = _guesses(views, self._chips)
        for guess in guesses:
            found = _refine(views[guess.mirrored], guess, self._chips)
            (record,) = self._code.read(self._chips.soft_bits(found.spectrum)[None])
            if record is not None:
                return WatermarkReading(record, guess.mirrored, 0, round(found.scale, 3))
        for guess in guesses[:_SECOND_LOOKS]:
            if guess.score > _STANDS_OUT:
                record = self._look_again(views[guess.mirrored], guess)
                if record is not None:
                    return WatermarkReading(record, guess.mirrored, 0, round(guess.scale, 3))
        return self._read_turned(white)

    def _look_again(self, white: FloatArray, guess: _Guess) -> int | None:
        """Many readings of one place, a little different each; all but the true record fail."""
        shakes = np.random.default_rng(0).normal(0, _SHAKE, (_SHAKES, CODED_BITS))
        tries = []
        for step in _MORE_FINE_STEPS:
            spectrum = _refine(white, guess, self._chips, (step,)).spectrum
            soft = self._chips.soft_bits(spectrum)
            tries.append(soft + np.abs(soft).mean() * shakes)
        records = self._code.read(np.concatenate(tries).astype(np.float32))
        return next((record for record in records if record is not None), None)

    def _read_turned(self, white: FloatArray) -> WatermarkReading | None:
        """Straightened by up to three degrees, whole or cropped to what stayed filled."""
        guess, angle = max(
            (_best_guess(turned, scale, self._chips), angle)
            for angle in _ANGLES
            for turned in [_turn(white, angle)]
            for scale in _coarse_scales(white, _TURNED_SCALES)[::2]
        )
        if guess.score < _TURNED_STANDS_OUT:
            return None
        nearby = [replace(guess, scale=guess.scale * step) for step in (0.992, 1.0, 1.008)]
        fine = [
            (_refine(turned, near, self._chips), angle + more)
            for more in _FINE_ANGLES
            for turned in [_turn(white, angle + more)]
            for near in nearby
        ]
        best, degrees = max(fine, key=lambda one: one[0].score)
        (record,) = self._code.read(self._chips.soft_bits(best.spectrum)[None])
        if record is None:
            return None
        return WatermarkReading(record, False, 0, round(best.scale, 3), degrees)


def _strengths_for(pixel_count: int) -> tuple[Strength, ...]:
    if pixel_count < _SMALL_SIDE**2:
        return _SMALL_STRENGTHS
    return STRENGTHS if pixel_count < _LARGE_SIDE**2 else _LARGE_STRENGTHS


class _Chips:
    """Which coefficient says what, drawn from the key.

    SHAKE-256 and not a random generator of numpy: its stream is the same for ever.
    """

    def __init__(self, key: bytes) -> None:
        rows = np.fft.fftfreq(_TILE, 1 / _TILE)[:, None]
        columns = np.arange(_TILE // 2 + 1)[None]
        radius = np.hypot(rows, columns)
        # One of each pair of mirror-symmetric coefficients of a real picture.
        free = ((columns > 0) & (columns < _TILE // 2)) | ((columns == 0) & (rows > 0))
        ring = np.flatnonzero(free & (radius >= _RING[0]) & (radius <= _RING[1]))
        drawn = _random_words(key, 4 * len(ring))
        order, signs = drawn[: len(ring)], drawn[len(ring) : 3 * len(ring)]
        eligible = (radius.flat[ring] >= _PILOT_RING[0]) & (radius.flat[ring] <= _PILOT_RING[1])
        ranked = np.argsort(np.where(eligible, order >> 1, ~np.uint64(0)), kind="stable")
        pilots = int(_PILOT_SHARE * len(ring))
        self._pilot, self._bits = np.sort(ring[ranked[:pilots]]), np.sort(ring[ranked[pilots:]])
        chips = 1 - 2 * (signs & 1).astype(np.float32)
        pairs = chips[: 2 * pilots].reshape(-1, 2)
        self._pilot_chips: Spectrum = (pairs[:, 0] + 1j * pairs[:, 1]).astype(np.complex64)
        count = 2 * len(self._bits)
        self._signs = chips[2 * pilots : 2 * pilots + count]
        shuffled = np.argsort(_random_words(key + b"bits", count), kind="stable")
        self._owner = np.empty(count, np.intp)
        self._owner[shuffled] = np.arange(count) % CODED_BITS
        self._bit_norm = np.sqrt(np.bincount(self._owner, minlength=CODED_BITS)).astype(np.float32)
        self._pilot_norm = float(np.sqrt(2 * pilots))
        pilot_rows = self._pilot // (_TILE // 2 + 1)
        self.pilot_rows = np.where(pilot_rows > _TILE // 2, pilot_rows - _TILE, pilot_rows)
        self.pilot_columns = self._pilot % (_TILE // 2 + 1)

    def soft_bits(self, spectrum: Spectrum) -> FloatArray:
        """(CODED_BITS,) float32; noise of an unmarked, busy picture has deviation about 2."""
        values = np.ascontiguousarray(spectrum.flat[self._bits]).view(np.float32)
        sums = np.bincount(self._owner, values * self._signs, minlength=CODED_BITS)
        return (sums / self._bit_norm / _TILE).astype(np.float32)

    def pilot(self, spectrum: Spectrum) -> tuple[float, float]:
        """How loud the pilot is, and the deviation of what stands in its place, same unit."""
        values = spectrum.flat[self._pilot]
        size = float((values * self._pilot_chips.conj()).real.sum()) / self._pilot_norm / _TILE
        return size, float(np.sqrt((np.abs(values) ** 2).mean() / 2)) / _TILE

    def pattern(self, coded: FloatArray, pilot: float) -> FloatArray:
        """(_TILE, _TILE) whitened pattern that adds `coded` to the soft bits and `pilot`."""
        spectrum: Spectrum = np.zeros((_TILE, _TILE // 2 + 1), np.complex64)
        values = (self._signs * (coded / self._bit_norm)[self._owner]).astype(np.float32)
        spectrum.flat[self._bits] = values.view(np.complex64)
        spectrum.flat[self._pilot] = self._pilot_chips * (pilot / self._pilot_norm)
        tile = np.fft.irfft2(spectrum * _TILE / _slope(), (_TILE, _TILE))
        return tile.astype(np.float32)

    def surface(self, spectrum: Spectrum, side: int) -> FloatArray:
        """(side, side) correlation with the pilot at every shift, in standard deviations.

        Phases only: a picture with a few loud periods (bricks) would drown the rest.
        """
        rows = self.pilot_rows % side
        values = spectrum[rows, self.pilot_columns]
        product: Spectrum = np.zeros((side, side // 2 + 1), np.complex64)
        product[rows, self.pilot_columns] = (
            values / (np.abs(values) + 1e-6) * self._pilot_chips.conj()
        )
        deviation = 2 * np.sqrt(len(values)) / side**2
        correlation: FloatArray = np.fft.irfft2(product, (side, side)).astype(np.float32)
        return correlation / np.float32(deviation)


def _random_words(key: bytes, count: int) -> NDArray[np.uint64]:
    stream = hashlib.shake_256(b"imagine watermark chips 1" + key).digest(8 * count)
    return np.frombuffer(stream, "<u8").astype(np.uint64)


@lru_cache(maxsize=1)
def _slope() -> FloatArray:
    """(_TILE, _TILE // 2 + 1): how much whitening lifts each coefficient of the tile."""
    rows = np.fft.fftfreq(_TILE, 1 / _TILE)[:, None]
    radius = np.hypot(rows, np.arange(_TILE // 2 + 1)[None])
    slope: FloatArray = ((np.maximum(radius, 1) / 20) ** _RAMP).astype(np.float32)
    return slope


@lru_cache(maxsize=16)
def _band(height: int, width: int) -> FloatArray:
    """Band-pass with soft edges for a frame of this size, along the rfft2 layout."""
    radius = _TILE * np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    rises = 1 / (1 + np.exp(-(radius - _RING[0] + 1)))
    falls = 1 / (1 + np.exp((radius - _RING[1] - 2) / 2))
    band: FloatArray = (rises * falls * (radius / 20) ** _RAMP).astype(np.float32)
    return band


def _whiten(luma: FloatArray) -> tuple[FloatArray, FloatArray]:
    """What both sides look at, and the local contrast it was divided by; shapes of `luma`."""
    padded = np.pad(luma, _BORDER, mode="symmetric")
    passed = np.fft.irfft2(np.fft.rfft2(padded) * _band(*padded.shape), padded.shape)
    detail = passed[_BORDER:-_BORDER, _BORDER:-_BORDER].astype(np.float32)
    power = np.maximum(_window_mean(detail * detail), 0) + np.float32(_FLATNESS**2)
    contrast: FloatArray = np.sqrt(power)
    return detail / contrast, contrast


def _window_mean(values: FloatArray) -> FloatArray:
    half = _WINDOW // 2
    sums = np.pad(values, ((half + 1, half), (half + 1, half)), mode="reflect")
    sums = sums.cumsum(axis=0, dtype=np.float64)
    sums = (sums[_WINDOW:] - sums[:-_WINDOW]).cumsum(axis=1)
    sums = sums[:, _WINDOW:] - sums[:, :-_WINDOW]
    return np.asarray(sums / _WINDOW**2, np.float32)


def _spectrum(white: FloatArray, side: int = _TILE) -> Spectrum:
    """Spectrum of the frame folded onto one tile of `side` pixels."""
    height, width = white.shape
    rows, columns = -(-height // side), -(-width // side)
    whole = np.zeros((rows * side, columns * side), np.float32)
    whole[:height, :width] = white
    tile = whole.reshape(rows, side, columns, side).sum(axis=(0, 2))
    return np.fft.rfft2(tile).astype(np.complex64)


def _canonical_size(height: int, width: int) -> tuple[int, int]:
    scale = _TILE / np.sqrt(height * width)
    return max(_WINDOW, round(height * scale)), max(_WINDOW, round(width * scale))


def _canonical_luma(pixels: ImageArray) -> FloatArray:
    size = _canonical_size(*pixels.shape[:2])
    if size == pixels.shape[:2]:
        return pixels.astype(np.float32) @ _LUMA
    grey = Image.fromarray(pixels).convert("L")
    # reducing_gap first halves huge pictures cheaply; the band of the mark is far below.
    small = grey.resize(size[::-1], Image.Resampling.BICUBIC, reducing_gap=4.0)
    return np.asarray(small, np.float32)


class _Frame:
    """A picture, its canonical copy, and how a change of luma there reaches the pixels."""

    def __init__(self, pixels: ImageArray) -> None:
        self._pixels = pixels
        size = _canonical_size(*pixels.shape[:2])
        small = Image.fromarray(pixels)
        if size != pixels.shape[:2]:
            small = small.resize(size[::-1], Image.Resampling.BICUBIC, reducing_gap=4.0)
        self.colours = np.asarray(small, np.float32)
        bright = self.colours.min(axis=2) >= _TOO_BRIGHT
        # White paper loses its mark when brightened: with enough else around, leave it alone.
        self._fixed = bright if 0.15 < bright.mean() < 0.75 else np.zeros_like(bright)

    def change(self, luma: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The canonical luma after a wished change, and the change the colours could take."""
        wished = np.where(self._fixed, 0, luma)[:, :, None] * _TINT
        changed = np.clip(self.colours + wished, 0, 255)
        return changed @ _LUMA, changed - self.colours

    def apply(self, luma: FloatArray) -> ImageArray:
        """The picture itself with the change of its canonical luma."""
        height, width = self._pixels.shape[:2]
        wished = np.where(self._fixed, 0, luma).astype(np.float32)
        if wished.shape != (height, width):
            large = Image.fromarray(wished).resize((width, height), Image.Resampling.BICUBIC)
            wished = np.asarray(large, np.float32)
        return np.clip(self._pixels + np.rint(wished[:, :, None] * _TINT), 0, 255).astype(np.uint8)


def _solve(
    frame: _Frame, chips: _Chips, messages: NDArray[np.uint8], strength: Strength
) -> FloatArray:
    """The weakest change of canonical luma that makes the whitened spectrum say the message.

    Each round supposes that a push moves its own soft bit by `response` and nothing else, solves
    that for the loudest margins within the budget, and looks at what really happened.
    """
    budget = 255**2 / 10 ** (strength.psnr / 10)
    white, contrast = _whiten(frame.colours @ _LUMA)
    # Quiet places give more per grey level; the square root keeps the change out of plain sight.
    mask = contrast.mean() ** 1.5 / np.sqrt(contrast)
    window = _margins(*white.shape)
    spectrum = _spectrum(white * window)
    soft, (pilot, deviation) = chips.soft_bits(spectrum), chips.pilot(spectrum)
    signs = _cheapest(messages, soft)
    first, first_pilot = signs * soft, pilot
    host, host_pilot, response, pilot_response, cost = first, pilot, 0.8, 0.8, 0.0

    def plan(share: float) -> tuple[FloatArray, float]:
        margin = strength.least_margin + share * (strength.margin - strength.least_margin)
        loud = strength.least_pilot + share * (strength.pilot - strength.least_pilot)
        wanted = max(loud * deviation, share * strength.pilot_floor)
        push = np.maximum(0, margin - host) / response
        return push.astype(np.float32), max(0.0, wanted - host_pilot) / pilot_response

    change, energy = np.zeros_like(contrast), 0.0
    for _ in range(_ROUNDS):
        push, pilot_push = _loudest(plan, cost, budget)
        tile = chips.pattern(signs * push, pilot_push)
        change = _unfold(tile, contrast.shape) * mask
        luma, taken = frame.change(change)
        energy = float((taken * taken).mean())
        cost = energy / (float((push * push).sum()) + pilot_push**2 + 1e-9)
        spectrum = _spectrum(_whiten(luma)[0] * window)
        soft, (pilot, deviation) = chips.soft_bits(spectrum), chips.pilot(spectrum)
        pushed = push > 0.3 * push.max()
        if pushed.any() and push.max() > 0:
            moved = (signs * soft - first)[pushed] / push[pushed]
            response = float(np.clip(np.median(moved), 0.1, 3))
        if pilot_push > 0:
            pilot_response = float(np.clip((pilot - first_pilot) / pilot_push, 0.1, 3))
        host, host_pilot = signs * soft - response * push, pilot - pilot_response * pilot_push
    if energy > budget:
        change *= np.float32(np.sqrt(budget / energy))
    return change


def _cheapest(messages: NDArray[np.uint8], soft: FloatArray) -> FloatArray:
    """Signs, +1 for 0, of the message that needs the least push from where the picture is."""
    signs = 1 - 2 * messages.astype(np.float32)
    missing = np.maximum(0, 0.5 - signs * soft)
    return np.asarray(signs[(missing * missing).sum(axis=1).argmin()])


def _loudest(plan: _Plan, cost: float, budget: float) -> tuple[FloatArray, float]:
    """The plan with the largest share whose energy stays within the budget."""

    def energy(share: float) -> float:
        push, pilot_push = plan(share)
        return cost * (float((push * push).sum()) + pilot_push**2)

    low, high = 0.0, 1.0
    if energy(high) <= budget:
        return plan(high)
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if energy(middle) <= budget else (low, middle)
    return plan(low)


@lru_cache(maxsize=16)
def _margins(height: int, width: int) -> FloatArray:
    """(height, width): 1, falling towards the edges to what a crop is likely to leave.

    Cancelling against this window instead of the whole halves what a tenth cut off anywhere brings
    back of the host, and costs the whole picture an eighth of that.
    """
    sides = []
    for side in (height, width):
        place = (np.arange(side) + 0.5) / side
        inside = np.clip(np.minimum(place, 1 - place) / _MARGIN, 0, 1)
        sides.append((1 - _MARGIN_SHARE * (1 - inside)).astype(np.float32))
    return sides[0][:, None] * sides[1][None]


def _unfold(tile: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    height, width = shape
    if (height, width) == tile.shape:
        return tile
    return np.tile(tile, (-(-height // _TILE), -(-width // _TILE)))[:height, :width]


@dataclass(frozen=True, slots=True, order=True)
class _Guess:
    """Where the pilot may stand: a scale and a shift, the shift in pixels of the coarse tile."""

    score: float
    scale: float
    mirrored: bool
    row: int
    column: int

    def resembles(self, other: _Guess) -> bool:
        near = self.mirrored == other.mirrored and abs(self.scale / other.scale - 1) < 0.03
        return near and all(
            min((a - b) % _COARSE, (b - a) % _COARSE) <= 3
            for a, b in ((self.row, other.row), (self.column, other.column))
        )


def _guesses(views: tuple[FloatArray, FloatArray], chips: _Chips) -> list[_Guess]:
    """The most likely places first; `views` are the whitened frame and its mirror image."""
    found = [
        replace(_best_guess(view, scale, chips), mirrored=bool(mirrored))
        for scale in _coarse_scales(views[0], _SCALES)
        for mirrored, view in enumerate(views)
    ]
    distinct: list[_Guess] = []
    for guess in sorted(found, reverse=True):
        if not any(guess.resembles(other) for other in distinct):
            distinct.append(guess)
        if len(distinct) == _TRIES:
            break
    return distinct


def _coarse_scales(white: FloatArray, limits: tuple[float, float]) -> list[float]:
    """Scales that make the longer side of the frame whole pixels of the coarse tile."""
    half = max(white.shape) * _COARSE / _TILE
    return [side / half for side in range(round(limits[0] * half), round(limits[1] * half) + 1)]


def _best_guess(white: FloatArray, scale: float, chips: _Chips) -> _Guess:
    """The loudest shift of the frame at one scale."""
    surface = chips.surface(_spectrum(_rescale(white, scale / 2), _COARSE), _COARSE)
    place = int(surface.argmax())
    row, column = divmod(place, _COARSE)
    return _Guess(float(surface.flat[place]), scale, False, row, column)


@dataclass(frozen=True, slots=True)
class _Found:
    """The spectrum shifted to where the mark was put, and how well the pilot fits there."""

    score: float
    scale: float
    spectrum: Spectrum


def _refine(
    white: FloatArray,
    guess: _Guess,
    chips: _Chips,
    steps: tuple[float, ...] = _FINE_STEPS,
) -> _Found:
    """The exact scale and shift near a guess; `steps` are the changes of scale to try."""
    best: tuple[float, float, float, float, Spectrum] | None = None
    for step in steps:
        scale = guess.scale * (1 + step)
        spectrum = _spectrum(_rescale(white, scale))
        surface = chips.surface(spectrum, _TILE)
        rows = (2 * guess.row + np.arange(-5, 6)) % _TILE
        columns = (2 * guess.column + np.arange(-5, 6)) % _TILE
        nearby = surface[np.ix_(rows, columns)]
        i, j = divmod(int(nearby.argmax()), nearby.shape[1])
        if best is None or nearby[i, j] > best[0]:
            row, column = int(rows[i]), int(columns[j])
            across = [surface[row, (column + d) % _TILE] for d in (-1, 0, 1)]
            down = [surface[(row + d) % _TILE, column] for d in (-1, 0, 1)]
            best = (
                float(nearby[i, j]), scale, row + _vertex(down), column + _vertex(across), spectrum
            )  # fmt: skip
    assert best is not None
    score, scale, shift_down, shift_right, spectrum = best
    turn = np.fft.fftfreq(_TILE)[:, None] * shift_down
    turn = turn + np.fft.rfftfreq(_TILE)[None] * shift_right
    shifted = (spectrum * np.exp(2j * np.pi * turn)).astype(np.complex64)
    return _Found(score, scale, shifted)


def _turn(white: FloatArray, degrees: float) -> FloatArray:
    """The frame turned about its middle, counter-clockwise; nothing where nothing was."""
    return np.asarray(Image.fromarray(white).rotate(degrees, Image.Resampling.BILINEAR), np.float32)


def _vertex(values: list[float]) -> float:
    """Where a parabola through three neighbours is highest, -0.5 to 0.5 from the middle one."""
    left, middle, right = (float(value) for value in values)
    bend = left - 2 * middle + right
    return 0.0 if bend >= 0 else float(np.clip((left - right) / (2 * bend), -0.5, 0.5))


def _rescale(white: FloatArray, scale: float) -> FloatArray:
    """The whitened frame `scale` times as large, exactly, though pixels are whole."""
    height, width = white.shape
    rows, columns = max(2, int(height * scale)), max(2, int(width * scale))
    box = (0.0, 0.0, min(width, columns / scale), min(height, rows / scale))
    image = Image.fromarray(white).resize((columns, rows), Image.Resampling.BILINEAR, box=box)
    return np.asarray(image, np.float32)

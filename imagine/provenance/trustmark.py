"""TrustMark as a second watermark: loads its published weights and carries our record number.

The code and the weights of TrustMark are under the MIT licence, and the weights are in no package:
the operator fetches them once (`HOW`) and turns them into safetensors with

    python -m imagine.provenance.trustmark FOLDER [TARGET]

The networks are public: whoever has a picture can copy its bits onto another one or write others
over them. So this mark alone is believed only of a picture that also looks like ours (`verify`).
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from imagine.core import ImageArray
from imagine.errors import (
    CorruptWeights,
    ImagineError,
    InvalidInput,
    MissingWeights,
    OutputNotWritten,
    WatermarkNotKept,
)
from imagine.models.trustmark import SecretReader, SecretWriter, WriterShape
from imagine.provenance.payload import MAX_RECORD
from imagine.provenance.trustmark_message import Bits, TrustMarkMessage
from imagine.provenance.watermark import WatermarkReading
from imagine.settings import Settings

HOW = (
    "Fetch them once, in an environment of their own, because their package wants another torch: "
    "`python -m venv trustmark && trustmark/bin/pip install trustmark && trustmark/bin/python -c "
    "\"from trustmark import TrustMark; TrustMark(model_type='Q', loadRemover=False)\"`; then run "
    "`python -m imagine.provenance.trustmark "
    "trustmark/lib/python3.*/site-packages/trustmark/models '{target}'`"
)
WRITER, READER, CARD = "encoder.safetensors", "decoder.safetensors", "trustmark.json"
MIN_SIDE = 64  # pixels
# MD5 of the published files, as the package itself checks them (trustmark 0.9.2, trustmark.py).
PUBLISHED = {
    "encoder_B.ckpt": "e6ab35b3f2d02f37b418726a2dc0b9c9",
    "decoder_B.ckpt": "c4aaa4a86e551e6aac7f309331191971",
    "encoder_C.ckpt": "c22bd5f675ee2cf2a6b18f3c2cbcc507",
    "decoder_C.ckpt": "ab3fa5678a86c006bb162e5cc90501d3",
    "encoder_P.ckpt": "0a18f6de6d57c6ef7dda30ce6154a775",
    "decoder_P.ckpt": "9450972bc0c3c217cb7b8220dd2f7a3c",
    "encoder_Q.ckpt": "700328b8754db934b2f6cb5e5185d81f",
    "decoder_Q.ckpt": "4ced90e9cfe13e3295ad082887fe9187",
}
# The stages of the readers that were published, by whether their blocks are deep.
_DEPTHS = {True: (3, 4, 6, 3), False: (2, 2, 2, 2)}
_WRITING_SIDE = 256
_WIDEST = 2.0  # of a longer picture only the middle square is marked
_GAINS = (1.0, 1.3, 1.7)  # tried in turn until the mark reads back
_MOST_CHANGE = 65.0  # mean squared grey levels, 30 dB; the published ones keep 39 to 48 dB


@dataclass(frozen=True, slots=True)
class Card:
    """What is known of the weights beside them.

    Attributes:
        variant: letter of the published set, or another word for other weights.
        writer: shape of the writing network.
        depths: stages of the reading network.
        is_deep: whether its blocks have three convolutions.
        reading_side: pixels a side of what it reads; 224 for P, 245 for the others.
        strength: of the residual; 1.25 for P.
        only_square: whether always the middle square is marked, as P does.
        sha256: of the two files, by their names.
    """

    variant: str
    writer: WriterShape
    depths: tuple[int, ...]
    is_deep: bool
    reading_side: int
    strength: float
    only_square: bool
    sha256: dict[str, str]


class TrustMarkWatermark:
    """Marks pictures of any size through networks of 256 pixels.

    Args:
        key: of the installation; without it the bits say nothing.
        weights: folder that `convert` wrote; None takes that of the environment's data folder.

    Raises:
        MissingWeights: they are not there; says how to get them.
        CorruptWeights: they are not those that were converted.
    """

    def __init__(self, key: bytes, weights: Path | None = None) -> None:
        folder = weights or Settings().data_directory / "watermarks" / "trustmark"
        self._message = TrustMarkMessage(key)
        self._card, self._writer, self._reader = _opened(folder)

    def __repr__(self) -> str:
        return f"TrustMarkWatermark({self._card.variant!r}, key=...)"

    def embed(self, pixels: ImageArray, record: int) -> ImageArray:
        """See `Watermark.embed`; reads back what it wrote before it answers."""
        height, width = pixels.shape[:2]
        if min(height, width) < MIN_SIDE:
            raise InvalidInput(
                f"A picture of {width}x{height} pixels is too small to carry the learned "
                f"watermark. Make it at least {MIN_SIDE} pixels wide and high."
            )
        if not 0 <= record <= MAX_RECORD:
            raise InvalidInput(f"Record number {record} is not between 0 and {MAX_RECORD}.")
        place = self._place(height, width)
        part = pixels[place]
        residual = self._residual(part, self._message.bits(record))
        for gain in _GAINS:
            marked = pixels.copy()
            painted = part + self._card.strength * gain * residual
            marked[place] = np.clip(np.rint(painted), 0, 255).astype(np.uint8)
            if _squared_change(pixels, marked) > _MOST_CHANGE:
                break  # weights that spoil pictures are no watermark
            found = self.read(marked)
            if found is not None and found.record == record:
                return marked
        raise WatermarkNotKept(
            f"This picture of {width}x{height} pixels cannot hold the learned watermark: what was "
            "written could not be read back. Make another one, or leave IMAGINE_LEARNED_WATERMARK "
            "empty."
        )

    def read(self, pixels: ImageArray) -> WatermarkReading | None:
        """See `Watermark.read`: as it is first, then its mirror image and the quarter turns."""
        if min(pixels.shape[:2]) < MIN_SIDE // 2:
            return None
        seen = _tensor(pixels[self._place(*pixels.shape[:2])], self._card.reading_side)
        positions = [(mirrored, turns) for mirrored in (False, True) for turns in range(4)]
        for some in (positions[:1], positions[1:]):
            views = [torch.rot90(seen.flip(2) if m else seen, t, (1, 2)) for m, t in some]
            with torch.inference_mode():
                sure = self._reader(torch.stack(views)).numpy()
            for (mirrored, turns), said in zip(some, sure, strict=True):
                record = self._message.record((said > 0).astype(np.uint8))
                if record is not None:
                    return WatermarkReading(record, mirrored, turns, knows_place=False)
        return None

    def _place(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns that carry the mark: all, or of a long picture the middle square."""
        if max(height, width) <= _WIDEST * min(height, width) and not self._card.only_square:
            return slice(0, height), slice(0, width)
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return slice(top, top + side), slice(left, left + side)

    def _residual(self, pixels: ImageArray, bits: Bits) -> NDArray[np.float32]:
        """(h, w, 3) float32 in grey levels: what the writer adds, without its shift of colour."""
        cover = _tensor(pixels, _WRITING_SIDE)[None]
        with torch.inference_mode():
            painted = self._writer(cover, torch.from_numpy(bits.astype(np.float32))[None])
            residual = painted.clamp(-1, 1) - cover
            residual = residual - residual.mean(dim=(2, 3), keepdim=True)
            grown = torch.nn.functional.interpolate(
                residual, size=pixels.shape[:2], mode="bilinear", align_corners=False
            )
        array: NDArray[np.float32] = grown[0].permute(1, 2, 0).numpy() * np.float32(127.5)
        return array


def _squared_change(pixels: ImageArray, marked: ImageArray) -> float:
    return float(((pixels.astype(np.float32) - marked) ** 2).mean())


def _tensor(pixels: ImageArray, side: int) -> Tensor:
    """(3, side, side) in [-1, 1], resized as TrustMark resizes."""
    small = Image.fromarray(np.ascontiguousarray(pixels)).resize(
        (side, side), Image.Resampling.BILINEAR
    )
    array = np.asarray(small, np.float32).transpose(2, 0, 1) / 127.5 - 1
    return torch.from_numpy(np.ascontiguousarray(array))


def _opened(folder: Path) -> tuple[Card, SecretWriter, SecretReader]:
    files = [folder / name for name in (CARD, WRITER, READER)]
    if missing := [path.name for path in files if not path.is_file()]:
        raise MissingWeights(
            f"The learned watermark trustmark is chosen, and its weights (MIT, like its code) are "
            f"not in {folder}: {', '.join(missing)}. {HOW.format(target=folder)}. Or leave "
            "IMAGINE_LEARNED_WATERMARK empty; the watermark that is always on needs none of this."
        )
    stamps = tuple((path.stat().st_mtime_ns, path.stat().st_size) for path in files)
    return _loaded(folder, stamps)


@lru_cache(maxsize=2)
def _loaded(folder: Path, stamps: object) -> tuple[Card, SecretWriter, SecretReader]:
    """The networks, kept between pictures; opened again when a file has changed."""
    again = f"Convert them again. {HOW.format(target=folder)}"
    try:
        card = _card_of(json.loads((folder / CARD).read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptWeights(f"{folder / CARD} cannot be read. {again}") from error
    for name in (WRITER, READER):
        with (folder / name).open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != card.sha256.get(name):
            raise CorruptWeights(
                f"{folder / name} is not the file that was converted: its SHA-256 is "
                f"{found[:16]}... {again}"
            )
    try:
        writer_tensors, reader_tensors = load_file(folder / WRITER), load_file(folder / READER)
        writer = SecretWriter(card.writer)
        reader = SecretReader(card.depths, card.is_deep, reader_tensors["conv1.weight"].shape[0])
        writer.load_state_dict(writer_tensors)
        reader.load_state_dict(reader_tensors)
    except (SafetensorError, OSError, KeyError, RuntimeError) as error:
        first = (str(error).splitlines() or [""])[0][:160]
        raise CorruptWeights(
            f"The weights in {folder} do not fit TrustMark: {first} {again}"
        ) from (error)
    for network in (writer, reader):
        network.eval().requires_grad_(False)
    return card, writer, reader


def _card_of(told: dict[str, Any]) -> Card:
    writer = WriterShape(**told.pop("writer"))
    if writer.activation not in ("relu", "silu"):
        raise ValueError(writer.activation)
    return Card(**{**told, "writer": writer, "depths": tuple(told["depths"])})


def convert(source: Path, target: Path, *, published_only: bool = True) -> Card:
    """Turn TrustMark's checkpoints into safetensors, without running what is inside them.

    Args:
        source: folder with `encoder_X.ckpt`, `decoder_X.ckpt` and `trustmark_X.yaml` of one
            variant, X being B, C, P or Q; Q where there are several.
        target: folder to write; made when missing.
        published_only: refuse files whose MD5 is not that of the published ones.

    Raises:
        InvalidInput: no such files.
        CorruptWeights: others than were published, or no checkpoints of TrustMark.
        OutputNotWritten: the disk refused.
    """
    variant = _variant_in(source)
    shape = _shape_in(source / f"trustmark_{variant}.yaml")
    parts = {
        WRITER: ("encoder.", f"encoder_{variant}.ckpt"),
        READER: ("decoder.decoder.", f"decoder_{variant}.ckpt"),
    }
    tensors = {
        name: _tensors_of(source / file, prefix, published_only)
        for name, (prefix, file) in parts.items()
    }
    is_deep = "layer1.0.conv3.weight" in tensors[READER]
    try:
        # Also asks whether the shapes fit; what does not is told apart from a full disk.
        width = tensors[READER]["conv1.weight"].shape[0]
        SecretWriter(shape).load_state_dict(tensors[WRITER])
        SecretReader(_DEPTHS[is_deep], is_deep, width).load_state_dict(tensors[READER])
    except (KeyError, RuntimeError) as error:
        first = (str(error).splitlines() or [""])[0][:160]
        raise CorruptWeights(
            f"The checkpoints in {source} are not of TrustMark's networks: {first} "
            "Fetch them again."
        ) from error
    try:
        target.mkdir(parents=True, exist_ok=True)
        digests = {}
        for name, content in tensors.items():
            save_file(content, target / name, metadata={"format": "pt", "licence": "MIT"})
            digests[name] = hashlib.sha256((target / name).read_bytes()).hexdigest()
        square = variant == "P"
        card = Card(
            variant, shape, _DEPTHS[is_deep], is_deep, 224 if square else 245,
            1.25 if square else 1.0, square, digests,
        )  # fmt: skip
        (target / CARD).write_text(json.dumps(asdict(card), indent=1) + "\n", "utf-8")
    except OSError as error:
        raise OutputNotWritten(
            f"{target} was not written ({error.strerror or error}). Choose another folder."
        ) from error
    return card


def _variant_in(source: Path) -> str:
    found = [letter for letter in "QPBC" if (source / f"encoder_{letter}.ckpt").is_file()]
    for letter in found:
        names = (f"decoder_{letter}.ckpt", f"trustmark_{letter}.yaml")
        if all((source / name).is_file() for name in names):
            return letter
    raise InvalidInput(
        f"There is no whole set of TrustMark in {str(source)!r}: encoder_Q.ckpt, decoder_Q.ckpt "
        f"and trustmark_Q.yaml, or those of B, C or P. {HOW.format(target='...')}."
    )


def _shape_in(path: Path) -> WriterShape:
    """The writer's shape: its activation is in no tensor."""
    import yaml

    try:
        told = yaml.safe_load(path.read_text("utf-8"))["model"]["params"]["secret_encoder_config"]
        params = told["params"]
        target, activation = told["target"], str(params.get("activ", "relu"))
        shape = WriterShape(
            int(params.get("width", 32)),
            int(params.get("ndown", 4)),
            int(params.get("nmiddle", 0)),
            activation,
        )
    except (OSError, KeyError, TypeError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise CorruptWeights(f"{path} does not describe TrustMark. Fetch it again.") from error
    if not str(target).endswith(".Unet1") or activation not in ("relu", "silu"):
        raise CorruptWeights(
            f"{path} describes a writer {str(target)[:60]!r} with {activation[:20]!r}; known is "
            "Unet1 with relu or silu. Choose another variant."
        )
    return shape


def _tensors_of(path: Path, prefix: str, published_only: bool) -> dict[str, Tensor]:
    with path.open("rb") as opened:
        found = hashlib.file_digest(opened, "md5").hexdigest()
    if published_only and found != PUBLISHED.get(path.name):
        raise CorruptWeights(
            f"{path.name} is not the published file: its MD5 is {found}, not "
            f"{PUBLISHED.get(path.name)}. Fetch it again; weights of your own go through "
            "convert(..., published_only=False)."
        )
    try:
        # weights_only lets nothing but tensors and plain containers be built.
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = content.get("state_dict", content)
        tensors = {
            name.removeprefix(prefix): tensor.contiguous().clone()
            for name, tensor in state.items()
            if name.startswith(prefix) and isinstance(tensor, Tensor)
        }
    # torch, zipfile and pickle each raise their own kinds.
    except Exception as error:
        raise CorruptWeights(
            f"{path} was not opened ({type(error).__name__}): it is cut short, or holds more than "
            "tensors, which could run code. Fetch it again."
        ) from error
    if not tensors:
        raise CorruptWeights(
            f"{path} has no tensors called {prefix}...; it is no part of TrustMark. Fetch it again."
        )
    return tensors


def main(arguments: list[str]) -> int:
    """Convert, or say what is wrong; returns the exit status."""
    if len(arguments) not in (1, 2):
        print("Usage: python -m imagine.provenance.trustmark FOLDER [TARGET]", file=sys.stderr)
        return InvalidInput.exit_code
    source = Path(arguments[0])
    default = Settings().data_directory / "watermarks" / "trustmark"
    target = Path(arguments[1]) if len(arguments) == 2 else default
    try:
        card = convert(source, target)
    except ImagineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{target}: TrustMark {card.variant}. Set IMAGINE_LEARNED_WATERMARK=trustmark.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

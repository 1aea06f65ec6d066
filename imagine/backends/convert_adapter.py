"""Turns a pickled checkpoint into safetensors without running anything that is inside it.

python -m imagine.backends.convert_adapter in.bin out.safetensors
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from imagine.errors import CorruptWeights, ImagineError, InvalidInput, OutputNotWritten

USAGE = "Usage: python -m imagine.backends.convert_adapter in.bin out.safetensors"


def convert(source: Path, target: Path) -> int:
    """Write the tensors of a pickle under the same names, nested ones joined by dots.

    Args:
        source: a checkpoint of tensors, for example {"image_proj": {...}, "ip_adapter": {...}}.
        target: where to write; it must not exist. The source's name is noted inside, because it
            alone tells FaceID-Plus v2 from v1.

    Returns:
        How many tensors were written.

    Raises:
        InvalidInput: no such file, a target of another kind, or one that exists.
        CorruptWeights: the file holds more than tensors, or is no checkpoint.
        OutputNotWritten: the disk refused.
    """
    if not source.is_file():
        raise InvalidInput(f"There is no file {str(source)!r}. Name the checkpoint to convert.")
    if target.suffix != ".safetensors" or target.exists():
        raise InvalidInput(
            f"{str(target)!r} {'exists' if target.exists() else 'does not end in .safetensors'}. "
            "Name a new file that ends in .safetensors."
        )
    try:
        # weights_only lets nothing but tensors and plain containers be built.
        content = torch.load(source, map_location="cpu", weights_only=True)
    # torch, zipfile and pickle each raise their own kinds.
    except Exception as error:
        raise CorruptWeights(
            f"{source} was not opened ({type(error).__name__}): it is cut short, or holds more "
            "than tensors, which could run code. Get it again, or another file."
        ) from error
    tensors = {name: tensor.contiguous().clone() for name, tensor in _tensors(content)}
    if not tensors:
        raise CorruptWeights(f"{source} holds no tensors. Name a checkpoint.")
    partial = target.with_name(target.name + ".partial")
    try:
        save_file(tensors, partial, metadata={"format": "pt", "source": source.name})
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputNotWritten(
            f"{target} was not written ({error.strerror or error}). Choose another folder."
        ) from error
    return len(tensors)


def _tensors(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield prefix.removesuffix("."), content
    elif isinstance(content, dict):
        for name, value in content.items():
            yield from _tensors(value, f"{prefix}{name}.")


def main(arguments: list[str]) -> int:
    """Convert, or say what is wrong; returns the exit status."""
    if len(arguments) != 2:
        print(USAGE, file=sys.stderr)
        return InvalidInput.exit_code
    source, target = map(Path, arguments)
    try:
        count = convert(source, target)
    except ImagineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{target}: {count} tensors.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Between two exported models: what rewards taught, without most of the patterns they leave.

    python -m training.blend runs/export-plain runs/export-rewarded --share 0.5 --out runs/export

Weights trained on from the same start lie in one basin, so a point on the line between them is a
working model too, often a better one than either end.

Source: weight-space ensembles of arXiv 2109.01903 (WiSE-FT).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from imagine.backends.embedded import save_model
from imagine.errors import InvalidInput
from training.checkpoints import load_exported


def blend(first: Path, second: Path, share: float, out: Path) -> None:
    """Write the model that lies `share` of the way from `first` to `second`; no upsampler.

    Raises:
        InvalidInput: the share is not within 0 and 1, or the models differ in shape.
    """
    if not 0.0 <= share <= 1.0:
        raise InvalidInput(f"share is {share}. Give 0 (the first model) to 1 (the second).")
    denoiser, adapter = load_exported(first)
    other_denoiser, other_adapter = load_exported(second)
    _move_towards(denoiser, other_denoiser, share)
    _move_towards(adapter, other_adapter, share)
    save_model(out, denoiser, adapter)


@torch.no_grad()
def _move_towards(module: nn.Module, other: nn.Module, share: float) -> None:
    ours, theirs = module.state_dict(), other.state_dict()
    if {n: t.shape for n, t in ours.items()} != {n: t.shape for n, t in theirs.items()}:
        raise InvalidInput(
            f"The two models' {type(module).__name__}s differ in shape. Give two that were trained "
            "on from the same start."
        )
    for name, tensor in ours.items():
        tensor.lerp_(theirs[name], share)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=Path, help="exported model")
    parser.add_argument("second", type=Path, help="exported model, trained on from the first")
    parser.add_argument("--share", type=float, default=0.5, help="0 is the first, 1 the second")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    blend(given.first, given.second, given.share, given.out)
    print(f"written to {given.out}")


if __name__ == "__main__":
    main()

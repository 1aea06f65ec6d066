"""A small face recogniser of our own, trained on renders, that lets training see likeness.

Only a loss: it conditions nothing, is not shipped, and is not the recogniser that judges results
(dlib does), so a good score with the judge is not the echo of this loss.

CPU:  python -m training.recogniser --minutes 5
GPU:  python -m training.recogniser --device cuda --minutes 2
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from imagine.backends.minilm import load_text_encoder
from training.clock import Stopwatch
from training.datasets import PairedPhotos
from training.disturb import disturb_references

logger = logging.getLogger(__name__)
CROP = 64


class FaceRecogniser(nn.Module):
    """Aligned (batch, 3, 64, 64) faces in [-1, 1] to unit vectors, with its feature maps."""

    def __init__(self, width: int = 32, embedding: int = 128) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
                nn.GroupNorm(8, outputs),
                nn.SiLU(),
            )

        self.stages = nn.ModuleList(
            [
                nn.Sequential(block(3, width, 2), block(width, width, 1)),
                nn.Sequential(block(width, 2 * width, 2), block(2 * width, 2 * width, 1)),
                nn.Sequential(block(2 * width, 4 * width, 2), block(4 * width, 4 * width, 1)),
                nn.Sequential(block(4 * width, 6 * width, 2), block(6 * width, 6 * width, 1)),
            ]
        )
        self.head = nn.Linear(6 * width * 16, embedding)

    def forward(self, faces: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return (batch, embedding) unit vectors and the feature maps of the four stages."""
        features = []
        for stage in self.stages:
            faces = stage(faces)
            features.append(faces)
        return functional.normalize(self.head(faces.flatten(1)).float(), dim=1), features


def align_batch(images: Tensor, thetas: Tensor, size: int = CROP) -> Tensor:
    """Differentiable aligned faces of (batch, 3, h, w) images; thetas (batch, 2, 3)."""
    shape = [len(images), images.shape[1], size, size]
    grid = functional.affine_grid(thetas.float(), shape, align_corners=False)
    faces: Tensor = functional.grid_sample(
        images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return faces


def likeness_loss(
    recogniser: FaceRecogniser, prediction: Tensor, clean: Tensor, thetas: Tensor, sigmas: Tensor
) -> Tensor:
    """How differently the recogniser sees the estimated and the true face.

    Cosine distance of embeddings plus the mean difference of normalised feature maps (in the manner
    of LPIPS, arXiv 1801.03924, with our own network). Rows near pure noise count less: there the
    estimate is an average face and its features mean little.
    """
    estimated, estimated_maps = recogniser(align_batch(prediction, thetas))
    with torch.no_grad():
        true, true_maps = recogniser(align_batch(clean, thetas))
    distance = 1.0 - (estimated * true).sum(1)
    for one, two in zip(estimated_maps[:3], true_maps[:3], strict=True):
        difference = functional.normalize(one.float(), dim=1) - functional.normalize(
            two.float(), dim=1
        )
        distance = distance + difference.square().sum(1).mean(dim=(1, 2))
    weighted: Tensor = distance * (1.0 - sigmas).sqrt()
    return weighted.mean()


def train(arguments: argparse.Namespace) -> None:
    """Margin softmax over the people of the cache as it is now."""
    photos = PairedPhotos(arguments.data, load_text_encoder(), arguments.device, 0)
    model = FaceRecogniser().to(arguments.device)
    if arguments.start_from is not None:
        model.load_state_dict(torch.load(arguments.start_from, weights_only=True))
    classes = nn.Parameter(torch.randn(photos.person_count, 128, device=arguments.device) * 0.1)
    optimizer = torch.optim.AdamW([*model.parameters(), classes], lr=2e-3, weight_decay=0.02)
    watch = Stopwatch(arguments.minutes * 60)
    bar = tqdm(total=round(arguments.minutes * 60), unit="s", desc="recogniser", mininterval=5)
    correct = 0.0
    while not watch.is_over:
        images, thetas, people = photos.sample_faces(arguments.batch_size)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, watch.progress * 20, (1.0 - watch.progress) * 2.5 + 1e-3)
        faces = disturb_references(align_batch(images, thetas))
        with torch.autocast(arguments.device, dtype=torch.bfloat16):
            embeddings, _ = model(faces)
        cosines = embeddings @ functional.normalize(classes, dim=1).T
        margin = functional.one_hot(people, photos.person_count) * 0.15
        loss = functional.cross_entropy((cosines - margin) * 24.0, people)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        correct = 0.98 * correct + 0.02 * float((cosines.argmax(1) == people).float().mean())
        bar.set_postfix_str(f"loss {float(loss):.3f}, right {correct:.2f}")
        bar.update(round(watch.elapsed) - bar.n)
    bar.close()
    torch.save(model.state_dict(), arguments.out)
    logger.info("%d people, %.3f right, written to %s", photos.person_count, correct, arguments.out)


def load_recogniser(path: Path, device: str) -> FaceRecogniser:
    """A frozen recogniser for `likeness_loss`."""
    model = FaceRecogniser()
    model.load_state_dict(torch.load(path, map_location=device, weights_only=True))
    return model.to(device).eval().requires_grad_(False)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("runs/people"))
    parser.add_argument("--out", type=Path, default=Path("runs/recogniser.pt"))
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--start-from", type=Path, default=None, help="weights to go on from")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    train(parser.parse_args())

"""Face recognisers of our own, trained on renders: one lets training see likeness, one chooses.

None of them is the recogniser that judges results (dlib does), so a good score with the judge is
no echo of theirs. The one that teaches and the one that chooses among drawn pictures at use
(`imagine.backends.chooser`) are taught apart: what the teacher has been pleased by, it cannot rank.

CPU:  python -m training.recogniser --minutes 20
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
from imagine.backends.weight_files import OWN_MODELS
from imagine.models.face_recogniser import FaceLocator, FaceRecogniser
from training.clock import Stopwatch
from training.datasets import PairedPhotos
from training.disturb import disturb_references, soften

logger = logging.getLogger(__name__)
LEARNING_RATE = 2e-3
MARGIN = 0.25
SCALE = 28.0
LOCATOR_SHARE = 0.12  # of the time


def likeness_loss(
    recogniser: FaceRecogniser, prediction: Tensor, clean: Tensor, thetas: Tensor, sigmas: Tensor
) -> Tensor:
    """How differently the recogniser sees the estimated and the true face.

    Cosine distance of embeddings plus the mean difference of normalised feature maps (in the manner
    of LPIPS, arXiv 1801.03924, with our own network). Rows near pure noise count less: there the
    estimate is an average face and its features mean little.
    """
    estimated, estimated_maps = recogniser(recogniser.cut(prediction, thetas))
    with torch.no_grad():
        true, true_maps = recogniser(recogniser.cut(clean, thetas))
    distance = 1.0 - (estimated * true).sum(1)
    for one, two in zip(estimated_maps[:3], true_maps[:3], strict=True):
        distance = distance + map_difference(one, two).mean(dim=(1, 2))
    weighted: Tensor = distance * (1.0 - sigmas).sqrt()
    return weighted.mean()


def map_difference(one: Tensor, two: Tensor) -> Tensor:
    """(batch, h, w) squared distance between two (batch, channels, h, w) maps, normalised."""
    apart = functional.normalize(one.float(), dim=1) - functional.normalize(two.float(), dim=1)
    squares: Tensor = apart.square().sum(1)
    return squares


def jitter(thetas: Tensor) -> Tensor:
    """Crops a little off: (batch, 2, 3) transforms with another zoom, tilt and place."""
    rows, device = len(thetas), thetas.device
    zoom = torch.empty(rows, device=device).uniform_(0.9, 1.08)
    tilt = torch.empty(rows, device=device).uniform_(-0.12, 0.12)
    cosine, sine = zoom * tilt.cos(), zoom * tilt.sin()
    turn = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
    shift = torch.empty(rows, 2, 1, device=device).uniform_(-0.08, 0.08)
    linear = thetas[:, :, :2].float()
    return torch.cat([linear @ turn, thetas[:, :, 2:].float() + linear @ shift], dim=2)


def mirrored(thetas: Tensor) -> Tensor:
    """Where the mirrored faces of mirrored pictures are, of (batch, 2, 3) transforms."""
    signs = torch.tensor([[1.0, -1.0, -1.0], [-1.0, 1.0, 1.0]], device=thetas.device)
    return thetas * signs


def train(arguments: argparse.Namespace) -> None:
    """Margin softmax over the people of the cache as it is now, then the locator."""
    torch.manual_seed(arguments.seed)
    photos = PairedPhotos(arguments.data, load_text_encoder(), arguments.device, arguments.seed)
    model = FaceRecogniser(width=arguments.width).to(arguments.device)
    if arguments.start_from is not None:
        model = load_recogniser(arguments.start_from, arguments.device).requires_grad_(True)
    minutes = arguments.minutes * (1.0 - LOCATOR_SHARE * arguments.locator)
    correct = _train_recogniser(model, photos, arguments, minutes)
    model.save_pretrained(arguments.out)
    logger.info("%d people, %.3f right, written to %s", photos.person_count, correct, arguments.out)
    if arguments.locator:
        locator = FaceLocator().to(arguments.device)
        missed = _train_locator(locator, photos, arguments, arguments.minutes - minutes)
        locator.save_pretrained(arguments.out / "locator")
        logger.info("faces missed by %.4f of half the picture's side", missed)


def _train_recogniser(
    model: FaceRecogniser, photos: PairedPhotos, arguments: argparse.Namespace, minutes: float
) -> float:
    device = arguments.device
    model.to(memory_format=torch.channels_last)
    classes = nn.Parameter(
        torch.randn(photos.person_count, int(model.config.embedding), device=device) * 0.1
    )
    optimizer = torch.optim.AdamW(
        [*model.parameters(), classes], lr=LEARNING_RATE, weight_decay=0.02
    )
    watch = Stopwatch(minutes * 60)
    bar = tqdm(total=round(minutes * 60), unit="s", desc="recogniser", mininterval=5)
    correct, seen = 0.0, 0
    while not watch.is_over:
        images, thetas, people = photos.sample_faces(arguments.batch_size)
        _set_rate(optimizer, watch.progress)
        faces = soften(disturb_references(model.cut(images, jitter(thetas))))
        flipped = torch.rand(len(faces), 1, 1, 1, device=device) < 0.5
        faces = torch.where(flipped, faces.flip(3), faces)
        with torch.autocast(device, dtype=torch.bfloat16):
            embeddings, _ = model(faces.contiguous(memory_format=torch.channels_last))
        cosines = embeddings @ functional.normalize(classes, dim=1).T
        margin = functional.one_hot(people, photos.person_count) * MARGIN
        loss = functional.cross_entropy((cosines - margin) * SCALE, people)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        correct = 0.98 * correct + 0.02 * float((cosines.argmax(1) == people).float().mean())
        seen += len(people)
        rate = seen / watch.elapsed
        bar.set_postfix_str(f"loss {float(loss.detach()):.3f}, right {correct:.2f}, {rate:.0f}/s")
        bar.update(round(watch.elapsed) - bar.n)
    bar.close()
    return correct


def _train_locator(
    model: FaceLocator, photos: PairedPhotos, arguments: argparse.Namespace, minutes: float
) -> float:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    watch = Stopwatch(minutes * 60)
    missed = 0.1
    while not watch.is_over:
        images, thetas, _ = photos.sample_faces(arguments.batch_size)
        _set_rate(optimizer, watch.progress)
        flipped = torch.rand(len(images), 1, 1, device=images.device) < 0.5
        images = torch.where(flipped[..., None], images.flip(3), images)
        thetas = torch.where(flipped, mirrored(thetas), thetas)
        with torch.autocast(arguments.device, dtype=torch.bfloat16):
            found = model(soften(images))
        loss = functional.smooth_l1_loss(found, thetas, beta=0.02)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        miss = float((found - thetas).detach()[:, :, 2].norm(dim=1).mean())
        missed = 0.98 * missed + 0.02 * miss
    return missed


def _set_rate(optimizer: torch.optim.Optimizer, progress: float) -> None:
    """Up in a twentieth of the time, down in the last two fifths."""
    for group in optimizer.param_groups:
        group["lr"] = LEARNING_RATE * min(1.0, progress * 20, (1.0 - progress) * 2.5 + 1e-3)


def load_recogniser(path: Path, device: str) -> FaceRecogniser:
    """A frozen recogniser for `likeness_loss`."""
    model: FaceRecogniser = FaceRecogniser.from_pretrained(path, **OWN_MODELS)
    model.to(device).eval().requires_grad_(False)
    return model


def main() -> None:
    """Train recognisers from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("runs/people"))
    parser.add_argument("--out", type=Path, default=Path("runs/recogniser"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--batch-size", type=int, default=96)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start-from", type=Path, help="a recogniser to go on with")
    parser.add_argument(
        "--locator", action="store_true", help="one that finds faces too, to choose with"
    )
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(parser.parse_args())


if __name__ == "__main__":
    main()

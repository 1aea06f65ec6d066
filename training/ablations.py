"""What each part of the recipe is worth: the same number of pictures with one part taken away.

GPU:  python -m training.ablations --device cuda --model base --pictures 400000
CPU:  python -m training.ablations --pictures 20000 --start-from assets/models/imagine-mini

| variant            | what is different                                                          |
|--------------------|----------------------------------------------------------------------------|
| full               | nothing: pairs, then pairs of large frontal faces, as the recipe has it    |
| without pairs      | the reference is always the very photo to be drawn                         |
| single stage       | all pictures in one stage, large frontal faces never alone                 |
| joined attention   | one attention over the tokens of prompt and person together                |

The same three comparisons as in table 4 of "Imagine yourself", arXiv 2409.13346. Every variant
starts from the same weights (nothing, or `--start-from`), sees the same number of pictures and is
evaluated by `training.evaluation` with the same people, wishes and seeds.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from imagine.backends import BACKENDS
from imagine.backends.embedded import EmbeddedBackend, save_model
from imagine.backends.folded_denoiser import FoldedDenoiser, Look
from imagine.models.blocks import attend
from imagine.models.denoiser import Denoiser
from imagine.models.parallel_attention import KeyValue, ParallelAttention
from training.evaluation import CACHE, evaluate
from training.stages.pairs import RECIPE as PAIRS
from training.stages.quality_pairs import RECIPE as QUALITY_PAIRS
from training.trainer import StageRecipe, TrainingState, parse_arguments, train_stage

logger = logging.getLogger(__name__)

QUALITY_SHARE = 0.3  # of the pictures go to the second stage
JOINED = "embedded_joined"
COLUMNS = {
    "face_found_at_once": "found at once",
    "auc": "AUC",
    "auc_where_found": "AUC where found",
    "copy_paste": "copy-paste",
    "near_copies": "near copies",
}


@dataclass(frozen=True)
class Variant:
    """One line of the table.

    Attributes:
        name: in words.
        stages: recipes with their shares of the pictures.
        joined: one attention over both sources instead of two side by side.
    """

    name: str
    stages: Sequence[tuple[StageRecipe, float]]
    joined: bool = False

    @property
    def folder(self) -> str:
        """Its name as a folder."""
        return self.name.replace(" ", "-")


TWO_STAGES = ((PAIRS, 1.0 - QUALITY_SHARE), (QUALITY_PAIRS, QUALITY_SHARE))
VARIANTS = (
    Variant("full", TWO_STAGES),
    Variant(
        "without pairs",
        [(replace(stage, same_photo=1.0), share) for stage, share in TWO_STAGES],
    ),
    Variant("single stage", [(PAIRS, 1.0)]),
    Variant("joined attention", TWO_STAGES, joined=True),
)


class JoinedAttention(ParallelAttention):
    """The same weights in one attention: tokens of prompt and person compete for each query.

    The gate is not used and the weight of the person becomes a bias of the scores, so that 0 hides
    the person and 1 changes nothing.
    """

    def forward(
        self,
        hidden: Tensor,
        text: KeyValue,
        text_mask: Tensor,
        identity: KeyValue,
        identity_mask: Tensor,
        identity_scale: Tensor,
    ) -> Tensor:
        """Attend to both sources at once; arguments as `ParallelAttention.forward`."""
        batch, count, _ = hidden.shape
        query: Tensor = self.to_query(hidden).view(batch, count, self.heads, -1).transpose(1, 2)
        key = torch.cat([text[0], identity[0]], dim=2)
        value = torch.cat([text[1], identity[1]], dim=2)
        shown = identity_mask & (identity_scale > 0)[:, None]
        mask = torch.cat([text_mask, shown], dim=1)
        together: Tensor = self.to_out(attend(self.query_norm(query), key, value, mask))
        return together


def join_attention(denoiser: Denoiser) -> Denoiser:
    """Make every cross-attention of a denoiser a joined one, weights and their names unchanged."""
    for attention in denoiser._cross_attentions():
        attention.__class__ = JoinedAttention
    return denoiser


class PlainDenoiser:
    """`Denoiser.forward` itself behind the calls of `FoldedDenoiser`, which knows one attention."""

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser
        self._width = int(denoiser.config.identity_width)

    def project_text(self, tokens: Tensor) -> list[KeyValue]:
        """The tokens themselves; they are projected with each pass."""
        return [(tokens, tokens)]

    project_identity = project_text

    def modulation(self, sigmas: Tensor, text: Tensor | None) -> Tensor:
        """(steps, 1) noise levels; the pass makes the modulation of them."""
        return sigmas[:, None]

    def __call__(self, images: Tensor, looks: Sequence[Look]) -> Tensor:
        """As `FoldedDenoiser.__call__`, a row at a time."""
        guided = torch.zeros_like(images)
        for look in looks:
            guided[look.owner] += look.weight * self._estimate(images[look.owner][None], look)[0]
        return guided

    def _estimate(self, image: Tensor, look: Look) -> Tensor:
        model = self._denoiser
        text_width = int(model.config.text_width)
        text = torch.zeros(1, 0, text_width) if look.text is None else look.text[0][0]
        person = torch.zeros(1, 0, self._width) if look.identity is None else look.identity[0][0]
        conditioning = model.condition(
            text,
            torch.ones(text.shape[:2], dtype=torch.bool),
            person,
            torch.ones(person.shape[:2], dtype=torch.bool),
            torch.ones(1),
        )
        estimate: Tensor = model(image, look.modulation.flatten()[:1], conditioning)
        return estimate


class JoinedBackend(EmbeddedBackend):
    """The embedded model with joined attention, for the evaluation only."""

    @classmethod
    def load(
        cls, source: Path | None = None, device: str = "cpu", *, candidates: int | None = None
    ) -> JoinedBackend:
        """As `EmbeddedBackend.load`."""
        backend = cast("JoinedBackend", super().load(source, device, candidates=candidates))
        plain = PlainDenoiser(join_attention(backend._denoiser))
        backend._folded = cast("FoldedDenoiser", plain)
        return backend


def train_variant(variant: Variant, arguments: argparse.Namespace) -> Path:
    """Train one variant by its share of pictures a stage and export it.

    Returns:
        The folder of the exported model; one that is there already is kept.
    """
    export = arguments.out / variant.folder / "model"
    if export.is_dir():
        logger.info("%s: kept from before", variant.name)
        return cast("Path", export)
    prepare: Callable[[TrainingState], object] = _join if variant.joined else lambda state: None
    state: TrainingState | None = None
    for index, (stage, share) in enumerate(variant.stages):
        last = index == len(variant.stages) - 1
        words = _stage_words(stage, share, arguments, arguments.out / variant.folder / "run", last)
        state = train_stage(stage, parse_arguments(stage, None, words), prepare)
    assert state is not None
    save_model(export, state.averaged_denoiser, state.averaged_adapter)
    return cast("Path", export)


def _join(state: TrainingState) -> None:
    join_attention(state.denoiser)
    join_attention(state.averaged_denoiser)


def _stage_words(
    stage: StageRecipe, share: float, arguments: argparse.Namespace, run: Path, last: bool
) -> list[str]:
    words = {
        "--data": arguments.data,
        "--run": run,
        "--pictures": round(share * arguments.pictures),
        "--device": arguments.device,
        "--model": arguments.model,
        "--batch-size": arguments.batch_size,
        "--learning-rate": arguments.learning_rate,
        "--decay": 0.9 if last else 0.02,
        "--recogniser": arguments.recogniser,
        "--start-from": arguments.start_from,
    }
    given = [
        word for name, value in words.items() if value is not None for word in (name, str(value))
    ]
    return given + (["--compile"] if arguments.compile else [])


def table(rows: dict[str, dict[str, Any]], pictures: int) -> str:
    """All variants as Markdown.

    Args:
        rows: name of a variant to the row "generated" of its evaluation.
        pictures: each was trained on.
    """
    lines = [
        f"| {pictures} pictures each | " + " | ".join(COLUMNS.values()) + " | prompt accuracy |",
        "| --- |" + " --- |" * (len(COLUMNS) + 1),
    ]
    for name, row in rows.items():
        figures = [row[column] for column in COLUMNS] + [row["prompt"]["mean"]]
        shown = ["-" if value is None else f"{value:.3f}" for value in figures]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("runs/people"), help="photo cache")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("--learning-rate", type=float, default=0.001)
    parser.add_argument("--recogniser", type=Path, default=None, help="adds the likeness loss")
    parser.add_argument("--start-from", type=Path, default=None, help="exported model")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--people", type=int, default=40, help="of the evaluation")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=CACHE)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    BACKENDS.add(JOINED, "training.ablations:JoinedBackend")
    rows: dict[str, dict[str, Any]] = {}
    for variant in VARIANTS:
        model = train_variant(variant, given)
        out = given.out / variant.folder
        name = JOINED if variant.joined else "embedded"
        evaluate(name, out, given.people, model=model, cache=given.cache, workers=given.workers)
        rows[variant.name] = json.loads((out / "evaluation.json").read_text())["rows"]["generated"]
        (given.out / "ablations.md").write_text(table(rows, given.pictures))
    print(table(rows, given.pictures))


if __name__ == "__main__":
    main()

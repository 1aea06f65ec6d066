"""Which of several candidates looks most like the person, asked of a recogniser of our own.

Only their order comes from it. The verdict people read comes from another recogniser, which took
no part in the choice: a figure that was searched for would flatter (training/LOG.md).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch

from imagine.core import Face, FloatArray, ImageArray
from imagine.errors import CorruptWeights, MissingWeights
from imagine.identity.align import align_face, mask_background
from imagine.models.face_recogniser import FaceRecogniser, to_faces
from imagine.settings import Settings

RANKER_FOLDER = "likeness-ranker"


class LikenessRanker:
    """Compares aligned, masked faces; trained on people who do not exist."""

    def __init__(self, recogniser: FaceRecogniser) -> None:
        self._recogniser = recogniser.eval()

    @classmethod
    def load(cls, folder: Path | None = None) -> LikenessRanker:
        """Open the shipped recogniser, or that of a folder.

        Raises:
            MissingWeights: nothing is there.
            CorruptWeights: the files cannot be read.
        """
        folder = folder or Settings().assets_directory / "models" / RANKER_FOLDER
        if not (folder / "config.json").is_file():
            raise MissingWeights(
                f"The recogniser that ranks candidates is not in {folder}. Restore it with: "
                "git checkout -- assets/models, or train it with: python -m training.recogniser"
            )
        try:
            recogniser = FaceRecogniser.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                torch_dtype=torch.float32,
                low_cpu_mem_usage=False,
            )
        except Exception as error:  # diffusers, safetensors and json each raise their own kinds
            raise CorruptWeights(
                f"The recogniser in {folder} cannot be loaded ({type(error).__name__}). "
                "Restore it with: git checkout -- assets/models"
            ) from error
        return cls(recogniser)

    def likeness(self, image: ImageArray, face: Face, crops: ImageArray) -> float:
        """Cosine of the picture's face with the middle of the selfies' faces, -1 to 1.

        Args:
            image: (height, width, 3) uint8 RGB.
            face: of the picture, the one to compare.
            crops: (photos, CROP_SIZE, CROP_SIZE, 3) uint8, aligned and masked.
        """
        own = mask_background(align_face(image, face.landmarks, crops.shape[1]))
        vectors = self._embed(np.concatenate([own[None], crops]))
        middle = vectors[1:].mean(axis=0)
        return float(vectors[0] @ middle / max(float(np.linalg.norm(middle)), 1e-6))

    @torch.inference_mode()
    def _embed(self, crops: ImageArray) -> FloatArray:
        vectors, _ = self._recogniser(to_faces(torch.from_numpy(crops)))
        embedded: FloatArray = vectors.numpy()
        return embedded


@cache
def shipped_ranker() -> LikenessRanker:
    """The shipped ranker, opened once. Raises as `LikenessRanker.load`."""
    return LikenessRanker.load()

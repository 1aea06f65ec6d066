"""Which of several drawings of one wish to finish: the one most like the person and the prompt.

Networks of the model's own, taught on rendered people, look at estimates while they are drawn. None
of them is the recogniser that tells the user how alike a picture is, nor the network that says how
well it shows the prompt, so both verdicts stay those of others.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from imagine.backends.prompt_judge import prompt_fits, to_network_input
from imagine.backends.weight_files import OWN_MODELS
from imagine.core import ImageArray
from imagine.models.attribute_judge import AttributeJudge
from imagine.models.face_recogniser import FaceLocator, FaceRecogniser

# What a wholly shown prompt is worth, in cosines of likeness; see training/LOG.md.
PROMPT_WORTH = 1.0


class Chooser:
    """A recogniser, a locator that tells it where the face is, and an attribute network."""

    def __init__(
        self, recogniser: FaceRecogniser, locator: FaceLocator, attributes: AttributeJudge
    ) -> None:
        self._recogniser = recogniser
        self._locator = locator
        self._attributes = attributes

    @classmethod
    def load(cls, folder: Path, locator: FaceLocator, device: str = "cpu") -> Chooser:
        """Open a folder with recogniser/ and attributes/.

        Raises:
            OSError, ValueError: what diffusers and safetensors raise for broken files.
        """
        return cls(
            FaceRecogniser.from_pretrained(folder / "recogniser", **OWN_MODELS).to(device).eval(),
            locator,
            AttributeJudge.from_pretrained(folder / "attributes", **OWN_MODELS).to(device).eval(),
        )

    @torch.inference_mode()
    def describe(self, crops: ImageArray) -> Tensor:
        """(d,) unit vector of a person, of (photos, size, size, 3) uint8 aligned crops."""
        pixels = to_network_input(crops, int(self._recogniser.config.crop_size))
        embeddings, _ = self._recogniser(pixels.to(self._recogniser.device))
        return functional.normalize(embeddings.mean(0), dim=0)

    @torch.inference_mode()
    def merits(self, pictures: Tensor, face: Tensor | None, prompt: str) -> Tensor:
        """How good each picture is, higher is better; only to be compared with one another.

        Args:
            pictures: (n, 3, side, side) float in [-1, 1].
            face: of `describe`; None where nobody in particular is drawn.
            prompt: what is to be seen.

        Returns:
            (n,) float.
        """
        merits = torch.zeros(len(pictures), device=pictures.device)
        if face is not None:
            faces = self._recogniser.cut(pictures, self._locator(pictures))
            merits = merits + self._recogniser(faces)[0] @ face
        size = int(self._attributes.config.image_size)
        seen = functional.interpolate(pictures.float(), size=(size, size), mode="area")
        fits = prompt_fits(self._attributes, seen, prompt)
        return merits if fits is None else merits + PROMPT_WORTH * fits

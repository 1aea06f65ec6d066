"""Which of several drawings of one wish to finish: the one most like the person and the prompt.

Networks of the model's own, taught on rendered people, look at estimates while they are drawn. None
of them is the recogniser that tells the user how alike a picture is, nor the network that says how
well it shows the prompt, so both verdicts stay those of others.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from imagine.backends.prompt_judge import asked_attributes
from imagine.backends.weight_files import OWN_MODELS
from imagine.core import ImageArray
from imagine.models.attribute_judge import AttributeJudge
from imagine.models.face_recogniser import FaceLocator, FaceRecogniser, aligned

# What a wholly shown prompt is worth, in cosines of likeness; see training/LOG.md.
PROMPT_WORTH = 0.3


class Chooser:
    """A recogniser, a locator that tells it where the face is, and an attribute network."""

    def __init__(
        self, recogniser: FaceRecogniser, locator: FaceLocator, attributes: AttributeJudge
    ) -> None:
        self._recogniser = recogniser
        self._locator = locator
        self._attributes = attributes
        self._classes: dict[str, list[str]] = dict(attributes.config.attributes)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Chooser:
        """Open a folder with recogniser/, locator/ and attributes/.

        Raises:
            OSError, ValueError: what diffusers and safetensors raise for broken files.
        """
        return cls(
            FaceRecogniser.from_pretrained(folder / "recogniser", **OWN_MODELS).to(device).eval(),
            FaceLocator.from_pretrained(folder / "locator", **OWN_MODELS).to(device).eval(),
            AttributeJudge.from_pretrained(folder / "attributes", **OWN_MODELS).to(device).eval(),
        )

    @torch.inference_mode()
    def describe(self, crops: ImageArray) -> Tensor:
        """(d,) unit vector of a person, of (photos, size, size, 3) uint8 aligned crops."""
        size = int(self._recogniser.config.crop_size)
        box = Image.Resampling.BOX
        faces = np.stack([np.asarray(Image.fromarray(c).resize((size, size), box)) for c in crops])
        pixels = torch.from_numpy(faces).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)
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
            faces = aligned(
                pictures, self._locator(pictures), int(self._recogniser.config.crop_size)
            )
            merits = merits + self._recogniser(faces)[0] @ face
        asked = self._asked(prompt)
        if asked:
            size = int(self._attributes.config.image_size)
            seen = self._attributes(
                functional.interpolate(pictures.float(), size=(size, size), mode="area")
            )
            shown = [seen[name].softmax(1)[:, places].sum(1) for name, places in asked.items()]
            merits = merits + PROMPT_WORTH * torch.stack(shown).mean(0)
        return merits

    def _asked(self, prompt: str) -> dict[str, list[int]]:
        """Per attribute the prompt names, the scores of the classes that satisfy it."""
        asked = {
            name: [self._classes[name].index(c) for c in classes if c in self._classes[name]]
            for name, classes in asked_attributes(prompt).items()
            if name in self._classes
        }
        return {name: places for name, places in asked.items() if places}

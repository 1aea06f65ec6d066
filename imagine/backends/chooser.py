"""Which of several drawings of one wish to finish: the one most like the person and the prompt.

Networks of the model's own, taught on rendered people, look at estimates while they are drawn. None
of them is the recogniser that tells the user how alike a picture is, nor the network that says how
well it shows the prompt, so both verdicts stay those of others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from imagine.backends.prompt_judge import AttributePromptJudge, fits, to_network_input
from imagine.backends.selfie_traits import read_visible
from imagine.backends.weight_files import OWN_MODELS
from imagine.core import ImageArray
from imagine.models.attribute_judge import AttributeJudge
from imagine.models.face_recogniser import FaceLocator, FaceRecogniser

# What a wholly shown prompt is worth, and looks kept where it says nothing of them, in cosines of
# likeness; see training/LOG.md.
PROMPT_WORTH = 1.0
LOOKS_WORTH = 0.3
LOOKS = ("glasses", "hair_colour")


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

    def looks(self, crops: ImageArray) -> dict[str, tuple[str, ...]]:
        """Glasses and hair of a person, attribute -> class, as far as the crops show them."""
        judge = AttributePromptJudge(self._attributes)
        read = read_visible(crops, [name for name in LOOKS if name in judge.classes], judge)
        return {one.trait: (one.value,) for one in read if one.value is not None}

    @torch.inference_mode()
    def merits(
        self,
        pictures: Tensor,
        face: Tensor | None,
        wanted: Mapping[str, Sequence[str]],
        looks: Mapping[str, Sequence[str]],
    ) -> Tensor:
        """How good each picture is, higher is better; only to be compared with one another.

        Args:
            pictures: (n, 3, side, side) float in [-1, 1].
            face: of `describe`; None where nobody in particular is drawn.
            wanted: attribute -> classes that satisfy the wish.
            looks: of `looks`; they count where nothing else is wanted.

        Returns:
            (n,) float.
        """
        merits = torch.zeros(len(pictures), device=pictures.device)
        if face is not None:
            faces = self._recogniser.cut(pictures, self._locator(pictures))
            merits = merits + self._recogniser(faces)[0] @ face
        size = int(self._attributes.config.image_size)
        seen = functional.interpolate(pictures.float(), size=(size, size), mode="area")
        kept = {name: classes for name, classes in looks.items() if name not in wanted}
        shows = fits(self._attributes, seen, wanted, kept)
        for worth, shown in zip((PROMPT_WORTH, LOOKS_WORTH), shows, strict=True):
            if shown is not None:
                merits = merits + worth * shown
        return merits

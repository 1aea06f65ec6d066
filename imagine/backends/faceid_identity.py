"""A person becomes identity tokens: face embeddings, and for FaceID-Plus the face itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imagine.backends.faceid_weights import AdapterWeights
from imagine.core import FloatArray, ImageArray
from imagine.errors import InvalidInput

# (photos, side, side, 3) uint8 aligned crops of one person -> (photos, 512) float32.
EmbedCrops = Callable[[ImageArray], FloatArray]

# The square of an aligned crop that an ArcFace crop would show: least squares of eyes and nose of
# `identity/align.py` onto ArcFace's template, both as shares of their crops.
ARCFACE_SQUARE = (0.048, 0.058, 0.953, 0.963)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


class IdentityProjection:
    """Face embeddings, and for FaceID-Plus the face itself, become identity tokens.

    The picture's CLIP tokens are an argument, where the stock module keeps them as an attribute.
    """

    def __init__(self, projection: Any, adapter: AdapterWeights) -> None:
        self._projection = projection
        self._eye: ClipEye | None = None
        self._has_shortcut = adapter.has_shortcut
        self._width = int(adapter.image_proj["proj.0.weight"].shape[1])
        self._path = adapter.path

    def place(self, device: str, eye: ClipEye | None) -> None:
        """Move to a device, and for FaceID-Plus be given eyes."""
        self._projection.to(device)
        self._eye = eye

    def tokens(self, embeddings: FloatArray, crops: ImageArray) -> Tensor:
        """Tokens of one person, (1, photos * 4, width).

        Args:
            embeddings: (photos, 512) float32, unit length.
            crops: (photos, side, side, 3) uint8.

        Raises:
            InvalidInput: the embeddings are not of the length the adapter knows, or not finite.
        """
        if embeddings.shape != (len(crops), self._width) or not np.isfinite(embeddings).all():
            raise InvalidInput(
                f"The face encoder gave an array {embeddings.shape} for {len(crops)} photos, or "
                f"one that is not finite; {self._path.name} wants {self._width} numbers for each. "
                "Use an ArcFace pack of insightface."
            )
        lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
        unit = embeddings / np.maximum(lengths, 1e-12)
        clip = None if self._eye is None else self._eye.tokens(crops)
        return self._project(torch.from_numpy(unit.astype(np.float32)), clip)

    def nobody(self, photos: int) -> Tensor:
        """Tokens of no embedding and a black picture, (1, photos * 4, width): the guidance row."""
        clip = None if self._eye is None else self._eye.nothing.expand(photos, -1, -1)
        return self._project(torch.zeros(photos, self._width), clip)

    def _project(self, embeddings: Tensor, clip: Tensor | None) -> Tensor:
        own = self._projection.norm.weight
        embeddings = embeddings.to(own.device, own.dtype)
        if clip is None:
            tokens: Tensor = self._projection(embeddings)
        else:
            tokens = self._look(embeddings, clip.to(own.device, own.dtype))
        return tokens.reshape(1, -1, tokens.shape[-1])

    def _look(self, embeddings: Tensor, clip: Tensor) -> Tensor:
        """FaceID-Plus: the embedding asks, the picture answers; v2 adds both."""
        parts = self._projection
        asked = parts.proj(embeddings).reshape(-1, parts.num_tokens, parts.embed_dim)
        asked = parts.norm(asked)
        seen, answered = parts.proj_in(clip), asked
        for layer in parts.layers:
            answered = layer(seen, answered, answered)
        answered = parts.norm_out(parts.proj_out(answered))
        tokens: Tensor = asked + answered if self._has_shortcut else answered
        return tokens


class ClipEye:
    """The CLIP picture encoder FaceID-Plus looks at a face with; transformers' vision model."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        side = self._encoder.config.image_size
        # The stock pipeline's empty picture: zeros where normalised pixels are expected.
        with torch.inference_mode():
            self.nothing = self._look(torch.zeros(1, 3, side, side))

    def tokens(self, crops: ImageArray) -> Tensor:
        """(photos, patches + 1, width) of (photos, side, side, 3) uint8 crops."""
        return self._look(clip_pixels(crops, self._encoder.config.image_size))

    def _look(self, pixels: Tensor) -> Tensor:
        pixels = pixels.to(self._encoder.device, self._encoder.dtype)
        hidden: Tensor = self._encoder(pixels, output_hidden_states=True).hidden_states[-2]
        return hidden


def clip_pixels(crops: ImageArray, side: int) -> Tensor:
    """Faces as CLIP wants them, (photos, 3, side, side) float32, normalised."""
    seen = [arcface_square(crop, side) for crop in crops]
    pixels = torch.from_numpy(np.stack(seen)).permute(0, 3, 1, 2).float() / 255.0
    mean, deviation = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (CLIP_MEAN, CLIP_DEVIATION))
    return (pixels - mean) / deviation


def arcface_square(crop: ImageArray, side: int) -> ImageArray:
    """The face as the adapter's authors show it to CLIP."""
    left, top, right, bottom = (share * len(crop) for share in ARCFACE_SQUARE)
    box = (left, top, right, bottom)
    picture = Image.fromarray(crop)
    return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC, box=box))

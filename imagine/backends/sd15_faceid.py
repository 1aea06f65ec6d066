"""Stable Diffusion 1.5 with IP-Adapter FaceID; the drawing itself is in `unet_faceid`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from transformers import CLIPTextModel

from imagine.backends.unet_faceid import FaceIdBackend, FaceIdParts, Prompt
from imagine.backends.weight_files import open_tokenizer


class Sd15FaceIdBackend(FaceIdBackend):
    """One CLIP reads the prompt; nothing asked is the empty prompt."""

    name = "sd15_faceid"
    title = "Stable Diffusion 1.5"
    folder_name = "sd15-faceid"
    hub_id = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    base_licence = "LicenseRef-CreativeML-OpenRAIL-M"
    adapter_file = "ip-adapter-faceid_sd15.bin"
    default_guidance_scale = 7.5
    text_parts = ("text_encoder", "tokenizer")

    def __init__(self, parts: FaceIdParts, tokenizer: Any, text_encoder: Any, **rest: Any) -> None:
        super().__init__(parts, **rest)
        self._tokenizer, self._text_encoder = tokenizer, text_encoder
        with torch.inference_mode():
            self._nothing = self._encode("")

    @classmethod
    def _text_models(cls) -> tuple[tuple[str, type[Any]], ...]:
        return (("text_encoder", CLIPTextModel),)

    @classmethod
    def _with_text(
        cls, parts: FaceIdParts, opened: Mapping[str, Any], base: Path, rest: dict[str, Any]
    ) -> Self:
        return cls(parts, open_tokenizer(base / "tokenizer"), opened["text_encoder"], **rest)

    def _encode(self, prompt: str) -> Prompt:
        ids = token_ids(self._tokenizer, prompt).to(self._device)
        return Prompt(self._text_encoder(ids)[0], None)

    def _encode_nothing(self) -> Prompt:
        return self._nothing


def token_ids(tokenizer: Any, prompt: str) -> torch.Tensor:
    """(1, 77) token numbers; what does not fit is cut off, as CLIP cannot read more."""
    encoded = tokenizer(
        prompt,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    ids: torch.Tensor = encoded.input_ids
    return ids

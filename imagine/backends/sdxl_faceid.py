"""Stable Diffusion XL with IP-Adapter FaceID; the drawing itself is in `unet_faceid`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from imagine.backends.sd15_faceid import token_ids
from imagine.backends.unet_faceid import FaceIdBackend, FaceIdParts, Prompt
from imagine.backends.weight_files import open_tokenizer


class SdxlFaceIdBackend(FaceIdBackend):
    """Two CLIPs read the prompt, and the UNet is told the size of the picture."""

    name = "sdxl_faceid"
    title = "Stable Diffusion XL"
    folder_name = "sdxl-faceid"
    hub_id = "stabilityai/stable-diffusion-xl-base-1.0"
    base_licence = "LicenseRef-CreativeML-OpenRAIL-PlusPlus-M"
    adapter_file = "ip-adapter-faceid_sdxl.bin"
    default_guidance_scale = 5.0
    text_parts = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")

    def __init__(
        self,
        parts: FaceIdParts,
        tokenizers: tuple[Any, Any],
        text_encoders: tuple[Any, Any],
        *,
        zeros_for_nothing: bool = True,
        **rest: Any,
    ) -> None:
        super().__init__(parts, **rest)
        self._tokenizers, self._text_encoders = tokenizers, text_encoders
        with torch.inference_mode():
            empty = self._encode("")
        if zeros_for_nothing and empty.pooled is not None:
            empty = Prompt(torch.zeros_like(empty.embeds), torch.zeros_like(empty.pooled))
        self._nothing = empty

    @classmethod
    def _text_models(cls) -> tuple[tuple[str, type[Any]], ...]:
        return (("text_encoder", CLIPTextModel), ("text_encoder_2", CLIPTextModelWithProjection))

    @classmethod
    def _with_text(
        cls, parts: FaceIdParts, opened: Mapping[str, Any], base: Path, rest: dict[str, Any]
    ) -> Self:
        index = base / "model_index.json"
        settings = json.loads(index.read_text()) if index.is_file() else {}
        return cls(
            parts,
            (open_tokenizer(base / "tokenizer"), open_tokenizer(base / "tokenizer_2")),
            (opened["text_encoder"], opened["text_encoder_2"]),
            zeros_for_nothing=bool(settings.get("force_zeros_for_empty_prompt", True)),
            **rest,
        )

    def _encode(self, prompt: str) -> Prompt:
        read = [
            encoder(token_ids(tokenizer, prompt).to(self._device), output_hidden_states=True)
            for tokenizer, encoder in zip(self._tokenizers, self._text_encoders, strict=True)
        ]
        embeds = torch.cat([encoded.hidden_states[-2] for encoded in read], dim=-1)
        return Prompt(embeds, read[1].text_embeds)

    def _encode_nothing(self) -> Prompt:
        return self._nothing

    def _sizes(self, height: int, width: int) -> Tensor:
        """Original size, upper left corner of the crop, wanted size: a whole picture of our size.

        Source: SDXL's micro-conditioning, arXiv 2307.01952, sections 2.2 and 2.3.
        """
        sizes = [[height, width, 0, 0, height, width]]
        return torch.tensor(sizes, device=self._device, dtype=self._unet.dtype)

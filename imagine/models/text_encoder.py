"""Prompt to token embeddings with a frozen small sentence encoder (all-MiniLM-L6-v2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class TextEncoder(nn.Module):
    """A frozen BERT encoder and its tokenizer; both are handed in, already loaded."""

    def __init__(self, encoder: nn.Module, tokenizer: Any, max_tokens: int = 128) -> None:
        super().__init__()
        self.encoder = encoder.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    @torch.inference_mode()
    def forward(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encode prompts; longer ones are cut at `max_tokens`.

        Returns:
            (batch, tokens, 384) float hidden states and (batch, tokens) bool mask.
        """
        inputs = self.tokenizer(
            list(prompts),
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        device = next(self.encoder.parameters()).device
        inputs = {name: value.to(device) for name, value in inputs.items()}
        hidden = self.encoder(**inputs).last_hidden_state
        return hidden, inputs["attention_mask"].bool()

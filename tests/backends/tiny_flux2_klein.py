"""FLUX.2 klein of the genuine architecture and folder layout, with few and random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

from imagine.backends.flux2_klein import Flux2KleinBackend

IMAGE_SIZE = 64
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_pipeline(*, is_distilled: bool = False) -> Flux2KleinPipeline:
    """The stock pipeline; 28 text layers, because the prompt is read off layer 27."""
    torch.manual_seed(0)
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * 16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    # With torch's small starting weights another person would move the picture by 1e-4, and no
    # test could tell a leak from rounding.
    for weights in transformer.parameters():
        if weights.ndim == 2:
            torch.nn.init.normal_(weights, std=1.5 / weights.shape[1] ** 0.5)
    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=IMAGE_SIZE,
    )
    # Real weights come with statistics of their own; means of 0 and deviations of 1 would hide
    # a missing or doubled normalisation.
    vae.bn.running_mean.uniform_(-0.5, 0.5)
    vae.bn.running_var.uniform_(0.5, 2.0)
    text_encoder = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=264,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=30,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            initializer_range=0.3,
        )
    )
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0)
    return Flux2KleinPipeline(
        scheduler=scheduler,
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tiny_tokenizer(),
        transformer=transformer.eval(),
        is_distilled=is_distilled,
    )


def tiny_tokenizer() -> Qwen2Tokenizer:
    """One token a byte, and the marks of a chat."""
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary: dict[str, Any] = {text: index for index, text in enumerate(_byte_letters() + marks)}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=[],
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=marks[1:],
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def save_tiny(folder: Path, *, is_distilled: bool = False) -> Path:
    """Write the folder the way the published one is laid out."""
    tiny_pipeline(is_distilled=is_distilled).save_pretrained(folder, safe_serialization=True)
    return folder


def load_tiny(name: str, folder: Path) -> Flux2KleinBackend:
    """The backend of that name with weights written into `folder`."""
    assert name == "flux2_klein"
    return Flux2KleinBackend.load(save_tiny(folder))


def _byte_letters() -> list[str]:
    """The letter that stands for each byte in byte-level vocabularies."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())

"""SDXL with a FaceID adapter of random weights, in the published layout, for timing only.

Time does not depend on what the weights say, so speed can be measured where the real ones cannot
be had. "small" has about 40 million parameters in its UNet and runs on a CPU; "full" has SDXL's
own shape and wants a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

FACE_WIDTH = 512


@dataclass(frozen=True)
class Shape:
    """Sizes of a random SDXL.

    Attributes:
        latent_side: height and width of the latents.
        channels: of the UNet's levels.
        depths: transformer blocks of the levels.
        text_widths: of the two text encoders.
        text_layers: of both.
        heads: of the UNet's levels.
        lora_rank: of the adapter; 128 in the published one.
        vae_channels: of the picture decoder's levels.
    """

    latent_side: int
    channels: tuple[int, ...]
    depths: tuple[int, ...]
    text_widths: tuple[int, int]
    text_layers: int
    heads: tuple[int, ...]
    lora_rank: int
    vae_channels: tuple[int, ...]


SHAPES = {
    # widths, text width and rank keep SDXL's proportions at an eighth of its size
    "small": Shape(32, (32, 64, 160), (1, 2, 10), (96, 160), 2, (1, 2, 5), 16, (16, 32, 32, 32)),
    "full": Shape(
        128, (320, 640, 1280), (1, 2, 10), (768, 1280), 12, (5, 10, 20), 128, (128, 256, 512, 512)
    ),
}


def write_random_sdxl(folder: Path, shape: Shape, dtype: torch.dtype = torch.float32) -> Path:
    """Write base model and adapter in the layout that our backend and stock diffusers read."""
    torch.manual_seed(0)
    pipeline = _pipeline(shape).to(dtype)
    pipeline.save_pretrained(folder, safe_serialization=True)
    (folder / "ip_adapter").mkdir()
    weights = {key: value.to(dtype) for key, value in _adapter(pipeline.unet, shape).items()}
    save_file(weights, folder / "ip_adapter" / "ip-adapter-faceid_sdxl.safetensors")
    return folder


def _pipeline(shape: Shape) -> Any:
    pooled = shape.text_widths[1]
    unet = UNet2DConditionModel(
        sample_size=shape.latent_side,
        block_out_channels=shape.channels,
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=shape.depths,
        attention_head_dim=shape.heads,
        use_linear_projection=True,
        cross_attention_dim=sum(shape.text_widths),
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=6 * 256 + pooled,
    )
    levels = len(shape.vae_channels)
    vae = AutoencoderKL(
        block_out_channels=shape.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=8 * shape.latent_side,
    )
    return StableDiffusionXLPipeline(
        vae=vae.eval(),
        text_encoder=CLIPTextModel(_text(shape.text_widths[0], shape)).eval(),  # type: ignore[no-untyped-call]
        text_encoder_2=CLIPTextModelWithProjection(_text(pooled, shape)).eval(),  # type: ignore[no-untyped-call]
        tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer(),
        unet=unet.eval(),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
        add_watermarker=False,
    )


def _text(width: int, shape: Shape) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=514,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=shape.text_layers,
        num_attention_heads=2,
        projection_dim=width,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )


def _tokenizer() -> CLIPTokenizer:
    """One token a byte: a tokenizer nobody had to train."""
    letters = sorted(ByteLevel.alphabet())
    vocabulary = {
        piece: number
        for number, piece in enumerate([*letters, *(f"{letter}</w>" for letter in letters)])
    }
    vocabulary |= {"<|startoftext|>": 512, "<|endoftext|>": 513}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def _adapter(unet: Any, shape: Shape) -> dict[str, Tensor]:
    width = unet.config.cross_attention_dim
    weights = {
        "image_proj.proj.0.weight": _random(2 * FACE_WIDTH, FACE_WIDTH),
        "image_proj.proj.0.bias": _random(2 * FACE_WIDTH),
        "image_proj.proj.2.weight": _random(4 * width, 2 * FACE_WIDTH),
        "image_proj.proj.2.bias": _random(4 * width),
        "image_proj.norm.weight": 1.0 + _random(width),
        "image_proj.norm.bias": _random(width),
    }
    for number, name in enumerate(unet.attn_processors):
        attention = unet.get_submodule(name.removesuffix(".processor"))
        outputs, inputs = attention.to_q.weight.shape[0], attention.to_k.weight.shape[1]
        if attention.is_cross_attention:
            for part in ("to_k_ip", "to_v_ip"):
                weights[f"ip_adapter.{number}.{part}.weight"] = _random(outputs, width)
        for part in ("to_q", "to_k", "to_v", "to_out"):
            key = f"ip_adapter.{number}.{part}_lora"
            read = inputs if part in ("to_k", "to_v") else outputs
            weights[f"{key}.down.weight"] = _random(shape.lora_rank, read)
            weights[f"{key}.up.weight"] = _random(outputs, shape.lora_rank)
    return weights


def _random(*size: int) -> Tensor:
    return 0.03 * torch.randn(size)

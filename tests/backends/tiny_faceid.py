"""SD 1.5 and SDXL of genuine architecture, folder layout and adapter keys; random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
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
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from imagine.backends.sd15_faceid import Sd15FaceIdBackend
from imagine.backends.sdxl_faceid import SdxlFaceIdBackend
from imagine.backends.unet_faceid import FaceIdBackend
from imagine.core import FloatArray, ImageArray

FACE_WIDTH = 512
CLIP_WIDTH = 24
LORA_RANK = 4
LATENTS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def save_tiny(folder: Path, name: str, *, plus: bool = False, lora: bool = True) -> Path:
    """Write a base model and its adapter the way `FaceIdBackend.load` wants them."""
    pipeline = tiny_sdxl() if name == "sdxl_faceid" else tiny_sd15()
    pipeline.save_pretrained(folder, safe_serialization=True)
    kind = f"ip-adapter-faceid{'-plusv2' if plus else ''}_{name[:4]}.safetensors"
    (folder / "ip_adapter").mkdir()
    weights = tiny_adapter(pipeline.unet, plus=plus, lora=lora)
    save_file(weights, folder / "ip_adapter" / kind)
    if plus:
        tiny_eye().save_pretrained(folder / "image_encoder", safe_serialization=True)
    return folder


def load_tiny(name: str, folder: Path, **kind: bool) -> FaceIdBackend:
    """The backend of that name with weights written into `folder`."""
    backend_class = {"sd15_faceid": Sd15FaceIdBackend, "sdxl_faceid": SdxlFaceIdBackend}[name]
    return backend_class.load(save_tiny(folder, name, **kind), embed_crops=embed_crops)


def embed_crops(crops: ImageArray) -> FloatArray:
    """Stands in for ArcFace: a fixed random view of the colours, unit length."""
    seen = crops[:, ::16, ::16].reshape(len(crops), -1).astype(np.float32) / 127.5 - 1.0
    view = np.random.default_rng(0).standard_normal((seen.shape[1], FACE_WIDTH), dtype=np.float32)
    vectors = seen @ view
    unit: FloatArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def tiny_sdxl() -> StableDiffusionXLPipeline:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        cross_attention_dim=64,
        norm_num_groups=8,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
    )
    return StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config()).eval(),
        text_encoder_2=CLIPTextModelWithProjection(_text_config()).eval(),
        tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer(),
        unet=unet.eval(),
        scheduler=EulerDiscreteScheduler(**LATENTS),
        add_watermarker=False,
    )


def tiny_sd15() -> StableDiffusionPipeline:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=32,
        norm_num_groups=8,
    )
    scheduler = DDIMScheduler(**LATENTS, clip_sample=False, set_alpha_to_one=False)
    return StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config()).eval(),
        tokenizer=_tokenizer(),
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def tiny_adapter(unet: Any, *, plus: bool, lora: bool) -> dict[str, Tensor]:
    """FaceID weights under their published key names, numbered as the UNet's own attention."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int, scale: float = 0.2) -> Tensor:
        return scale * torch.randn(shape, generator=generator)

    width = unet.config.cross_attention_dim
    weights = {
        "image_proj.proj.0.weight": random(2 * FACE_WIDTH, FACE_WIDTH),
        "image_proj.proj.0.bias": random(2 * FACE_WIDTH),
        "image_proj.proj.2.weight": random(4 * width, 2 * FACE_WIDTH),
        "image_proj.proj.2.bias": random(4 * width),
        "image_proj.norm.weight": 1.0 + random(width),
        "image_proj.norm.bias": random(width),
    }
    if plus:
        weights |= {
            f"image_proj.perceiver_resampler.{key}": tensor
            for key, tensor in _resampler(width, random).items()
        }
    for number, name in enumerate(unet.attn_processors):
        attention = unet.get_submodule(name.removesuffix(".processor"))
        outputs, inputs = attention.to_q.weight.shape[0], attention.to_k.weight.shape[1]
        if attention.is_cross_attention:
            for part in ("to_k_ip", "to_v_ip"):
                weights[f"ip_adapter.{number}.{part}.weight"] = random(outputs, width)
        for part in ("to_q", "to_k", "to_v", "to_out") if lora else ():
            read = inputs if part in ("to_k", "to_v") else outputs
            key = f"ip_adapter.{number}.{part}_lora"
            weights[f"{key}.down.weight"] = random(LORA_RANK, read)
            weights[f"{key}.up.weight"] = random(outputs, LORA_RANK)
    return weights


def tiny_eye() -> CLIPVisionModelWithProjection:
    torch.manual_seed(2)
    config = CLIPVisionConfig(
        hidden_size=CLIP_WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=16,
    )
    return CLIPVisionModelWithProjection(config).eval()


def _resampler(width: int, random: Any) -> dict[str, Tensor]:
    weights = {
        "proj_in.weight": random(width, CLIP_WIDTH),
        "proj_in.bias": random(width),
        "proj_out.weight": random(width, width),
        "proj_out.bias": random(width),
        "norm_out.weight": 1.0 + random(width),
        "norm_out.bias": random(width),
    }
    for layer in range(4):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            weights[f"layers.{layer}.{norm}.weight"] = 1.0 + random(width)
            weights[f"layers.{layer}.{norm}.bias"] = random(width)
        weights[f"layers.{layer}.0.to_q.weight"] = random(64, width)
        weights[f"layers.{layer}.0.to_kv.weight"] = random(128, width)
        weights[f"layers.{layer}.0.to_out.weight"] = random(width, 64)
        weights[f"layers.{layer}.1.1.weight"] = random(4 * width, width)
        weights[f"layers.{layer}.1.3.weight"] = random(width, 4 * width)
    return weights


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
    ).eval()


def _text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=514,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=32,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
        initializer_factor=1.5,  # 1 leaves all prompts nearly alike, 5 makes the maths chaotic
    )


def _tokenizer() -> CLIPTokenizer:
    """One token a byte."""
    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    vocabulary |= {"<|startoftext|>": 512, "<|endoftext|>": 513}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)

"""FLUX.2 klein: the person is shown to the model as reference photos in its own context.

No face recogniser and no adapter takes part: each aligned crop becomes tokens of the picture
autoencoder, which the transformer reads beside the prompt and the noisy picture. We drive the
transformer ourselves, so that rows of one forward pass may stand at different steps and belong
to different people. Steps, identifiers and normalisation are those of diffusers' klein pipeline;
the strength of a likeness below 1 is our own addition (see `reference_bias`).
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2Transformer2DModel,
)
from diffusers.loaders import Flux2LoraLoaderMixin
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from PIL import Image
from torch import Tensor
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3Model

from imagine.backends.base import BackendInfo, RowState, refuse_two, sizes_by_blocks
from imagine.backends.latent_preview import LatentPreview
from imagine.backends.licences import KLEIN_BY_WIDTH
from imagine.backends.lora import LoraPair, fuse_lora
from imagine.backends.memory_plan import MemoryPlan, apply_plan
from imagine.backends.weight_files import (
    files_revision,
    find_base,
    open_part,
    read_safetensors,
    refuse_pickle,
    weights_in,
)
from imagine.core import ImageArray, Request
from imagine.errors import CorruptWeights, InvalidInput
from imagine.settings import Settings
from imagine.traits import with_traits

logger = logging.getLogger(__name__)

MODEL_FOLDER = "flux2-klein"  # in assets/models
HUB_ID = "black-forest-labs/FLUX.2-klein-4B"
# The excluded file is the same transformer once more, in its authors' own layout.
DOWNLOAD = f"hf download {HUB_ID} --exclude flux-2-klein-4b.safetensors"
PARTS = ("transformer", "text_encoder", "tokenizer", "vae", "scheduler")
WEIGHTED_PARTS = ("transformer", "vae", "text_encoder")

MAX_TEXT_TOKENS = 512
TEXT_LAYERS = (9, 18, 27)  # of Qwen3; their outputs side by side are the prompt embeddings
REFERENCE_TIME = 10  # reference i stands at time 10 + 10 i of the position embedding
# Crops are enlarged from 128 pixels; the model was taught on larger photos. Not measured here.
REFERENCE_SIZE = 256
DISTILLED_STEPS, DISTILLED_GUIDANCE = 4, 1.0
BASE_STEPS, BASE_GUIDANCE = 50, 4.0
UNKNOWN_LICENCE = "LicenseRef-unknown"


@dataclass(frozen=True)
class Flux2KleinState:
    """A picture of FLUX.2 klein in the making.

    Attributes:
        step: steps done.
        num_steps: steps in all.
        grid: height and width of the picture in tokens; a token is 16 by 16 pixels.
        latents: (tokens, channels) float32, noisy.
        estimate: (tokens, channels) float32, the newest guess of the clean latents.
        sigmas: (num_steps + 1,) float32 noise levels, falling to 0.
        prompt_embeds: (text_tokens, width) of the prompt.
        empty_embeds: likewise of no prompt; None when no step is guided.
        guidance_scale: how far a guided step goes beyond the unguided one.
        guided: (num_steps,) whether guidance works at each step.
        references: (photos * reference tokens, channels) of the person, or of length 0.
        reference_grid: height and width of one reference in tokens.
        likeness: 0 < likeness <= 1, how much weight the references have in attention.
    """

    step: int
    num_steps: int
    grid: tuple[int, int]
    latents: Tensor = field(repr=False)
    estimate: Tensor = field(repr=False)
    sigmas: Tensor = field(repr=False)
    prompt_embeds: Tensor = field(repr=False)
    empty_embeds: Tensor | None = field(repr=False)
    guidance_scale: float
    guided: tuple[bool, ...] = field(repr=False)
    references: Tensor = field(repr=False)
    reference_grid: tuple[int, int]
    likeness: float

    @property
    def shares(self) -> list[tuple[float, Tensor]]:
        """Weight and prompt embeddings of each forward row of the next step.

        Source: classifier-free guidance, arXiv 2207.12598; the unguided row loses the prompt and
        keeps the references, as in the stock pipeline.
        """
        if self.empty_embeds is None or not self.guided[min(self.step, self.num_steps - 1)]:
            return [(1.0, self.prompt_embeds)]
        return [
            (self.guidance_scale, self.prompt_embeds),
            (1.0 - self.guidance_scale, self.empty_embeds),
        ]

    @property
    def batch_key(self) -> tuple[object, ...]:
        """Rows of one picture size, prompt length and number of reference tokens may share a pass.

        The transformer keeps one set of positions for the whole batch, so all three must agree.
        """
        return (
            "flux2_klein",
            self.grid,
            self.reference_grid,
            len(self.references),
            tuple(self.prompt_embeds.shape),
            str(self.prompt_embeds.dtype),
        )


class Flux2KleinBackend:
    """FLUX.2 klein 4B (or a base, 9B or fine-tuned folder of its layout) behind the contract."""

    def __init__(
        self,
        transformer: Flux2Transformer2DModel,
        vae: AutoencoderKLFlux2,
        text_encoder: Qwen3Model,
        tokenizer: Qwen2Tokenizer,
        scheduler: FlowMatchEulerDiscreteScheduler,
        *,
        is_distilled: bool,
        image_size: int | None = None,
        reference_size: int = REFERENCE_SIZE,
        revision: str = "unsaved",
        device: str = "cpu",
    ) -> None:
        self._transformer = transformer
        self._vae = vae
        self._text_encoder = text_encoder
        self._tokenizer = tokenizer
        self._scheduler = scheduler
        self._is_distilled = is_distilled
        self._pixels_per_token = 2 * 2 ** (len(vae.config.block_out_channels) - 1)
        self._image_size = _whole_tokens(
            image_size or int(vae.config.sample_size), self._pixels_per_token, "image_size"
        )
        self._reference_size = _whole_tokens(
            reference_size, self._pixels_per_token, "reference_size"
        )
        self._revision = revision
        self._device = device
        self._preview: LatentPreview | None = None
        self._empty_prompt: Tensor | None = None

    @classmethod
    def load(
        cls,
        source: Path | None = None,
        device: str = "cpu",
        *,
        dtype: torch.dtype | None = None,
        image_size: int | None = None,
        plan: MemoryPlan | None = None,
        announce: Callable[[str], None] = logger.warning,
    ) -> Flux2KleinBackend:
        """Load a diffusers folder or a hub id that is already on this machine.

        LoRAs in the folder's lora/ are added to the weights, in the order of their names.

        Args:
            source: a folder, or a hub id written as a path ("owner/name"); None takes
                assets/models/flux2-klein and else the cached `HUB_ID`. Nothing is downloaded.
            device: "cpu", "cuda", ...
            dtype: of weights and arithmetic; None takes float32 on a CPU and bfloat16 elsewhere.
            image_size: side of the pictures in pixels, a multiple of 16; None takes the model's.
            plan: from `make_plan("flux2_klein", ...)`; decides dtype, size and where weights wait.
            announce: is told what of the plan this machine cannot do, once per reason.

        Raises:
            MissingWeights: the folder or a part of it is not there.
            CorruptWeights: the files are pickles, cannot be read or do not fit together.
            InvalidInput: a picture size between tokens, or a plan for another backend.
        """
        if plan is not None and plan.backend != "flux2_klein":
            raise InvalidInput(
                f"This memory plan is for {plan.backend!r}. Make one for 'flux2_klein'."
            )
        folder = find_folder(source)
        if plan is not None:
            dtype, image_size = getattr(torch, plan.dtype), plan.size
        dtype = dtype or (torch.float32 if device == "cpu" else torch.bfloat16)
        # A plan may never put all parts on the device at once; it moves them itself.
        opened_on = device if plan is None else "cpu"
        kinds = (Flux2Transformer2DModel, AutoencoderKLFlux2, PromptEncoder)
        models = {
            name: open_part(kind, folder / name, dtype, opened_on, DOWNLOAD)
            for name, kind in zip(WEIGHTED_PARTS, kinds, strict=True)
        }
        loras = sorted((folder / "lora").glob("*")) if (folder / "lora").is_dir() else []
        for path in loras:
            fuse_lora(models["transformer"], read_klein_lora(path), path)
        if plan is not None:
            apply_plan(models, plan, device, announce=announce)
        weights = [path for name in WEIGHTED_PARTS for path in weights_in(folder / name, name, "")]
        return cls(
            **models,
            **_open_rest(folder),
            image_size=image_size,
            revision=files_revision([*weights, *loras]),
            device=device,
        )

    @property
    def info(self) -> BackendInfo:
        """Facts about the loaded model."""
        known = KLEIN_BY_WIDTH.get(int(self._transformer.config.joint_attention_dim))
        return BackendInfo(
            name="flux2_klein",
            model_revision=self._revision,
            licence=known.licence if known else UNKNOWN_LICENCE,
            image_size=(self._image_size, self._image_size),
            default_steps=DISTILLED_STEPS if self._is_distilled else BASE_STEPS,
            default_guidance_scale=DISTILLED_GUIDANCE if self._is_distilled else BASE_GUIDANCE,
            device=self._device,
            other_sizes=sizes_by_blocks(self._image_size, self._pixels_per_token),
        )

    @torch.inference_mode()
    def prepare(self, request: Request) -> Flux2KleinState:
        """Encode prompt and reference crops once, draw the noise of the seed.

        Raises:
            InvalidInput: the prompt is longer than the model reads, guidance is asked of distilled
                weights, which have none, an aspect ratio is not offered, or two people are asked
                for in one request.
        """
        if request.beside is not None:
            refuse_two(self.info)
        height, width = self.info.size_of(request.aspect_ratio)
        prompt_embeds, empty_embeds = self._embeds(request)
        grid = (height // self._pixels_per_token, width // self._pixels_per_token)
        channels = int(self._transformer.config.in_channels)
        generator = torch.Generator("cpu").manual_seed(request.seed % 2**63)
        # Drawn in the model's dtype as the stock pipeline does: a seed is one picture in both.
        noise = torch.randn((1, channels, *grid), generator=generator, dtype=self._dtype)
        latents = pack(noise)[0].to(self._device, torch.float32)
        references, reference_grid = self._references(request)
        return Flux2KleinState(
            step=0,
            num_steps=request.num_inference_steps,
            grid=grid,
            latents=latents,
            estimate=torch.zeros_like(latents),
            sigmas=self._sigmas(request.num_inference_steps, math.prod(grid)),
            prompt_embeds=prompt_embeds,
            empty_embeds=empty_embeds,
            guidance_scale=request.guidance_scale,
            guided=tuple(request.guides_at(step) for step in range(request.num_inference_steps)),
            references=references,
            reference_grid=reference_grid,
            likeness=request.likeness if len(references) else 1.0,
        )

    @torch.inference_mode()
    def denoise_step(self, states: Sequence[RowState]) -> list[RowState]:
        """One Euler step of the flow for every row, each at its own noise level.

        Raises:
            ValueError: the rows do not share a `batch_key`, or one of them is finished.
            TypeError: a state of another backend.
        """
        rows = [_checked(state) for state in states]
        if len({row.batch_key for row in rows}) > 1:
            raise ValueError("Rows of one step must share one batch_key.")
        if not rows:
            return []
        weighted = [row.shares for row in rows]
        owners = [row for row, own in zip(rows, weighted, strict=True) for _ in own]
        velocities = self._velocities(owners, [text for own in weighted for _, text in own])
        moved: list[RowState] = []
        start = 0
        for row, own in zip(rows, weighted, strict=True):
            velocity = torch.zeros_like(row.latents)
            for offset, (weight, _) in enumerate(own):
                velocity = velocity + weight * velocities[start + offset]
            moved.append(_euler_step(row, velocity))
            start += len(own)
        return moved

    @torch.inference_mode()
    def decode(self, state: RowState) -> ImageArray:
        """The finished picture, or mid-way the newest estimate of it."""
        row = _own(state)
        pixels = self._pictures(unpack(row.estimate[None], row.grid))[0].cpu()
        unit = (pixels / 2 + 0.5).clamp(0, 1) * 255
        return np.asarray(unit.round().byte().permute(1, 2, 0).numpy())

    def preview(self, state: RowState) -> ImageArray:
        """The newest estimate, one pixel a patch of latents, without the decoder."""
        row = _own(state)
        latents = unpack(row.estimate[None], row.grid)[0]
        if self._preview is None:
            self._preview = LatentPreview(self._pictures, latents.shape[0], self._device)
        return self._preview(latents)

    def _pictures(self, latents: Tensor) -> Tensor:
        """(n, channels, h, w) patches of latents to (n, 3, H, W) float pictures."""
        mean, deviation = self._latent_statistics(latents)
        unpacked = unpatchify(latents * deviation + mean).to(self._vae.dtype)
        pixels: Tensor = self._vae.decode(unpacked, return_dict=False)[0]
        return pixels.float()

    def forward_rows(self, state: RowState) -> int:
        """Two at a guided step, else one."""
        return len(_own(state).shares)

    def is_finite(self, state: RowState) -> bool:
        """Whether the latents are numbers."""
        return bool(torch.isfinite(_own(state).latents).all())

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._transformer.dtype
        return dtype

    def _embeds(self, request: Request) -> tuple[Tensor, Tensor | None]:
        """Embeddings of the prompt and, if any step is guided, of no prompt."""
        scale = request.guidance_scale
        if self._is_distilled and scale != 1.0:
            raise InvalidInput(
                f"guidance_scale is {scale:g}, but these weights of FLUX.2 klein are distilled "
                "and take no guidance. Leave it at 1, or load the base weights."
            )
        wished = self._encode_prompt(with_traits(request.prompt, request.traits))
        guided = any(request.guides_at(step) for step in range(request.num_inference_steps))
        if scale == 1.0 or not guided:
            return wished, None
        if self._empty_prompt is None:
            # Nobody's words: the only thing that outlives a request here.
            self._empty_prompt = self._encode_prompt("")
        return wished, self._empty_prompt

    def _encode_prompt(self, prompt: str) -> Tensor:
        """(MAX_TEXT_TOKENS, 3 * width) outputs of three layers of the text encoder."""
        framed = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
        tokens = self._tokenizer(
            framed, return_tensors="pt", padding="max_length", max_length=MAX_TEXT_TOKENS
        )
        length = tokens["input_ids"].shape[1]
        if length > MAX_TEXT_TOKENS:
            raise InvalidInput(
                f"The prompt is {length} tokens long with its frame; FLUX.2 klein reads "
                f"{MAX_TEXT_TOKENS}. Shorten it to about {MAX_TEXT_TOKENS / length:.0%}."
            )
        output = self._text_encoder(
            input_ids=tokens["input_ids"].to(self._device),
            attention_mask=tokens["attention_mask"].to(self._device),
            output_hidden_states=True,
            use_cache=False,
        )
        layers = torch.cat([output.hidden_states[layer][0] for layer in TEXT_LAYERS], dim=1)
        return layers.to(self._dtype)

    def _references(self, request: Request) -> tuple[Tensor, tuple[int, int]]:
        """Tokens of the person's crops, one photo after the other; none without a likeness."""
        if request.crops is None or request.likeness <= 0.0:
            empty = torch.zeros(0, int(self._transformer.config.in_channels), device=self._device)
            return empty, (0, 0)
        side = self._reference_size
        pixels = torch.from_numpy(np.stack([_enlarged(crop, side) for crop in request.crops]))
        unit = pixels.permute(0, 3, 1, 2).float().div(255) * 2 - 1
        encoded = self._vae.encode(unit.to(self._device, self._vae.dtype)).latent_dist.mode()
        latents = patchify(encoded)
        mean, deviation = self._latent_statistics(latents)
        grid = (latents.shape[2], latents.shape[3])
        return pack((latents - mean) / deviation).flatten(0, 1).float(), grid

    def _latent_statistics(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the autoencoder's latents, kept in its batch normalisation."""
        norm = self._vae.bn
        mean = norm.running_mean.view(1, -1, 1, 1)
        deviation = torch.sqrt(norm.running_var.view(1, -1, 1, 1) + self._vae.config.batch_norm_eps)
        return mean.to(latents), deviation.to(latents)

    def _sigmas(self, num_steps: int, tokens: int) -> Tensor:
        """(num_steps + 1,) noise levels; the schedule bends with picture size and step count."""
        # A scheduler object holds the schedule of one request only; rows carry a copy of theirs.
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self._scheduler.config)
        scheduler.set_timesteps(
            sigmas=np.linspace(1.0, 1 / num_steps, num_steps),
            mu=compute_empirical_mu(image_seq_len=tokens, num_steps=num_steps),
        )
        sigmas: Tensor = scheduler.sigmas.to(self._device)
        return sigmas

    def _velocities(self, owners: Sequence[Flux2KleinState], texts: Sequence[Tensor]) -> Tensor:
        """(rows, tokens, channels) float32, the model's direction from clean to noise."""
        latents = torch.stack([row.latents for row in owners])
        references = torch.stack([row.references for row in owners])
        prompt_embeds = torch.stack(list(texts))
        assert len(latents) == len(references) == len(prompt_embeds)
        first = owners[0]
        photos = len(first.references) // max(1, math.prod(first.reference_grid))
        velocity: Tensor = self._transformer(
            hidden_states=torch.cat([latents, references], dim=1).to(self._dtype),
            encoder_hidden_states=prompt_embeds,
            timestep=torch.stack([row.sigmas[row.step] for row in owners]),
            img_ids=image_positions(first.grid, first.reference_grid, photos).to(self._device),
            txt_ids=text_positions(prompt_embeds.shape[1]).to(self._device),
            guidance=None,
            joint_attention_kwargs=self._attention(owners, prompt_embeds.shape[1]),
            return_dict=False,
        )[0]
        return velocity[:, : latents.shape[1]].float()

    def _attention(
        self, owners: Sequence[Flux2KleinState], text_tokens: int
    ) -> dict[str, Any] | None:
        if all(row.likeness == 1.0 for row in owners):
            return None  # the plain model; attention without a mask is the faster kernel
        bias = reference_bias(
            [row.likeness for row in owners],
            before=text_tokens + len(owners[0].latents),
            references=len(owners[0].references),
        )
        return {"attention_mask": bias.to(self._device, self._dtype)}


_UNREAD_LAYERS = "|".join(str(layer) for layer in range(max(TEXT_LAYERS) + 1, 100))


class PromptEncoder(Qwen3Model):  # type: ignore[no-untyped-call]
    """Qwen3 up to the last layer the prompt embeddings are read from.

    A 36-layer Qwen3 would compute its last eight for nothing. One layer beyond layer 27 stays, for
    the final norm must not touch layer 27.
    """

    # Left out on purpose, so nothing to warn of: the output head and the unread layers.
    _keys_to_ignore_on_load_unexpected = {r"^lm_head\.", rf"layers\.({_UNREAD_LAYERS})\."}  # noqa: RUF012

    def __init__(self, config: Qwen3Config) -> None:
        config.num_hidden_layers = min(config.num_hidden_layers, max(TEXT_LAYERS) + 1)
        config.layer_types = (config.layer_types or [])[: config.num_hidden_layers]
        super().__init__(config)


def find_folder(source: Path | None = None) -> Path:
    """The folder of the weights on this machine; a hub id is looked up in the cache only.

    Raises:
        MissingWeights: it is nowhere, or a part of it is missing.
    """
    own = Settings().assets_directory / "models" / MODEL_FOLDER
    if source is None:
        source = own if own.is_dir() else Path(HUB_ID)
    return find_base(source, PARTS, "FLUX.2 klein (16 GB, Apache-2.0)", DOWNLOAD)


def read_klein_lora(path: Path) -> list[LoraPair]:
    """A style or few-step LoRA for the transformer, as diffusers, peft or kohya write it.

    Raises:
        CorruptWeights: a pickle, unreadable, not a plain LoRA, or for another model.
    """
    refuse_pickle(path)
    tensors, metadata = read_safetensors(path)
    try:
        notes = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        weights = Flux2LoraLoaderMixin.lora_state_dict(dict(tensors))
    except (ValueError, KeyError) as error:
        raise _odd_lora(path, f"{type(error).__name__}: {error}") from error
    odd = [key for key in notes if re.search("use_dora|use_rslora|_pattern", key) and notes[key]]
    odd += [key for key in tensors if re.search("dora_scale|magnitude|hada_|lokr_", key)]
    pairs = []
    for key in sorted(weights):
        found = re.fullmatch(r"transformer\.(.+)\.lora_A\.weight", key)
        partner = key.replace("lora_A", "lora_B")
        if found and partner in weights:
            down = weights[key]
            scale = float(notes.get("transformer.lora_alpha", len(down))) / len(down)
            pairs.append(LoraPair(found[1], down, weights[partner], scale))
        elif not (key.endswith("lora_B.weight") and key.replace("lora_B", "lora_A") in weights):
            odd.append(key)
    if odd or not pairs:
        raise _odd_lora(path, odd[0] if odd else "no LoRA matrices")
    return pairs


def _odd_lora(path: Path, what: str) -> CorruptWeights:
    return CorruptWeights(
        f"{path} is not a plain LoRA for FLUX.2 klein: it has {what}. Choose one made for klein, "
        "or have its author export it as a LoRA."
    )


def patchify(latents: Tensor) -> Tensor:
    """(batch, c, h, w) -> (batch, 4 c, h / 2, w / 2): each 2 by 2 patch becomes channels."""
    batch, channels, height, width = latents.shape
    patches = latents.view(batch, channels, height // 2, 2, width // 2, 2)
    return patches.permute(0, 1, 3, 5, 2, 4).reshape(batch, channels * 4, height // 2, width // 2)


def unpatchify(latents: Tensor) -> Tensor:
    """The inverse of `patchify`."""
    batch, channels, height, width = latents.shape
    patches = latents.reshape(batch, channels // 4, 2, 2, height, width)
    return patches.permute(0, 1, 4, 2, 5, 3).reshape(batch, channels // 4, height * 2, width * 2)


def pack(latents: Tensor) -> Tensor:
    """(batch, channels, h, w) -> (batch, h * w tokens, channels)."""
    return latents.flatten(2).transpose(1, 2)


def unpack(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """The inverse of `pack`."""
    batch, _, channels = tokens.shape
    return tokens.transpose(1, 2).reshape(batch, channels, *grid)


def image_positions(grid: tuple[int, int], reference_grid: tuple[int, int], photos: int) -> Tensor:
    """(tokens, 4) time, row, column, 0 of the picture's tokens and of each reference's.

    The picture stands at time 0 and reference i at `REFERENCE_TIME` * (i + 1), as the model was
    taught.
    """
    times = [REFERENCE_TIME * (index + 1) for index in range(photos)]
    return torch.cat([_positions(0, grid), *(_positions(t, reference_grid) for t in times)])


def text_positions(tokens: int) -> Tensor:
    """(tokens, 4) of the prompt: zeros and the place in the text."""
    zero = torch.zeros(1, dtype=torch.int64)
    return torch.cartesian_prod(zero, zero, zero, torch.arange(tokens))


def reference_bias(likenesses: Sequence[float], before: int, references: int) -> Tensor:
    """What is added to attention scores so that references weigh `likeness` times as much.

    exp(score + log s) = s exp(score): likeness 1 is the plain model, and as it goes to 0 the
    references vanish from every other token's sight, which is the model without references. The
    model was not taught with it; how faces fade in between was not measured on real weights.

    Args:
        likenesses: one a row, in (0, 1].
        before: prompt and picture tokens, which come first and keep their weight.
        references: reference tokens.

    Returns:
        (rows, 1, 1, before + references) float32.
    """
    bias = torch.zeros(len(likenesses), 1, 1, before + references)
    bias[..., before:] = torch.tensor(likenesses).log()[:, None, None, None]
    return bias


def _positions(time: int, grid: tuple[int, int]) -> Tensor:
    return torch.cartesian_prod(
        torch.tensor([time]), torch.arange(grid[0]), torch.arange(grid[1]), torch.zeros(1).long()
    )


def _open_rest(folder: Path) -> dict[str, Any]:
    """What has no weights: the tokenizer, the noise schedule, and whether guidance was distilled.

    Raises:
        CorruptWeights: unreadable, or of a kind this backend does not do.
    """
    try:
        index = json.loads((folder / "model_index.json").read_text())
        scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
        tokenizer = Qwen2Tokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        is_distilled = bool(index.get("is_distilled", False))
    except Exception as error:  # diffusers, transformers and json each raise their own kinds
        raise CorruptWeights(
            f"FLUX.2 klein in {folder} cannot be loaded ({type(error).__name__}: "
            f"{str(error).splitlines()[0][:120] if str(error) else 'no detail'}). "
            f"Get it again with: {DOWNLOAD}"
        ) from error
    if scheduler.config.stochastic_sampling:
        raise CorruptWeights(
            f"The scheduler in {folder} wants stochastic sampling, which this backend does not "
            "do: pictures would not follow their seed. Use klein's own scheduler folder."
        )
    return {"scheduler": scheduler, "tokenizer": tokenizer, "is_distilled": is_distilled}


def _whole_tokens(side: int, pixels_per_token: int, name: str) -> int:
    if side < 64 or side % pixels_per_token:
        raise InvalidInput(
            f"{name} is {side} pixels; FLUX.2 klein takes multiples of {pixels_per_token} "
            "from 64 on."
        )
    return side


def _enlarged(crop: ImageArray, side: int) -> ImageArray:
    if crop.shape[:2] == (side, side):
        return crop
    resized = Image.fromarray(crop).resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(resized, dtype=np.uint8)


def _euler_step(row: Flux2KleinState, velocity: Tensor) -> Flux2KleinState:
    """Latents += (next - sigma) * velocity; at the last step they are the estimate."""
    sigma, following = row.sigmas[row.step], row.sigmas[row.step + 1]
    return replace(
        row,
        step=row.step + 1,
        latents=row.latents + (following - sigma) * velocity,
        estimate=row.latents - sigma * velocity,
    )


def _own(state: RowState) -> Flux2KleinState:
    if not isinstance(state, Flux2KleinState):
        raise TypeError(f"The flux2_klein backend cannot step a {type(state).__name__}.")
    return state


def _checked(state: RowState) -> Flux2KleinState:
    row = _own(state)
    if row.step >= row.num_steps:
        raise ValueError(f"This picture is finished: {row.step} of {row.num_steps} steps are done.")
    return row

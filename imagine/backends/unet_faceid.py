"""What SD 1.5 and SDXL with IP-Adapter FaceID have in common: we drive the UNet ourselves.

Stock pipelines keep the person on the modules and mix two people who share a call. Here keys and
values of prompt and person are computed once per request, lie in that request's row, and reach the
attention layers as an argument; nothing of anybody stays on a module.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, count
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from imagine.backends.base import (
    BackendInfo,
    FaceConditioned,
    RowState,
    refuse_two,
    sizes_by_blocks,
)
from imagine.backends.cache import ByteLRU
from imagine.backends.faceid_attention import (
    KeyValueMatrices,
    RowConditioning,
    TokenRows,
    attention_layers,
    check_owners,
    stack_rows,
    take_over_attention,
)
from imagine.backends.faceid_identity import ClipEye, EmbedCrops, IdentityProjection
from imagine.backends.faceid_weights import (
    AdapterWeights,
    adapter_lora,
    adapter_projections,
    read_adapter,
)
from imagine.backends.latent_preview import LatentPreview
from imagine.backends.lora import find_loras, fuse_lora, read_lora
from imagine.backends.memory_plan import MemoryPlan, Offload, apply_plan
from imagine.backends.packed_linear import pack_linears
from imagine.backends.sampling import (
    Schedule,
    make_schedule,
    scale_model_input,
    take_step,
    timesteps_of,
)
from imagine.backends.weight_files import files_revision, find_base, open_part, weights_in
from imagine.core import ImageArray, Request
from imagine.errors import CorruptWeights, InvalidInput, MissingWeights
from imagine.settings import Settings
from imagine.traits import with_traits

logger = logging.getLogger(__name__)

ADAPTER_HUB_ID = "h94/IP-Adapter-FaceID"
# The publishers of the adapters allow research only, because of the recogniser they learned from.
ADAPTER_LICENCE = "LicenseRef-IP-Adapter-FaceID-NonCommercial"
RECOGNISER = "insightface"

DEFAULT_STEPS = 30
SIZE_BLOCK = 64  # pixels; SDXL was taught on such sizes, and the UNet of SD 1.5 halves them evenly
PROMPT_CACHE_BYTES = 64 * 2**20  # some two hundred prompts of SDXL in half precision
# diffusers' schedulers and the sampler that walks their plan. PNDM, which SD 1.5 comes with, looks
# four steps back; DDIM is what the adapter's authors show in its place.
SAMPLER_OF_SCHEDULER = {
    "EulerDiscreteScheduler": "euler",
    "DDIMScheduler": "ddim",
    "PNDMScheduler": "ddim",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "FlowMatchEulerDiscreteScheduler": "flow_match_euler",
}


class Prompt(NamedTuple):
    """An encoded prompt, one row.

    Attributes:
        embeds: (1, tokens, width).
        pooled: (1, d), or None for models that want none.
    """

    embeds: Tensor
    pooled: Tensor | None

    @property
    def nbytes(self) -> int:
        """How large it is."""
        return self.embeds.nbytes + (0 if self.pooled is None else self.pooled.nbytes)


@dataclass(frozen=True)
class FaceIdState:
    """A picture of a FaceID backend in the making.

    Its rows are (nothing asked, prompt) where guidance works, else the prompt's alone.

    Attributes:
        backend: name of the backend it belongs to.
        owner: number of the request.
        step: steps done.
        num_steps: steps in all.
        latents: (4, h, w) float32, noisy.
        clean: (4, h, w) float32, the newest guess of the clean latents.
        schedule: the plan.
        dtype: in which the UNet counts.
        guidance_scale: of the steps where guidance works.
        guided: (num_steps,) whether it works at each step.
        text: the prompt, one or two rows.
        identity: the person, as many rows; None for nobody in particular.
        pooled: (rows, d), the prompt as a whole; None for SD 1.5, as is the next.
        sizes: (rows, 6), of the picture.
    """

    backend: str
    owner: int
    step: int
    num_steps: int
    latents: Tensor = field(repr=False)
    clean: Tensor = field(repr=False)
    schedule: Schedule = field(repr=False)
    dtype: str
    guidance_scale: float
    guided: tuple[bool, ...] = field(repr=False)
    text: TokenRows = field(repr=False)
    identity: TokenRows | None = field(repr=False)
    pooled: Tensor | None = field(repr=False)
    sizes: Tensor | None = field(repr=False)

    @property
    def batch_key(self) -> tuple[object, ...]:
        """Rows of one backend, latent size and dtype may share a forward pass."""
        return (self.backend, tuple(self.latents.shape), self.dtype)

    @property
    def rows(self) -> slice:
        """The rows the next step needs."""
        return slice(0, 2) if self.guided[min(self.step, self.num_steps - 1)] else slice(-1, None)

    @property
    def row_count(self) -> int:
        """How many they are."""
        return 2 if self.rows.start == 0 else 1


@dataclass(frozen=True)
class FaceIdParts:
    """An opened FaceID model, its LoRA fused, its key and value matrices taken out of the UNet."""

    unet: Any
    vae: Any
    text: KeyValueMatrices
    person: KeyValueMatrices
    projection: IdentityProjection
    sampler: str
    scheduler_config: Mapping[str, Any]
    revision: str


class FaceIdBackend(FaceConditioned):
    """A UNet of Stable Diffusion with IP-Adapter FaceID behind the backend contract.

    The folder holds the base model in the diffusers layout, and beside it
        ip_adapter/     one FaceID or FaceID-Plus checkpoint as safetensors,
        image_encoder/  CLIP, for FaceID-Plus only,
        lora/           optional: LoRAs for a style or for few steps, fused in order of name.
    A few-step LoRA wants its own scheduler/ in place of the base's.
    """

    conditioned_by = RECOGNISER
    name: ClassVar[str]
    title: ClassVar[str]
    folder_name: ClassVar[str]
    hub_id: ClassVar[str]
    base_licence: ClassVar[str]
    adapter_file: ClassVar[str]
    default_guidance_scale: ClassVar[float]
    text_parts: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        parts: FaceIdParts,
        *,
        embed_crops: EmbedCrops | None = None,
        device: str = "cpu",
        image_size: int | None = None,
    ) -> None:
        self._unet, self._vae = parts.unet, parts.vae
        self._text, self._person, self._projection = parts.text, parts.person, parts.projection
        self._sampler, self._scheduler_config = parts.sampler, parts.scheduler_config
        self._revision = parts.revision
        self._embed_crops = embed_crops
        self._device = device
        latent = 2 ** (len(parts.vae.config.block_out_channels) - 1)  # pixels a side
        self._image_size = image_size or parts.unet.config.sample_size * latent
        if self._image_size < 4 * latent or self._image_size % latent:
            raise InvalidInput(
                f"Pictures of {image_size} pixels cannot be drawn by {self.title}. "
                f"Choose a multiple of {latent}, best {parts.unet.config.sample_size * latent}."
            )
        self._latent = latent
        block = max(latent, min(SIZE_BLOCK, self._image_size // 8) // latent * latent)
        self._other_sizes = sizes_by_blocks(self._image_size, block)
        self._owners = count()
        self._preview = LatentPreview(self._pictures, self._unet.config.in_channels, device)
        self._prompts: ByteLRU[str, Prompt] = ByteLRU(PROMPT_CACHE_BYTES, lambda kept: kept.nbytes)

    @classmethod
    def load(
        cls,
        source: Path | None = None,
        device: str = "cpu",
        *,
        embed_crops: EmbedCrops | None = None,
        adapter: Path | None = None,
        dtype: torch.dtype | None = None,
        image_size: int | None = None,
        plan: MemoryPlan | None = None,
        announce: Callable[[str], None] = logger.warning,
    ) -> Self:
        """Open a model from this machine.

        Args:
            source: folder, or hub id of a base in the local cache; None is the own folder in
                assets/models.
            device: "cpu", "cuda", ...
            embed_crops: ArcFace embeddings of crops; without it only pictures of nobody in
                particular can be drawn.
            adapter: the FaceID checkpoint; None takes the one in ip_adapter/.
            dtype: of the weights; None is float32 on a CPU and float16 elsewhere.
            image_size: side of the pictures, pixels; None is what the model was taught on.
            plan: from `make_plan`; says dtype and picture size and where weights wait.
            announce: is told what of the plan this machine cannot do, once per reason.

        Raises:
            MissingWeights: a part is not on this machine; named with the command that gets it.
            CorruptWeights: a part cannot be used, is a pickle, or parts do not fit together.
            InvalidInput: a picture size between latents, or a plan for another backend.
        """
        if plan is not None and plan.backend != cls.name:
            raise InvalidInput(
                f"This memory plan is for {plan.backend!r}. Make one for {cls.name!r}."
            )
        if plan is not None:
            dtype, image_size = getattr(torch, plan.dtype), plan.size
        own = Settings().assets_directory / "models" / cls.folder_name
        command = cls.download_command(own)
        base = find_base(source or own, cls.base_parts(), cls.title, command)
        checkpoint = adapter or cls._find_adapter([base, own])
        dtype = dtype or (torch.float32 if device == "cpu" else torch.float16)
        # A plan may never put all parts on the device at once; it moves them itself.
        opened_on = device if plan is None else "cpu"
        weights = read_adapter(checkpoint)
        opened = {
            part: open_part(model_class, base / part, dtype, opened_on, command)
            for part, model_class in (("unet", UNet2DConditionModel), *cls._text_models())
        }
        vae = _open_vae(base / "vae", dtype, opened_on, command)
        looking = {}
        if weights.wants_picture:
            eye = _open_image_encoder(base / "image_encoder", dtype, opened_on)
            looking["image_encoder"] = eye
        lora_files = find_loras(base / "lora")
        _fuse_all(opened, weights, lora_files)
        sampler, scheduler_config = _open_scheduler(base / "scheduler")
        folders = [base / part for part in (*opened, "vae", *looking)]
        files = [path for folder in folders for path in sorted(folder.glob("*.safetensors"))]
        files.append(base / "scheduler" / "scheduler_config.json")
        parts = make_parts(
            opened["unet"],
            vae,
            weights,
            sampler=sampler,
            scheduler_config=scheduler_config,
            revision=files_revision([*files, checkpoint, *lora_files]),
        )
        if plan is not None:
            apply_plan({**opened, **looking, "vae": vae}, plan, device, announce=announce)
            if plan.offload is Offload.NONE:
                parts = replace(parts, text=parts.text.to(device), person=parts.person.to(device))
        if device == "cpu":
            pack_linears(parts.unet)  # a step takes three quarters of its time (training/LOG.md)
        parts.projection.place(device, ClipEye(looking["image_encoder"]) if looking else None)
        rest = {"embed_crops": embed_crops, "device": device, "image_size": image_size}
        return cls._with_text(parts, opened, base, rest)

    @classmethod
    @abstractmethod
    def _text_models(cls) -> tuple[tuple[str, type[Any]], ...]:
        """Folder and class of each text encoder."""

    @classmethod
    @abstractmethod
    def _with_text(
        cls, parts: FaceIdParts, opened: Mapping[str, Any], base: Path, rest: dict[str, Any]
    ) -> Self:
        """Put the backend together with its text encoders and tokenizers."""

    @abstractmethod
    def _encode(self, prompt: str) -> Prompt:
        """Encode what is asked."""

    @abstractmethod
    def _encode_nothing(self) -> Prompt:
        """Encode that nothing is asked."""

    def _sizes(self, height: int, width: int) -> Tensor | None:
        """(1, 6) sizes of a picture for models that want them."""
        return None

    @classmethod
    def base_parts(cls) -> tuple[str, ...]:
        """The folders a base model must have."""
        return ("unet", "vae", *cls.text_parts, "scheduler")

    @classmethod
    def download_command(cls, folder: Path) -> str:
        """The command that gets the base model."""
        wanted = ["model_index.json", *(f"{part}/*" for part in cls.base_parts())]
        unwanted = ["*.bin", "*.onnx*", "*.msgpack", "*non_ema*"]
        choice = [f"--include '{name}'" for name in wanted]
        choice += [f"--exclude '{name}'" for name in unwanted]
        return f"hf download {cls.hub_id} --local-dir '{folder}' {' '.join(choice)}"

    @classmethod
    def _find_adapter(cls, folders: Sequence[Path]) -> Path:
        target = folders[-1] / "ip_adapter"
        command = (
            f"hf download {ADAPTER_HUB_ID} {cls.adapter_file} --local-dir '{target}', then "
            f"python -m imagine.backends.convert_adapter '{target / cls.adapter_file}' "
            f"'{(target / cls.adapter_file).with_suffix('.safetensors')}'"
        )
        places = [folder / "ip_adapter" for folder in folders]
        place = next((place for place in places if place.is_dir()), target)
        found = weights_in(place, f"an IP-Adapter FaceID for {cls.title}", command)
        if len(found) > 1:
            raise CorruptWeights(
                f"There are {len(found)} adapters in {place} ({found[0].name}, {found[1].name}). "
                "Keep one, or name it when loading."
            )
        return found[0]

    @property
    def info(self) -> BackendInfo:
        """Facts about the loaded model."""
        return BackendInfo(
            name=self.name,
            model_revision=self._revision,
            licence=f"{self.base_licence} AND {ADAPTER_LICENCE}",
            image_size=(self._image_size, self._image_size),
            default_steps=DEFAULT_STEPS,
            default_guidance_scale=self.default_guidance_scale,
            device=self._device,
            conditioned_by=self.conditioned_by,
            other_sizes=self._other_sizes,
        )

    @torch.inference_mode()
    def encode_person(self, crops: ImageArray) -> Tensor:
        """(1, photos * 4, width) identity tokens, one set per photo.

        Raises:
            MissingWeights: there is no face encoder.
            InvalidInput: the face encoder's vectors do not fit the adapter.
        """
        if self._embed_crops is None:
            raise MissingWeights(
                f"The backend {self.name!r} draws a person from an ArcFace embedding, and no face "
                'encoder was handed to it. Run: pip install "imagine-yourself[insightface]", and '
                "name a pack folder in IMAGINE_INSIGHTFACE_PACK."
            )
        return self._projection.tokens(self._embed_crops(crops), crops)

    @torch.inference_mode()
    def prepare(self, request: Request, person: object | None = None) -> FaceIdState:
        """Encode and project prompt and person once, draw the noise of the seed.

        Args:
            request: what to draw.
            person: what `encode_person` made of the same crops before; None encodes them now.

        Raises:
            MissingWeights, InvalidInput: as `encode_person`, an aspect ratio that is not offered,
                or two people in one request.
        """
        if request.beside is not None:
            refuse_two(self.info)
        height, width = self.info.size_of(request.aspect_ratio)
        num_steps = request.num_inference_steps
        schedule = make_schedule(self._sampler, self._scheduler_config, num_steps)
        # Up to 1 the stock pipelines do without guidance, too.
        guided = tuple(
            request.guidance_scale > 1.0 and request.guides_at(step) for step in range(num_steps)
        )
        owner = next(self._owners)
        asked = [self._encode_nothing()] if any(guided) else []
        prompt = with_traits(request.prompt, request.traits)
        asked.append(self._prompts.get_or_make(prompt, lambda: self._encode(prompt)))
        sizes = self._sizes(height, width)
        pooled = [prompt.pooled for prompt in asked if prompt.pooled is not None]
        noise = self._noise(request.seed, height, width) * schedule.noise_scale
        return FaceIdState(
            backend=self.name,
            owner=owner,
            step=0,
            num_steps=num_steps,
            latents=noise,
            clean=torch.zeros_like(noise),
            schedule=schedule,
            dtype=str(self._unet.dtype),
            guidance_scale=request.guidance_scale,
            guided=guided,
            text=self._text.project(owner, torch.cat([prompt.embeds for prompt in asked])),
            identity=self._identity(owner, request, person, is_guided=any(guided)),
            pooled=torch.cat(pooled) if pooled else None,
            sizes=None if sizes is None else sizes.expand(len(asked), -1),
        )

    @torch.inference_mode()
    def denoise_step(self, states: Sequence[RowState]) -> list[RowState]:
        """One forward pass for all rows, then one step of each row's own plan."""
        rows = [self._checked(state) for state in states]
        if len({row.batch_key for row in rows}) > 1:
            raise ValueError("Rows of one step must share one batch_key.")
        if not rows:
            return []
        latents = torch.stack([row.latents for row in rows])
        plans, steps = [row.schedule for row in rows], [row.step for row in rows]
        ends = list(accumulate(row.row_count for row in rows))
        owning = [index for index, row in enumerate(rows) for _ in range(row.row_count)]
        place = torch.tensor(owning, device=self._device)
        output = self._forward(
            scale_model_input(latents, plans, steps)[place].to(self._unet.dtype),
            timesteps_of(plans, steps).to(self._device)[place],
            tuple(rows[index].owner for index in owning),
            rows,
        ).float()
        # Where guidance rests a row's first and last are the same one, and the scale has no effect.
        last = torch.tensor(ends, device=self._device) - 1
        first = last - torch.tensor([row.row_count - 1 for row in rows], device=self._device)
        scales = torch.tensor([row.guidance_scale for row in rows], device=self._device)
        unasked, asked = output[first], output[last]
        guided = unasked + scales[:, None, None, None] * (asked - unasked)
        before = torch.stack([row.clean for row in rows])
        moved, clean = take_step(latents, guided, before, plans, steps)
        return [
            # Copies: a view would keep the latents of the whole batch alive with each row.
            replace(
                row, step=row.step + 1, latents=moved[index].clone(), clean=clean[index].clone()
            )
            for index, row in enumerate(rows)
        ]

    @torch.inference_mode()
    def decode(self, state: RowState) -> ImageArray:
        """The finished picture, or mid-way the newest estimate of it."""
        row = self._own(state)
        latents = (row.latents if row.step == row.num_steps else row.clean)[None]
        unit = (self._pictures(latents)[0].cpu() / 2.0 + 0.5).clamp(0.0, 1.0)
        return np.asarray((unit * 255.0).round().byte().permute(1, 2, 0).numpy())

    def preview(self, state: RowState) -> ImageArray:
        """The newest estimate, one pixel a latent, without the decoder."""
        return self._preview(self._own(state).clean)

    def _pictures(self, latents: Tensor) -> Tensor:
        """(n, 4, h, w) latents to (n, 3, H, W) float pictures in about [-1, 1]."""
        config = self._vae.config
        mean, deviation = (getattr(config, f"latents_{name}", None) for name in ("mean", "std"))
        if mean is not None and deviation is not None:
            shape = (1, -1, 1, 1)
            spread = torch.tensor(deviation, device=self._device).reshape(shape)
            centre = torch.tensor(mean, device=self._device).reshape(shape)
            latents = latents * spread / config.scaling_factor + centre
        else:
            latents = latents / config.scaling_factor
        pixels: Tensor = self._vae.decode(latents.to(self._vae.dtype), return_dict=False)[0]
        return pixels.float()

    def forward_rows(self, state: RowState) -> int:
        """Two where guidance works at the next step, else one."""
        return self._own(state).row_count

    def is_finite(self, state: RowState) -> bool:
        """Whether the latents are numbers."""
        return bool(torch.isfinite(self._own(state).latents).all())

    def _noise(self, seed: int, height: int, width: int) -> Tensor:
        """(4, h, w) float32, drawn on the CPU so that it is the same on every device."""
        size = (height // self._latent, width // self._latent)
        shape = (1, self._unet.config.in_channels, *size)
        generator = torch.Generator("cpu").manual_seed(seed)
        return torch.randn(shape, generator=generator)[0].to(self._device)

    def _identity(
        self, owner: int, request: Request, person: object | None, *, is_guided: bool
    ) -> TokenRows | None:
        if request.crops is None or request.likeness == 0.0:
            return None
        tokens = self.encode_person(request.crops) if person is None else person
        if not isinstance(tokens, Tensor):
            raise TypeError(
                f"The {self.name} backend cannot use a {type(person).__name__} as person."
            )
        photos = len(request.crops)
        shown = [self._projection.nobody(photos), tokens] if is_guided else [tokens]
        return self._person.project(owner, torch.cat(shown), request.likeness)

    def _forward(
        self, sample: Tensor, timesteps: Tensor, owners: tuple[int, ...], rows: list[FaceIdState]
    ) -> Tensor:
        """The UNet's output for rows that are proven to belong together."""
        conditioning = stack_conditioning(rows)
        check_owners(len(sample), owners, conditioning)
        added = None
        if rows[0].pooled is not None:
            parts = [(row.pooled, row.sizes, row.rows) for row in rows]
            added = {
                "text_embeds": torch.cat(
                    [pooled[own] for pooled, _, own in parts if pooled is not None]
                ),
                "time_ids": torch.cat([sizes[own] for _, sizes, own in parts if sizes is not None]),
            }
        output: Tensor = self._unet(
            sample,
            timesteps,
            encoder_hidden_states=None,
            cross_attention_kwargs={"conditioning": conditioning},
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return output

    def _own(self, state: RowState) -> FaceIdState:
        if not isinstance(state, FaceIdState) or state.backend != self.name:
            raise TypeError(f"The {self.name} backend cannot step a {type(state).__name__}.")
        return state

    def _checked(self, state: RowState) -> FaceIdState:
        row = self._own(state)
        if row.step >= row.num_steps:
            raise ValueError(
                f"This picture is finished: {row.step} of {row.num_steps} steps are done."
            )
        return row


def make_parts(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    adapter: AdapterWeights,
    *,
    sampler: str,
    scheduler_config: Mapping[str, Any],
    revision: str = "unsaved",
) -> FaceIdParts:
    """Fit the adapter into the UNet; LoRA must have been fused before, as it moves the matrices.

    Raises:
        CorruptWeights: adapter and UNet do not fit together.
    """
    keys, values = adapter_projections(adapter, attention_layers(unet))
    text, person = take_over_attention(unet, keys, values, adapter.path)
    try:
        projection = unet._convert_ip_adapter_image_proj_to_diffusers(
            dict(adapter.image_proj), low_cpu_mem_usage=False
        )
    # A missing key, another shape, a missing weight: each raises its own kind.
    except (KeyError, RuntimeError, ValueError) as error:
        raise CorruptWeights(
            f"The image_proj part of {adapter.path} cannot be used ({type(error).__name__}: "
            f"{(str(error).splitlines() or [''])[0][:160]}). Get the adapter again."
        ) from error
    projection = projection.to(unet.device, unet.dtype).eval().requires_grad_(False)
    return FaceIdParts(
        unet=unet,
        vae=vae,
        text=text,
        person=person,
        projection=IdentityProjection(projection, adapter),
        sampler=sampler,
        scheduler_config=scheduler_config,
        revision=revision,
    )


def stack_conditioning(rows: Sequence[FaceIdState]) -> RowConditioning:
    """Prompts and people of the rows the next step needs, side by side, padded, never shared."""
    text = stack_rows([(row.text, row.owner, row.rows) for row in rows])
    if all(row.identity is None for row in rows):
        return RowConditioning(text, None)
    return RowConditioning(text, stack_rows([(row.identity, row.owner, row.rows) for row in rows]))


def _open_vae(folder: Path, dtype: torch.dtype, device: str, command: str) -> Any:
    """The picture decoder; in float32 where its config says that it overflows in float16."""
    vae = open_part(AutoencoderKL, folder, dtype, device, command)
    if dtype == torch.float16 and vae.config.force_upcast:
        vae = vae.to(torch.float32)
    return vae


def _open_image_encoder(folder: Path, dtype: torch.dtype, device: str) -> Any:
    command = (
        "hf download laion/CLIP-ViT-H-14-laion2B-s32B-b79K config.json model.safetensors "
        f"--local-dir '{folder}'"
    )
    if not folder.is_dir():
        raise MissingWeights(
            f"FaceID-Plus looks at faces through CLIP, and {folder} is not there. "
            f"Get it with: {command}"
        )
    return open_part(CLIPVisionModelWithProjection, folder, dtype, device, command)


def _open_scheduler(folder: Path) -> tuple[str, dict[str, Any]]:
    """The sampler that walks the plan of a scheduler folder, and its config."""
    try:
        config: dict[str, Any] = ConfigMixin._dict_from_json_file(folder / "scheduler_config.json")
    except (OSError, ValueError) as error:
        raise CorruptWeights(
            f"{folder}/scheduler_config.json cannot be read ({type(error).__name__}). Get it again."
        ) from error
    scheduler = str(config.get("_class_name"))
    if scheduler not in SAMPLER_OF_SCHEDULER:
        raise CorruptWeights(
            f"{folder} asks for {scheduler}, which has no sampler here. "
            f"Put the config of one of these there: {', '.join(SAMPLER_OF_SCHEDULER)}."
        )
    if scheduler == "PNDMScheduler":
        logger.warning("%s is PNDM, which is no one-step method: drawing with DDIM.", folder)
    # Latents have no fixed range; schedulers made for pixels clip unless they are told not to.
    return SAMPLER_OF_SCHEDULER[scheduler], {"clip_sample": False, **config}


def _fuse_all(
    opened: Mapping[str, Any], adapter: AdapterWeights, lora_files: Sequence[Path]
) -> None:
    """Style and few-step LoRAs, then the adapter's own: all stay active, as all are sums.

    Stock `load_ip_adapter` switches an already active LoRA off.
    """
    unet = opened["unet"]
    for path in lora_files:
        for model, pairs in read_lora(path, unet.config).items():
            if model not in opened:
                raise CorruptWeights(
                    f"{path} changes {model!r}, which this model does not have "
                    f"(it has {', '.join(opened)}). Choose a LoRA made for this base."
                )
            fuse_lora(opened[model], pairs, path)
    fuse_lora(unet, adapter_lora(adapter, attention_layers(unet)), adapter.path)

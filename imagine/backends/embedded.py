"""The small model we trained ourselves on people who do not exist: pictures on a laptop's CPU.

Rows of one forward pass may stand at different steps and belong to different people: every row
carries its own projected prompt and identity, and they are padded side by side, never shared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from imagine.backends.base import BackendInfo, RowState
from imagine.backends.cache import ByteLRU
from imagine.backends.minilm import load_text_encoder
from imagine.backends.prompt_judge import shipped_prompt_judge
from imagine.core import ImageArray, Request
from imagine.errors import CorruptWeights, MissingWeights
from imagine.models.denoiser import Conditioning, Denoiser
from imagine.models.identity_adapter import IdentityAdapter
from imagine.models.parallel_attention import KeyValue
from imagine.models.text_encoder import TextEncoder
from imagine.settings import Settings

MODEL_FOLDER = "imagine-mini"
DEFAULT_STEPS = 12
DEFAULT_GUIDANCE_SCALE = 2.0
# Guidance decides the scene in the first third and only costs faces afterwards (training/LOG.md).
DEFAULT_GUIDANCE_INTERVAL = (0.0, 0.34)
# Identity guidance at likeness 1; found by a small sweep, see training/LOG.md.
FULL_LIKENESS_GUIDANCE = 3.5
PROMPT_CACHE_BYTES = 16 * 2**20  # about 300 prompts


@dataclass(frozen=True)
class GuidanceRow:
    """One forward pass's share in a picture: projected prompt and person, and its weight.

    `plain_weight` takes the place of `weight` at the steps in which text guidance rests; together
    they then draw what guidance scale 1 draws.
    """

    weight: float
    plain_weight: float
    text: Sequence[KeyValue] = field(repr=False)
    text_mask: Tensor = field(repr=False)
    text_pooled: Tensor = field(repr=False)
    identity: Sequence[KeyValue] = field(repr=False)
    identity_mask: Tensor = field(repr=False)


@dataclass(frozen=True)
class EmbeddedState:
    """A picture of the embedded model in the making.

    Attributes:
        step: steps done.
        num_steps: steps in all.
        image: (3, h, w) float, noisy.
        estimate: (3, h, w) float, the newest guess of the clean image.
        sigmas: (num_steps + 1,) noise levels, falling to 0.
        guidance: the rows whose weighted sum is the guided estimate.
        guided: (num_steps,) whether text guidance works at each step.
    """

    step: int
    num_steps: int
    image: Tensor = field(repr=False)
    estimate: Tensor = field(repr=False)
    sigmas: Tensor = field(repr=False)
    guidance: tuple[GuidanceRow, ...] = field(repr=False)
    guided: tuple[bool, ...] = field(repr=False)

    @property
    def shares(self) -> list[tuple[float, GuidanceRow]]:
        """The rows the next step needs, with their weights at that step."""
        is_guided = self.guided[min(self.step, self.num_steps - 1)]
        weighted = [(row.weight if is_guided else row.plain_weight, row) for row in self.guidance]
        return [(weight, row) for weight, row in weighted if not _is_nothing(weight)]

    @property
    def batch_key(self) -> tuple[object, ...]:
        """Rows of one picture size and dtype may share a forward pass."""
        return ("embedded", tuple(self.image.shape), str(self.image.dtype))


class EmbeddedBackend:
    """The shipped model behind the backend contract."""

    def __init__(
        self,
        denoiser: Denoiser,
        adapter: IdentityAdapter,
        text_encoder: TextEncoder,
        *,
        scheduler: FlowMatchEulerDiscreteScheduler | None = None,
        revision: str = "unsaved",
        device: str = "cpu",
    ) -> None:
        self._denoiser = denoiser
        self._adapter = adapter
        self._text_encoder = text_encoder
        self._scheduler = scheduler or make_scheduler()
        self._revision = revision
        self._device = device
        self._prompts: ByteLRU[str, tuple[Tensor, Tensor]] = ByteLRU(PROMPT_CACHE_BYTES, _bytes)

    @classmethod
    def load(cls, source: Path | None = None, device: str = "cpu") -> EmbeddedBackend:
        """Load a folder written by `save_model`, by default the shipped one.

        Raises:
            MissingWeights: the folder or a part of it is not there.
            CorruptWeights: the files cannot be read or do not fit together.
        """
        folder = source or Settings().assets_directory / "models" / MODEL_FOLDER
        for part in ("denoiser", "identity_adapter", "scheduler"):
            if not (folder / part).is_dir():
                raise MissingWeights(
                    f"The embedded model is not in {folder} ({part}/ is missing). "
                    "Restore it with: git checkout -- assets/models, or name another folder."
                )
        text_encoder = load_text_encoder(device)
        try:
            denoiser = Denoiser.from_pretrained(folder / "denoiser", **_LOADING)
            adapter = IdentityAdapter.from_pretrained(folder / "identity_adapter", **_LOADING)
            scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
        except Exception as error:  # diffusers, safetensors and json each raise their own kinds
            raise CorruptWeights(
                f"The embedded model in {folder} cannot be loaded ({type(error).__name__}: "
                f"{str(error).splitlines()[0][:120] if str(error) else 'no detail'}). "
                "Restore it with: git checkout -- assets/models"
            ) from error
        return cls(
            denoiser.to(device).eval(),
            adapter.to(device).eval(),
            text_encoder,
            scheduler=scheduler,
            revision=model_revision(folder),
            device=device,
        )

    @property
    def info(self) -> BackendInfo:
        """Facts about the loaded model."""
        size = int(self._denoiser.config.image_size)
        return BackendInfo(
            name="embedded",
            model_revision=self._revision,
            licence="Apache-2.0",
            image_size=(size, size),
            default_steps=DEFAULT_STEPS,
            default_guidance_scale=DEFAULT_GUIDANCE_SCALE,
            device=self._device,
            default_guidance_interval=DEFAULT_GUIDANCE_INTERVAL,
        )

    @torch.inference_mode()
    def encode_person(self, crops: ImageArray) -> Tensor:
        """(1, photos * tokens, width) identity tokens, one set per photo."""
        size = self._adapter.config.image_size
        resized = np.stack(
            [
                np.asarray(Image.fromarray(crop).resize((size, size), Image.Resampling.BOX))
                for crop in crops
            ]
        )
        pixels = torch.from_numpy(resized).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)
        tokens: Tensor = self._adapter(pixels.to(self._device)).flatten(0, 1)[None]
        return tokens

    @torch.inference_mode()
    def prepare(self, request: Request, person: object | None = None) -> EmbeddedState:
        """Encode prompt and person, project both, draw the noise of the seed."""
        generator = torch.Generator("cpu").manual_seed(request.seed % 2**63)
        size = self._denoiser.config.image_size
        noise = torch.randn((3, size, size), generator=generator).to(self._device)
        return EmbeddedState(
            step=0,
            num_steps=request.num_inference_steps,
            image=noise,
            estimate=torch.zeros_like(noise),
            sigmas=self._sigmas(request.num_inference_steps),
            guidance=self._guidance(request, self._identity_tokens(request.crops, person)),
            guided=tuple(request.guides_at(step) for step in range(request.num_inference_steps)),
        )

    @torch.inference_mode()
    def denoise_step(self, states: Sequence[RowState]) -> list[RowState]:
        """One Euler step of the flow for every row, each at its own noise level."""
        rows = [_checked(state) for state in states]
        if len({row.batch_key for row in rows}) > 1:
            raise ValueError("Rows of one step must share one batch_key.")
        if not rows:
            return []
        weighted = [row.shares for row in rows]
        owners = [index for index, own in enumerate(weighted) for _ in own]
        shares = [share for own in weighted for _, share in own]
        images = torch.stack([rows[owner].image for owner in owners])
        sigmas = torch.stack([rows[owner].sigmas[rows[owner].step] for owner in owners])
        conditioning = stack_guidance(shares)
        assert len(images) == len(conditioning.text_mask) == len(conditioning.identity_mask)
        clean = self._denoiser(images, sigmas, conditioning)
        moved: list[RowState] = []
        start = 0
        for row, own in zip(rows, weighted, strict=True):
            count = len(own)
            weights = torch.tensor([weight for weight, _ in own], device=clean.device)
            estimate = (clean[start : start + count] * weights[:, None, None, None]).sum(0)
            moved.append(_euler_step(row, estimate.clamp(-1.0, 1.0)))
            start += count
        return moved

    def decode(self, state: RowState) -> ImageArray:
        """The finished picture, or mid-way the newest estimate of it."""
        row = _as_embedded(state)
        unit = (row.estimate.float().cpu() + 1.0) * 127.5
        return np.asarray(unit.round().clamp(0, 255).byte().permute(1, 2, 0).numpy())

    def preview(self, state: RowState) -> ImageArray:
        """The newest estimate; pixels cost nothing to decode."""
        return self.decode(state)

    def forward_rows(self, state: RowState) -> int:
        """One to three: nothing, prompt, prompt + person, as far as the next step needs them."""
        return len(_as_embedded(state).shares)

    def is_finite(self, state: RowState) -> bool:
        """Whether the latest pixels are numbers."""
        return bool(torch.isfinite(_as_embedded(state).image).all())

    def prompt_fit(self, image: ImageArray, prompt: str) -> float | None:
        """How well a picture shows its prompt, 0 to 1, by the shipped attribute judge.

        None when the prompt asks nothing the judge knows, or the judge is not installed.

        Raises:
            CorruptWeights: the judge is there but cannot be used.
        """
        judge = shipped_prompt_judge()
        return None if judge is None else judge.fit(image, prompt)

    def draw(
        self,
        prompt: str,
        crops: ImageArray | None,
        *,
        seed: int = 0,
        num_inference_steps: int = DEFAULT_STEPS,
        guidance_scale: float = DEFAULT_GUIDANCE_SCALE,
        likeness: float = 0.7,
    ) -> ImageArray:
        """One picture in one call, for training sheets and evaluation."""
        request = Request(
            prompt,
            crops,
            seed,
            num_inference_steps,
            guidance_scale,
            likeness,
            DEFAULT_GUIDANCE_INTERVAL,
        )
        state: RowState = self.prepare(request)
        while state.step < state.num_steps:
            (state,) = self.denoise_step([state])
        return self.decode(state)

    def _sigmas(self, num_steps: int) -> Tensor:
        # A scheduler object holds the schedule of one request only; rows carry a copy of theirs.
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self._scheduler.config)
        scheduler.set_timesteps(num_steps)
        sigmas: Tensor = scheduler.sigmas.to(self._device)
        return sigmas

    def _guidance(self, request: Request, identity: Tensor) -> tuple[GuidanceRow, ...]:
        """Rows (nothing, prompt, prompt + person) and their weights; useless rows are left out.

        Source: guidance on two conditions as in InstructPix2Pix, arXiv 2211.09800, eq. 3.
        """
        text, text_mask = self._prompts.get_or_make(
            request.prompt, lambda: self._text_encoder([request.prompt])
        )
        person = request.likeness * FULL_LIKENESS_GUIDANCE if request.crops is not None else 0.0
        weights = (1.0 - request.guidance_scale, request.guidance_scale - person, person)
        plain_weights = (0.0, 1.0 - person, person)
        guided = {request.guides_at(step) for step in range(request.num_inference_steps)}
        nobody = identity[:, :0]  # the denoiser puts its learned empty token there
        shown = ((False, False), (True, False), (True, True))
        rows = []
        for weight, plain_weight, (with_text, with_person) in zip(
            weights, plain_weights, shown, strict=True
        ):
            used = ([weight] if True in guided else []) + (
                [plain_weight] if False in guided else []
            )
            if all(_is_nothing(share) for share in used):
                continue
            tokens = identity if with_person else nobody
            conditioning = self._denoiser.condition(
                text,
                text_mask & with_text,
                tokens,
                torch.ones(tokens.shape[:2], dtype=torch.bool, device=self._device),
                torch.ones(1, device=self._device),
            )
            rows.append(
                GuidanceRow(
                    weight=weight,
                    plain_weight=plain_weight,
                    text=conditioning.text,
                    text_mask=conditioning.text_mask,
                    text_pooled=conditioning.text_pooled,
                    identity=conditioning.identity,
                    identity_mask=conditioning.identity_mask,
                )
            )
        return tuple(rows)

    def _identity_tokens(self, crops: ImageArray | None, person: object | None) -> Tensor:
        if crops is None:
            return torch.zeros(1, 0, self._adapter.config.width, device=self._device)
        if person is None:
            return self.encode_person(crops)
        if not isinstance(person, Tensor):
            raise TypeError(f"The embedded backend cannot use a {type(person).__name__} as person.")
        return person


_LOADING: dict[str, Any] = {
    "local_files_only": True,
    "use_safetensors": True,
    "torch_dtype": torch.float32,
    "low_cpu_mem_usage": False,
}


def make_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """The flow-matching schedule the model was trained for."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=2.0)


def save_model(folder: Path, denoiser: Denoiser, adapter: IdentityAdapter) -> None:
    """Write the model as half-precision safetensors, one folder a part, and nothing pickled."""
    for name, module in (("denoiser", denoiser), ("identity_adapter", adapter)):
        copied = type(module)(**_own_config(module))
        copied.load_state_dict(module.state_dict())
        # ModelMixin.to warns of modules to be kept in float32 although it lists none.
        nn.Module.to(copied, torch.float16)
        copied.save_pretrained(folder / name, safe_serialization=True)
    make_scheduler().save_pretrained(folder / "scheduler")


def model_revision(folder: Path) -> str:
    """First twelve hex digits of the hash of all weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def stack_guidance(rows: Sequence[GuidanceRow]) -> Conditioning:
    """Lay rows of different lengths side by side, padding with tokens nobody attends to."""
    text_tokens = max(row.text_mask.shape[1] for row in rows)
    identity_tokens = max(row.identity_mask.shape[1] for row in rows)
    device = rows[0].text_mask.device
    return Conditioning(
        text=_stack_layers([row.text for row in rows], text_tokens),
        text_mask=torch.cat([_pad_mask(row.text_mask, text_tokens) for row in rows]),
        text_pooled=torch.cat([row.text_pooled for row in rows]),
        identity=_stack_layers([row.identity for row in rows], identity_tokens),
        identity_mask=torch.cat([_pad_mask(row.identity_mask, identity_tokens) for row in rows]),
        identity_scale=torch.ones(len(rows), device=device),
    )


def _bytes(tensors: tuple[Tensor, ...]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _is_nothing(weight: float) -> bool:
    return abs(weight) < 1e-6


def _stack_layers(rows: Sequence[Sequence[KeyValue]], tokens: int) -> list[KeyValue]:
    def padded(tensor: Tensor) -> Tensor:
        return functional.pad(tensor, (0, 0, 0, tokens - tensor.shape[2]))

    return [
        (
            torch.cat([padded(row[layer][0]) for row in rows]),
            torch.cat([padded(row[layer][1]) for row in rows]),
        )
        for layer in range(len(rows[0]))
    ]


def _pad_mask(mask: Tensor, tokens: int) -> Tensor:
    return functional.pad(mask, (0, tokens - mask.shape[1]), value=False)


def _euler_step(row: EmbeddedState, estimate: Tensor) -> EmbeddedState:
    """X += (next - sigma) * velocity, with velocity = (x - clean) / sigma."""
    sigma, following = row.sigmas[row.step], row.sigmas[row.step + 1]
    velocity = (row.image - estimate) / sigma
    image = row.image + (following - sigma) * velocity
    return replace(row, step=row.step + 1, image=image, estimate=estimate)


def _as_embedded(state: RowState) -> EmbeddedState:
    if not isinstance(state, EmbeddedState):
        raise TypeError(f"The embedded backend cannot step a {type(state).__name__}.")
    return state


def _checked(state: RowState) -> EmbeddedState:
    row = _as_embedded(state)
    if row.step >= row.num_steps:
        raise ValueError(f"This picture is finished: {row.step} of {row.num_steps} steps are done.")
    return row


def _own_config(module: Any) -> dict[str, Any]:
    return {key: value for key, value in module.config.items() if not key.startswith("_")}

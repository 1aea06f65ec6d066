"""The small model we trained ourselves on people who do not exist: pictures on a laptop's CPU.

Rows of one forward pass may stand at different steps and belong to different people: every row
carries its own projected prompt and identity, and rows never share a sum (`folded_denoiser`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ModelMixin
from torch import Tensor, nn

from imagine.backends.base import BackendInfo, RowState, draw_alone, shape_of
from imagine.backends.cache import ByteLRU
from imagine.backends.chooser import Chooser
from imagine.backends.folded_denoiser import FoldedDenoiser, Look
from imagine.backends.minilm import load_text_encoder
from imagine.backends.prompt_judge import asked_attributes, shipped_prompt_judge, to_network_input
from imagine.backends.trait_words import caption, contrary, with_named_expression
from imagine.backends.weight_files import OWN_MODELS
from imagine.core import CROP_SIZE, SQUARE, ImageArray, Request
from imagine.errors import CorruptWeights, MissingWeights
from imagine.models.attribute_judge import AttributeJudge
from imagine.models.denoiser import Denoiser
from imagine.models.face_colours import with_natural_mouths
from imagine.models.face_detail import describe_detail, with_detail
from imagine.models.face_recogniser import FaceLocator, FaceRecogniser
from imagine.models.face_refiner import FaceRefiner, SelfieMaps
from imagine.models.face_turn import FaceTurn, looking_ahead
from imagine.models.identity_adapter import IdentityAdapter
from imagine.models.parallel_attention import KeyValue
from imagine.models.text_encoder import TextEncoder
from imagine.models.upsampler import SCALE, Upsampler
from imagine.settings import CANDIDATES, Settings

MODEL_FOLDER = "imagine-mini"
CHOOSER_FOLDER = "chooser"  # within it
LOCATOR_FOLDER = "face_locator"
REFINER_FOLDER = "face_refiner"
TURN_FOLDER = "face_turn"
DEFAULT_STEPS = 6
DEFAULT_GUIDANCE_SCALE = 2.5
# Guidance decides the scene and the expression first and costs likeness (training/LOG.md).
DEFAULT_GUIDANCE_INTERVAL = (0.0, 0.67)
# Identity guidance at likeness 1; found by a small sweep, see training/LOG.md.
FULL_LIKENESS_GUIDANCE = 3.5
# The likeness from which on the refiner's whole correction is used: the default of the product.
FULL_REFINEMENT = 0.7
# The selfies show the face without what was asked for, and refiner and detail believe the selfies:
# this share of both is left where a switch or the prompt names one of these.
REFINEMENT_WHEN_ASKED = {"age": 0.0, "glasses": 0.5}
# How strongly a switched trait is pulled out of what the prompt draws without it, and up to which
# share of the schedule; see training/LOG.md.
TRAIT_GUIDANCE = 2.0
AGE_GUIDANCE = 3.5  # the selfies say the age too, and louder than words do
TRAIT_UNTIL = 0.67
# Finished squares are cut to these shapes: nothing is drawn beyond the square, and the face stands
# in its middle. Of what a wide shape leaves out this share is cut off at the top. Both were chosen
# by how many faces are still found whole (docs/shapes.md).
CUT_RATIOS = ("3:4", "4:3", "2:3")
CUT_AT_TOP = 0.375
# Two people are drawn in two windows that overlap by this share of a picture's side.
OVERLAP = 0.25
# Several drawings of a wish are begun from different noise; after this share of the steps the best
# is chosen and drawn to its end. See training/LOG.md for what that is worth.
CHOOSE_AFTER = 2 / 3
CANDIDATE_STRIDE = 7_368_787  # between the seeds of their noise
PROMPT_CACHE_BYTES = 16 * 2**20  # about 300 prompts


Part = TypeVar("Part", Upsampler, FaceLocator, FaceRefiner, FaceTurn)


class Words(Enum):
    """What a row of guidance is told."""

    NOTHING = "nothing"
    PROMPT = "prompt"
    CONTRARY = "the prompt without the switched traits"


@dataclass(frozen=True)
class GuidanceRow:
    """One forward row's share in a picture: what it is shown, and its weight at each step."""

    weights: tuple[float, ...]
    words: Words
    shows_person: bool


@dataclass(frozen=True)
class Wording:
    """Words as the denoiser takes them.

    Attributes:
        modulation: (num_steps, 6, width).
        text: keys and values per block; None for no words.
    """

    modulation: Tensor = field(repr=False)
    text: Sequence[KeyValue] | None = field(repr=False)


@dataclass(frozen=True)
class Person:
    """What a person's crops become.

    Attributes:
        tokens: (1, photos * tokens, width) of the identity adapter.
        face: (d,), what drawings are compared with to choose one; None without a chooser.
        looks: glasses and hair that the selfies show, as classes of the chooser.
        selfies: what the refiner looks at, of those from the front; None without a refiner.
        detail: of the features, as `face_detail` describes it, of the same; None without a refiner.
        ahead: share of refiner and detail, less than 1 where every selfie looks aside.
    """

    tokens: Tensor = field(repr=False)
    face: Tensor | None = field(repr=False)
    looks: Mapping[str, Sequence[str]] = field(repr=False)
    selfies: SelfieMaps | None = field(repr=False)
    detail: Tensor | None = field(repr=False)
    ahead: float = 1.0

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        kept = (self.tokens, self.face, self.detail, *(self.selfies or ()))
        return _bytes(tuple(tensor for tensor in kept if tensor is not None))


@dataclass(frozen=True)
class Window:
    """A square of the picture that one person has to themselves.

    Attributes:
        left: its first column.
        guidance: the rows whose weighted sum is the guided estimate.
        wordings: what those rows are told.
        identity: keys and values of the person, per block; None for nobody in particular.
        person: tokens for the upsampler, a face to compare with and one to refine by; none for
            nobody.
        wanted: attribute -> classes that satisfy prompt and switches, to choose by.
        refinement: share of the refiner's correction and of the selfies' detail.
    """

    left: int
    guidance: tuple[GuidanceRow, ...]
    wordings: Mapping[Words, Wording] = field(repr=False)
    identity: Sequence[KeyValue] | None = field(repr=False)
    person: Person = field(repr=False)
    wanted: Mapping[str, Sequence[str]] = field(repr=False)
    refinement: float

    def shares(self, step: int) -> list[tuple[float, GuidanceRow]]:
        """The rows a step needs, with their weights at that step."""
        weighted = [(row.weights[step], row) for row in self.guidance]
        return [(weight, row) for weight, row in weighted if not _is_nothing(weight)]


@dataclass(frozen=True)
class EmbeddedState:
    """A picture of the embedded model in the making.

    Attributes:
        step: steps done.
        num_steps: steps in all.
        image: (candidates, 3, h, w) float, noisy; one candidate once the best is chosen.
        estimate: (candidates, 3, h, w) float, the newest guesses of the clean image.
        sigmas: num_steps + 1 noise levels, falling to 0.
        windows: one a person, left to right; where two overlap, their estimates are blended.
        aspect_ratio: the shape to which the picture is cut when it is looked at.
    """

    step: int
    num_steps: int
    image: Tensor = field(repr=False)
    estimate: Tensor = field(repr=False)
    sigmas: tuple[float, ...] = field(repr=False)
    windows: tuple[Window, ...] = field(repr=False)
    aspect_ratio: str = SQUARE

    @property
    def shares(self) -> list[tuple[float, GuidanceRow]]:
        """The rows the next step needs, with their weights, of all windows of a candidate."""
        step = min(self.step, self.num_steps - 1)
        return [share for window in self.windows for share in window.shares(step)]

    @property
    def must_choose(self) -> bool:
        """Whether it is time to go on with the best candidate only."""
        return len(self.image) > 1 and self.step >= max(1, round(CHOOSE_AFTER * self.num_steps))

    @property
    def batch_key(self) -> tuple[object, ...]:
        """Rows of one picture size and dtype may share a forward pass."""
        return ("embedded", tuple(self.image.shape), str(self.image.dtype))


class EmbeddedBackend:
    """The shipped model behind the backend contract.

    The denoiser's weights are arranged anew here; training on makes another backend necessary.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        adapter: IdentityAdapter,
        text_encoder: TextEncoder,
        *,
        scheduler: FlowMatchEulerDiscreteScheduler | None = None,
        upsampler: Upsampler | None = None,
        locator: FaceLocator | None = None,
        refiner: FaceRefiner | None = None,
        turn: FaceTurn | None = None,
        chooser: Chooser | None = None,
        candidates: int = CANDIDATES,
        revision: str = "unsaved",
        device: str = "cpu",
    ) -> None:
        """Put the parts together.

        Without an upsampler pictures are of the denoiser's size; without a refiner, or a locator
        that tells it where the face is, faces stay as they were drawn; where nothing tells turned
        selfies, all are taken to look ahead; without a chooser every wish is drawn once.
        """
        self._denoiser = denoiser
        self._folded = FoldedDenoiser(denoiser)
        self._adapter = adapter
        self._text_encoder = text_encoder
        self._scheduler = scheduler or make_scheduler()
        self._upsampler = upsampler
        self._locator = locator
        self._refiner = refiner if locator is not None else None
        self._turn = turn
        self._chooser = chooser
        self._candidates = candidates if chooser is not None else 1
        # The same seed gives another picture where it is chosen among more.
        self._revision = revision + (f"-of-{self._candidates}" if self._candidates > 1 else "")
        self._device = device
        self._prompts: ByteLRU[str, tuple[Tensor, Tensor]] = ByteLRU(PROMPT_CACHE_BYTES, _bytes)

    @classmethod
    def load(
        cls, source: Path | None = None, device: str = "cpu", *, candidates: int | None = None
    ) -> EmbeddedBackend:
        """Load a folder written by `save_model`, by default the shipped one.

        Args:
            source: the folder.
            device: to draw on.
            candidates: drawings that are begun for a wish; by default what the settings say.

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
            denoiser = Denoiser.from_pretrained(folder / "denoiser", **OWN_MODELS)
            adapter = IdentityAdapter.from_pretrained(folder / "identity_adapter", **OWN_MODELS)
            scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
            upsampler = _load_part(Upsampler, folder / "upsampler", device)
            locator = _load_part(FaceLocator, folder / LOCATOR_FOLDER, device)
            refiner = _load_part(FaceRefiner, folder / REFINER_FOLDER, device)
            turn = _load_part(FaceTurn, folder / TURN_FOLDER, device)
            chooser = None
            if (folder / CHOOSER_FOLDER).is_dir():
                chooser = Chooser.load(folder / CHOOSER_FOLDER, _needed(locator), device)
            if refiner is not None:
                _needed(locator)
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
            upsampler=upsampler,
            locator=locator,
            refiner=refiner,
            turn=turn,
            chooser=chooser,
            candidates=candidates or Settings().candidates,
            revision=model_revision(folder),
            device=device,
        )

    @property
    def side(self) -> int:
        """Height and width of what is denoised, pixels; the upsampler makes pictures of it."""
        return int(self._denoiser.config.image_size)

    @property
    def info(self) -> BackendInfo:
        """Facts about the loaded model."""
        size = self.side * (1 if self._upsampler is None else SCALE)
        return BackendInfo(
            name="embedded",
            model_revision=self._revision,
            licence="Apache-2.0",
            image_size=(size, size),
            default_steps=DEFAULT_STEPS,
            default_guidance_scale=DEFAULT_GUIDANCE_SCALE,
            device=self._device,
            default_guidance_interval=DEFAULT_GUIDANCE_INTERVAL,
            traits="trained",
            draws_two=True,
            other_sizes={aspect_ratio: cut_size(size, aspect_ratio) for aspect_ratio in CUT_RATIOS},
            pair_size=(size, 2 * size - round(OVERLAP * size)),
        )

    @torch.inference_mode()
    def encode_person(self, crops: ImageArray) -> Person:
        """Identity tokens, one set per photo, and the faces to choose and to refine by."""
        pixels = to_network_input(crops, int(self._adapter.config.image_size))
        tokens: Tensor = self._adapter(pixels.to(self._device)).flatten(0, 1)[None]
        selfies, detail, ahead = None, None, 1.0
        if self._refiner is not None:
            upright = to_network_input(crops, CROP_SIZE)
            chosen, ahead = self._from_the_front(upright)
            faces = to_network_input(crops[chosen.numpy()], int(self._refiner.config.crop_size))
            selfies = self._refiner.describe(faces.to(self._device))
            detail = describe_detail(upright[chosen].to(self._device))
        if self._chooser is None:
            return Person(tokens, None, {}, selfies, detail, ahead)
        face, looks = self._chooser.describe(crops), self._chooser.looks(crops)
        return Person(tokens, face, looks, selfies, detail, ahead)

    def _from_the_front(self, upright: Tensor) -> tuple[Tensor, float]:
        """Which crops fit a face from the front, (photos,) bool, and how well they do."""
        if self._turn is None:
            return torch.ones(len(upright), dtype=torch.bool), 1.0
        return looking_ahead(self._turn(upright.to(self._device)).cpu())

    @torch.inference_mode()
    def prepare(
        self, request: Request, person: object | None = None, beside: object | None = None
    ) -> EmbeddedState:
        """Encode prompt and people, project both, draw the noise of the seed.

        Two people share the noise of one wide picture; each has a window and tokens of their own.

        Raises:
            InvalidInput: an aspect ratio that is not offered.
        """
        self.info.size_of(request.aspect_ratio, two=request.beside is not None)
        size = self.side
        shift = size - round(OVERLAP * size) if request.beside is not None else 0
        seeds = [request.seed + k * CANDIDATE_STRIDE for k in range(self._candidates)]
        shape = (3, size, size + shift)
        noise = torch.stack([_noise(seed, shape) for seed in seeds]).to(self._device)
        sigmas = self._sigmas(request.num_inference_steps)
        windows = [self._window(request, sigmas[:-1], person, 0)]
        if request.beside is not None:
            # Traits are those of the person on the left.
            right = replace(request, crops=request.beside, traits={}, beside=None)
            windows.append(self._window(right, sigmas[:-1], beside, shift))
        return EmbeddedState(
            step=0,
            num_steps=request.num_inference_steps,
            image=noise,
            estimate=torch.zeros_like(noise),
            sigmas=tuple(sigmas.tolist()),
            windows=tuple(windows),
            aspect_ratio=request.aspect_ratio,
        )

    def _window(self, request: Request, sigmas: Tensor, person: object | None, left: int) -> Window:
        traits = with_named_expression(request.prompt, request.traits)
        request = replace(request, traits=traits)
        guidance = guidance_rows(request)
        identity, shown = None, self._person(None, None)
        if any(row.shows_person for row in guidance):
            shown = self._person(request.crops, person)
            identity = self._folded.project_identity(shown.tokens)
        prompt = caption(request.prompt, request.traits)
        said = {
            Words.NOTHING: None,
            Words.PROMPT: prompt,
            Words.CONTRARY: contrary(request.prompt, request.traits),
        }
        needed = {row.words for row in guidance}
        wordings = {words: self._wording(said[words], sigmas) for words in needed}
        # Whoever writes of a smile is content with several; a switch means its very value.
        wanted = asked_attributes(prompt) | {name: (v,) for name, v in request.traits.items()}
        refinement = shown.ahead * min(
            1.0,
            request.likeness / FULL_REFINEMENT,
            *(REFINEMENT_WHEN_ASKED.get(name, 1.0) for name in wanted),
        )
        return Window(left, guidance, wordings, identity, shown, wanted, refinement)

    def _wording(self, said: str | None, sigmas: Tensor) -> Wording:
        if said is None:
            return Wording(self._folded.modulation(sigmas, None), None)
        text = self._prompt_tokens(said)
        return Wording(self._folded.modulation(sigmas, text), self._folded.project_text(text))

    @torch.inference_mode()
    def denoise_step(self, states: Sequence[RowState]) -> list[RowState]:
        """One Euler step of the flow for every row, each at its own noise level."""
        rows = [_checked(state) for state in states]
        if len({row.batch_key for row in rows}) > 1:
            raise ValueError("Rows of one step must share one batch_key.")
        if not rows:
            return []
        windows = [
            (row, image, window) for row in rows for image in row.image for window in row.windows
        ]
        looks = [
            look
            for owner, (row, _, window) in enumerate(windows)
            for look in _looks(owner, row, window)
        ]
        side, width = rows[0].image.shape[2:]
        seen = torch.stack([image[:, :, w.left : w.left + side] for _, image, w in windows])
        estimates = self._folded(seen, looks).clamp_(-1.0, 1.0)
        if len(rows[0].windows) > 1:
            estimates = side_by_side(estimates, width)
        images = torch.cat([row.image for row in rows])
        # x += (next - sigma) * velocity, with velocity = (x - clean) / sigma
        shares = [
            1.0 - row.sigmas[row.step + 1] / row.sigmas[row.step] for row in rows for _ in row.image
        ]
        moved = images.lerp_(
            estimates, torch.tensor(shares, device=images.device)[:, None, None, None]
        )
        counts = [len(row.image) for row in rows]
        return [
            # Copies: a view would keep the pictures of the whole batch alive with each row.
            self._chosen(
                replace(row, step=row.step + 1, image=image.clone(), estimate=estimate.clone())
            )
            for row, image, estimate in zip(
                rows, torch.split(moved, counts), torch.split(estimates, counts), strict=True
            )
        ]

    def _chosen(self, row: EmbeddedState) -> EmbeddedState:
        """The row with its best candidate alone, when it is time; each is looked at by itself."""
        if self._chooser is None or not row.must_choose:
            return row
        merits = torch.stack(
            [
                self._chooser.merits(
                    self._detailed(self._refined(row.estimate, window), window),
                    window.person.face,
                    window.wanted,
                    window.person.looks,
                )
                for window in row.windows
            ]
        )
        best = int(merits.sum(0).argmax())
        # Copies again: what was not chosen is not kept.
        return replace(row, image=row.image[[best]], estimate=row.estimate[[best]])

    @torch.inference_mode()
    def decode(self, state: RowState) -> ImageArray:
        """The finished picture, or mid-way the newest estimate of it, at the full size."""
        row = _as_embedded(state)
        return cut_to(_to_pixels(self._enlarged(row)), row.aspect_ratio)

    def preview(self, state: RowState) -> ImageArray:
        """The newest estimate at the denoiser's size; pixels cost nothing to decode."""
        row = _as_embedded(state)
        return cut_to(_to_pixels(row.estimate[0]), row.aspect_ratio)

    def _enlarged(self, row: EmbeddedState) -> Tensor:
        """The newest estimate refined and enlarged, each window with its own person."""
        side, width = row.estimate.shape[2:]
        # One window a call: what is drawn of one must not depend on its company.
        windows = [self._finished(row.estimate[:1], window) for window in row.windows]
        if len(windows) == 1:
            return windows[0].squeeze(0)
        return side_by_side(torch.cat(windows), width * windows[0].shape[2] // side)[0]

    def _finished(self, estimates: Tensor, window: Window) -> Tensor:
        """One window of whole estimates, refined, enlarged and with the selfies' detail."""
        seen = self._refined(estimates, window)
        if self._upsampler is not None:
            seen = self._upsampler(seen, window.person.tokens).clamp_(-1.0, 1.0)
        return self._detailed(seen, window)

    def _refined(self, estimates: Tensor, window: Window) -> Tensor:
        """One window of whole estimates, its face refined if it is somebody's."""
        side = estimates.shape[2]
        seen = estimates[..., window.left : window.left + side]
        selfies = window.person.selfies
        if self._refiner is None or self._locator is None or selfies is None:
            return seen
        thetas = self._locator(seen)
        return self._refiner.refine(seen, thetas, selfies, window.refinement).clamp_(-1.0, 1.0)

    def _detailed(self, pictures: Tensor, window: Window) -> Tensor:
        """Pictures of one window's person with the detail of the selfies and calm mouths."""
        detail = window.person.detail
        if self._locator is None or detail is None:
            return pictures
        thetas = self._locator(pictures)
        seen = with_detail(pictures, thetas, detail, window.refinement)
        return with_natural_mouths(seen, thetas).clamp_(-1.0, 1.0)

    def forward_rows(self, state: RowState) -> int:
        """Per candidate and person nothing, prompt, prompt + person, without the traits."""
        row = _as_embedded(state)
        return len(row.image) * len(row.shares)

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
        return draw_alone(self, request)

    def _sigmas(self, num_steps: int) -> Tensor:
        # A scheduler object holds the schedule of one request only; rows carry a copy of theirs.
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self._scheduler.config)
        scheduler.set_timesteps(num_steps)
        sigmas: Tensor = scheduler.sigmas.to(self._device)
        return sigmas

    def _prompt_tokens(self, prompt: str) -> Tensor:
        """(1, tokens, width) of the text encoder, without its padding."""
        text, mask = self._prompts.get_or_make(prompt, lambda: self._text_encoder([prompt]))
        return text[:, mask[0]]

    def _person(self, crops: ImageArray | None, person: object | None) -> Person:
        if crops is None:
            nobody = torch.zeros(1, 0, self._adapter.config.width, device=self._device)
            return Person(nobody, None, {}, None, None)
        if person is None:
            return self.encode_person(crops)
        if not isinstance(person, Person):
            raise TypeError(f"The embedded backend cannot use a {type(person).__name__} as person.")
        return person


def make_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """The flow-matching schedule the model was trained for."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=2.0)


def save_model(folder: Path, denoiser: Denoiser, adapter: IdentityAdapter) -> None:
    """Write the model as half-precision safetensors, one folder a part, and nothing pickled."""
    for name, module in (("denoiser", denoiser), ("identity_adapter", adapter)):
        _save_part(folder / name, module)
    make_scheduler().save_pretrained(folder / "scheduler")


def save_upsampler(folder: Path, upsampler: Upsampler) -> None:
    """Add the upsampler to the folder of a model, or replace the one there."""
    _save_part(folder / "upsampler", upsampler)


def save_refiner(folder: Path, refiner: FaceRefiner, locator: FaceLocator) -> None:
    """Add the refiner, and what tells it where faces are, to the folder of a model."""
    _save_part(folder / REFINER_FOLDER, refiner)
    _save_part(folder / LOCATOR_FOLDER, locator)


def save_turn(folder: Path, turn: FaceTurn) -> None:
    """Add what tells turned selfies to the folder of a model."""
    _save_part(folder / TURN_FOLDER, turn)


def save_chooser(
    folder: Path, recogniser: FaceRecogniser, locator: FaceLocator, attributes: AttributeJudge
) -> None:
    """Add the chooser, and what tells it where faces are, to the folder of a model."""
    _save_part(folder / CHOOSER_FOLDER / "recogniser", recogniser)
    _save_part(folder / CHOOSER_FOLDER / "attributes", attributes)
    _save_part(folder / LOCATOR_FOLDER, locator)


def _save_part(folder: Path, module: ModelMixin) -> None:
    copied: Any = type(module)(**_own_config(module))
    copied.load_state_dict(module.state_dict())
    # ModelMixin.to warns of modules to be kept in float32 although it lists none.
    nn.Module.to(copied, torch.float16)
    copied.save_pretrained(folder, safe_serialization=True)


def _load_part(kind: type[Part], folder: Path, device: str) -> Part | None:
    """A part of a model that has it."""
    if not folder.is_dir():
        return None
    part: Part = kind.from_pretrained(folder, **OWN_MODELS).to(device).eval()
    return part


def _needed(locator: FaceLocator | None) -> FaceLocator:
    if locator is None:
        raise OSError(f"{LOCATOR_FOLDER}/ is missing")
    return locator


def model_revision(folder: Path) -> str:
    """First twelve hex digits of the hash of all weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def cut_size(side: int, aspect_ratio: str) -> tuple[int, int]:
    """Height and width, even numbers, of the largest picture of a shape within a square."""
    width, height = shape_of(aspect_ratio)
    longer = max(width, height)
    return 2 * round(side * height / longer / 2), 2 * round(side * width / longer / 2)


def cut_to(picture: ImageArray, aspect_ratio: str) -> ImageArray:
    """A finished square as a picture of another shape, without enlarging anything.

    Args:
        picture: (side, side, 3), or of any shape for "1:1", which leaves it alone.
        aspect_ratio: width to height; both sides are cut alike, top and bottom by `CUT_AT_TOP`.
    """
    if aspect_ratio == SQUARE:
        return picture
    side = picture.shape[0]
    height, width = cut_size(side, aspect_ratio)
    top, left = round((side - height) * CUT_AT_TOP), (side - width) // 2
    return np.ascontiguousarray(picture[top : top + height, left : left + width])


def guidance_rows(request: Request) -> tuple[GuidanceRow, ...]:
    """Rows (nothing, prompt, prompt + person, contrary) and their weights without useless rows.

    Source: guidance on two conditions as in InstructPix2Pix, arXiv 2211.09800, eq. 3; for switched
    traits a third difference, between the prompt with and without them.
    """
    steps = range(request.num_inference_steps)
    person = request.likeness * FULL_LIKENESS_GUIDANCE if request.crops is not None else 0.0
    scales = [request.guidance_scale if request.guides_at(step) else 1.0 for step in steps]
    # Without glasses is said by silence, and then there is nothing to compare with.
    differs = caption(request.prompt, request.traits) != contrary(request.prompt, request.traits)
    strength = AGE_GUIDANCE if "age" in request.traits else TRAIT_GUIDANCE
    traits = [strength if differs and step < TRAIT_UNTIL * len(steps) else 0.0 for step in steps]
    # The contrary is compared with the row that shows most: prompt and person, if there is one.
    shows_person = not _is_nothing(person)
    alone, both = ([0.0] * len(steps), traits) if shows_person else (traits, [0.0] * len(steps))
    rows = (
        GuidanceRow(tuple(1.0 - scale for scale in scales), Words.NOTHING, shows_person=False),
        GuidanceRow(
            tuple(scale - person + more for scale, more in zip(scales, alone, strict=True)),
            Words.PROMPT,
            shows_person=False,
        ),
        GuidanceRow(tuple(person + more for more in both), Words.PROMPT, shows_person=True),
        GuidanceRow(tuple(-trait for trait in traits), Words.CONTRARY, shows_person),
    )
    return tuple(row for row in rows if not all(map(_is_nothing, row.weights)))


def _looks(owner: int, row: EmbeddedState, window: Window) -> list[Look]:
    looks = []
    for weight, share in window.shares(row.step):
        wording = window.wordings[share.words]
        looks.append(
            Look(
                owner,
                weight,
                wording.modulation[row.step],
                wording.text,
                window.identity if share.shows_person else None,
            )
        )
    return looks


def side_by_side(estimates: Tensor, width: int) -> Tensor:
    """Windows to whole pictures; one fades into the other where they meet.

    Args:
        estimates: (2 * pictures, 3, side, side), the windows of each picture left to right.
        width: of the whole pictures, pixels.

    Returns:
        (pictures, 3, side, width).

    Source: joint denoising of overlapping windows as in MultiDiffusion, arXiv 2302.08113; here the
    clean estimates are blended, with weights that fall towards the edge of a window.
    """
    side = estimates.shape[3]
    overlap = 2 * side - width
    fade = torch.ones(side, device=estimates.device)
    fade[side - overlap :] = torch.linspace(1.0, 0.0, overlap + 2, device=fade.device)[1:-1]
    left, right = estimates[0::2], estimates[1::2]
    whole = estimates.new_zeros(len(left), 3, side, width)
    whole[..., :side] = left * fade
    whole[..., width - side :] += right * fade.flip(0)
    return whole


def _noise(seed: int, shape: tuple[int, int, int]) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(seed % 2**63)
    return torch.randn(shape, generator=generator)


def _to_pixels(estimate: Tensor) -> ImageArray:
    """(3, h, w) in [-1, 1] to (h, w, 3) uint8."""
    unit = (estimate.float().cpu() + 1.0) * 127.5
    return np.asarray(unit.round().clamp(0, 255).byte().permute(1, 2, 0).numpy())


def _bytes(tensors: tuple[Tensor, ...]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _is_nothing(weight: float) -> bool:
    return abs(weight) < 1e-6


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

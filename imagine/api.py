"""The Python door: `Imagine`, and what it gives back.

Checks arguments, opens weights when they are first needed, and leaves the story to
`imagine.pipeline`. One `Imagine` may be used from several threads; one engine takes their turns.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from math import isfinite
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from imagine.backends import BACKENDS, Backend, BackendInfo
from imagine.backends.base import FaceConditioned
from imagine.backends.licences import LicenceMode, LicenceStamp, check_licences, check_mode
from imagine.backends.memory_plan import MemoryPlan, device_bytes, make_plan
from imagine.core import (
    REDRAWS,
    FloatArray,
    Identity,
    ImageArray,
    LikenessVerdict,
    PhotoReport,
    Recipe,
)
from imagine.engine import Engine, Limits
from imagine.engine.engine import check_interval
from imagine.engine.limits import MAX_GUIDANCE, MAX_STEPS
from imagine.errors import InvalidInput
from imagine.identity import (
    FACE_DETECTORS,
    FACE_ENCODERS,
    FaceDetector,
    FaceEncoder,
    PhotoSource,
    build_identity,
    check_photos,
    wipe,
)
from imagine.identity.insightface_faces import embed_crops, find_pack
from imagine.pipeline import (
    Audience,
    Candidate,
    Picture,
    Progress,
    Tools,
    Wish,
    make_pictures,
)
from imagine.provenance import MarkedImage, Marking, read_recipe
from imagine.safety import CheckReport, OutputChecks, allow_prompt, usual_checks
from imagine.safety.prompt_policy import shipped_policy
from imagine.settings import Settings

MAX_BEST_OF = 16
SEED_LIMIT = 2**63
logger = logging.getLogger(__name__)


class Event(Protocol):
    """What can be asked whether to stop, e.g. `threading.Event`."""

    def is_set(self) -> bool:
        """True once the caller wants to stop."""


Cancel = Event | Callable[[], bool] | None
OnProgress = Callable[[Progress], object] | None


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """One picture, its verdict, and how to make it again.

    Attributes:
        marked: the picture with its mark; `save` and `to_bytes` go through it.
        seed: the seed that made this picture; with n pictures, picture i has seed + i, and with
            `best_of` the winner's own.
        num_inference_steps: denoising steps.
        model_revision: of the weights.
        likeness: how much it looks like the person, in words and figures.
        prompt_fit: how well it shows the prompt, 0 to 1; None when the backend cannot say.
        recipe: all that `Imagine.replay` needs, besides the selfies.
        why: why this candidate was kept, in words.
    """

    marked: MarkedImage = field(repr=False)
    seed: int
    num_inference_steps: int
    model_revision: str
    likeness: LikenessVerdict
    prompt_fit: float | None
    recipe: Recipe = field(repr=False)
    why: str

    @property
    def array(self) -> ImageArray:
        """A copy of the pixels, (height, width, 3) uint8 RGB; unmarked, so save with `save`."""
        return self.marked.pixels.copy()

    def save(self, path: str | PathLike[str], overwrite: bool = True) -> Path:
        """Write the marked picture whole or not at all; .png, .jpg or .webp by the name.

        Raises:
            InvalidInput: another ending.
            OutputNotWritten: missing folder, full disk, not allowed; nothing partial is left.
        """
        return self.marked.save(path, overwrite)

    def to_bytes(self, suffix: str = ".png") -> bytes:
        """The marked picture as the bytes of a file."""
        return self.marked.to_bytes(suffix)


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """What one call of `generate` made.

    Attributes:
        images: the pictures, in the order of their seeds' derivation.
        withheld: why pictures are missing that were drawn and may not leave, in words.
        seed: the seed of the call, also when it was drawn for you.
        backend: facts about the model that made them.
    """

    images: tuple[GeneratedImage, ...]
    seed: int
    backend: BackendInfo
    withheld: tuple[str, ...] = ()


class IdentityHandle:
    """A person, enrolled; in a `with` block forgotten at its end.

        with im.identity(["a.jpg"]) as me:
            im.generate("reading", identity=me)

    Without `with`, pass the handle itself as `identity` and call `forget` when done.
    """

    def __init__(self, identity: Identity) -> None:
        self.identity = identity

    def __repr__(self) -> str:
        return f"IdentityHandle({self.fingerprint[:12]}..., {self.identity.photo_count} photos)"

    @property
    def reports(self) -> tuple[PhotoReport, ...]:
        """What we think of each photo given, in the order given."""
        return self.identity.reports

    @property
    def fingerprint(self) -> str:
        """Names the identity in recipes; says nothing of the person."""
        return self.identity.fingerprint

    def forget(self) -> None:
        """Overwrite crops and embeddings with zeros; the identity cannot be used afterwards."""
        wipe(self.identity)

    def __enter__(self) -> Identity:
        return self.identity

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.forget()


class Imagine:
    """Pictures of a person from a few selfies.

    Nothing is opened before it is needed: a wrong name is refused at once, missing weights when
    the first picture is asked for.

    Args:
        backend: image model, a name in `imagine.backends.BACKENDS`.
        detector: face detector, a name in `imagine.identity.FACE_DETECTORS`.
        encoder: face recogniser that judges likeness, a name in `FACE_ENCODERS`.
        device: "cpu", "cuda", ...
        settings: paths and limits; None reads the environment.
        weights: folder of the backend's weights; None takes the backend's own place.
        licence: "permissive" loads only weights that may be used commercially, "research" any.
        marking: gives pictures their audit entry and marks; None is that of the data folder.

    Raises:
        UnknownName: a name no registry knows.
    """

    def __init__(
        self,
        backend: str = "embedded",
        detector: str = "dlib",
        encoder: str = "dlib",
        device: str = "cpu",
        settings: Settings | None = None,
        weights: str | PathLike[str] | None = None,
        licence: str = LicenceMode.PERMISSIVE,
        marking: Marking | None = None,
    ) -> None:
        check_mode(licence)
        for registry, name in (
            (BACKENDS, backend),
            (FACE_DETECTORS, detector),
            (FACE_ENCODERS, encoder),
        ):
            registry.check(name)
        self.settings = settings or Settings()
        self._names = (backend, detector, encoder)
        self._device = device
        self._weights = Path(weights) if weights is not None else None
        self._licence = licence
        self._backend: Backend | None = None
        self._faces: tuple[FaceDetector, FaceEncoder] | None = None
        self._checks: OutputChecks | None = None
        self._stamp: LicenceStamp | None = None
        self._loading = threading.Lock()
        self._running: Engine | None = None
        self._plan: MemoryPlan | None = None
        self._marking = marking

    def __repr__(self) -> str:
        backend, detector, encoder = self._names
        return f"Imagine({backend!r}, detector={detector!r}, encoder={encoder!r})"

    @property
    def info(self) -> BackendInfo:
        """Facts about the image model; loads it."""
        return self.backend.info

    def check(
        self,
        photos: Sequence[PhotoSource],
        choose: Mapping[int, int] | None = None,
    ) -> tuple[PhotoReport, ...]:
        """Say of each photo whether it can be used and how to take a better one.

        Args:
            photos: paths, bytes, Pillow images or arrays.
            choose: photo index -> index of the face that is yours, both from 0, 0 is left.

        Raises:
            InvalidInput: no photo; anything wrong with a photo is reported, not raised.
        """
        _refuse_a_single(photos)
        detector, encoder = self.faces
        return check_photos(photos, detector, encoder, self.settings, choose)

    def identity(
        self,
        photos: Sequence[PhotoSource],
        choose: Mapping[int, int] | None = None,
    ) -> IdentityHandle:
        """Make one person out of one to five selfies. Arguments as for `check`.

        Raises:
            InvalidInput: no photo or too many, an unreadable one, none with a usable face, several
                faces, or several people; each has its own class in `imagine.errors`.
        """
        _refuse_a_single(photos)
        detector, encoder = self.faces
        return IdentityHandle(build_identity(photos, detector, encoder, self.settings, choose))

    def generate(
        self,
        prompt: str,
        *,
        identity: Identity | IdentityHandle,
        n: int = 1,
        seed: int | None = None,
        likeness: float = 0.7,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_interval: tuple[float, float] | None = None,
        best_of: int = 1,
        on_progress: OnProgress = None,
        cancel: Cancel = None,
    ) -> GenerationResult:
        """Make n pictures of the person.

        Args:
            prompt: what the pictures show.
            identity: from `identity`.
            n: how many, 1 to `settings.max_images`.
            seed: picture i is drawn from seed + i, modulo 2**63; None draws a random seed.
            likeness: 0 (only the prompt speaks) to 1 (as alike as possible).
            num_inference_steps: 1 to 200; None takes the backend's own.
            guidance_scale: on the text, 1 to 30, 1 is none; None takes the backend's own.
            guidance_interval: the share of the schedule, from and up to, in which it works;
                outside of it a step is cheaper. (0.0, 0.5) is guidance in the first half; None
                takes the backend's own.
            best_of: draw so many candidates for each picture, keep the best by likeness and
                prompt fit; candidate k of picture i has seed + i + k * n.
            on_progress: called with a `Progress` after every denoising step.
            cancel: an event or a function, asked before every step.

        Raises:
            InvalidInput: an argument out of its range; the message says which.
            PromptBlocked: policy does not allow the prompt.
            PictureWithheld: not one picture passed the output checks.
            CheckMissing: an output check cannot run here; says how to install it.
            Cancelled: `cancel` said so; nothing is kept.
            MissingWeights, CorruptWeights: the model cannot be opened.
        """
        person = self._checked_identity(identity)
        allow_prompt(prompt, self.settings)  # refuse before any weights are opened
        _check_whole("n", n, 1, self.settings.max_images)
        _check_whole("best_of", best_of, 1, MAX_BEST_OF)
        _check_number("likeness", likeness, 0.0, 1.0)
        if num_inference_steps is not None:
            _check_whole("num_inference_steps", num_inference_steps, 1, MAX_STEPS)
        if guidance_scale is not None:
            _check_number("guidance_scale", guidance_scale, 1.0, MAX_GUIDANCE)
        if guidance_interval is not None:
            check_interval(guidance_interval)
        if seed is not None:
            _check_whole("seed", seed, 0, SEED_LIMIT - 1)
        info = self.info
        wish = Wish(
            prompt=prompt,
            seed=secrets.randbelow(2**32) if seed is None else seed,
            count=n,
            num_inference_steps=num_inference_steps or info.default_steps,
            guidance_scale=float(guidance_scale or info.default_guidance_scale),
            likeness=float(likeness),
            best_of=best_of,
            guidance_interval=guidance_interval or info.default_guidance_interval,
            redraws=REDRAWS,
        )
        withheld: list[str] = []

        def tell(candidate: Candidate, report: CheckReport) -> None:
            withheld.append(report.words)

        audience = _audience(on_progress, cancel, tell)
        pictures = make_pictures(wish, person, self.tools(), audience)
        images = tuple(_generated(picture) for picture in pictures)
        return GenerationResult(images, wish.seed, info, tuple(withheld))

    async def agenerate(
        self,
        prompt: str,
        *,
        identity: Identity | IdentityHandle,
        n: int = 1,
        seed: int | None = None,
        likeness: float = 0.7,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_interval: tuple[float, float] | None = None,
        best_of: int = 1,
        on_progress: OnProgress = None,
        cancel: Cancel = None,
    ) -> GenerationResult:
        """Like `generate`, in a thread of its own; cancelling the task stops the drawing.

        `on_progress` is called in that thread.
        """
        abandoned = threading.Event()
        asked = _cancel_question(cancel)
        try:
            return await asyncio.to_thread(
                self.generate,
                prompt,
                identity=identity,
                n=n,
                seed=seed,
                likeness=likeness,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                guidance_interval=guidance_interval,
                best_of=best_of,
                on_progress=on_progress,
                cancel=lambda: abandoned.is_set() or asked(),
            )
        finally:
            abandoned.set()

    def replay(
        self,
        recipe: Recipe | str | PathLike[str],
        identity: Identity | IdentityHandle,
        on_progress: OnProgress = None,
        cancel: Cancel = None,
    ) -> GeneratedImage:
        """Make a picture again from its recipe, or from a saved picture that carries one.

        On one CPU the pixels are the same bit for bit, for pictures that were made on a CPU.
        Another processor, thread count or library version may move values by a level or two of
        255; a GPU does not draw the same bits in batches of different size.

        Raises:
            InvalidInput: the recipe needs other selfies, another backend or other weights.
        """
        facts = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
        person = self._checked_identity(identity)
        self._check_replayable(facts, person)
        wish = Wish(
            prompt=facts.prompt,
            seed=facts.seed,
            count=1,
            num_inference_steps=facts.num_inference_steps,
            guidance_scale=float(facts.guidance_scale),
            likeness=float(facts.likeness),
            guidance_interval=(float(facts.guidance_from), float(facts.guidance_until)),
            record=facts.record,
        )
        audience = _audience(on_progress, cancel)
        return _generated(make_pictures(wish, person, self.tools(), audience)[0])

    def _check_replayable(self, recipe: Recipe, person: Identity) -> None:
        if recipe.identity_fingerprint != person.fingerprint:
            raise InvalidInput(
                "This picture was made from other selfies (identity "
                f"{recipe.identity_fingerprint[:12]}, these are {person.fingerprint[:12]}). "
                "Give the same photos in the same order."
            )
        if recipe.backend != self._names[0]:
            raise InvalidInput(
                f"This picture was made by the backend {recipe.backend!r}, not "
                f"{self._names[0]!r}. Choose that backend."
            )
        _check_whole("num_inference_steps", recipe.num_inference_steps, 1, MAX_STEPS)
        _check_number("guidance_scale", recipe.guidance_scale, 1.0, MAX_GUIDANCE)
        _check_number("likeness", recipe.likeness, 0.0, 1.0)
        check_interval((recipe.guidance_from, recipe.guidance_until))
        _check_whole("seed", recipe.seed, 0, SEED_LIMIT - 1)
        if recipe.model_revision != self.info.model_revision:
            raise InvalidInput(
                f"This picture was made by weights {recipe.model_revision}; here are "
                f"{self.info.model_revision}, which would draw another one. "
                "Install the version of the weights it was made by."
            )

    def _engine(self) -> Engine:
        backend = self.backend
        with self._loading:
            if self._running is None:
                # A row's bits depend on how many rows share its pass: on a CPU the embedded
                # model's pixels moved by one level of 255 between one and four rows. One by one,
                # a replay is exact.
                alone = backend.info.device == "cpu"
                limits = Limits(max_forward_rows=1, max_active=2) if alone else Limits()
                if self._plan is not None:
                    limits = Limits.for_memory(
                        self._plan.working_bytes,
                        self._plan.bytes_per_forward_row,
                        self._plan.bytes_per_picture,
                    )
                self._running = Engine(backend, limits)
            return self._running

    @property
    def backend(self) -> Backend:
        """The image model; loads it. Only one engine may call it at a time."""
        with self._loading:
            if self._backend is None:
                _check_device(self._device)
                self._check_licences()
                self._backend = self._opened_backend()
            return self._backend

    def _opened_backend(self) -> Backend:
        chosen = BACKENDS.get(self._names[0])
        words: dict[str, Any] = {}
        if issubclass(chosen, FaceConditioned):
            words["embed_crops"] = self._conditioning(chosen)
        if self._device != "cpu" and "plan" in signature(chosen.load).parameters:
            self._plan = make_plan(self._names[0], device_bytes(self._device))
            logger.info("%s", self._plan.in_words())
            words["plan"] = self._plan
        backend: Backend = chosen.load(self._weights, self._device, **words)
        return backend

    def _conditioning(self, chosen: type[FaceConditioned]) -> Callable[[ImageArray], FloatArray]:
        if self._names[2] == chosen.conditioned_by:
            raise InvalidInput(
                f"The backend {self._names[0]!r} draws from the recogniser {self._names[2]!r}, "
                "which therefore cannot judge the likeness. Choose another encoder, such as dlib."
            )
        recogniser = FACE_ENCODERS.get(chosen.conditioned_by).load(self.settings)
        return partial(embed_crops, encoder=recogniser)

    @property
    def faces(self) -> tuple[FaceDetector, FaceEncoder]:
        """Face detector and recogniser; loads them."""
        with self._loading:
            if self._faces is None:
                self._check_licences()
                detector = FACE_DETECTORS.get(self._names[1]).load(self.settings)
                encoder = FACE_ENCODERS.get(self._names[2]).load(self.settings)
                self._faces = (detector, encoder)
            return self._faces

    def tools(self, engine: Engine | None = None) -> Tools:
        """What the pipeline works with; loads it.

        Args:
            engine: another engine over the same backend, e.g. one that batches.
        """
        detector, encoder = self.faces
        with self._loading:
            self._checks = self._checks or usual_checks(detector, encoder)
        return Tools(
            engine or self._engine(),
            detector,
            encoder,
            self.settings,
            self._checks,
            licence=self._check_licences().in_words(),
            mark=self.mark,
        )

    def mark(self, image: ImageArray, recipe: Recipe | None) -> MarkedImage:
        """Give a picture its audit entry and its marks; the first one opens log and keys.

        Raises:
            NotMarked: the picture cannot carry the marks, or the keys cannot be used.
            StorageError: the audit log cannot be used.
        """
        with self._loading:
            if self._marking is None:
                self._marking = local_marking(self.settings)
        return self._marking(image, recipe)

    def _check_licences(self) -> LicenceStamp:
        """Refuse weights of the backend or of the face packs before any of them is opened."""
        if self._stamp is not None:
            return self._stamp
        backend, *face_names = self._names
        packs = ["dlib"] if "dlib" in face_names else []
        if "insightface" in face_names:
            packs.append(find_pack(self.settings).name)
        self._stamp = check_licences(
            backend, self._licence, weights=self._weights, face_packs=packs
        )
        return self._stamp

    def _checked_identity(self, identity: Identity | IdentityHandle) -> Identity:
        person = identity.identity if isinstance(identity, IdentityHandle) else identity
        if not isinstance(person, Identity):
            raise InvalidInput(
                f"identity is a {type(person).__name__}; make one with im.identity([photos])."
            )
        if not person.crops.any():
            raise InvalidInput(
                "This identity was forgotten (its with block has ended). Make it again."
            )
        if person.recogniser != self._names[2]:
            raise InvalidInput(
                f"This identity was made with the recogniser {person.recogniser!r}; "
                f"{self._names[2]!r} cannot judge it. Make it again."
            )
        return person


def local_marking(settings: Settings) -> Marking:
    """Marks and audit log in the data folder of the settings, made at the first picture.

    Raises:
        MarkingKeyUnusable: the keys of the marks cannot be used.
        StorageError: the audit log cannot be used.
    """
    # Both are heavy to import, and not needed before the first picture is finished.
    from imagine.provenance import MARKS_FOLDER, open_marker
    from imagine.storage.audit_log import AuditLog
    from imagine.storage.checkpoints import KEY_FILE_NAME, SigningKey
    from imagine.storage.database import open_database
    from imagine.storage.migrations import upgrade

    marker, keys = open_marker(settings.data_directory / MARKS_FOLDER)
    if keys.note:
        logger.info("%s", keys.note)
    database = open_database(settings.database_place)
    upgrade(database)
    signing = SigningKey.load_or_create(settings.secrets_directory / KEY_FILE_NAME)
    log = AuditLog(database, signing, _NobodysKeys())

    def append(facts: Mapping[str, object]) -> int:
        return log.append("picture.marked", None, facts, "imagine").sequence

    return Marking(marker, append, shipped_policy().sha256)


class _NobodysKeys:
    """Pictures of the Python door are logged without saying whose they are."""

    def commitment_key(self, tenant_id: str, subject: str) -> bytes:
        raise InvalidInput(f"Nobody is named in this log, and {len(subject)} characters were.")


def _refuse_a_single(photos: object) -> None:
    # A string is a sequence of strings: without this, "a.jpg" would be five missing photos.
    if isinstance(photos, str | bytes | PathLike):
        raise InvalidInput("One photo was given where a list is expected: write [photo].")


def _check_device(device: str) -> None:
    if device == "cpu":
        return
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InvalidInput(
            f"The device {device!r} cannot be used on this machine. Use cpu, or see what "
            "`imagine-me doctor` lists."
        ) from error


def _generated(picture: Picture) -> GeneratedImage:
    return GeneratedImage(
        marked=picture.marked,
        seed=picture.recipe.seed,
        num_inference_steps=picture.recipe.num_inference_steps,
        model_revision=picture.recipe.model_revision,
        likeness=picture.verdict,
        prompt_fit=picture.prompt_fit,
        recipe=picture.recipe,
        why=picture.why,
    )


def _cancel_question(cancel: Cancel) -> Callable[[], bool]:
    if cancel is None:
        return lambda: False
    return cancel if callable(cancel) else cancel.is_set


def _audience(
    on_progress: OnProgress,
    cancel: Cancel,
    withheld: Callable[[Candidate, CheckReport], object] = lambda candidate, report: None,
) -> Audience:
    report = on_progress or (lambda progress: None)
    return Audience(report, _cancel_question(cancel), withheld)


def _check_whole(name: str, value: int, low: int, high: int) -> None:
    # bool is an int to Python, and never meant as a number of pictures
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidInput(f"{name} is {value!r}; it must be a whole number, {low} to {high}.")


def _check_number(name: str, value: float, low: float, high: float) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not isfinite(value) or not low <= value <= high:
        raise InvalidInput(f"{name} is {value!r}; it must be a number from {low:g} to {high:g}.")

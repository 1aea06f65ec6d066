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
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from inspect import signature
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from imagine.backends import BACKENDS, Backend, BackendInfo
from imagine.backends.base import FaceConditioned, refuse_two, shape_of
from imagine.backends.licences import LicenceMode, LicenceStamp, check_licences, check_mode
from imagine.backends.memory_plan import MemoryPlan, device_bytes, make_plan
from imagine.core import (
    REDRAWS,
    SQUARE,
    FloatArray,
    Identity,
    ImageArray,
    LikenessVerdict,
    PairVerdict,
    PhotoReport,
    PhotoVerdict,
    Recipe,
)
from imagine.engine import Engine, Limits
from imagine.engine.limits import SEED_LIMIT as SEED_LIMIT
from imagine.engine.limits import check_figure, check_interval, check_whole
from imagine.errors import InvalidInput, UnreadablePhoto
from imagine.identity import (
    FACE_DETECTORS,
    FACE_ENCODERS,
    FaceDetector,
    FaceEncoder,
    PhotoSource,
    build_identity,
    check_photos,
    decode_photo,
    wipe,
)
from imagine.identity.fuse import fingerprint
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
from imagine.provenance import (
    MARKS_FOLDER,
    MarkedImage,
    Marking,
    Verifier,
    make_marking,
    open_verifier,
    photo_origin,
    read_recipe,
)
from imagine.safety import CheckReport, OutputChecks, allow_prompt, usual_checks
from imagine.safety.do_not_generate import NearestListed, Protected
from imagine.safety.enrolment import (
    EnrolmentPolicy,
    Origin,
    machine_made,
    refuse_listed,
    refuse_machine_made,
)
from imagine.safety.output_checks import RecordEvent
from imagine.safety.policy_set import as_word, chosen_checks, policy_in_force
from imagine.settings import Settings
from imagine.traits import check_traits, parse_traits

if TYPE_CHECKING:
    from imagine.storage.audit_log import AuditLog
    from imagine.storage.database import Database
    from imagine.storage.protected import ProtectedPeople

MAX_BEST_OF = 16
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
        pair: with somebody beside, how much it looks like each of the two and whether they were
            mixed; `likeness` is then that of the person on the left.
        notes: what was read from the selfies for traits to keep, in words.
    """

    marked: MarkedImage = field(repr=False)
    seed: int
    num_inference_steps: int
    model_revision: str
    likeness: LikenessVerdict
    prompt_fit: float | None
    recipe: Recipe = field(repr=False)
    why: str
    pair: PairVerdict | None = None
    notes: tuple[str, ...] = ()

    @property
    def array(self) -> ImageArray:
        """A copy of the pixels, (height, width, 3) uint8 RGB, with watermark and label.

        What tells of origin beside the pixels is in files only: save with `save`.
        """
        return self.marked.pixels.copy()

    def save(
        self, path: str | PathLike[str], overwrite: bool = True, recipe: str | None = None
    ) -> Path:
        """Write the marked picture whole or not at all; .png, .jpg or .webp by the name.

        Args:
            path: where to.
            overwrite: whether a file that is there may be replaced.
            recipe: who may read the recipe in the file: "sealed" (this installation), "open"
                (everybody) or "none"; None is what the settings say.

        Raises:
            InvalidInput: another ending, or another word for `recipe`.
            OutputNotWritten: missing folder, full disk, not allowed; nothing partial is left.
        """
        return self.marked.save(path, overwrite, recipe)

    def to_bytes(self, suffix: str = ".png", recipe: str | None = None) -> bytes:
        """The marked picture as the bytes of a file; arguments as for `save`."""
        return self.marked.to_bytes(suffix, recipe)


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
        guard: the do-not-generate list and who is told of weakened checks; None is that of the
            data folder.

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
        guard: Guard | None = None,
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
        self._guard = guard
        self._verifier: Verifier | None = None

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
        reports = check_photos(photos, detector, encoder, self.settings, choose)
        return tuple(
            _with_origin(report, self.origin(photo))
            for report, photo in zip(reports, photos, strict=True)
        )

    def identity(
        self,
        photos: Sequence[PhotoSource],
        choose: Mapping[int, int] | None = None,
    ) -> IdentityHandle:
        """Make one person out of one to five selfies. Arguments as for `check`.

        Raises:
            InvalidInput: no photo or too many, an unreadable one, none with a usable face, several
                faces, or several people; each has its own class in `imagine.errors`.
            EnrolmentRefused: a photo was made by this program or says AI made it, or the person
                asked never to be shown; its `code` says which.
        """
        _refuse_a_single(photos)
        detector, encoder = self.faces
        if photos:
            refuse_machine_made(photos, self.origin)
        person = build_identity(photos, detector, encoder, self.settings, choose)
        listed = NearestListed(self._guarded().protected, encoder.name, encoder.distance)
        listed.check_ready()
        limit = encoder.same_person_distance
        refuse_listed(listed(person.embedding), limit, EnrolmentPolicy())
        return IdentityHandle(person)

    def origin(self, photo: PhotoSource) -> Origin:
        """Whether a photo says that a machine made it; unreadable ones say nothing."""
        if self._verifier is None:
            self._verifier = open_verifier(self.settings.data_directory / MARKS_FOLDER)
        try:
            found = photo_origin(self._read(photo), self._verifier)
        except UnreadablePhoto:
            try:  # e.g. HEIC, which nobody marks but whose pixels may hold the watermark
                found = photo_origin(decode_photo(photo, None, self.settings), self._verifier)
            except UnreadablePhoto:
                return Origin.UNKNOWN  # refused with its own words when it is looked at
        return Origin(found)

    def _read(self, photo: PhotoSource) -> bytes | ImageArray:
        if isinstance(photo, bytes | bytearray | memoryview):
            return bytes(photo)
        if isinstance(photo, str | Path):
            path = Path(photo).expanduser()
            try:
                if path.is_file() and path.stat().st_size <= self.settings.max_photo_bytes:
                    return path.read_bytes()
            except (OSError, ValueError) as error:
                raise UnreadablePhoto(f"{path.name} could not be read. Check its path.") from error
        return decode_photo(photo, None, self.settings)

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
        aspect_ratio: str = SQUARE,
        keep: Sequence[str] = (),
        change: Mapping[str, str] | None = None,
        beside: Identity | IdentityHandle | None = None,
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
            aspect_ratio: width to height of the pictures, such as "3:4"; `info.sizes` has those
                the backend offers, with their pixels. Two people have one shape only.
            keep: traits that shall be as on the selfies, names of `imagine.traits.TRAITS`; where
                the selfies do not tell, `GeneratedImage.notes` says so and nothing is asked for.
            change: trait -> the value it shall have, such as {"glasses": "none"}; it beats what
                the prompt says of that trait.
            beside: a second person, who stands to the right of the first in every picture; traits
                are those of the first. Make sure that both agree to it.
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
        check_whole("n", n, 1, self.settings.max_images)
        check_whole("best_of", best_of, 1, MAX_BEST_OF)
        check_figure("likeness", likeness)
        if num_inference_steps is not None:
            check_figure("num_inference_steps", num_inference_steps)
        if guidance_scale is not None:
            check_figure("guidance_scale", guidance_scale)
        if guidance_interval is not None:
            check_interval(guidance_interval)
        shape_of(aspect_ratio)
        if seed is not None:
            check_figure("seed", seed)
        changes = check_traits(keep, change)
        other = None if beside is None else self._checked_identity(beside)
        info = self.info
        if other is not None:
            refuse_two(info)
        info.size_of(aspect_ratio, two=other is not None)
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
            keep=tuple(keep),
            change=changes,
            aspect_ratio=aspect_ratio,
        )
        withheld: list[str] = []

        def tell(candidate: Candidate, report: CheckReport) -> None:
            withheld.append(report.words)

        audience = _audience(on_progress, cancel, tell)
        pictures = make_pictures(wish, person, self.tools(), audience, other)
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
        aspect_ratio: str = SQUARE,
        keep: Sequence[str] = (),
        change: Mapping[str, str] | None = None,
        beside: Identity | IdentityHandle | None = None,
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
                aspect_ratio=aspect_ratio,
                keep=keep,
                change=change,
                beside=beside,
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
        *,
        beside: Identity | IdentityHandle | None = None,
    ) -> GeneratedImage:
        """Make a picture again from its recipe, or from a saved picture that carries one.

        On one CPU the pixels are the same bit for bit, for pictures that were made on a CPU.
        Another processor, thread count or library version may move values by a level or two of
        255; a GPU does not draw the same bits in batches of different size.

        Raises:
            InvalidInput: the recipe needs other selfies, another backend or other weights.
        """
        marks = self.settings.data_directory / MARKS_FOLDER
        facts = recipe if isinstance(recipe, Recipe) else read_recipe(recipe, marks)
        person = self._checked_identity(identity)
        other = None if beside is None else self._checked_identity(beside)
        self._check_replayable(facts, person, other)
        wish = Wish(
            prompt=facts.prompt,
            seed=facts.seed,
            count=1,
            num_inference_steps=facts.num_inference_steps,
            guidance_scale=float(facts.guidance_scale),
            likeness=float(facts.likeness),
            guidance_interval=(float(facts.guidance_from), float(facts.guidance_until)),
            record=facts.record,
            change=parse_traits(facts.traits),
            aspect_ratio=facts.aspect_ratio,
        )
        audience = _audience(on_progress, cancel)
        return _generated(make_pictures(wish, person, self.tools(), audience, other)[0])

    def _check_replayable(self, recipe: Recipe, person: Identity, beside: Identity | None) -> None:
        if recipe.identity_fingerprint != person.fingerprint:
            raise InvalidInput(
                "This picture was made from other selfies (identity "
                f"{recipe.identity_fingerprint[:12]}, these are {person.fingerprint[:12]}). "
                "Give the same photos in the same order."
            )
        given = fingerprint(beside.crops) if beside else ""
        if recipe.beside_fingerprint != given:
            wanted = recipe.beside_fingerprint[:12] or "nobody"
            raise InvalidInput(
                f"This picture was made with {wanted} beside the person, and here is "
                f"{given[:12] or 'nobody'}. "
                "Give the same photos of the second person, or none."
            )
        if recipe.backend != self._names[0]:
            raise InvalidInput(
                f"This picture was made by the backend {recipe.backend!r}, not "
                f"{self._names[0]!r}. Choose that backend."
            )
        check_figure("num_inference_steps", recipe.num_inference_steps)
        check_figure("guidance_scale", recipe.guidance_scale)
        check_figure("likeness", recipe.likeness)
        check_interval((recipe.guidance_from, recipe.guidance_until))
        check_figure("seed", recipe.seed)
        shape_of(recipe.aspect_ratio)
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
            if self._checks is None:
                guard = self._guarded()
                listed = NearestListed(guard.protected, encoder.name, encoder.distance)
                chosen = chosen_checks(self.settings)
                self._checks = usual_checks(detector, encoder, chosen, listed, guard.record_event)
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
                self._marking = make_marking(
                    self.settings, self._records.append, policy_in_force(self.settings).sha256
                )
        return self._marking(image, recipe)

    @cached_property
    def _records(self) -> LocalRecords:
        return LocalRecords(self.settings)

    def guard_with(self, guard: Guard) -> None:
        """Use another list and log than those of the data folder; before the first picture."""
        with self._loading:
            self._guard, self._checks = guard, None

    def _guarded(self) -> Guard:
        if self._guard is None:
            records = self._records
            self._guard = Guard(records, records.record_event)
        return self._guard

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


@dataclass(frozen=True, slots=True)
class Guard:
    """What an installation knows that its checks need.

    Attributes:
        protected: people who asked never to be shown.
        record_event: takes what the operator weakened to the audit log.
    """

    protected: Protected
    record_event: RecordEvent


class LocalRecords:
    """Audit log and do-not-generate list in the data folder of the settings.

    The log is begun with the first entry. The list is only looked for: where nothing was kept yet
    it is empty, and then neither a database nor a key is made for it.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._log: AuditLog | None = None
        self._people: ProtectedPeople | None = None

    def append(self, kind: str, facts: Mapping[str, object]) -> int:
        """Write an entry and return its number.

        Raises:
            StorageError: the audit log cannot be used.
        """
        return self._opened_log().append(kind, None, facts, "imagine").sequence

    def record_event(self, kind: str, facts: Mapping[str, object]) -> None:
        """As `append`, with facts made fit for the log, for who does not ask for the number."""
        self.append(kind, {name: as_word(fact) for name, fact in facts.items()})

    def embeddings(self, recogniser: str) -> Sequence[FloatArray]:
        """See `Protected`."""
        return self._opened_people().embeddings(recogniser) if self._may_hold_people() else ()

    def counts(self) -> Mapping[str, int]:
        """See `Protected`."""
        return self._opened_people().counts() if self._may_hold_people() else {}

    def _may_hold_people(self) -> bool:
        if self.settings.database_url:
            return True
        return (self.settings.data_directory / "imagine.db").exists()

    # What follows is heavy to import, and not needed before the first picture is finished.

    def _opened_log(self) -> AuditLog:
        with self._lock:
            if self._log is None:
                from imagine.storage.audit_log import AuditLog
                from imagine.storage.checkpoints import KEY_FILE_NAME, SigningKey

                place = self.settings.secrets_directory / KEY_FILE_NAME
                signing = SigningKey.load_or_create(place)
                self._log = AuditLog(self._database, signing, _NobodysKeys())
            return self._log

    def _opened_people(self) -> ProtectedPeople:
        with self._lock:
            if self._people is None:
                from imagine.storage.blobs import open_blobs
                from imagine.storage.keys import DataKeys, load_master_key
                from imagine.storage.protected import ProtectedPeople

                def keys() -> DataKeys:
                    store = open_blobs(self.settings.key_store_place)
                    return DataKeys(store, load_master_key(self.settings.master_key_source))

                self._people = ProtectedPeople(self._database, keys, _nobody_told)
            return self._people

    @cached_property
    def _database(self) -> Database:
        from imagine.storage.database import open_database
        from imagine.storage.migrations import upgrade

        database = open_database(self.settings.database_place)
        upgrade(database)
        return database


def _nobody_told(
    kind: str, subject: str | None, details: Mapping[str, object], *, tenant_id: str, actor: str
) -> None:
    """The Python door reads the list and never changes it."""


class _NobodysKeys:
    """Pictures of the Python door are logged without saying whose they are."""

    def commitment_key(self, tenant_id: str, subject: str) -> bytes:
        raise InvalidInput(f"Nobody is named in this log, and {len(subject)} characters were.")


def _with_origin(report: PhotoReport, origin: Origin) -> PhotoReport:
    """The report of a photo, refused if a machine made it."""
    refusal = machine_made(origin)
    if refusal is None:
        return report
    code, words = refusal
    said = report.sentences if report.codes else ()
    return replace(
        report,
        verdict=PhotoVerdict.REFUSE,
        sentences=(f"This photo {words}", *said),
        codes=(code, *report.codes),
    )


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
        pair=picture.pair,
        notes=picture.notes,
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

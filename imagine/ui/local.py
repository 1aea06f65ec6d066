"""A studio in this process, for whoever sits at this machine; everything is in memory only.

Photos, person and pictures are held by one `LocalStudio` and by nothing else. They are overwritten
or dropped when the person says so, when the session ends and when the program ends. Nothing is
written to disk.
"""

from __future__ import annotations

import asyncio
import io
import logging
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from PIL import Image

from imagine.api import MAX_BEST_OF, SEED_LIMIT
from imagine.core import Identity, PhotoReport
from imagine.engine import Engine, Priority, Ticket
from imagine.engine.limits import MAX_GUIDANCE, MAX_STEPS
from imagine.errors import (
    Busy,
    Cancelled,
    ConsentMissing,
    GenerationFailed,
    ImagineError,
    InvalidInput,
    NotMarked,
    NotStored,
    UnreadablePhoto,
)
from imagine.identity import decode_photo, wipe
from imagine.pipeline import Picture, Tools, Wish, make_pictures
from imagine.provenance import MARKS_FOLDER, mark_image, open_verifier
from imagine.safety import allow_prompt
from imagine.service.loaded_models import LoadedModels
from imagine.service.settings import ServiceSettings
from imagine.settings import Settings
from imagine.ui.origin import find_recipe
from imagine.ui.studio import (
    Consent,
    Moment,
    OpenWish,
    Origin,
    Person,
    PhotoCard,
    PictureCard,
    Stage,
    StudioLimits,
)

if TYPE_CHECKING:
    from imagine.backends.base import Backend
    from imagine.core import Request

logger = logging.getLogger(__name__)

PREVIEW_SECONDS = 0.5
MAX_PICTURES = 400  # of one session; the oldest without a star make room
_KEPT_PREVIEWS = 4
_THUMBNAIL_PIXELS = 640
_POLL_SECONDS = 0.1


class LocalStudios:
    """Opens studios that share the models of this process.

    Args:
        backend: image model, a name in `imagine.backends.BACKENDS`.
        detector: face detector, a name in `imagine.identity.FACE_DETECTORS`.
        encoder: face recogniser, a name in `imagine.identity.FACE_ENCODERS`.
        device: "cpu", "cuda", ...
        settings: paths and limits; None reads the environment.
        preview_seconds: least time between two previews of a picture.

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
        preview_seconds: float = PREVIEW_SECONDS,
    ) -> None:
        chosen = ServiceSettings(
            backend=backend,
            detector=detector,
            encoder=encoder,
            device=device,
            preview_seconds=preview_seconds,
        )
        self._settings = settings or Settings()
        self.models = LoadedModels(chosen, self._settings)

    def open(self) -> LocalStudio:
        """A studio with nothing in it."""
        return LocalStudio(self.models)

    def warm_up(self) -> None:
        """Open the models in the background, so that nobody waits for them at the first press.

        What goes wrong is told to whoever asks first, not here.
        """

        def load() -> None:
            try:
                self.models.load()
            except ImagineError as error:
                logger.warning("models are not open yet: %s", error)

        threading.Thread(target=load, name="imagine-warm-up", daemon=True).start()

    def verify(self, data: bytes, name: str) -> Origin:
        """As `Studios.verify`."""
        verifier = open_verifier(self._settings.data_directory / MARKS_FOLDER)
        return Origin(verifier.verify(data), find_recipe(data, name))

    def close(self) -> None:
        """End the engine."""
        self.models.close()


@dataclass(eq=False)
class _Photo:
    """A photo as it was given; `data` never leaves this object."""

    card: PhotoCard
    data: bytes = field(repr=False)
    thumbnail: bytes = field(repr=False)
    face: int | None = None


@dataclass(eq=False)
class _Kept:
    card: PictureCard
    picture: Picture = field(repr=False)


class LocalStudio:
    """One person's photos, identity and pictures, in memory. Satisfies `Studio`."""

    def __init__(self, models: LoadedModels) -> None:
        self._models = models
        self._lock = threading.RLock()
        self._photos: dict[str, _Photo] = {}
        self._identity: Identity | None = None
        self._person: Person | None = None
        self._kept: dict[str, _Kept] = {}
        self._drawing: _Drawing | None = None

    @property
    def limits(self) -> StudioLimits:
        """As `Studio.limits`."""
        settings = self._models.settings
        return StudioLimits(
            max_photos=settings.max_photos,
            max_photo_bytes=settings.max_photo_bytes,
            max_prompt_characters=settings.max_prompt_characters,
            max_images=settings.max_images,
            max_steps=MAX_STEPS,
            max_guidance=MAX_GUIDANCE,
            max_best_of=MAX_BEST_OF,
        )

    def add_photo(self, data: bytes, name: str, replaces: str | None = None) -> PhotoCard:
        """As `Studio.add_photo`."""
        with self._lock:
            if replaces is not None:
                self._photo(replaces)
            self._refuse_too_many(replaces)
            name = self._unlike_others(name)
        thumbnail = _thumbnail(data, name, self._models.settings)
        report = self._judged([data], {}, [name])[0]
        card = PhotoCard(secrets.token_urlsafe(12), report, has_thumbnail=bool(thumbnail))
        with self._lock:
            self._refuse_too_many(replaces)  # two may have come at the same time
            photo = _Photo(card, data, thumbnail)
            if replaces in self._photos:
                order = [photo if key == replaces else old for key, old in self._photos.items()]
                self._photos = {each.card.id: each for each in order}
            else:
                self._photos[card.id] = photo
            self._uncompared()
        return card

    def compare_photos(self) -> tuple[PhotoCard, ...]:
        """As `Studio.compare_photos`; two photos or more are needed to compare anything."""
        with self._lock:
            photos = list(self._photos.values())
            faces = {i: photo.face for i, photo in enumerate(photos) if photo.face is not None}
        if len(photos) < 2:
            return self.photos()
        names = [photo.card.report.name for photo in photos]
        reports = self._judged([photo.data for photo in photos], faces, names)
        with self._lock:
            if list(self._photos.values()) == photos:  # else somebody asks again
                for photo, report in zip(photos, reports, strict=True):
                    photo.card = replace(photo.card, report=report, is_compared=True)
        return self.photos()

    def choose_face(self, photo_id: str, face: int) -> PhotoCard:
        """As `Studio.choose_face`."""
        with self._lock:
            photo = self._photo(photo_id)
        name = photo.card.report.name
        report = self._judged([photo.data], {0: face}, [name])[0]
        with self._lock:
            photo.face = face
            photo.card = replace(photo.card, report=report)
            self._uncompared()
            return photo.card

    def remove_photo(self, photo_id: str) -> None:
        """As `Studio.remove_photo`."""
        with self._lock:
            self._photo(photo_id)
            del self._photos[photo_id]
            self._uncompared()

    def photos(self) -> tuple[PhotoCard, ...]:
        """As `Studio.photos`."""
        with self._lock:
            return tuple(photo.card for photo in self._photos.values())

    def photo(self, photo_id: str) -> bytes:
        """As `Studio.photo`."""
        with self._lock:
            photo = self._photo(photo_id)
            if not photo.thumbnail:
                raise NotStored("There is nothing to show of this photo.")
            return photo.thumbnail

    def enrol(self, name: str, consent: Consent) -> Person:
        """As `Studio.enrol`; photos that were refused take no part."""
        if not consent.statements:
            raise ConsentMissing("Nothing was agreed to. Tick the boxes first.")
        self.compare_photos()
        with self._lock:
            usable = [photo for photo in self._photos.values() if photo.card.is_usable]
            faces = {i: photo.face for i, photo in enumerate(usable) if photo.face is not None}
        if not usable:
            raise InvalidInput("There is no photo that can be used yet. Add one first.")
        made = self._models.make_identity([photo.data for photo in usable], faces)
        person = Person(name.strip()[:60], made.photo_count, consent)
        with self._lock:
            self._end_drawing()
            if self._identity is not None:
                wipe(self._identity)
            self._identity, self._person = made, person
        return person

    def person(self) -> Person | None:
        """As `Studio.person`."""
        return self._person

    def forget(self) -> None:
        """As `Studio.forget`; what describes the person is overwritten with zeros."""
        with self._lock:
            self._end_drawing()
            self._drawing = None
            if self._identity is not None:
                wipe(self._identity)
            for kept in self._kept.values():
                _black_out(kept.picture)
            self._identity = self._person = None
            self._photos.clear()
            self._kept.clear()

    def close(self) -> None:
        """As `Studio.close`."""
        self.forget()

    def draw(self, wish: OpenWish) -> None:
        """As `Studio.draw`."""
        _check(wish, self.limits)
        prompt = allow_prompt(wish.prompt, self._models.settings)
        with self._lock:
            if self._identity is None:
                raise ConsentMissing(
                    "There is nobody to draw yet. Add your photos on the first page."
                )
            if self._drawing is not None and not self._drawing.moment.is_final:
                raise Busy("Your last wish is still being drawn. Wait for it, or stop it.", 5.0)
            self._drawing = _Drawing(
                replace(wish, prompt=prompt), self._identity, self._models, self._keep
            )
            self._drawing.start()

    def drawing(self) -> Moment | None:
        """As `Studio.drawing`."""
        with self._lock:
            return self._drawing.moment if self._drawing is not None else None

    async def watch(self) -> AsyncIterator[Moment]:
        """As `Studio.watch`."""
        drawing, seen = self._drawing, None
        while drawing is not None:
            moment = drawing.moment
            if moment is not seen:
                seen = moment
                yield moment
            if moment.is_final:
                return
            await asyncio.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """As `Studio.stop`."""
        with self._lock:
            if self._drawing is not None:
                self._drawing.stop()

    def preview(self, preview_id: str) -> bytes:
        """As `Studio.preview`."""
        with self._lock:
            shown = self._drawing.shown if self._drawing is not None else {}
        if preview_id not in shown:
            raise NotStored("This preview is gone; a newer one is shown.")
        return shown[preview_id]

    def pictures(self) -> tuple[PictureCard, ...]:
        """As `Studio.pictures`."""
        with self._lock:
            return tuple(kept.card for kept in reversed(self._kept.values()))

    def picture(self, picture_id: str, suffix: str = ".png") -> bytes:
        """As `Studio.picture`."""
        with self._lock:
            marked = self._picture(picture_id).picture.marked
        return marked.to_bytes(suffix)

    def star(self, picture_id: str, starred: bool) -> PictureCard:
        """As `Studio.star`."""
        with self._lock:
            kept = self._picture(picture_id)
            kept.card = replace(kept.card, is_starred=starred)
            return kept.card

    def delete_picture(self, picture_id: str) -> None:
        """As `Studio.delete_picture`."""
        with self._lock:
            _black_out(self._picture(picture_id).picture)
            del self._kept[picture_id]
            if self._drawing is not None:
                self._drawing.drop(picture_id)

    def _judged(
        self, data: Sequence[bytes], faces: Mapping[int, int], names: Sequence[str]
    ) -> list[PhotoReport]:
        """Reports that call the photos by their own names."""
        reports = self._models.check_photos(list(data), dict(faces))
        aliases = {report.name: name for report, name in zip(reports, names, strict=True)}
        return [_renamed(report, aliases) for report in reports]

    def _keep(self, picture: Picture) -> PictureCard:
        height, width = picture.marked.pixels.shape[:2]
        card = PictureCard(
            id=secrets.token_urlsafe(12),
            recipe=picture.recipe,
            verdict=picture.verdict,
            why=picture.why,
            is_starred=False,
            width=width,
            height=height,
        )
        with self._lock:
            if self._identity is None:
                raise Cancelled("Everything was forgotten meanwhile; nothing was kept.")
            self._kept[card.id] = _Kept(card, picture)
            loose = [key for key, kept in self._kept.items() if not kept.card.is_starred]
            for key in loose[: max(0, len(self._kept) - MAX_PICTURES)]:
                self.delete_picture(key)
        return card

    def _end_drawing(self) -> None:
        if self._drawing is not None:
            self._drawing.stop()

    def _uncompared(self) -> None:
        for photo in self._photos.values():
            photo.card = replace(photo.card, is_compared=False)

    def _unlike_others(self, name: str) -> str:
        """Two phones may call their photos the same; sentences about them must not."""
        taken = {photo.card.report.name for photo in self._photos.values()}
        numbered = (f"{name} ({number})" for number in range(2, 100))
        return name if name not in taken else next(n for n in numbered if n not in taken)

    def _refuse_too_many(self, replaces: str | None) -> None:
        most = self._models.settings.max_photos
        if replaces is None and len(self._photos) >= most:
            raise InvalidInput(
                f"There are {most} photos already, which is as many as are used. "
                "Remove one to make room."
            )

    def _photo(self, photo_id: str) -> _Photo:
        if photo_id not in self._photos:
            raise NotStored("This photo is not here any more.")
        return self._photos[photo_id]

    def _picture(self, picture_id: str) -> _Kept:
        if picture_id not in self._kept:
            raise NotStored("This picture is not here any more.")
        return self._kept[picture_id]


class _Drawing:
    """One wish on its way, in a thread of its own; `moment` is always whole."""

    def __init__(
        self,
        wish: OpenWish,
        person: Identity,
        models: LoadedModels,
        keep: Callable[[Picture], PictureCard],
    ) -> None:
        self.moment = Moment(Stage.WAITING, wish.count)
        self.shown: dict[str, bytes] = {}  # the newest previews; a page may ask a moment later
        self._wish = wish
        # A copy: forgetting overwrites the person's arrays while the engine may still be reading.
        self._person = replace(
            person,
            crops=person.crops.copy(),
            embeddings=person.embeddings.copy(),
            embedding=person.embedding.copy(),
        )
        self._models = models
        self._keep = keep
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._began: float | None = None

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="imagine-drawing", daemon=True).start()

    def stop(self) -> None:
        """End before the next step."""
        self._stop.set()

    def drop(self, picture_id: str) -> None:
        """A finished picture was deleted."""
        with self._lock:
            left = tuple(card for card in self.moment.pictures if card.id != picture_id)
            self.moment = replace(self.moment, pictures=left)

    def _run(self) -> None:
        try:
            self._draw()
            self._advance(stage=Stage.DONE, eta_seconds=0.0)
        except Cancelled:
            self._advance(stage=Stage.STOPPED)
        except ImagineError as error:
            self._advance(stage=Stage.FAILED, error=error)
        except Exception as error:
            # The cause may quote the wish; its kind is all that is logged.
            logger.error("a drawing failed with %s", type(error).__name__)
            failure = GenerationFailed("The picture could not be made. Try another seed.")
            self._advance(stage=Stage.FAILED, error=failure)
        finally:
            wipe(self._person)
            self.shown = {}

    def _draw(self) -> None:
        """Each picture for itself, so that it can be shown when it is finished."""
        tools = self._models.tools("local")
        wish = _complete(self._wish, tools)
        steps = wish.num_inference_steps * wish.best_of
        self._advance(num_steps=steps * wish.count)
        for index in range(wish.count):
            one = replace(wish, count=1, seed=(wish.seed + index * wish.best_of) % SEED_LIMIT)
            watched = _WatchedEngine(tools.engine)
            look = _Look(self, watched, index * steps)
            (picture,) = make_pictures(
                one,
                self._person,
                replace(tools, engine=cast("Engine", watched)),
                is_cancelled=look,
            )
            if self._stop.is_set():
                raise Cancelled("Stopped.")
            card = self._keep(picture)
            self._advance(
                pictures=(*self.moment.pictures, card), preview=None, step=(index + 1) * steps
            )

    def look(self, watched: _WatchedEngine, done_before: int) -> bool:
        """Publish how far the picture is; whether to stop. The pipeline asks before every step."""
        step, ahead, preview = watched.seen()
        step += done_before
        now = time.monotonic()
        if step and self._began is None:
            self._began = now
        moment = self.moment
        eta = None
        if self._began is not None and step:
            eta = (now - self._began) / step * (moment.num_steps - step)
        if preview is not None:
            key = secrets.token_urlsafe(12)
            kept = list(self.shown.items())[1 - _KEPT_PREVIEWS :]
            self.shown = {**dict(kept), key: preview}
            self._advance(preview=key)
        if (step, ahead) != (moment.step, moment.ahead) or moment.stage is Stage.WAITING:
            stage = Stage.DRAWING if step else Stage.WAITING
            self._advance(stage=stage, step=step, ahead=ahead, eta_seconds=eta)
        return self._stop.is_set()

    def _advance(self, **changes: object) -> None:
        with self._lock:
            self.moment = replace(self.moment, **changes)  # type: ignore[arg-type]


class _Look:
    """The question whether to stop, which also looks how far the picture is."""

    def __init__(self, drawing: _Drawing, watched: _WatchedEngine, done_before: int) -> None:
        self._drawing = drawing
        self._watched = watched
        self._done_before = done_before

    def __call__(self) -> bool:
        return self._drawing.look(self._watched, self._done_before)


class _WatchedEngine:
    """The engine with an eye on its tickets.

    Stands in for the engine in `make_pictures`, which asks it for nothing but these two.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tickets: list[Ticket] = []
        self._previews = 0

    @property
    def backend(self) -> Backend:
        return self._engine.backend

    def submit_all(
        self, requests: Sequence[Request], *, tenant: str, priority: Priority
    ) -> list[Ticket]:
        self._tickets = self._engine.submit_all(requests, tenant=tenant, priority=priority)
        return self._tickets

    def seen(self) -> tuple[int, int, bytes | None]:
        """Steps done, requests ahead, and a preview if there is a new one."""
        states = [ticket.status for ticket in self._tickets]
        if not states:
            return 0, 0, None
        newest = max(states, key=lambda state: state.previews)
        total = sum(state.previews for state in states)
        preview = None
        if newest.preview is not None and total > self._previews:
            self._previews = total
            try:
                preview = mark_image(newest.preview, None).to_bytes(".webp")
            except NotMarked:
                preview = None  # too small for the marks of today: then nobody sees it
        return sum(state.step for state in states), min(s.ahead for s in states), preview


def _check(wish: OpenWish, limits: StudioLimits) -> None:
    for name, value, low, high in (
        ("count", wish.count, 1, limits.max_images),
        ("best_of", wish.best_of, 1, limits.max_best_of),
        ("likeness", wish.likeness, 0.0, 1.0),
        ("seed", wish.seed, 0, SEED_LIMIT - 1),
        ("num_inference_steps", wish.num_inference_steps, 1, limits.max_steps),
        ("guidance_scale", wish.guidance_scale, 1.0, limits.max_guidance),
    ):
        if value is not None and not low <= value <= high:
            raise InvalidInput(f"{name} is {value}; it must be from {low:g} to {high:g}.")


def _complete(wish: OpenWish, tools: Tools) -> Wish:
    info = tools.backend.info
    return Wish(
        prompt=wish.prompt,
        seed=secrets.randbelow(2**32) if wish.seed is None else wish.seed,
        count=wish.count,
        num_inference_steps=wish.num_inference_steps or info.default_steps,
        guidance_scale=float(wish.guidance_scale or info.default_guidance_scale),
        likeness=float(wish.likeness),
        best_of=wish.best_of,
        guidance_interval=info.default_guidance_interval,
    )


def _renamed(report: PhotoReport, aliases: Mapping[str, str]) -> PhotoReport:
    """The same report about a photo by the name its owner knows."""
    sentences = report.sentences
    # Longest first, and through marks, so that no name is found inside another.
    marks = {alias: f"\0{i}\0" for i, alias in enumerate(sorted(aliases, key=len, reverse=True))}
    for alias, mark in marks.items():
        sentences = tuple(sentence.replace(alias, mark) for sentence in sentences)
    for alias, mark in marks.items():
        sentences = tuple(sentence.replace(mark, aliases[alias]) for sentence in sentences)
    return replace(report, name=aliases[report.name], sentences=sentences)


def _thumbnail(data: bytes, name: str, settings: Settings) -> bytes:
    """A small JPEG of the pixels alone; nothing where they cannot be read."""
    try:
        picture = Image.fromarray(decode_photo(data, name, settings))
    except UnreadablePhoto:
        return b""
    picture.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _black_out(picture: Picture) -> None:
    pixels = picture.marked.pixels
    if not pixels.flags.writeable:
        pixels.flags.writeable = True
    pixels.fill(0)

"""A studio in this process, for whoever sits at this machine; everything is in memory only.

Photos, person and pictures are held by one `LocalStudio` and by nothing else. They are overwritten
or dropped when the person says so, when the session ends and when the program ends. Nothing is
written to disk.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import secrets
import threading
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace

from imagine.api import MAX_BEST_OF, SEED_LIMIT
from imagine.core import REDRAWS, SQUARE, Identity, ImageArray, Recipe
from imagine.engine import Status
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
    PictureWithheld,
)
from imagine.identity import wipe
from imagine.pipeline import Audience, Picture, Progress, Tools, Wish, make_pictures
from imagine.provenance import (
    HASHES_FILE,
    MARKS_FOLDER,
    HashFile,
    mark_image,
    open_verifier,
)
from imagine.safety import allow_prompt
from imagine.safety.policy_set import weakened
from imagine.service.loaded_models import LoadedModels
from imagine.service.settings import ServiceSettings
from imagine.settings import Settings
from imagine.traits import check_traits
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
    check_figures,
)
from imagine.ui.styles import styles_of
from imagine.ui.tray import Tray

logger = logging.getLogger(__name__)

PREVIEW_SECONDS = 0.5
MAX_PEOPLE = 4
MAX_PICTURES = 400  # of one session; the oldest without a star make room
_KEPT_PREVIEWS = 4
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
        alone: bool = True,
    ) -> None:
        chosen = ServiceSettings(
            backend=backend,
            detector=detector,
            encoder=encoder,
            device=device,
            preview_seconds=preview_seconds,
        )
        self._settings = settings or Settings()
        self._alone = alone  # a recipe sealed here is nobody else's business
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
        marks = self._settings.data_directory / MARKS_FOLDER
        verifier = open_verifier(marks, weakened=weakened(self._settings))
        return Origin(verifier.verify(data), find_recipe(data, marks if self._alone else None))

    def close(self) -> None:
        """End the engine."""
        self.models.close()


@dataclass(eq=False)
class _Member:
    """Somebody with photos; a newcomer until there is a person and an identity."""

    tray: Tray
    identity: Identity | None = field(default=None, repr=False)
    person: Person | None = None

    def wipe(self) -> None:
        """Overwrite what describes the person and let go of the photos."""
        if self.identity is not None:
            wipe(self.identity)
        self.identity = self.person = None
        self.tray.clear()


@dataclass(eq=False)
class _Kept:
    card: PictureCard
    picture: Picture = field(repr=False)


class LocalStudio:
    """The photos, identities and pictures of one session, in memory. Satisfies `Studio`."""

    def __init__(self, models: LoadedModels) -> None:
        self._models = models
        self._lock = threading.RLock()
        self._members: dict[str, _Member] = {}  # everybody enrolled, by the person's id
        self._desk = self._newcomer()
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
            max_people=MAX_PEOPLE,
            # Nobody waits for the model to be opened; until then two may be asked for.
            draws_two=not self._models.is_loaded or self._models.info.draws_two,
            styles=styles_of(self._models.name),
            shapes=tuple(self._models.info.sizes) if self._models.is_loaded else (SQUARE,),
        )

    def add_photo(self, data: bytes, name: str, replaces: str | None = None) -> PhotoCard:
        """As `Studio.add_photo`."""
        return self._desk.tray.add(data, name, replaces)

    def compare_photos(self) -> tuple[PhotoCard, ...]:
        """As `Studio.compare_photos`; two photos or more are needed to compare anything."""
        return self._desk.tray.compare()

    def choose_face(self, photo_id: str, face: int) -> PhotoCard:
        """As `Studio.choose_face`."""
        return self._desk.tray.choose_face(photo_id, face)

    def remove_photo(self, photo_id: str) -> None:
        """As `Studio.remove_photo`."""
        self._desk.tray.remove(photo_id)

    def photos(self) -> tuple[PhotoCard, ...]:
        """As `Studio.photos`."""
        return self._desk.tray.cards()

    def photo(self, photo_id: str) -> bytes:
        """As `Studio.photo`, also of somebody who is not at the desk."""
        with self._lock:
            trays = [member.tray for member in (self._desk, *self._members.values())]
        for tray in trays:
            if any(card.id == photo_id for card in tray.cards()):
                return tray.thumbnail(photo_id)
        raise NotStored("This photo is not here any more.")

    def enrol(self, name: str, consent: Consent) -> Person:
        """As `Studio.enrol`; photos that were refused take no part."""
        if not consent.statements:
            raise ConsentMissing("Nothing was agreed to. Tick the boxes first.")
        desk = self._desk
        desk.tray.compare()
        photos, faces = desk.tray.usable()
        if not photos:
            raise InvalidInput("There is no photo that can be used yet. Add one first.")
        made = self._models.make_identity(photos, faces)
        with self._lock:
            before = desk.person
            if desk is not self._desk:
                wipe(made)
                raise NotStored("Somebody else is at the desk now; nobody was enrolled.")
            if before is None:
                self._refuse_too_many_people()
            self._end_drawing()
            if desk.identity is not None:
                wipe(desk.identity)
            number = before.id if before is not None else secrets.token_urlsafe(12)
            desk.person = Person(name.strip()[:60], made.photo_count, consent, number)
            desk.identity = made
            self._members[number] = desk
            return desk.person

    def person(self) -> Person | None:
        """As `Studio.person`."""
        return self._desk.person

    def people(self) -> tuple[Person, ...]:
        """As `Studio.people`."""
        with self._lock:
            return tuple(m.person for m in self._members.values() if m.person is not None)

    def add_person(self) -> None:
        """As `Studio.add_person`."""
        with self._lock:
            self._refuse_too_many_people()
            self._put_at_desk(self._newcomer())

    def choose_person(self, person_id: str) -> None:
        """As `Studio.choose_person`."""
        with self._lock:
            self._put_at_desk(self._member(person_id))

    def withdraw(self, person_id: str) -> None:
        """As `Studio.withdraw`; what describes the person is overwritten with zeros at once."""
        with self._lock:
            member = self._member(person_id)
            self._end_drawing()
            del self._members[person_id]
            member.wipe()
            if member is self._desk:
                self._desk = next(iter(self._members.values()), self._newcomer())

    def export(self) -> bytes:
        """As `Studio.export`; made in memory."""
        with self._lock:
            newcomer = [] if self._desk.person is not None else [self._desk]
            members = [*self._members.values(), *newcomer]
            kept = list(self._kept.values())
        return _export(members, kept)

    def forget(self) -> None:
        """As `Studio.forget`; what describes the people is overwritten with zeros."""
        with self._lock:
            records = [kept.picture.recipe.record for kept in self._kept.values()]
        self.close()
        self._forget_looks(*records)

    def close(self) -> None:
        """As `Studio.close`; downloaded pictures can still be recognised as made here."""
        with self._lock:
            self._end_drawing()
            self._drawing = None
            for member in (self._desk, *self._members.values()):
                member.wipe()
            for kept in self._kept.values():
                _black_out(kept.picture)
            self._members.clear()
            self._desk = self._newcomer()
            self._kept.clear()

    def draw(self, wish: OpenWish) -> None:
        """As `Studio.draw`."""
        check_figures(wish, self.limits)
        check_traits(wish.keep, wish.change)
        prompt = allow_prompt(wish.prompt, self._models.settings)
        with self._lock:
            left = self._identity_of(wish.person)
            right = self._identity_of(wish.beside) if wish.beside is not None else None
            if right is left:
                raise InvalidInput("The same person was chosen twice. Choose two people, or one.")
            if self._drawing is not None and not self._drawing.moment.is_final:
                raise Busy("Your last wish is still being drawn. Wait for it, or stop it.", 5.0)
            people = (left,) if right is None else (left, right)
            self._drawing = _Drawing(replace(wish, prompt=prompt), people, self._models, self._keep)
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

    def skip(self) -> None:
        """As `Studio.skip`."""
        with self._lock:
            if self._drawing is not None:
                self._drawing.skip()

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

    def recipe_of(self, record: int) -> Recipe | None:
        """As `Studio.recipe_of`."""
        with self._lock:
            for kept in self._kept.values():
                seal = kept.picture.marked.seal
                if seal is not None and seal.facts.record == record:
                    return kept.card.recipe
        return None

    def star(self, picture_id: str, starred: bool) -> PictureCard:
        """As `Studio.star`."""
        with self._lock:
            kept = self._picture(picture_id)
            kept.card = replace(kept.card, is_starred=starred)
            return kept.card

    def delete_picture(self, picture_id: str) -> None:
        """As `Studio.delete_picture`."""
        with self._lock:
            kept = self._picture(picture_id)
            _black_out(kept.picture)
            del self._kept[picture_id]
            if self._drawing is not None:
                self._drawing.drop(picture_id)
        self._forget_looks(kept.picture.recipe.record)

    def _forget_looks(self, *records: int) -> None:
        folder = self._models.settings.data_directory / MARKS_FOLDER
        HashFile(folder / HASHES_FILE).remove(*records)

    def report(self, picture_id: str, reason: str, details: str) -> str:
        """As `Studio.report`: nobody but the person at this machine could read it."""
        raise InvalidInput(
            "This program runs on your own computer and sends nothing anywhere, so nobody takes "
            "reports here. Tell whoever gave you the program; the recipe says what they need."
        )

    def _newcomer(self) -> _Member:
        judge = self._models.check_photos
        return _Member(Tray(lambda photos, faces: judge(photos, faces), self._models.settings))

    def _keep(self, drawing: _Drawing, picture: Picture) -> PictureCard:
        height, width = picture.marked.pixels.shape[:2]
        card = PictureCard(
            id=secrets.token_urlsafe(12),
            recipe=picture.recipe,
            verdict=picture.verdict,
            why=picture.why,
            is_starred=False,
            width=width,
            height=height,
            wish=drawing.wish,
            pair=picture.pair,
            notes=picture.notes,
        )
        with self._lock:
            if self._drawing is not drawing:
                raise Cancelled("Everything was forgotten meanwhile; nothing was kept.")
            self._kept[card.id] = _Kept(card, picture)
            loose = [key for key, kept in self._kept.items() if not kept.card.is_starred]
            for key in loose[: max(0, len(self._kept) - MAX_PICTURES)]:
                self.delete_picture(key)
        return card

    def _end_drawing(self) -> None:
        if self._drawing is not None:
            self._drawing.stop()

    def _refuse_too_many_people(self) -> None:
        if len(self._members) >= MAX_PEOPLE:
            raise InvalidInput(
                f"There are {MAX_PEOPLE} people already. End the agreement of one to make room."
            )

    def _put_at_desk(self, member: _Member) -> None:
        """Whoever sat there and was not enrolled is forgotten."""
        if self._desk.person is None:
            self._desk.wipe()
        self._desk = member

    def _member(self, person_id: str) -> _Member:
        if person_id not in self._members:
            raise NotStored("This person is not here any more.")
        return self._members[person_id]

    def _identity_of(self, person_id: str | None) -> Identity:
        """Of a person by id; None is whoever is at the desk."""
        member = self._desk if person_id is None else self._member(person_id)
        if member.identity is None:
            raise ConsentMissing("There is nobody to draw yet. Add your photos on the first page.")
        return member.identity

    def _picture(self, picture_id: str) -> _Kept:
        if picture_id not in self._kept:
            raise NotStored("This picture is not here any more.")
        return self._kept[picture_id]


class _Drawing:
    """One wish on its way, in a thread of its own; `moment` is always whole."""

    def __init__(
        self,
        wish: OpenWish,
        people: Sequence[Identity],
        models: LoadedModels,
        keep: Callable[[_Drawing, Picture], PictureCard],
    ) -> None:
        self.moment = Moment(Stage.WAITING, wish.count)
        self.shown: dict[str, bytes] = {}  # the newest previews; a page may ask a moment later
        self.wish = wish
        # Copies: forgetting overwrites people's arrays while the engine may still be reading.
        self._people = [_copy(identity) for identity in people]
        self._models = models
        self._keep = keep
        self._stop = threading.Event()
        self._skip = threading.Event()
        self._lock = threading.Lock()
        self._began: float | None = None
        self._given_up = 0  # steps of skipped pictures, which nobody drew
        self._newest: tuple[int, int] = (0, 0)  # number of a candidate and its preview

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="imagine-drawing", daemon=True).start()

    def stop(self) -> None:
        """End before the next step."""
        self._stop.set()

    def skip(self) -> None:
        """Give up the picture being drawn before its next step."""
        if not self.moment.is_final:
            self._skip.set()

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
            for identity in self._people:
                wipe(identity)
            self.shown = {}

    def _draw(self) -> None:
        """Each picture for itself, so that it can be shown when it is finished."""
        tools = self._models.tools("local")
        wish = _complete(self.wish, tools)
        steps = wish.num_inference_steps * wish.best_of
        self._advance(num_steps=steps * wish.count)
        refused: PictureWithheld | None = None
        for index in range(wish.count):
            one = replace(wish, count=1, seed=(wish.seed + index * wish.best_of) % SEED_LIMIT)
            done, left = self.moment.step, steps * (wish.count - index - 1)
            self._newest = (0, 0)
            try:
                (picture,) = self._make(one, tools, done, left)
                self._end_if_stopped()
                card = self._keep(self, picture)
                self._advance(pictures=(*self.moment.pictures, card))
            except Cancelled:
                self._end_if_stopped()
                self._advance(skipped=self.moment.skipped + 1)
                self._given_up += steps - (self.moment.step - done)
            except PictureWithheld as error:
                refused = error
                self._advance(withheld=self.moment.withheld + 1)
            self._skip.clear()
            self._advance(preview=None, step=self.moment.num_steps - left)
        if refused is not None and not self.moment.pictures:
            raise refused

    def _make(self, wish: Wish, tools: Tools, done: int, left: int) -> list[Picture]:
        """One picture; `done` steps came before it and `left` come after it."""
        audience = Audience(
            progress=lambda progress: self._hear_progress(progress, done, left),
            is_cancelled=lambda: self._stop.is_set() or self._skip.is_set(),
            status=self._hear_status,
        )
        person, beside = self._people[0], self._people[1] if len(self._people) > 1 else None
        return make_pictures(wish, person, tools, audience, beside)

    def _end_if_stopped(self) -> None:
        if self._stop.is_set():
            raise Cancelled("Stopped.")

    def _hear_progress(self, progress: Progress, done: int, left: int) -> None:
        now = time.monotonic()
        if self._began is None:
            self._began = now - progress.elapsed_seconds
        step, num_steps = done + progress.step, done + progress.num_steps + left
        eta = (now - self._began) / (step - self._given_up) * (num_steps - step)
        self._advance(stage=Stage.DRAWING, ahead=0, step=step, num_steps=num_steps, eta_seconds=eta)

    def _hear_status(self, number: int, status: Status) -> None:
        if status.ahead != self.moment.ahead and status.step == 0:
            self._advance(ahead=status.ahead)
        if status.preview is None or (number, status.previews) == self._newest:
            return
        self._newest = (number, status.previews)
        preview = _marked_preview(status.preview)
        if preview:
            key = secrets.token_urlsafe(12)
            kept = list(self.shown.items())[1 - _KEPT_PREVIEWS :]
            self.shown = {**dict(kept), key: preview}
            self._advance(preview=key)

    def _advance(self, **changes: object) -> None:
        with self._lock:
            self.moment = replace(self.moment, **changes)  # type: ignore[arg-type]


def _copy(identity: Identity) -> Identity:
    return replace(
        identity,
        crops=identity.crops.copy(),
        embeddings=identity.embeddings.copy(),
        embedding=identity.embedding.copy(),
    )


def _marked_preview(pixels: ImageArray) -> bytes:
    """A preview with its mark; nothing for one too small to carry it, then nobody sees it."""
    try:
        return mark_image(pixels, None).to_bytes(".webp")
    except NotMarked:
        return b""


def _export(members: Iterable[_Member], kept: Sequence[_Kept]) -> bytes:
    """A zip of photos as they were given, marked pictures, agreements and recipes."""
    buffer, people = io.BytesIO(), []
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for number, member in enumerate(members, 1):
            photos = []
            for place, (card, data) in enumerate(member.tray.files(), 1):
                report = card.report
                file = f"photos/person-{number}/{place}-{_safe_name(report.name)}"
                archive.writestr(file, data)
                photos.append({"file": file, "verdict": report.verdict, "says": report.sentences})
            person = member.person
            consent = asdict(person.consent) if person is not None else None
            name = person.name if person is not None else ""
            people.append({"name": name, "agreement": consent, "photos": photos})
        pictures = []
        for number, each in enumerate(kept, 1):
            file = f"pictures/{number:03d}-seed-{each.card.recipe.seed}.png"
            archive.writestr(file, each.picture.marked.to_bytes(".png"))
            facts = {"recipe": asdict(each.card.recipe), "likeness": asdict(each.card.verdict)}
            pictures.append({"file": file, "is_starred": each.card.is_starred, **facts})
        lists: dict[str, object] = {"people.json": people, "pictures.json": pictures}
        for file, content in lists.items():
            text = json.dumps(content, indent=2, ensure_ascii=False, default=str)
            archive.writestr(file, text, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _safe_name(name: str) -> str:
    """A file name for any system."""
    return "".join(c if c.isalnum() or c in " ._-()" else "_" for c in name).strip(" .") or "photo"


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
        redraws=REDRAWS,
        keep=wish.keep,
        change=wish.change,
        aspect_ratio=wish.aspect_ratio,
    )


def _black_out(picture: Picture) -> None:
    pixels = picture.marked.pixels
    if not pixels.flags.writeable:
        pixels.flags.writeable = True
    pixels.fill(0)

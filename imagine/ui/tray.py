"""Photos somebody gave and has not agreed to yet: judged, shown small, and held in memory only."""

from __future__ import annotations

import io
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from PIL import Image

from imagine.core import PhotoReport
from imagine.errors import InvalidInput, NotStored, UnreadablePhoto
from imagine.identity import decode_photo
from imagine.settings import Settings
from imagine.ui.studio import PhotoCard

# photos, and which face is meant in which of them -> one report each
Judge = Callable[[list[bytes], dict[int, int]], Sequence[PhotoReport]]

_THUMBNAIL_PIXELS = 640


@dataclass(eq=False)
class _Photo:
    card: PhotoCard
    data: bytes = field(repr=False)
    thumbnail: bytes = field(repr=False)
    face: int | None = None


class Tray:
    """The photos of one visitor. Safe to use from several threads.

    Args:
        judge: says what to think of photos.
        settings: limits.
    """

    def __init__(self, judge: Judge, settings: Settings) -> None:
        self._judge = judge
        self._settings = settings
        self._lock = threading.RLock()
        self._photos: dict[str, _Photo] = {}

    def add(self, data: bytes, name: str, replaces: str | None = None) -> PhotoCard:
        """As `Studio.add_photo`."""
        with self._lock:
            if replaces is not None:
                self._photo(replaces)
            self._refuse_too_many(replaces)
            name = self._unlike_others(name)
        thumbnail = _thumbnail(data, name, self._settings)
        report = self._judged([data], {}, [name])[0]
        card = PhotoCard(secrets.token_urlsafe(12), report, has_thumbnail=bool(thumbnail))
        photo = _Photo(card, data, thumbnail)
        with self._lock:
            self._refuse_too_many(replaces)  # two may have come at the same time
            if replaces in self._photos:
                order = [photo if key == replaces else old for key, old in self._photos.items()]
                self._photos = {each.card.id: each for each in order}
            else:
                self._photos[card.id] = photo
            self._uncompared()
        return card

    def compare(self) -> tuple[PhotoCard, ...]:
        """As `Studio.compare_photos`."""
        with self._lock:
            photos = list(self._photos.values())
            faces = {i: photo.face for i, photo in enumerate(photos) if photo.face is not None}
        if len(photos) < 2:
            return self.cards()
        names = [photo.card.report.name for photo in photos]
        reports = self._judged([photo.data for photo in photos], faces, names)
        with self._lock:
            if list(self._photos.values()) == photos:  # else somebody asks again
                for photo, report in zip(photos, reports, strict=True):
                    photo.card = replace(photo.card, report=report, is_compared=True)
        return self.cards()

    def choose_face(self, photo_id: str, face: int) -> PhotoCard:
        """As `Studio.choose_face`."""
        with self._lock:
            photo = self._photo(photo_id)
        report = self._judged([photo.data], {0: face}, [photo.card.report.name])[0]
        with self._lock:
            photo.face = face
            photo.card = replace(photo.card, report=report)
            self._uncompared()
            return photo.card

    def remove(self, photo_id: str) -> None:
        """As `Studio.remove_photo`."""
        with self._lock:
            self._photo(photo_id)
            del self._photos[photo_id]
            self._uncompared()

    def cards(self) -> tuple[PhotoCard, ...]:
        """As `Studio.photos`."""
        with self._lock:
            return tuple(photo.card for photo in self._photos.values())

    def thumbnail(self, photo_id: str) -> bytes:
        """As `Studio.photo`."""
        with self._lock:
            thumbnail = self._photo(photo_id).thumbnail
        if not thumbnail:
            raise NotStored("There is nothing to show of this photo.")
        return thumbnail

    def usable(self) -> tuple[list[bytes], dict[int, int]]:
        """The files that can be used, and which face is meant in which of them."""
        with self._lock:
            usable = [photo for photo in self._photos.values() if photo.card.is_usable]
            faces = {i: photo.face for i, photo in enumerate(usable) if photo.face is not None}
        return [photo.data for photo in usable], faces

    def files(self) -> tuple[tuple[PhotoCard, bytes], ...]:
        """Every photo as it was given."""
        with self._lock:
            return tuple((photo.card, photo.data) for photo in self._photos.values())

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._photos.clear()

    def _judged(
        self, data: Sequence[bytes], faces: Mapping[int, int], names: Sequence[str]
    ) -> list[PhotoReport]:
        """Reports that call the photos by their own names."""
        reports = self._judge(list(data), dict(faces))
        aliases = {report.name: name for report, name in zip(reports, names, strict=True)}
        return [_renamed(report, aliases) for report in reports]

    def _uncompared(self) -> None:
        for photo in self._photos.values():
            photo.card = replace(photo.card, is_compared=False)

    def _unlike_others(self, name: str) -> str:
        """Two phones may call their photos the same; sentences about them must not."""
        taken = {photo.card.report.name for photo in self._photos.values()}
        numbered = (f"{name} ({number})" for number in range(2, 100))
        return name if name not in taken else next(n for n in numbered if n not in taken)

    def _refuse_too_many(self, replaces: str | None) -> None:
        most = self._settings.max_photos
        if replaces is None and len(self._photos) >= most:
            raise InvalidInput(
                f"There are {most} photos already, which is as many as are used. "
                "Remove one to make room."
            )

    def _photo(self, photo_id: str) -> _Photo:
        if photo_id not in self._photos:
            raise NotStored("This photo is not here any more.")
        return self._photos[photo_id]


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

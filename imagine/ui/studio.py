"""The seam between the pages and whoever does the work: one `Studio` per person at the page.

The pages know nothing else. `imagine.ui.local` satisfies it in this process; a service of many
users satisfies it with its client. Bytes that leave a studio may be shown as they are: photos
without metadata, pictures with their marks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable

from imagine.core import LikenessVerdict, PhotoReport, PhotoVerdict, Recipe
from imagine.errors import ImagineError
from imagine.provenance import ProvenanceReport


@dataclass(frozen=True, slots=True)
class StudioLimits:
    """How much is accepted.

    Attributes:
        max_photos: photos of one person.
        max_photo_bytes: of one file.
        max_prompt_characters: of a wish.
        max_images: pictures of one wish.
        max_steps: denoising steps of a picture.
        max_guidance: text guidance.
        max_best_of: candidates for one picture.
    """

    max_photos: int
    max_photo_bytes: int
    max_prompt_characters: int
    max_images: int
    max_steps: int
    max_guidance: float
    max_best_of: int


@dataclass(frozen=True, slots=True)
class PhotoCard:
    """A photo somebody gave, and what we think of it.

    Attributes:
        id: names it in this studio; unguessable.
        report: the verdict and advice.
        is_compared: whether it was compared with the other photos since the last change.
        has_thumbnail: whether there is something to show; a file we cannot read has nothing.
    """

    id: str
    report: PhotoReport
    is_compared: bool = False
    has_thumbnail: bool = True

    @property
    def is_usable(self) -> bool:
        """Whether it will become part of the identity."""
        return self.report.verdict is not PhotoVerdict.REFUSE


@dataclass(frozen=True, slots=True)
class Consent:
    """What a person agreed to.

    Attributes:
        statements: the sentences as they were shown.
        language: in which they were shown.
        given_at: when, with time zone.
    """

    statements: tuple[str, ...]
    language: str
    given_at: datetime


@dataclass(frozen=True, slots=True)
class Person:
    """Who pictures are made of.

    Attributes:
        name: as the person wrote it.
        photo_count: how many photos carry the identity.
        consent: what was agreed to, and when.
    """

    name: str = field(repr=False)
    photo_count: int
    consent: Consent


@dataclass(frozen=True, slots=True)
class OpenWish:
    """A wish as a form holds it; what is None is left to the model.

    Attributes:
        prompt: what the pictures show, style included.
        count: how many pictures.
        likeness: 0 (only the prompt speaks) to 1 (as alike as possible).
        seed: of the first picture; with several candidates each, picture i draws its own from
            seed + i * best_of on.
        num_inference_steps: denoising steps.
        guidance_scale: on the text, 1 is none.
        best_of: candidates for each picture, of which the best is kept.
    """

    prompt: str = field(repr=False)
    count: int = 1
    likeness: float = 0.7
    seed: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    best_of: int = 1


@dataclass(frozen=True, slots=True)
class PictureCard:
    """A finished picture.

    Attributes:
        id: names it in this studio; unguessable.
        recipe: how to make it again.
        verdict: how much it looks like the person.
        why: why this candidate was kept, in words.
        is_starred: whether the person wants to find it again.
        width: pixels.
        height: pixels.
    """

    id: str
    recipe: Recipe = field(repr=False)
    verdict: LikenessVerdict
    why: str
    is_starred: bool
    width: int
    height: int


class Stage(StrEnum):
    """Where a drawing stands; the last three are final."""

    WAITING = "waiting"
    DRAWING = "drawing"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


FINAL_STAGES = (Stage.DONE, Stage.STOPPED, Stage.FAILED)


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment in the life of a drawing: everything a page needs to show it, also after a reload.

    Attributes:
        stage: where it stands.
        count: pictures wished.
        ahead: requests of others that come first.
        step: denoising steps done, over all pictures.
        num_steps: denoising steps in all; 0 while the model is being opened.
        eta_seconds: until the last step; None before that is known.
        preview: id of the newest preview of the picture being drawn, None before the first.
        pictures: finished so far, in order.
        error: why it failed; None otherwise.
    """

    stage: Stage
    count: int
    ahead: int = 0
    step: int = 0
    num_steps: int = 0
    eta_seconds: float | None = None
    preview: str | None = None
    pictures: tuple[PictureCard, ...] = ()
    error: ImagineError | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing more will come."""
        return self.stage in FINAL_STAGES


@dataclass(frozen=True, slots=True)
class Origin:
    """What a file says of where it came from.

    Attributes:
        report: the answer and its reasons.
        recipe: the recipe inside, which anybody can write; None when there is none we can read.
    """

    report: ProvenanceReport
    recipe: Recipe | None = field(repr=False)


@runtime_checkable
class Studio(Protocol):
    """All that one person at the page can ask for. Methods are called from several threads.

    Raises of every method:
        NotStored: the id is not in this studio; those of other people are not told apart.
        ImagineError: what happened, in words for the page.
    """

    @property
    def limits(self) -> StudioLimits:
        """How much is accepted."""

    def add_photo(self, data: bytes, name: str, replaces: str | None = None) -> PhotoCard:
        """Take a photo and judge it alone, within about a second.

        Args:
            data: a file, as it came.
            name: what to call it.
            replaces: id of the photo whose place it takes.

        Raises:
            InvalidInput: too many photos.
        """

    def compare_photos(self) -> tuple[PhotoCard, ...]:
        """Judge all photos together: do they show one person?"""

    def choose_face(self, photo_id: str, face: int) -> PhotoCard:
        """Say which face of a photo is meant, 0 is left, and judge it again."""

    def remove_photo(self, photo_id: str) -> None:
        """Forget one photo."""

    def photos(self) -> tuple[PhotoCard, ...]:
        """The photos, in the order they were given."""

    def photo(self, photo_id: str) -> bytes:
        """A small JPEG of the photo without any metadata."""

    def enrol(self, name: str, consent: Consent) -> Person:
        """Make the usable photos one person; the name may be empty.

        Raises:
            ConsentMissing: nothing was agreed to.
            InvalidInput: the photos cannot become a person; the message says why.
        """

    def person(self) -> Person | None:
        """Who is enrolled."""

    def forget(self) -> None:
        """Stop what is drawn and forget photos, person and pictures."""

    def draw(self, wish: OpenWish) -> None:
        """Begin to draw; returns at once.

        Raises:
            ConsentMissing: nobody is enrolled.
            PromptBlocked, InvalidInput: the wish is refused.
            Busy: a drawing of this person is under way, or too much waits.
        """

    def drawing(self) -> Moment | None:
        """The newest drawing as it stands now."""

    def watch(self) -> AsyncIterator[Moment]:
        """Moments of the newest drawing as they come, the present one first, a final one last.

        Nothing when there was no drawing. Leaving early stops nothing.
        """

    def stop(self) -> None:
        """Stop drawing; finished pictures stay."""

    def preview(self, preview_id: str) -> bytes:
        """A small marked WebP of an unfinished picture; old ones are gone."""

    def pictures(self) -> tuple[PictureCard, ...]:
        """Finished pictures, newest first."""

    def picture(self, picture_id: str, suffix: str = ".png") -> bytes:
        """The marked file of a picture: ".png", ".jpg" or ".webp"."""

    def star(self, picture_id: str, starred: bool) -> PictureCard:
        """Set or take away the star."""

    def delete_picture(self, picture_id: str) -> None:
        """Forget one picture."""

    def close(self) -> None:
        """The session has ended: forget everything that lives only as long."""


@runtime_checkable
class Studios(Protocol):
    """Opens studios, and answers what needs none."""

    def open(self) -> Studio:
        """A studio for somebody who just came."""

    def verify(self, data: bytes, name: str) -> Origin:
        """What a file says of where it came from; nothing is kept.

        Raises:
            InvalidInput: not a picture we can read.
        """

    def close(self) -> None:
        """The program ends."""

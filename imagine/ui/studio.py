"""The seam between the pages and whoever does the work: one `Studio` per person at the page.

The pages know nothing else. `imagine.ui.local` satisfies it in this process; a service of many
users satisfies it with its client. Bytes that leave a studio may be shown as they are: photos
without metadata, pictures with their marks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable

from imagine.core import SQUARE, LikenessVerdict, PairVerdict, PhotoReport, PhotoVerdict, Recipe
from imagine.engine.limits import SEED_LIMIT
from imagine.errors import ImagineError, InvalidInput
from imagine.provenance import ProvenanceReport
from imagine.ui.styles import TAUGHT

# What can be wrong with a picture, for `Studio.report`; `words.yaml` says each in words.
REPORT_REASONS = ("not_me", "somebody_else", "offensive", "broken", "other")


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
        max_people: enrolled at a time.
        draws_two: whether the model can put two people in one picture.
        styles: which of `imagine.ui.styles.STYLES` the model can draw; `styles_of` says it.
        takes_reports: whether `Studio.report` reaches somebody.
        shapes: aspect ratios the model draws, width to height, the square first.
    """

    max_photos: int
    max_photo_bytes: int
    max_prompt_characters: int
    max_images: int
    max_steps: int
    max_guidance: float
    max_best_of: int
    max_people: int = 1
    draws_two: bool = True
    styles: tuple[str, ...] = tuple(TAUGHT)
    takes_reports: bool = False
    shapes: tuple[str, ...] = (SQUARE,)


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
        further: what else was allowed, names in `imagine.ui.me.OPTIONAL`.
        ends_at: when it ends by itself; None where it lasts as long as the session.
    """

    statements: tuple[str, ...]
    language: str
    given_at: datetime
    further: frozenset[str] = frozenset()
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """Who pictures are made of.

    Attributes:
        name: as the person wrote it.
        photo_count: how many photos carry the identity.
        consent: what was agreed to, and when.
        id: names the person in this studio; unguessable.
        can_be_checked: whether there is a camera check here.
        verified_at: when it was passed; None while it was not.
        waits_for_review: whether nothing is drawn before somebody has looked at the photos.
    """

    name: str = field(repr=False)
    photo_count: int
    consent: Consent
    id: str
    can_be_checked: bool = False
    verified_at: datetime | None = None
    waits_for_review: bool = False


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
        keep: traits of the person to hold on to, names in `imagine.traits.TRAITS`.
        change: traits to change, and into which of their values.
        person: id of who is drawn; None is whoever is at the desk.
        beside: id of a second person in the picture, who stands on the right, `person` on the
            left; None draws one person.
        aspect_ratio: of the picture, one of `StudioLimits.shapes`; two people have one shape only.
    """

    prompt: str = field(repr=False)
    count: int = 1
    likeness: float = 0.7
    seed: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    best_of: int = 1
    keep: tuple[str, ...] = ()
    change: Mapping[str, str] = field(default_factory=dict)
    person: str | None = None
    beside: str | None = None
    aspect_ratio: str = SQUARE


def check_figures(wish: OpenWish, limits: StudioLimits) -> None:
    """Refuse a wish with a figure out of its range.

    Raises:
        InvalidInput: names the first such figure and its range.
    """
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
        wish: what it came of, for others like it; None where only the recipe is known.
        pair: of two people, how much it looks like each; `verdict` is that of the left one.
        notes: what was read from the selfies for traits to keep, in words.
    """

    id: str
    recipe: Recipe = field(repr=False)
    verdict: LikenessVerdict
    why: str
    is_starred: bool
    width: int
    height: int
    wish: OpenWish | None = field(default=None, repr=False)
    pair: PairVerdict | None = None
    notes: tuple[str, ...] = ()


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
        skipped: pictures the person gave up while they were drawn.
        withheld: pictures that were drawn and did not pass the output checks; nobody sees them.
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
    skipped: int = 0
    withheld: int = 0

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

    Several people may be enrolled, each from photos and with an agreement of their own. One is at
    the desk: the methods about photos, `enrol` and `person` speak of that one.

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
        """Who is enrolled and at the desk; None while the desk is for a newcomer."""

    def people(self) -> tuple[Person, ...]:
        """Everybody enrolled, in the order they came."""

    def add_person(self) -> None:
        """Clear the desk for a newcomer; a newcomer who was not enrolled is forgotten.

        Raises:
            InvalidInput: `limits.max_people` are enrolled.
        """

    def choose_person(self, person_id: str) -> None:
        """Put somebody who is enrolled at the desk; a newcomer not yet enrolled is forgotten."""

    def withdraw(self, person_id: str) -> None:
        """End somebody's agreement: nothing is drawn of them from now on.

        A drawing of them stops; photos and measurements are destroyed as the house promises on
        its privacy card. Finished pictures stay until they are deleted.
        """

    def export(self) -> bytes:
        """A zip of all that is kept: photos, marked pictures, agreements, recipes."""

    def forget(self) -> None:
        """Stop what is drawn and forget the photos, people and pictures of this studio."""

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

    def skip(self) -> None:
        """Give up the picture being drawn and go on with the next; the last one ends it."""

    def preview(self, preview_id: str) -> bytes:
        """A small marked WebP of an unfinished picture; old ones are gone."""

    def pictures(self) -> tuple[PictureCard, ...]:
        """Finished pictures, newest first."""

    def picture(self, picture_id: str, suffix: str = ".png") -> bytes:
        """The marked file of a picture: ".png", ".jpg" or ".webp"."""

    def recipe_of(self, record: int) -> Recipe | None:
        """How a picture of theirs was made, by the number its marks lead to.

        For a file whose own recipe is sealed; None where the number is no picture of theirs.
        """

    def star(self, picture_id: str, starred: bool) -> PictureCard:
        """Set or take away the star."""

    def delete_picture(self, picture_id: str) -> None:
        """Forget one picture."""

    def report(self, picture_id: str, reason: str, details: str) -> str:
        """Say that something is wrong with a picture; returns the number of the report.

        Args:
            picture_id: which picture.
            reason: one of `REPORT_REASONS`.
            details: in the person's own words, may be empty.

        Raises:
            InvalidInput: an unknown reason, or nobody takes reports here.
        """

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

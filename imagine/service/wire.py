"""What the two clients say and understand: requests, answers and errors without any connection."""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, TypedDict

import httpx2
import numpy as np
from PIL import Image

from imagine.backends import BackendInfo
from imagine.core import (
    SQUARE,
    ImageArray,
    LikenessVerdict,
    PairVerdict,
    PhotoReport,
    PhotoVerdict,
    Recipe,
)
from imagine.errors import (
    Busy,
    Cancelled,
    ConsentMissing,
    ConsentTokenInvalid,
    ConsentTokenUsed,
    DeadlineExceeded,
    DifferentPeople,
    EnrolmentRefused,
    ForgedRequest,
    GenerationFailed,
    IdempotencyConflict,
    ImagineError,
    InvalidInput,
    JobStillRunning,
    KeyRefused,
    NoFaceFound,
    NotMarked,
    NotStored,
    OutOfMemory,
    OutputNotWritten,
    PictureWithheld,
    PoorPhoto,
    PromptBlocked,
    RateLimited,
    ServiceUnreachable,
    SeveralFaces,
    SignInRefused,
    UnknownName,
    UnreadablePhoto,
    UnsafeAddress,
    UnusableArchive,
)
from imagine.identity import PhotoSource
from imagine.identity.photos import photo_name
from imagine.pipeline import Progress
from imagine.provenance import refuse_unwritable
from imagine.storage.consent import ConsentForm
from imagine.traits import parse_traits

DEFAULT_URL = "http://127.0.0.1:8765"
MAX_RETRIES = 2
LONGEST_PAUSE_SECONDS = 30.0

_PLAIN: dict[str, type[ImagineError]] = {
    "not_found": NotStored,
    "unknown_name": UnknownName,
    "unreadable_photo": UnreadablePhoto,
    "no_face_found": NoFaceFound,
    "several_faces": SeveralFaces,
    "poor_photo": PoorPhoto,
    "different_people": DifferentPeople,
    "idempotency_conflict": IdempotencyConflict,
    "invalid_input": InvalidInput,
    "unusable_archive": UnusableArchive,
    "bad_request": InvalidInput,
    "body_too_large": InvalidInput,
    "consent_missing": ConsentMissing,
    "consent_token_used": ConsentTokenUsed,
    "consent_token_invalid": ConsentTokenInvalid,
    "unsafe_address": UnsafeAddress,
    "sign_in_refused": SignInRefused,
    "request_forged": ForgedRequest,
    "key_refused": KeyRefused,
    "moderation_blocked": PromptBlocked,
    "picture_withheld": PictureWithheld,
    "enrolment_refused": EnrolmentRefused,
    "canceled": Cancelled,
    "deadline_exceeded": DeadlineExceeded,
    "generation_failed": GenerationFailed,
    "out_of_memory": OutOfMemory,
    "not_marked": NotMarked,
}
_SUFFIXES = {"image/png": (".png",), "image/jpeg": (".jpg", ".jpeg"), "image/webp": (".webp",)}


@dataclass(frozen=True, slots=True)
class Preview:
    """A small, marked look at a picture that is not finished.

    Attributes:
        picture: which one, counted from 0.
        step, num_steps: how far it has come.
        data: bytes of a WebP file.
    """

    picture: int
    step: int
    num_steps: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RemoteImage:
    """One picture, its verdict, and how to make it again; as `imagine.api.GeneratedImage`.

    Attributes:
        id: of the picture in the service.
        data: the marked file as the service made it.
        media_type: of the file.
        seed: the seed that made this picture.
        num_inference_steps: denoising steps.
        model_revision: of the weights.
        likeness: how much it looks like the person, in words and figures.
        prompt_fit: how well it shows the prompt, 0 to 1; None when the backend cannot say.
        recipe: all that `replay` needs, besides the person.
        why: why this candidate was kept, in words.
        pair: of a picture of two people, how much it looks like each.
        notes: what was read from the selfies for traits to keep, in words.
    """

    id: str
    data: bytes = field(repr=False)
    media_type: str
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
        """The pixels, (height, width, 3) uint8 RGB; unmarked, so save with `save`."""
        with Image.open(BytesIO(self.data)) as picture:
            return np.asarray(picture.convert("RGB"))

    def to_bytes(self) -> bytes:
        """The marked picture as the bytes of a file."""
        return self.data

    def save(self, path: str | os.PathLike[str], overwrite: bool = True) -> Path:
        """Write the marked file whole or not at all.

        Raises:
            InvalidInput: the name does not end as this kind of file does.
            OutputNotWritten: missing folder, full disk, not allowed; nothing partial is left.
        """
        target = Path(path)
        endings = _SUFFIXES[self.media_type]
        if target.suffix.lower() not in endings:
            raise InvalidInput(
                f"{target.name!r} should end in {endings[0]}: the service made an "
                f"{self.media_type} file. Ask for another output_format, or change the name."
            )
        refuse_unwritable(target, overwrite)
        write_whole(target, self.data)
        return target


@dataclass(frozen=True, slots=True)
class RemoteResult:
    """What one call of `generate` made.

    Attributes:
        id: of the generation in the service.
        images: the pictures, in order.
        withheld: why pictures are missing that were drawn and may not leave, in words.
        seed: the seed of the call, also when it was drawn for you.
        backend: facts about the model that made them.
    """

    id: str
    images: tuple[RemoteImage, ...]
    seed: int
    backend: BackendInfo
    withheld: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CameraCheck:
    """A check before the camera: look where `poses` say, one after the other.

    Attributes:
        id: of the check.
        nonce: goes back with the frames; good for one answer.
        poses: "ahead", "left" or "right", as the person themselves has them.
        deadline_at: the frames must be there by then.
    """

    id: str
    nonce: str = field(repr=False)
    poses: tuple[str, ...]
    deadline_at: datetime


@dataclass(frozen=True, slots=True)
class CheckedByCamera:
    """What came of a camera check, which is used up either way.

    Attributes:
        has_passed: whether the person before the camera is the one on the photos.
        code: why not, e.g. "late", "jump", "not_the_uploads"; "" when it was passed.
        words: the same for people.
        is_verified: whether the identity is verified now.
    """

    has_passed: bool
    code: str
    words: str
    is_verified: bool


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One server-sent event."""

    kind: str
    id: str | None
    data: dict[str, Any] = field(repr=False)

    @property
    def is_last(self) -> bool:
        """Whether the generation has ended."""
        return self.kind in ("succeeded", "failed", "canceled", "blocked")

    @property
    def progress(self) -> Progress:
        """What a "progress" event says."""
        return Progress(**self.data)

    @property
    def preview(self) -> Preview:
        """What a "preview" event shows."""
        told = self.data
        data = base64.b64decode(told["data"])
        return Preview(told["picture"], told["step"], told["num_steps"], data)


class EventReader:
    """Lines of a stream in, events out."""

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}

    def feed(self, line: str) -> Iterator[ServerEvent]:
        """The event a line completes, if any."""
        if line:
            name, _, value = line.partition(":")
            if name:  # a line that begins with a colon is a comment
                self._fields[name] = value.removeprefix(" ")
            return
        told, self._fields = self._fields, {}
        if "data" in told:
            yield ServerEvent(told.get("event", ""), told.get("id"), json.loads(told["data"]))


class Named(Protocol):
    """Somebody known to the service."""

    id: str


class RemoteWish(TypedDict, total=False):
    """What `generate` takes besides prompt and person; what is not given is left to the service.

    The first eleven are those of `Imagine.generate`. `beside` may be an id; `style` is an id of
    /v1/styles; `record` that of a picture that is made again.
    """

    n: int
    seed: int | None
    likeness: float
    num_inference_steps: int | None
    guidance_scale: float | None
    guidance_interval: tuple[float, float] | None
    best_of: int
    aspect_ratio: str
    keep: Sequence[str]
    change: Mapping[str, str] | None
    beside: Named | str | None
    style: str | None
    output_format: str
    record: int
    timeout_seconds: float | None


# JSON knows neither tuples nor other mappings.
_AS_JSON: dict[str, Callable[[Any], object]] = {
    "keep": list,
    "guidance_interval": list,
    "change": dict,
}


def wish_body(identity: Named | str, prompt: str, wish: RemoteWish) -> dict[str, object]:
    """The JSON of a wish.

    Raises:
        TypeError: a name that no wish has, as Python says it of a function.
    """
    unknown = wish.keys() - RemoteWish.__annotations__.keys()
    if unknown:
        raise TypeError(f"generate() got an unexpected keyword argument {min(unknown)!r}")
    given: dict[str, object] = {name: value for name, value in wish.items() if value is not None}
    if "beside" in given:
        given["beside"] = id_of(wish["beside"])
    for name, as_json in _AS_JSON.items():
        if name in given:
            given[name] = as_json(given[name])
    return {"prompt": prompt, "identity": id_of(identity), **given}


def replay_wish(recipe: Recipe, beside: Named | str | None) -> RemoteWish:
    """The wish that makes the picture of a recipe again.

    Raises:
        InvalidInput: two people are on it and one is given, or the other way round.
    """
    if bool(recipe.beside_fingerprint) != (beside is not None):
        wanted = "two people" if recipe.beside_fingerprint else "one person"
        raise InvalidInput(f"This picture shows {wanted}; give `beside` just as it was made.")
    return RemoteWish(
        seed=recipe.seed,
        likeness=recipe.likeness,
        num_inference_steps=recipe.num_inference_steps,
        guidance_scale=recipe.guidance_scale,
        guidance_interval=(recipe.guidance_from, recipe.guidance_until),
        record=recipe.record,
        aspect_ratio=recipe.aspect_ratio,
        change=parse_traits(recipe.traits),
        beside=beside,
    )


def id_of(somebody: Named | str | None) -> str | None:
    """How the service calls somebody."""
    return somebody if somebody is None or isinstance(somebody, str) else somebody.id


def consent_fields(form: ConsentForm) -> dict[str, Any]:
    """A consent as fields of an upload."""
    return {
        "consent_text": form.text,
        "consent_purposes": [str(purpose.value) for purpose in form.purposes],
        "consent_locale": form.locale,
        "consent_method": form.method,
        "consent_days": str(form.lifetime // timedelta(days=1)),
        "declared_adult": str(form.declared_adult).lower(),
        "declared_self": str(form.declared_self).lower(),
    }


def photo_files(photos: Sequence[PhotoSource]) -> list[tuple[str, tuple[str, bytes]]]:
    """Photos as parts of an upload; only the name of a file is sent, not its folder.

    Raises:
        InvalidInput: a single photo where a list is expected.
        UnreadablePhoto: no such file.
    """
    if isinstance(photos, str | bytes | os.PathLike):
        raise InvalidInput("One photo was given where a list is expected: write [photo].")
    return [
        ("photos", (photo_name(photo, index), _photo_bytes(photo)))
        for index, photo in enumerate(photos)
    ]


def archive_file(archive: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    """An export as the part of an upload."""
    return [("archive", ("person.zip", archive, "application/zip"))]


def frame_files(frames: Sequence[bytes] | bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    """Camera frames as parts of an upload.

    Raises:
        InvalidInput: one frame where a list is expected.
    """
    if isinstance(frames, bytes):
        raise InvalidInput("One frame was given where a list is expected: about ten a second.")
    return [("frames", (f"{i}.jpg", frame, "image/jpeg")) for i, frame in enumerate(frames, 1)]


def camera_check_of(told: Mapping[str, Any]) -> CameraCheck:
    """A camera check as the service tells it."""
    ends = datetime.fromisoformat(told["deadline_at"])
    return CameraCheck(told["id"], told["nonce"], tuple(told["poses"]), ends)


def checked_of(told: Mapping[str, Any]) -> CheckedByCamera:
    """What came of one."""
    is_verified = told["verification"] == "verified"
    return CheckedByCamera(told["status"] == "passed", told["code"], told["words"], is_verified)


def _photo_bytes(photo: PhotoSource) -> bytes:
    if isinstance(photo, bytes | bytearray | memoryview):
        return bytes(photo)
    if isinstance(photo, str | Path):
        try:
            return Path(photo).expanduser().read_bytes()
        except OSError as error:
            raise UnreadablePhoto(
                f"{Path(photo).name} cannot be read ({error.strerror}). Check the path."
            ) from error
    picture = photo if isinstance(photo, Image.Image) else Image.fromarray(photo)
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def choice_field(choose: Mapping[int, int] | None) -> dict[str, str]:
    """Which face is theirs, as a field of an upload."""
    return {"choose": json.dumps({str(k): v for k, v in choose.items()})} if choose else {}


def report_of(told: Mapping[str, Any]) -> PhotoReport:
    """What the service thinks of a photo."""
    return PhotoReport(
        name=told["name"],
        verdict=PhotoVerdict(told["verdict"]),
        sentences=tuple(told["sentences"]),
        codes=tuple(told["codes"]),
        measures=told["measures"],
        face_count=told["face_count"],
    )


def info_of(told: Mapping[str, Any]) -> BackendInfo:
    """Facts about the model of the service."""
    sizes = {size["aspect_ratio"]: _height_and_width(size) for size in told.get("sizes", ())}
    pair = told.get("pair_size")
    return BackendInfo(
        name=told["id"],
        model_revision=told["revision"],
        licence=told["licence"],
        image_size=(told["height"], told["width"]),
        default_steps=told["default_steps"],
        default_guidance_scale=told["default_guidance_scale"],
        device=told["device"],
        draws_two=pair is not None,
        other_sizes={name: size for name, size in sizes.items() if name != SQUARE},
        pair_size=pair and _height_and_width(pair),
    )


def _height_and_width(told: Mapping[str, Any]) -> tuple[int, int]:
    return told["height"], told["width"]


def image_of(told: Mapping[str, Any], data: bytes, recipe: Mapping[str, Any]) -> RemoteImage:
    """A picture from what the service says of it, its file and its recipe."""
    known = {item.name for item in fields(Recipe)}
    facts = Recipe(**{name: value for name, value in recipe.items() if name in known})
    return RemoteImage(
        id=told["id"],
        data=data,
        media_type=told["media_type"],
        seed=facts.seed,
        num_inference_steps=facts.num_inference_steps,
        model_revision=facts.model_revision,
        likeness=LikenessVerdict(**told["likeness"]),
        prompt_fit=told["prompt_fit"],
        recipe=facts,
        why=told["why"],
        pair=_pair_of(told.get("pair")),
        notes=tuple(told.get("notes", ())),
    )


def _pair_of(told: Mapping[str, Any] | None) -> PairVerdict | None:
    if told is None:
        return None
    left, right = (LikenessVerdict(**told[side]) for side in ("left", "right"))
    return PairVerdict(left, right, told["blending"])


def check_ended_well(generation: Mapping[str, Any]) -> None:
    """Raise what a generation that did not succeed died of.

    Raises:
        ImagineError: of the class its code names.
    """
    if generation["status"] == "succeeded":
        return
    error = generation["error"] or {"code": "canceled", "message": "The generation was canceled."}
    raise _error(error["code"], error["message"], {}, 1.0)


def check_answer(response: httpx2.Response) -> None:
    """Raise the error an answer tells of, as the class it had inside the service.

    Raises:
        ImagineError: of the class its code names.
        ServiceUnreachable: the service failed on its side.
    """
    if response.status_code < 400:
        return
    try:
        body = response.json()
        code, message = body["error"]["code"], body["error"]["message"]
    except (ValueError, KeyError, TypeError) as error:
        raise ServiceUnreachable(
            f"The service answered {response.status_code} without saying why. Check the address: "
            "something else may be listening there."
        ) from error
    raise _error(code, message, body, pause_seconds(response, 0))


def _error(code: str, message: str, body: Mapping[str, Any], pause: float) -> ImagineError:
    match code:
        case "rate_limit_exceeded":
            return RateLimited(message, pause)
        case "busy":
            return Busy(message, pause)
        case "scope_missing":
            return KeyRefused(message, lacks_scope=True)
        case "request_in_progress":
            return JobStillRunning(message, str(body.get("generation_id", "")))
    kind = _PLAIN.get(code)
    if kind is not None:
        return kind(message)
    return ServiceUnreachable(f"{message} (request {body.get('request_id', 'unknown')})")


def may_repeat(response: httpx2.Response) -> bool:
    """Whether the service asks to come back later, rather than saying no."""
    return response.status_code in (429, 503) and "retry-after" in response.headers


def pause_seconds(response: httpx2.Response | None, attempt: int) -> float:
    """How long to wait before the next attempt: as told, or a little longer each time."""
    told = "" if response is None else response.headers.get("retry-after", "")
    wanted = float(told) if told.isdecimal() else 0.5 * 2.0**attempt
    return min(wanted, LONGEST_PAUSE_SECONDS)


def unreachable(error: Exception, url: str) -> ServiceUnreachable:
    """The error for an answer that did not come."""
    return ServiceUnreachable(
        f"The service at {url} did not answer ({type(error).__name__}). Check the address, and "
        "that `imagine-me serve` runs there."
    )


def new_key() -> str:
    """A name for a request, so that it can be sent twice safely."""
    return secrets.token_hex(16)


def cancel_question(cancel: object) -> Callable[[], bool]:
    """Whether the caller wants to stop, from an event, a function or nothing."""
    if cancel is None:
        return lambda: False
    if callable(cancel):
        return cancel
    is_set: Callable[[], bool] = cancel.is_set  # type: ignore[attr-defined]
    return is_set


def write_whole(target: Path, data: bytes) -> None:
    """Write beside the target, then rename.

    Raises:
        OutputNotWritten: the disk refused; nothing partial is left.
    """
    partial = target.with_name(f".{target.name}.{secrets.token_hex(6)}.part")
    try:
        partial.write_bytes(data)
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputNotWritten(
            f"{str(target)!r} could not be written: {error.strerror or error}. Nothing was left "
            "behind; free some space or choose another folder."
        ) from error

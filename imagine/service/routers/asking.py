"""What the routes have in common: the service behind them, headers, pages of a list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from imagine.backends import BackendInfo
from imagine.core import SQUARE
from imagine.errors import InvalidInput, NotStored
from imagine.service.errors import BadParameter
from imagine.service.schemas import ID_PATTERN, GenerationRequest, Page
from imagine.service.wiring import Service

LONGEST_WAIT_SECONDS = 60.0
Thing = TypeVar("Thing")

_WAIT = re.compile(r"wait(?:\s*=\s*\"?(\d{1,6})\"?)?", re.IGNORECASE)


async def _service(request: Request) -> Service:  # async: a plain one would cost a thread
    service: Service = request.app.state.service
    return service


ServiceOf = Annotated[Service, Depends(_service)]
Limit = Annotated[int, Query(ge=1, le=100, description="At most so many.")]
Before = Annotated[
    str | None, Query(pattern=ID_PATTERN, description="Go on behind this id, the last of a page.")
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=255,
        description="Your name for this request: sending it again makes nothing new.",
    ),
]
Prefer = Annotated[
    str | None, Header(description="`wait=30`: answer when the pictures are done, or after 30 s.")
]


def seconds_to_wait(prefer: str | None) -> float:
    """How long the caller would like to wait, at most a minute; 0 when they would not.

    Source: RFC 7240, section 4.3; the bare word is Replicate's.
    """
    for wish in (prefer or "").split(","):
        found = _WAIT.fullmatch(wish.strip())
        if found:
            return min(float(found[1] or LONGEST_WAIT_SECONDS), LONGEST_WAIT_SECONDS)
    return 0.0


def page_of(things: Sequence[Thing], ids: Sequence[str], has_more: bool) -> Page[Thing]:
    """A page as it is told."""
    return Page(
        data=list(things),
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
        has_more=has_more,
    )


def cut(ids: Sequence[str], limit: int, before: str | None) -> tuple[slice, bool]:
    """Which part of a whole list a page is, and whether there is more.

    Raises:
        NotStored: `before` is not in the list.
    """
    start = 0
    if before is not None:
        if before not in ids:
            raise NotStored(f"There is nothing called {before[:80]!r} here to go on from.")
        start = ids.index(before) + 1
    return slice(start, start + limit), start + limit < len(ids)


def checked_wish(**fields: Any) -> GenerationRequest:
    """A wish made from the fields of another API.

    Raises:
        RequestValidationError: a field that the other API takes is out of our range.
    """
    try:
        return GenerationRequest(**fields)
    except ValidationError as error:
        raise RequestValidationError(
            [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        ) from error


def shape_asked(
    info: BackendInfo, size: tuple[int, int] | None, aspect_ratio: str | None, param: str
) -> str:
    """The aspect ratio that other APIs ask for by pixels.

    Args:
        info: of the model that shall draw it.
        size: width and height; None for any.
        aspect_ratio: our own name of the shape, if it was given as well.
        param: what the other API calls its size.

    Raises:
        BadParameter: not offered, with the list of what is; or the two do not agree.
    """
    if size is None:
        return aspect_ratio or SQUARE
    try:
        found = info.ratio_of(*size)
    except InvalidInput as error:
        raise BadParameter(param, str(error)) from error
    if aspect_ratio not in (None, found):
        raise BadParameter(
            "aspect_ratio",
            f"{size[0]}x{size[1]} pixels are of the shape {found}, and aspect_ratio is "
            f"{aspect_ratio}. Leave one of them out.",
        )
    return found


def read_photos(uploads: Sequence[UploadFile], most: int, most_bytes: int) -> list[bytes]:
    """The bytes of uploaded photos.

    Raises:
        BadParameter: none, too many, or one too large.
    """
    if not 1 <= len(uploads) <= most:
        raise BadParameter("photos", f"{len(uploads)} photos were sent; 1 to {most} are allowed.")
    read = []
    for number, upload in enumerate(uploads, 1):
        data = upload.file.read(most_bytes + 1)
        if len(data) > most_bytes:
            raise BadParameter(
                "photos",
                f"Photo {number} has more than {most_bytes // 2**20} MB. Send a smaller copy.",
            )
        read.append(data)
    return read

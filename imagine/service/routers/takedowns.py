"""/v1/takedowns, /v1/reports, /v1/appeals: what people say about pictures, and what comes of it.

A takedown is for whoever is shown and needs no account; a report and an appeal are for the owner.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, File, Form, UploadFile
from pydantic import BaseModel, Field

from imagine.errors import NotStored
from imagine.service.auth import Caller, anybody, caller_with, registering
from imagine.service.errors import BadParameter
from imagine.service.routers.asking import ServiceOf
from imagine.service.schemas import ID_PATTERN, Strict
from imagine.storage.acts import Reason
from imagine.storage.database import utc_now
from imagine.storage.reviews import Review
from imagine.storage.takedowns import Notice, Takedown

router = APIRouter(prefix="/v1", tags=["takedowns"])

NOTICE_BYTES = 16 * 1024 * 1024
Owner = Annotated[Caller, Depends(caller_with("images:write"))]
Reviewer = Annotated[Caller, Depends(caller_with("review"))]
Line = Annotated[str, Form(max_length=4000)]


class TakedownOut(BaseModel):
    """A notice as its sender sees it: whether a picture was found is not told."""

    object: Literal["takedown"] = "takedown"
    id: str = Field(description="Keep it: only with it can you ask what was decided.")
    state: str
    created_at: datetime
    due_at: datetime
    is_overdue: bool
    closed_at: datetime | None
    removed: int = Field(description="How many pictures are out of reach because of it.")

    @classmethod
    def of(cls, takedown: Takedown) -> TakedownOut:
        """As it is told."""
        return cls(
            id=takedown.id,
            state=takedown.state.value,
            created_at=takedown.created_at,
            due_at=takedown.due_at,
            is_overdue=takedown.is_overdue(utc_now()),
            closed_at=takedown.closed_at,
            removed=takedown.removed,
        )


class ContactOut(BaseModel):
    """Who sent a notice, to be told what was decided."""

    object: Literal["contact"] = "contact"
    name: str
    contact: str


class ReportRequest(Strict):
    """Something is wrong with a picture of mine."""

    image: str = Field(pattern=ID_PATTERN)
    reason: Annotated[Reason, Field(strict=False)]  # JSON has no enumerations
    note: str = Field(default="", max_length=4000, description="In words; kept sealed.")


class AppealRequest(Strict):
    """I disagree: with what was held back of a generation, or with a picture being removed."""

    generation: str | None = Field(default=None, pattern=ID_PATTERN)
    image: str | None = Field(default=None, pattern=ID_PATTERN)
    note: str = Field(default="", max_length=4000, description="Why; kept sealed.")


class AskedOut(BaseModel):
    """A decision that was asked for, one for each picture."""

    id: str
    state: str
    image: str | None
    due_at: datetime | None
    decided_at: datetime | None
    ruling: str | None


class AppealOut(BaseModel):
    """A report or an appeal as its owner sees it."""

    object: Literal["report", "appeal"]
    decisions: list[AskedOut]


@router.post(
    "/takedowns",
    status_code=201,
    max_body_size=NOTICE_BYTES,
    dependencies=[Depends(registering)],
)
def file_takedown(
    service: ServiceOf,
    name: Line,
    contact: Line,
    statement: Line,
    in_good_faith: Annotated[
        bool,
        Form(description='"It shows me, or whom I speak for, without agreement."'),
    ],
    where: Annotated[str, Form(max_length=4000, description="Where you saw it, or its id.")] = "",
    picture: Annotated[UploadFile | None, File(description="A copy; it is not kept.")] = None,
) -> TakedownOut:
    """Ask for a picture of you to be removed. Needs no account; answered within 48 hours."""
    copy = None
    if picture is not None:
        copy = picture.file.read(service.limits.max_photo_bytes + 1)
        if len(copy) > service.limits.max_photo_bytes:
            most = service.limits.max_photo_bytes // 2**20
            raise BadParameter("picture", f"The copy has more than {most} MB. Send a smaller one.")
    notice = Notice(name, contact, statement, where, in_good_faith)
    return TakedownOut.of(service.oversight.file_takedown(notice, copy or None))


@router.get("/takedowns/{takedown_id}", dependencies=[Depends(anybody)])
def get_takedown(service: ServiceOf, takedown_id: str) -> TakedownOut:
    """What became of a notice; its id is the secret of whoever sent it."""
    return TakedownOut.of(service.takedowns.locate(takedown_id))


@router.get("/takedowns/{takedown_id}/contact")
def get_contact(service: ServiceOf, caller: Reviewer, takedown_id: str) -> ContactOut:
    """Who sent a notice, to answer them. Logged."""
    read = service.takedowns.read_contact
    notice = read(caller.tenant_id, takedown_id, caller.actor)
    return ContactOut(name=notice.name, contact=notice.contact)


@router.post("/reports", status_code=201)
def report(service: ServiceOf, caller: Owner, request: ReportRequest) -> AppealOut:
    """Report a picture of yours; a reviewer looks at it, whatever else you agreed to."""
    review = service.oversight.report(
        caller.tenant_id, request.image, request.reason, request.note, caller.actor
    )
    return AppealOut(object="report", decisions=[_asked(review)])


@router.post("/appeals", status_code=201)
def appeal(service: ServiceOf, caller: Owner, request: AppealRequest) -> AppealOut:
    """Disagree with what was held back or removed; somebody who did not decide it looks."""
    found: list[Review]
    words = (request.note, caller.actor)
    if (request.generation is None) == (request.image is None):
        raise BadParameter("generation", "Name the generation or the image, not both.")
    if request.generation is not None:
        found = service.oversight.appeal_job(caller.tenant_id, request.generation, *words)
    else:
        found = service.oversight.appeal_image(caller.tenant_id, request.image or "", *words)
    return AppealOut(object="appeal", decisions=[_asked(review) for review in found])


@router.get("/appeals/{generation_or_image_id}")
def get_appeal(service: ServiceOf, caller: Owner, generation_or_image_id: str) -> AppealOut:
    """What became of an appeal about a generation or a picture."""
    asked = service.oversight.appeals
    tenant_id, name = caller.tenant_id, generation_or_image_id
    found = asked(tenant_id, job_id=name) or asked(tenant_id, image_id=name)
    if not found:
        raise NotStored(f"There is no appeal about {name[:80]!r} here.")
    return AppealOut(object="appeal", decisions=[_asked(review) for review in found])


def _asked(review: Review) -> AskedOut:
    return AskedOut(
        id=review.id,
        state=review.state.value,
        image=None if review.withheld_id is not None else review.image_id,
        due_at=review.due_at,
        decided_at=review.decided_at,
        ruling=None if review.ruling is None else review.ruling.value,
    )

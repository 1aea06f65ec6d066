"""/v1/reviews, /v1/review_acts, /v1/cases: what reviewers decide, and what they need two for."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from imagine.service.auth import Caller, caller_with
from imagine.service.oversight import PictureFile
from imagine.service.routers.asking import Before, Limit, ServiceOf, page_of
from imagine.service.schemas import ID_PATTERN, Page, Strict
from imagine.service.wiring import Service
from imagine.storage.acts import Act, ActKind, Reason
from imagine.storage.cases import CaseContents
from imagine.storage.database import utc_now
from imagine.storage.reviews import Decision, Queue, Review, ReviewState, Ruling

router = APIRouter(prefix="/v1", tags=["reviews"])

Reviewer = Annotated[Caller, Depends(caller_with("review"))]
Note = Annotated[str, Field(max_length=4000, description="In words; kept sealed.")]
Clause = Annotated[
    str, Field(max_length=16, description="Of the policy, see /v1/transparency/policy.md.")
]
Why = Annotated[Reason, Field(strict=False)]  # JSON has strings and no enumerations
_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A marked picture.",
        "content": {"image/webp": {}, "image/png": {}, "image/jpeg": {}},
    }
}
_ZIP: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Check it with `imagine-me reviews verify-evidence`.",
        "content": {"application/zip": {}},
    }
}


class QueueOut(BaseModel):
    """How a queue stands."""

    object: Literal["review_queue"] = "review_queue"
    queue: str
    waiting: int
    overdue: int
    next_due_at: datetime | None


class DecisionOut(BaseModel):
    """What a reviewer decided, or proposed to a second one."""

    id: str
    ruling: str
    reason: str
    clause: str
    decided_by: str
    decided_at: datetime
    is_final: bool
    note: str
    entry: int = Field(description="Its place in the audit log.")

    @classmethod
    def of(cls, decision: Decision) -> DecisionOut:
        """As it is told."""
        return cls(
            id=decision.id,
            ruling=decision.ruling.value,
            reason=decision.reason.value,
            clause=decision.clause,
            decided_by=decision.decided_by,
            decided_at=decision.decided_at,
            is_final=decision.is_final,
            note=decision.note,
            entry=decision.entry,
        )


class ReviewOut(BaseModel):
    """Something to be decided. It never names the person."""

    object: Literal["review"] = "review"
    id: str
    queue: str
    state: str
    reason: str
    identity: str | None
    generation: str | None
    image: str | None
    is_withheld: bool
    has_picture: bool
    needs_two_to_open: bool = Field(
        description="In clear only after `open_in_clear` was asked for and approved."
    )
    takedown: str | None
    checks: dict[str, Any]
    created_at: datetime
    due_at: datetime | None
    is_overdue: bool
    decided_at: datetime | None
    ruling: str | None

    @classmethod
    def of(cls, review: Review) -> ReviewOut:
        """As it is told."""
        return cls(**_facts(review))


class ReviewWhole(ReviewOut):
    """A review with what was said and decided about it."""

    note: str = Field(description="What was said by whoever asked.")
    statement: str = Field(description="Of the takedown notice, without its sender.")
    where: str = Field(description="Where the picture was seen, by the notice.")
    decisions: list[DecisionOut]


class DecisionRequest(Strict):
    """A decision: what becomes of the picture, why, and by which clause."""

    ruling: Annotated[Ruling, Field(strict=False)]
    reason: Why
    clause: Clause
    note: Note = ""


class ActRequest(Strict):
    """A dangerous act to be approved by another reviewer."""

    act: Literal["open_in_clear", "export_evidence"]
    reason: Why
    clause: Clause


class CaseRequest(Strict):
    """Everything ever made of an identity, to be approved by another reviewer."""

    identity: str = Field(pattern=ID_PATTERN)
    reason: Why
    clause: Clause


class PictureRequest(Strict):
    """A picture that a reviewer found."""

    image: str = Field(pattern=ID_PATTERN)


class SweepRequest(Strict):
    """Pictures that look the same."""

    distance: int = Field(default=31, ge=0, le=31, description="Bits of 256 that may differ.")
    remove: bool = Field(default=False, description="Withhold them at once; reversible.")


class ActOut(BaseModel):
    """A dangerous act, asked for and perhaps approved."""

    object: Literal["review_act"] = "review_act"
    id: str
    act: str
    target: str
    number: str | None
    reason: str
    clause: str
    asked_by: str
    asked_at: datetime
    approved_by: str | None
    approved_at: datetime | None
    expires_at: datetime

    @classmethod
    def of(cls, act: Act) -> ActOut:
        """As it is told."""
        return cls(
            id=act.id,
            act=act.kind.value,
            target=act.target_id,
            number=act.number,
            reason=act.reason.value,
            clause=act.clause,
            asked_by=act.asked_by,
            asked_at=act.asked_at,
            approved_by=act.approved_by,
            approved_at=act.approved_at,
            expires_at=act.expires_at,
        )


class CasePictureOut(BaseModel):
    """A picture of a case."""

    id: str
    is_withheld: bool
    generation: str | None
    made_at: datetime
    record: int | None
    url: str


class CaseJobOut(BaseModel):
    """A wish of a case, and how it ended."""

    id: str
    status: str
    created_at: datetime


class CaseOut(BaseModel):
    """Everything ever made of an identity that is still here."""

    object: Literal["case"] = "case"
    act: ActOut
    pictures: list[CasePictureOut]
    generations: list[CaseJobOut]
    reviews: list[ReviewOut]
    entries: list[dict[str, Any]] = Field(description="What the audit log says.")


class SweepOut(BaseModel):
    """What looks the same at this tenant."""

    object: Literal["sweep"] = "sweep"
    found: int
    removed: int
    reviews: list[ReviewOut]


@router.get("/review_queues")
def list_queues(service: ServiceOf, caller: Reviewer) -> Page[QueueOut]:
    """How every queue stands, the most urgent kind first."""
    queues = [
        QueueOut(
            queue=one.queue.value,
            waiting=one.waiting,
            overdue=one.overdue,
            next_due_at=one.next_due_at,
        )
        for one in service.reviews.queues(caller.tenant_id)
    ]
    return page_of(queues, [one.queue for one in queues], has_more=False)


@router.get("/reviews")
def list_reviews(
    service: ServiceOf,
    caller: Reviewer,
    queue: Annotated[Queue | None, Query(description="Only of this queue.")] = None,
    state: Annotated[
        list[ReviewState] | None, Query(description="Only these; without it what waits.")
    ] = None,
    limit: Limit = 20,
    before: Before = None,
) -> Page[ReviewOut]:
    """Reviews of this tenant, the longest waiting first."""
    last = None if before is None else service.reviews.get(caller.tenant_id, before)
    states = state or [ReviewState.OPEN, ReviewState.NEEDS_SECOND]
    found = service.reviews.find(caller.tenant_id, queue, states, limit + 1, last)
    shown = found[:limit]
    told = [ReviewOut.of(review) for review in shown]
    return page_of(told, [review.id for review in shown], len(found) > limit)


@router.get("/reviews/{review_id}")
def get_review(service: ServiceOf, caller: Reviewer, review_id: str) -> ReviewWhole:
    """One review, what was said about it and what was decided."""
    return _whole(service, service.reviews.get(caller.tenant_id, review_id))


@router.get("/reviews/{review_id}/picture", response_class=Response, responses=_PICTURE)
def get_blurred(service: ServiceOf, caller: Reviewer, review_id: str) -> Response:
    """The picture as a reviewer sees it first: grey, blurred, marked. The look is logged."""
    return _picture(service.oversight.look(caller.tenant_id, review_id, caller.actor))


@router.get("/reviews/{review_id}/picture/clear", response_class=Response, responses=_PICTURE)
def get_clear(service: ServiceOf, caller: Reviewer, review_id: str) -> Response:
    """The picture in clear, marked. Logged; a flagged one needs two reviewers."""
    look = service.oversight.look
    return _picture(look(caller.tenant_id, review_id, caller.actor, in_clear=True))


@router.post("/reviews/{review_id}/decisions")
def decide(
    service: ServiceOf, caller: Reviewer, review_id: str, request: DecisionRequest
) -> ReviewWhole:
    """Decide a review. A release happens when a second reviewer decides the same."""
    decided = service.reviews.decide(
        caller.tenant_id,
        review_id,
        request.ruling,
        request.reason,
        request.clause,
        caller.actor,
        request.note,
    )
    return _whole(service, decided)


@router.post("/reviews/{review_id}/pictures", status_code=201)
def attach_picture(
    service: ServiceOf, caller: Reviewer, review_id: str, request: PictureRequest
) -> ReviewOut:
    """Queue a picture a reviewer found for the same notice, under its clock."""
    review = service.reviews.get(caller.tenant_id, review_id)
    attach = service.reviews.attach
    return ReviewOut.of(attach(review, caller.tenant_id, request.image, caller.actor))


@router.post("/reviews/{review_id}/sweep")
def sweep(service: ServiceOf, caller: Reviewer, review_id: str, request: SweepRequest) -> SweepOut:
    """Find every picture that looks like this one, and queue or withhold it."""
    found = service.oversight.sweep(
        caller.tenant_id, review_id, caller.actor, request.remove, request.distance
    )
    told = [ReviewOut.of(review) for review in found.queued]
    return SweepOut(found=len(told), removed=found.removed, reviews=told)


@router.post("/reviews/{review_id}/acts", status_code=201)
def ask_act(service: ServiceOf, caller: Reviewer, review_id: str, request: ActRequest) -> ActOut:
    """Ask for a dangerous act about a review; another reviewer approves it."""
    review = service.reviews.get(caller.tenant_id, review_id)
    act = service.reviews.acts.ask(
        caller.tenant_id,
        ActKind(request.act),
        review_id,
        request.reason,
        request.clause,
        caller.actor,
        review.owner_id,
    )
    return ActOut.of(act)


@router.get("/reviews/{review_id}/evidence", response_class=Response, responses=_ZIP)
def get_evidence(service: ServiceOf, caller: Reviewer, review_id: str) -> Response:
    """Picture, decisions and proofs as a zip; needs an approved `export_evidence`."""
    data = service.oversight.evidence_of_review(caller.tenant_id, review_id, caller.actor)
    return _zip(data, review_id)


@router.get("/review_acts")
def list_acts(service: ServiceOf, caller: Reviewer, waiting: bool = True) -> Page[ActOut]:
    """Dangerous acts, newest first; those that wait for approval unless all are asked for."""
    acts = service.reviews.acts.find(caller.tenant_id, waiting=waiting)
    return page_of([ActOut.of(act) for act in acts], [act.id for act in acts], has_more=False)


@router.post("/review_acts/{act_id}/approve")
def approve_act(service: ServiceOf, caller: Reviewer, act_id: str) -> ActOut:
    """Agree to what another reviewer asked for; both may do it for an hour."""
    return ActOut.of(service.oversight.approve(caller.tenant_id, act_id, caller.actor))


@router.post("/cases", status_code=201)
def open_case(service: ServiceOf, caller: Reviewer, request: CaseRequest) -> ActOut:
    """Ask for everything ever made of an identity; gets a case number, shows nothing yet."""
    words = (request.reason, request.clause, caller.actor)
    return ActOut.of(service.cases.ask(caller.tenant_id, request.identity, *words))


@router.get("/cases")
def list_cases(service: ServiceOf, caller: Reviewer) -> Page[ActOut]:
    """Cases of this tenant, newest first."""
    cases = service.cases.find(caller.tenant_id)
    return page_of([ActOut.of(one) for one in cases], [one.id for one in cases], has_more=False)


@router.get("/cases/{case_id}")
def get_case(service: ServiceOf, caller: Reviewer, case_id: str) -> CaseOut:
    """What is in a case; for the two who agreed to it, for an hour. The look is logged."""
    return _case(service.cases.contents(caller.tenant_id, case_id, caller.actor))


@router.get("/cases/{case_id}/pictures/{picture_id}", response_class=Response, responses=_PICTURE)
def get_case_picture(
    service: ServiceOf,
    caller: Reviewer,
    case_id: str,
    picture_id: str,
    clear: Annotated[bool, Query(description="Not blurred.")] = False,
) -> Response:
    """A picture of a case, blurred unless asked for in clear. Logged."""
    look = service.oversight.look_into_case
    return _picture(look(caller.tenant_id, case_id, picture_id, caller.actor, in_clear=clear))


@router.post("/cases/{case_id}/evidence", status_code=201)
def ask_case_evidence(
    service: ServiceOf, caller: Reviewer, case_id: str, request: ActRequest
) -> ActOut:
    """Ask to export the evidence of a case; another reviewer approves it."""
    case = service.cases.get(caller.tenant_id, case_id)
    act = service.reviews.acts.ask(
        caller.tenant_id,
        ActKind.EXPORT_EVIDENCE,
        case_id,
        request.reason,
        request.clause,
        caller.actor,
        case.target_id,
    )
    return ActOut.of(act)


@router.get("/cases/{case_id}/evidence", response_class=Response, responses=_ZIP)
def get_case_evidence(service: ServiceOf, caller: Reviewer, case_id: str) -> Response:
    """All of a case as a zip; needs an approved `export_evidence`."""
    data = service.oversight.evidence_of_case(caller.tenant_id, case_id, caller.actor)
    return _zip(data, case_id)


def _whole(service: Service, review: Review) -> ReviewWhole:
    notice = service.takedowns.read_statement(review)
    history = service.reviews.history(review.tenant_id, review.id)
    return ReviewWhole(
        **_facts(review),
        note=service.reviews.read_note(review.tenant_id, review.id),
        statement="" if notice is None else notice.statement,
        where="" if notice is None else notice.where,
        decisions=[DecisionOut.of(decision) for decision in history],
    )


def _facts(review: Review) -> dict[str, Any]:
    return {
        "id": review.id,
        "queue": review.queue.value,
        "state": review.state.value,
        "reason": review.reason,
        "identity": review.identity_id,
        "generation": review.job_id,
        "image": review.image_id,
        "is_withheld": review.withheld_id is not None,
        "has_picture": review.has_picture,
        "needs_two_to_open": review.needs_two_to_open,
        "takedown": review.takedown_id,
        "checks": dict(review.checks),
        "created_at": review.created_at,
        "due_at": review.due_at,
        "is_overdue": review.is_overdue(utc_now()),
        "decided_at": review.decided_at,
        "ruling": None if review.ruling is None else review.ruling.value,
    }


def _case(contents: CaseContents) -> CaseOut:
    place = f"/v1/cases/{contents.act.id}/pictures"
    return CaseOut(
        act=ActOut.of(contents.act),
        pictures=[
            CasePictureOut(
                id=one.id,
                is_withheld=one.is_withheld,
                generation=one.job_id,
                made_at=one.made_at,
                record=one.record,
                url=f"{place}/{one.id}",
            )
            for one in contents.pictures
        ],
        generations=[
            CaseJobOut(id=job.id, status=job.state, created_at=job.created_at)
            for job in contents.jobs
        ],
        reviews=[ReviewOut.of(review) for review in contents.reviews],
        entries=[entry.facts for entry in contents.entries],
    )


def _picture(file: PictureFile) -> Response:
    return Response(file.data, media_type=file.media_type)


def _zip(data: bytes, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="evidence_{name}.zip"'}
    return Response(data, media_type="application/zip", headers=headers)

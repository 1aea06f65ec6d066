"""/v1/identities: people made known, looked at, taken along and forgotten."""

from __future__ import annotations

import io
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, File, Form, Query, UploadFile
from starlette.responses import Response

from imagine.service.auth import Caller, caller_with
from imagine.service.enrolment import consent_form, read_choice, ticked
from imagine.service.routers.asking import (
    Before,
    Limit,
    ServiceOf,
    cut,
    page_of,
    read_photos,
)
from imagine.service.schemas import (
    ConsentOut,
    ConsentRequest,
    Erased,
    IdentityOut,
    Page,
    PhotoReportOut,
    Withdrawn,
    WithdrawRequest,
)
from imagine.service.wiring import Service
from imagine.storage.consent import TICKS, ConsentForm
from imagine.storage.erasure import Outputs
from imagine.storage.people import IdentityFacts

router = APIRouter(prefix="/v1", tags=["identities"])

BODY_BYTES = 5 * 15 * 1024 * 1024 + 1024 * 1024  # five photos and a form around them
Reader = Annotated[Caller, Depends(caller_with("identities:read"))]
Writer = Annotated[Caller, Depends(caller_with("identities:write"))]
Photos = Annotated[list[UploadFile], File(min_length=1, description="One to five, 15 MB each.")]
Choice = Annotated[
    str | None,
    Form(max_length=1000, description='Which face is yours: {"1": 0} is face 0 of photo 1.'),
]


@router.post("/identities", status_code=201, max_body_size=BODY_BYTES)
def create_identity(
    service: ServiceOf,
    caller: Writer,
    photos: Photos,
    consent_text: Annotated[
        str, Form(max_length=50_000, description="Exactly the text that was shown.")
    ],
    declared_adult: Annotated[bool, Form(description='"I am of age" was ticked.')],
    declared_self: Annotated[bool, Form(description='"This is me" was ticked.')],
    consent_purposes: Annotated[
        list[str], Form(description="The ticks: generate, keep_photos, review, improve.")
    ] = ["generate"],  # noqa: B006 - FastAPI copies defaults
    consent_locale: Annotated[str, Form(max_length=35)] = "en",
    consent_method: Annotated[str, Form(max_length=64)] = "api",
    consent_days: Annotated[int, Form(ge=1, le=1095)] = 365,
    name: Annotated[str, Form(max_length=200, description="Sealed; only you see it.")] = "",
    person_id: Annotated[
        str | None, Form(max_length=64, description="Somebody known: makes the next version.")
    ] = None,
    choose: Choice = None,
) -> IdentityOut:
    """Make a person known from one to five photos; when anything is wrong nothing is kept."""
    form = consent_form(
        consent_text,
        consent_purposes,
        declared_adult=declared_adult,
        declared_self=declared_self,
        locale=consent_locale,
        method=consent_method,
        days=consent_days,
    )
    data = read_photos(photos, service.limits.max_photos, service.limits.max_photo_bytes)
    enrolled = service.enrolment.enrol(
        caller.tenant_id,
        data,
        form,
        name,
        person_id or None,
        read_choice(choose, len(data)),
        caller.actor,
    )
    return IdentityOut.of(enrolled.facts, name, enrolled.reports)


@router.post("/photo_checks", max_body_size=BODY_BYTES)
def check_photos(
    service: ServiceOf, caller: Writer, photos: Photos, choose: Choice = None
) -> list[PhotoReportOut]:
    """Say of each photo whether it can be used and how to take a better one; keeps nothing."""
    data = read_photos(photos, service.limits.max_photos, service.limits.max_photo_bytes)
    reports = service.enrolment.check(data, read_choice(choose, len(data)))
    return [PhotoReportOut.of(report) for report in reports]


@router.get("/identities")
def list_identities(
    service: ServiceOf, caller: Reader, limit: Limit = 20, before: Before = None
) -> Page[IdentityOut]:
    """The people of this tenant, newest first."""
    newest = service.people.identities(caller.tenant_id)[::-1]
    part, has_more = cut([facts.id for facts in newest], limit, before)
    chosen = newest[part]
    told = [_told(service, caller, facts) for facts in chosen]
    return page_of(told, [facts.id for facts in chosen], has_more)


@router.get("/identities/{identity_id}")
def get_identity(service: ServiceOf, caller: Reader, identity_id: str) -> IdentityOut:
    """One person."""
    return _told(service, caller, service.people.identity(caller.tenant_id, identity_id))


@router.delete("/identities/{identity_id}")
def delete_identity(
    service: ServiceOf,
    caller: Writer,
    identity_id: str,
    pictures: Annotated[
        Literal["delete", "keep"], Query(description="What becomes of pictures made of them.")
    ] = "delete",
) -> Erased:
    """Forget a person for good; the answer is the signed certificate of it."""
    receipt = service.enrolment.erase(caller.tenant_id, identity_id, Outputs(pictures))
    return Erased(
        id=identity_id,
        certificate=receipt.certificate,
        person_certificate=receipt.person_certificate,
    )


@router.get(
    "/identities/{identity_id}/export",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}, "description": "Everything, as a zip."}},
)
def export_identity(service: ServiceOf, caller: Writer, identity_id: str) -> Response:
    """Everything about this person in one zip, readable without our software."""
    person_id = service.people.identity(caller.tenant_id, identity_id).person_id
    archive = io.BytesIO()
    service.porter.export_person(caller.tenant_id, person_id, archive, caller.actor)
    headers = {"Content-Disposition": f'attachment; filename="{person_id}.zip"'}
    return Response(archive.getvalue(), media_type="application/zip", headers=headers)


@router.get("/identities/{identity_id}/consents")
def list_consents(service: ServiceOf, caller: Reader, identity_id: str) -> Page[ConsentOut]:
    """Every consent of a person, newest first; also those that ended."""
    service.people.identity(caller.tenant_id, identity_id)
    history = service.consents.history(caller.tenant_id, identity_id)[::-1]
    told = [ConsentOut.of(consent) for consent in history]
    return page_of(told, [consent.id for consent in history], has_more=False)


@router.post("/identities/{identity_id}/consents", status_code=201)
def give_consent(
    service: ServiceOf, caller: Writer, identity_id: str, request: ConsentRequest
) -> ConsentOut:
    """Put another consent on record."""
    form = _form(request)
    return ConsentOut.of(service.consents.give(caller.tenant_id, identity_id, form))


@router.post("/identities/{identity_id}/withdraw")
def withdraw_consent(
    service: ServiceOf,
    caller: Writer,
    identity_id: str,
    request: WithdrawRequest | None = None,
) -> Withdrawn:
    """Take consent back, at once: nothing is made any more, and what is being made stops."""
    purposes = None if request is None else request.purposes
    ticks = TICKS if purposes is None else ticked(purposes)
    canceled = service.consents.withdraw(caller.tenant_id, identity_id, ticks, caller.actor)
    service.worker.wake()
    facts = service.people.identity(caller.tenant_id, identity_id)
    return Withdrawn(identity=identity_id, state=facts.state.value, generations_canceled=canceled)


def _told(service: Service, caller: Caller, facts: IdentityFacts) -> IdentityOut:
    return IdentityOut.of(facts, service.people.read_identity_name(caller.tenant_id, facts.id))


def _form(request: ConsentRequest) -> ConsentForm:
    return consent_form(
        request.text,
        request.purposes,
        declared_adult=request.declared_adult,
        declared_self=request.declared_self,
        locale=request.locale,
        method=request.method,
        days=request.days,
    )

"""/v1/identities: people made known, looked at, taken along and forgotten."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, File, Form, Query, UploadFile
from starlette.responses import Response

from imagine.errors import NotStored
from imagine.service.auth import Caller, caller_with
from imagine.service.enrolment import (
    Enrolled,
    check_consent,
    consent_form,
    read_choice,
    ticked,
)
from imagine.service.errors import BadParameter
from imagine.service.routers.asking import (
    Before,
    IdempotencyKey,
    Limit,
    ServiceOf,
    cut,
    page_of,
    read_photos,
)
from imagine.service.schemas import (
    ConsentOut,
    ConsentRequest,
    ConsentTokenOut,
    ConsentTokenRequest,
    Erased,
    IdentityOut,
    Imported,
    Page,
    PersonOut,
    PhotoReportOut,
    Withdrawn,
    WithdrawRequest,
)
from imagine.service.wiring import Service
from imagine.storage.consent import TICKS, ConsentForm
from imagine.storage.erasure import Outputs
from imagine.storage.export import ImportLimits
from imagine.storage.people import IdentityFacts

router = APIRouter(prefix="/v1", tags=["identities"])

BODY_BYTES = 5 * 15 * 1024 * 1024 + 1024 * 1024  # five photos and a form around them
# Each face of an import is measured anew, so that fewer people come in at once than could be read.
IMPORT_LIMITS = ImportLimits(identities=20)
Reader = Annotated[Caller, Depends(caller_with("identities:read"))]
Writer = Annotated[Caller, Depends(caller_with("identities:write"))]


class ConsentFields:
    """A consent as fields of an upload."""

    def __init__(
        self,
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
        consent_token: Annotated[
            str | None, Form(max_length=200, description="Of the form that was shown.")
        ] = None,
    ) -> None:
        self.text, self.purposes, self.locale = consent_text, consent_purposes, consent_locale
        self.declared_adult, self.declared_self = declared_adult, declared_self
        self.method, self.days, self.token = consent_method, consent_days, consent_token

    def form(self) -> ConsentForm:
        """As it is put on record."""
        return consent_form(
            self.text,
            self.purposes,
            declared_adult=self.declared_adult,
            declared_self=self.declared_self,
            locale=self.locale,
            method=self.method,
            days=self.days,
        )

    def used_once(self, service: Service, caller: Caller) -> AbstractContextManager[None]:
        """Use the token of the form up, unless the block fails."""
        return token_used(service, caller, self.token, self.text)

    def facts(self) -> list[object]:
        """All of it, to tell a repeat from another request."""
        return [*vars(self).values()]


Consented = Annotated[ConsentFields, Depends()]
Photos = Annotated[list[UploadFile], File(min_length=1, description="One to five, 15 MB each.")]
Choice = Annotated[
    str | None,
    Form(max_length=1000, description='Which face is yours: {"1": 0} is face 0 of photo 1.'),
]


@router.post("/identities", status_code=201, max_body_size=BODY_BYTES)
def create_identity(
    service: ServiceOf,
    caller: Writer,
    response: Response,
    photos: Photos,
    consent: Consented,
    name: Annotated[str, Form(max_length=200, description="Sealed; only you see it.")] = "",
    person_id: Annotated[
        str | None, Form(max_length=64, description="Somebody known: makes the next version.")
    ] = None,
    choose: Choice = None,
    idempotency_key: IdempotencyKey = None,
) -> IdentityOut:
    """Make a person known from one to five photos; when anything is wrong nothing is kept."""
    form = consent.form()
    data = read_photos(photos, service.limits.max_photos, service.limits.max_photo_bytes)
    choice = read_choice(choose, len(data))

    def enrolled() -> Enrolled:
        with consent.used_once(service, caller):
            return service.enrolment.enrol(
                caller.tenant_id, data, form, name, person_id or None, choice, caller.actor
            )

    asked = ["enrol", name, person_id, choose, *consent.facts()]
    return _once(service, caller, response, idempotency_key, asked, data, enrolled)


@router.post("/identities/{identity_id}/photos", status_code=201, max_body_size=BODY_BYTES)
def add_photos(
    service: ServiceOf,
    caller: Writer,
    response: Response,
    identity_id: str,
    photos: Photos,
    consent: Consented,
    choose: Choice = None,
    idempotency_key: IdempotencyKey = None,
) -> IdentityOut:
    """Make the next version of a person from what is there and more photos; the old one stays."""
    form = consent.form()
    data = read_photos(photos, service.limits.max_photos, service.limits.max_photo_bytes)
    choice = read_choice(choose, len(data))
    service.people.identity(caller.tenant_id, identity_id)

    def enrolled() -> Enrolled:
        with consent.used_once(service, caller):
            return service.enrolment.add_photos(
                caller.tenant_id, identity_id, data, form, choice, caller.actor
            )

    asked = ["add", identity_id, choose, *consent.facts()]
    return _once(service, caller, response, idempotency_key, asked, data, enrolled)


@router.post("/identities/imports", status_code=201, max_body_size=BODY_BYTES)
def import_person(
    service: ServiceOf,
    caller: Writer,
    archive: Annotated[
        UploadFile, File(description="The zip that the export of another service gave, 75 MB.")
    ],
    consent: Consented,
) -> Imported:
    """Take a person in from their export; when anything is wrong nothing is kept.

    They agree anew, here: no consent of the archive counts. Faces are measured again from the
    archive and judged like any enrolment; photos come along with the tick `keep_photos` alone.
    """
    form = consent.form()
    check_consent(form)
    with consent.used_once(service, caller):
        person_id = service.porter.import_person(
            caller.tenant_id, archive.file, form, IMPORT_LIMITS, caller.actor
        )
    made = service.people.identities(caller.tenant_id, person_id)
    return Imported(
        person_id=person_id, identities=[_told(service, caller, facts) for facts in made]
    )


@router.post("/consent_tokens", status_code=201)
def issue_consent_token(
    service: ServiceOf, caller: Writer, request: ConsentTokenRequest
) -> ConsentTokenOut:
    """A token for a form that is about to be shown: good once, for this text, for an hour."""
    issued = service.consent_tokens.issue(caller.tenant_id, request.text)
    return ConsentTokenOut(
        token=issued.token, text_sha256=issued.text_sha256, expires_at=issued.expires_at
    )


@router.get("/people")
def list_people(
    service: ServiceOf, caller: Reader, limit: Limit = 20, before: Before = None
) -> Page[PersonOut]:
    """Everybody known here, by their newest identity, newest first."""
    people = _people(service, caller)
    part, has_more = cut([one.id for one in people], limit, before)
    return page_of(people[part], [one.id for one in people[part]], has_more)


@router.get("/people/{person_id}")
def get_person(service: ServiceOf, caller: Reader, person_id: str) -> PersonOut:
    """Somebody and their identities."""
    found = next((one for one in _people(service, caller) if one.id == person_id), None)
    if found is None:
        raise NotStored(f"There is no person {person_id[:80]!r} here.")
    return found


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
    service.people.identity(caller.tenant_id, identity_id)
    with token_used(service, caller, request.token, request.text, "token"):
        given = service.consents.give(caller.tenant_id, identity_id, form)
    return ConsentOut.of(given)


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


@contextmanager
def token_used(
    service: Service, caller: Caller, token: str | None, text: str, param: str = "consent_token"
) -> Iterator[None]:
    """Use a consent token up, unless the block, which records the consent, fails.

    Raises:
        BadParameter: this service wants one, and none was sent.
        ConsentTokenInvalid, ConsentTokenUsed: as `ConsentTokens.use`.
    """
    if token is None:
        if service.settings.needs_consent_token:
            raise BadParameter(
                param,
                "A consent counts here only with the token of the form that was shown. Ask for "
                "one at POST /v1/consent_tokens.",
            )
        yield
        return
    give_back = service.consent_tokens.use(caller.tenant_id, token, text)
    try:
        yield
    except BaseException:
        give_back()
        raise


def _once(
    service: Service,
    caller: Caller,
    response: Response,
    key: str | None,
    asked: list[object],
    photos: list[bytes],
    enrol: Callable[[], Enrolled],
) -> IdentityOut:
    """Enrol, unless the same request has done so before."""
    begun = None
    if key is not None:
        digests = [hashlib.sha256(photo).hexdigest() for photo in photos]
        body = json.dumps([*asked, *digests]).encode()
        begun = service.enrolment_requests.begin(caller.tenant_id, key, body)
        if begun.identity_id is not None:
            response.headers["Idempotent-Replayed"] = "true"
            facts = service.people.identity(caller.tenant_id, begun.identity_id)
            return _told(service, caller, facts)
    made: str | None = None
    try:
        enrolled = enrol()
        made = enrolled.facts.id
    finally:
        if begun is not None:
            service.enrolment_requests.end(caller.tenant_id, begun.id, made)
    name = service.people.read_identity_name(caller.tenant_id, enrolled.facts.id)
    return IdentityOut.of(enrolled.facts, name, enrolled.standing, enrolled.reports)


def _people(service: Service, caller: Caller) -> list[PersonOut]:
    """Everybody with an identity, whoever has the newest first."""
    versions: dict[str, list[IdentityFacts]] = {}
    for facts in service.people.identities(caller.tenant_id)[::-1]:
        versions.setdefault(facts.person_id, []).append(facts)
    return [
        PersonOut(
            id=person_id,
            identity=found[0].id,
            identities=[facts.id for facts in found],
            created_at=found[-1].created_at,
        )
        for person_id, found in versions.items()
    ]


def _told(service: Service, caller: Caller, facts: IdentityFacts) -> IdentityOut:
    name = service.people.read_identity_name(caller.tenant_id, facts.id)
    return IdentityOut.of(facts, name, service.standings.of(caller.tenant_id, facts.id))


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

"""/v1/transparency: policy, models, papers and keys of this service, for anybody."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.responses import Response

from imagine.service.auth import anybody
from imagine.service.documents import document, documents
from imagine.service.routers.asking import ServiceOf
from imagine.settings import VERSION
from imagine.storage.acts import POLICY_CLAUSES

router = APIRouter(
    prefix="/v1/transparency", tags=["transparency"], dependencies=[Depends(anybody)]
)


class DocumentOut(BaseModel):
    """A paper of this service."""

    name: str
    title: str
    sha256: str
    url: str


class PolicyOut(BaseModel):
    """What decides what may be made, and its hash, which every picture names."""

    sha256: str
    clauses: dict[str, str]
    facts: dict[str, Any]
    checks_switched_off: list[str]


class KeptFor(BaseModel):
    """A class of things and how long it is kept."""

    what: str
    kept_for: str
    counted_from: str
    then: str


class Transparency(BaseModel):
    """What everybody may know of this service."""

    object: Literal["transparency"] = "transparency"
    version: str
    model: str
    policy: PolicyOut
    retention: list[KeptFor]
    audit_log_key: str = Field(description="Checks evidence and exports of the audit log offline.")
    documents: list[DocumentOut]


@router.get("")
def get_transparency(service: ServiceOf) -> Transparency:
    """Policy and its hash, retention, public key, and where the papers are."""
    rules = service.retention.policy
    safety = service.safety
    return Transparency(
        version=VERSION,
        model=service.models.name,
        policy=PolicyOut(
            sha256=safety.sha256,
            clauses=POLICY_CLAUSES,
            facts=safety.facts(),
            checks_switched_off=list(service.checks_off),
        ),
        retention=[
            KeptFor(what=what, kept_for=time, counted_from=since, then=then)
            for what, time, since, then in rules.schedule()
        ],
        audit_log_key=str(service.log.verifier_key),
        documents=[
            DocumentOut(
                name=one.name,
                title=one.title,
                sha256=one.sha256,
                url=f"/v1/transparency/{one.name}",
            )
            for one in documents(rules).values()
        ],
    )


@router.get(
    "/{document_name}",
    response_class=Response,
    responses={200: {"description": "Markdown.", "content": {"text/markdown": {}}}},
)
def get_document(service: ServiceOf, document_name: str) -> Response:
    """One of the papers."""
    found = document(service.retention.policy, document_name)
    return Response(found.text, media_type="text/markdown; charset=utf-8")

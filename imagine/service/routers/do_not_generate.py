"""/v1/do_not_generate: people who ask never to be shown. Needs no account."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, File, Form, Request, UploadFile
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from imagine.service.admission import Answer
from imagine.service.auth import Caller, caller_with, registering
from imagine.service.errors import BadParameter
from imagine.service.routers.asking import ServiceOf, read_photos
from imagine.service.routers.challenges import ChallengeOut, read_frames
from imagine.service.routers.identities import Photos
from imagine.service.schemas import Strict

router = APIRouter(prefix="/v1/do_not_generate", tags=["do not generate"])

LIST_BYTES = 16 * 1024 * 1024
PUBLIC_BYTES = 32 * 1024 * 1024  # two large photos and a camera check; nobody is known here
Operator = Annotated[Caller, Depends(caller_with("safety:write"))]
Anybody = Depends(registering)


class Protected(BaseModel):
    """You are on the list. The token is shown once; with it you can take yourself off again."""

    object: Literal["protection"] = "protection"
    id: str
    token: str
    method: Literal["camera", "declaration"]
    created_at: datetime
    words: str


class TokenRequest(Strict):
    """The token somebody was given when they registered."""

    token: str = Field(min_length=1, max_length=200)


class Unprotected(BaseModel):
    """The entry is gone, and the key that opened it is destroyed."""

    withdrawn_at: datetime


class Imported(BaseModel):
    """A signed list was taken over."""

    entries: int = Field(description="How many of them are new.")


@router.post("/challenges", status_code=201, dependencies=[Anybody])
def begin_public_challenge(service: ServiceOf) -> ChallengeOut:
    """Begin a camera check, to register with it."""
    return ChallengeOut.of(service.admission.issue_to_anybody())


@router.post("", status_code=201, max_body_size=PUBLIC_BYTES, dependencies=[Anybody])
def register(
    service: ServiceOf,
    photos: Photos,
    declared_self: Annotated[bool, Form(description='"These photos show me."')],
    agreed: Annotated[
        bool,
        Form(description='"Keep a description of my face for nothing but to refuse pictures."'),
    ],
    challenge_id: Annotated[str, Form(max_length=64)] = "",
    nonce: Annotated[str, Form(max_length=64)] = "",
    frames: Annotated[list[UploadFile] | None, File(description="Of a camera check.")] = None,
) -> Protected:
    """Never be shown here: from now on nobody can enrol you, and pictures of you are held back.

    The photos and frames are dropped; what stays is a sealed description of the face.
    """
    if not declared_self:
        raise BadParameter("declared_self", "Only you can register yourself. Say that it is you.")
    if not agreed:
        raise BadParameter(
            "agreed", "Without a description of your face nobody can be refused because of it."
        )
    data = read_photos(photos, service.limits.max_photos, service.limits.max_photo_bytes)
    answer = Answer(challenge_id, nonce, read_frames(frames or [])) if challenge_id else None
    made = service.admission.protect(data, answer)
    return Protected(
        id=made.id,
        token=made.token,
        method="camera" if answer else "declaration",
        created_at=made.created_at,
        words="You are on the list. Keep the token: only it takes you off again.",
    )


@router.post("/withdraw", dependencies=[Anybody])
def withdraw(service: ServiceOf, request: TokenRequest) -> Unprotected:
    """Take yourself off the list with the token you were given."""
    return Unprotected(withdrawn_at=service.protected.withdraw(request.token))


@router.post(
    "/import",
    max_body_size=LIST_BYTES,
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": {}}}}
    },
)
async def import_list(service: ServiceOf, caller: Operator, request: Request) -> Imported:
    """Take over a list that a key trusted by the operator has signed."""
    content = await request.body()
    return Imported(entries=await run_in_threadpool(_import, service, content, caller.actor))


def _import(service: ServiceOf, content: bytes, actor: str) -> int:
    return service.admission.import_list(content, actor)

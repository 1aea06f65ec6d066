"""/v1/identities/{id}/challenges: the camera check that verifies an identity."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, File, Form, Path, UploadFile
from pydantic import BaseModel, Field

from imagine.safety.enrolment import ChallengeState, Stage, Turn
from imagine.service.admission import MAX_FRAME_BYTES, MAX_FRAMES, Answer
from imagine.service.auth import Caller, caller_with
from imagine.service.routers.asking import ServiceOf
from imagine.service.schemas import ID_PATTERN
from imagine.storage.verified import StoredChallenge

router = APIRouter(prefix="/v1/identities/{identity_id}", tags=["identities"])

FRAMES_BYTES = MAX_FRAMES * MAX_FRAME_BYTES // 2  # most are far smaller; a form around them
Writer = Annotated[Caller, Depends(caller_with("identities:write"))]
Reviewer = Annotated[Caller, Depends(caller_with("images:review"))]
Frames = Annotated[
    list[UploadFile],
    File(description="JPEG frames of the camera, in order, not mirrored, about ten a second."),
]
Nonce = Annotated[str, Form(max_length=64, description="As it was given with the check.")]


class ChallengeOut(BaseModel):
    """A camera check: look where `poses` say, one after the other, and send the frames."""

    object: Literal["challenge"] = "challenge"
    id: str
    nonce: str = Field(description="Goes back with the frames; given once.")
    poses: list[Turn] = Field(description="Left and right are the person's own.")
    issued_at: datetime
    deadline_at: datetime

    @classmethod
    def of(cls, stored: StoredChallenge) -> ChallengeOut:
        """As it is told."""
        return cls(
            id=stored.id,
            nonce=stored.nonce,
            poses=[Turn(pose) for pose in stored.poses],
            issued_at=stored.issued_at,
            deadline_at=stored.deadline_at,
        )


class ChallengeResult(BaseModel):
    """What came of a camera check; it is used up either way."""

    object: Literal["challenge.result"] = "challenge.result"
    id: str
    status: Literal["passed", "failed"]
    code: str = Field(description="Why it failed, e.g. late, jump, not_the_uploads; else empty.")
    words: str
    verification: Literal["verified", "unverified"]


class Cleared(BaseModel):
    """An identity that a reviewer has looked at."""

    id: str
    waits_for_review: bool
    cleared_at: datetime


@router.post("/challenges", status_code=201)
def begin_challenge(service: ServiceOf, caller: Writer, identity_id: str) -> ChallengeOut:
    """Begin a camera check; an older one of this person is void from now on."""
    return ChallengeOut.of(service.admission.issue(caller.tenant_id, identity_id))


@router.post("/challenges/{challenge_id}", max_body_size=FRAMES_BYTES)
def answer_challenge(
    service: ServiceOf,
    caller: Writer,
    identity_id: str,
    challenge_id: Annotated[str, Path(pattern=ID_PATTERN)],
    frames: Frames,
    nonce: Nonce,
) -> ChallengeResult:
    """Send the frames of a camera check, once. They are measured and dropped."""
    answer = Answer(challenge_id, nonce, read_frames(frames))
    state = service.admission.answer(caller.tenant_id, identity_id, answer, caller.actor)
    standing = service.standings.of(caller.tenant_id, identity_id)
    return _told(challenge_id, state, standing.is_verified)


@router.post("/clearance")
def clear_identity(service: ServiceOf, caller: Reviewer, identity_id: str) -> Cleared:
    """Let pictures be made of somebody who looked young; for reviewers, who have looked."""
    standing = service.admission.clear(caller.tenant_id, identity_id, caller.actor)
    assert standing.cleared_at is not None
    return Cleared(id=identity_id, waits_for_review=False, cleared_at=standing.cleared_at)


def read_frames(uploads: list[UploadFile]) -> list[bytes]:
    """The bytes of camera frames; one too large is read only so far that this is seen."""
    return [upload.file.read(MAX_FRAME_BYTES + 1) for upload in uploads[: MAX_FRAMES + 1]]


def _told(challenge_id: str, state: ChallengeState, is_verified: bool) -> ChallengeResult:
    return ChallengeResult(
        id=challenge_id,
        status="passed" if state.stage is Stage.PASSED else "failed",
        code=state.code,
        words=state.words,
        verification="verified" if is_verified else "unverified",
    )

"""What went wrong, as the body of an HTTP answer: RFC 9457 with the `error` member of OpenAI.

Mistakes of the caller are explained in our own sentences. Faults of the service are told by kind
and request id alone: their messages may name files or hosts, so they go to the log, and not even
there goes a message that we did not write ourselves.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Match

from imagine.errors import (
    Busy,
    Cancelled,
    CheckMissing,
    ConsentMissing,
    ConsentTokenInvalid,
    ConsentTokenUsed,
    CorruptWeights,
    DatabaseUnusable,
    DataKeyDestroyed,
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
    LicenceRefused,
    MissingExtra,
    MissingWeights,
    NoFaceFound,
    NotMarked,
    NotStored,
    OutOfMemory,
    PictureWithheld,
    PolicyTampered,
    PoorPhoto,
    PromptBlocked,
    RateLimited,
    ReviewPending,
    ReviewRefused,
    ServiceUnreachable,
    SeveralFaces,
    SignInRefused,
    StorageError,
    UnknownName,
    UnreadablePhoto,
    UnsafeAddress,
    UnusableArchive,
    WebhookInvalid,
    WebhookReplayed,
)

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_TYPE = "urn:imagine-yourself:problem:"
# Here a mistake of the caller is 400, as clients of the OpenAI API expect.
_OPENAI_ROUTES = ("/v1/images/generations", "/v1/images/edits")


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as the caller sees it.

    Attributes:
        status: of the HTTP answer.
        code: stable machine name, e.g. "no_face_found".
        title: the kind in a few words, always the same for one code.
        detail: what happened this time and what to do next.
        error_type: OpenAI's family of the error.
        param: which argument is wrong, if one is.
        headers: of the answer.
        facts: further members of the body.
    """

    status: int
    code: str
    title: str
    detail: str
    error_type: str = "invalid_request_error"
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)

    def body(self, request_id: str) -> dict[str, object]:
        """The JSON of the answer."""
        error = {
            "message": self.detail,
            "type": self.error_type,
            "param": self.param,
            "code": self.code,
        }
        return {
            "type": _TYPE + self.code.replace("_", "-"),
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": f"urn:imagine-yourself:request:{request_id}",
            "request_id": request_id,
            **self.facts,
            "error": error,
        }


class Told(Exception):
    """An answer that is already worded.

    Attributes:
        problem: the answer.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.code)
        self.problem = problem


class BadParameter(InvalidInput):
    """An argument of a request is wrong; names it.

    Attributes:
        param: its name in the request.
    """

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one class of our errors is told; `is_ours` hides the message of a service fault."""

    status: int
    code: str
    title: str
    error_type: str = "invalid_request_error"
    is_ours: bool = False


# The first class that fits decides, so that children stand before their parents.
_KINDS: tuple[tuple[type[ImagineError], _Kind], ...] = (
    (NotStored, _Kind(404, "not_found", "Not found")),
    (UnknownName, _Kind(422, "unknown_name", "Unknown name")),
    (UnreadablePhoto, _Kind(422, "unreadable_photo", "Unreadable photo")),
    (NoFaceFound, _Kind(422, "no_face_found", "No usable face")),
    (SeveralFaces, _Kind(422, "several_faces", "Several faces")),
    (PoorPhoto, _Kind(422, "poor_photo", "Photo not good enough")),
    (DifferentPeople, _Kind(422, "different_people", "Photos of different people")),
    (IdempotencyConflict, _Kind(422, "idempotency_conflict", "Idempotency key used before")),
    (ConsentTokenUsed, _Kind(422, "consent_token_used", "Consent token used before")),
    (ConsentTokenInvalid, _Kind(422, "consent_token_invalid", "Consent token not good")),
    (UnsafeAddress, _Kind(422, "unsafe_address", "Address not allowed")),
    (WebhookReplayed, _Kind(422, "webhook_replayed", "Webhook came before")),
    (WebhookInvalid, _Kind(422, "webhook_invalid", "Webhook not good")),
    (UnusableArchive, _Kind(422, "unusable_archive", "Unusable archive")),
    (InvalidInput, _Kind(422, "invalid_input", "Invalid input")),
    (ConsentMissing, _Kind(403, "consent_missing", "No consent", "permission_error")),
    (
        ForgedRequest,
        _Kind(403, "request_forged", "Not asked by a page of ours", "permission_error"),
    ),
    (SignInRefused, _Kind(401, "sign_in_refused", "Sign-in refused", "authentication_error")),
    (KeyRefused, _Kind(401, "key_refused", "API key refused", "authentication_error")),
    (
        PromptBlocked,
        _Kind(403, "moderation_blocked", "Not allowed by policy", "image_generation_user_error"),
    ),
    (EnrolmentRefused, _Kind(422, "enrolment_refused", "May not become an identity")),
    (
        PictureWithheld,
        _Kind(403, "picture_withheld", "Picture withheld", "image_generation_user_error"),
    ),
    (ReviewRefused, _Kind(403, "review_refused", "Not by this reviewer", "permission_error")),
    (
        ReviewPending,
        _Kind(403, "review_pending", "Waits for a reviewer", "permission_error"),
    ),
    (RateLimited, _Kind(429, "rate_limit_exceeded", "Too many requests", "requests")),
    (Busy, _Kind(503, "busy", "Too much work waits", "server_error")),
    (JobStillRunning, _Kind(409, "request_in_progress", "Still being worked on")),
    (Cancelled, _Kind(409, "canceled", "Canceled")),
    (DeadlineExceeded, _Kind(504, "deadline_exceeded", "Not done in time", "server_error")),
    (DataKeyDestroyed, _Kind(404, "not_found", "Not found", is_ours=True)),
    (OutOfMemory, _Kind(503, "out_of_memory", "No room on the device", "server_error", True)),
    (
        GenerationFailed,
        _Kind(500, "generation_failed", "The model failed", "server_error"),
    ),
    (
        DatabaseUnusable,
        _Kind(503, "storage_unavailable", "Storage unavailable", "server_error", True),
    ),
    (StorageError, _Kind(500, "storage_failed", "Storage failed", "server_error", True)),
    (MissingWeights, _Kind(503, "model_missing", "Model missing", "server_error", True)),
    (CorruptWeights, _Kind(503, "model_missing", "Model missing", "server_error", True)),
    (CheckMissing, _Kind(503, "check_missing", "Safety check missing", "server_error", True)),
    (PolicyTampered, _Kind(503, "check_missing", "Safety check missing", "server_error", True)),
    (LicenceRefused, _Kind(503, "model_missing", "Model missing", "server_error", True)),
    (MissingExtra, _Kind(503, "model_missing", "Model missing", "server_error", True)),
    (
        ServiceUnreachable,
        _Kind(503, "sign_in_unavailable", "Sign-in unavailable", "server_error", True),
    ),
    (NotMarked, _Kind(500, "not_marked", "Picture not marked", "server_error", True)),
)
_UNKNOWN = _Kind(500, "internal_error", "Internal error", "server_error", True)

_HTTP_TITLES = {
    400: ("bad_request", "Bad request"),
    404: ("not_found", "Not found"),
    405: ("method_not_allowed", "Method not allowed"),
    413: ("body_too_large", "Body too large"),
    415: ("unsupported_media_type", "Unsupported media type"),
}
_HTTP_DETAILS = {
    404: "There is nothing here. Check the path and the id.",
    405: "This path does not take this method. See /openapi.json.",
    413: "The request is larger than this route takes. A photo may have 15 MB, the "
    "zip of an export 75 MB.",
}


def problem_of(error: Exception) -> Problem:
    """How an error is told to the caller; says nothing of a fault that is ours but its kind."""
    kind = next((kind for known, kind in _KINDS if isinstance(error, known)), _UNKNOWN)
    problem = Problem(
        status=kind.status,
        code=kind.code,
        title=kind.title,
        detail=_ours(kind) if kind.is_ours else str(error),
        error_type=kind.error_type,
    )
    match error:
        case KeyRefused() if error.lacks_scope:
            return replace(
                problem,
                status=403,
                code="scope_missing",
                title="Not allowed with this key",
                error_type="permission_error",
            )
        case ForgedRequest():
            return problem
        case KeyRefused():
            return replace(problem, headers={"WWW-Authenticate": "Bearer"})
        case Busy():
            return replace(problem, headers={"Retry-After": _whole(error.retry_after_seconds)})
        case PromptBlocked():
            facts = {"category": error.category, "clause": error.clause}
            moderation = {"stage": "prompt", **{k: v for k, v in facts.items() if v}}
            return replace(problem, param="prompt", facts={"moderation_details": moderation})
        case EnrolmentRefused() if error.code:
            return replace(problem, param="photos", facts={"reason": error.code})
        case ReviewRefused():
            status = 409 if error.code == "already_decided" else 403
            return replace(problem, status=status, facts={"reason": error.code})
        case JobStillRunning():
            return replace(problem, facts={"generation_id": error.job_id} if error.job_id else {})
        case BadParameter():
            return replace(problem, param=error.param)
    return problem


def problem_of_job(code: str, message: str, stage: str | None = None) -> Problem:
    """How a job that failed, was blocked or cancelled is told to somebody who waited for it."""
    kind = next((kind for _, kind in _KINDS if kind.code == code), _UNKNOWN)
    facts = {} if stage is None else {"moderation_details": {"stage": stage}}
    return Problem(kind.status, code, kind.title, message, kind.error_type, facts=facts)


def problem_of_validation(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """How arguments that do not fit their schema are told; what was given is not repeated."""
    named = [(_where(error["loc"]), str(error["msg"])) for error in errors]
    detail = "; ".join(f"{where or 'the body'}: {said}" for where, said in named[:5])
    return Problem(
        status=422,
        code="invalid_input",
        title="Invalid input",
        detail=f"{detail}. See /openapi.json for what this route takes.",
        param=named[0][0] or None if named else None,
        facts={"errors": [{"param": where, "message": said} for where, said in named]},
    )


def install_error_handlers(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Answer every error of this app with a problem; `routes` are those it has."""

    @app.exception_handler(ImagineError)
    async def of_ours(request: Request, error: ImagineError) -> JSONResponse:
        return respond(request, problem_of(error), error)

    @app.exception_handler(Told)
    async def of_told(request: Request, error: Told) -> JSONResponse:
        return respond(request, error.problem, error)

    @app.exception_handler(Exception)
    async def of_anybody(request: Request, error: Exception) -> JSONResponse:
        return respond(request, problem_of(error), error)

    @app.exception_handler(RequestValidationError)
    async def of_validation(request: Request, error: RequestValidationError) -> JSONResponse:
        return respond(request, problem_of_validation(error.errors()))

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = _methods_of(request, routes)
        return respond(request, replace(problem_of_status(error.status_code), headers=headers))


def _methods_of(request: Request, routes: Sequence[BaseRoute]) -> str:
    """What a path takes; the framework names only the methods of the first route that fits."""
    methods: set[str] = set()
    for route in routes:
        match, _ = route.matches({**request.scope, "method": "OPTIONS"})
        if match is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return ", ".join(sorted(methods))


def problem_of_status(status: int) -> Problem:
    """How an error of the framework is told, which has nothing but a status."""
    code, title = _HTTP_TITLES.get(status, ("bad_request", "Bad request"))
    detail = _HTTP_DETAILS.get(status, "The request could not be read.")
    return Problem(status, code, title, detail)


def respond(request: Request, problem: Problem, error: Exception | None = None) -> JSONResponse:
    """The answer to a request that failed; a fault of ours is logged by kind and request id."""
    told = as_openai(problem) if request.url.path in _OPENAI_ROUTES else problem
    request_id = request.scope.get("imagine_request_id", "unknown")
    if told.status >= 500:
        where = _where_raised(error) if error is not None else ""
        logger.error("request %s: %s (%s)%s", request_id, told.code, type(error).__name__, where)
    return JSONResponse(
        told.body(request_id), told.status, headers=dict(told.headers), media_type=MEDIA_TYPE
    )


def as_openai(problem: Problem) -> Problem:
    """The same with the status that a client of the OpenAI API expects."""
    is_refusal = problem.code in ("moderation_blocked", "picture_withheld")
    is_mistake = problem.status == 422 or is_refusal
    return replace(problem, status=400) if is_mistake else problem


def _ours(kind: _Kind) -> str:
    if kind.status == 404:
        return "There is nothing of this name here any more."
    if kind.status == 503:
        return f"{kind.title}. Nothing was lost; try again in a moment."
    return f"{kind.title}: the fault is ours. Quote the request id when you report it."


def _where(location: Sequence[object]) -> str:
    """The name of an argument, without saying in which part of the request it stood."""
    parts = [str(part) for part in location]
    inside = parts[1:] if parts[:1] in (["body"], ["query"], ["path"], ["header"]) else parts
    return ".".join(part for part in inside if not part.isdecimal())


def _where_raised(error: BaseException) -> str:
    """File name and line, never a message: that may hold what somebody wrote."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    code = trace.tb_frame.f_code
    return f" at {code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"


def _whole(seconds: float) -> str:
    return str(max(1, math.ceil(seconds)))

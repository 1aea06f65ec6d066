"""/v1/generations: wishes asked, watched, stopped and listed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import format_sse_event
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse

from imagine.service.auth import Caller, caller_with
from imagine.service.routers.asking import (
    Before,
    IdempotencyKey,
    Limit,
    Prefer,
    ServiceOf,
    page_of,
    seconds_to_wait,
)
from imagine.service.schemas import GenerationOut, GenerationRequest, Page
from imagine.service.wiring import Service
from imagine.storage.jobs import Job, JobState

router = APIRouter(prefix="/v1/generations", tags=["generations"])

Reader = Annotated[Caller, Depends(caller_with("generations:read"))]
Writer = Annotated[Caller, Depends(caller_with("generations:write"))]


@router.post(
    "",
    status_code=202,
    response_model=GenerationOut,
    responses={200: {"model": GenerationOut, "description": "Done within the wait."}},
)
async def create_generation(
    service: ServiceOf,
    caller: Writer,
    request: GenerationRequest,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Ask for pictures of a person. The answer comes at once; the pictures when they are done."""
    accepted = await run_in_threadpool(service.generations.submit, caller, request, idempotency_key)
    wait = seconds_to_wait(prefer)
    job = await service.generations.ended(accepted.job, wait)
    # A job that has no pictures yet needs no look into the database, and so no thread.
    if job.has_ended:
        told = await run_in_threadpool(tell, service, job, accepted.seed)
    else:
        told = GenerationOut.of(job, [], accepted.seed)
    headers = {"Location": told.urls.self}
    if accepted.is_repeat:
        headers["Idempotent-Replayed"] = "true"
    if wait:
        headers["Preference-Applied"] = f"wait={wait:.0f}"
    status = 200 if job.has_ended else 202
    return JSONResponse(told.model_dump(mode="json"), status, headers=headers)


@router.get("")
def list_generations(
    service: ServiceOf,
    caller: Reader,
    limit: Limit = 20,
    before: Before = None,
    status: Annotated[list[JobState] | None, Query(description="Only these.")] = None,
) -> Page[GenerationOut]:
    """Wishes of this tenant, newest first."""
    jobs = service.generations.find(caller.tenant_id, status or [], limit + 1, before)
    shown = jobs[:limit]
    told = [tell(service, job) for job in shown]
    return page_of(told, [job.id for job in shown], len(jobs) > limit)


@router.get("/{generation_id}")
def get_generation(service: ServiceOf, caller: Reader, generation_id: str) -> GenerationOut:
    """One wish and what became of it."""
    return tell(service, service.generations.get(caller.tenant_id, generation_id))


@router.post("/{generation_id}/cancel")
def cancel_generation(service: ServiceOf, caller: Writer, generation_id: str) -> GenerationOut:
    """Stop a wish: at once while it waits, between two steps while it runs; again is harmless."""
    return tell(service, service.generations.cancel(caller.tenant_id, generation_id))


@router.get(
    "/{generation_id}/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "Events as they come."}},
)
async def watch_generation(
    service: ServiceOf,
    caller: Reader,
    generation_id: str,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", max_length=64, description="Go on behind this.")
    ] = None,
) -> StreamingResponse:
    """Server-sent events: `progress`, `preview` (small and marked), and the end.

    The last event is named after how it ended, `succeeded`, `failed`, `canceled` or `blocked`, and
    holds the whole generation.
    """
    job = await run_in_threadpool(service.generations.get, caller.tenant_id, generation_id)
    return StreamingResponse(
        _events(service, job, last_event_id),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )


async def _events(service: Service, job: Job, last_id: str | None) -> AsyncIterator[bytes]:
    told: dict[str, Any] | None = None
    while told is None:
        events = [] if job.has_ended else await service.generations.news(job, last_id)
        for event in events:
            last_id = event.id
            if not event.is_last:
                yield encoded(event.kind, event.data, event.id)
        if not events and not job.has_ended:
            yield format_sse_event(comment="still there")
        if not events or events[-1].is_last:
            # The database has the last word: another process may be working on it.
            job, told = await run_in_threadpool(_end_of, service, job)
    yield encoded(job.state.value, told, last_id)


def _end_of(service: Service, job: Job) -> tuple[Job, dict[str, Any] | None]:
    """The job as it is now and, if it has ended, all that is told of it."""
    now = job if job.has_ended else service.generations.get(job.tenant_id, job.id)
    return now, tell(service, now).model_dump(mode="json") if now.has_ended else None


def encoded(kind: str, data: object, event_id: str | None = None) -> bytes:
    """One event as bytes."""
    return format_sse_event(data_str=json.dumps(data), event=kind, id=event_id)


def tell(service: Service, job: Job, seed: int | None = None) -> GenerationOut:
    """A job with its pictures, as it is told."""
    return GenerationOut.of(job, service.generations.images(job), seed)

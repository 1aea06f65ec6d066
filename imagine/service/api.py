"""The HTTP face: an app with all its routes, around a service that `wiring` has built."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.formparsers import MultiPartParser
from starlette.types import ASGIApp

from imagine.service.errors import MEDIA_TYPE, install_error_handlers
from imagine.service.metrics import Metrics
from imagine.service.middleware import Envelope
from imagine.service.retries import RecentRequests
from imagine.service.routers import (
    challenges,
    do_not_generate,
    generations,
    huggingface,
    identities,
    images,
    openai_images,
    operations,
    provenance_checks,
    reviews,
    signing_in,
    takedowns,
    transparency,
    webhooks,
)
from imagine.service.schemas import ProblemOut
from imagine.service.wiring import Service
from imagine.settings import VERSION

JSON_BODY_BYTES = 1024 * 1024

# The pictures of OpenAI's API come before ours: /v1/images/generations is no picture's id.
ROUTERS = tuple(
    room.router
    for room in (
        identities,
        challenges,
        do_not_generate,
        generations,
        openai_images,
        images,
        huggingface,
        operations,
        provenance_checks,
        signing_in,
        webhooks,
        reviews,
        takedowns,
        transparency,
    )
)

_DESCRIPTION = """\
Pictures of a person in any scene, from a few selfies.

Enrol a person at `POST /v1/identities`, ask for pictures at `POST /v1/generations`, watch them at
its `events`, fetch them at `/v1/images/{id}/content`. Clients of the OpenAI Images API work against
`/v1/images/generations` and `/v1/images/edits`. Errors are RFC 9457 problems.
"""
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemOut, "description": text, "content": {MEDIA_TYPE: {}}}
    for status, text in (
        (400, "The request could not be read."),
        (401, "No API key, or one that is not good."),
        (403, "Not allowed: by the key, by the person, or by policy."),
        (404, "Nothing of this name here."),
        (409, "Still being worked on."),
        (413, "The body is too large."),
        (422, "Something in the request is wrong; `error.param` says what."),
        (429, "Asked too often; see Retry-After."),
        (500, "A fault of the service; quote the request id."),
        (503, "Busy or not ready; see Retry-After."),
        (504, "Not done in time."),
    )
}


def create_app(service: Service, start: bool = True) -> ASGIApp:
    """The app of a service, ready for an ASGI server. Arguments as for `build_app`."""
    app = build_app(service, start)
    # Outside even of Starlette's own handler of errors, which raises them again.
    return Envelope(app, app.state.metrics.count)


def build_app(service: Service, start: bool = True) -> FastAPI:
    """The routes of a service, to which pages may be added before `Envelope` goes around them.

    Args:
        service: from `wiring.build_service`; closed when the app ends.
        start: begin to work when the app starts; False leaves that to the caller.
    """
    # Photos stay in memory: by default an upload above 1 MB would be spooled to a temporary file
    # in clear. The limits of the body bound what that takes.
    MultiPartParser.spool_max_size = identities.BODY_BYTES
    app = FastAPI(
        title="Imagine yourself",
        version=VERSION,
        description=_DESCRIPTION,
        docs_url=None,  # the page would fetch its scripts from elsewhere
        redoc_url=None,
        lifespan=_life(service, start),
        responses=_PROBLEMS,
        max_body_size=JSON_BODY_BYTES,
    )
    app.state.service = service
    app.state.metrics = Metrics(service.jobs.counts, lambda: service.models.stats)
    app.state.recent_requests = RecentRequests()
    for router in ROUTERS:
        app.include_router(router)
    install_error_handlers(app, [route for router in ROUTERS for route in router.routes])
    return app


def _life(service: Service, start: bool) -> Any:
    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        if start:
            service.start()
        try:
            yield
        finally:
            service.close()

    return life

"""/v1/images/generations and /edits: clients of the OpenAI Images API work against these.

Our own fields come in through `extra_body`: `identity` (who is shown), `likeness`, `seed`,
`style`, ... An edit takes selfies as its images, with a consent, and forgets them when it is done.
Fields that mean nothing here (quality, background, moderation) are taken and have no effect.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, File, Form, Request, UploadFile
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse

from imagine.backends import BackendInfo
from imagine.engine.limits import MAX_GUIDANCE, MAX_STEPS
from imagine.errors import ImagineError, NotStored
from imagine.service.auth import Caller, caller_with, check_scope
from imagine.service.enrolment import consent_form
from imagine.service.errors import (
    BadParameter,
    Problem,
    Told,
    as_openai,
    problem_of,
    problem_of_job,
)
from imagine.service.retries import RecentRequests
from imagine.service.routers.asking import (
    IdempotencyKey,
    ServiceOf,
    checked_wish,
    read_photos,
    shape_asked,
)
from imagine.service.routers.generations import encoded
from imagine.service.routers.identities import BODY_BYTES
from imagine.service.schemas import (
    MAX_BEST_OF,
    SEED_LIMIT,
    AspectRatio,
    GenerationRequest,
    OutputFormat,
    Seed,
)
from imagine.service.wiring import Service
from imagine.storage.consent import Purpose
from imagine.storage.jobs import Job, JobState

router = APIRouter(prefix="/v1/images", tags=["OpenAI Images"])

WAIT_SECONDS = 540.0  # the client itself gives up after 600
Writer = Annotated[Caller, Depends(caller_with("generations:write"))]
ResponseFormat = Literal["b64_json", "url"]


class OpenAiGeneration(BaseModel):
    """What `client.images.generate` sends.

    `identity` to `best_of` and `aspect_ratio` come through `extra_body`.
    """

    prompt: str = Field(min_length=1, max_length=10_000)
    model: str | None = Field(default=None, max_length=100)
    n: int | None = Field(default=None, ge=1, le=10)
    size: str | None = Field(
        default=None,
        max_length=20,
        description="auto, or width x height of one of the `sizes` in /v1/models, e.g. 128x128.",
    )
    aspect_ratio: AspectRatio | None = None
    output_format: OutputFormat | None = None
    response_format: ResponseFormat | None = None
    stream: bool | None = None
    partial_images: int | None = Field(default=None, ge=0, le=3)
    identity: str | None = Field(default=None, max_length=64, description="Id of the person shown.")
    likeness: float = Field(default=0.7, ge=0, le=1)
    seed: Seed | None = None
    style: str | None = Field(default=None, max_length=64)
    num_inference_steps: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    guidance_scale: float | None = Field(default=None, ge=1, le=MAX_GUIDANCE)
    best_of: int = Field(default=1, ge=1, le=MAX_BEST_OF)

    # Other fields of the API are taken without effect.
    model_config = ConfigDict(
        extra="ignore",
        hide_input_in_errors=True,
        json_schema_extra={
            "examples": [
                {
                    "prompt": "reading in a library",
                    "identity": "identity_0123456789abcdef0123456789abcdef",
                    "seed": 7,
                }
            ]
        },
    )


@dataclass(frozen=True, slots=True)
class _Order:
    """What both routes have in common once their fields are read."""

    kind: str  # "image_generation" or "image_edit", as in the names of events
    asked: OpenAiGeneration
    job: Job
    one_shot: str | None  # identity to forget when the answer is out

    @property
    def output_format(self) -> str:
        return self.asked.output_format or "png"


@router.post("/generations")
async def generate(
    service: ServiceOf,
    caller: Writer,
    asked: OpenAiGeneration,
    request: Request,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Pictures of a person, in one call; see the OpenAI Images API."""
    if asked.identity is None:
        raise BadParameter(
            "identity",
            "Whose picture? Enrol the person at /v1/identities and send the id as `identity` "
            "(with the OpenAI client: extra_body={'identity': ...}).",
        )
    await run_in_threadpool(_check, service, asked)  # may have to wait for the model
    digest = _digest(caller, asked.model_dump_json())

    def submit() -> Job:
        wish = _wish(service.models.info, asked, asked.identity or "")
        return service.generations.submit(caller, wish, idempotency_key, "openai").job

    job = await _first_or_new(service, caller, request, digest, submit)
    return await _answer(service, caller, request, _Order("image_generation", asked, job, None))


@router.post("/edits", max_body_size=BODY_BYTES)
async def edit(
    service: ServiceOf,
    caller: Writer,
    request: Request,
    prompt: Annotated[str, Form(min_length=1, max_length=10_000)],
    consent_text: Annotated[
        str, Form(max_length=50_000, description="Exactly the text that was shown.")
    ] = "",
    declared_adult: Annotated[bool, Form()] = False,
    declared_self: Annotated[bool, Form()] = False,
    consent_locale: Annotated[str, Form(max_length=35)] = "en",
    image: Annotated[list[UploadFile] | None, File(description="A selfie.")] = None,
    images: Annotated[list[UploadFile] | None, File(alias="image[]")] = None,
    model: Annotated[str, Form(max_length=100)] = "",
    n: Annotated[int, Form(ge=1, le=10)] = 1,
    size: Annotated[str, Form(max_length=20)] = "auto",
    aspect_ratio: Annotated[AspectRatio | None, Form()] = None,
    output_format: Annotated[OutputFormat, Form()] = "png",
    stream: Annotated[bool, Form()] = False,
    partial_images: Annotated[int, Form(ge=0, le=3)] = 0,
    likeness: Annotated[float, Form(ge=0, le=1)] = 0.7,
    seed: Annotated[int | None, Form(ge=0, le=SEED_LIMIT - 1)] = None,
    style: Annotated[str | None, Form(max_length=64)] = None,
) -> Response:
    """Pictures of the person on these selfies; they are forgotten when the answer is out."""
    check_scope(caller, "identities:write")
    asked = OpenAiGeneration(
        prompt=prompt,
        model=model,
        n=n,
        size=size,
        aspect_ratio=aspect_ratio,
        output_format=output_format,
        stream=stream,
        partial_images=partial_images,
        likeness=likeness,
        seed=seed,
        style=style,
    )
    await run_in_threadpool(_check, service, asked)  # may have to wait for the model
    uploads = [*(image or ()), *(images or ())]
    limits = service.limits
    photos = await run_in_threadpool(
        read_photos, uploads, limits.max_photos, limits.max_photo_bytes
    )
    form = consent_form(
        consent_text,
        [Purpose.GENERATE.value],
        declared_adult=declared_adult,
        declared_self=declared_self,
        locale=consent_locale,
        method="api-one-shot",
        days=1,
    )
    tenant_id = caller.tenant_id

    def submit() -> Job:
        service.generations.check_prompt(
            caller, asked.prompt, role="edit"
        )  # before any photo is looked at
        enrolled = service.enrolment.enrol(tenant_id, photos, form, actor=caller.actor)
        try:
            wish = _wish(service.models.info, asked, enrolled.facts.id)
            most = service.settings.one_shot_pictures_per_day
            return service.generations.submit(caller, wish, None, "openai", most).job
        except BaseException:
            service.enrolment.erase(tenant_id, enrolled.facts.id)
            raise

    # Not looked up among recent requests: the person of the first one may be forgotten already.
    job = await run_in_threadpool(submit)
    return await _answer(
        service, caller, request, _Order("image_edit", asked, job, job.identity_id)
    )


async def _first_or_new(
    service: Service, caller: Caller, request: Request, digest: str, submit: Callable[[], Job]
) -> Job:
    """The job of this very request if the client says that it repeats itself, else a new one."""
    recent: RecentRequests = request.app.state.recent_requests
    if request.headers.get("x-stainless-retry-count", "0") != "0":
        job_id = recent.job_of(digest)
        if job_id is not None:
            try:
                return await run_in_threadpool(service.generations.get, caller.tenant_id, job_id)
            except NotStored:
                pass  # the person was erased meanwhile, and the job with them
    job = await run_in_threadpool(submit)
    recent.remember(digest, job.id)
    return job


async def _answer(service: Service, caller: Caller, request: Request, order: _Order) -> Response:
    if order.asked.stream:
        return StreamingResponse(_stream(service, caller, order), media_type="text/event-stream")
    try:
        job = await succeeded(service, order.job)
        told = await run_in_threadpool(_told, service, caller, request, order, job)
        return JSONResponse(told)
    finally:
        await run_in_threadpool(_forget, service, caller, order)


async def succeeded(service: Service, job: Job) -> Job:
    """The job when its pictures are there.

    Raises:
        Told: it failed, was blocked or cancelled, or takes too long.
    """
    done = await service.generations.ended(job, WAIT_SECONDS)
    if not done.has_ended:
        await run_in_threadpool(service.generations.cancel, job.tenant_id, job.id)
        raise Told(
            problem_of_job(
                "deadline_exceeded", f"The pictures were not done after {WAIT_SECONDS:.0f} seconds."
            )
        )
    if done.state is not JobState.SUCCEEDED:
        raise Told(_failure(done))
    return done


def _failure(job: Job) -> Problem:
    code = job.error.code if job.error else "canceled"
    message = job.error.message if job.error else "The generation was canceled."
    return problem_of_job(code, message, job.stage)


def _told(
    service: Service, caller: Caller, request: Request, order: _Order, job: Job
) -> dict[str, object]:
    as_url = order.asked.response_format == "url" and order.one_shot is None
    pictures = []
    for picture in (job.result or {}).get("images", []):
        image_id = picture["id"]
        facts = {name: picture[name] for name in ("seed", "likeness", "prompt_fit", "why")}
        if as_url:
            shown = {"url": f"{str(request.base_url).rstrip('/')}/v1/images/{image_id}/content"}
        else:
            shown = {"b64_json": _base64(service, caller, image_id)}
        pictures.append({**shown, **facts, "image": image_id})
    return {
        "created": int(time.time()),
        "data": pictures,
        "generation": job.id,
        **_frame(service, order),
    }


async def _stream(service: Service, caller: Caller, order: _Order) -> AsyncIterator[bytes]:
    try:
        async for event in _events(service, caller, order):
            yield event
    except (Told, ImagineError) as error:
        problem = as_openai(error.problem if isinstance(error, Told) else problem_of(error))
        yield encoded("error", {"type": "error", **problem.body(order.job.id)})
    finally:
        await run_in_threadpool(_forget, service, caller, order)


async def _events(service: Service, caller: Caller, order: _Order) -> AsyncIterator[bytes]:
    job, last_id, shown = order.job, None, 0
    frame = {**_frame(service, order), "created_at": int(time.time())}
    give_up = time.monotonic() + WAIT_SECONDS
    while not job.has_ended and time.monotonic() < give_up:
        events = await service.generations.news(job, last_id)
        for event in events:
            last_id = event.id
            if event.kind == "preview" and shown < (order.asked.partial_images or 0):
                kind = f"{order.kind}.partial_image"
                data = {
                    **frame,
                    "type": kind,
                    "b64_json": event.data["data"],
                    "partial_image_index": shown,
                    "output_format": "webp",
                }
                shown += 1
                yield encoded(kind, data)
        if not events or events[-1].is_last:
            job = await run_in_threadpool(service.generations.get, job.tenant_id, job.id)
    done = await succeeded(service, job)
    kind = f"{order.kind}.completed"
    for picture in (done.result or {}).get("images", []):
        b64 = await run_in_threadpool(_base64, service, caller, picture["id"])
        data = {
            **frame,
            "type": kind,
            "b64_json": b64,
            "image": picture["id"],
            "seed": picture["seed"],
            "likeness": picture["likeness"],
            "usage": _NO_TOKENS,
        }
        yield encoded(kind, data)


# Pictures are not counted in tokens here; the type of the client wants the figures to be there.
_NO_TOKENS = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}


def _frame(service: Service, order: _Order) -> dict[str, object]:
    info = service.models.info
    height, width = info.size_of(_aspect_ratio(info, order.asked))
    return {
        "size": f"{width}x{height}",
        "quality": "auto",
        "background": "opaque",
        "output_format": order.output_format,
    }


def _base64(service: Service, caller: Caller, image_id: str) -> str:
    data = service.people.read_image(
        caller.tenant_id, image_id, purpose=Purpose.OWN_ACCESS, actor=caller.actor
    )
    return base64.b64encode(data).decode()


def _forget(service: Service, caller: Caller, order: _Order) -> None:
    if order.one_shot is not None:
        service.enrolment.erase(caller.tenant_id, order.one_shot)


def _check(service: Service, asked: OpenAiGeneration) -> None:
    """Refuse a model or size that is not here, rather than drawing something else."""
    info = service.models.info
    if asked.model not in (None, "", info.name):
        raise BadParameter(
            "model", f"There is no model {asked.model!r} here. Use {info.name!r}, or leave it out."
        )
    _aspect_ratio(info, asked)


def _aspect_ratio(info: BackendInfo, asked: OpenAiGeneration) -> str:
    """The shape a request names, by its size in pixels or by its ratio.

    Raises:
        BadParameter: not offered, or the two do not agree.
    """
    if asked.size in (None, "auto"):
        return shape_asked(info, None, asked.aspect_ratio, "size")
    width, _, height = asked.size.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise BadParameter(
            "size",
            f"size is {asked.size!r}; it must be auto, or width x height in pixels, one of: "
            f"{info.sizes_in_words()}.",
        )
    return shape_asked(info, (int(width), int(height)), asked.aspect_ratio, "size")


def _wish(info: BackendInfo, asked: OpenAiGeneration, identity_id: str) -> GenerationRequest:
    return checked_wish(
        prompt=asked.prompt,
        identity=identity_id,
        n=asked.n or 1,
        seed=asked.seed,
        likeness=asked.likeness,
        num_inference_steps=asked.num_inference_steps,
        guidance_scale=asked.guidance_scale,
        best_of=asked.best_of,
        aspect_ratio=_aspect_ratio(info, asked),
        style=asked.style,
        output_format=asked.output_format or "png",
    )


def _digest(caller: Caller, asked: str) -> str:
    return hashlib.sha256(f"{caller.tenant_id}\0{caller.actor}\0{asked}".encode()).hexdigest()

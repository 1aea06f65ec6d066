"""/hf/{model}: the text-to-image task of Hugging Face's `InferenceClient`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from imagine.engine.limits import MAX_GUIDANCE, MAX_STEPS
from imagine.errors import NotStored
from imagine.service.auth import Caller, caller_with
from imagine.service.routers.asking import ServiceOf, checked_wish
from imagine.service.routers.images import content
from imagine.service.routers.openai_images import succeeded
from imagine.service.schemas import Seed

router = APIRouter(prefix="/hf", tags=["Hugging Face"])


class Parameters(BaseModel):
    """What `text_to_image` sends; `identity` and `likeness` through `extra_body`."""

    identity: str = Field(min_length=1, max_length=64, description="Id of the person shown.")
    likeness: float = Field(default=0.7, ge=0, le=1)
    seed: Seed | None = None
    num_inference_steps: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    guidance_scale: float | None = Field(default=None, ge=1, le=MAX_GUIDANCE)

    # Other parameters of the task are taken without effect.
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


class TextToImage(BaseModel):
    """The task."""

    inputs: str = Field(min_length=1, max_length=10_000, description="What the picture shows.")
    parameters: Parameters

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


@router.post(
    "/{model_id}",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}, "description": "The marked picture."}},
)
async def text_to_image(
    service: ServiceOf,
    caller: Annotated[Caller, Depends(caller_with("generations:write"))],
    model_id: str,
    task: TextToImage,
) -> Response:
    """One picture of a person, in one call."""
    if model_id != service.models.name:
        raise NotStored(f"There is no model {model_id[:80]!r} here. See /v1/models.")
    asked = task.parameters
    wish = checked_wish(
        prompt=task.inputs,
        identity=asked.identity,
        seed=asked.seed,
        likeness=asked.likeness,
        num_inference_steps=asked.num_inference_steps,
        guidance_scale=asked.guidance_scale,
    )
    accepted = await run_in_threadpool(service.generations.submit, caller, wish)
    job = await succeeded(service, accepted.job)
    image_id = (job.result or {})["images"][0]["id"]
    data = await run_in_threadpool(content, service, caller, image_id)
    return Response(data, media_type="image/png")

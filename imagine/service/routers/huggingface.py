"""/hf/{model}: the text-to-image task of Hugging Face's `InferenceClient`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from imagine.backends import BackendInfo
from imagine.engine.limits import MAX_GUIDANCE, MAX_STEPS
from imagine.errors import NotStored
from imagine.service.auth import Caller, caller_with
from imagine.service.errors import BadParameter
from imagine.service.routers.asking import ServiceOf, checked_wish, shape_asked
from imagine.service.routers.images import content
from imagine.service.routers.openai_images import succeeded
from imagine.service.schemas import AspectRatio, Seed

router = APIRouter(prefix="/hf", tags=["Hugging Face"])

MAX_SIDE = 100_000  # pixels; what is not offered is refused anyway


class Parameters(BaseModel):
    """What `text_to_image` sends.

    `identity`, `likeness` and `aspect_ratio` come through `extra_body`.
    """

    identity: str = Field(min_length=1, max_length=64, description="Id of the person shown.")
    likeness: float = Field(default=0.7, ge=0, le=1)
    seed: Seed | None = None
    num_inference_steps: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    guidance_scale: float | None = Field(default=None, ge=1, le=MAX_GUIDANCE)
    width: int | None = Field(
        default=None, ge=1, le=MAX_SIDE, description="With `height`: one of the `sizes` of a model."
    )
    height: int | None = Field(default=None, ge=1, le=MAX_SIDE)
    aspect_ratio: AspectRatio | None = None

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
    info = await run_in_threadpool(lambda: service.models.info)  # may have to wait for the model
    wish = checked_wish(
        prompt=task.inputs,
        identity=asked.identity,
        seed=asked.seed,
        likeness=asked.likeness,
        num_inference_steps=asked.num_inference_steps,
        guidance_scale=asked.guidance_scale,
        aspect_ratio=_aspect_ratio(info, asked),
    )
    accepted = await run_in_threadpool(service.generations.submit, caller, wish)
    job = await succeeded(service, accepted.job)
    image_id = (job.result or {})["images"][0]["id"]
    data = await run_in_threadpool(content, service, caller, image_id)
    return Response(data, media_type="image/png")


def _aspect_ratio(info: BackendInfo, asked: Parameters) -> str:
    """The shape a request names, by its size in pixels or by its ratio.

    Raises:
        BadParameter: not offered, half a size, or the two do not agree.
    """
    if asked.width is None and asked.height is None:
        return shape_asked(info, None, asked.aspect_ratio, "width")
    if asked.width is None or asked.height is None:
        missing = "width" if asked.width is None else "height"
        raise BadParameter(
            missing, f"Give width and height together, one of: {info.sizes_in_words()}."
        )
    return shape_asked(info, (asked.width, asked.height), asked.aspect_ratio, "width")

"""What there is to choose from, and how the service does."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response

from imagine.errors import NotStored
from imagine.service.auth import Caller, caller_with
from imagine.service.metrics import Metrics
from imagine.service.routers.asking import ServiceOf, page_of
from imagine.service.schemas import Health, ModelOut, Page, StyleOut
from imagine.service.styles import STYLES

router = APIRouter(tags=["operations"])

Anybody = Annotated[Caller, Depends(caller_with("generations:read"))]
Operator = Annotated[Caller, Depends(caller_with("service:read"))]


@router.get("/v1/models")
def list_models(service: ServiceOf, caller: Anybody) -> Page[ModelOut]:
    """The image model of this service."""
    return page_of([ModelOut.of(service.models.info)], [service.models.name], has_more=False)


@router.get("/v1/models/{model_id}")
def get_model(service: ServiceOf, caller: Anybody, model_id: str) -> ModelOut:
    """One image model."""
    if model_id != service.models.name:
        raise NotStored(f"There is no model {model_id[:80]!r} here. See /v1/models.")
    return ModelOut.of(service.models.info)


@router.get("/v1/styles")
def list_styles(caller: Anybody) -> Page[StyleOut]:
    """Looks that can be asked for by name."""
    told = [StyleOut(id=one.id, name=one.name, words=one.words) for one in STYLES]
    return page_of(told, [one.id for one in STYLES], has_more=False)


@router.get("/healthz")
def health() -> Health:
    """Whether the process lives; asks nothing else."""
    return Health(status="ok")


@router.get("/readyz", response_model=Health, responses={503: {"model": Health}})
def readiness(service: ServiceOf) -> JSONResponse:
    """Whether pictures can be drawn now, and if not, what is missing."""
    missing = service.waiting_for()
    told = Health(status="waiting" if missing else "ok", waiting_for=missing)
    return JSONResponse(told.model_dump(), 503 if missing else 200)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."}},
)
def metrics(request: Request, caller: Operator) -> Response:
    """Figures about requests, jobs and the engine; none of them is about a person."""
    figures: Metrics = request.app.state.metrics
    return Response(figures.text(), media_type=CONTENT_TYPE_LATEST)

"""/v1/images: finished pictures, their recipes, and how they say where they came from."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Depends, Header, Query
from starlette.responses import Response

from imagine.core import Recipe
from imagine.errors import KeyRefused, NotStored
from imagine.provenance import RecipeNote
from imagine.service.auth import Caller, caller_with
from imagine.service.payloads import MEDIA_TYPES, SUFFIXES
from imagine.service.routers.asking import Before, Limit, ServiceOf, page_of
from imagine.service.schemas import ImageOut, Page, ProvenanceOut, RecipeOut
from imagine.service.wiring import Service
from imagine.storage.consent import Purpose
from imagine.storage.people import ImageFacts

router = APIRouter(prefix="/v1/images", tags=["images"])

# A reviewer may see a picture too, where the person ticked that.
Viewer = Annotated[Caller, Depends(caller_with("images:read", "images:review"))]
Reader = Annotated[Caller, Depends(caller_with("images:read"))]
Writer = Annotated[Caller, Depends(caller_with("images:write"))]

Format = Literal["png", "jpeg", "webp"]
_SOURCE_TYPES = ("compositeWithTrainedAlgorithmicMedia", "trainedAlgorithmicMedia")


@router.get("")
def list_images(
    service: ServiceOf, caller: Reader, limit: Limit = 20, before: Before = None
) -> Page[ImageOut]:
    """Pictures of this tenant, newest first."""
    found = service.pictures.page(caller.tenant_id, limit + 1, before)
    shown = found[:limit]
    told = [_told(service, caller, facts) for facts in shown]
    return page_of(told, [facts.id for facts in shown], len(found) > limit)


@router.get("/{image_id}")
def get_image(service: ServiceOf, caller: Viewer, image_id: str) -> ImageOut:
    """One picture and what was measured of it."""
    return _told(service, caller, service.pictures.facts(caller.tenant_id, image_id))


@router.delete("/{image_id}", status_code=204)
def delete_image(service: ServiceOf, caller: Writer, image_id: str) -> Response:
    """Delete a picture."""
    service.people.delete_image(caller.tenant_id, image_id)
    return Response(status_code=204)


@router.get(
    "/{image_id}/content",
    response_class=Response,
    responses={
        200: {
            "description": "The marked file: as it was made, or the same picture with the same "
            "marks in the format that was asked for.",
            "content": {"image/png": {}, "image/jpeg": {}, "image/webp": {}},
        }
    },
)
def get_content(
    service: ServiceOf,
    caller: Viewer,
    image_id: str,
    format: Annotated[Format | None, Query(description="Instead of the Accept header.")] = None,
    recipe: Annotated[
        RecipeNote, Query(description="Who may read the recipe in the file; open: everybody.")
    ] = RecipeNote.NONE,
    accept: Annotated[str, Header(include_in_schema=False)] = "*/*",
) -> Response:
    """The picture itself, in the format of `format`, else of `Accept`, else as it was made.

    Every format carries the same watermark and leads to the same audit entry, and is signed. The
    recipe is in the file only for its owner, who asks for that.
    """
    facts = service.pictures.facts(caller.tenant_id, image_id)
    data = content(service, caller, image_id)
    kept = facts.media_type.removeprefix("image/")
    wanted = format or _accepted(accept, kept)
    if wanted != kept or recipe is not RecipeNote.NONE:
        told = None
        if recipe is not RecipeNote.NONE:
            told = _recipe(service, caller, image_id)
        data = service.marking.rewrite(data, SUFFIXES[wanted], told, recipe)
    headers = {
        "Content-Disposition": f'inline; filename="{image_id}.{wanted}"',
        "Vary": "Accept",
    }
    return Response(data, media_type=MEDIA_TYPES[wanted], headers=headers)


@router.get("/{image_id}/recipe")
def get_recipe(service: ServiceOf, caller: Reader, image_id: str) -> RecipeOut:
    """How to make the same picture again, given the same selfies."""
    return RecipeOut(**asdict(_recipe(service, caller, image_id)))


@router.get("/{image_id}/provenance")
def get_provenance(service: ServiceOf, caller: Viewer, image_id: str) -> ProvenanceOut:
    """What the file itself says of where it came from."""
    data = content(service, caller, image_id)
    recipe = service.people.read_recipe(
        caller.tenant_id, image_id, purpose=_purpose(caller), actor=caller.actor
    )
    kind = next((kind for kind in _SOURCE_TYPES if kind.encode() in data), None)
    return ProvenanceOut(
        image=image_id,
        sha256=hashlib.sha256(data).hexdigest(),
        digital_source_type=kind,
        carries_recipe=b"imagine:recipe" in data,
        model_revision=None if recipe is None else recipe.model_revision,
    )


def _recipe(service: Service, caller: Caller, image_id: str) -> Recipe:
    """How a picture was made, for its owner.

    Raises:
        KeyRefused: a reviewer's key, which may see pictures and no wishes.
        NotStored: it was stored without.
    """
    if "images:read" not in caller.scopes:
        raise KeyRefused(
            "This key may see pictures and not how they were made. Use one with images:read.",
            lacks_scope=True,
        )
    recipe = service.people.read_recipe(
        caller.tenant_id, image_id, purpose=Purpose.OWN_ACCESS, actor=caller.actor
    )
    if recipe is None:
        raise NotStored(f"Picture {image_id!r} was stored without its recipe.")
    return recipe


def _accepted(header: str, kept: str) -> Format:
    """What of an Accept header we write; what is kept when it may be that, or nothing fits.

    Source: RFC 9110, section 12.5.1.
    """
    weights: dict[str, float] = {}
    for part in header.split(",")[:32]:
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            weights[kind] = float(quality)
        except ValueError:
            continue  # not a header anybody understands

    def weight(name: str) -> float:
        for kind in (MEDIA_TYPES[name], "image/*", "*/*"):
            if kind in weights:
                return weights[kind]
        return 0.0

    # The kept one wins a draw: it needs no second compression.
    order = sorted(SUFFIXES, key=lambda name: (-weight(name), name != kept))
    best = order[0] if weight(order[0]) > 0 else kept
    return cast("Format", best)


def content(service: Service, caller: Caller, image_id: str) -> bytes:
    """The stored bytes of a picture, for what this caller may look for."""
    return service.people.read_image(
        caller.tenant_id, image_id, purpose=_purpose(caller), actor=caller.actor
    )


def _purpose(caller: Caller) -> Purpose:
    return Purpose.OWN_ACCESS if "images:read" in caller.scopes else Purpose.REVIEW


def _told(service: Service, caller: Caller, facts: ImageFacts) -> ImageOut:
    return ImageOut.of(facts, _judged(service, caller, facts))


def _judged(service: Service, caller: Caller, facts: ImageFacts) -> dict[str, Any] | None:
    """What the result of its job says of a picture; None once the job was forgotten."""
    if facts.job_id is None:
        return None
    try:
        result = service.generations.get(caller.tenant_id, facts.job_id).result or {}
    except NotStored:
        return None
    return next((told for told in result.get("images", []) if told["id"] == facts.id), None)

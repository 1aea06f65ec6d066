"""/v1/webhooks: who is called when something happens, and what became of each call."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from imagine.service.auth import Caller, caller_with
from imagine.service.routers.asking import Before, Limit, ServiceOf, cut, page_of
from imagine.service.schemas import Page, Strict
from imagine.service.wiring import Service
from imagine.storage.webhooks import (
    MAX_DESCRIPTION_CHARACTERS,
    MAX_URL_CHARACTERS,
    Delivery,
    DeliveryState,
    Endpoint,
    EndpointState,
    EventKind,
)

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

Reader = Annotated[Caller, Depends(caller_with("webhooks:read"))]
Writer = Annotated[Caller, Depends(caller_with("webhooks:write"))]
Kind = Literal[
    "generation.succeeded",
    "generation.failed",
    "generation.canceled",
    "generation.blocked",
    "identity.deleted",
    "consent.withdrawn",
]  # as `EventKind`
Url = Annotated[str, Field(min_length=1, max_length=MAX_URL_CHARACTERS, description="https only.")]
Kinds = Annotated[list[Kind], Field(min_length=1, max_length=len(EventKind))]
Description = Annotated[str, Field(max_length=MAX_DESCRIPTION_CHARACTERS)]


class WebhookRequest(Strict):
    """Where to call, and when."""

    url: Url
    events: Kinds
    description: Description = ""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "url": "https://example.com/hooks/imagine",
                    "events": ["generation.succeeded", "generation.failed"],
                }
            ]
        },
    )


class WebhookChange(Strict):
    """What is to be different; what is not given stays."""

    url: Url | None = None
    events: Kinds | None = None
    description: Description | None = None
    state: Literal["active", "disabled"] | None = None


class WebhookOut(BaseModel):
    """An endpoint; `secret` only where it was just made."""

    object: Literal["webhook"] = "webhook"
    id: str
    url: str
    description: str
    events: list[str]
    state: str
    disabled_reason: str | None
    failing_since: datetime | None
    created_at: datetime
    secret: str | None = Field(default=None, description="whsec_...; shown once.", repr=False)

    @classmethod
    def of(cls, endpoint: Endpoint, secret: str | None = None) -> WebhookOut:
        """As it is told."""
        return cls(
            id=endpoint.id,
            url=endpoint.url,
            description=endpoint.description,
            events=[kind.value for kind in endpoint.events],
            state=endpoint.state.value,
            disabled_reason=endpoint.disabled_reason,
            failing_since=endpoint.failing_since,
            created_at=endpoint.created_at,
            secret=secret,
        )


class DeliveryOut(BaseModel):
    """One message to one endpoint, and what became of it."""

    object: Literal["webhook_delivery"] = "webhook_delivery"
    id: str
    webhook: str
    message_id: str = Field(description="The header webhook-id; the same when it is sent again.")
    event: str
    state: str
    attempts: int
    status: int | None
    error: str | None
    created_at: datetime
    due_at: datetime
    ended_at: datetime | None
    body: str

    @classmethod
    def of(cls, delivery: Delivery) -> DeliveryOut:
        """As it is told."""
        return cls(
            id=delivery.id,
            webhook=delivery.endpoint_id,
            message_id=delivery.message_id,
            event=delivery.event.value,
            state=delivery.state.value,
            attempts=delivery.attempts,
            status=delivery.status,
            error=delivery.error,
            created_at=delivery.created_at,
            due_at=delivery.due_at,
            ended_at=delivery.ended_at,
            body=delivery.body,
        )


@router.post("", status_code=201)
def create_webhook(service: ServiceOf, caller: Writer, request: WebhookRequest) -> WebhookOut:
    """Be called when something happens. The secret that signs the calls is shown here, once."""
    service.address_guard.target(request.url)
    events = _kinds(request.events)
    made, secret = service.webhooks.add(caller.tenant_id, request.url, events, request.description)
    _record(service, caller, "created", made)
    return WebhookOut.of(made, secret)


@router.get("")
def list_webhooks(
    service: ServiceOf, caller: Reader, limit: Limit = 20, before: Before = None
) -> Page[WebhookOut]:
    """The webhooks of this tenant, newest first."""
    newest = service.webhooks.of_tenant(caller.tenant_id)
    part, has_more = cut([one.id for one in newest], limit, before)
    told = [WebhookOut.of(one) for one in newest[part]]
    return page_of(told, [one.id for one in told], has_more)


@router.get("/{webhook_id}")
def get_webhook(service: ServiceOf, caller: Reader, webhook_id: str) -> WebhookOut:
    """One webhook."""
    return WebhookOut.of(service.webhooks.get(caller.tenant_id, webhook_id))


@router.patch("/{webhook_id}")
def change_webhook(
    service: ServiceOf, caller: Writer, webhook_id: str, request: WebhookChange
) -> WebhookOut:
    """Change where or when to call; `state: active` calls one again that was disabled."""
    service.webhooks.get(caller.tenant_id, webhook_id)
    if request.url is not None:
        service.address_guard.target(request.url)
    changed = service.webhooks.change(
        caller.tenant_id,
        webhook_id,
        request.url,
        None if request.events is None else _kinds(request.events),
        request.description,
        None if request.state is None else EndpointState(request.state),
    )
    _record(service, caller, "changed", changed)
    return WebhookOut.of(changed)


@router.delete("/{webhook_id}", status_code=204)
def delete_webhook(service: ServiceOf, caller: Writer, webhook_id: str) -> Response:
    """Call this one no more, and forget its deliveries."""
    gone = service.webhooks.get(caller.tenant_id, webhook_id)
    service.webhooks.delete(caller.tenant_id, webhook_id)
    _record(service, caller, "deleted", gone)
    return Response(status_code=204)


@router.post("/{webhook_id}/rotate")
def rotate_secret(service: ServiceOf, caller: Writer, webhook_id: str) -> WebhookOut:
    """Make a new secret, shown here once. For 24 hours calls are signed with both."""
    changed, secret = service.webhooks.rotate(caller.tenant_id, webhook_id)
    _record(service, caller, "rotated", changed)
    return WebhookOut.of(changed, secret)


@router.get("/{webhook_id}/deliveries")
def list_deliveries(
    service: ServiceOf,
    caller: Reader,
    webhook_id: str,
    limit: Limit = 20,
    before: Before = None,
    state: Annotated[list[DeliveryState] | None, Query(description="Only these.")] = None,
) -> Page[DeliveryOut]:
    """What was sent to this webhook in the last 30 days, newest first."""
    found = service.webhooks.deliveries(
        caller.tenant_id, webhook_id, state or [], limit + 1, before
    )
    told = [DeliveryOut.of(one) for one in found[:limit]]
    return page_of(told, [one.id for one in told], len(found) > limit)


@router.post("/{webhook_id}/deliveries/{delivery_id}/replay", status_code=202)
def replay_delivery(
    service: ServiceOf, caller: Writer, webhook_id: str, delivery_id: str
) -> DeliveryOut:
    """Send a message again; its `webhook-id` stays the same, its time and signature are new."""
    return DeliveryOut.of(service.webhooks.replay(caller.tenant_id, webhook_id, delivery_id))


def _kinds(names: list[Kind]) -> list[EventKind]:
    return [EventKind(name) for name in names]


def _record(service: Service, caller: Caller, what: str, endpoint: Endpoint) -> None:
    details = {"webhook_id": endpoint.id}
    service.record_event(
        f"webhook.{what}", None, details, tenant_id=caller.tenant_id, actor=caller.actor
    )

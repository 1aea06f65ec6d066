"""Webhooks on the developers' page: where events go, how deliveries went, secrets anew."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from imagine.errors import ImagineError, InvalidInput
from imagine.storage.webhooks import (
    Delivery,
    DeliveryState,
    Endpoint,
    EndpointState,
    EventKind,
)
from imagine.ui.accounts import Accounts
from imagine.ui.remote import RemoteStudio
from imagine.ui.review_board import moment
from imagine.ui.sessions import COOKIE
from imagine.ui.sheet import (
    NotForYou,
    field_of,
    form_of,
    go_to,
    refusal,
    sheet,
    staff,
    table_html,
    words_for,
)
from imagine.ui.words import Words

_PLACE = "/developers/webhooks"
_READ, _WRITE = "webhooks:read", "webhooks:write"
_NEWEST = 10
_BADGES = {
    DeliveryState.DELIVERED: "good",
    DeliveryState.PENDING: "some",
    DeliveryState.FAILED: "bad",
}


def webhook_routes(accounts: Accounts) -> APIRouter:
    """The routes of the webhooks' card."""
    router = APIRouter(include_in_schema=False, prefix=_PLACE)

    async def changed(request: Request, act: Callable[[RemoteStudio], Any]) -> Response:
        """Do it for whoever may; a new secret is shown once, else the page is shown anew."""
        words = words_for(request, accounts)
        try:
            studio = staff(accounts, request.cookies.get(COOKIE), {_WRITE})
            told = await run_in_threadpool(act, studio)
        except NotForYou:
            return go_to("/developers")
        except ImagineError as error:
            return refusal(request, accounts, error)
        if isinstance(told, str):
            return sheet(request, accounts, words("hook.secret"), secret_html(told, words), 200)
        return go_to("/developers", said="webhook")

    @router.post("")
    async def add(request: Request) -> Response:
        form = await form_of(request)

        def act(studio: RemoteStudio) -> str:
            url, about = field_of(form, "url", 2000), field_of(form, "description")
            kinds = _kinds(form.get("event", []))
            studio.service.address_guard.target(url)
            webhooks = studio.service.webhooks
            endpoint, secret = webhooks.add(studio.caller.tenant_id, url, kinds, about)
            _record(studio, "created", endpoint.id)
            return secret

        return await changed(request, act)

    @router.post("/{endpoint_id}/{what}")
    async def change(request: Request, endpoint_id: str, what: str) -> Response:
        form = await form_of(request)

        def act(studio: RemoteStudio) -> str | None:
            webhooks, tenant_id = studio.service.webhooks, studio.caller.tenant_id
            secret = None
            match what:
                case "rotate":
                    secret = webhooks.rotate(tenant_id, endpoint_id)[1]
                case "enable":
                    webhooks.change(tenant_id, endpoint_id, state=EndpointState.ACTIVE)
                case "disable":
                    webhooks.change(tenant_id, endpoint_id, state=EndpointState.DISABLED)
                case "delete":
                    webhooks.delete(tenant_id, endpoint_id)
                case "replay":
                    webhooks.replay(tenant_id, endpoint_id, field_of(form, "delivery", 64))
                case _:
                    raise InvalidInput(f"A webhook cannot {what[:20]!r}.")
            _record(studio, what, endpoint_id)
            return secret

        return await changed(request, act)

    return router


def webhooks_html(studio: RemoteStudio, words: Words) -> str:
    """The webhooks of a tenant with their newest deliveries, and the form for another one."""
    if _READ not in studio.caller.scopes:
        return ""
    found = studio.service.webhooks.of_tenant(studio.caller.tenant_id)
    cards = "".join(_endpoint_html(studio, one, words) for one in found)
    may = _WRITE in studio.caller.scopes
    form = _form_html(words) if may else ""
    nothing = f'<p class="muted">{escape(words("office.none"))}</p>'
    return f"""<section class="card"><h2>{escape(words("hook.heading"))}</h2>
<p class="hint">{escape(words("hook.intro"))}</p>{cards or nothing}{form}</section>"""


def secret_html(secret: str, words: Words) -> str:
    """A secret, told once."""
    return f"""<section class="card narrow"><p>{escape(words("hook.secret_once"))}</p>
<code class="secret" id="token">{escape(secret)}</code>
<p class="row"><button type="button" data-copy="token" data-done="{escape(words("office.copied"))}"
>{escape(words("office.copy"))}</button>
<a class="small second" href="/developers">{escape(words("office.back"))}</a></p></section>"""


def _endpoint_html(studio: RemoteStudio, endpoint: Endpoint, words: Words) -> str:
    active = endpoint.state is EndpointState.ACTIVE
    state = words("hook.active" if active else "hook.disabled")
    newest = studio.service.webhooks.deliveries(endpoint.tenant_id, endpoint.id, limit=_NEWEST)
    buttons = "".join(
        f'<form method="post" action="{_PLACE}/{endpoint.id}/{what}">'
        f'<button class="small {kind}" aria-label="{escape(words(f"hook.{what}"))}: '
        f'{escape(endpoint.url)}">{escape(words(f"hook.{what}"))}</button></form>'
        for what, kind in (
            ("rotate", "second"),
            ("disable" if active else "enable", "second"),
            ("delete", "danger"),
        )
    )
    heads = [words(f"hook.head.{name}") for name in ("event", "when", "state", "tries", "do")]
    rows = [_delivery_row(one, active, words) for one in newest]
    log = table_html(heads, rows, f"{words('hook.log')}: {endpoint.url}")
    events = ", ".join(event.value for event in endpoint.events)
    about = f"<p>{escape(endpoint.description)}</p>" if endpoint.description else ""
    return f"""<h3><code>{escape(endpoint.url)}</code>
<span class="badge {"good" if active else "bad"}">{escape(state)}</span></h3>{about}
<p class="hint">{escape(events)}</p><div class="decide">{buttons}</div>
<details{" open" if rows else ""}><summary>{escape(words("hook.log"))}</summary>
{log or f'<p class="muted">{escape(words("office.none"))}</p>'}</details>"""


def _delivery_row(delivery: Delivery, active: bool, words: Words) -> list[str]:
    told = delivery.error or (str(delivery.status) if delivery.status else "")
    state = words(f"hook.state.{delivery.state.value}")
    again = ""
    if active and delivery.state is not DeliveryState.PENDING:
        again = (
            f'<form method="post" action="{_PLACE}/{delivery.endpoint_id}/replay">'
            f'<input type="hidden" name="delivery" value="{delivery.id}">'
            f'<button class="small second">{escape(words("hook.replay"))}</button></form>'
        )
    return [
        f"<code>{escape(delivery.event.value)}</code>",
        escape(moment(delivery.created_at)),
        f'<span class="badge {_BADGES[delivery.state]}">{escape(state)}</span> {escape(told)}',
        f"{delivery.attempts}",
        again,
    ]


def _form_html(words: Words) -> str:
    ticks = "".join(
        f'<label class="tick"><input type="checkbox" name="event" value="{kind.value}" checked>'
        f"<code>{kind.value}</code></label>"
        for kind in EventKind
    )
    return f"""<details><summary>{escape(words("hook.add"))}</summary>
<form class="narrow" method="post" action="{_PLACE}">
<label for="url">{escape(words("hook.url"))}</label>
<input id="url" name="url" type="url" required maxlength="2000" placeholder="https://"
 autocomplete="off">
<label for="description">{escape(words("dev.label"))}</label>
<input id="description" name="description" maxlength="200" autocomplete="off">
<fieldset><legend>{escape(words("hook.events"))}</legend>{ticks}</fieldset>
<p class="row"><button>{escape(words("hook.add"))}</button></p></form></details>"""


def _kinds(names: list[str]) -> list[EventKind]:
    unknown = [name for name in names if name not in set(EventKind)]
    if unknown:
        raise InvalidInput(f"There is no event {unknown[0][:40]!r}: {', '.join(EventKind)}.")
    return [EventKind(name) for name in names]


def _record(studio: RemoteStudio, what: str, endpoint_id: str) -> None:
    studio.service.record_event(
        f"webhook.{what}",
        None,
        {"webhook_id": endpoint_id},
        tenant_id=studio.caller.tenant_id,
        actor=studio.caller.actor,
    )

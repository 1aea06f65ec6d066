"""The developers' page: keys, usage, webhooks, and the present request as code to copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from imagine.errors import ImagineError, InvalidInput
from imagine.service.auth import ROLES, check_scope
from imagine.service.usage import Day, Usage
from imagine.storage.api_keys import ApiKey, NewApiKey
from imagine.storage.jobs import JobState
from imagine.ui.accounts import Accounts
from imagine.ui.charts import Series, stacked_bars
from imagine.ui.remote import RemoteStudio
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
from imagine.ui.snippets import snippets_html
from imagine.ui.webhooking import webhook_routes, webhooks_html
from imagine.ui.words import Words

_PLACE = "/developers"
_SCOPE = "service:read"
_MOST_DAYS = 3650
_SHOWN = (
    ("usage.succeeded", "good", (JobState.SUCCEEDED,)),
    ("usage.blocked", "some", (JobState.BLOCKED,)),
    ("usage.failed", "bad", (JobState.FAILED,)),
    ("usage.canceled", "muted", (JobState.CANCELED, JobState.QUEUED, JobState.RUNNING)),
)


def routes(accounts: Accounts) -> APIRouter:
    """The routes of the page."""
    router = APIRouter(include_in_schema=False)

    @router.get(_PLACE)
    def show(request: Request) -> Response:
        words = words_for(request, accounts)
        try:
            studio = staff(accounts, request.cookies.get(COOKIE), {_SCOPE})
        except NotForYou:
            return sheet(request, accounts, words("dev.heading"), "", 403,
                         words("office.not_yours"), "bad")  # fmt: skip
        said = request.query_params.get("said", "")
        told = words(f"dev.said.{said}") if said in ("revoked", "webhook", "gone") else ""
        body = page_html(studio, words, str(request.base_url).rstrip("/"), None)
        return sheet(request, accounts, words("dev.heading"), body, said=told)

    @router.post(f"{_PLACE}/keys")
    async def create(request: Request) -> Response:
        words = words_for(request, accounts)
        try:
            studio = staff(accounts, request.cookies.get(COOKIE), {_SCOPE})
            form = await form_of(request)
            made = await run_in_threadpool(create_key, studio, form)
        except NotForYou:
            return go_to(_PLACE)
        except ImagineError as error:
            return refusal(request, accounts, error)
        base = str(request.base_url).rstrip("/")
        body = await run_in_threadpool(page_html, studio, words, base, made)
        # Not sent on to another page: this is the only time the key is told.
        return sheet(request, accounts, words("dev.heading"), body, said=words("dev.key_made"))

    @router.post(_PLACE + "/keys/{key_id}/revoke")
    def revoke(request: Request, key_id: str) -> Response:
        try:
            studio = staff(accounts, request.cookies.get(COOKIE), {_SCOPE})
            studio.service.api_keys.revoke(studio.caller.tenant_id, key_id)
        except NotForYou:
            return go_to(_PLACE)
        except ImagineError as error:
            return refusal(request, accounts, error)
        return go_to(_PLACE, said="revoked")

    router.include_router(webhook_routes(accounts))
    return router


def create_key(studio: RemoteStudio, form: Mapping[str, Sequence[str]]) -> NewApiKey:
    """A key as the form asks, never for more than whoever asks may do.

    Raises:
        InvalidInput: no label, an unknown role, or a lifetime out of range.
        KeyRefused: the role may do more than they may.
    """
    given = {name: list(values) for name, values in form.items()}
    role = field_of(given, "role", 40)
    if role not in ROLES:
        raise InvalidInput(f"There is no role {role!r}. Known: {', '.join(ROLES)}.")
    for scope in ROLES[role]:
        check_scope(studio.caller, scope)
    days = field_of(given, "days", 5)
    if days and (not days.isdecimal() or not 1 <= int(days) <= _MOST_DAYS):
        raise InvalidInput(f"A key can last 1 to {_MOST_DAYS} days, not {days!r}.")
    lifetime = timedelta(days=int(days)) if days else None
    label = field_of(given, "label")
    return studio.service.api_keys.create(studio.caller.tenant_id, label, ROLES[role], lifetime)


def page_html(studio: RemoteStudio, words: Words, base: str, made: NewApiKey | None) -> str:
    """All of the page; `base` is its own address."""
    tenant = studio.caller.tenant_id
    keys = studio.service.api_keys.of_tenant(tenant)
    days = Usage(studio.service.database).by_day(tenant)
    return (
        f"{_new_key_html(made, words)}"
        f'<div class="grid">{_form_html(studio, words)}{_usage_html(days, words)}</div>'
        f"{_keys_html(keys, words)}{webhooks_html(studio, words)}"
        f"{snippets_html(base, _request(studio), words)}"
    )


def _new_key_html(made: NewApiKey | None, words: Words) -> str:
    if made is None:
        return ""
    return f"""<section class="card" aria-labelledby="new-key">
<h2 id="new-key">{escape(words("dev.key_new", label=made.key.label))}</h2>
<p>{escape(words("dev.key_once"))}</p>
<code class="secret" id="token">{escape(made.token)}</code>
<p class="row"><button type="button" data-copy="token" data-done="{escape(words("office.copied"))}"
>{escape(words("office.copy"))}</button></p></section>"""


def _form_html(studio: RemoteStudio, words: Words) -> str:
    allowed = [role for role, scopes in ROLES.items() if scopes <= studio.caller.scopes]
    options = "".join(
        f'<option value="{role}">{escape(words(f"role.{role}"))}</option>' for role in allowed
    )
    return f"""<section class="card"><h2>{escape(words("dev.create"))}</h2>
<form method="post" action="{_PLACE}/keys">
<label for="label">{escape(words("dev.label"))}</label>
<input id="label" name="label" required maxlength="200" autocomplete="off">
<label for="role">{escape(words("dev.role"))}</label>
<select id="role" name="role">{options}</select>
<label for="days">{escape(words("dev.days"))}</label>
<input id="days" name="days" inputmode="numeric" pattern="[0-9]*" maxlength="4" autocomplete="off">
<p class="hint">{escape(words("dev.days_hint"))}</p>
<p class="row"><button>{escape(words("dev.make"))}</button></p></form></section>"""


def _usage_html(days: Sequence[Day], words: Words) -> str:
    labels = [f"{day.day:%d.%m.}" for day in days]
    series = [
        Series(words(key), tone, [sum(day.states.get(s, 0) for s in states) for day in days])
        for key, tone, states in _SHOWN
    ]
    total = sum(day.total for day in days)
    figures = "".join(
        f"<li><strong>{sum(one.values):.0f}</strong><span>{escape(one.name)}</span></li>"
        for one in series
    )
    rows = [
        [f"{day.day:%Y-%m-%d}", *(f"{one.values[place]:.0f}" for one in series)]
        for place, day in enumerate(days)
        if day.total
    ]
    heads = [words("usage.day"), *(one.name for one in series)]
    table = table_html(heads, rows, words("usage.heading"))
    behind = f"<details><summary>{escape(words('usage.table'))}</summary>{table}</details>"
    return f"""<section class="card"><h2>{escape(words("usage.heading"))}</h2>
<p class="hint">{escape(words("usage.total", count=total))}</p>
{stacked_bars(labels, series)}<ul class="figures">{figures}</ul>
{behind if rows else ""}</section>"""


def _keys_html(keys: Sequence[ApiKey], words: Words) -> str:
    rows = [_key_row(key, words) for key in reversed(keys)]
    heads = [words(f"dev.head.{name}") for name in ("label", "id", "may", "used", "state", "act")]
    shown = table_html(heads, rows, words("dev.keys")) or f"<p>{escape(words('office.none'))}</p>"
    return f'<section class="card"><h2>{escape(words("dev.keys"))}</h2>{shown}</section>'


def _key_row(key: ApiKey, words: Words) -> list[str]:
    role = next((role for role, scopes in ROLES.items() if scopes == key.scopes), None)
    may = words(f"role.{role}") if role else ", ".join(sorted(key.scopes))
    used = words("dev.never") if key.last_used_at is None else f"{key.last_used_at:%Y-%m-%d %H:%M}"
    state, kind = words("dev.good"), "good"
    if key.revoked_at is not None:
        state, kind = words("dev.revoked"), "bad"
    elif key.expires_at is not None and key.expires_at <= datetime.now(UTC):
        state, kind = words("dev.expired"), "some"
    button = ""
    if kind == "good":
        name = f"{words('dev.revoke')}: {key.label}"
        button = (
            f'<form method="post" action="{_PLACE}/keys/{escape(key.id)}/revoke">'
            f'<button class="small danger" aria-label="{escape(name)}">'
            f"{escape(words('dev.revoke'))}</button></form>"
        )
    return [
        escape(key.label),
        f"<code>{escape(key.id)}</code>",
        escape(may),
        escape(used),
        f'<span class="badge {kind}">{escape(state)}</span>',
        button,
    ]


def _request(studio: RemoteStudio) -> dict[str, Any]:
    """The newest wish of this account, or one to begin with."""
    person = studio.person()
    newest = next(iter(studio.pictures()), None)
    return {
        "identity": person.id if person is not None else "identity_...",
        "prompt": newest.recipe.prompt if newest is not None else "smiling in a forest at dawn",
        "seed": newest.recipe.seed if newest is not None else 7,
        "likeness": newest.recipe.likeness if newest is not None else 0.7,
        "n": 2,
    }

"""/auth and /v1/session: people come in by their organisation's login, and go out again."""

from __future__ import annotations

import html
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel
from starlette.responses import HTMLResponse, RedirectResponse, Response

from imagine.errors import NotStored, SignInRefused
from imagine.service.auth import SESSION_COOKIE, Caller, anybody, caller_with, csrf_token
from imagine.service.routers.asking import ServiceOf
from imagine.service.sign_in import LOGIN_SECONDS, SignIn
from imagine.service.wiring import Service

router = APIRouter(tags=["sign-in"])

LOGIN_COOKIE = "imagine_login"
Somebody = Annotated[
    Caller,
    Depends(caller_with("generations:read", "images:review", "service:read", "identities:read")),
]


class SessionOut(BaseModel):
    """Who is asking, and what a page must send along with changes."""

    object: Literal["session"] = "session"
    account: str
    tenant: str
    scopes: list[str]
    csrf_token: str | None


@router.get(
    "/auth/login",
    response_class=Response,
    status_code=303,
    dependencies=[Depends(anybody)],
    responses={303: {"description": "To the login of your organisation."}},
)
def sign_in(
    service: ServiceOf,
    request: Request,
    next_path: Annotated[str, Query(alias="next", max_length=500)] = "/",
) -> Response:
    """Sign in with your organisation; a browser goes here."""
    departure = _sign_in(service).leave(next_path, str(request.base_url))
    answer = RedirectResponse(departure.url, 303)
    answer.set_cookie(
        LOGIN_COOKIE,
        departure.cookie,
        max_age=LOGIN_SECONDS,
        path="/auth",
        httponly=True,
        samesite="lax",  # the way back comes from the issuer's site
        secure=_is_secure(service, request),
    )
    return answer


@router.get(
    "/auth/callback",
    response_class=Response,
    dependencies=[Depends(anybody)],
    responses={200: {"content": {"text/html": {}}, "description": "Signed in."}},
)
def come_back(
    service: ServiceOf,
    request: Request,
    state: Annotated[str, Query(max_length=500)] = "",
    code: Annotated[str, Query(max_length=4000)] = "",
    iss: Annotated[str | None, Query(max_length=500)] = None,
    error: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Where the issuer sends a browser back to."""
    door = _sign_in(service)
    if error is not None or not code:
        raise SignInRefused("The issuer let nobody in, or you changed your mind. Sign in again.")
    cookie = request.cookies.get(LOGIN_COOKIE)
    arrival = door.arrive(cookie, state, code, str(request.base_url), iss)
    caller = arrival.caller
    secret = service.visits.begin(caller.tenant_id, caller.actor, caller.scopes)
    service.record_event(
        "account.signed_in", None, {}, tenant_id=caller.tenant_id, actor=caller.actor
    )
    # A page and not a redirection: a strict cookie goes along only with what our own site began.
    place = html.escape(arrival.next_path, quote=True)
    page = f'<!doctype html><meta http-equiv="refresh" content="0;url={place}">'
    answer = HTMLResponse(f'{page}<p><a href="{place}">Signed in. Go on.</a>')
    answer.delete_cookie(LOGIN_COOKIE, path="/auth")
    answer.set_cookie(
        SESSION_COOKIE,
        secret,
        path="/",
        httponly=True,
        samesite="strict",
        secure=_is_secure(service, request),
    )
    return answer


@router.post("/auth/logout", status_code=204)
def sign_out(service: ServiceOf, caller: Somebody, request: Request) -> Response:
    """End this visit, everywhere at once."""
    secret = request.cookies.get(SESSION_COOKIE)
    if secret:
        service.visits.end(secret)
    answer = Response(status_code=204)
    answer.delete_cookie(SESSION_COOKIE, path="/")
    return answer


@router.get("/v1/session")
def get_session(caller: Somebody, request: Request) -> SessionOut:
    """Who you are here; pages send `csrf_token` back as X-CSRF-Token with every change."""
    by_cookie = "authorization" not in request.headers and "x-api-key" not in request.headers
    secret = request.cookies.get(SESSION_COOKIE) if by_cookie else None
    return SessionOut(
        account=caller.actor,
        tenant=caller.tenant_id,
        scopes=sorted(caller.scopes),
        csrf_token=csrf_token(secret) if secret else None,
    )


def _sign_in(service: Service) -> SignIn:
    if service.sign_in is None:
        raise NotStored("This service has no login of an organisation. Use an API key.")
    return service.sign_in


def _is_secure(service: Service, request: Request) -> bool:
    return request.url.scheme == "https" or service.settings.oidc.public_url.startswith("https:")

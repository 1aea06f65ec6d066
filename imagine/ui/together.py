"""The page and the HTTP API of one service on one address: two applications, one door.

They share nothing but the service: errors of the API stay problems in JSON, errors of the page
stay sentences, and a cookie of the page opens nothing of the API.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

from fastapi import FastAPI
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from imagine.service.api import build_app as build_api
from imagine.service.middleware import Envelope
from imagine.service.wiring import Service
from imagine.ui.accounts import Accounts
from imagine.ui.offices import add_offices
from imagine.ui.remote import RemoteStudios
from imagine.ui.server import build_app as build_page


def create_app(service: Service, start: bool = True) -> OneAddress:
    """The API of a service with its page, ready for an ASGI server.

    Args:
        service: from `wiring.build_service`; closed when the app ends.
        start: begin to work when the app starts; False leaves that to the caller.
    """
    api = build_api(service, start)
    accounts = Accounts(RemoteStudios(service))
    login = "" if service.sign_in is None else "/auth/login"

    def add_more(app: FastAPI) -> None:
        add_offices(app, accounts, api.openapi, login)

    page = build_page(accounts.studios, accounts, add_more)
    wrapped = Envelope(api, api.state.metrics.count)
    return OneAddress(wrapped, page, lambda scope: _is_of_api(api, scope), (api, page))


class OneAddress:
    """Sends each request to one of two applications; both live and end together.

    Args:
        api: gets what `is_of_api` says.
        page: gets the rest.
        is_of_api: looks at the scope of a request.
        living: whose lifespans run, in this order.
    """

    def __init__(
        self,
        api: ASGIApp,
        page: ASGIApp,
        is_of_api: Callable[[Scope], bool],
        living: tuple[FastAPI, ...],
    ) -> None:
        self._api = api
        self._page = page
        self._is_of_api = is_of_api
        self._living = living

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or live through the server's life."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        chosen = self._api if self._is_of_api(scope) else self._page
        await chosen(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        started = False
        try:
            async with AsyncExitStack() as stack:
                for app in self._living:
                    await stack.enter_async_context(app.router.lifespan_context(app))
                started = True
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except BaseException as error:
            kind = "shutdown" if started else "startup"
            # The server prints this; our own messages are fit for it, others are told by kind.
            await send({"type": f"lifespan.{kind}.failed", "message": type(error).__name__})
            raise
        await send({"type": "lifespan.shutdown.complete"})


def _is_of_api(api: FastAPI, scope: Scope) -> bool:
    if scope["type"] != "http":
        return False
    if scope["path"].startswith("/v1/"):
        return True  # also what does not exist: the API says so in its own way
    return any(route.matches(scope)[0] is not Match.NONE for route in api.routes)

"""What a service has around its studio: places to go, sign-in, offices for staff, public pages.

`add_offices` puts their routes beside the studio's; who may see what is asked on every request.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request, Response

from imagine.ui import appealing, checking, developing, reference, reporting, reviewing, signing_in
from imagine.ui.accounts import Accounts
from imagine.ui.sessions import COOKIE, Sessions
from imagine.ui.sheet import nav_html, places, words_for


def add_offices(
    app: FastAPI,
    accounts: Accounts,
    openapi: Callable[[], dict[str, Any]],
    other_login: str = "",
) -> None:
    """Put the offices of a service on the application; call it before Gradio is mounted.

    Args:
        app: the page's.
        accounts: who is there.
        openapi: gives the description of the API, for its reference.
        other_login: address where another login begins; "" where there is none.
    """
    for router in (
        signing_in.routes(accounts, other_login),
        developing.routes(accounts),
        reference.routes(accounts, openapi),
        reviewing.routes(accounts),
        reporting.routes(accounts),
        appealing.routes(accounts),
        checking.routes(accounts),
    ):
        app.include_router(router)


def add_places(app: FastAPI, sessions: Sessions) -> None:
    """What every studio needs around it: where to go, and the look of that."""

    @app.get("/private/places", include_in_schema=False)
    async def where_to_go(request: Request) -> Response:
        """The places of whoever asks, for the studio's masthead."""
        found = places(sessions, request.cookies.get(COOKIE))
        html = nav_html(found, words_for(request, sessions), "/", sessions.signs_in)
        return Response(
            json.dumps({"html": html if found else ""}),
            media_type="application/json",
            headers={"Cache-Control": "no-store"},
        )

    @app.get("/look/{name}", include_in_schema=False)
    async def look(name: str) -> Response:
        kind = _LOOKS.get(name)
        if kind is None:
            return Response(status_code=404)
        text = resources.files("imagine.ui").joinpath("look", name).read_text(encoding="utf-8")
        return Response(text, media_type=kind, headers={"Cache-Control": "no-cache"})


_LOOKS = {
    "office.css": "text/css",
    "office.js": "text/javascript",
    "checking.js": "text/javascript",
    "visit.css": "text/css",
    "visit.js": "text/javascript",
}

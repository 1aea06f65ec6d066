"""Around every request: its id, the last net under errors, headers of every answer, counting."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imagine.service.errors import MEDIA_TYPE, problem_of_status, respond
from imagine.service.rate_limits import rate_headers

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
# method, path of the route, status, seconds
Count = Callable[[str, str, int, float], None]


class Envelope:
    """ASGI middleware; stands outside of everything else."""

    def __init__(self, app: ASGIApp, count: Count) -> None:
        self._app = app
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and see its answer out."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["imagine_request_id"] = request_id = _request_id(scope)
        started = time.perf_counter()
        status = 0
        is_replaced = False

        async def send_with_headers(message: Message) -> None:
            nonlocal status, is_replaced
            if is_replaced:
                return
            if _is_bare_refusal(message):
                # The limit of bodies stands before our handlers and answers in plain text.
                too_large = respond(Request(scope), problem_of_status(413))
                await too_large(scope, receive, send_with_headers)
                is_replaced = True
                return
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                for name, value in rate_headers(scope.get("imagine_allowances", ())).items():
                    headers[name] = value
            await send(message)

        try:
            if "\0" in scope["path"]:  # no id has one, and PostgreSQL would not even look
                nothing = respond(Request(scope), problem_of_status(404))
                await nothing(scope, receive, send_with_headers)
                return
            await self._app(scope, receive, send_with_headers)
        except Exception:
            # Told and logged already, by kind and place (`errors.install_error_handlers`). Raised
            # any further, a server would print its message, and that may quote what somebody wrote.
            logger.debug("request %s ended with an error", request_id)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            self._count(scope["method"], route, status, time.perf_counter() - started)


_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Faces: no shared cache may keep anything of this.
    "Cache-Control": "no-store",
}


def _is_bare_refusal(message: Message) -> bool:
    if message["type"] != "http.response.start" or message["status"] != 413:
        return False
    return dict(message["headers"]).get(b"content-type") != MEDIA_TYPE.encode()


def _request_id(scope: Scope) -> str:
    """The id the client chose, if it is a harmless word; else a new one."""
    given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"

"""Our own routes beside Gradio's: photos in, private images out, each for one session only.

Private bytes never enter Gradio's cache: they go through here, are found by the session cookie and
are not found by anybody else. Gradio's own routes for files are closed.
"""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from importlib import resources
from typing import Any
from urllib.parse import unquote, urlsplit

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imagine.errors import ImagineError, InvalidInput, NotStored
from imagine.ui.gallery import file_name, zip_pictures
from imagine.ui.me import photo_facts
from imagine.ui.page import SPOKEN, script_words
from imagine.ui.sessions import COOKIE, Sessions
from imagine.ui.studio import Studio
from imagine.ui.styles import STYLES
from imagine.ui.theme import token_css
from imagine.ui.verifying import origin_html
from imagine.ui.words import Spoken, Words, preferred_language

LEAVE_SECONDS = 20.0  # longer than the pause between two signs of life of an open page
MAX_VERIFIED_BYTES = 64 * 1024 * 1024
_MAX_REPORT_BYTES = 16 * 1024
_THUMBNAILS = frozenset(f"style-{name}" for name in STYLES)
_SUFFIXES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
# Gradio's scripts are made of inline pieces and functions from text; nothing comes from elsewhere.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
# Gradio routes that take or hand out files, reach other hosts, or keep what was asked.
_CLOSED = (
    "/gradio_api/upload", "/gradio_api/file", "/gradio_api/proxy", "/gradio_api/runs",
    "/gradio_api/stream", "/gradio_api/component_server", "/gradio_api/info",
    "/gradio_api/deep_link", "/gradio_api/custom_component", "/gradio_api/process_recording",
    "/gradio_api/call", "/gradio_api/run", "/gradio_api/api", "/gradio_api/monitoring",
    "/monitoring",
)  # fmt: skip


def add_routes(app: FastAPI, sessions: Sessions) -> None:
    """Put our routes on the application; call it before Gradio is mounted."""
    router = APIRouter(include_in_schema=False)

    def found(request: Request) -> Studio:
        studio = sessions.studio(request.cookies.get(COOKIE))
        if studio is None:
            raise NotStored("Not found.")
        return studio

    @router.post("/private/session")
    async def begin_or_go_on(request: Request) -> Response:
        """The page says it is there; who has no session gets one."""
        secret = request.cookies.get(COOKIE)
        studio = sessions.studio(secret)
        known = studio is not None
        answer = _private(
            json.dumps(
                {
                    "boot": sessions.boot,
                    "known": known,
                    "photos": len(studio.photos()) if studio is not None else 0,
                    "reports": studio is not None and studio.limits.takes_reports,
                    "words": json.loads(script_words(_words(request))),
                }
            ).encode(),
            "application/json",
        )
        if not known and (newcomer := await run_in_threadpool(sessions.welcome)) is not None:
            set_cookie(answer, newcomer, request)
        return answer

    @router.post("/private/leave")
    async def leave(request: Request) -> Response:
        """The page was closed by somebody who wants nothing drawn then; a reload comes back."""
        secret = request.cookies.get(COOKIE)
        if secret and sessions.studio(secret) is not None:
            since = sessions.last_seen(secret)
            timer = threading.Timer(LEAVE_SECONDS, sessions.stop_if_gone, (secret, since))
            timer.daemon = True
            timer.start()
        return Response(status_code=204)

    @router.post("/private/photos")
    async def take_photo(request: Request) -> Response:
        studio = found(request)
        name = _file_name(request)
        most = studio.limits.max_photo_bytes
        data = await _body(request, most, name)
        replaces = request.headers.get("x-replaces") or None
        card = await run_in_threadpool(studio.add_photo, data, name, replaces)
        facts = photo_facts(card, _words(request))
        return _private(json.dumps(facts).encode(), "application/json")

    @router.get("/private/photos/{photo_id}")
    async def show_photo(request: Request, photo_id: str) -> Response:
        return _private(found(request).photo(photo_id), "image/jpeg")

    @router.get("/private/previews/{preview_id}")
    async def show_preview(request: Request, preview_id: str) -> Response:
        return _private(found(request).preview(preview_id), "image/webp")

    @router.get("/private/pictures.zip")
    async def zip_of(request: Request, ids: str = "", suffix: str = ".png") -> Response:
        _check_suffix(suffix)
        wanted = [picture_id for picture_id in ids.split(",") if picture_id]
        data = await run_in_threadpool(zip_pictures, found(request), wanted, suffix)
        return _private(data, "application/zip", "imagine-yourself.zip")

    @router.get("/private/export.zip")
    async def export(request: Request) -> Response:
        data = await run_in_threadpool(found(request).export)
        return _private(data, "application/zip", "imagine-yourself-everything.zip")

    @router.post("/private/reports")
    async def report(request: Request) -> Response:
        """Something is wrong with a picture."""
        studio = found(request)
        told = _fields(await _body(request, _MAX_REPORT_BYTES, "report"))
        given = [str(told.get(name, ""))[:4000] for name in ("picture", "reason", "details")]
        number = await run_in_threadpool(studio.report, *given)
        return _private(json.dumps({"number": number}).encode(), "application/json")

    @router.get("/private/pictures/{picture_id}")
    async def show_picture(
        request: Request, picture_id: str, download: int = 0, suffix: str = ".png"
    ) -> Response:
        studio = found(request)
        _check_suffix(suffix)
        data = await run_in_threadpool(studio.picture, picture_id, suffix)
        name = ""
        if download:
            cards = [card for card in studio.pictures() if card.id == picture_id]
            name = file_name(1, cards[0], suffix) if cards else f"imagine{suffix}"
        return _private(data, _SUFFIXES[suffix], name)

    @router.post("/verify/picture")
    async def verify(request: Request) -> Response:
        """Public: needs no session, keeps nothing."""
        name = _file_name(request)
        data = await _body(request, MAX_VERIFIED_BYTES, name)
        origin = await run_in_threadpool(sessions.studios.verify, data, name)
        studio, record = sessions.studio(request.cookies.get(COOKIE)), origin.report.record
        if origin.recipe is None and studio is not None and record is not None:
            # Sealed in the file, but theirs.
            recipe = await run_in_threadpool(studio.recipe_of, record)
            origin = replace(origin, recipe=recipe)
        html = origin_html(origin, _words(request))
        return _private(json.dumps({"html": html}).encode(), "application/json")

    @router.get("/look/page.css")
    async def look() -> Response:
        css = token_css() + _look("page.css")
        return Response(css, media_type="text/css", headers={"Cache-Control": "no-cache"})

    @router.get("/look/page.js")
    async def script() -> Response:
        return Response(
            _look("page.js"), media_type="text/javascript", headers={"Cache-Control": "no-cache"}
        )

    @router.get("/look/{name}.webp")
    async def thumbnail(name: str) -> Response:
        """How a style looks; no private picture comes this way."""
        if name not in _THUMBNAILS:
            raise NotStored("There is no such picture.")
        data = resources.files("imagine.ui").joinpath("look", f"{name}.webp").read_bytes()
        return Response(data, media_type="image/webp", headers={"Cache-Control": "max-age=86400"})

    app.state.house = sessions.house
    app.include_router(router)
    app.add_exception_handler(ImagineError, _told)
    app.add_middleware(Guard, sessions=sessions)


def set_cookie(response: Response, secret: str, request: Request) -> None:
    """Tell the browser its secret; scripts cannot read it, other sites cannot send it."""
    response.set_cookie(
        COOKIE,
        secret,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        path="/",
    )


class Guard:
    """Closes what must not be open, begins sessions with the page, and says what may be loaded."""

    def __init__(self, app: ASGIApp, sessions: Sessions) -> None:
        self._app = app
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        SPOKEN.set(preferred_language(request.headers.get("accept-language")))
        if request.url.path.startswith(_CLOSED):
            await PlainTextResponse("Not found.", 404)(scope, receive, send)
            return
        if scope["method"] not in ("GET", "HEAD") and _is_foreign(request):
            await PlainTextResponse("Requests of other sites are refused.", 403)(
                scope, receive, send
            )
            return
        try:
            self._sessions.check(request)
        except ImagineError as error:
            await PlainTextResponse(str(error), 403)(scope, receive, send)
            return
        opens_page = scope["method"] == "GET" and request.url.path == "/"
        newcomer: str | None = None
        if opens_page and self._sessions.studio(request.cookies.get(COOKIE)) is None:
            newcomer = self._sessions.welcome()
            if newcomer is None:
                await RedirectResponse("/sign-in", 303)(scope, receive, send)
                return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Content-Security-Policy", _POLICY)
                headers.setdefault("Referrer-Policy", "no-referrer")
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Permissions-Policy"] = "camera=(self), microphone=(), geolocation=()"
                if newcomer is not None:
                    carrier = Response()
                    set_cookie(carrier, newcomer, request)
                    headers.append("set-cookie", carrier.headers["set-cookie"])
            await send(message)

        await self._app(scope, receive, send_guarded)


def _is_foreign(request: Request) -> bool:
    """Whether a page of another site sends this: its origin is not the host it talks to."""
    headers: Headers = request.headers
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    return bool(origin) and urlsplit(origin or "").netloc != headers.get("host")


def _check_suffix(suffix: str) -> None:
    if suffix not in _SUFFIXES:
        raise InvalidInput(f"Pictures come as {', '.join(_SUFFIXES)}, not {suffix[:8]!r}.")


async def _told(request: Request, error: Exception) -> Response:
    """An error as JSON with a sentence for the page."""
    assert isinstance(error, ImagineError)
    status = 404 if isinstance(error, NotStored) else 400
    if isinstance(error, _TooLarge):
        status = 413
    said = _words(request).error(error)
    answer = JSONResponse({"message": said}, status)
    answer.headers["Cache-Control"] = "no-store"
    return answer


class _TooLarge(Spoken, InvalidInput):
    """A body larger than allowed."""


async def _body(request: Request, most: int, name: str) -> bytes:
    """The body, read into memory and never to disk.

    Raises:
        InvalidInput: it is larger than `most` bytes.
    """
    refusal = _TooLarge(_words(request)("net.too_large", name=name, megabytes=most // 2**20))
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > most:
        raise refusal
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > most:
            raise refusal
    return bytes(data)


def _fields(data: bytes) -> dict[str, Any]:
    """The fields of a JSON object.

    Raises:
        InvalidInput: something else.
    """
    try:
        fields = json.loads(data)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise InvalidInput("This report could not be read. Reload the page and send it again.")
    return fields


def _file_name(request: Request) -> str:
    """What to call a file: its own name without folders or invisible characters."""
    given = unquote(request.headers.get("x-name", ""))[:200].replace("\\", "/").split("/")[-1]
    return "".join(c for c in given if c.isprintable())[:80] or "photo"


def _private(data: bytes, media_type: str, download_as: str = "") -> Response:
    headers = {"Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin"}
    if download_as:
        headers["Content-Disposition"] = f'attachment; filename="{download_as}"'
    return Response(data, media_type=media_type, headers=headers)


def _words(request: Request) -> Words:
    language = preferred_language(request.headers.get("accept-language"))
    return Words(language, request.app.state.house)


def _look(name: str) -> str:
    text: Any = resources.files("imagine.ui").joinpath("look", name).read_text(encoding="utf-8")
    return str(text)

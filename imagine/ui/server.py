"""Pages and routes on one address: builds the application, runs it, and forgets at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable

# Before Gradio is imported: it reads these once.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_RUN_HISTORY"] = "False"

import gradio as gr
from fastapi import FastAPI

from imagine.errors import InvalidInput
from imagine.ui.offices import add_places
from imagine.ui.page import Page
from imagine.ui.routes import add_routes
from imagine.ui.sessions import Sessions
from imagine.ui.studio import Studios
from imagine.ui.theme import ICON, theme

_SWEEP_SECONDS = 60.0
_HEAD = (
    '<link rel="stylesheet" href="/look/page.css"><script src="/look/page.js" defer></script>'
    '<link rel="stylesheet" href="/look/visit.css"><script src="/look/visit.js" defer></script>'
    '<meta name="color-scheme" content="light dark">'
    f'<link rel="icon" href="{ICON}">'
)


def build_app(
    studios: Studios,
    sessions: Sessions | None = None,
    add_more: Callable[[FastAPI], None] = lambda app: None,
) -> FastAPI:
    """The application: our routes, then the page at "/".

    Args:
        studios: who does the work.
        sessions: who is at the page; None begins with nobody.
        add_more: puts further routes on it, before the page takes what is left.
    """
    known = Sessions(studios) if sessions is None else sessions

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        ended = threading.Event()

        def sweep() -> None:
            while not ended.wait(_SWEEP_SECONDS):
                known.sweep()

        threading.Thread(target=sweep, name="imagine-sweep", daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            known.close()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    add_routes(app, known)
    add_places(app, known)
    add_more(app)
    _inside_a_loop(lambda: _mount(app, Page(known)))
    return app


def run(
    studios: Studios,
    host: str = "127.0.0.1",
    port: int = 7860,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until interrupted; everything is forgotten then.

    Args:
        studios: who does the work.
        host: address to listen on.
        port: 1 to 65535.
        on_ready: called when the address is ours and the page is built.

    Raises:
        InvalidInput: the address cannot be used.
    """
    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise InvalidInput(
            f"Port {port} of {host} cannot be used: {error.strerror or error}. "
            "Choose another with --port, or end the program that has it."
        ) from error
    with listener:
        app = build_app(studios)
        on_ready()
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3)
        uvicorn.Server(config).run(sockets=[listener])


def _mount(app: FastAPI, page: Page) -> None:
    gr.mount_gradio_app(
        app,
        page.blocks,
        path="",
        show_error=False,
        run_history=False,
        footer_links=[],
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        max_file_size=0,
        i18n=page.i18n,
        theme=theme(),
        head=_HEAD,
    )


def _inside_a_loop(act: Callable[[], None]) -> None:
    """Call `act` while an event loop runs: without one, Gradio opens several and closes none."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:

        async def inside() -> None:
            act()

        asyncio.run(inside())
    else:
        act()

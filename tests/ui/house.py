"""A service for the tests of its page: fake models, two tenants' worth of keys, a real address."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagine.service.auth import scopes_of
from imagine.service.settings import ServiceSettings
from imagine.service.wiring import Service, build_service
from imagine.settings import Settings


def places_in(folder: Path) -> Settings:
    """Everything kept in one folder, whatever the environment says."""
    return Settings(
        data_directory=folder,
        database_url="",
        blob_url="",
        key_store_url="",
        master_key_source=f"file:{folder / 'secrets' / 'master.key'}",
    )


def make_service(folder: Path, single_user: bool = False) -> Service:
    """A service of doubles, which keeps everything in a folder."""
    chosen = ServiceSettings(
        backend="fake",
        detector="double",
        encoder="double",
        preview_seconds=0.05,
        single_user=single_user,
    )
    return build_service(chosen, places_in(folder))


def make_key(service: Service, tenant: str, role: str = "developer", label: str = "test") -> str:
    """A key of a tenant, which is made when there is none."""
    service.people.add_tenant(tenant, tenant)
    return service.api_keys.create(tenant, label, scopes_of(role)).token


@dataclass
class Open:
    """A service with its page on a free port of this machine."""

    url: str
    service: Service


@contextmanager
def serving(service: Service, port: int = 0) -> Iterator[Open]:
    """API and page, in a thread."""
    import uvicorn

    from imagine.ui.together import create_app

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    config = uvicorn.Config(
        create_app(service), log_level="error", lifespan="on", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive() and time.monotonic() < until, "the server did not start"
        time.sleep(0.05)
    try:
        yield Open(f"http://127.0.0.1:{listener.getsockname()[1]}", service)
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


def until(question: Any, seconds: float = 60.0) -> Any:
    """The first true answer, asked for a while."""
    give_up = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        assert time.monotonic() < give_up, "it did not happen in time"
        time.sleep(0.02)

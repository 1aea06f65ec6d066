"""`imagine-me serve`: the service over HTTP; `imagine-me worker`: only its hands."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imagine.cli.console import say
from imagine.errors import MissingExtra

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from imagine.service.wiring import Service

PORT = 8765
_SHUTDOWN_SECONDS = 5

ModelOption = Annotated[
    str | None,
    typer.Option("--backend", help="Image model; else IMAGINE_SERVICE_BACKEND, else embedded."),
]
DetectorChoice = Annotated[
    str | None, typer.Option("--detector", help="Face detector.", show_default=False)
]
EncoderChoice = Annotated[
    str | None, typer.Option("--encoder", help="Face recogniser.", show_default=False)
]
DeviceChoice = Annotated[
    str | None, typer.Option("--device", help="cpu or cuda.", show_default=False)
]
WeightsChoice = Annotated[
    Path | None, typer.Option("--weights", help="Folder of the weights.", show_default=False)
]


def serve(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 finds one.")] = PORT,
    single_user: Annotated[
        bool,
        typer.Option("--single-user", help="Whoever sits at this machine needs no key."),
    ] = False,
    page: Annotated[
        bool | None,
        typer.Option(
            "--page/--no-page", help="The page beside the API; else if its package is there."
        ),
    ] = None,
    worker_process: Annotated[
        bool | None,
        typer.Option(
            "--worker-process/--one-process",
            help="Draw in a process of its own, so that many who ask are answered soon.",
            show_default=False,
        ),
    ] = None,
    backend: ModelOption = None,
    detector: DetectorChoice = None,
    encoder: EncoderChoice = None,
    device: DeviceChoice = None,
    weights: WeightsChoice = None,
) -> None:
    """Open the service: people, pictures and jobs over HTTP and on a page in the browser.

    Example: imagine-me serve --single-user
    """
    need_serve_extra()
    import uvicorn

    from imagine.service.auth import check_bound_to_loopback

    if single_user:
        check_bound_to_loopback(host)
    has_page = with_page(page)
    service = built_service(
        single_user=single_user or None,
        worker_process=worker_process,
        backend=backend,
        detector=detector,
        encoder=encoder,
        device=device,
        weights=weights,
    )
    config = uvicorn.Config(
        app_of(service, has_page),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,  # paths hold ids of people
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        proxy_headers=False,
    )
    sockets = [config.bind_socket()]
    where = sockets[0].getsockname()
    name = f"[{where[0]}]" if ":" in where[0] else where[0]
    who = "whoever sits here needs no key" if single_user else "keys: imagine-me keys create"
    what = "page and API" if has_page else "API"
    say(f"Listening on http://{name}:{where[1]} ({what}; {who}). Ctrl+C ends it.")
    uvicorn.Server(config).run(sockets)


def worker(
    backend: ModelOption = None,
    detector: DetectorChoice = None,
    encoder: EncoderChoice = None,
    device: DeviceChoice = None,
    weights: WeightsChoice = None,
) -> None:
    """Work on the jobs of a service from another process or host, until Ctrl+C."""
    need_serve_extra()
    service = built_service(
        worker_process=False,  # this is one
        backend=backend,
        detector=detector,
        encoder=encoder,
        device=device,
        weights=weights,
    )
    stop = threading.Event()
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, lambda *_: stop.set())
    service.start()
    say(f"Worker {service.worker.name} takes jobs for {service.models.name}. Ctrl+C ends it.")
    stop.wait()
    service.close()


def with_page(wanted: bool | None) -> bool:
    """Whether the page is served too; said once where it could not be and nobody insisted.

    Raises:
        MissingExtra: it was asked for, and its package is not installed.
    """
    is_there = find_spec("gradio") is not None
    if wanted and not is_there:
        raise MissingExtra(
            "The page needs the package gradio, which is not installed. "
            "Run: pip install 'imagine-yourself[ui]'"
        )
    if wanted is None and not is_there:
        say("Without the page: pip install 'imagine-yourself[ui]' adds it.")
    return is_there if wanted is None else wanted


def app_of(service: Service, has_page: bool) -> ASGIApp:
    """The application of a service, with its page or without."""
    if not has_page:
        from imagine.service.api import create_app

        return create_app(service)
    # By name: commands and page do not know each other, and gradio takes seconds to import.
    create_both: Callable[[Service], ASGIApp] = import_module("imagine.ui.together").create_app
    return create_both(service)


def need_serve_extra() -> None:
    """Refuse early, with the command that helps, where the server's packages are missing.

    Raises:
        MissingExtra: one of them is not installed.
    """
    for package in (
        "fastapi",
        "uvicorn",
        "python_multipart",
        "prometheus_client",
        "httpx2",
        "authlib",
    ):
        if find_spec(package) is None:
            raise MissingExtra(
                f"The service needs the package {package}, which is not installed. "
                "Run: pip install 'imagine-yourself[serve]'"
            )


def built_service(**options: object) -> Service:
    """The service of the environment and of these options; it does not work yet."""
    from imagine.service.memory import bound_heaps
    from imagine.service.settings import ServiceSettings
    from imagine.service.wiring import build_service

    bound_heaps()
    given = {name: value for name, value in options.items() if value is not None}
    return build_service(ServiceSettings.from_environment(**given))

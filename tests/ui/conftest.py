from __future__ import annotations

import io
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from imagine import api
from imagine.backends import BACKENDS
from imagine.identity import FACE_DETECTORS, FACE_ENCODERS
from imagine.service.loaded_models import LoadedModels
from imagine.service.wiring import Service
from imagine.ui.local import LocalStudios
from imagine.ui.sessions import COOKIE, Sessions
from imagine.ui.studio import Consent, Studio
from imagine.ui.together import OneAddress, create_app
from tests.conftest import calm
from tests.ui.house import make_service

PEOPLE = Path(__file__).parent.parent.parent / "assets" / "people"
AGREED = Consent(("It is me.", "Measure my face."), "en", datetime(2026, 11, 22, tzinfo=UTC))


def selfie(person: str = "a", number: int = 1) -> bytes:
    """A photo of somebody who does not exist."""
    return (PEOPLE / f"person-{person}" / f"selfie_{number}.jpg").read_bytes()


def camera_frame() -> bytes:
    """What the browser's camera sees: one person, who holds still."""
    frame = io.BytesIO()
    whole = Image.open(io.BytesIO(selfie("b"))).resize((640, 640))
    whole.crop((0, 80, 640, 560)).save(frame, "JPEG", quality=95)
    return frame.getvalue()


def six_people() -> bytes:
    """Six faces in one picture."""
    sheet = Image.new("RGB", (768, 512))
    for place in range(6):
        face = Image.open(io.BytesIO(selfie("abc"[place % 3], 1 + place // 3))).resize((256, 256))
        sheet.paste(face, (256 * (place % 3), 256 * (place // 3)))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


@pytest.fixture(scope="package", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The fake model takes its time, doubles are known, and nobody's own files are touched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        patch.setenv("IMAGINE_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        # As `tests.conftest.calm_checks`, but for as long as a server lives.
        patch.setattr(api, "usual_checks", calm)
        patch.setattr(LoadedModels, "apparent_ages", lambda self, face: [30.0] * len(face.crops))
        patch.setitem(BACKENDS._targets, "fake", "tests.ui.doubles:SlowFakeBackend")
        for registry, kind in ((FACE_DETECTORS, "Detector"), (FACE_ENCODERS, "Encoder")):
            patch.setitem(registry._targets, "double", f"tests.doubles:Double{kind}")
        yield


@pytest.fixture
def studios() -> Iterator[LocalStudios]:
    """Studios with doubles for models."""
    made = LocalStudios("fake", "double", "double", preview_seconds=0.1)
    yield made
    made.close()


@dataclass
class Running:
    """A server in this process."""

    url: str
    sessions: Sessions
    stop: Callable[[], None]
    gradio_files: Path  # where gradio would keep what passes through it

    def studio(self, cookies: list[Any]) -> Studio:
        """The studio of a browser."""
        secret = next(cookie["value"] for cookie in cookies if cookie["name"] == COOKIE)
        studio = self.sessions.studio(secret)
        assert studio is not None
        return studio

    def enrol(self, cookies: list[Any], *photos: bytes) -> Studio:
        """Somebody enrols without the page, which has its own tests."""
        studio = self.studio(cookies)
        for photo in photos or (selfie(),):
            studio.add_photo(photo, "me.jpg")
        studio.enrol("Ada", AGREED)
        return studio


def start_server(studios: LocalStudios, port: int = 0) -> Running:
    """Serve the page on a free port, in a thread."""
    import uvicorn

    from imagine.ui.server import build_app

    sessions = Sessions(studios)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    config = uvicorn.Config(
        build_app(studios, sessions), log_level="error", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive() and time.monotonic() < until, "the server did not start"
        time.sleep(0.05)

    def stop() -> None:
        server.should_exit = True
        thread.join(20)
        listener.close()

    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    return Running(url, sessions, stop, Path(os.environ["GRADIO_TEMP_DIR"]))


@contextmanager
def serving(studios: LocalStudios, port: int = 0) -> Iterator[Running]:
    """`start_server`, stopped at the end."""
    running = start_server(studios, port)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of doubles, working."""
    made = make_service(tmp_path_factory.mktemp("service"))
    made.start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def app(service: Service) -> OneAddress:
    """The page and the API of that service."""
    return create_app(service, start=False)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """The page with doubles for models."""
    studios = LocalStudios("fake", "double", "double", preview_seconds=0.1)
    studios.models.load()
    with serving(studios) as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Debian's Chromium with a camera that sees a person who does not exist."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install -e '.[dev]'"
    )
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("needs a browser: apt-get install --no-install-recommends chromium")
    film = tmp_path_factory.mktemp("camera") / "person.mjpeg"
    film.write_bytes(camera_frame() * 4)
    with api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=program,
            args=[
                "--no-sandbox",
                "--disable-background-networking",
                "--disable-dev-shm-usage",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-video-capture={film}",
            ],
        )
        yield launched
        launched.close()


def is_ours(url: str, home: str) -> bool:
    """Whether a request stays on our address."""
    return urlsplit(url).scheme in ("data", "blob") or url.startswith(home)

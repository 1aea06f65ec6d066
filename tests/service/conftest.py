"""One service for all tests of this room: the fake backend, doubles for faces, a tenant a test."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image

from imagine import api
from imagine.core import ImageArray, Recipe
from imagine.identity import FACE_DETECTORS, FACE_ENCODERS
from imagine.provenance import MarkedImage, RecipeNote, mark_image
from imagine.service import wiring
from imagine.service.api import create_app
from imagine.service.auth import scopes_of
from imagine.service.loaded_models import LoadedModels
from imagine.service.settings import ServiceSettings
from imagine.service.wiring import Service, build_service
from imagine.settings import Settings
from tests.conftest import calm as calm_checks
from tests.doubles import double_crops
from tests.one_door import Watched

REAL_MARKING = wiring.make_marking
CONSENT = {
    "consent_text": "I agree that pictures of me are made from these photos.",
    "declared_adult": "true",
    "declared_self": "true",
}
_numbers = itertools.count()


def selfie(person: int = 0, take: int = 0) -> bytes:
    """A JPEG of somebody the doubles know."""
    crop = double_crops(person, take + 1)[take]
    buffer = BytesIO()
    Image.fromarray(crop).resize((512, 512)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def blank() -> bytes:
    """A photo in which the doubles see nobody."""
    buffer = BytesIO()
    Image.fromarray(np.full((512, 512, 3), 90, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="package", autouse=True)
def doubles() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for registry, kind in ((FACE_DETECTORS, "Detector"), (FACE_ENCODERS, "Encoder")):
            patch.setitem(registry._targets, "double", f"tests.doubles:Double{kind}")
        # As `tests.conftest.calm_checks`, but for all of the package: one service lives through it.
        patch.setattr(api, "usual_checks", calm_checks)
        patch.setattr(LoadedModels, "apparent_ages", lambda self, face: [30.0] * len(face.crops))
        # Signatures and records differ from file to file; `test_marks.py` looks at real ones.
        patch.setattr(wiring, "make_marking", lambda *anything: PlainMarking())
        yield


class PlainMarking:
    """Metadata for a mark, and no keys."""

    def __call__(self, pixels: ImageArray, recipe: Recipe | None) -> MarkedImage:
        return mark_image(pixels, recipe)

    def rewrite(
        self,
        data: bytes,
        suffix: str,
        recipe: Recipe | None = None,
        note: RecipeNote = RecipeNote.NONE,
    ) -> bytes:
        with Image.open(BytesIO(data)) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        return MarkedImage(pixels, recipe, note=note).to_bytes(suffix)


def chosen(**changes: Any) -> ServiceSettings:
    """A service of the fake backend and doubles, which refuses nobody for asking often."""
    facts: dict[str, Any] = {
        "backend": "fake",
        "detector": "double",
        "encoder": "double",
        "preview_seconds": 1e-6,
        "requests_per_minute": 100_000,
        "tenant_requests_per_minute": 100_000,
        "unverified_pictures_per_day": 100_000,
        "registrations_per_hour": 100_000,
    }
    return ServiceSettings(**{**facts, **changes})


def places_in(folder: Path) -> Settings:
    """Everything kept in one folder, whatever the environment says."""
    return Settings(
        data_directory=folder,
        database_url="",
        blob_url="",
        key_store_url="",
        master_key_source=f"file:{folder / 'secrets' / 'master.key'}",
    )


@pytest.fixture(scope="package")
def service(doubles: None, tmp_path_factory: pytest.TempPathFactory) -> Service:
    return build_service(chosen(), places_in(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="package")
def http(service: Service) -> Iterator[TestClient]:
    """A client without a key; each test brings its own headers.

    Whatever these tests ask for, no answer may hold an unmarked picture.
    """
    watched = Watched(create_app(service))
    with TestClient(watched, base_url="http://127.0.0.1") as client:
        yield client
    assert watched.unmarked == []


class House:
    """A tenant with a key, talking to the service."""

    def __init__(self, service: Service, http: TestClient, role: str = "developer") -> None:
        self.service = service
        self.http = http
        self.tenant_id = f"tenant_{next(_numbers)}"
        service.people.add_tenant(self.tenant_id, "A house")
        self.token = self.key(role)

    def key(self, role: str) -> str:
        """Another key of this tenant."""
        made = self.service.api_keys.create(self.tenant_id, "test", scopes_of(role))
        return made.token

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def ask(self, method: str, path: str, **words: Any) -> Any:
        headers = {**self.headers, **words.pop("headers", {})}
        return self.http.request(method, path, headers=headers, **words)

    def enrol(self, person: int = 0, **fields: Any) -> str:
        """Somebody, by two photos; returns the id."""
        answer = self.post_photos([selfie(person), selfie(person, 1)], **fields)
        assert answer.status_code == 201, answer.text
        identity_id: str = answer.json()["id"]
        return identity_id

    def post_photos(self, photos: list[bytes], **fields: Any) -> Any:
        files = [("photos", (f"{i}.jpg", photo, "image/jpeg")) for i, photo in enumerate(photos)]
        return self.ask("POST", "/v1/identities", files=files, data={**CONSENT, **fields})

    def generate(self, identity: str, wait: int = 20, **wish: Any) -> Any:
        """A finished generation, as JSON."""
        body = {"prompt": "in a forest", "identity": identity, "seed": 7, **wish}
        answer = self.ask("POST", "/v1/generations", json=body, headers={"Prefer": f"wait={wait}"})
        assert answer.status_code == 200, answer.text
        return answer.json()


MakeHouse = Callable[..., House]


@pytest.fixture
def make_house(service: Service, http: TestClient) -> MakeHouse:
    return lambda role="developer": House(service, http, role)


@pytest.fixture
def house(make_house: MakeHouse) -> House:
    return make_house()


@pytest.fixture(scope="package")
def home(service: Service, http: TestClient) -> House:
    """A tenant that tests may share, as long as they leave its people alone."""
    return House(service, http)


@pytest.fixture(scope="package")
def me(home: House) -> str:
    """Somebody of `home`."""
    return home.enrol()


@pytest.fixture
def slowly(service: Service) -> Iterator[None]:
    """Every step takes a while, so that somebody can watch."""
    backend = service.models.engine.backend
    plain = backend.denoise_step

    def step(states: Any) -> Any:
        time.sleep(0.05)
        return plain(states)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "denoise_step", step)
        yield


@pytest.fixture(scope="package")
def address(http: TestClient) -> Iterator[str]:
    """The service of these tests on a real port of this machine."""
    config = uvicorn.Config(http.app, port=0, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    socket.close()

"""What somebody sent is on no disk in clear while they are here, and nowhere once they are gone."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from imagine.service.api import create_app
from imagine.service.wiring import Service, build_service
from tests.service.conftest import House, chosen, places_in, selfie


@pytest.fixture
def lonely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A service of its own, whose every file lies in `tmp_path`, temporary ones too."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    service: Service = build_service(chosen(), places_in(tmp_path / "data"))
    with TestClient(create_app(service), base_url="http://127.0.0.1") as http:
        yield House(service, http)


def holding(folder: Path, canary: bytes) -> list[str]:
    return [
        path.name for path in folder.rglob("*") if path.is_file() and canary in path.read_bytes()
    ]


def test_name_prompt_photo_and_picture_are_sealed_and_then_gone(
    lonely: House, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photo = selfie()
    with caplog.at_level(logging.DEBUG):
        ticks = ["generate", "keep_photos"]
        made = lonely.post_photos([photo], name="Canaryname", consent_purposes=ticks).json()
        wish = lonely.generate(made["id"], prompt="a canary meadow")
        content = lonely.ask("GET", wish["images"][0]["urls"]["content"]).content
        token = lonely.token.split("_")[2]
        canaries = [b"Canaryname", b"canary meadow", photo[600:632], content[900:932]]
        for canary in [*canaries, token.encode()]:
            assert holding(tmp_path, canary) == []
        lonely.ask("DELETE", f"/v1/identities/{made['id']}")
    for canary in canaries:
        assert holding(tmp_path, canary) == []
    for word in ("Canaryname", "canary meadow", token):
        assert word not in caplog.text
    assert list((tmp_path / "data" / "blobs").rglob("*.*")) == []

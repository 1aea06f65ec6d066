"""The same service on a real PostgreSQL; skipped, with the reason, where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from imagine.errors import DatabaseUnusable
from imagine.service.api import create_app
from imagine.service.wiring import build_service
from tests.service.conftest import House, chosen, places_in
from tests.storage.conftest import PostgresServer, postgres

__all__ = ["postgres"]  # a fixture is found by its name in the file


@pytest.fixture
def elsewhere(postgres: PostgresServer, tmp_path: Path) -> Iterator[House]:
    """A house of a service whose database is a PostgreSQL."""
    places = replace(places_in(tmp_path), database_url=postgres.url("migrated"))
    service = build_service(chosen(), places)
    with TestClient(create_app(service), base_url="http://127.0.0.1") as http:
        yield House(service, http)
    postgres.empty("migrated")


def test_a_person_is_enrolled_drawn_listed_and_forgotten(elsewhere: House) -> None:
    identity = elsewhere.enrol(name="Ada")
    wishes = [elsewhere.generate(identity, n=2, seed=seed) for seed in (1, 2)]
    for things in ("images", "generations"):
        first = elsewhere.ask("GET", f"/v1/{things}?limit=1").json()
        path = f"/v1/{things}?limit=100&before={first['last_id']}"
        rest = elsewhere.ask("GET", path).json()["data"]
        assert first["has_more"] and len(rest) == {"images": 3, "generations": 1}[things]
    image = wishes[0]["images"][0]["urls"]["content"]
    assert elsewhere.ask("GET", image).headers["content-type"] == "image/png"
    assert elsewhere.ask("GET", "/v1/identities/%00").status_code == 404
    assert elsewhere.ask("DELETE", f"/v1/identities/{identity}").status_code == 200
    assert elsewhere.ask("GET", image).status_code == 404


def test_tables_of_another_version_are_left_alone(
    postgres: PostgresServer,
    tmp_path: Path,
) -> None:
    places = replace(places_in(tmp_path), database_url=postgres.create("empty"))
    with pytest.raises(DatabaseUnusable, match="imagine-me db upgrade"):
        build_service(chosen(), places)

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from imagine.errors import (
    DatabaseUnusable,
    InvalidInput,
    MasterKeyUnusable,
    MissingWeights,
    UnknownName,
)
from imagine.service.settings import ServiceSettings
from imagine.service.wiring import build_service, open_current_database
from imagine.storage.jobs import JobState, NewJob
from tests.service.conftest import chosen, places_in


def test_a_first_start_makes_everything_and_a_second_finds_it(tmp_path: Path) -> None:
    places = places_in(tmp_path)
    for _ in range(2):
        service = build_service(chosen(), places)
        service.people.add_tenant("house", "A house")
        service.database.close()
    made = {path.name for path in (tmp_path / "secrets").iterdir()}
    assert made == {"master.key", "audit.pem", "certificates.pem", "policy.pem"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "secrets").iterdir())


def test_a_lost_master_key_is_not_replaced_by_a_new_one(tmp_path: Path) -> None:
    places = places_in(tmp_path)
    service = build_service(chosen(), places)
    service.people.add_tenant("house", "A house")
    service.people.add_person("house")
    service.database.close()
    (tmp_path / "secrets" / "master.key").unlink()
    with pytest.raises(MasterKeyUnusable):
        build_service(chosen(), places)


def test_an_unknown_model_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="Known: "):
        build_service(chosen(backend="nonsense"), places_in(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_others_is_not_upgraded_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imagine.storage.database import Database

    monkeypatch.setattr(Database, "is_sqlite", False)
    with pytest.raises(DatabaseUnusable, match="db upgrade"):
        open_current_database(places_in(tmp_path))


def test_a_service_that_is_closed_leaves_its_jobs_in_the_queue(tmp_path: Path) -> None:
    service = build_service(chosen(concurrent_jobs=1), places_in(tmp_path))
    service.people.add_tenant("house", "A house")
    job = service.jobs.submit(NewJob("house", "another-backend", b"")).job
    service.start()
    service.close()
    again = build_service(chosen(), places_in(tmp_path))
    assert again.jobs.get("house", job.id).state is JobState.QUEUED
    again.database.close()


def test_models_that_cannot_be_opened_leave_the_service_unready(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = build_service(chosen(weights=tmp_path / "nowhere"), places_in(tmp_path / "data"))
    service._load()
    assert "models" in service.waiting_for()
    assert "cannot be opened" in caplog.text
    with pytest.raises(MissingWeights):
        _ = service.models.info
    service.database.close()


def test_the_environment_chooses_and_arguments_win() -> None:
    environment = {
        "IMAGINE_SERVICE_BACKEND": "fake",
        "IMAGINE_SERVICE_REQUESTS_PER_MINUTE": "5",
        "IMAGINE_SERVICE_ACCEPTED_CONSENT_TEXTS": "aa, bb",
    }
    found = ServiceSettings.from_environment(environment, device="cuda")
    assert (found.backend, found.requests_per_minute, found.device) == ("fake", 5, "cuda")
    assert found.accepted_consent_texts == ("aa", "bb")
    with pytest.raises(InvalidInput, match="REQUESTS_PER_MINUTE is 'many'"):
        ServiceSettings.from_environment({"IMAGINE_SERVICE_REQUESTS_PER_MINUTE": "many"})
    assert replace(found, device="cpu").backend == "fake"

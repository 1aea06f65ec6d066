"""`imagine-me reviews` and `imagine-me takedown`, on the service of these tests."""

from __future__ import annotations

import getpass
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from imagine.cli import main
from imagine.cli import reviews as commands
from imagine.service.wiring import Service
from tests.service.conftest import House

WHY = ("--reason", "legal_request", "--clause", "9.2")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    service: Service,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """Run a command as somebody signed in to this machine; status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "built_service", lambda: service)

    def run_command(*words: object, user: str = "ann") -> tuple[int, str, str]:
        monkeypatch.setattr(getpass, "getuser", lambda: user)
        capsys.readouterr()
        status = main([str(word) for word in words])
        return (status, *capsys.readouterr())

    return run_command


@pytest.fixture
def report(house: House) -> str:
    """A review of a picture that its owner reported."""
    image = house.generate(house.enrol())["images"][0]["id"]
    body = {"image": image, "reason": "nudity", "note": "It shows too much."}
    review: str = house.ask("POST", "/v1/reports", json=body).json()["decisions"][0]["id"]
    return review


def test_a_review_is_listed_shown_and_decided(run: Run, house: House, report: str) -> None:
    here = ("--tenant", house.tenant_id)
    status, out, _ = run("reviews", "list", "--queue", "report", "--json", *here)
    assert status == 0 and [one["id"] for one in json.loads(out)] == [report]
    assert report in run("reviews", "list", *here)[1].replace("\n", "")
    status, out, _ = run("reviews", "show", report, "--picture", "seen.webp", *here)
    assert json.loads(out)["note"] == "It shows too much."
    assert b"rainedAlgorithmicMedia" in Path("seen.webp").read_bytes()
    assert run("reviews", "show", report, "--picture", "seen.webp", *here)[0] == 6
    words = ("reviews", "decide", report, "--ruling", "remove", "--reason", "nudity", *here)
    assert run(*words, "--clause", "2.1", "--note", "Agreed.")[:2] == (0, f"{report}: remove\n")
    status, _, err = run(*words, "--clause", "2.1")
    assert status == 11 and "decided already" in err
    [decision] = json.loads(run("reviews", "show", report, *here)[1])["decisions"]
    assert (decision["decided_by"], decision["note"]) == ("user_ann", "Agreed.")
    assert run("reviews", "sweep", report, "--remove", *here)[0] == 0


def test_a_wrong_word_lists_the_right_ones(run: Run, house: House, report: str) -> None:
    here = ("--tenant", house.tenant_id)
    words = ("reviews", "decide", report, "--clause", "9.1", *here)
    for wrong, known in (
        (("--ruling", "burn", "--reason", "nudity"), "leave, release, remove"),
        (("--ruling", "leave", "--reason", "mood"), "within_policy"),
    ):
        status, _, err = run(*words, *wrong)
        assert status == 2 and known in err
    assert run("reviews", "list", "--queue", "supper", *here)[0] == 2
    assert run("reviews", "show", "review_of_nobody", *here)[0] == 2


def test_evidence_takes_two_users_of_the_machine_and_is_checked_offline(
    run: Run, house: House, report: str, service: Service, tmp_path: Path
) -> None:
    here = ("--tenant", house.tenant_id)
    export = ("reviews", "evidence", report, "--output", "evidence.zip", *here)
    status, _, err = run(*export)
    assert status == 11 and "two reviewers" in err and not Path("evidence.zip").exists()
    _, act, _ = run("reviews", "ask", report, "--act", "export_evidence", *WHY, *here)
    assert act.strip() in run("reviews", "list", *here)[2]
    assert run("reviews", "approve", act.strip(), *here)[0] == 11
    assert run("reviews", "approve", act.strip(), *here, user="ben")[0] == 0
    assert run(*export)[0] == 0
    key = str(service.log.verifier_key)
    status, out, _ = run("reviews", "verify-evidence", "evidence.zip", "--public-key", key)
    assert status == 0 and "1 pictures" in out
    status, out, err = run("reviews", "verify-evidence", "evidence.zip", "--json")
    assert json.loads(out)["about"]["review"]["id"] == report and "safer" in err
    with zipfile.ZipFile("evidence.zip", "a") as archive:
        archive.writestr("pictures/extra.png", b"x")
    status, _, err = run("reviews", "verify-evidence", "evidence.zip")
    assert status == 10 and "was added" in err


def test_a_notice_can_be_taken_in_at_the_machine(run: Run, house: House, service: Service) -> None:
    image = house.generate(house.enrol())["images"][0]["id"]
    words = ("takedown", "--name", "A", "--contact", "a@example.org", "--statement", "That is me.")
    assert run(*words)[0] == 2  # not in good faith
    status, out, err = run(*words, "--in-good-faith", "--where", f"shown as {image}")
    assert status == 0 and "Found and queued: 1" in err
    [review] = service.reviews.find(house.tenant_id, takedown_id=out.strip())
    assert review.image_id == image
    status, _, err = run(*words, "--in-good-faith", "--picture", "missing.jpg")
    assert status == 2 and "missing.jpg" in err

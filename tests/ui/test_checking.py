"""The camera check without a browser: whose it is, what it says, and that a pass counts."""

from __future__ import annotations

import inspect
import json
import re
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="needs the extra ui: pip install -e '.[ui]'")

from imagine.safety import enrolment
from imagine.safety.enrolment import Challenge, ChallengeState, Stage, Turn
from imagine.service.wiring import Service
from imagine.storage.database import utc_now
from imagine.ui.checking import said_of
from imagine.ui.desk import Visitor
from imagine.ui.me import agreement_html
from imagine.ui.together import OneAddress
from imagine.ui.words import LANGUAGES, Words, table
from tests.service.camera import Clock, camera, frame, frames
from tests.service.conftest import selfie
from tests.ui.conftest import AGREED
from tests.ui.test_offices import Guest

__all__ = ["camera"]
pytestmark = pytest.mark.usefixtures("camera")


@pytest.fixture(scope="module")
def ada(app: OneAddress, service: Service) -> Guest:
    """Somebody who is enrolled and was never before the camera."""
    guest = Guest(app, service, "cameras", "user")
    studio = guest.studio
    studio.add_photo(selfie(), "me.jpg")
    studio.enrol("Ada", AGREED)
    return guest


@pytest.fixture
def clock(service: Service, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(utc_now())
    monkeypatch.setattr(service.standings, "_clock", clock)
    return clock


def person_of(guest: Guest) -> str:
    (person,) = guest.studio.people()
    return person.id


def begin(guest: Guest, person: str) -> dict[str, Any]:
    answer = guest.http.post("/camera-check/begin", data={"person": person})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def send(guest: Guest, person: str, told: dict[str, Any], taken: list[bytes]) -> Any:
    fields = {"person": person, "challenge": told["id"], "nonce": told["nonce"]}
    files = [("frames", ("frame.jpg", one, "image/jpeg")) for one in taken]
    return guest.http.post("/camera-check/answer", data=fields, files=files)


def me_page(guest: Guest, language: str = "en") -> str:
    return unescape(agreement_html(Visitor(guest.studio, Words(language, "service"))))


def test_a_refusal_says_what_to_do_and_a_pass_counts(ada: Guest, clock: Clock) -> None:
    person = person_of(ada)
    assert f'href="/camera-check?person={person}"' in me_page(ada)
    told = begin(ada, person)
    # Time enough for the slower pace, and a third of it left to send.
    assert told["slow_seconds_each"] * len(told["poses"]) < told["seconds_left"] * 0.7
    clock.now += timedelta(seconds=20)
    still = [frame(0)] * 20
    ada.http.headers["accept-language"] = "it"
    refused = send(ada, person, told, still)
    assert refused.json() == {"passed": False, "message": table()["check.code.unfinished"]["it"]}
    again = send(ada, person, told, frames(told["poses"]))
    assert again.status_code == 400 and not again.json()["passed"]
    del ada.http.headers["accept-language"]
    assert ada.studio.people()[0].verified_at is None
    told = begin(ada, person)
    clock.now += timedelta(seconds=20)
    passed = send(ada, person, told, frames(told["poses"]))
    assert passed.json() == {"passed": True, "message": table()["check.passed"]["en"]}
    assert "Camera check passed on" in ada.read("/camera-check")
    assert "Camera check passed on" in me_page(ada) and "/camera-check?" not in me_page(ada)


def test_nobody_is_checked_for_somebody_else(
    ada: Guest, app: OneAddress, service: Service, clock: Clock
) -> None:
    person = person_of(ada)
    told = begin(ada, person)
    stranger = Guest(app, service, "cameras", "user")
    refused = stranger.http.post("/camera-check/begin", data={"person": person})
    assert refused.status_code == 400 and "not here" in refused.json()["message"]
    clock.now += timedelta(seconds=20)
    assert send(stranger, person, told, frames(told["poses"])).status_code == 400
    assert person not in stranger.read(f"/camera-check?person={person}")
    assert "nobody to check yet" in stranger.read("/camera-check")
    # It was not used up by that.
    assert send(ada, person, told, frames(told["poses"])).json()["passed"]
    stranger.http.post("/sign-out")
    assert stranger.http.get("/camera-check").status_code == 403
    assert stranger.http.post("/camera-check/begin", data={"person": "x"}).status_code == 403


def test_somebody_who_waits_for_a_reviewer_is_told_so(ada: Guest, service: Service) -> None:
    service.standings.hold("cameras", person_of(ada))
    assert table()["check.held"]["de"] in me_page(ada, "de")


def test_the_script_is_given_every_word_it_says(ada: Guest) -> None:
    page = ada.http.get("/camera-check").text
    found = re.search(r'data-words="([^"]*)"', page)
    assert found is not None
    words = json.loads(unescape(found[1]))
    script = (Path(__file__).parents[2] / "imagine/ui/look/checking.js").read_text()
    asked = set(re.findall(r'words(?:\.|\[")([\w.]+)', script)) - {"replace"}
    asked = {key.removesuffix(".replace") for key in asked}
    asked |= {f"pose.{pose}" for pose in Turn} | {"stopped", "hidden"}
    asked |= {f"camera.{why}" for why in ("denied", "none", "busy", "insecure")}
    assert len(asked) > 12 and asked <= set(words), asked - set(words)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_reason_to_refuse_has_words(language: str) -> None:
    codes = set(re.findall(r'_failed\(\s*state, "(\w+)"', inspect.getsource(enrolment)))
    assert codes >= {"late", "jump", "not_the_uploads", "unfinished", "wrong_way"}
    challenge = Challenge((Turn.AHEAD,), 0.0, 1.0)
    for code in codes:
        state = ChallengeState(challenge, Stage.FAILED, words="room words", code=code)
        assert said_of(state, Words(language)) == table()[f"check.code.{code}"][language]

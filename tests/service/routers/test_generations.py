from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from imagine.service.wiring import Service
from tests.service.conftest import House, MakeHouse


def events_of(text: str) -> list[tuple[str, str | None, dict[str, Any]]]:
    """Kind, id and data of every event of a stream."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "data" in lines:
            found.append((lines["event"], lines.get("id"), json.loads(lines["data"])))
    return found


@pytest.fixture
def gate(service: Service) -> Iterator[threading.Event]:
    """Pictures stop before their first step until this is set."""
    opened = threading.Event()
    backend = service.models.engine.backend
    plain = backend.prepare
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "prepare", lambda asked: opened.wait(20) and plain(asked))
        yield opened
        opened.set()


def ask(house: House, identity: str, headers: dict[str, str] | None = None, **wish: Any) -> Any:
    body = {"prompt": "in a forest", "identity": identity, **wish}
    return house.ask("POST", "/v1/generations", json=body, headers=headers or {})


def finished(house: House, generation_id: str) -> dict[str, Any]:
    for _ in range(400):
        told: dict[str, Any] = house.ask("GET", f"/v1/generations/{generation_id}").json()
        if told["ended_at"]:
            return told
        time.sleep(0.02)
    raise AssertionError("the generation did not end")


def test_a_wish_is_accepted_at_once_and_its_pictures_come_later(home: House, me: str) -> None:
    answer = ask(home, me, n=2, seed=7)
    told = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == told["urls"]["self"]
    assert told["status"] in ("queued", "running") and told["seed"] == 7
    done = finished(home, told["id"])
    assert done["status"] == "succeeded"
    assert [image["seed"] for image in done["images"]] == [7, 8]
    assert done["images"][0]["likeness"]["words"].startswith("This")
    assert (done["step"], done["num_steps"]) == (8, 8)


def test_who_prefers_to_wait_gets_the_pictures_in_the_answer(home: House, me: str) -> None:
    answer = ask(home, me, {"Prefer": "wait=20"})
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=20"
    assert answer.json()["status"] == "succeeded"


def test_who_waits_too_short_gets_the_state(home: House, me: str, gate: threading.Event) -> None:
    answer = ask(home, me, {"Prefer": "respond-async, wait=1"})
    assert answer.status_code == 202
    assert answer.json()["status"] in ("queued", "running")


def test_the_same_wish_draws_the_same_picture(home: House, me: str) -> None:
    one, two = (home.generate(me)["images"][0]["urls"]["content"] for _ in range(2))
    assert home.ask("GET", one).content == home.ask("GET", two).content


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"n": True}, "n"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"likeness": 1.1}, "likeness"),
        ({"num_inference_steps": 10**6}, "num_inference_steps"),
        ({"guidance_scale": 0.5}, "guidance_scale"),
        ({"best_of": 10**4}, "best_of"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "a" * 5000}, "prompt"),
        ({"output_format": "gif"}, "output_format"),
        ({"timeout_seconds": -1}, "timeout_seconds"),
        ({"wish": "more"}, "wish"),
    ],
)
def test_an_argument_out_of_range_is_named(
    home: House, me: str, wish: dict[str, Any], param: str
) -> None:
    answer = ask(home, me, **wish)
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == param


def test_an_unknown_style_lists_the_known(home: House, me: str) -> None:
    answer = ask(home, me, style="baroque")
    assert answer.status_code == 422 and "watercolour" in answer.json()["detail"]


def test_a_style_goes_behind_the_prompt(home: House, me: str) -> None:
    image = home.generate(me, style="watercolour")["images"][0]
    recipe = home.ask("GET", image["urls"]["recipe"]).json()
    assert recipe["prompt"].startswith("in a forest, watercolour painting")


def test_a_prompt_against_policy_is_refused_before_anything_is_kept(house: House) -> None:
    identity = house.enrol()
    answer = ask(house, identity, prompt="naked")
    assert answer.status_code == 403
    assert answer.json()["error"]["type"] == "image_generation_user_error"
    assert answer.json()["error"]["code"] == "moderation_blocked"
    assert house.ask("GET", "/v1/generations").json()["data"] == []


def test_the_refusal_stands_in_the_audit_log_without_its_words(house: House) -> None:
    identity = house.enrol()
    ask(house, identity, prompt="naked canary")
    entries = house.service.log.entries_about(house.tenant_id, identity)
    assert entries[-1].facts["kind"] == "prompt.blocked"
    assert "canary" not in entries[-1].text


def test_a_repeated_request_is_answered_with_the_first_one(home: House, me: str) -> None:
    headers = {"Idempotency-Key": f"key-{time.monotonic_ns()}"}
    first = finished(home, ask(home, me, headers, seed=3).json()["id"])
    again = ask(home, me, headers, seed=3)
    assert again.json()["id"] == first["id"] and again.status_code == 200
    assert again.headers["idempotent-replayed"] == "true"


def test_the_same_key_for_another_wish_is_a_conflict(home: House, me: str) -> None:
    headers = {"Idempotency-Key": f"key-{time.monotonic_ns()}"}
    ask(home, me, headers, seed=3)
    other = ask(home, me, headers, seed=4)
    assert other.status_code in (409, 422)
    finished(home, home.ask("GET", "/v1/generations").json()["data"][0]["id"])
    settled = ask(home, me, headers, seed=4)
    assert settled.status_code == 422
    assert settled.json()["error"]["code"] == "idempotency_conflict"


def test_while_it_runs_the_same_request_is_told_to_wait(
    home: House, me: str, gate: threading.Event
) -> None:
    headers = {"Idempotency-Key": f"key-{time.monotonic_ns()}"}
    first = ask(home, me, headers, seed=3).json()
    wait_until_running(home, first["id"])
    again = ask(home, me, headers, seed=3)
    assert again.status_code == 409
    assert again.json()["generation_id"] == first["id"]


def wait_until_running(house: House, generation_id: str) -> None:
    for _ in range(400):
        if house.ask("GET", f"/v1/generations/{generation_id}").json()["status"] == "running":
            return
        time.sleep(0.01)
    raise AssertionError("the generation was not begun")


def test_a_running_wish_can_be_cancelled_and_keeps_nothing(
    house: House, gate: threading.Event
) -> None:
    identity = house.enrol()
    wish = ask(house, identity, num_inference_steps=200).json()
    wait_until_running(house, wish["id"])
    house.ask("POST", wish["urls"]["cancel"])
    gate.set()
    done = finished(house, wish["id"])
    assert done["status"] == "canceled" and done["images"] == []
    assert house.ask("GET", "/v1/images").json()["data"] == []
    assert house.ask("POST", wish["urls"]["cancel"]).json()["status"] == "canceled"


def test_withdrawing_consent_stops_what_runs(house: House, gate: threading.Event) -> None:
    identity = house.enrol()
    wish = ask(house, identity).json()
    wait_until_running(house, wish["id"])
    told = house.ask("POST", f"/v1/identities/{identity}/withdraw").json()
    gate.set()
    assert told["generations_canceled"] == 1
    assert finished(house, wish["id"])["status"] == "canceled"
    assert house.ask("GET", "/v1/images").json()["data"] == []


def test_events_tell_progress_then_previews_then_the_end(
    home: House, me: str, slowly: None
) -> None:
    wish = ask(home, me, num_inference_steps=8, seed=1).json()
    answer = home.ask("GET", wish["urls"]["events"])
    kinds = [kind for kind, _, _ in events_of(answer.text)]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "progress" in kinds and "preview" in kinds and kinds[-1] == "succeeded"
    assert len(events_of(answer.text)[-1][2]["images"]) == 1


def test_previews_are_small_and_marked(home: House, me: str, slowly: None) -> None:
    wish = ask(home, me, num_inference_steps=8, seed=1).json()
    text = home.ask("GET", wish["urls"]["events"]).text
    previews = [data for kind, _, data in events_of(text) if kind == "preview"]
    data = base64.b64decode(previews[0]["data"])
    with Image.open(BytesIO(data)) as picture:
        assert max(picture.size) <= 64
    assert b"rainedAlgorithmicMedia" in data


def test_who_comes_again_goes_on_behind_the_last_event(home: House, me: str) -> None:
    wish = home.generate(me)
    first = events_of(home.ask("GET", wish["urls"]["events"]).text)
    again = events_of(
        home.ask("GET", wish["urls"]["events"], headers={"Last-Event-ID": "x-99"}).text
    )
    assert [kind for kind, _, _ in first] == [kind for kind, _, _ in again] == ["succeeded"]


def test_a_list_is_cut_into_pages_newest_first(house: House) -> None:
    identity = house.enrol()
    made = [house.generate(identity)["id"] for _ in range(3)]
    first = house.ask("GET", "/v1/generations?limit=2").json()
    rest = house.ask("GET", f"/v1/generations?limit=2&before={first['last_id']}").json()
    assert [one["id"] for one in first["data"] + rest["data"]] == made[::-1]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert house.ask("GET", "/v1/generations?status=failed").json()["data"] == []


def test_others_see_nothing_of_it(make_house: MakeHouse, home: House, me: str) -> None:
    wish, other = home.generate(me), make_house()
    image = wish["images"][0]["urls"]
    paths = [wish["urls"]["self"], wish["urls"]["events"], *image.values(), f"/v1/identities/{me}"]
    assert {other.ask("GET", path).status_code for path in paths} == {404}
    assert other.ask("POST", wish["urls"]["cancel"]).status_code == 404
    assert ask(other, me).status_code == 404


def test_a_failure_of_the_model_is_told_by_name(
    home: House, me: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(request: object) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr(service.models.engine.backend, "prepare", broken)
    done = finished(home, ask(home, me).json()["id"])
    assert done["status"] == "failed" and done["error"]["code"] == "generation_failed"
    assert "canary" not in json.dumps(done)


def test_a_wish_that_cannot_begin_in_time_fails(
    home: House, me: str, gate: threading.Event, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.worker, "_slots", 0)
    wish = ask(home, me, timeout_seconds=0.05).json()
    time.sleep(0.1)
    monkeypatch.undo()
    service.worker.wake()
    assert finished(home, wish["id"])["error"]["code"] == "deadline_exceeded"


def test_a_queue_that_is_full_is_busy(
    house: House, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagine.service.generations.MAX_WAITING_JOBS", 0)
    answer = ask(house, house.enrol())
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1


def test_a_job_of_another_process_is_watched_through_the_database(
    home: House, me: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.worker, "_slots", 0)
    wish = ask(home, me).json()

    def elsewhere() -> None:
        (claim,) = service.jobs.claim("another process", limit=1)
        service.jobs.finish(claim.lease, {"seed": 7, "images": []})

    threading.Timer(0.3, elsewhere).start()
    (last,) = events_of(home.ask("GET", wish["urls"]["events"]).text)
    assert (last[0], last[2]["id"]) == ("succeeded", wish["id"])


def test_pictures_have_the_shape_that_was_asked_for(home: House, me: str) -> None:
    told = finished(home, ask(home, me, aspect_ratio="3:4", seed=7).json()["id"])
    (image,) = told["images"]
    assert (image["width"], image["height"]) == (108, 148)
    with Image.open(BytesIO(home.ask("GET", image["urls"]["content"]).content)) as picture:
        assert picture.size == (108, 148)
    assert home.ask("GET", image["urls"]["recipe"]).json()["aspect_ratio"] == "3:4"


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"aspect_ratio": "21:9"}, "Choose one of: 1:1 (128x128), 3:4 (108x148)"),
        ({"aspect_ratio": "3x4"}, "aspect_ratio"),
        ({"aspect_ratio": 1}, "aspect_ratio"),
    ],
)
def test_a_shape_that_is_not_drawn_is_refused_with_the_list(
    home: House, me: str, wish: dict[str, Any], words: str
) -> None:
    answer = ask(home, me, **wish)
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "aspect_ratio"
    assert words in answer.text


def test_two_people_are_drawn_in_one_shape_only(house: House) -> None:
    ada, bob = house.enrol(0), house.enrol(1)
    answer = ask(house, ada, beside=bob, aspect_ratio="3:4")
    assert answer.json()["error"]["param"] == "aspect_ratio"
    assert "256x128" in answer.json()["detail"]

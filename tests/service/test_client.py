from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from fastapi.testclient import TestClient

from imagine import read_recipe
from imagine.errors import (
    Busy,
    Cancelled,
    ConsentMissing,
    InvalidInput,
    KeyRefused,
    NoFaceFound,
    NotStored,
    OutputNotWritten,
    PromptBlocked,
    RateLimited,
    ServiceUnreachable,
    UnusableArchive,
)
from imagine.pipeline import Progress
from imagine.service.client import AsyncImagineClient, ConsentForm, ImagineClient
from imagine.service.wire import EventReader, Preview, RemoteWish, wish_body
from imagine.storage.consent import Purpose
from imagine.storage.database import utc_now
from tests.service.camera import Clock, camera, frames
from tests.service.conftest import House, blank, selfie

__all__ = ["camera"]

FORM = ConsentForm("I agree.", "en", {Purpose.GENERATE}, True, True, "test")
URL = "http://127.0.0.1"


def client_of(house: House) -> ImagineClient:
    return ImagineClient(URL, house.token, http=house.http)


@pytest.fixture
def im(home: House) -> ImagineClient:
    return client_of(home)


def answering(*answers: httpx2.Response | Exception) -> httpx2.Client:
    """A connection that gives these answers, one after the other."""
    left = list(answers)

    def next_one(request: httpx2.Request) -> httpx2.Response:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return httpx2.Client(transport=httpx2.MockTransport(next_one))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagine.service.wire.LONGEST_PAUSE_SECONDS", 0.0)


def test_photos_become_a_picture_and_are_forgotten(house: House, tmp_path: Path) -> None:
    im = client_of(house)
    with im.identity([selfie(0), selfie(0, 1)], consent=FORM, name="Ada") as me:
        assert (me.name, len(me.reports)) == ("Ada", 2)
        result = im.generate("in a forest", identity=me, n=2, seed=7)
    image = result.images[0]
    assert (result.seed, result.backend.name) == (7, "fake")
    assert [one.seed for one in result.images] == [7, 8]
    assert image.likeness.face_found and image.why
    assert image.array.shape == (128, 128, 3) and image.array.dtype == np.uint8
    assert image.recipe.prompt == "in a forest"
    with pytest.raises(InvalidInput, match="keeps recipes apart"):
        read_recipe(image.save(tmp_path / "me.png"))
    with pytest.raises(NotStored):
        im.find_identity(me.id)


def test_photos_may_be_paths_and_arrays(house: House, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(selfie())
    im = client_of(house)
    reports = im.check([path, np.zeros((400, 400, 3), np.uint8)])
    assert reports[0].name == "selfie 1"
    assert str(reports[1].verdict) == "refuse"


def test_progress_and_previews_are_told(im: ImagineClient, me: str, slowly: None) -> None:
    steps: list[Progress] = []
    previews: list[Preview] = []
    im.generate(
        "in a forest",
        identity=me,
        num_inference_steps=8,
        on_progress=steps.append,
        on_preview=previews.append,
    )
    # A test client hands over the whole stream at its end; of the progress the newest is kept.
    assert steps[-1].num_steps == 8 and previews[0].data.startswith(b"RIFF")


def test_somebody_enrolled_before_is_found_and_listed(house: House) -> None:
    im, made = client_of(house), [house.enrol(person) for person in range(2)]
    assert im.find_identity(made[0]).id == made[0]
    assert [one.id for one in im.identities()] == made[::-1]
    assert im.export(made[0]).startswith(b"PK")


def test_an_export_comes_in_again_with_a_consent_of_its_own(house: House) -> None:
    im = client_of(house)
    archive = im.export(house.enrol(name="Ada"))
    (again,) = im.import_person(archive, consent=FORM)
    assert again.name == "Ada" and im.identities()[0].id == again.id
    assert im.generate("in a forest", identity=again).images
    with pytest.raises(UnusableArchive, match="not a zip"):
        im.import_person(b"no zip", consent=FORM)


def test_replay_draws_the_same_picture(im: ImagineClient, me: str) -> None:
    first = im.generate("in a forest", identity=me, seed=3).images[0]
    again = im.replay(first.recipe, me)
    assert again.data == first.data
    with pytest.raises(InvalidInput, match="another one"):
        im.replay(replace(first.recipe, model_revision="older"), me)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ({"prompt": "naked"}, PromptBlocked),
        ({"identity": "identity_of_nobody"}, NotStored),
        ({"n": 99}, InvalidInput),
        ({"likeness": 3.0}, InvalidInput),
    ],
)
def test_errors_are_those_of_the_local_door(
    im: ImagineClient, me: str, words: dict[str, Any], error: type[Exception]
) -> None:
    wish = {"prompt": "in a forest", "identity": me, **words}
    with pytest.raises(error):
        im.generate(wish.pop("prompt"), **wish)


def test_a_bad_photo_a_bad_key_and_a_missing_consent_have_their_classes(house: House) -> None:
    im = client_of(house)
    with pytest.raises(NoFaceFound):
        im.identity([blank()], consent=FORM)
    with pytest.raises(InvalidInput, match="list"):
        im.identity("a.jpg", consent=FORM)
    with pytest.raises(KeyRefused):
        ImagineClient(URL, "imk_wrong", http=house.http).identities()
    identity = house.enrol()
    house.ask("POST", f"/v1/identities/{identity}/withdraw")
    with pytest.raises(ConsentMissing):
        im.generate("in a forest", identity=identity)


def test_an_event_cancels(im: ImagineClient, me: str, slowly: None) -> None:
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(Cancelled):
        im.generate("in a forest", identity=me, num_inference_steps=100, cancel=stop)


def test_a_file_of_another_kind_is_not_saved(im: ImagineClient, me: str, tmp_path: Path) -> None:
    image = im.generate("in a forest", identity=me, output_format="webp").images[0]
    with pytest.raises(InvalidInput, match="webp"):
        image.save(tmp_path / "me.png")
    with pytest.raises(OutputNotWritten):
        image.save(tmp_path / "missing" / "me.webp")
    assert image.save(tmp_path / "me.webp").read_bytes() == image.to_bytes()


def test_a_service_that_is_away_is_named() -> None:
    im = ImagineClient("http://127.0.0.1:9", timeout_seconds=0.5)
    with im, pytest.raises(ServiceUnreachable, match="imagine-me serve"):
        im.identities()


def problem(status: int, code: str, **headers: str) -> httpx2.Response:
    body = {"request_id": "req_1", "error": {"code": code, "message": "It went wrong."}}
    return httpx2.Response(status, json=body, headers=headers)


PAGE = {"data": [], "has_more": False, "last_id": None}


def test_a_safe_request_is_asked_again_when_that_may_help() -> None:
    http = answering(
        problem(503, "busy", **{"Retry-After": "1"}),
        httpx2.ConnectError("away"),
        httpx2.Response(200, json=PAGE),
    )
    assert ImagineClient(URL, http=http).identities() == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (problem(429, "rate_limit_exceeded"), RateLimited),
        (problem(503, "busy"), Busy),
        (problem(500, "internal_error"), ServiceUnreachable),
        (httpx2.Response(502, text="<html>"), ServiceUnreachable),
        (httpx2.Response(404, json=[]), ServiceUnreachable),
    ],
)
def test_what_does_not_help_is_raised(answer: httpx2.Response, error: type[Exception]) -> None:
    http = answering(answer)
    with pytest.raises(error):
        ImagineClient(URL, http=http).identities()


def test_deleting_is_not_repeated_by_itself() -> None:
    http = answering(httpx2.ReadError("cut"))
    with pytest.raises(ServiceUnreachable):
        ImagineClient(URL, http=http).forget("identity_1")


def test_comments_and_split_events_are_read() -> None:
    reader = EventReader()
    lines = [": still there", "", "event: progress", 'data: {"a": 1}', "id: x-1", "", "event: odd"]
    (event,) = [event for line in lines for event in reader.feed(line)]
    assert (event.kind, event.id, event.data) == ("progress", "x-1", {"a": 1})


def test_the_async_client_does_the_same(home: House, http: TestClient, me: str) -> None:
    async def both() -> None:
        transport = httpx2.ASGITransport(app=http.app)
        async with httpx2.AsyncClient(transport=transport) as connection:
            im = AsyncImagineClient(URL, home.token, http=connection)
            async with await im.identity([selfie(4)], consent=FORM) as ada:
                one, two = await asyncio.gather(
                    im.generate("in a forest", identity=ada, seed=1),
                    im.generate("in a forest", identity=me, seed=1),
                )
            assert one.images[0].data != two.images[0].data
            assert (await im.info()).name == "fake"
            with pytest.raises(NotStored):
                await im.find_identity(ada.id)
            with pytest.raises(PromptBlocked):
                await im.generate("naked", identity=me)
            (again,) = await im.import_person(await im.export(me), consent=FORM)
            await again.forget()

    asyncio.run(both())


def test_cancelling_the_task_stops_the_drawing(
    home: House, http: TestClient, me: str, slowly: None
) -> None:
    async def give_up() -> None:
        transport = httpx2.ASGITransport(app=http.app)
        async with httpx2.AsyncClient(transport=transport) as connection:
            im = AsyncImagineClient(URL, home.token, http=connection)
            task = asyncio.create_task(
                im.generate("in a forest", identity=me, num_inference_steps=100)
            )
            await asyncio.sleep(0.3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(give_up())
    newest = home.ask("GET", "/v1/generations?limit=1").json()["data"][0]
    wished = home.service.jobs.get(home.tenant_id, newest["id"])
    assert wished.cancel_requested or wished.has_ended


def test_neither_the_package_nor_the_client_imports_the_server() -> None:
    probe = (
        "import sys; import imagine, imagine.cli, imagine.service.client; "
        "print({'fastapi', 'torch', 'uvicorn', 'starlette'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_picture_with_an_interval_and_traits_is_made_again_from_its_recipe(
    im: ImagineClient, me: str
) -> None:
    first = im.generate(
        "in a forest",
        identity=me,
        seed=3,
        guidance_interval=(0.25, 0.5),
        aspect_ratio="4:3",
        keep=["glasses"],
        change={"hair_colour": "red"},
    ).images[0]
    assert (first.recipe.guidance_from, first.recipe.guidance_until) == (0.25, 0.5)
    assert "hair_colour=red" in first.recipe.traits
    assert first.array.shape == (*im.info.sizes["4:3"], 3)
    again = im.replay(first.recipe, me)
    assert again.recipe == first.recipe and np.array_equal(again.array, first.array)


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ({"guidance_interval": (0.5, 0.25)}, "guidance_interval"),
        ({"change": {"hair_colour": "plaid"}}, "plaid"),
        ({"change": {"shoes": "red"}}, "shoes"),
        ({"keep": ["glasses"], "change": {"glasses": "none"}}, "glasses"),
        ({"record": 4711}, "record"),
        ({"aspect_ratio": "7:5"}, r"'7:5'.*1:1 \(128x128\), 3:4"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_by_name(
    im: ImagineClient, me: str, wish: Any, param: str
) -> None:
    with pytest.raises(InvalidInput, match=param):
        im.generate("in a forest", identity=me, **wish)


def test_a_keyword_that_no_wish_has_is_a_mistake_of_the_program(im: ImagineClient, me: str) -> None:
    with pytest.raises(TypeError, match="'steps'"):
        im.generate("in a forest", identity=me, steps=3)  # type: ignore[call-arg]


def test_whoever_stands_beside_must_have_agreed_too(house: House) -> None:
    im, ada, bob = client_of(house), house.enrol(0), house.enrol(1)
    im.withdraw(bob)
    with pytest.raises(ConsentMissing, match=bob):
        im.generate("in a forest", identity=ada, beside=bob)
    with pytest.raises(InvalidInput, match="themselves"):
        im.generate("in a forest", identity=ada, beside=ada)
    with pytest.raises(NotStored):
        im.generate("in a forest", identity=ada, beside="identity_of_nobody")


def test_a_client_knows_the_shapes_the_service_draws(im: ImagineClient, home: House) -> None:
    assert im.info.sizes == home.service.models.info.sizes
    assert (im.info.draws_two, im.info.pair_size) == (True, (128, 256))


def test_both_clients_say_a_wish_the_same_way() -> None:
    wish = RemoteWish(n=2, seed=None, keep=("age",), guidance_interval=(0.0, 0.5), beside="b")
    assert wish_body("a", "in a forest", wish) == {
        "prompt": "in a forest",
        "identity": "a",
        "n": 2,
        "keep": ["age"],
        "guidance_interval": [0.0, 0.5],
        "beside": "b",
    }


def twenty_seconds_later(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    later = Clock(utc_now() + timedelta(seconds=20))
    monkeypatch.setattr(house.service.standings, "_clock", later)


def test_a_camera_check_verifies_somebody(
    house: House, camera: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    im, identity = client_of(house), house.enrol()
    assert im.find_identity(identity).facts["verification"] == "unverified"
    check = im.begin_camera_check(identity)
    assert check.nonce not in repr(check) and check.deadline_at > utc_now()
    twenty_seconds_later(house, monkeypatch)
    checked = im.answer_camera_check(identity, check, frames(list(check.poses)))
    assert (checked.has_passed, checked.code, checked.is_verified) == (True, "", True)
    assert im.find_identity(identity).facts["verification"] == "verified"
    with pytest.raises(NotStored, match="not open"):
        im.answer_camera_check(identity, check, frames(list(check.poses)))


def test_a_camera_check_of_somebody_else_verifies_nobody(
    house: House, camera: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    im, identity = client_of(house), house.enrol()
    check = im.begin_camera_check(identity)
    with pytest.raises(InvalidInput, match="list"):
        im.answer_camera_check(identity, check, b"one frame")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="frames"):
        im.answer_camera_check(identity, check, [])
    twenty_seconds_later(house, monkeypatch)
    checked = im.answer_camera_check(identity, check, frames(list(check.poses), person=3))
    assert (checked.has_passed, checked.code) == (False, "not_the_uploads")
    assert checked.words and not checked.is_verified


def test_the_async_client_takes_the_camera_check_too(
    house: House, http: TestClient, camera: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        transport = httpx2.ASGITransport(app=http.app)
        async with httpx2.AsyncClient(transport=transport) as connection:
            im = AsyncImagineClient(URL, house.token, http=connection)
            begun = await im.begin_camera_check(identity)
            twenty_seconds_later(house, monkeypatch)
            taken = frames(list(begun.poses))
            assert (await im.answer_camera_check(identity, begun, taken)).is_verified
            [found] = await im.identities()
            assert (found.id, found.facts["verification"]) == (identity, "verified")
            assert (await im.export(identity)).startswith(b"PK")
            await im.withdraw(identity)
            [consent] = await im.consents(identity)
            assert consent["withdrawn_at"] is not None

    identity = house.enrol()
    asyncio.run(check())


def test_both_clients_have_the_same_methods() -> None:
    words = [
        {name for name in vars(kind) if not name.startswith("_")}
        for kind in (ImagineClient, AsyncImagineClient)
    ]
    assert words[0] == words[1]

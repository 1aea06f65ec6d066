"""The stock client of OpenAI against our routes."""

from __future__ import annotations

import base64
from collections.abc import Callable
from io import BytesIO
from typing import Any

import openai
import pytest
from openai import OpenAI
from PIL import Image

from imagine.service.wiring import Service
from tests.service.conftest import CONSENT, House, MakeHouse, blank, selfie

Connect = Callable[[House], OpenAI]


def connected(house: House, retries: int = 0) -> OpenAI:
    return OpenAI(
        api_key=house.token,
        base_url="http://127.0.0.1/v1",
        http_client=house.http,
        max_retries=retries,
    )


def size_of(b64: str | None) -> tuple[int, int]:
    with Image.open(BytesIO(base64.b64decode(b64 or ""))) as picture:
        return picture.size


def test_the_stock_client_gets_pictures(home: House, me: str) -> None:
    answer = connected(home).images.generate(
        prompt="in a forest", n=2, extra_body={"identity": me, "seed": 7, "likeness": 0.9}
    )
    assert answer.data is not None and len(answer.data) == 2
    assert size_of(answer.data[0].b64_json) == (128, 128)
    assert [(picture.model_extra or {})["seed"] for picture in answer.data] == [7, 8]
    assert "score" in (answer.data[0].model_extra or {})["likeness"]
    assert (answer.size, answer.output_format) == ("128x128", "png")


def test_the_pictures_are_those_of_the_native_route(home: House, me: str) -> None:
    native = home.generate(me, seed=7, likeness=0.7)["images"][0]["urls"]["content"]
    answer = connected(home).images.generate(
        prompt="in a forest", extra_body={"identity": me, "seed": 7}
    )
    assert answer.data is not None
    b64 = answer.data[0].b64_json or ""
    assert base64.b64decode(b64) == home.ask("GET", native).content


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ({"size": "auto"}, (128, 128)),
        ({"size": "128x128"}, (128, 128)),
        ({"size": "156x104"}, (156, 104)),
        ({"extra": {"aspect_ratio": "9:16"}}, (96, 168)),
        ({"size": "96x168", "extra": {"aspect_ratio": "9:16"}}, (96, 168)),
    ],
)
def test_a_size_of_the_model_is_drawn_and_told(
    home: House, me: str, words: dict[str, Any], size: tuple[int, int]
) -> None:
    extra = {"identity": me, **words.pop("extra", {})}
    answer = connected(home).images.generate(prompt="in a forest", extra_body=extra, **words)
    assert answer.data is not None
    assert size_of(answer.data[0].b64_json) == size
    assert answer.size == f"{size[0]}x{size[1]}"


@pytest.mark.parametrize("size", ["1024x1024", "1536x1024", "1024x1536", "big", "128x", "x", ""])
def test_a_size_the_model_does_not_draw_is_refused_with_the_list_and_never_changed(
    home: House, me: str, size: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=r"1:1 \(128x128\), 3:4 \(108x148\)") as caught:
        connected(home).images.generate(
            prompt="in a forest",
            size=size,  # type: ignore[arg-type]
            extra_body={"identity": me},
        )
    assert caught.value.param == "size"


def test_a_size_and_a_ratio_that_do_not_agree_are_refused(home: House, me: str) -> None:
    with pytest.raises(openai.BadRequestError, match="of the shape 3:2, and aspect_ratio is 3:4"):
        connected(home).images.generate(
            prompt="in a forest",
            size="156x104",  # type: ignore[arg-type]
            extra_body={"identity": me, "aspect_ratio": "3:4"},
        )


def test_an_edit_has_the_size_that_was_asked_for(house: House) -> None:
    answer = connected(house).images.edit(
        image=("a.jpg", selfie(0)),
        prompt="in a forest",
        size="108x148",  # type: ignore[arg-type]
        extra_body=CONSENT,
    )
    assert answer.data is not None and size_of(answer.data[0].b64_json) == (108, 148)


def test_a_url_can_be_asked_for(home: House, me: str) -> None:
    answer = connected(home).images.generate(
        prompt="in a forest", response_format="url", extra_body={"identity": me}
    )
    assert answer.data is not None and answer.data[0].url is not None
    assert home.ask("GET", answer.data[0].url).headers["content-type"] == "image/png"


def test_the_model_is_listed(home: House) -> None:
    assert [model.id for model in connected(home).models.list()] == ["fake"]


@pytest.mark.parametrize(
    ("words", "param"),
    [
        ({"extra_body": {}}, "identity"),
        ({"model": "gpt-image-2"}, "model"),
        ({"size": "1024x1024"}, "size"),
        ({"n": 11}, "n"),
        ({"extra_body": {"identity": "i", "seed": -1}}, "seed"),
        ({"extra_body": {"identity": ""}}, "identity"),
    ],
)
def test_a_mistake_fills_the_fields_of_the_exception(
    home: House, me: str, words: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        connected(home).images.generate(
            prompt="in a forest", **{"extra_body": {"identity": me}, **words}
        )
    assert caught.value.param == param
    assert caught.value.code == "invalid_input"
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id and caught.value.request_id.startswith("req_")


def test_a_refusal_is_a_moderation_error(home: House, me: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        connected(home).images.generate(prompt="naked", extra_body={"identity": me})
    assert caught.value.code == "moderation_blocked"
    assert caught.value.type == "image_generation_user_error"


def test_a_key_that_is_no_good_and_a_stranger_have_their_own_exceptions(
    make_house: MakeHouse, me: str
) -> None:
    other = make_house()
    with pytest.raises(openai.NotFoundError):
        connected(other).images.generate(prompt="x", extra_body={"identity": me})
    other.token = make_house("reviewer").token
    with pytest.raises(openai.PermissionDeniedError, match="may not"):
        connected(other).images.generate(prompt="x", extra_body={"identity": me})
    other.token = "imk_wrong"
    with pytest.raises(openai.AuthenticationError):
        connected(other).images.generate(prompt="x", extra_body={"identity": me})


def test_streaming_gives_previews_and_then_the_picture(home: House, me: str, slowly: None) -> None:
    stream = connected(home).images.generate(
        prompt="in a forest",
        stream=True,
        partial_images=2,
        extra_body={"identity": me, "num_inference_steps": 8},
    )
    events = list(stream)
    partial = [event for event in events if event.type == "image_generation.partial_image"]
    assert 1 <= len(partial) <= 2 and partial[0].partial_image_index == 0
    assert max(size_of(partial[0].b64_json)) <= 64
    assert events[-1].type == "image_generation.completed"
    assert size_of(events[-1].b64_json) == (128, 128)


def test_an_error_in_a_stream_is_an_exception(
    home: House, me: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(request: object) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr(service.models.engine.backend, "prepare", broken)
    stream = connected(home).images.generate(
        prompt="in a forest", stream=True, extra_body={"identity": me}
    )
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.code == "generation_failed" and "canary" not in str(caught.value)


def test_selfies_make_an_edit_and_are_forgotten(house: House) -> None:
    answer = connected(house).images.edit(
        image=[("a.jpg", selfie(0)), ("b.jpg", selfie(0, 1))],
        prompt="in a forest",
        extra_body={**CONSENT, "seed": 7},
    )
    assert answer.data is not None and size_of(answer.data[0].b64_json) == (128, 128)
    assert house.ask("GET", "/v1/identities").json()["data"] == []
    assert house.ask("GET", "/v1/images").json()["data"] == []


def test_a_single_selfie_may_be_streamed(house: House) -> None:
    stream = connected(house).images.edit(
        image=("a.jpg", selfie(0)), prompt="in a forest", stream=True, extra_body=CONSENT
    )
    assert [event.type for event in stream][-1] == "image_edit.completed"
    assert house.ask("GET", "/v1/identities").json()["data"] == []


@pytest.mark.parametrize(
    ("photo", "extra", "code"),
    [
        (selfie(), {}, "invalid_input"),
        (selfie(), {**CONSENT, "declared_self": "false"}, "invalid_input"),
        (blank(), CONSENT, "no_face_found"),
    ],
)
def test_an_edit_without_consent_or_face_is_refused_and_keeps_nothing(
    house: House, photo: bytes, extra: dict[str, str], code: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        connected(house).images.edit(image=("a.jpg", photo), prompt="x", extra_body=extra)
    assert caught.value.code == code
    assert house.ask("GET", "/v1/identities").json()["data"] == []


def test_an_edit_against_policy_is_refused_before_the_photo_is_looked_at(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked(*anything: object) -> None:
        raise AssertionError("the photo was looked at")

    monkeypatch.setattr(house.service.models, "describe", looked)
    with pytest.raises(openai.BadRequestError) as caught:
        connected(house).images.edit(image=("a.jpg", selfie()), prompt="naked", extra_body=CONSENT)
    assert caught.value.code == "moderation_blocked"


def test_an_edit_needs_a_key_that_may_enrol(house: House) -> None:
    made = house.service.api_keys.create(house.tenant_id, "draws", {"generations:write"})
    house.token = made.token
    with pytest.raises(openai.PermissionDeniedError, match="identities:write"):
        connected(house).images.edit(image=("a.jpg", selfie()), prompt="x", extra_body=CONSENT)


def test_a_retry_of_the_client_draws_nothing_twice(home: House, me: str) -> None:
    body = {"prompt": "in a forest", "identity": me, "seed": 11}
    path = "/v1/images/generations"
    first = home.ask("POST", path, json=body, headers={"x-stainless-retry-count": "0"}).json()
    again = home.ask("POST", path, json=body, headers={"x-stainless-retry-count": "1"}).json()
    wanted = home.ask("POST", path, json=body, headers={"x-stainless-retry-count": "0"}).json()
    assert again["generation"] == first["generation"] != wanted["generation"]

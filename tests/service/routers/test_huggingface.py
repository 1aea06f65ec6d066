"""The stock client of Hugging Face against our route."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from huggingface_hub import InferenceClient, close_session, set_client_factory
from huggingface_hub.errors import HfHubHTTPError

from tests.service.conftest import House


@pytest.fixture
def hugging(home: House) -> Iterator[InferenceClient]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(home.http, "close", lambda: None)  # its factory's clients get closed
        set_client_factory(lambda: home.http)
        yield InferenceClient(base_url="http://127.0.0.1/hf/fake", token=home.token)
        close_session()
    from huggingface_hub.utils._http import default_client_factory

    set_client_factory(default_client_factory)


def test_the_stock_client_gets_a_picture(hugging: InferenceClient, me: str) -> None:
    picture = hugging.text_to_image("in a forest", seed=7, extra_body={"identity": me})
    assert picture.size == (128, 128)
    assert b"trainedAlgorithmicMedia" in picture.info["xmp"]
    assert "imagine-recipe" not in picture.info


def test_a_mistake_is_an_exception_of_the_client(hugging: InferenceClient) -> None:
    with pytest.raises(HfHubHTTPError) as caught:
        hugging.text_to_image("in a forest", extra_body={"identity": "nobody"})
    assert caught.value.response.status_code == 404


def test_width_and_height_choose_a_shape(hugging: InferenceClient, me: str) -> None:
    picture = hugging.text_to_image(
        "in a forest", width=168, height=96, extra_body={"identity": me}
    )
    assert picture.size == (168, 96)
    picture = hugging.text_to_image(
        "in a forest", extra_body={"identity": me, "aspect_ratio": "16:9"}
    )
    assert picture.size == (168, 96)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"width": 1024, "height": 1024}, "1024x1024 pixels. Choose one of: 1:1 (128x128), 3:4"),
        ({"width": 168}, "Give width and height together, one of: 1:1 (128x128), 3:4"),
    ],
)
def test_a_size_the_model_does_not_draw_is_refused_with_the_list(
    hugging: InferenceClient, me: str, words: dict[str, int], sentence: str
) -> None:
    with pytest.raises(HfHubHTTPError) as caught:
        hugging.text_to_image("in a forest", **words, extra_body={"identity": me})
    assert caught.value.response.status_code == 422
    assert sentence in caught.value.response.json()["detail"]

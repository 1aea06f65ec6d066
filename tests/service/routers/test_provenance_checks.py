from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from imagine.core import Recipe
from imagine.provenance import MarkedImage, Marking, make_marking
from imagine.provenance.watermark_report import drawing
from imagine.service.rate_limits import Quota, RateLimiter
from imagine.service.routers import provenance_checks
from imagine.service.wiring import Service
from tests.service.conftest import House

RECIPE = Recipe("on the secret moon", 7, 4, 2.0, 0.7, "fake", "fake-1", "ab" * 32, "0.1.0")


@pytest.fixture(scope="module")
def marking(service: Service) -> Marking:
    numbers = iter(range(70, 100))
    return make_marking(service.limits, lambda kind, facts: next(numbers), "cd" * 32)


@pytest.fixture(scope="module")
def marked(marking: Marking) -> MarkedImage:
    return marking(drawing(2, 256), RECIPE)


@pytest.fixture
def ask(home: House) -> Iterator[Any]:
    def post(data: bytes, name: str = "a.png") -> Any:
        # No key: anybody may ask.
        files = {"picture": (name, data, "application/octet-stream")}
        return home.http.post("/v1/provenance_checks", files=files)

    return post


def png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_picture_as_it_was_made_is_known_without_a_key(ask: Any, marked: MarkedImage) -> None:
    told = ask(marked.to_bytes(".png")).json()
    assert (told["verdict"], told["record"]) == ("made here, untouched", 70)
    assert told["watermark_found"] and told["says_generated"] and told["weakened_checks"] == []


def test_a_copy_without_metadata_is_known_by_its_watermark(ask: Any, marked: MarkedImage) -> None:
    told = ask(png(marked.pixels), "holiday.gif").json()
    assert (told["verdict"], told["record"]) == ("made here, metadata stripped", 70)


def test_a_changed_file_was_edited_since(ask: Any, marked: MarkedImage) -> None:
    assert ask(marked.to_bytes(".png") + b"more").json()["verdict"] == "edited since"


def test_a_copy_too_changed_for_the_watermark_is_known_by_its_looks(
    ask: Any, marked: MarkedImage
) -> None:
    small = Image.fromarray(marked.pixels).resize((48, 48), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.resize((256, 256), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=60)
    told = ask(buffer.getvalue()).json()
    assert (told["verdict"], told["record"]) == ("edited since", 70)
    assert not told["watermark_found"]


def test_other_pictures_are_not_ours_and_a_borrowed_signature_is_forged(
    ask: Any, marked: MarkedImage
) -> None:
    assert ask(png(drawing(3, 128))).json()["verdict"] == "not ours"
    data = marked.to_bytes(".jpg")
    other = Image.fromarray(drawing(3, 256))
    buffer = io.BytesIO()
    other.save(buffer, "JPEG", quality=95, subsampling=0)
    body = buffer.getvalue()
    transplanted = data[: data.index(b"\xff\xdb")] + body[body.index(b"\xff\xdb") :]
    assert ask(transplanted).json()["verdict"] == "forged credit"


def test_neither_prompt_nor_person_is_told_and_nothing_is_kept(
    ask: Any, marked: MarkedImage, service: Service
) -> None:
    def kept() -> list[tuple[Path, int]]:
        folder = service.limits.data_directory
        return sorted((p, p.stat().st_size) for p in folder.rglob("*") if p.is_file())

    before = [item for item in kept() if "imagine.db" not in item[0].name]
    answer = ask(marked.to_bytes(".webp"))
    assert answer.status_code == 200
    assert "moon" not in answer.text and RECIPE.identity_fingerprint[:12] not in answer.text
    assert [item for item in kept() if "imagine.db" not in item[0].name] == before


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0" * 9])
def test_what_is_no_picture_is_a_clear_error(ask: Any, data: bytes) -> None:
    answer = ask(data)
    assert answer.status_code == 422 and "PNG" in answer.json()["detail"]


def test_a_picture_too_large_is_refused(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance_checks, "PICTURE_BYTES", 1000)
    assert ask(bytes(1001)).status_code == 422
    assert ask(bytes(33 * 1024 * 1024)).status_code == 413


def test_what_the_operator_weakened_is_told(
    ask: Any, marked: MarkedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("check apparent_minors switched off",)
    monkeypatch.setattr(provenance_checks, "weakened", lambda limits: words)
    told = ask(marked.to_bytes(".png")).json()
    assert told["weakened_checks"] == list(words)
    assert "apparent_minors" in told["sentences"][-1]


def test_whoever_asks_too_often_waits(
    ask: Any, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = RateLimiter(Quota("address", 2))
    monkeypatch.setattr(service.doorkeeper, "_by_address", few)
    answers = [ask(b"hello").status_code for _ in range(3)]
    assert answers == [422, 422, 429]


def test_only_a_few_pictures_are_looked_at_at_once(
    ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance_checks, "_AT_ONCE", threading.BoundedSemaphore(1))
    monkeypatch.setattr(provenance_checks, "_WAIT_SECONDS", 0.01)
    with provenance_checks._AT_ONCE:
        answer = ask(b"hello")
    assert answer.status_code == 503 and answer.headers["retry-after"]

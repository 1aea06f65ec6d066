from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

import pytest

pytest.importorskip("gradio", reason="needs the extra ui: pip install -e '.[ui]'")

import gradio as gr
from fastapi import FastAPI
from starlette.testclient import TestClient

from imagine.ui.desk import Desk
from imagine.ui.local import LocalStudio, LocalStudios
from imagine.ui.me import photos_html
from imagine.ui.server import build_app
from imagine.ui.sessions import COOKIE, Sessions
from imagine.ui.styles import STYLES
from imagine.ui.words import LANGUAGES, Words
from tests.ui.conftest import selfie


@pytest.fixture(scope="module")
def sessions() -> Iterator[Sessions]:
    made = Sessions(LocalStudios("fake", "double", "double"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def page(sessions: Sessions) -> FastAPI:
    return build_app(sessions.studios, sessions)


@pytest.fixture
def client(page: FastAPI) -> TestClient:
    """Somebody at the page; the lifespan does not run, so the sessions stay open."""
    visitor = TestClient(page, base_url="http://testserver")
    visitor.post("/private/session")
    return visitor


def test_a_photo_goes_in_and_comes_back_to_its_owner_alone(client: TestClient) -> None:
    answer = client.post("/private/photos", content=selfie(), headers={"X-Name": "me%20too.jpg"})
    path = f"/private/photos/{answer.json()['id']}"
    shown = client.get(path)
    assert shown.status_code == 200 and shown.headers["cache-control"] == "no-store"
    assert client.get("/private/photos/guess").status_code == 404
    client.cookies.clear()
    assert client.get(path).status_code == 404
    assert client.post("/private/photos", content=selfie()).status_code == 404
    client.cookies.set(COOKIE, "guess")
    assert client.get(path).status_code == 404


def test_a_photo_is_answered_with_its_verdict(client: TestClient) -> None:
    headers = {"X-Name": "me.jpg", "Accept-Language": "de"}
    facts = client.post("/private/photos", content=b"milk", headers=headers).json()
    assert facts["kind"] == "refused" and facts["verdict"] == "Bleibt weg"
    assert "kein lesbares Foto" in facts["advice"]


def test_everything_is_handed_to_its_owner_alone(client: TestClient) -> None:
    client.post("/private/photos", content=selfie(), headers={"X-Name": "me.jpg"})
    answer = client.get("/private/export.zip")
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["cache-control"] == "no-store"
    names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
    assert "photos/person-1/1-me.jpg" in names
    client.cookies.clear()
    assert client.get("/private/export.zip").status_code == 404


def test_a_picture_comes_in_no_other_format_than_those_offered(client: TestClient) -> None:
    for path in ("/private/pictures/p?suffix=.gif", "/private/pictures.zip?suffix=.exe"):
        answer = client.get(path)
        assert answer.status_code == 400 and ".png, .jpg, .webp" in answer.json()["message"]


def test_a_report_goes_to_the_studio(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, ...]] = []

    def take(self: LocalStudio, picture_id: str, reason: str, details: str) -> str:
        told.append((picture_id, reason, details))
        return "R-7"

    nobody = client.post("/private/reports", json={"picture": "p", "reason": "other"})
    assert nobody.status_code == 400 and "own computer" in nobody.json()["message"]
    monkeypatch.setattr(LocalStudio, "report", take)
    wish = {"picture": "p", "reason": "not_me", "details": "No."}
    assert client.post("/private/reports", json=wish).json() == {"number": "R-7"}
    assert told == [("p", "not_me", "No.")]


@pytest.mark.parametrize("content", [b"{", b"[]", b"x" * 40_000])
def test_a_report_nobody_can_read_is_refused(client: TestClient, content: bytes) -> None:
    assert client.post("/private/reports", content=content).status_code in (400, 413)


def test_the_thumbnails_of_styles_are_public_and_nothing_else_is(client: TestClient) -> None:
    client.cookies.clear()
    for style in STYLES:
        answer = client.get(f"/look/style-{style}.webp")
        assert answer.status_code == 200 and answer.headers["content-type"] == "image/webp"
    for name in ("style-unknown", "..%2fwords", "page"):
        assert client.get(f"/look/{name}.webp").status_code == 404


def test_a_body_larger_than_a_photo_may_be_is_refused_in_words(client: TestClient) -> None:
    answer = client.post(
        "/private/photos",
        content=b"x" * (16 * 2**20),
        headers={"X-Name": "big.jpg", "Accept-Language": "it"},
    )
    assert answer.status_code == 413
    assert answer.json()["message"] == "big.jpg è troppo grande. Al massimo 15 MB."


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://elsewhere.example"},
        {"Origin": "http://testserver:81"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_other_sites_cannot_send_in_somebodys_name(
    client: TestClient, headers: dict[str, str]
) -> None:
    assert client.post("/private/photos", content=selfie(), headers=headers).status_code == 403
    assert client.post("/gradio_api/queue/join", json={}, headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/upload"),
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("GET", "/gradio_api/runs"),
        ("GET", "/gradio_api/info"),
        ("POST", "/gradio_api/call/handler"),
        ("GET", "/gradio_api/proxy=http://127.0.0.1"),
    ],
)
def test_gradios_own_ways_for_files_are_closed(client: TestClient, method: str, path: str) -> None:
    assert client.request(method, path).status_code == 404


def test_the_page_gives_a_secret_that_scripts_cannot_read(client: TestClient) -> None:
    client.cookies.clear()
    answer = client.get("/")
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(COOKIE) and "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert "set-cookie" not in client.get("/").headers
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_the_configuration_of_the_page_names_no_endpoint_and_no_sharing(
    client: TestClient,
) -> None:
    config = client.get("/config").json()
    assert config["run_history"] is False or not config.get("run_history")
    assert all(d.get("api_visibility") == "private" for d in config["dependencies"])
    assert not config.get("analytics_enabled")
    assert not config.get("show_error")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_is_sent_in_the_language_asked_for_and_no_other(
    client: TestClient, language: str
) -> None:
    config = client.get("/config", headers={"Accept-Language": f"{language},en;q=0.1"}).json()
    sent = config["i18n_translations"]
    assert set(sent) == {"en", language}
    assert sent["en"]["tab.me"] == sent[language]["tab.me"] == Words(language)("tab.me")
    page = client.get("/", headers={"Accept-Language": language}).text
    for other in LANGUAGES:
        assert (Words(other)("consent.me") in page) == (other == language)


def test_a_handler_without_a_session_says_so_and_touches_nothing(sessions: Sessions) -> None:
    desk = Desk(sessions)
    touched = []
    handler = desk.answer(lambda visitor: touched.append(visitor), 3)
    for cookies in ({}, {COOKIE: "guess"}):
        request = gr.Request(headers={"accept-language": "de"}, cookies=cookies)
        message, *others = handler(request)
        assert "Sitzung" in message and touched == []
        assert len(others) == 2


def test_verifying_needs_no_session(client: TestClient) -> None:
    client.cookies.clear()
    answer = client.post("/verify/picture", content=selfie(), headers={"X-Name": "me.jpg"})
    assert answer.status_code == 200 and "recipe" in answer.json()["html"].lower()
    wrong = client.post("/verify/picture", content=b"nonsense")
    assert wrong.status_code == 400 and wrong.json()["message"]


def test_a_name_cannot_smuggle_markup_or_folders(client: TestClient, sessions: Sessions) -> None:
    client.post(
        "/private/photos",
        content=b"x",
        headers={"X-Name": "..%2F..%2F%3Cimg%20src%3Dx%3E%0A.jpg"},
    )
    studio = sessions.studio(client.cookies[COOKIE])
    assert studio is not None
    (card,) = studio.photos()
    assert card.report.name == "<img src=x>.jpg"
    assert "<img src=x>" not in photos_html(studio.photos(), Words("en"))

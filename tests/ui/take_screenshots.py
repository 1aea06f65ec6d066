"""Draws the pictures of the pages that the README shows: `make screenshots`.

A person who does not exist uses the pages with the shipped weights: first the studio of one
machine, then a service with its camera check, reviewers and developers. Needs the extra "dev" and
Chromium; takes some minutes on two cores. Writes assets/screenshots/*.webp.

With `--all` it also writes every page in both themes at 390 and 1440 pixels to a folder, to be
looked at: `python -m tests.ui.take_screenshots --all FOLDER`.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from tests.ui.conftest import AGREED, PEOPLE, camera_frame, start_server
from tests.ui.house import make_key, places_in, serving, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from imagine.service.wiring import Service

TARGET = Path(__file__).parent.parent.parent / "assets" / "screenshots"
# The one of the sample people whom the fake camera shows as well.
PERSON, NAME = "b", "Ben"
WISH = "with a soft smile, in a sunny park"
SEED = 7
BEST_OF = 4
PICTURES = 3
WIDE, PHONE = {"width": 1280, "height": 1000}, {"width": 390, "height": 844}
WAIT_MILLISECONDS = 600_000  # the model is opened and some pictures are drawn
TABS = ("Me", "Imagine", "Gallery", "Verify")


def main() -> int:
    """Take them all; returns the exit status."""
    from playwright.sync_api import expect, sync_playwright

    options = _parser().parse_args()
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        print("Needs Chromium: apt-get install --no-install-recommends chromium", file=sys.stderr)
        return 5
    TARGET.mkdir(exist_ok=True)
    expect.set_options(timeout=WAIT_MILLISECONDS)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        os.environ["GRADIO_TEMP_DIR"] = os.environ["IMAGINE_DATA_DIR"] = folder
        film = Path(folder) / "camera.mjpeg"
        film.write_bytes(camera_frame() * 4)
        browser = playwright.chromium.launch(
            executable_path=program,
            args=[
                "--no-sandbox",
                "--disable-background-networking",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-video-capture={film}",
            ],
        )
        _take_local(browser)
        _take_service(browser, Path(folder) / "service", options.all)
        browser.close()
    return 0


def selfies() -> list[Path]:
    """Three photos of the person."""
    return sorted((PEOPLE / f"person-{PERSON}").glob("selfie_*.jpg"))[:3]


# One person at one machine


def _take_local(browser: Browser) -> None:
    from imagine.ui.local import LocalStudios

    studios = LocalStudios()
    studios.models.load()
    server = start_server(studios)
    try:
        with _visit(browser) as page:
            _use_the_page(page, server.url)
    finally:
        server.stop()


def _use_the_page(page: Page, url: str) -> None:
    from playwright.sync_api import expect

    page.goto(url)
    expect(page.locator("#photos .empty")).to_be_visible()
    page.set_input_files("#photo-files", selfies())
    expect(page.locator("#photos .note")).to_contain_text("same person")
    for label in ("These photos show me", "My face may be measured"):
        page.get_by_label(label).check()
    page.get_by_label("What shall we call you?").fill(NAME)
    page.get_by_role("button", name="Remember me").click()
    expect(page.locator("#me-note")).to_contain_text("in use")
    _keep(page, "me")
    page.get_by_role("tab", name="Imagine", exact=True).click()
    page.locator("#expert button").click()
    page.get_by_label("Seed").fill(str(SEED))
    for field, value in (("#count", PICTURES), ("#best-of", BEST_OF)):
        page.locator(f"{field} input[type=number]").fill(str(value))
        page.locator(f"{field} input[type=number]").press("Tab")
    page.locator("#expert button").first.click()
    page.locator("#prompt textarea").fill(WISH)
    page.locator("#prompt textarea").press("Control+Enter")
    expect(page.locator("#progress .preview")).to_be_visible()
    _keep(page, "drawing")
    expect(page.locator("#voice")).to_have_text("Finished.")
    page.locator("#results summary").first.click()
    _keep(page, "imagine")
    page.get_by_role("button", name="Light or dark").click()
    page.get_by_role("tab", name="Gallery").click()
    page.locator("#gallery").get_by_role("button", name="Star").first.click()
    expect(page.locator("#gallery").get_by_role("button", name="Starred")).to_have_count(1)
    _keep(page, "gallery-dark")
    page.set_viewport_size(PHONE)
    page.get_by_role("button", name="Light or dark").click()
    page.get_by_role("tab", name="Me").click()
    _keep(page, "phone")


# A service: whoever is shown, reviewers, developers


def _take_service(browser: Browser, folder: Path, everything: Path | None) -> None:
    from imagine.service.settings import ServiceSettings
    from imagine.service.wiring import build_service

    service = build_service(ServiceSettings(), places_in(folder))
    with serving(service) as house:
        keys = {role: make_key(service, "home", role, "studio") for role in ("user", "admin")}
        case = _something_to_look_at(service, keys["user"])
        with _visit(browser, house.url, keys["user"]) as page:
            _begin_camera_check(page, house.url)
            _keep(page, "camera-check")
        with _visit(browser, house.url, keys["admin"]) as page:
            for path, name in (
                (f"/review/{case}", "review"),
                ("/review/figures", "figures"),
                ("/developers", "developers"),
            ):
                page.goto(f"{house.url}{path}")
                _keep(page, name)
        if everything is not None:
            _take_everything(browser, house.url, keys, case, everything)


def _something_to_look_at(service: Service, token: str) -> str:
    """Somebody enrols, draws and reports a picture; the answer is what a reviewer sees of it."""
    from imagine.service.auth import Caller, scopes_of
    from imagine.ui.remote import RemoteStudios
    from imagine.ui.studio import Consent, OpenWish

    caller = Caller("home", f"key_{token.split('_')[1]}", scopes_of("user"))
    studio = RemoteStudios(service).open_for(caller)
    for photo in selfies():
        studio.add_photo(photo.read_bytes(), photo.name)
    studio.enrol(NAME, Consent(AGREED.statements, "en", AGREED.given_at, frozenset({"review"})))
    studio.draw(OpenWish(WISH, count=2, seed=SEED))
    until(lambda: (moment := studio.drawing()) and moment.is_final, WAIT_MILLISECONDS / 1000)
    return studio.report(studio.pictures()[0].id, "not_me", "That is not how I look.")


def _begin_camera_check(page: Page, url: str) -> None:
    from playwright.sync_api import expect

    page.goto(f"{url}/camera-check")
    page.get_by_role("button", name="Turn the camera on").click()
    page.get_by_role("button", name="Begin the check").click()
    expect(page.locator(".asks")).to_contain_text("Turn your head")


def _take_everything(
    browser: Browser, url: str, keys: dict[str, str], case: str, folder: Path
) -> None:
    """Every page of the service, whole, to be looked at and not to be shipped."""
    folder.mkdir(parents=True, exist_ok=True)
    offices = (
        "/review", f"/review/{case}", "/review/takedowns", "/review/approvals", "/review/cases",
        "/review/figures", "/review/audit", "/developers", "/reference", "/appeals", "/report",
        "/verify",
    )  # fmt: skip
    for scheme in ("light", "dark"):
        for width in (390, 1440):
            look: dict[str, Any] = {
                "viewport": {"width": width, "height": 900},
                "color_scheme": scheme,
            }
            end = f"{width}-{scheme}.png"
            with _visit(browser, url, keys["admin"], **look) as page:
                for path in offices:
                    page.goto(f"{url}{path}")
                    name = path.replace(case, "case").strip("/").replace("/", "-")
                    page.screenshot(path=folder / f"{name}-{end}", full_page=True)
            with _visit(browser, url, keys["user"], **look) as page:
                page.goto(url)
                page.locator("#agreement .standing").wait_for()
                for tab in TABS:
                    page.get_by_role("tab", name=tab, exact=True).click()
                    page.wait_for_timeout(1000)
                    page.screenshot(path=folder / f"{tab.lower()}-{end}", full_page=True)
                _begin_camera_check(page, url)
                page.screenshot(path=folder / f"camera-check-{end}", full_page=True)


@contextmanager
def _visit(browser: Browser, url: str = "", token: str = "", **options: Any) -> Iterator[Page]:
    """A page of somebody, signed in where a token is given."""
    context = browser.new_context(
        **{
            "viewport": WIDE,
            "locale": "en-GB",
            "reduced_motion": "reduce",
            "permissions": ["camera"],
            **options,
        }
    )
    context.set_default_timeout(WAIT_MILLISECONDS)
    if token:
        context.request.post(f"{url}/sign-in", form={"key": token}, max_redirects=0)
    yield context.new_page()
    context.close()


def _keep(page: Page, name: str) -> None:
    """A small file that browsers show."""
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(400)
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    shot.save(TARGET / f"{name}.webp", quality=82, method=6)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="every page, to be looked at")
    return parser


if __name__ == "__main__":
    sys.exit(main())

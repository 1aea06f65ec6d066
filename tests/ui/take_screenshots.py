"""Draws the pictures of the page that the README shows: `make screenshots`.

A person who does not exist uses the page with the shipped weights. Needs the extra "dev" and
Chromium; takes some minutes on two cores. Writes assets/screenshots/*.webp.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.ui.conftest import PEOPLE, start_server

TARGET = Path(__file__).parent.parent.parent / "assets" / "screenshots"
WISH = "with a soft smile, in a sunny park"
SEED = 7
BEST_OF = 8
PICTURES = 3
WIDE, PHONE = {"width": 1280, "height": 1100}, {"width": 390, "height": 844}
WAIT_MILLISECONDS = 240_000  # the model is opened and some pictures are drawn


def main() -> int:
    """Take them all; returns the exit status."""
    from playwright.sync_api import sync_playwright

    from imagine.ui.local import LocalStudios

    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        print("Needs Chromium: apt-get install --no-install-recommends chromium", file=sys.stderr)
        return 5
    TARGET.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = os.environ["IMAGINE_DATA_DIR"] = folder
        server = start_server(LocalStudios())
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=program,
                    args=["--no-sandbox", "--disable-background-networking"],
                )
                context = browser.new_context(
                    viewport=WIDE, locale="en-GB", reduced_motion="reduce"
                )
                context.set_default_timeout(WAIT_MILLISECONDS)
                _use_the_page(context.new_page(), server.url)
                browser.close()
        finally:
            server.stop()
    return 0


def _use_the_page(page: object, url: str) -> None:
    from playwright.sync_api import Page, expect

    assert isinstance(page, Page)
    expect.set_options(timeout=WAIT_MILLISECONDS)
    page.goto(url)
    expect(page.locator("#photos .empty")).to_be_visible()
    page.set_input_files("#photo-files", sorted((PEOPLE / "person-a").glob("selfie_*.jpg"))[:3])
    expect(page.locator("#photos .note")).to_contain_text("same person")
    for label in ("These photos show me", "My face may be measured"):
        page.get_by_label(label).check()
    page.get_by_label("What shall we call you?").fill("Ada")
    page.get_by_role("button", name="Remember me").click()
    expect(page.locator("#me-note")).to_contain_text("in use")
    _keep(page, "me")
    page.get_by_role("tab", name="Imagine").click()
    page.locator("#expert button").click()
    page.get_by_label("Seed").fill(str(SEED))
    for field, value in (("#count", PICTURES), ("#best-of", BEST_OF)):
        page.locator(f"{field} input[type=number]").fill(str(value))
        page.locator(f"{field} input[type=number]").press("Tab")
    page.locator("#expert button").first.click()
    page.locator("#prompt textarea").fill(WISH)
    page.locator("#prompt textarea").press("Control+Enter")
    expect(page.locator("#results .picture")).to_have_count(1)
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


def _keep(page: object, name: str) -> None:
    """A small file that GitHub and browsers show."""
    from playwright.sync_api import Page

    assert isinstance(page, Page)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(400)
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    shot.save(TARGET / f"{name}.webp", quality=82, method=6)


if __name__ == "__main__":
    sys.exit(main())

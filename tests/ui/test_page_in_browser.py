"""The page as a person meets it: a real browser, a real server, models that only pretend."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="needs the extra ui: pip install -e '.[ui]'")
from imagine import read_recipe
from imagine.ui.local import LocalStudios
from tests.ui.conftest import Running, is_ours, selfie, serving, six_people, start_server

pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[dev]'")
from playwright.sync_api import Page, expect

expect.set_options(timeout=120_000)  # others may be at work on this machine
_DROP = """([data, place]) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], "p.png", { type: "image/png" }));
    document.querySelector(place).dispatchEvent(
        new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer }));
}"""
TABS = ("Me", "Imagine", "Gallery", "Verify")
Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Any, server: Running) -> Iterator[Open]:
    """Opens the page in a browser of its own, ready to be used."""
    contexts = []

    def open_it(
        url: str = server.url,
        width: int = 1440,
        height: int = 900,
        enrolled: bool = False,
        **options: Any,
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            permissions=["camera"],
            reduced_motion="reduce",
            **{"locale": "en-GB", **options},
        )
        contexts.append(context)
        context.set_default_timeout(120_000)
        page = context.new_page()
        page.strangers = []  # type: ignore[attr-defined]
        page.on(
            "request",
            lambda request: (
                None if is_ours(request.url, url) else page.strangers.append(request.url)
            ),  # type: ignore[attr-defined]
        )
        if enrolled:
            context.request.post(f"{url}/private/session")
            server.enrol(context.cookies())
        page.goto(url)
        expect(page.locator("#photos .photo" if enrolled else "#photos .empty")).to_be_visible()
        return page

    yield open_it
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def home(browser: Any) -> Iterator[Any]:
    """A browser that has been here before: what it keeps of the page makes the tests quicker."""
    context = browser.new_context(locale="en-GB", reduced_motion="reduce", accept_downloads=True)
    context.set_default_timeout(120_000)
    yield context
    context.close()


@pytest.fixture
def enrolled(home: Any, server: Running) -> Iterator[Page]:
    """The page of somebody who has given a photo."""
    home.request.post(f"{server.url}/private/session")
    server.studio(home.cookies()).forget()
    server.enrol(home.cookies())
    page = home.new_page()
    page.goto(server.url)
    expect(page.locator("#who")).to_contain_text("Ada")
    expect(page.locator("#photos .photo")).to_be_visible()
    yield page
    page.close()


def go(page: Page, tab: str) -> None:
    page.get_by_role("tab", name=tab, exact=True).click()


def upload(page: Page, *files: tuple[str, bytes]) -> None:
    page.set_input_files(
        "#photo-files",
        [{"name": name, "mimeType": "image/jpeg", "buffer": data} for name, data in files],
    )


def wish(page: Page, words: str, count: int = 1) -> None:
    go(page, "Imagine")
    page.locator("#prompt textarea").fill(words)
    page.locator("#count input[type=number]").fill(str(count))
    page.locator("#count input[type=number]").press("Tab")
    page.locator("#prompt textarea").press("Control+Enter")


def agree(page: Page) -> None:
    for label in ("These photos show me", "My face may be measured"):
        page.get_by_label(label).check()


@pytest.fixture(scope="module")
def real() -> Iterator[Running]:
    """The page with the recogniser the product has."""
    studios = LocalStudios("fake")
    studios.models.load()
    with serving(studios) as running:
        yield running


def test_enrolling_by_upload_says_what_is_wrong_with_each_photo(
    open_page: Open, real: Running
) -> None:
    page = open_page(real.url)
    upload(page, ("one.jpg", selfie()), ("six.jpg", six_people()), ("notes.jpg", b"milk, eggs"))
    photos = page.locator("#photos .photo")
    expect(photos).to_have_count(3)
    expect(photos.nth(0)).to_contain_text("Good")
    expect(photos.nth(1)).to_contain_text("Six faces")
    expect(photos.nth(1)).to_contain_text("Which one is you?")
    expect(photos.nth(2)).to_contain_text("notes.jpg is a text file")
    page.get_by_role("button", name="Remember me").click()
    expect(page.locator("#me-note")).to_contain_text("Tick both boxes")
    agree(page)
    page.get_by_label("What shall we call you?").fill("Ada")
    page.get_by_role("button", name="Remember me").click()
    expect(page.locator("#me-note")).to_contain_text("1 of your photos are in use")
    expect(page.locator("#me-note")).to_contain_text("2 left out")
    expect(page.locator("#who")).to_contain_text("Ada")


def test_enrolling_by_camera_with_guided_poses(open_page: Open, real: Running) -> None:
    page = open_page(real.url)
    page.get_by_role("button", name="Use the camera").click()
    expect(page.locator(".pose")).to_have_text("1/4 · Look straight at the camera.")
    page.wait_for_function("document.querySelector('.camera video').videoWidth > 2")
    page.get_by_role("button", name="Take photo").click()
    expect(page.locator(".answer")).to_contain_text("Good")
    expect(page.locator(".pose")).to_have_text("2/4 · Turn your head a little to your left.")
    expect(page.locator("#photos .photo")).to_contain_text("camera-1.jpg")
    first = page.locator("#photos .photo").get_attribute("data-photo")
    page.get_by_role("button", name="Straight").click()  # once more, in its place
    page.get_by_role("button", name="Take again").click()
    expect(page.locator(f'#photos [data-photo="{first}"]')).to_have_count(0)
    expect(page.locator("#photos .photo")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator(".camera")).to_be_hidden()
    agree(page)
    page.get_by_role("button", name="Remember me").click()
    expect(page.locator("#me-note")).to_contain_text("1 of your photos")


def test_pictures_come_one_by_one_with_previews_and_keep_their_recipe(
    enrolled: Page, tmp_path: Path
) -> None:
    page = enrolled
    previews: list[int] = []
    page.on(
        "response", lambda r: previews.append(r.status) if "/private/previews/" in r.url else None
    )
    wish(page, "smiling in a forest at dawn", count=4)
    expect(page.locator("#progress .says")).to_contain_text("Step")
    expect(page.locator("#progress .preview")).to_be_visible()
    expect(page.locator("#results .picture").first).to_be_visible()
    expect(page.get_by_role("progressbar")).to_be_visible()
    expect(page.locator("#results .picture")).to_have_count(4)
    expect(page.locator("#voice")).to_have_text("Finished.")
    expect(page.locator("#stop")).to_be_hidden()
    assert previews and set(previews) == {200}
    first = page.locator("#results .picture").first
    expect(first.locator(".verdict")).not_to_be_empty()
    expect(first.get_by_role("img")).to_have_attribute(
        "alt", "Picture of you: smiling in a forest at dawn"
    )
    with page.expect_download() as download:
        first.get_by_role("link", name="Download").click()
    saved = tmp_path / "picture.png"
    download.value.save_as(saved)
    recipe = read_recipe(saved)
    assert recipe.prompt == "smiling in a forest at dawn"
    expect(first.locator("summary")).to_contain_text(str(recipe.seed))


def test_a_picture_leads_to_others_and_the_gallery_keeps_them(enrolled: Page) -> None:
    page = enrolled
    wish(page, "reading in a library, sepia")
    expect(page.locator("#voice")).to_have_text("Finished.")
    page.locator("#results summary").click()
    page.locator("#results").get_by_role("button", name="More like me").click()
    # The figure alone: a seed may contain it too.
    expect(page.locator("#results .recipe dd").get_by_text("85", exact=True)).to_be_attached()
    go(page, "Gallery")
    expect(page.locator("#gallery .picture")).to_have_count(2)
    star = page.locator("#gallery").get_by_role("button", name="Star").first
    star.focus()
    page.keyboard.press("Enter")
    starred = page.locator("#gallery").get_by_role("button", name="Starred")
    expect(starred).to_have_attribute("aria-pressed", "true")
    expect(starred).to_be_focused()
    page.get_by_label("Starred only").check()
    expect(page.locator("#gallery .picture")).to_have_count(1)
    page.locator("#gallery").get_by_label("Files as").select_option("JPEG")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as zip").click()
    archive = zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes()))
    assert [name[-4:] for name in archive.namelist()] == [".jpg", ".jpg"]
    with page.expect_download() as download:
        page.locator("#gallery").get_by_role("link", name="Download", exact=True).click()
    assert download.value.suggested_filename.endswith(".jpg")
    page.locator("#gallery").get_by_label("Files as").select_option("PNG")
    page.get_by_label("Search in the words").fill("líbrary")  # without its accent
    expect(page.locator("#voice")).to_have_text("Pictures found: 1")
    page.get_by_label("Search in the words").fill("a zebra")
    expect(page.locator("#gallery .nothing-found")).to_be_visible()
    expect(page.locator("#gallery .picture")).to_be_hidden()
    page.get_by_label("Search in the words").fill("")
    page.locator("#gallery summary").click()
    page.locator("#gallery").get_by_role("button", name="Use this recipe").click()
    expect(page.locator("#prompt textarea")).to_have_value("reading in a library")
    expect(page.get_by_label("Sepia")).to_be_checked()
    go(page, "Gallery")
    page.get_by_label("Starred only").uncheck()
    expect(page.locator("#gallery .picture")).to_have_count(2)
    page.locator("#gallery").get_by_role("button", name="Delete").first.click()
    expect(page.locator("#gallery .picture")).to_have_count(1)
    page.locator("#gallery [data-choose]").check()
    page.get_by_role("button", name="Delete chosen (1)").click()
    expect(page.locator("#gallery .picture")).to_have_count(0)


def test_traits_and_style_travel_with_the_wish(enrolled: Page, server: Running) -> None:
    page = enrolled
    go(page, "Imagine")
    page.get_by_label("Find a style").fill("sep")
    expect(page.locator("#style label:visible")).to_have_count(1)
    page.locator("#style label", has_text="Sepia").click()
    page.get_by_label("Find a style").fill("")
    page.get_by_label("Portrait 3:4").check(force=True)
    page.locator("#traits button").first.click()
    for trait, choice in (("Glasses", "No glasses"), ("Age", "Keep as in my photos")):
        page.get_by_label(trait, exact=True).click()
        page.locator(f"#trait-{trait.lower()}").get_by_role("option", name=choice).click()
    wish(page, "in a sunny park")
    expect(page.locator("#voice")).to_have_text("Finished.")
    (card,) = server.studio(page.context.cookies()).pictures()
    assert card.wish is not None
    assert (card.wish.keep, dict(card.wish.change)) == (("age",), {"glasses": "none"})
    assert card.wish.prompt == "in a sunny park, sepia"
    assert card.recipe.aspect_ratio == "3:4" and card.height > card.width
    box = page.locator("#results .frame img").bounding_box()
    assert box is not None and box["height"] > box["width"]  # shown whole


def test_a_picture_is_compared_by_keyboard_and_a_problem_has_its_place(enrolled: Page) -> None:
    page = enrolled
    wish(page, "in a sunny park")
    expect(page.locator("#voice")).to_have_text("Finished.")
    page.locator("#results").get_by_role("button", name="Compare").click()
    slider = page.get_by_label("How much of the first picture is shown")
    expect(slider).to_be_focused()
    share = "getComputedStyle(document.querySelector('.both')).getPropertyValue('--share')"
    assert page.evaluate(share) == "50%"
    page.keyboard.press("End")
    assert page.evaluate(share) == "100%"
    expect(page.locator("#compare .over")).to_have_attribute("alt", "Your photo me.jpg")
    page.keyboard.press("Escape")
    expect(page.locator("#compare")).to_be_hidden()
    page.locator("#results summary").click()
    page.get_by_role("button", name="Report a problem").click()
    expect(page.locator("#problem")).to_contain_text("runs on your own computer")
    expect(page.locator("#problem pre")).to_contain_text("seed:")
    expect(page.locator("#problem")).not_to_contain_text("sunny park")
    page.get_by_role("button", name="Close", exact=True).click()
    expect(page.locator("#problem")).to_be_hidden()


def test_two_people_agree_each_for_themselves_and_one_leaves(
    open_page: Open, server: Running
) -> None:
    page = open_page(enrolled=True)
    expect(page.get_by_role("group", name="Who is in the picture?")).to_have_count(0)
    agree(page)
    page.get_by_role("button", name="Somebody else").click()
    expect(page.locator("#people")).to_contain_text("themselves")
    expect(page.locator("#photos .photo")).to_have_count(0)
    expect(page.get_by_label("These photos show me")).not_to_be_checked()
    upload(page, ("ben.jpg", selfie("b")))
    expect(page.locator("#photos .photo")).to_have_count(1)
    agree(page)
    page.get_by_label("What shall we call you?").fill("Ben")
    page.get_by_role("button", name="Remember me").click()
    expect(page.locator("#who")).to_contain_text("Ben")
    go(page, "Imagine")
    page.locator("#left label", has_text="Ada").click()
    wish(page, "in a sunny park")
    expect(page.locator("#voice")).to_have_text("Finished.")
    studio = server.studio(page.context.cookies())
    ada, _ = studio.people()
    wished = studio.pictures()[0].wish
    assert wished is not None and wished.person == ada.id
    go(page, "Me")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download everything of mine").click()
    names = zipfile.ZipFile(Path(download.value.path())).namelist()
    assert {"people.json", "photos/person-2/1-ben.jpg"} <= set(names)
    page.get_by_role("button", name="Withdraw my agreement").click()
    expect(page.locator("#me-note")).to_contain_text("has ended")
    expect(page.locator("#who")).to_contain_text("Ada")
    assert studio.people() == (ada,) and len(studio.pictures()) == 1


def test_skipping_goes_on_with_the_next_picture(enrolled: Page) -> None:
    page = enrolled
    go(page, "Imagine")
    page.locator("#expert button").first.click()
    page.get_by_label("Steps").fill("40")
    wish(page, "in a sunny park", count=2)
    expect(page.locator("#progress .says")).to_contain_text("Picture 1 of 2")
    page.get_by_role("button", name="Skip this one").click()
    expect(page.locator("#wish-note")).to_contain_text("Skipped: 1")
    expect(page.locator("#results .picture")).to_have_count(1)
    expect(page.locator("#skip")).to_be_hidden()


def test_a_drawing_is_found_again_when_the_network_comes_back(enrolled: Page) -> None:
    page = enrolled
    wish(page, "in a sunny park", count=3)
    expect(page.locator("#progress .says")).to_contain_text("Step")
    page.context.set_offline(True)
    expect(page.locator("#banner")).to_contain_text("does not answer")
    page.context.set_offline(False)
    expect(page.locator("#banner")).to_be_hidden()
    expect(page.locator("#results .picture")).to_have_count(3)
    expect(page.locator("#progress .progress")).to_be_hidden()
    expect(page.locator("#prompt textarea")).to_have_value("in a sunny park")


def test_photos_wait_in_the_page_while_the_network_is_away(open_page: Open) -> None:
    page = open_page()
    page.context.set_offline(True)
    upload(page, ("me.jpg", selfie()))
    expect(page.locator("#banner")).to_contain_text("does not answer")
    page.context.set_offline(False)
    expect(page.locator("#photos .photo")).to_contain_text("me.jpg")
    expect(page.locator("#banner")).to_be_hidden()


def test_stopping_keeps_what_is_finished(enrolled: Page) -> None:
    page = enrolled
    wish(page, "in the snow", count=8)
    expect(page.locator("#results .picture").first).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#wish-note")).to_contain_text("Stopped")
    expect(page.locator("#progress .progress")).to_be_hidden()
    kept = page.locator("#results .picture").count()
    assert 1 <= kept < 8
    expect(page.locator("#prompt textarea")).to_have_value("in the snow")


def test_a_reload_finds_the_drawing_again(enrolled: Page) -> None:
    page = enrolled
    wish(page, "on a beach", count=3)
    expect(page.locator("#progress .says")).to_contain_text("Step")
    page.reload()
    go(page, "Imagine")
    expect(page.locator("#results .picture")).to_have_count(3)


def test_two_people_at_two_browsers_never_meet_and_no_file_remembers_them(
    enrolled: Page, open_page: Open, server: Running
) -> None:
    page, stranger = enrolled, open_page()
    wish(page, "in a garden")
    expect(page.locator("#voice")).to_have_text("Finished.")
    go(page, "Me")
    upload(page, ("two.jpg", selfie("a", 2)))
    expect(page.locator("#photos .photo")).to_have_count(2)
    studio = server.studio(page.context.cookies())
    private = [
        f"/private/photos/{studio.photos()[0].id}",
        f"/private/pictures/{studio.pictures()[0].id}",
        f"/private/pictures.zip?ids={studio.pictures()[0].id}",
    ]
    for path in private:
        assert page.request.get(server.url + path).status == 200, path
        assert stranger.request.get(server.url + path).status == 404, path
        headers = page.request.get(server.url + path).headers
        assert headers["cache-control"] == "no-store"
    go(stranger, "Gallery")
    expect(stranger.locator("#gallery .picture")).to_have_count(0)
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
    assert "garden" not in page.evaluate("document.cookie + JSON.stringify(localStorage)")
    assert [path for path in server.gradio_files.rglob("*") if path.is_file()] == []


def test_forgetting_everything_takes_one_press(enrolled: Page, server: Running) -> None:
    page = enrolled
    wish(page, "in a garden")
    expect(page.locator("#voice")).to_have_text("Finished.")
    studio = server.studio(page.context.cookies())
    picture = f"{server.url}/private/pictures/{studio.pictures()[0].id}"
    page.get_by_role("button", name="Forget everything").click()
    expect(page.locator("#who")).to_contain_text("Nobody yet")
    expect(page.locator("#results .picture")).to_have_count(0)
    assert page.request.get(picture).status == 404
    assert not (studio.photos() or studio.person() or studio.pictures())
    go(page, "Me")
    expect(page.locator("#me-note")).to_contain_text("Everything is forgotten")


def test_a_refused_wish_says_why_and_stays_in_its_box(enrolled: Page) -> None:
    page = enrolled
    wish(page, "me naked on a beach")
    expect(page.locator("#wish-note .bad")).to_be_visible()
    expect(page.locator("#prompt textarea")).to_have_value("me naked on a beach")
    wish(page, " ")
    expect(page.locator("#wish-note")).to_contain_text("Write a wish first")
    page.locator("#expert button").click()
    page.get_by_label("Seed").fill("seven")
    wish(page, "in the snow")
    expect(page.locator("#wish-note")).to_contain_text("seven is not a number")
    page.get_by_label("Seed").fill("")  # with Expert open and empty the model chooses
    wish(page, "in the snow")
    expect(page.locator("#results .picture")).to_have_count(1)


def test_a_wish_before_any_photo_is_kept(open_page: Open) -> None:
    page = open_page()
    go(page, "Imagine")
    page.get_by_role("button", name="More ideas").click()
    page.get_by_role("button", name="smiling in a forest").click()
    page.locator("#draw").click()
    expect(page.locator("#wish-note")).to_contain_text("nobody to draw yet")
    typed = page.locator("#prompt textarea").input_value()
    assert typed.startswith("smiling in a forest")
    page.reload()
    go(page, "Imagine")
    expect(page.locator("#prompt textarea")).to_have_value(typed)


def test_verifying_reads_the_recipe_and_names_a_wrong_file(enrolled: Page, server: Running) -> None:
    page = enrolled
    wish(page, "in a garden")
    expect(page.locator("#voice")).to_have_text("Finished.")
    studio = server.studio(page.context.cookies())
    page.locator("#prompt textarea").fill("")
    go(page, "Gallery")
    file = {"name": "p.png", "mimeType": "image/png"}
    data = studio.picture(studio.pictures()[0].id)
    page.evaluate(_DROP, [base64.b64encode(data).decode(), "#gallery-drop"])
    expect(page.locator("#verify-result .recipe")).to_contain_text("in a garden")
    page.locator("#verify-result").get_by_role("button", name="Use this recipe").click()
    expect(page.locator("#prompt textarea")).to_be_visible()
    expect(page.locator("#prompt textarea")).to_have_value("in a garden")
    go(page, "Verify")
    page.set_input_files("#verify-file", [{**file, "buffer": b"not a picture"}])
    expect(page.locator("#verify-result .note.bad")).to_be_visible()


def test_an_italian_browser_is_answered_in_italian_though_gradio_speaks_none(
    open_page: Open,
) -> None:
    page = open_page(locale="it-IT")
    expect(page.get_by_role("heading", level=1)).to_have_text("Immagina te stesso")
    expect(page.locator("html")).to_have_attribute("lang", "it")
    expect(page.get_by_label("Come ti chiamiamo?")).to_be_visible()


def test_a_german_browser_is_answered_in_german(open_page: Open) -> None:
    page = open_page(locale="de-DE")
    expect(page.get_by_role("heading", level=1)).to_have_text("Stell dich dir vor")
    expect(page.locator("#photos")).to_have_text("Noch kein Foto.")
    upload(page, ("notiz.jpg", b"Milch"))
    expect(page.locator("#photos .photo")).to_contain_text("kein lesbares Foto")
    go(page, "Bilder")
    expect(page.get_by_label("Schwarzweiß")).to_be_visible()


def test_a_restart_of_the_program_loses_nothing_that_was_given_or_typed(
    browser: Any, open_page: Open
) -> None:
    def fresh() -> LocalStudios:
        return LocalStudios("fake", "double", "double")

    first = start_server(fresh())
    page = open_page(first.url)
    upload(page, ("me.jpg", selfie()))
    expect(page.locator("#photos .photo")).to_have_count(1)
    go(page, "Imagine")
    page.locator("#prompt textarea").fill("a long wish that took a while to type")
    first.stop()
    page.evaluate("window.dispatchEvent(new Event('online'))")
    expect(page.locator("#banner")).to_contain_text("does not answer")
    with serving(fresh(), int(first.url.rsplit(":")[-1])):
        expect(page.locator("#banner")).to_contain_text("started again")
        expect(page.locator("#prompt textarea")).to_have_value(
            "a long wish that took a while to type"
        )
        expect(page.locator("#banner")).to_contain_text("gave the photos back")
        go(page, "Me")
        expect(page.locator("#photos .photo")).to_contain_text("me.jpg")
        agree(page)
        page.get_by_role("button", name="Remember me").click()
        expect(page.locator("#me-note")).to_contain_text("1 of your photos")
        page.locator("#banner button").click()
        go(page, "Imagine")
        page.locator("#draw").click()
        expect(page.locator("#results .picture").first).to_be_visible()


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_every_tab_is_accessible_fits_and_asks_nobody_else(
    open_page: Open, width: int, scheme: str, tmp_path: Path
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(width=width, height=844, color_scheme=scheme, enrolled=True)
    wish(page, "in a garden")
    expect(page.locator("#voice")).to_have_text("Finished.")
    page.locator("#expert button").click()
    page.locator("#results summary").click()
    for tab in TABS:
        go(page, tab)
        expect(page.get_by_role("tab", name=tab, exact=True)).to_have_attribute(
            "aria-selected", "true"
        )
        found = Axe().run(page).response["violations"]
        assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == [], tab
        page.screenshot(path=tmp_path / f"{tab}-{width}-{scheme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
        assert page.get_by_role("heading", level=1).count() == 1
    go(page, "Gallery")
    page.locator("#gallery").get_by_role("button", name="Compare").click()
    expect(page.locator("#compare .over")).to_be_visible()
    found = Axe().run(page).response["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
    assert page.strangers == []  # type: ignore[attr-defined]


def test_the_page_is_light_and_soon_there(open_page: Open, server: Running) -> None:
    page = open_page()  # the first visit warms the server up
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    received: list[float] = []
    session.on("Network.loadingFinished", lambda event: received.append(event["encodedDataLength"]))
    paints = []
    while len(paints) < 3 and min(paints, default=9999) > 2000:  # others may be at work here
        received.clear()
        page.goto(server.url)
        expect(page.locator("#photos .empty")).to_be_visible()
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        paints.append(page.evaluate(paint))
    page.wait_for_timeout(500)
    assert 0 < sum(received) <= 2.5e6
    assert min(paints) <= 2000

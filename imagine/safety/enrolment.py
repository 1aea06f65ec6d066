"""Who may become an identity: real photos of one living adult, best proved by a challenge.

The rules are plain; the challenge is a state machine of frames that knows neither camera nor
clock: finding, comparing and turning faces is measured elsewhere and handed in. A challenge beats
photos held before a camera. It does not beat a video fed in place of the camera, nor prove an age.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeVar

from imagine.core import FloatArray, ImageArray
from imagine.errors import CheckMissing, EnrolmentRefused
from imagine.safety.apparent_age import INSTALL as INSTALL_AGE

Photo = TypeVar("Photo")  # whatever `tell_origin` can look at
AGE_GATE = "enrolment_age"  # its name among the checks that can be switched off
Upload = bytes | ImageArray  # a file, or pixels where there is none: (height, width, 3) uint8 RGB
RecordEvent = Callable[[str, Mapping[str, object]], None]


class Origin(StrEnum):
    """Where the bytes of a photo come from, as far as they tell."""

    UNKNOWN = "unknown"
    CAMERA = "camera"
    OWN_OUTPUT = "own_output"
    TRAINED_ALGORITHMIC_MEDIA = "trainedAlgorithmicMedia"


class Status(StrEnum):
    """How sure we are that the photos show the person who uploads them."""

    VERIFIED = "verified"
    UNVERIFIED = "unverified"


@dataclass(frozen=True, slots=True)
class Allowance:
    """What an identity may do.

    Attributes:
        pictures_per_day: quota.
        review_share: share of its pictures that are looked at by a person, 0 to 1.
    """

    pictures_per_day: int
    review_share: float

    def is_reviewed(self, draw: float) -> bool:
        """Whether a picture is looked at, given a random number in [0, 1)."""
        return draw < self.review_share


@dataclass(frozen=True, slots=True)
class EnrolmentPolicy:
    """The rules' figures.

    Attributes:
        clear_age: faces that look younger wait for a reviewer, years. Wide on purpose: estimates
            are off by many years, and worst among the young.
        age_gate: False switches the estimate off, which is recorded; the declaration stays.
        listed_ratio: refused when an entry of the do-not-generate list is nearer than this
            multiple of the recogniser's same-person distance.
        verified: what a verified identity may do.
        unverified: what others may do; everything of theirs is reviewed.
    """

    clear_age: float = 25.0
    age_gate: bool = True
    listed_ratio: float = 0.85
    verified: Allowance = Allowance(pictures_per_day=200, review_share=0.01)
    unverified: Allowance = Allowance(pictures_per_day=20, review_share=1.0)


@dataclass(frozen=True, slots=True)
class Application:
    """Somebody who wants to become an identity.

    Attributes:
        photos: the files as uploaded; of an import also the crops.
        embedding: (d,) float32, fused from the photos; computed only after consent.
        declared_adult: they said they are 18 or older.
        apparent_ages: years each photo's face seems to have; None when nothing can estimate it.
        cleared_by_reviewer: a person has looked at the age and cleared it.
        challenge: the finished challenge, if they took one.
    """

    photos: Sequence[Upload] = field(repr=False)
    embedding: FloatArray = field(repr=False)
    declared_adult: bool
    apparent_ages: Sequence[float] | None = field(repr=False)
    cleared_by_reviewer: bool = False
    challenge: ChallengeState | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class EnrolmentTools:
    """Skills of other rooms, handed in at wiring time.

    Attributes:
        tell_origin: a photo -> where it comes from, by watermark and C2PA.
        listed_distance: embedding -> distance to the nearest do-not-generate entry.
        same_person_distance: of the recogniser.
    """

    tell_origin: Callable[[Upload], Origin]
    listed_distance: Callable[[FloatArray], float]
    same_person_distance: float


@dataclass(frozen=True, slots=True)
class Enrolment:
    """An application that was accepted.

    Attributes:
        status: verified or not.
        allowance: what the identity may do once it is active.
        needs_review: nothing may be made before a reviewer cleared the age.
        words: what the person is told.
    """

    status: Status
    allowance: Allowance
    needs_review: bool
    words: str


def judge_enrolment(
    application: Application,
    tools: EnrolmentTools,
    policy: EnrolmentPolicy,
    record_event: RecordEvent,
) -> Enrolment:
    """Accept an application, or say why not.

    Raises:
        EnrolmentRefused: `code` is "not_adult", "own_output", "machine_made", "do_not_generate"
            or "no_photo".
        CheckMissing: no age could be estimated and the gate is not switched off.
    """
    if not application.declared_adult:
        raise EnrolmentRefused(
            "Only adults can be enrolled, and you did not say you are 18 or older. "
            "Confirm it if it is so.",
            code="not_adult",
        )
    refuse_machine_made(application.photos, tools.tell_origin)
    nearest = tools.listed_distance(application.embedding)
    refuse_listed(nearest, tools.same_person_distance, policy)
    needs_review = _age_needs_review(application, policy, record_event)
    passed = application.challenge is not None and application.challenge.stage is Stage.PASSED
    status = Status.VERIFIED if passed else Status.UNVERIFIED
    return Enrolment(
        status=status,
        allowance=policy.verified if passed else policy.unverified,
        needs_review=needs_review,
        words=_in_words(status, needs_review),
    )


def refuse_machine_made(photos: Sequence[Photo], tell_origin: Callable[[Photo], Origin]) -> None:
    """Refuse photos that a machine made: ours, and those that say so of themselves.

    Raises:
        EnrolmentRefused: with the number of the photo and what to do.
    """
    if not photos:
        raise EnrolmentRefused("There is no photo to enrol. Add a selfie.", code="no_photo")
    for number, photo in enumerate(photos, start=1):
        if refusal := machine_made(tell_origin(photo)):
            code, words = refusal
            raise EnrolmentRefused(f"Photo {number} of {len(photos)} {words}", code=code)


def machine_made(origin: Origin) -> tuple[str, str] | None:
    """Code and words of the refusal of a photo that a machine made; None for any other."""
    if origin is Origin.OWN_OUTPUT:
        return "own_output", (
            "was made by this program. Identities are made from photos of real people; take a "
            "selfie."
        )
    if origin is Origin.TRAINED_ALGORITHMIC_MEDIA:
        return "machine_made", (
            "says it was generated by AI. Identities are made from photos of real people; take a "
            "selfie."
        )
    return None


def refuse_listed(distance: float, same_person_distance: float, policy: EnrolmentPolicy) -> None:
    """Refuse somebody who asked never to be shown.

    Args:
        distance: of their face to the nearest entry of the list.
        same_person_distance: of the recogniser.
        policy: how near is too near.

    Raises:
        EnrolmentRefused: with the code "do_not_generate".
    """
    # Written so that a distance that is not a number refuses too.
    if not distance > policy.listed_ratio * same_person_distance:
        raise EnrolmentRefused(
            "This person asked that no pictures of them are made here. If that is you, take "
            "yourself off the list with the token you were given.",
            code="do_not_generate",
        )


def _age_needs_review(
    application: Application, policy: EnrolmentPolicy, record_event: RecordEvent
) -> bool:
    if not policy.age_gate:
        record_event("checks.turned_off", {"check": AGE_GATE})
        return False
    if not application.apparent_ages:
        raise CheckMissing(
            "The age of the face could not be estimated, so nobody can be enrolled. "
            f"Run: {INSTALL_AGE}. Or switch the age gate off, which is recorded."
        )
    clear = all(age >= policy.clear_age for age in application.apparent_ages)
    return not clear and not application.cleared_by_reviewer


def _in_words(status: Status, needs_review: bool) -> str:
    if needs_review:
        return "Your photos were accepted. Somebody looks at them before pictures can be made."
    if status is Status.VERIFIED:
        return "Your identity is verified."
    return (
        "Your photos were accepted without a camera check: fewer pictures a day, each looked at "
        "by somebody. Take the camera check to lift that."
    )


# The challenge


class Turn(StrEnum):
    """Where to look; left and right are the person's own.

    In a camera picture that is not mirrored, turning to one's own left points the nose to the
    right of the picture: yaw above zero.
    """

    AHEAD = "ahead"
    LEFT = "left"
    RIGHT = "right"


class Stage(StrEnum):
    """How far a challenge has come."""

    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ChallengeRules:
    """Figures of a challenge.

    Attributes:
        turns: turns asked for, each followed by looking ahead; 4 are 16 sequences.
        seconds: from issue until the answer is there.
        turned_degrees: yaw from which a head counts as turned. The pose estimate is right to
            about 15 degrees, so a turn is asked well beyond that.
        ahead_degrees: yaw up to which it counts as straight.
        jump_degrees: most yaw between two frames; more is two photos, not one head. A quick
            turn at ten frames a second makes 6 degrees a frame.
        least_seconds: between two poses; heads take time to turn, photos do not.
        most_frames: more are refused, to bound the work.
        most_lost: frames in a row without a face before it fails.
    """

    turns: int = 4
    seconds: float = 60.0
    turned_degrees: float = 18.0
    ahead_degrees: float = 9.0
    jump_degrees: float = 15.0
    least_seconds: float = 0.2
    most_frames: int = 400
    most_lost: int = 10


@dataclass(frozen=True, slots=True)
class FrameMeasure:
    """What is left of a camera frame once it is measured; the frame itself is not kept.

    Attributes:
        face_count: faces on it.
        yaw_degrees: of the only face, positive where the nose points to the picture's right.
        embedding: (d,) float32 of the only face; None without one, and where it is turned so far
            that nobody compares it.
    """

    face_count: int
    yaw_degrees: float
    embedding: FloatArray | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the person is asked to do; good for one answer, which its keeper sees to.

    Attributes:
        poses: ahead first, then each turn followed by ahead.
        issued_at: seconds of any clock.
        deadline: likewise; frames after it fail.
    """

    poses: tuple[Turn, ...]
    issued_at: float
    deadline: float


@dataclass(frozen=True, slots=True)
class ChallengeState:
    """A challenge under way; `advance` makes the next one.

    Attributes:
        challenge: what is asked.
        stage: running, passed or failed.
        poses_seen: poses done so far.
        words: what to tell the person now.
        code: why it failed, e.g. "late", "another_face"; "" otherwise.
        frames: frames looked at.
        lost: frames in a row without a face.
        last_yaw: of the last frame with a face; None before the first.
        last_pose_at: when the last pose was reached.
        first_face: embedding of the first frame's face.
    """

    challenge: Challenge
    stage: Stage = Stage.RUNNING
    poses_seen: int = 0
    words: str = ""
    code: str = ""
    frames: int = 0
    lost: int = 0
    last_yaw: float | None = None
    last_pose_at: float = -math.inf
    first_face: FloatArray | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class SameFace:
    """Whether frames show the person on the uploads.

    Attributes:
        uploads: (d,) float32, fused from the uploaded photos.
        distance: of the recogniser.
        same_person_distance: likewise.
    """

    uploads: FloatArray = field(repr=False)
    distance: Callable[[FloatArray, FloatArray], float]
    same_person_distance: float

    def holds(self, one: FloatArray, other: FloatArray) -> bool:
        """Whether two faces are one person; a distance that is not a number is not."""
        return float(self.distance(one, other)) <= self.same_person_distance


def begin(challenge: Challenge) -> ChallengeState:
    """The state before the first frame."""
    return ChallengeState(challenge, words=_ask(challenge.poses[0]))


def advance(
    state: ChallengeState,
    frame: FrameMeasure,
    now: float,
    same_face: SameFace,
    rules: ChallengeRules,
) -> ChallengeState:
    """Look at one more frame. Pure: neither argument changes, nothing is read or kept elsewhere.

    Faces are compared on straight frames alone, with the uploads and with the first frame:
    a turned face lies farther from everything. A photo of somebody else slipped in while turned
    is caught by the jump, and by the straight frame after it.
    """
    if state.stage is not Stage.RUNNING:
        return state
    state = replace(state, frames=state.frames + 1)
    if now > state.challenge.deadline:
        return _failed(state, "late", "The time is up. Start again.")
    if state.frames > rules.most_frames:
        return _failed(state, "too_many_frames", "Too many pictures were sent. Start again.")
    if frame.face_count > 1:
        return _failed(state, "several_faces", "Somebody else is in the picture. Start again.")
    if frame.face_count == 0 or not math.isfinite(frame.yaw_degrees):
        return _lose_face(state, rules)
    jumped = (
        state.last_yaw is not None and abs(frame.yaw_degrees - state.last_yaw) > rules.jump_degrees
    )
    if jumped:
        return _failed(state, "jump", "Your head moved too suddenly. Start again, more slowly.")
    state = replace(state, lost=0, last_yaw=frame.yaw_degrees)
    if abs(frame.yaw_degrees) <= rules.ahead_degrees:
        if frame.embedding is None:  # a straight face that nobody described proves nothing
            return _lose_face(state, rules)
        state = _compare(state, frame.embedding, same_face)
    return state if state.stage is Stage.FAILED else _reach(state, frame.yaw_degrees, now, rules)


def _lose_face(state: ChallengeState, rules: ChallengeRules) -> ChallengeState:
    state = replace(state, lost=state.lost + 1)
    if state.lost > rules.most_lost:
        return _failed(state, "face_lost", "Your face was out of the picture. Start again.")
    return state


def _compare(state: ChallengeState, embedding: FloatArray, same_face: SameFace) -> ChallengeState:
    if not same_face.holds(embedding, same_face.uploads):
        return _failed(
            state, "not_the_uploads", "Your face does not match your photos. Add newer photos."
        )
    if state.first_face is None:
        return replace(state, first_face=embedding)
    if not same_face.holds(embedding, state.first_face):
        return _failed(state, "another_face", "The face changed on the way. Start again.")
    return state


def _reach(
    state: ChallengeState, yaw_degrees: float, now: float, rules: ChallengeRules
) -> ChallengeState:
    wanted = state.challenge.poses[state.poses_seen]
    shown = _pose(yaw_degrees, rules)
    opposite = {Turn.LEFT: Turn.RIGHT, Turn.RIGHT: Turn.LEFT}.get(wanted)
    if shown is not None and shown is opposite:
        return _failed(state, "wrong_way", f"You should have looked {wanted}. Start again.")
    if shown is not wanted or now - state.last_pose_at < rules.least_seconds:
        return state
    seen = state.poses_seen + 1
    state = replace(state, poses_seen=seen, last_pose_at=now)
    if seen == len(state.challenge.poses):
        return replace(state, stage=Stage.PASSED, words="Thank you, that was you.")
    return replace(state, words=_ask(state.challenge.poses[seen]))


def _pose(yaw_degrees: float, rules: ChallengeRules) -> Turn | None:
    if abs(yaw_degrees) <= rules.ahead_degrees:
        return Turn.AHEAD
    if abs(yaw_degrees) < rules.turned_degrees:
        return None
    return Turn.LEFT if yaw_degrees > 0 else Turn.RIGHT


def _failed(state: ChallengeState, code: str, words: str) -> ChallengeState:
    return replace(state, stage=Stage.FAILED, code=code, words=words)


def _ask(pose: Turn) -> str:
    if pose is Turn.AHEAD:
        return "Look straight into the camera."
    return f"Turn your head slowly to your {pose}."


def draw_poses(
    rules: ChallengeRules, choose: Callable[[Sequence[Turn]], Turn] = secrets.choice
) -> tuple[Turn, ...]:
    """A new sequence of poses that nobody can foresee: ahead, then each turn followed by ahead.

    Args:
        rules: how many turns.
        choose: picks one of a sequence; unpredictable.
    """
    turns = [choose((Turn.LEFT, Turn.RIGHT)) for _ in range(rules.turns)]
    return (Turn.AHEAD, *(pose for turn in turns for pose in (turn, Turn.AHEAD)))


def judge_answer(
    challenge: Challenge,
    frames: Iterable[FrameMeasure],
    count: int,
    now: float,
    same_face: SameFace,
    rules: ChallengeRules,
) -> ChallengeState:
    """Look at all frames of an answer that came in one piece.

    When each was taken only the sender knows, who is not believed: the frames are spread evenly
    between issue and arrival, so that nobody gets more time than there was.

    Args:
        challenge: what was asked; used up by the caller, whatever comes of this.
        frames: in order, at most `count`; measured one by one and not after the end.
        count: how many there are.
        now: seconds of the clock that issued the challenge, when the answer was there.
        same_face: compares with the uploads.
        rules: figures of a challenge.

    Returns:
        Passed or failed, never running: what is not finished has failed.
    """
    state = begin(challenge)
    if now > challenge.deadline:
        return _failed(state, "late", "The time is up. Start again.")
    apart = (now - challenge.issued_at) / max(count, 1)
    for number, frame in enumerate(frames, start=1):
        state = advance(state, frame, challenge.issued_at + number * apart, same_face, rules)
        if state.stage is not Stage.RUNNING:
            return state
    return _failed(state, "unfinished", "Not all turns were seen. Start again.")

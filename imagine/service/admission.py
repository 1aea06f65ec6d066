"""Who may be made known and how much is drawn of them: the enrolment rules, at work.

The rules themselves are `imagine.safety.enrolment`'s; here they are given what they ask for. A
camera check can be taken for an identity, or by anybody who registers never to be shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from imagine.core import Identity
from imagine.errors import (
    EnrolmentRefused,
    RateLimited,
    ReviewPending,
    UnreadablePhoto,
    UnusableArchive,
)
from imagine.identity import decode_photo, wipe
from imagine.identity.fuse import fingerprint
from imagine.safety.do_not_generate import NearestListed, read_public_key, read_signed_list
from imagine.safety.enrolment import (
    Allowance,
    Application,
    Challenge,
    ChallengeRules,
    ChallengeState,
    Enrolment,
    EnrolmentPolicy,
    EnrolmentTools,
    FrameMeasure,
    Origin,
    SameFace,
    Stage,
    Turn,
    Upload,
    draw_poses,
    judge_answer,
    judge_enrolment,
    refuse_machine_made,
)
from imagine.service.errors import BadParameter
from imagine.service.loaded_models import LoadedModels
from imagine.storage.consent import Purpose
from imagine.storage.events import RecordEvent
from imagine.storage.export import Admitted
from imagine.storage.people import PeopleStore
from imagine.storage.protected import EVERYBODY, ProtectedPeople, Registration
from imagine.storage.verified import ONE_SHOTS, Standing, Standings, StoredChallenge

MAX_FRAMES = 200
MIN_FRAMES = 5
MAX_FRAME_BYTES = 300 * 1024
_MAX_FRAME_PIXELS = 2_100_000  # Full HD and a little
RULES = ChallengeRules(most_frames=MAX_FRAMES)


@dataclass(frozen=True, slots=True)
class Answer:
    """The frames somebody sends for a challenge, in order, and the nonce it came with."""

    challenge_id: str
    nonce: str
    frames: Sequence[bytes]


class Admission:
    """Applies the enrolment rules for all tenants.

    Args:
        models: look at faces.
        people: whose faces are compared with the camera's.
        standings: verified or not, and daily counts.
        protected: people who asked never to be shown.
        rules: figures of the enrolment rules.
        record_event: the audit log.
        trusted_keys: hex public keys whose signed lists are taken over.
        counts_pictures: False where whoever asks is the operator.
    """

    def __init__(
        self,
        models: LoadedModels,
        people: PeopleStore,
        standings: Standings,
        protected: ProtectedPeople,
        rules: EnrolmentPolicy,
        record_event: RecordEvent,
        trusted_keys: Sequence[str] = (),
        counts_pictures: bool = True,
    ) -> None:
        self._models = models
        self._people = people
        self._standings = standings
        self._protected = protected
        self._rules = rules
        self._record_event = record_event
        self._trusted = tuple(read_public_key(text) for text in trusted_keys)
        self._counts_pictures = counts_pictures

    # Enrolling

    def refuse_machine_made(self, tenant_id: str, photos: Sequence[Upload], actor: str) -> None:
        """Refuse our own pictures and what says AI made it, before a face is looked for.

        Raises:
            EnrolmentRefused: "own_output" or "machine_made"; recorded as an event.
        """
        with _Recorded(self._record_event, tenant_id, actor):
            refuse_machine_made(photos, self._models.origin)

    def judge(
        self, tenant_id: str, photos: Sequence[Upload], face: Identity, actor: str
    ) -> Enrolment:
        """Accept a face whose person has consented and declared their age, or say why not.

        Raises:
            EnrolmentRefused: with a code; recorded as an event.
            CheckMissing: the age cannot be estimated, or the do-not-generate list not be read.
        """
        encoder = self._models.faces[1]
        nearest = NearestListed(self._protected, encoder.name, encoder.distance)
        nearest.check_ready()
        tools = EnrolmentTools(self._models.origin, nearest, encoder.same_person_distance)
        ages = self._models.apparent_ages(face) if self._rules.age_gate else None
        application = Application(photos, face.embedding, True, ages)
        with _Recorded(self._record_event, tenant_id, actor):
            # What is switched off was recorded when the service started.
            return judge_enrolment(application, tools, self._rules, lambda kind, facts: None)

    def admit_arrival(
        self, tenant_id: str, photos: Sequence[bytes], face: Identity, actor: str
    ) -> Admitted:
        """Judge a face from an archive as if it were enrolled here; see `storage.export.Gate`.

        The archive's word on who it is counts for nothing: the do-not-generate list and the age
        gate see what is measured here from the crops, and that is what is kept. Photos and crops
        alike must not be pictures that a machine made.

        Raises:
            UnusableArchive: the crops are not those that were exported.
            EnrolmentRefused, InvalidInput, CheckMissing: as `Enrolment.enrol`.
        """
        if fingerprint(face.crops) != face.fingerprint:
            raise UnusableArchive(
                "The face in the archive is not the one that was exported. Export it again."
            )
        shown: list[Upload] = [*photos, *face.crops]
        self.refuse_machine_made(tenant_id, shown, actor)
        measured = self._models.describe_crops(face.crops, face.reports)
        accepted = self.judge(tenant_id, shown, measured, actor)
        licence = self._models.faces[1].licence
        revision = self._models.info.model_revision
        return Admitted(measured, revision, licence, accepted.needs_review)

    def says_machine_made(self, picture: bytes) -> bool:
        """Whether a picture says of itself that a machine made it."""
        made = Origin.OWN_OUTPUT, Origin.TRAINED_ALGORITHMIC_MEDIA
        return self._models.origin(picture) in made

    def allowance(self, standing: Standing) -> Allowance:
        """What an identity that stands so may do."""
        return self._rules.verified if standing.is_verified else self._rules.unverified

    def clear(self, tenant_id: str, identity_id: str, actor: str) -> Standing:
        """A reviewer lets pictures be made of somebody who looked young.

        Raises:
            NotStored: this tenant has no such identity.
        """
        standing = self._standings.clear(tenant_id, identity_id)
        self._record_event("identity.cleared", identity_id, {}, tenant_id=tenant_id, actor=actor)
        return standing

    # Drawing

    def take_pictures(
        self,
        session: Session,
        tenant_id: str,
        identity_id: str,
        pictures: int,
        one_shot_most: int | None = None,
    ) -> None:
        """Count pictures that are about to be drawn.

        Args:
            session: the transaction in which somebody asks for them; without it nothing counts.
            tenant_id: whose.
            identity_id: of whom.
            pictures: how many.
            one_shot_most: for identities that live for one call: how many pictures of all of
                them the tenant may have a day.

        Raises:
            ReviewPending: a reviewer has to look at this identity first.
            RateLimited: that would be more than today's share.
        """
        standing = self._standings.of(tenant_id, identity_id, session)
        if standing.waits_for_review:
            raise ReviewPending(
                "Nothing can be made of this identity before somebody has looked at it: the face "
                "may look too young. You need not do anything."
            )
        if not self._counts_pictures:
            return
        most = self.allowance(standing).pictures_per_day
        counted_for = identity_id
        if one_shot_most is not None:
            most, counted_for = one_shot_most, ONE_SHOTS
        if not self._standings.take_pictures(tenant_id, counted_for, pictures, most, session):
            advice = "" if standing.is_verified else " The camera check raises that."
            raise RateLimited(
                f"{most} pictures a day may be made of this identity, and {pictures} more would "
                f"exceed that.{advice} Counting begins anew at midnight UTC.",
                self._standings.until_tomorrow(),
            )

    # Camera checks

    def issue(self, tenant_id: str, identity_id: str) -> StoredChallenge:
        """A new camera check for an identity; an older one is void.

        Raises:
            NotStored: this tenant has no such identity.
        """
        return self._standings.issue(tenant_id, identity_id, draw_poses(RULES), RULES.seconds)

    def answer(
        self, tenant_id: str, identity_id: str, answer: Answer, actor: str
    ) -> ChallengeState:
        """Look at the answer to a camera check; passing verifies the identity.

        Raises:
            NotStored: no such identity, or no such open check of it.
            ConsentMissing: the person agrees to nothing any more.
            BadParameter: too few, too many, too large or unreadable frames.
        """
        check_frames(answer.frames)
        now = self._standings.now()
        stored = self._standings.take(tenant_id, answer.challenge_id, identity_id, answer.nonce)
        face = self._people.read_identity(
            tenant_id, identity_id, purpose=Purpose.GENERATE, actor=actor
        )
        try:
            state = self._judged(stored, answer.frames, face, now)
        finally:
            wipe(face)
        self._standings.end(tenant_id, stored.id, state.code or "passed")
        passed = state.stage is Stage.PASSED
        if passed:
            self._standings.verify(tenant_id, identity_id)
        kind = "identity.verified" if passed else "identity.not_verified"
        facts = {"challenge_id": stored.id, **({"code": state.code} if state.code else {})}
        self._record_event(kind, identity_id, facts, tenant_id=tenant_id, actor=actor)
        return state

    # Never to be shown

    def issue_to_anybody(self) -> StoredChallenge:
        """A camera check for somebody without an account."""
        return self._standings.issue(EVERYBODY, None, draw_poses(RULES), RULES.seconds)

    def protect(self, photos: Sequence[bytes], answer: Answer | None) -> Registration:
        """Put somebody on the do-not-generate list.

        Args:
            photos: selfies of them.
            answer: to a camera check; None leaves it at their declaration.

        Raises:
            EnrolmentRefused: a machine made a photo, or the camera check was not passed.
            InvalidInput: a photo or the answer cannot be used; each has its own class.
        """
        refuse_machine_made(photos, self._models.origin)
        face = self._models.describe(list(photos), None)
        try:
            if answer is not None:
                self._check_camera(face, answer)
            method = "camera" if answer is not None else "declaration"
            return self._protected.register(face.recogniser, face.embedding, method)
        finally:
            wipe(face)

    def import_list(self, content: bytes, actor: str) -> int:
        """Take over a signed list; says how many entries are new.

        Raises:
            InvalidInput: not signed by a trusted key, damaged, or of another recogniser.
        """
        name, size = self._models.faces[1].name, self._models.embedding_size
        found = read_signed_list(content, self._trusted, name, size)
        return self._protected.add_list(name, found.people, found.issuer, actor)

    def _check_camera(self, face: Identity, answer: Answer) -> None:
        check_frames(answer.frames)
        now = self._standings.now()
        stored = self._standings.take(EVERYBODY, answer.challenge_id, None, answer.nonce)
        state = self._judged(stored, answer.frames, face, now)
        self._standings.end(EVERYBODY, stored.id, state.code or "passed")
        if state.stage is not Stage.PASSED:
            raise EnrolmentRefused(
                f"The camera check was not passed: {state.words} Or register by declaration.",
                code=state.code,
            )

    def _judged(
        self, stored: StoredChallenge, frames: Sequence[bytes], face: Identity, now: float
    ) -> ChallengeState:
        challenge = Challenge(
            tuple(Turn(pose) for pose in stored.poses),
            stored.issued_at.timestamp(),
            stored.deadline_at.timestamp(),
        )
        encoder = self._models.faces[1]
        same = SameFace(face.embedding, encoder.distance, encoder.same_person_distance)
        with self._models.judging_faces():
            measures = self._measures(frames)
            return judge_answer(challenge, measures, len(frames), now, same, RULES)

    def _measures(self, frames: Sequence[bytes]) -> Iterator[FrameMeasure]:
        limits = replace(self._models.settings, max_photo_pixels=_MAX_FRAME_PIXELS)
        for number, data in enumerate(frames, start=1):
            try:
                image = decode_photo(data, f"Frame {number}", limits)
            except UnreadablePhoto as error:
                raise BadParameter("frames", str(error)) from error
            yield self._models.measure_frame(image, RULES.ahead_degrees)


def check_frames(frames: Sequence[bytes]) -> None:
    """Refuse an answer before it uses up its challenge.

    Raises:
        BadParameter: too few, too many or too large.
    """
    if not MIN_FRAMES <= len(frames) <= MAX_FRAMES:
        raise BadParameter(
            "frames",
            f"{len(frames)} frames were sent; send {MIN_FRAMES} to {MAX_FRAMES}, about ten a "
            "second.",
        )
    for number, frame in enumerate(frames, start=1):
        if len(frame) > MAX_FRAME_BYTES:
            raise BadParameter(
                "frames",
                f"Frame {number} has more than {MAX_FRAME_BYTES // 1024} kB. Send 640 pixels wide "
                "JPEGs.",
            )


class _Recorded:
    """Records a refusal by its code; nothing of the photos or the person."""

    def __init__(self, record_event: RecordEvent, tenant_id: str, actor: str) -> None:
        self._record_event = record_event
        self._facts: Mapping[str, str] = {"tenant_id": tenant_id, "actor": actor}

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, EnrolmentRefused):
            details = {"code": error.code or "unknown"}
            self._record_event("enrolment.refused", None, details, **self._facts)

"""Reviewers at work in a test house: a real audit log, a marking that only says so."""

from __future__ import annotations

from typing import Any

from imagine.storage.acts import Act, ActKind, Reason
from imagine.storage.audit_log import AuditLog
from imagine.storage.cases import CaseBook
from imagine.storage.checkpoints import SigningKey
from imagine.storage.consent import Purpose
from imagine.storage.database import Database
from imagine.storage.evidence import EvidenceMaker
from imagine.storage.reviews import (
    MarkedFile,
    NewReview,
    OpenedPicture,
    Queue,
    Review,
    ReviewStore,
    Ruling,
    Withheld,
)
from imagine.storage.takedowns import Notice, Takedown, TakedownStore
from tests.storage.house import PNG, TENANT, House, make_recipe

ANN, BEN, CLEO = "key_ann", "key_ben", "key_cleo"
DRAWN = b"\x89PNG a canary-drawn picture "
FINE = {"outcome": "block", "checks": {"expected_faces": {"outcome": "review", "score": 1.0}}}
NUDE = {"outcome": "block", "checks": {"nudity": {"outcome": "block", "score": 0.9}}}


def mark(opened: OpenedPicture) -> MarkedFile:
    return MarkedFile(b"marked " + opened.data, "image/png", (64, 48), opened.recipe)


class Office:
    """Queues, cases and notices of a house."""

    def __init__(self, database: Database) -> None:
        self.house = House(
            database, forget={"reviews": lambda *subject: self.reviews.forget(*subject)}
        )
        house = self.house
        self.clock = house.clock
        self.log = AuditLog(database, SigningKey.generate(), house.keys, house.clock)
        room = (database, house.vault, house.consents)
        self.reviews = ReviewStore(*room, self.log, mark, house.clock)
        self.takedowns = TakedownStore(*room, self.reviews, self.log, house.clock)
        self.cases = CaseBook(database, house.people, self.reviews, self.log, house.clock)
        self.evidence = EvidenceMaker(self.log, house.clock)
        self.person_id, self.identity_id = house.add_active(Purpose.GENERATE, Purpose.REVIEW)

    def withhold(self, checks: dict[str, Any] = FINE, job_id: str = "job_1") -> str:
        picture = Withheld(DRAWN, (64, 48), make_recipe("a canary-prompt"), checks, "ab" * 32)
        return self.reviews.withhold(TENANT, self.identity_id, job_id, picture)

    def blocked(self, checks: dict[str, Any] = FINE, queue: Queue = Queue.BLOCKED) -> Review:
        """A review of a withheld picture."""
        held = self.withhold(checks)
        return self.reviews.add(NewReview(TENANT, queue, "sampled", withheld_id=held))

    def of_image(self, queue: Queue = Queue.REPORT, **more: Any) -> Review:
        """A review of a picture that was handed out."""
        image = self.house.add_image(self.person_id, self.identity_id, PNG + b"canary-image")
        return self.reviews.add(NewReview(TENANT, queue, "asked", image_id=image, **more))

    def decide(self, review: Review, ruling: Ruling, actor: str = ANN, note: str = "") -> Review:
        words = (Reason.WITHIN_POLICY, "9.1", actor, note)
        return self.reviews.decide(TENANT, review.id, ruling, *words)

    def approved(self, kind: ActKind, target_id: str) -> Act:
        """An act that Ann asked for and Ben approved."""
        words = (target_id, Reason.LEGAL_REQUEST, "9.2", ANN)
        act = self.reviews.acts.ask(TENANT, kind, *words)
        return self.reviews.acts.approve(TENANT, act.id, BEN)

    def file(self, *images: str, tenant: str = TENANT) -> Takedown:
        notice = Notice("Canary Name", "canary@example.org", "That is me.", "a forum", True)
        return self.takedowns.file(notice, [(tenant, image) for image in images], TENANT)

    def kinds(self) -> list[str]:
        """What the log says, oldest first, of our room."""
        size = self.log.checkpoint().size
        entries = [proof.entry.facts for proof in self.log.prove_all(range(size))]
        return [entry["kind"] for entry in entries]

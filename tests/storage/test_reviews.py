from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from imagine.errors import (
    ConsentMissing,
    DataKeyDestroyed,
    InvalidInput,
    NotStored,
    ReviewRefused,
)
from imagine.storage.acts import ActKind, Reason
from imagine.storage.audit_log import AuditEntryRow
from imagine.storage.consent import TICKS, Purpose
from imagine.storage.database import Base, Database
from imagine.storage.erasure import Outputs
from imagine.storage.reviews import NewReview, Queue, ReviewState, Ruling, Withheld
from tests.storage.house import PNG, TENANT, make_recipe
from tests.storage.office import ANN, BEN, CLEO, DRAWN, NUDE, Office

OWN = Purpose.OWN_ACCESS


@pytest.fixture
def office(database: Database) -> Office:
    return Office(database)


def test_a_blocked_picture_waits_in_its_queue_with_its_figures(office: Office) -> None:
    review = office.blocked()
    [waiting] = office.reviews.find(TENANT, Queue.BLOCKED)
    assert waiting == review and waiting.state is ReviewState.OPEN
    assert waiting.checks["checks"]["expected_faces"]["score"] == 1.0
    assert (waiting.identity_id, waiting.job_id) == (office.identity_id, "job_1")
    facts = {one.queue: one.waiting for one in office.reviews.queues(TENANT)}
    assert facts == {queue: int(queue is Queue.BLOCKED) for queue in Queue}


def test_what_is_somebody_elses_is_not_there(office: Office) -> None:
    office.house.people.add_tenant("rival", "Rivals")
    review = office.blocked()
    words = (Ruling.LEAVE, Reason.WITHIN_POLICY, "9.1", ANN)
    looks: list[Callable[[], object]] = [
        lambda: office.reviews.get("rival", review.id),
        lambda: office.reviews.history("rival", review.id),
        lambda: office.reviews.open_picture("rival", review.id, ANN, in_clear=False),
        lambda: office.reviews.decide("rival", review.id, *words),
        lambda: office.reviews.add(
            NewReview("rival", Queue.RANDOM, "sampled", withheld_id=review.withheld_id)
        ),
    ]
    for look in looks:
        with pytest.raises(NotStored):
            look()
    assert office.reviews.find("rival") == []


def test_every_look_is_written_down_blurred_or_clear(office: Office) -> None:
    review = office.blocked()
    opened = office.reviews.open_picture(TENANT, review.id, ANN, in_clear=False)
    assert (opened.data, opened.is_marked) == (DRAWN, False)
    assert opened.recipe is not None and opened.recipe.prompt == "a canary-prompt"
    office.reviews.open_picture(TENANT, review.id, ANN, in_clear=True)
    entries = office.log.entries_about(TENANT, office.identity_id)
    looks = [entry.facts for entry in entries if entry.facts["kind"] == "review.opened"]
    assert [look["details"]["rendition"] for look in looks] == ["blurred", "clear"]
    assert {look["actor"]["program"] for look in looks} == {ANN}


def test_a_sample_is_not_opened_without_the_tick_but_what_was_asked_for_is(office: Office) -> None:
    review, report = office.blocked(), office.of_image()
    office.house.consents.withdraw(TENANT, office.identity_id, [Purpose.REVIEW])
    with pytest.raises(ConsentMissing, match="review"):
        office.reviews.open_picture(TENANT, review.id, ANN, in_clear=False)
    office.house.consents.withdraw(TENANT, office.identity_id, TICKS)
    opened = office.reviews.open_picture(TENANT, report.id, ANN, in_clear=True)
    assert opened.is_marked and opened.data == PNG + b"canary-image"


def test_a_flagged_picture_is_opened_in_clear_by_two_only(office: Office) -> None:
    review = office.blocked(NUDE)
    assert review.needs_two_to_open
    office.reviews.open_picture(TENANT, review.id, ANN, in_clear=False)
    with pytest.raises(ReviewRefused) as refused:
        office.reviews.open_picture(TENANT, review.id, ANN, in_clear=True)
    assert refused.value.code == "second_reviewer_needed"
    office.approved(ActKind.OPEN_IN_CLEAR, review.id)
    assert office.reviews.open_picture(TENANT, review.id, ANN, in_clear=True).data == DRAWN
    with pytest.raises(ReviewRefused):  # Cleo is not one of the two
        office.reviews.open_picture(TENANT, review.id, CLEO, in_clear=True)
    office.clock.pass_(hours=1)
    with pytest.raises(ReviewRefused):
        office.reviews.open_picture(TENANT, review.id, ANN, in_clear=True)


def test_a_release_happens_when_a_second_reviewer_decides_the_same(office: Office) -> None:
    review = office.blocked()
    waiting = office.decide(review, Ruling.RELEASE, ANN, "canary-note: nothing wrong")
    assert waiting.state is ReviewState.NEEDS_SECOND
    assert office.house.people.images(TENANT) == []
    done = office.decide(review, Ruling.RELEASE, BEN)
    assert (done.state, done.ruling) == (ReviewState.DECIDED, Ruling.RELEASE)
    [image] = office.house.people.images(TENANT)
    assert done.image_id == image.id and done.withheld_id is None
    data = office.house.people.read_image(TENANT, image.id, purpose=OWN)
    assert data == b"marked " + DRAWN
    first, second = office.reviews.history(TENANT, review.id)
    assert (first.is_final, second.is_final) == (False, True)
    assert first.note == "canary-note: nothing wrong" and "canary" not in repr(first)
    assert office.log.prove(second.entry).entry.facts["kind"] == "review.decided"
    assert office.reviews.withheld_of(TENANT, "job_1") == []


def test_the_same_reviewer_cannot_be_the_second(office: Office) -> None:
    review = office.blocked()
    office.decide(review, Ruling.RELEASE, ANN)
    for ruling in (Ruling.RELEASE, Ruling.LEAVE):
        with pytest.raises(ReviewRefused, match="another reviewer") as refused:
            office.decide(review, ruling, ANN)
        assert refused.value.code == "same_reviewer"
    assert office.house.people.images(TENANT) == []


def test_a_second_reviewer_may_overrule_the_first(office: Office) -> None:
    review = office.blocked()
    office.decide(review, Ruling.RELEASE, ANN)
    assert office.decide(review, Ruling.LEAVE, BEN).ruling is Ruling.LEAVE
    with pytest.raises(ReviewRefused) as refused:
        office.decide(review, Ruling.RELEASE, CLEO)
    assert refused.value.code == "already_decided"


def test_a_removed_picture_is_out_of_reach_and_comes_back_on_appeal_to_others(
    office: Office,
) -> None:
    report = office.of_image()
    image_id = report.image_id or ""
    removed = office.decide(report, Ruling.REMOVE, ANN)
    with pytest.raises(NotStored):
        office.house.people.read_image(TENANT, image_id, purpose=OWN)
    held = office.reviews.removed_image(TENANT, image_id)
    assert removed.withheld_id == held is not None
    appeal = office.reviews.add(
        NewReview(TENANT, Queue.APPEAL, "removed", withheld_id=held, filed_by="key_owner")
    )
    with pytest.raises(ReviewRefused) as refused:
        office.decide(appeal, Ruling.RELEASE, ANN)
    assert refused.value.code == "first_decider"
    with pytest.raises(ReviewRefused) as refused:
        office.decide(appeal, Ruling.RELEASE, "key_owner")
    assert refused.value.code == "own_matter"
    office.decide(appeal, Ruling.RELEASE, BEN)
    office.decide(appeal, Ruling.RELEASE, CLEO)
    data = office.house.people.read_image(TENANT, image_id, purpose=OWN)
    assert data == PNG + b"canary-image"  # it had its marks already
    recipe = office.house.people.read_recipe(TENANT, image_id, purpose=OWN)
    assert recipe is not None and recipe.prompt == "at sea"


def test_nothing_is_released_to_somebody_whose_consent_ended(office: Office) -> None:
    review = office.blocked()
    office.decide(review, Ruling.RELEASE, ANN)
    office.house.consents.withdraw(TENANT, office.identity_id)
    with pytest.raises(ConsentMissing):
        office.decide(review, Ruling.RELEASE, BEN)
    assert office.reviews.get(TENANT, review.id).state is ReviewState.NEEDS_SECOND
    assert [name for name in office.house.blobs.names() if "/images/" in name] == []


@pytest.mark.parametrize(
    ("ruling", "advice"), [(Ruling.RELEASE, "nothing to release"), (Ruling.LEAVE, "no clause")]
)
def test_what_cannot_be_decided_is_refused(office: Office, ruling: Ruling, advice: str) -> None:
    review = office.of_image()
    clause = "9.1" if ruling is Ruling.RELEASE else "77.7"
    with pytest.raises(InvalidInput, match=advice):
        office.reviews.decide(TENANT, review.id, ruling, Reason.CANNOT_TELL, clause, ANN)
    with pytest.raises(InvalidInput, match="not about a picture that is out"):
        office.decide(office.blocked(), Ruling.REMOVE)


def test_reviews_are_due_and_then_overdue(office: Office) -> None:
    report, sample = office.of_image(), office.blocked()
    assert report.due_at == office.clock.now + timedelta(days=7) and sample.due_at is None
    office.clock.pass_(days=6, hours=23)
    assert office.reviews.overdue() == []
    office.clock.pass_(hours=1)
    assert [one.id for one in office.reviews.overdue()] == [report.id]
    [facts] = [one for one in office.reviews.queues(TENANT) if one.queue is Queue.REPORT]
    assert (facts.waiting, facts.overdue, facts.next_due_at) == (1, 1, report.due_at)


def test_an_attempt_that_did_not_end_leaves_nothing(office: Office) -> None:
    office.blocked()
    assert office.reviews.discard(TENANT, "job_1") == 1
    assert office.reviews.find(TENANT, states=()) == []
    assert [name for name in office.house.blobs.names() if "/withheld/" in name] == []


def test_samples_go_when_their_time_is_over_and_open_questions_stay(office: Office) -> None:
    sample, appealed = office.blocked(), office.withhold(job_id="job_2")
    appeal = office.reviews.add(
        NewReview(TENANT, Queue.APPEAL, "blocked", withheld_id=appealed, filed_by="key_owner")
    )
    office.approved(ActKind.OPEN_IN_CLEAR, sample.id)
    case = office.cases.ask(TENANT, office.identity_id, Reason.LEGAL_REQUEST, "9.2", ANN)
    moment = office.clock.pass_(days=30)
    assert office.reviews.forget_before(moment) == 2
    assert [act.id for act in office.reviews.acts.find(TENANT)] == [case.id]
    with pytest.raises(NotStored):
        office.reviews.get(TENANT, sample.id)
    assert office.reviews.open_picture(TENANT, appeal.id, ANN, in_clear=True).data == DRAWN
    office.decide(appeal, Ruling.LEAVE, ANN)
    assert office.reviews.forget_before(office.clock.pass_(days=1)) == 2
    assert [name for name in office.house.blobs.names() if "/withheld/" in name] == []


def _everything_in(database: Database) -> str:
    with database.reading() as session:
        return "\n".join(
            repr(tuple(row))
            for table in Base.metadata.sorted_tables
            for row in session.execute(select(table))
        )


def test_no_canary_is_in_clear_and_an_erasure_takes_withheld_pictures_along(
    office: Office, database: Database
) -> None:
    review = office.blocked()
    office.of_image(note="canary-said")
    office.decide(review, Ruling.RELEASE, ANN, "canary-note")
    kept = _everything_in(database)
    sealed = b"".join(office.house.blobs.get(name) or b"" for name in office.house.blobs.names())
    for canary in ("canary-drawn", "canary-prompt", "canary-said", "canary-note"):
        assert canary not in kept and canary.encode() not in sealed
    certificate = office.house.eraser.erase_identity(TENANT, office.identity_id)
    assert '"reviews":3' in certificate
    assert list(office.house.blobs.names()) == []
    assert office.reviews.find(TENANT, states=()) == []
    with database.reading() as session:
        for table in ("withheld_pictures", "reviews", "review_decisions"):
            assert session.execute(select(Base.metadata.tables[table])).all() == []
        assert session.scalars(select(AuditEntryRow)).all()  # the log stays, and names nobody
    with pytest.raises(DataKeyDestroyed):
        office.log.entries_about(TENANT, office.identity_id)


def test_whoever_is_shown_beside_takes_withheld_pictures_along(office: Office) -> None:
    _, other = office.house.add_active(Purpose.GENERATE)
    picture = Withheld(DRAWN, (64, 48), make_recipe(), NUDE, beside_id=other)
    held = office.reviews.withhold(TENANT, office.identity_id, "job_2", picture)
    review = office.reviews.add(NewReview(TENANT, Queue.BLOCKED, "nudity", withheld_id=held))
    kept = office.blocked()
    office.house.eraser.erase_identity(TENANT, other)
    assert office.reviews.withheld_of(TENANT, "job_2") == []
    assert not [name for name in office.house.blobs.names() if name.endswith(held)]
    with pytest.raises(NotStored):
        office.reviews.get(TENANT, review.id)
    assert office.reviews.get(TENANT, kept.id) == kept


def test_reviews_of_pictures_a_person_keeps_outlive_the_identity(office: Office) -> None:
    report, sample = office.of_image(note="look"), office.blocked()
    office.house.eraser.erase_identity(TENANT, office.identity_id, Outputs.KEEP)
    kept = office.reviews.get(TENANT, report.id)
    assert (kept.owner_id, kept.identity_id) == (office.person_id, None)
    assert office.reviews.read_note(TENANT, report.id) == ""
    assert office.reviews.open_picture(TENANT, report.id, ANN, in_clear=True).is_marked
    with pytest.raises(NotStored):
        office.reviews.get(TENANT, sample.id)
    office.decide(kept, Ruling.REMOVE, ANN)
    assert office.house.people.images(TENANT) == []


def test_only_the_review_room_opens_pictures_without_a_tick() -> None:
    import imagine

    callers = {
        path.name
        for path in Path(imagine.__file__).parent.rglob("*.py")
        if "grant_for_decision(" in path.read_text()
    }
    assert callers == {"consent.py", "reviews.py", "takedowns.py"}


def test_the_clauses_of_the_prompt_policy_are_clauses_here() -> None:
    from imagine.safety.prompt_policy import shipped_policy
    from imagine.storage.acts import POLICY_CLAUSES

    clauses = {one.clause for one in shipped_policy().lexicon.categories.values()}
    assert clauses and clauses <= POLICY_CLAUSES.keys()

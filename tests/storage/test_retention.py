import threading
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete

from imagine.errors import BlobStoreUnusable, DatabaseUnusable, InvalidInput, NotStored
from imagine.storage.consent import Purpose
from imagine.storage.database import open_database
from imagine.storage.erasure import Outputs
from imagine.storage.retention import Retention, RetentionPolicy, SweepReport
from imagine.storage.tables import ErasureRow, IdentityState
from tests.storage.house import JPEG, TENANT, House, form, make_face

OWN = Purpose.OWN_ACCESS
POLICY = RetentionPolicy(
    photos=timedelta(days=10),
    drafts=timedelta(hours=12),
    tokens=timedelta(days=5),
    after_consent=timedelta(hours=2),
    outputs=timedelta(days=7),
    jobs=timedelta(days=3),
    logs=timedelta(days=100),
)


class Forgetting:
    """Stands in for jobs and logs: remembers up to when it was told to forget."""

    def __init__(self) -> None:
        self.before: list[datetime] = []

    def __call__(self, moment: datetime) -> int:
        self.before.append(moment)
        return 1


def _retention(house: House, policy: RetentionPolicy = POLICY) -> Retention:
    return Retention(
        house.database, house.people, house.eraser, policy, lambda moment: 0, lambda moment: 0
    )


def test_an_idle_face_is_erased_and_its_pictures_live_their_own_time(house: House) -> None:
    person_id, identity_id = house.add_active()
    retention = _retention(house)
    house.clock.pass_(days=4)
    image_id = house.add_image(person_id, identity_id)
    assert retention.sweep(house.clock.pass_(hours=23)).removed == {}
    assert retention.sweep(house.clock.pass_(hours=1)).removed == {"tokens": 1}
    assert house.people.read_image(TENANT, image_id, purpose=OWN)
    assert retention.sweep(house.clock.pass_(days=6)).removed == {"outputs": 1}
    assert house.people.images(TENANT) == []


def test_use_keeps_a_face(house: House) -> None:
    _, identity_id = house.add_active()
    retention = _retention(house)
    for _ in range(4):
        house.clock.pass_(days=4)
        house.people.read_identity(TENANT, identity_id, purpose=Purpose.GENERATE)
        assert retention.sweep(house.clock.now).removed == {}


def test_after_a_withdrawal_everything_goes_when_its_time_is_over(house: House) -> None:
    person_id, identity_id = house.add_active()
    house.add_image(person_id, identity_id)
    house.consents.withdraw(TENANT, identity_id)
    retention = _retention(house)
    assert retention.sweep(house.clock.pass_(hours=1)).removed == {}
    removed = retention.sweep(house.clock.pass_(hours=1)).removed
    assert removed == {"identities without consent": 1}
    assert house.people.images(TENANT) == []
    assert list(house.blobs.names()) == []


def test_a_consent_that_runs_out_ends_the_identity(house: House) -> None:
    person_id = house.people.add_person(TENANT)
    identity = house.people.add_identity(TENANT, person_id)
    house.consents.give(TENANT, identity.id, form(lifetime=timedelta(days=1)))
    house.people.enrol(TENANT, identity.id, make_face(), "mini-1", "CC0-1.0")
    retention = _retention(house)
    assert retention.sweep(house.clock.pass_(hours=25)).removed == {}
    assert retention.sweep(house.clock.pass_(hours=1)).removed == {"identities without consent": 1}


def test_an_identity_withdrawn_before_it_began_goes_too(house: House) -> None:
    person_id = house.people.add_person(TENANT)
    identity = house.people.add_identity(TENANT, person_id)
    house.consents.withdraw(TENANT, identity.id)
    assert house.people.identity(TENANT, identity.id).state == IdentityState.FROZEN
    removed = _retention(house).sweep(house.clock.pass_(hours=2)).removed
    assert removed == {"identities without consent": 1}


def test_an_identity_with_an_end_goes_at_its_end(house: House) -> None:
    person_id = house.people.add_person(TENANT)
    end = house.clock.now + timedelta(days=1)
    identity = house.people.add_identity(TENANT, person_id, expires_at=end)
    house.consents.give(TENANT, identity.id, form())
    house.people.enrol(TENANT, identity.id, make_face(), "mini-1", "CC0-1.0")
    retention = _retention(house)
    assert retention.sweep(house.clock.pass_(hours=23)).removed == {}
    assert retention.sweep(house.clock.pass_(hours=1)).removed == {"expired identities": 1}


def test_an_enrolment_that_was_not_finished_goes_with_its_photos(house: House) -> None:
    _, identity_id = house.add_draft()
    house.people.add_photo(TENANT, identity_id, JPEG, "image/jpeg")
    retention = _retention(house)
    assert retention.sweep(house.clock.pass_(hours=11)).removed == {}
    assert retention.sweep(house.clock.pass_(hours=1)).removed == {"drafts": 1}
    assert list(house.blobs.names()) == []


def test_photos_go_when_their_tick_is_taken_back(house: House) -> None:
    _, identity_id = house.add_active(Purpose.GENERATE, Purpose.KEEP_PHOTOS)
    retention = _retention(house)
    assert retention.sweep(house.clock.now).removed == {}
    house.consents.withdraw(TENANT, identity_id, [Purpose.KEEP_PHOTOS])
    assert retention.sweep(house.clock.now).removed == {"photos": 2}
    assert house.people.read_identity(TENANT, identity_id, purpose=Purpose.GENERATE)


def test_photos_that_are_kept_have_an_end_as_well(house: House) -> None:
    _, identity_id = house.add_active(Purpose.GENERATE, Purpose.KEEP_PHOTOS)
    retention = _retention(house)
    for _ in range(3):
        house.clock.pass_(days=3)
        house.people.read_identity(TENANT, identity_id, purpose=Purpose.GENERATE)
    assert retention.sweep(house.clock.now).removed == {}
    assert retention.sweep(house.clock.pass_(days=1)).removed == {"photos": 2}


def test_jobs_and_logs_are_told_up_to_when_to_forget(house: House) -> None:
    jobs, logs = Forgetting(), Forgetting()
    retention = Retention(house.database, house.people, house.eraser, POLICY, jobs, logs)
    assert retention.sweep(house.clock.now).removed == {"jobs": 1, "logs": 1}
    assert jobs.before == [house.clock.now - timedelta(days=3)]
    assert logs.before == [house.clock.now - timedelta(days=100)]


def test_a_sweep_leaves_nothing_of_the_erased_rows_in_the_files(
    sqlite_url: str, tmp_path: Path
) -> None:
    with open_database(sqlite_url) as database:
        house = House(database)
        identities = [house.add_active()[1].encode() for _ in range(3)]
        retention = _retention(house)
        assert retention.sweep(house.clock.pass_(days=5)).removed == {"tokens": 3}
        with database.writing() as session:  # the certificates name them by their random ids
            session.execute(delete(ErasureRow))
        database.scrub(rebuild=False)
        files = [file.read_bytes() for file in (tmp_path / "data").iterdir()]
        assert not any(one in data for one in identities for data in files)


def test_one_failure_does_not_keep_the_rest_and_is_tried_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    person_id, _ = house.add_active()
    images = [house.add_image(person_id, None) for _ in range(3)]
    original = house.people.delete_image

    def fail_once(tenant_id: str, image_id: str) -> None:
        if image_id == images[0]:
            raise BlobStoreUnusable("the store is away")
        original(tenant_id, image_id)

    retention = _retention(house)
    monkeypatch.setattr(house.people, "delete_image", fail_once)
    report = retention.sweep(house.clock.pass_(days=7))
    assert report.removed == {"tokens": 1, "outputs": 2}
    assert report.failures == (f"outputs {images[0]}: the store is away",)
    monkeypatch.undo()
    assert retention.sweep(house.clock.now).removed == {"outputs": 1}


def test_what_somebody_else_removed_meanwhile_is_no_failure(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    person_id, _ = house.add_active()
    house.add_image(person_id, None)

    def gone(tenant_id: str, image_id: str) -> None:
        raise NotStored(image_id)

    monkeypatch.setattr(house.people, "delete_image", gone)
    report = _retention(house).sweep(house.clock.pass_(days=4, hours=23))
    assert report == SweepReport({}, ())


def test_an_erasure_that_was_cut_off_is_finished_by_the_next_sweep(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, identity_id = house.add_active()

    def fail(tenant_id: str, owner_id: str) -> None:
        raise BlobStoreUnusable("the store is away")

    monkeypatch.setattr(house.vault, "delete_all", fail)
    with pytest.raises(BlobStoreUnusable):
        house.eraser.erase_identity(TENANT, identity_id)
    monkeypatch.undo()
    assert _retention(house).sweep(house.clock.now).removed == {"erasures finished": 1}
    assert house.eraser.certificate(TENANT, identity_id) is not None


def test_a_day_in_the_life(sqlite_url: str) -> None:
    """People enrol, withdraw or forget about it; a sweep every ten minutes."""
    with open_database(sqlite_url) as database:
        _live_through_a_day(House(database))


def _live_through_a_day(house: House) -> None:
    policy = RetentionPolicy(
        photos=timedelta(hours=4),
        drafts=timedelta(hours=1),
        tokens=timedelta(hours=6),
        after_consent=timedelta(minutes=30),
        outputs=timedelta(hours=8),
        outputs_of_idle=Outputs.KEEP,
    )
    retention = _retention(house, policy)
    begun = house.clock.now
    born: dict[str, datetime] = {}
    withdrawn: dict[str, datetime] = {}
    removed: Counter[str] = Counter()
    for tick in range(24 * 6):
        now = house.clock.now
        if tick % 18 == 0 and now - begun < timedelta(hours=18):
            person_id, identity_id = house.add_active(Purpose.GENERATE, Purpose.KEEP_PHOTOS)
            house.add_image(person_id, identity_id)
            born[identity_id] = now
            house.add_draft()
        if tick in (20, 56, 92):
            latest = list(born)[-1]
            house.consents.withdraw(TENANT, latest)
            withdrawn[latest] = now
        report = retention.sweep(now)
        assert report.failures == ()
        removed.update(report.removed)
        _check_nothing_is_overdue(house, policy, now, withdrawn)
        house.clock.pass_(minutes=10)
    assert len(born) == 6
    assert removed == {
        "drafts": 6,
        "identities without consent": 3,
        "tokens": 3,
        "photos": 12,  # of the withdrawn at once, of the others after four hours
        "outputs": 3,  # of the idle; those of the withdrawn went with the key
    }
    assert house.people.identities(TENANT) == []
    assert list(house.blobs.names()) == []
    assert len(list(house.key_store.names("keys"))) == 12  # of the people, not of their faces


def _check_nothing_is_overdue(
    house: House, policy: RetentionPolicy, now: datetime, withdrawn: dict[str, datetime]
) -> None:
    for identity in house.people.identities(TENANT):
        assert now - identity.last_used_at < policy.tokens
        if identity.state == IdentityState.DRAFT:
            assert now - identity.created_at < policy.drafts
        if identity.id in withdrawn:
            assert now - withdrawn[identity.id] < policy.after_consent
            assert house.people.photos(TENANT, identity.id) == []
    for image in house.people.images(TENANT):
        assert now - image.created_at < policy.outputs


def test_the_published_schedule_comes_from_the_configuration() -> None:
    shown = POLICY.schedule_markdown()
    assert shown.startswith("| what | kept for | counted from | then |\n|---|---|---|---|\n")
    for line in (
        "| photos kept by consent | 10 days | given | deleted |",
        "| unfinished enrolments | 12 hours | begun | key destroyed, deleted |",
        "| face data | 5 days | last used | key destroyed, deleted; pictures are kept |",
        "| pictures made | 7 days | made | deleted |",
    ):
        assert line in shown
    assert "| jobs and prompts | 1 day |" in RetentionPolicy(jobs=timedelta(1)).schedule_markdown()


@pytest.mark.parametrize("name", ["photos", "drafts", "tokens", "after_consent", "outputs", "logs"])
def test_a_negative_time_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        RetentionPolicy(**{name: timedelta(seconds=-1)})  # type: ignore[arg-type]


def test_every_time_of_the_policy_is_in_the_schedule() -> None:
    names = ["photos", "drafts", "tokens", "after_consent", "outputs", "jobs", "logs"]
    policy = RetentionPolicy(**{n: timedelta(days=40 + i) for i, n in enumerate(names)})  # type: ignore[arg-type]
    shown = policy.schedule_markdown()
    assert all(f"{40 + index} days" in shown for index in range(len(names)))


def test_the_clocks_outlive_a_database_that_is_away(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    retention = _retention(house)
    answers = iter([DatabaseUnusable("the database is away"), SweepReport({"jobs": 1})])
    reports: list[SweepReport] = []
    stop = threading.Event()

    def sweep(now: datetime) -> SweepReport:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        stop.set()
        return answer

    monkeypatch.setattr(retention, "sweep", sweep)
    retention.run(stop, reports.append, timedelta(0), house.clock)
    assert reports == [SweepReport({}, ("the database is away",)), SweepReport({"jobs": 1})]

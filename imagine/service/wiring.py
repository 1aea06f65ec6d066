"""The only place that builds and connects everything a service is made of."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from imagine.api import Guard, LocalRecords
from imagine.errors import DatabaseUnusable, ImagineError, InvalidInput
from imagine.provenance import HASHES_FILE, MARKS_FOLDER, HashFile, Marking, make_marking
from imagine.safety.enrolment import Allowance, EnrolmentPolicy
from imagine.safety.policy_set import (
    PolicySet,
    approve_change,
    as_word,
    chosen_enrolment,
    policy_in_force,
    start_up,
    switched_off,
    weakened,
    weakened_since,
)
from imagine.service.admission import Admission
from imagine.service.auth import LOCAL_TENANT, Doorkeeper
from imagine.service.enrolment import Enrolment
from imagine.service.feeds import Feeds
from imagine.service.generations import Generations
from imagine.service.loaded_models import LoadedModels
from imagine.service.oversight import Oversight, Stores, releasing
from imagine.service.payloads import PayloadSealer
from imagine.service.pictures import Pictures
from imagine.service.rate_limits import Quota, RateLimiter, SharedRateLimiter
from imagine.service.settings import ServiceSettings
from imagine.service.sign_in import SignIn
from imagine.service.webhook_sender import AddressGuard, Sender
from imagine.service.webhook_signatures import new_secret
from imagine.service.worker import LEASE, Hands, Worker
from imagine.service.worker_process import WorkerProcess
from imagine.settings import Settings
from imagine.storage.api_keys import ApiKeys
from imagine.storage.audit_log import AuditLog
from imagine.storage.blobs import BlobStore, open_blobs
from imagine.storage.cases import CaseBook
from imagine.storage.checkpoints import KEY_FILE_NAME, SigningKey
from imagine.storage.consent import ConsentBook
from imagine.storage.consent_tokens import ConsentTokens
from imagine.storage.database import Database, open_database, utc_now
from imagine.storage.enrolment_requests import EnrolmentRequests, service_key
from imagine.storage.erasure import Eraser
from imagine.storage.events import RecordEvent, recorder
from imagine.storage.evidence import EvidenceMaker
from imagine.storage.export import Porter
from imagine.storage.jobs import JobStore
from imagine.storage.keys import DataKeys, MasterKey, load_master_key, make_master_key_file
from imagine.storage.migrations import current_revision, newest_revision, upgrade
from imagine.storage.people import PeopleStore
from imagine.storage.protected import ProtectedPeople, add_everybody
from imagine.storage.rate_counts import RateCounts
from imagine.storage.retention import Retention, RetentionPolicy, SweepReport
from imagine.storage.reviews import ReviewStore
from imagine.storage.takedowns import TakedownStore
from imagine.storage.vault import Vault
from imagine.storage.verified import Standings
from imagine.storage.visits import Visits
from imagine.storage.webhooks import EventKind, Webhooks

logger = logging.getLogger(__name__)

CERTIFICATE_KEY = "certificates.pem"  # signs deletion certificates
POLICY_KEY = "policy.pem"  # signs the approval of the safety policy
POLICY_APPROVAL = "policy.json"  # in the data folder


@dataclass(eq=False)
class Service:
    """Everything, connected. `start` begins to work, `close` ends it."""

    settings: ServiceSettings
    limits: Settings
    database: Database
    log: AuditLog
    people: PeopleStore
    consents: ConsentBook
    eraser: Eraser
    porter: Porter
    retention: Retention
    jobs: JobStore
    api_keys: ApiKeys
    models: LoadedModels
    feeds: Feeds
    worker: Hands
    enrolment: Enrolment
    generations: Generations
    doorkeeper: Doorkeeper
    pictures: Pictures
    webhooks: Webhooks
    sender: Sender
    address_guard: AddressGuard
    consent_tokens: ConsentTokens
    enrolment_requests: EnrolmentRequests
    visits: Visits
    sign_in: SignIn | None
    record_event: RecordEvent
    standings: Standings
    protected: ProtectedPeople
    admission: Admission
    safety: PolicySet
    oversight: Oversight
    reviews: ReviewStore
    takedowns: TakedownStore
    cases: CaseBook
    marking: Marking

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Open the models, take jobs, run the clocks of retention; returns at once."""
        self.worker.start()
        self.sender.start()
        for name, run in (
            ("loading", self._load),
            ("retention", self._retain),
            ("takedowns", self._keep_time),
        ):
            thread = threading.Thread(target=run, name=f"imagine-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Stop between two steps; unfinished jobs stay in the queue."""
        self._stop.set()
        self.worker.stop()
        self.sender.stop()
        self.models.close()
        for thread in self._threads:
            thread.join()
        self.database.close()

    @property
    def checks_off(self) -> tuple[str, ...]:
        """Names of the safety checks that the operator switched off."""
        return switched_off(self.limits)

    def waiting_for(self) -> list[str]:
        """What is not ready, in one word each; empty when everything is."""
        unready = []
        try:
            with self.database.reading() as session:
                session.connection()
        except ImagineError:
            unready.append("database")
        if not self.models.is_loaded:
            unready.append("models")
        if not self.worker.is_alive:
            unready.append("worker")
        return unready

    def _load(self) -> None:
        try:
            self.models.load()
        except ImagineError as error:
            # Readiness goes on saying "models"; the operator reads why here.
            logger.error("the models cannot be opened: %s", error)

    def _keep_time(self) -> None:
        while not self._stop.is_set():
            try:
                self.oversight.run(self._stop)
            except Exception as error:  # 48 hours pass, whatever broke
                logger.error("the clock of takedowns failed with %s", type(error).__name__)
                self._stop.wait(60)

    def _retain(self) -> None:
        while not self._stop.is_set():
            try:
                self.retention.run(self._stop, _tell)
            except Exception as error:  # the clocks must go on, whatever broke
                logger.error("retention failed with %s; again in a minute", type(error).__name__)
                self._stop.wait(60)


def build_service(
    chosen: ServiceSettings,
    limits: Settings | None = None,
    master: MasterKey | None = None,
    policy: RetentionPolicy | None = None,
    feeds: Feeds | None = None,
) -> Service:
    """Build a service from its settings; nothing works before `Service.start`.

    Args:
        chosen: what the operator decided.
        limits: paths and limits every room shares; None reads the environment.
        master: a key management service in place of the master key of the settings.
        policy: how long what is kept; None takes the published schedule.
        feeds: what watchers are told through; None makes them here.

    Raises:
        InvalidInput: a master key in hand cannot be given to a worker process.
        UnknownName: a model nobody registered.
        CheckMissing: the network of a safety check is not installed.
        PolicyTampered: the safety policy is not the one the operator approved.
        StorageError: a key, the database or the store of pictures cannot be used.
    """
    limits = limits or Settings()
    if master is not None and chosen.worker_process:
        raise InvalidInput(
            "A key management service in hand cannot be given to another process. Leave "
            "worker_process out, and start workers beside this service that have it, too."
        )
    models = LoadedModels(chosen, limits)
    rules = enrolment_rules(chosen, limits)
    safety = policy_in_force(limits, rules)
    database = open_current_database(limits)
    key_store = open_blobs(limits.key_store_place)
    keys = DataKeys(key_store, master or _master_key(limits, key_store))
    vault = Vault(open_blobs(limits.blob_place), keys)
    secrets = limits.secrets_directory
    log = AuditLog(database, SigningKey.load_or_create(secrets / KEY_FILE_NAME), keys)
    record = recorder(log)
    approve_at_start(safety, limits, log)
    mark = make_marking(
        limits,
        lambda kind, facts: log.append(kind, None, facts, "service").sequence,
        safety.sha256,
    )
    models.mark_with(mark)
    protected = ProtectedPeople(database, lambda: keys, record)
    # What the operator weakened was written down when the policy was compared.
    models.guard_with(Guard(protected, lambda kind, facts: None))
    standings = Standings(database, rules.verified.review_share, rules.unverified.review_share)
    webhooks = Webhooks(database, keys, new_secret)
    address_guard = AddressGuard(chosen.webhook_networks)
    enrolment_requests = EnrolmentRequests(database, keys)
    jobs = JobStore(database, lease_duration=LEASE, on_end=webhooks.jobs_ended)
    feeds = feeds or Feeds()
    consents = ConsentBook(
        database,
        _announcing(record, webhooks),
        jobs.cancel_identity,
        accepted_texts=chosen.accepted_consent_texts or None,
    )
    looks = HashFile(limits.data_directory / MARKS_FOLDER / HASHES_FILE)
    people = PeopleStore(
        database, vault, consents, record, forget_looks=lambda records: looks.remove(*records)
    )
    reviews = ReviewStore(database, vault, consents, log, releasing(mark))
    takedowns = TakedownStore(database, vault, consents, reviews, log)
    cases = CaseBook(database, people, reviews, log)
    oversight = Oversight(
        Stores(reviews, takedowns, cases, EvidenceMaker(log), jobs, log),
        mark,
        limits,
        standings.sample_rate,
        chosen.review_blocked_share,
        chosen.review_borderline_share,
        LOCAL_TENANT,
    )
    certificate_key = _signing_key(secrets / CERTIFICATE_KEY)
    eraser = Eraser(
        database,
        vault,
        people,
        certificate_key,
        record,
        jobs.cancel_identity,
        {
            "beside": _Beside(people, jobs, oversight),  # before the jobs, which say where to look
            "looks": people.forget_looks_of,
            "jobs": jobs.forget_identity,
            "feeds": feeds.forget_identity,
            "standings": standings.forget,
            "reviews": reviews.forget,
            "requests": enrolment_requests.forget,
        },
        on_erased=webhooks.erased,
    )
    retention = Retention(
        database,
        people,
        eraser,
        policy or RetentionPolicy(),
        jobs.forget_ended_before,
        lambda moment: 0,  # the audit log names nobody and is kept whole, so that it can be checked
        lambda moment: reviews.forget_before(moment) + takedowns.forget_before(moment),
    )
    payloads = PayloadSealer(vault, consents)
    worker: Hands = Worker(jobs, people, payloads, models, feeds, chosen.jobs_at_once, oversight)
    if chosen.worker_process:
        worker = WorkerProcess(partial(_build_worker, chosen, limits), feeds, models)
    people.add_tenant(LOCAL_TENANT, "This machine")
    add_everybody(database, utc_now())
    admission = Admission(
        models,
        people,
        standings,
        protected,
        rules,
        record,
        chosen.trusted_list_keys,
        counts_pictures=not chosen.single_user,
    )
    porter = Porter(
        people,
        consents,
        record,
        _LogEntries(log),
        standings,
        certificate_key,
        admission,
        eraser.erase_person,
    )
    api_keys = ApiKeys(database)
    visits = Visits(database)
    sign_in = None
    if chosen.oidc.issuer:
        sign_in = SignIn(chosen.oidc, service_key(keys, "accounts"), people.add_tenant)
    return Service(
        settings=chosen,
        limits=limits,
        database=database,
        log=log,
        people=people,
        consents=consents,
        eraser=eraser,
        porter=porter,
        retention=retention,
        jobs=jobs,
        api_keys=api_keys,
        models=models,
        feeds=feeds,
        worker=worker,
        enrolment=Enrolment(people, consents, eraser, models, limits, admission, standings),
        generations=Generations(
            jobs, people, consents, payloads, models, worker, feeds, record, admission
        ),
        doorkeeper=Doorkeeper(
            api_keys,
            chosen,
            visits,
            None if sign_in is None else sign_in.caller,
            _limits(database, chosen),
        ),
        pictures=Pictures(database),
        webhooks=webhooks,
        sender=Sender(webhooks, address_guard),
        address_guard=address_guard,
        consent_tokens=ConsentTokens(database),
        enrolment_requests=enrolment_requests,
        visits=visits,
        sign_in=sign_in,
        record_event=record,
        standings=standings,
        protected=protected,
        admission=admission,
        safety=safety,
        oversight=oversight,
        reviews=reviews,
        takedowns=takedowns,
        cases=cases,
        marking=mark,
    )


def _build_worker(chosen: ServiceSettings, limits: Settings, feeds: Feeds) -> Service:
    """The service of a worker process."""
    return build_service(replace(chosen, worker_process=False), limits, feeds=feeds)


class _Beside:
    """Forgets somebody on the pictures of others, for the eraser; also those held back."""

    def __init__(self, people: PeopleStore, jobs: JobStore, oversight: Oversight) -> None:
        self._people = people
        self._jobs = jobs
        self._oversight = oversight

    def __call__(self, tenant_id: str, subject_id: str) -> int:
        for job in self._jobs.beside(tenant_id, subject_id):
            self._oversight.discard(job)
        return self._people.delete_images_beside(tenant_id, subject_id)


def _announcing(record: RecordEvent, webhooks: Webhooks) -> RecordEvent:
    """Events as before; of a withdrawal those are told, too, who asked to be called."""

    def told(
        kind: str,
        subject: str | None,
        details: Mapping[str, object],
        *,
        tenant_id: str,
        actor: str,
    ) -> None:
        record(kind, subject, details, tenant_id=tenant_id, actor=actor)
        if kind == EventKind.CONSENT_WITHDRAWN.value:
            data = {"object": "identity", "id": subject}
            webhooks.publish(tenant_id, EventKind.CONSENT_WITHDRAWN, data)

    return told


def _limits(
    database: Database, chosen: ServiceSettings
) -> Callable[[Quota], RateLimiter | SharedRateLimiter]:
    """How requests are counted: in this process, or in the database for all of them."""
    is_shared = chosen.shared_rate_limits
    if is_shared is None:
        is_shared = not database.is_sqlite
    counts = RateCounts(database)
    return (lambda quota: SharedRateLimiter(quota, counts)) if is_shared else RateLimiter


def open_current_database(limits: Settings) -> Database:
    """The database of the settings, with the tables this version wants.

    A file on this machine is upgraded by the way; a database that others may be using is not.

    Raises:
        DatabaseUnusable: it must be upgraded first, or does not answer.
    """
    database = open_database(limits.database_place)
    if database.is_sqlite:
        upgrade(database)
        return database
    if (found := current_revision(database)) != newest_revision():
        database.close()
        raise DatabaseUnusable(
            f"The database is at revision {found or 'nothing'}; this version wants "
            f"{newest_revision()}. Run: imagine-me db upgrade"
        )
    return database


def enrolment_rules(chosen: ServiceSettings, limits: Settings) -> EnrolmentPolicy:
    """The enrolment rules with the operator's figures."""
    usual = EnrolmentPolicy()
    share = usual.verified.review_share, usual.unverified.review_share
    rules = EnrolmentPolicy(
        verified=Allowance(chosen.verified_pictures_per_day, share[0]),
        unverified=Allowance(chosen.unverified_pictures_per_day, share[1]),
    )
    return chosen_enrolment(limits, rules)


def approve_at_start(policy: PolicySet, limits: Settings, log: AuditLog) -> None:
    """Compare the safety policy with the approved one; the first one ever is approved as it is.

    What it switches off or weakens is written down at each start.

    Raises:
        PolicyTampered: it is not the approved one; the message says what differs and what to do.
    """

    def record(kind: str, facts: Mapping[str, object]) -> None:
        log.append(kind, None, {name: as_word(fact) for name, fact in facts.items()}, "service")

    key = policy_key(limits)
    start_up(policy, limits.data_directory / POLICY_APPROVAL, key, record)
    for name in switched_off(limits):
        record("checks.turned_off", {"check": name})
    for words in weakened(limits):
        record("policy.weakened", {"what": words})


def weakenings_to_approve(chosen: ServiceSettings, limits: Settings) -> tuple[str, ...]:
    """What the policy in force allows that the approved one did not, in words.

    Raises:
        PolicyTampered: the approval is damaged or signed by another key.
    """
    policy = policy_in_force(limits, enrolment_rules(chosen, limits))
    return weakened_since(policy, limits.data_directory / POLICY_APPROVAL, policy_key(limits))


def approve_policy(chosen: ServiceSettings, limits: Settings) -> str:
    """Approve the policy in force; each weakening is written to the audit log first.

    Returns:
        The hash of the policy.

    Raises:
        PolicyTampered: the old approval is damaged or signed by another key.
    """
    records = LocalRecords(limits)

    policy = policy_in_force(limits, enrolment_rules(chosen, limits))
    key, file = policy_key(limits), limits.data_directory / POLICY_APPROVAL
    if file.exists():
        approve_change(policy, file, key, "operator", records.record_event)
    return start_up(policy, file, key, records.record_event)


def policy_key(limits: Settings) -> Ed25519PrivateKey:
    """The key that approves safety policies; made the first time."""
    return _signing_key(limits.secrets_directory / POLICY_KEY)


def _master_key(limits: Settings, key_store: BlobStore) -> MasterKey:
    """The master key; the first time, where nothing is stored yet, a new one."""
    kind, _, where = limits.master_key_source.partition(":")
    is_new = kind == "file" and not Path(where).exists()
    if is_new and next(key_store.names("keys"), None) is None:
        return make_master_key_file(Path(where))
    return load_master_key(limits.master_key_source)


def _signing_key(path: Path) -> Ed25519PrivateKey:
    """A key with a file of its own, made by the same careful hand as the audit log's."""
    SigningKey.load_or_create(path)
    key = load_pem_private_key(path.read_bytes(), password=None)
    assert isinstance(key, Ed25519PrivateKey)  # `load_or_create` has refused anything else
    return key


class _LogEntries:
    """What the audit log says of people, for their own export."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    def __call__(self, tenant_id: str, subjects: Sequence[str]) -> list[Mapping[str, object]]:
        entries = {
            entry.sequence: entry.facts
            for subject in subjects
            for entry in self._log.entries_about(tenant_id, subject)
        }
        return [entries[sequence] for sequence in sorted(entries)]


def _tell(report: SweepReport) -> None:
    if report.removed:
        logger.info("retention removed %s", dict(report.removed))
    for failure in report.failures:
        logger.error("retention will try again: %s", failure)

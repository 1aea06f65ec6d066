"""The only place that builds and connects everything a service is made of."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from imagine.errors import DatabaseUnusable, ImagineError
from imagine.provenance import MARKS_FOLDER, Marking, open_marker
from imagine.safety.prompt_policy import shipped_policy
from imagine.service.auth import LOCAL_TENANT, Doorkeeper
from imagine.service.enrolment import Enrolment
from imagine.service.feeds import Feeds
from imagine.service.generations import Generations
from imagine.service.loaded_models import LoadedModels
from imagine.service.one_writer import OneWriterDatabase
from imagine.service.payloads import PayloadSealer
from imagine.service.pictures import Pictures
from imagine.service.settings import ServiceSettings
from imagine.service.worker import LEASE, Worker
from imagine.settings import Settings
from imagine.storage.api_keys import ApiKeys
from imagine.storage.audit_log import AuditLog
from imagine.storage.blobs import BlobStore, open_blobs
from imagine.storage.checkpoints import KEY_FILE_NAME, SigningKey
from imagine.storage.consent import ConsentBook
from imagine.storage.database import Database, open_database
from imagine.storage.erasure import Eraser
from imagine.storage.events import recorder
from imagine.storage.export import Porter
from imagine.storage.jobs import JobStore
from imagine.storage.keys import DataKeys, MasterKey, load_master_key, make_master_key_file
from imagine.storage.migrations import current_revision, newest_revision, upgrade
from imagine.storage.people import PeopleStore
from imagine.storage.retention import Retention, RetentionPolicy, SweepReport
from imagine.storage.vault import Vault

logger = logging.getLogger(__name__)

CERTIFICATE_KEY = "certificates.pem"  # signs deletion certificates


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
    worker: Worker
    enrolment: Enrolment
    generations: Generations
    doorkeeper: Doorkeeper
    pictures: Pictures

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Open the models, take jobs, run the clocks of retention; returns at once."""
        self.worker.start()
        for name, run in (("loading", self._load), ("retention", self._retain)):
            thread = threading.Thread(target=run, name=f"imagine-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Stop between two steps; unfinished jobs stay in the queue."""
        self._stop.set()
        self.worker.stop()
        self.models.close()
        for thread in self._threads:
            thread.join()
        self.database.close()

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
) -> Service:
    """Build a service from its settings; nothing works before `Service.start`.

    Args:
        chosen: what the operator decided.
        limits: paths and limits every room shares; None reads the environment.
        master: a key management service in place of the master key of the settings.
        policy: how long what is kept; None takes the published schedule.

    Raises:
        UnknownName: a model nobody registered.
        StorageError: a key, the database or the store of pictures cannot be used.
    """
    limits = limits or Settings()
    models = LoadedModels(chosen, limits)
    database = open_current_database(limits)
    key_store = open_blobs(limits.key_store_place)
    keys = DataKeys(key_store, master or _master_key(limits, key_store))
    vault = Vault(open_blobs(limits.blob_place), keys)
    secrets = limits.secrets_directory
    log = AuditLog(database, SigningKey.load_or_create(secrets / KEY_FILE_NAME), keys)
    record = recorder(log)
    models.mark_with(make_marking(limits, log))
    jobs = JobStore(database, lease_duration=LEASE)
    feeds = Feeds()
    consents = ConsentBook(
        database,
        record,
        jobs.cancel_identity,
        accepted_texts=chosen.accepted_consent_texts or None,
    )
    people = PeopleStore(database, vault, consents, record)
    eraser = Eraser(
        database,
        vault,
        people,
        _certificate_key(secrets / CERTIFICATE_KEY),
        record,
        jobs.cancel_identity,
        {"jobs": jobs.forget_identity, "feeds": feeds.forget_identity},
    )
    porter = Porter(people, consents, record, _LogEntries(log))
    retention = Retention(
        database,
        people,
        eraser,
        policy or RetentionPolicy(),
        jobs.forget_ended_before,
        lambda moment: 0,  # the audit log names nobody and is kept whole, so that it can be checked
    )
    payloads = PayloadSealer(vault, consents)
    worker = Worker(jobs, people, payloads, models, feeds, chosen.jobs_at_once)
    people.add_tenant(LOCAL_TENANT, "This machine")
    api_keys = ApiKeys(database)
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
        enrolment=Enrolment(people, consents, eraser, models, limits),
        generations=Generations(jobs, people, consents, payloads, models, worker, feeds, record),
        doorkeeper=Doorkeeper(api_keys, chosen),
        pictures=Pictures(database),
    )


def open_current_database(limits: Settings) -> Database:
    """The database of the settings, with the tables this version wants.

    A file on this machine is upgraded by the way; a database that others may be using is not.

    Raises:
        DatabaseUnusable: it must be upgraded first, or does not answer.
    """
    database = open_database(limits.database_place)
    if database.is_sqlite:
        upgrade(database)
        return OneWriterDatabase(database)
    if (found := current_revision(database)) != newest_revision():
        database.close()
        raise DatabaseUnusable(
            f"The database is at revision {found or 'nothing'}; this version wants "
            f"{newest_revision()}. Run: imagine-me db upgrade"
        )
    return database


def make_marking(limits: Settings, log: AuditLog) -> Marking:
    """Every picture of the service leads to an entry of its audit log."""
    marker, keys = open_marker(limits.data_directory / MARKS_FOLDER)
    if keys.note:
        logger.warning("%s", keys.note)

    def append(facts: Mapping[str, object]) -> int:
        return log.append("picture.marked", None, facts, "service").sequence

    return Marking(marker, append, shipped_policy().sha256)


def _master_key(limits: Settings, key_store: BlobStore) -> MasterKey:
    """The master key; the first time, where nothing is stored yet, a new one."""
    kind, _, where = limits.master_key_source.partition(":")
    is_new = kind == "file" and not Path(where).exists()
    if is_new and next(key_store.names("keys"), None) is None:
        return make_master_key_file(Path(where))
    return load_master_key(limits.master_key_source)


def _certificate_key(path: Path) -> Ed25519PrivateKey:
    """The key of deletion certificates: a file of its own, made by the same careful hand."""
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

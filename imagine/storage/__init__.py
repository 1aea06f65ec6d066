"""What is kept, who may read it, and how it is forgotten."""

from imagine.storage.acts import ActBook, ActKind, Reason
from imagine.storage.api_keys import ApiKey, ApiKeys, NewApiKey
from imagine.storage.audit_log import AuditLog
from imagine.storage.blobs import BlobStore, open_blobs
from imagine.storage.cases import CaseBook
from imagine.storage.checkpoints import SigningKey
from imagine.storage.consent import Consent, ConsentBook, ConsentForm, Purpose, text_sha256
from imagine.storage.database import Database, new_id, open_database, utc_now
from imagine.storage.erasure import Certificate, Eraser, Outputs, verify_certificate
from imagine.storage.events import RecordEvent, recorder
from imagine.storage.evidence import EvidenceMaker, verify_evidence
from imagine.storage.export import ImportLimits, Porter
from imagine.storage.jobs import JobStore
from imagine.storage.keys import (
    DataKeys,
    LocalMasterKey,
    MasterKey,
    load_master_key,
    load_or_make_master_key,
)
from imagine.storage.migrations import upgrade
from imagine.storage.people import IdentityFacts, ImageFacts, PeopleStore, PhotoFacts
from imagine.storage.retention import Retention, RetentionPolicy, SweepReport
from imagine.storage.reviews import NewReview, Queue, Review, ReviewStore, Ruling
from imagine.storage.takedowns import Notice, TakedownStore
from imagine.storage.vault import Grant, Kind, Vault

__all__ = [
    "ActBook",
    "ActKind",
    "ApiKey",
    "ApiKeys",
    "AuditLog",
    "BlobStore",
    "CaseBook",
    "Certificate",
    "Consent",
    "ConsentBook",
    "ConsentForm",
    "DataKeys",
    "Database",
    "Eraser",
    "EvidenceMaker",
    "Grant",
    "IdentityFacts",
    "ImageFacts",
    "ImportLimits",
    "JobStore",
    "Kind",
    "LocalMasterKey",
    "MasterKey",
    "NewApiKey",
    "NewReview",
    "Notice",
    "Outputs",
    "PeopleStore",
    "PhotoFacts",
    "Porter",
    "Purpose",
    "Queue",
    "Reason",
    "RecordEvent",
    "Retention",
    "RetentionPolicy",
    "Review",
    "ReviewStore",
    "Ruling",
    "SigningKey",
    "SweepReport",
    "TakedownStore",
    "Vault",
    "load_master_key",
    "load_or_make_master_key",
    "new_id",
    "open_blobs",
    "open_database",
    "recorder",
    "text_sha256",
    "upgrade",
    "utc_now",
    "verify_certificate",
    "verify_evidence",
]

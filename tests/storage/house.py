"""A whole storage room for tests: a clock that is moved by hand, events kept in a list."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from imagine.core import CROP_SIZE, Identity, PhotoReport, PhotoVerdict, Recipe
from imagine.storage.blobs import BlobStore, open_blobs
from imagine.storage.consent import ConsentBook, ConsentForm, Purpose
from imagine.storage.database import Database
from imagine.storage.erasure import Eraser, Forget
from imagine.storage.export import Admitted, Porter
from imagine.storage.keys import DataKeys, LocalMasterKey
from imagine.storage.people import PeopleStore
from imagine.storage.vault import Vault
from imagine.storage.verified import Standings

TENANT = "studio"
JPEG = b"\xff\xd8\xff\xe0 a selfie "
PNG = b"\x89PNG\r\n\x1a\n a picture "
TEXT = "I agree that this service makes pictures of me."


class Clock:
    """A clock that stands still until somebody moves it."""

    def __init__(self) -> None:
        self.now = datetime(2027, 1, 4, 9, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, **time: float) -> datetime:
        self.now += timedelta(**time)
        return self.now


@dataclass
class Events:
    """What the audit log was told."""

    told: list[tuple[str, str | None, dict[str, object]]] = field(default_factory=list)

    def __call__(
        self,
        kind: str,
        subject: str | None,
        details: Mapping[str, object],
        *,
        tenant_id: str,
        actor: str,
    ) -> None:
        self.told.append((kind, subject, {**details, "tenant_id": tenant_id, "actor": actor}))

    def kinds(self) -> list[str]:
        return [kind for kind, _, _ in self.told]


@dataclass
class Jobs:
    """Stands in for the queue."""

    cancelled: list[tuple[str, str]] = field(default_factory=list)
    forgotten: list[tuple[str, str]] = field(default_factory=list)

    def cancel(self, tenant_id: str, identity_id: str) -> int:
        self.cancelled.append((tenant_id, identity_id))
        return 3

    def forget(self, tenant_id: str, subject_id: str) -> int:
        self.forgotten.append((tenant_id, subject_id))
        return 2


class OpenGate:
    """Lets everybody in as they are, unless told otherwise."""

    def __init__(self) -> None:
        self.needs_review = False
        self.refuses: Exception | None = None
        self.unmarked: bytes | None = None

    def admit_arrival(
        self, tenant_id: str, photos: Sequence[bytes], face: Identity, actor: str
    ) -> Admitted:
        if self.refuses is not None:
            raise self.refuses
        return Admitted(face, "mini-1", "CC0-1.0", self.needs_review)

    def says_machine_made(self, picture: bytes) -> bool:
        return picture != self.unmarked


class House:
    """Everything of the room, connected."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore | None = None,
        key_store: BlobStore | None = None,
        forget: Mapping[str, Forget] | None = None,
        accepted_texts: Sequence[str] | None = None,
    ) -> None:
        self.database = database
        self.clock = Clock()
        self.events = Events()
        self.jobs = Jobs()
        self.blobs = blobs or open_blobs("memory://")
        self.key_store = key_store or open_blobs("memory://")
        self.master = LocalMasterKey(secrets.token_bytes(32))
        self.signing_key = Ed25519PrivateKey.generate()
        self.keys = DataKeys(self.key_store, self.master, clock=self.clock)
        self.vault = Vault(self.blobs, self.keys)
        self.consents = ConsentBook(
            database, self.events, self.jobs.cancel, self.clock, accepted_texts
        )
        self.people = PeopleStore(database, self.vault, self.consents, self.events, self.clock)
        self.eraser = Eraser(
            database,
            self.vault,
            self.people,
            self.signing_key,
            self.events,
            self.jobs.cancel,
            forget or {"jobs": self.jobs.forget},
            self.clock,
        )
        self.standings = Standings(database, clock=self.clock)
        self.gate = OpenGate()
        self.porter = Porter(
            self.people,
            self.consents,
            self.events,
            lambda tenant, ids: [],
            self.standings,
            self.signing_key,
            self.gate,
            self.eraser.erase_person,
            clock=self.clock,
        )
        self.people.add_tenant(TENANT, "A studio")

    def add_draft(self, *ticks: Purpose, person_id: str | None = None) -> tuple[str, str]:
        """A person with a draft and a consent; returns the ids of both."""
        person_id = person_id or self.people.add_person(TENANT, "Ada Canary")
        identity = self.people.add_identity(TENANT, person_id, "holiday face")
        self.consents.give(TENANT, identity.id, form(*(ticks or (Purpose.GENERATE,))))
        return person_id, identity.id

    def add_active(self, *ticks: Purpose, person_id: str | None = None) -> tuple[str, str]:
        """As `add_draft`, enrolled with two photos."""
        person_id, identity_id = self.add_draft(*ticks, person_id=person_id)
        for number in range(2):
            self.people.add_photo(TENANT, identity_id, JPEG + bytes([number]), "image/jpeg")
        self.people.enrol(TENANT, identity_id, make_face(), "mini-1", "CC0-1.0")
        return person_id, identity_id

    def add_image(
        self, person_id: str, identity_id: str | None, data: bytes = PNG, prompt: str = "at sea"
    ) -> str:
        return self.people.add_image(
            TENANT, person_id, data, "image/png", (64, 48), make_recipe(prompt), identity_id
        )


def form(*ticks: Purpose, **changes: Any) -> ConsentForm:
    """A consent form, complete unless changed."""
    fields: dict[str, Any] = {
        "text": TEXT,
        "locale": "en",
        "purposes": ticks or (Purpose.GENERATE,),
        "declared_adult": True,
        "declared_self": True,
        "method": "web-form",
    }
    return ConsentForm(**(fields | changes))


def make_face(seed: int = 0, photo_name: str = "me.jpg") -> Identity:
    """A face of two photos that belongs to nobody."""
    random = np.random.default_rng(seed)
    embeddings = random.normal(size=(2, 128)).astype(np.float32)
    return Identity(
        crops=random.integers(0, 256, (2, CROP_SIZE, CROP_SIZE, 3), dtype=np.uint8),
        embeddings=embeddings,
        embedding=embeddings.mean(axis=0),
        recogniser="dlib",
        reports=(PhotoReport(photo_name, PhotoVerdict.KEEP, ("Fine.",), measures={"yaw": 1.5}),),
        fingerprint=f"{seed:064x}",
    )


def make_recipe(prompt: str = "at sea") -> Recipe:
    return Recipe(
        prompt=prompt,
        seed=7,
        num_inference_steps=20,
        guidance_scale=3.0,
        likeness=0.8,
        backend="fake",
        model_revision="mini-1",
        identity_fingerprint="0" * 64,
        version="0.1.0",
    )

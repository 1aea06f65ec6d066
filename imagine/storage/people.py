"""People, their identities, photos and pictures: putting them in and getting them out.

Everything that shows or names somebody is sealed before it is stored, and comes out through a
purpose (`consent.py`). Ids of other tenants are answered like ids that do not exist.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from imagine.core import Identity, PhotoReport, PhotoVerdict, Recipe
from imagine.errors import ConsentMissing, InvalidInput, NotStored
from imagine.storage.consent import ConsentBook, Purpose, has_live_tick
from imagine.storage.database import Database, new_id, utc_now
from imagine.storage.events import RecordEvent
from imagine.storage.keys import check_id
from imagine.storage.tables import (
    ErasureRow,
    IdentityRow,
    IdentityState,
    ImageRow,
    PersonRow,
    PhotoRow,
    TenantRow,
)
from imagine.storage.vault import Grant, Kind, Vault

MEDIA_TYPES = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/webp": ".webp",
    "image/heic": ".heic",
    "image/heif": ".heif",
}
MAX_NAME_CHARACTERS = 200
Row = TypeVar("Row", PhotoRow, ImageRow)
_USED_AGAIN = timedelta(minutes=1)  # the idle clock counts days; no need to write more often


@dataclass(frozen=True, slots=True)
class IdentityFacts:
    """What may be told about an identity without opening anything."""

    id: str
    person_id: str
    version: int
    state: IdentityState
    encoder: str | None
    model: str | None
    licence: str | None
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class PhotoFacts:
    """What may be told about a photo without opening it."""

    id: str
    identity_id: str
    media_type: str
    byte_count: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What may be told about a picture without opening it."""

    id: str
    person_id: str
    identity_id: str | None
    job_id: str | None
    media_type: str
    byte_count: int
    width: int
    height: int
    created_at: datetime


# Numbers of audit entries whose pictures are going: how they looked shall be kept nowhere.
ForgetLooks = Callable[[Sequence[int]], object]


class NewImages:
    """Pictures of one tenant on their way into the store; `PeopleStore.new_images` makes one."""

    def __init__(
        self,
        tenant_id: str,
        vault: Vault,
        consents: ConsentBook,
        clock: Callable[[], datetime],
        forget_looks: ForgetLooks = lambda records: None,
    ) -> None:
        self._forget_looks = forget_looks
        self._tenant_id = tenant_id
        self._vault = vault
        self._consents = consents
        self._clock = clock
        self._rows: list[ImageRow] = []
        self.are_kept = False
        self.refused: str | None = None  # identity whose consent was found to have ended

    def add(
        self,
        person_id: str,
        data: bytes,
        media_type: str,
        size: tuple[int, int],
        recipe: Recipe | None = None,
        identity_id: str | None = None,
        job_id: str | None = None,
        record: int | None = None,
        perceptual_hash: str | None = None,
        beside_id: str | None = None,
        image_id: str | None = None,
    ) -> str:
        """Seal a finished picture, store its file and return its id.

        Args:
            person_id: who asked for it.
            data: the marked file.
            media_type: of the file.
            size: width, height in pixels.
            recipe: how it was made; sealed, since it holds the prompt.
            identity_id: who is shown; None for nobody in particular.
            job_id: the job that made it.
            record: number of the audit entry its marks lead to; None when it was made elsewhere.
            perceptual_hash: 64 hex digits, by which near duplicates are found.
            beside_id: who is shown beside them; they must have consented too.
            image_id: a name that nothing has yet; None makes one.

        Raises:
            ConsentMissing: consent ended while the picture was made; nothing was stored.
            InvalidInput: empty, or of another media type.
            NotStored: this tenant has no such identity or person.
            DataKeyDestroyed: whoever is shown was erased.
        """
        _check_media(data, media_type)
        tenant_id, image_id = self._tenant_id, image_id or new_id("image")
        owner_id = identity_id or person_id
        # Refused before anything is sealed or written.
        for shown in (identity_id, beside_id):
            if shown is not None:
                self._consents.grant(tenant_id, shown, Purpose.GENERATE)
        if identity_id is None:
            self._consents.grant_person(tenant_id, person_id, Purpose.OWN_ACCESS)
        sealed_recipe = None
        if recipe is not None:
            told = json.dumps(asdict(recipe)).encode()
            sealed_recipe = self._vault.seal(tenant_id, owner_id, f"{image_id}/recipe", told)
        row = ImageRow(
            tenant_id=tenant_id,
            id=image_id,
            person_id=person_id,
            identity_id=identity_id,
            key_owner_id=owner_id,
            job_id=job_id,
            media_type=media_type,
            byte_count=len(data),
            width=size[0],
            height=size[1],
            created_at=self._clock(),
            record=record,
            perceptual_hash=perceptual_hash,
            beside_id=beside_id,
            sealed_recipe=sealed_recipe,
        )
        self._rows.append(row)  # before its file, so that half a file is dropped too
        self._vault.put(tenant_id, owner_id, Kind.IMAGE, image_id, data)
        return image_id

    def keep(self, session: Session) -> None:
        """Store the rows in a write transaction in which everybody shown still agrees.

        Raises:
            ConsentMissing: consent ended while the pictures were made.
            NotStored: no such person or identity, or not of one another.
        """
        for row in self._rows:
            self._check(session, row)
        session.add_all(self._rows)
        session.flush()
        self.are_kept = True

    def drop(self) -> None:
        """Delete the files; nobody ever had the pictures."""
        records = [row.record for row in self._rows if row.record is not None]
        if records:
            self._forget_looks(records)
        for row in self._rows:
            self._vault.delete(self._tenant_id, row.key_owner_id, Kind.IMAGE, row.id)

    def _check(self, session: Session, row: ImageRow) -> None:
        if row.identity_id is None:
            _person(session, self._tenant_id, row.person_id)
            return
        self.refused = row.identity_id
        owner = (self._tenant_id, row.identity_id)
        identity, _ = self._consents.allowed_within(session, *owner, Purpose.GENERATE)
        if identity.person_id != row.person_id:
            raise NotStored(f"Person {row.person_id!r} has no identity {row.identity_id!r}.")
        if row.beside_id is not None:
            self.refused = row.beside_id
            self._consents.allowed_within(session, self._tenant_id, row.beside_id, Purpose.GENERATE)
        self.refused = None


class PeopleStore:
    """The people of all tenants and what belongs to them."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        consents: ConsentBook,
        record_event: RecordEvent,
        clock: Callable[[], datetime] = utc_now,
        forget_looks: ForgetLooks = lambda records: None,
    ) -> None:
        """Keep people; `forget_looks` is told of pictures that are going, and may be told twice."""
        self._database = database
        self._vault = vault
        self._consents = consents
        self._record_event = record_event
        self._clock = clock
        self._forget_looks = forget_looks

    # People

    def add_tenant(self, tenant_id: str, name: str) -> None:
        """Make a tenant; one that is there already stays as it is."""
        check_id(tenant_id)
        with self._database.writing() as session:
            if session.get(TenantRow, tenant_id) is None:
                session.add(TenantRow(id=tenant_id, name=name, created_at=self._clock()))

    def add_person(self, tenant_id: str, name: str = "") -> str:
        """Make a person and return the id; the name is sealed and may be left out.

        Raises:
            NotStored: there is no such tenant.
        """
        _check_name(name)
        person_id = new_id("person")
        with self._database.writing() as session:
            if session.get(TenantRow, tenant_id) is None:
                raise NotStored(f"There is no tenant {tenant_id!r}. Make it first.")
            self._vault.keys.create(tenant_id, person_id)
            session.add(
                PersonRow(
                    tenant_id=tenant_id,
                    id=person_id,
                    created_at=self._clock(),
                    sealed_name=self._sealed_text(tenant_id, person_id, f"{person_id}/name", name),
                )
            )
        return person_id

    def read_person_name(self, tenant_id: str, person_id: str) -> str:
        """The name of a person, for the person's own eyes; "" if none was given.

        Raises:
            NotStored: this tenant has no such person.
        """
        grant = self._consents.grant_person(tenant_id, person_id, Purpose.OWN_ACCESS)
        with self._database.reading() as session:
            row = session.get_one(PersonRow, (tenant_id, person_id))
        return self._opened_text(grant, f"{person_id}/name", row.sealed_name)

    # Identities

    def add_identity(
        self, tenant_id: str, person_id: str, name: str = "", expires_at: datetime | None = None
    ) -> IdentityFacts:
        """Make the next version of a person's identity: an empty draft with a data key.

        Next come a consent (`ConsentBook.give`), photos (`add_photo`) and the face (`enrol`).

        Raises:
            NotStored: this tenant has no such person.
        """
        _check_name(name)
        identity_id = new_id("identity")
        now = self._clock()
        with self._database.writing() as session:
            _person(session, tenant_id, person_id)
            versions = select(func.max(IdentityRow.version)).where(
                IdentityRow.tenant_id == tenant_id, IdentityRow.person_id == person_id
            )
            self._vault.keys.create(tenant_id, identity_id)
            row = IdentityRow(
                tenant_id=tenant_id,
                id=identity_id,
                person_id=person_id,
                version=(session.scalar(versions) or 0) + 1,
                state=IdentityState.DRAFT,
                created_at=now,
                last_used_at=now,
                expires_at=expires_at,
                sealed_name=self._sealed_text(tenant_id, identity_id, f"{identity_id}/name", name),
            )
            session.add(row)
            return _identity_facts(row)

    def identities(self, tenant_id: str, person_id: str | None = None) -> list[IdentityFacts]:
        """The identities of a tenant, or of one person, oldest first."""
        wanted = select(IdentityRow).where(
            IdentityRow.tenant_id == tenant_id, IdentityRow.state != IdentityState.ERASING
        )
        if person_id is not None:
            wanted = wanted.where(IdentityRow.person_id == person_id)
        with self._database.reading() as session:
            rows = session.scalars(wanted.order_by(IdentityRow.created_at, IdentityRow.version))
            return [_identity_facts(row) for row in rows]

    def identity(self, tenant_id: str, identity_id: str) -> IdentityFacts:
        """What may be told about one identity.

        Raises:
            NotStored: this tenant has no such identity.
        """
        with self._database.reading() as session:
            row = session.get(IdentityRow, (tenant_id, identity_id))
        if row is None or row.state == IdentityState.ERASING:
            raise NotStored(f"There is no identity {identity_id!r} here.")
        return _identity_facts(row)

    def read_identity_name(self, tenant_id: str, identity_id: str) -> str:
        """What the person calls an identity; "" if nothing.

        Raises:
            NotStored: this tenant has no such identity.
        """
        grant = self._consents.grant(tenant_id, identity_id, Purpose.OWN_ACCESS)
        with self._database.reading() as session:
            row = session.get_one(IdentityRow, (tenant_id, identity_id))
        return self._opened_text(grant, f"{identity_id}/name", row.sealed_name)

    def enrol(
        self,
        tenant_id: str,
        identity_id: str,
        face: Identity,
        model: str,
        licence: str,
        actor: str = "service",
    ) -> IdentityFacts:
        """Store the face made from the photos; the draft becomes an active identity.

        Photos that the person did not agree to keep are deleted before this returns.

        Args:
            tenant_id: whose.
            identity_id: a draft with a consent to generate.
            face: crops and embeddings.
            model: revision of the image model they are for.
            licence: licence of the recogniser's weights.
            actor: who does it, as a pseudonym.

        Raises:
            ConsentMissing: no live consent to generate; nothing was stored.
            InvalidInput: this identity has a face already; make the next version.
            NotStored: this tenant has no such identity.
        """
        owner = (tenant_id, identity_id)
        arrays = {"embeddings": face.embeddings, "embedding": face.embedding}
        facts = {
            "fingerprint": face.fingerprint,
            "reports": [asdict(report) for report in face.reports],
        }
        allowed = self._consents.allowed(tenant_id, identity_id, Purpose.GENERATE, actor)
        with allowed as (session, row, _):
            if row.state != IdentityState.DRAFT:
                raise InvalidInput(
                    f"Identity {identity_id} has a face already, and a version is never changed. "
                    "Make the person's next identity."
                )
            row.sealed_embeddings = self._vault.seal(
                *owner, f"{identity_id}/embeddings", _packed(arrays)
            )
            row.sealed_facts = self._vault.seal(
                *owner, f"{identity_id}/facts", json.dumps(facts).encode()
            )
            # Inside the transaction, unlike photos: its name is fixed, and a second face that is
            # refused must not have overwritten the first.
            self._vault.put(*owner, Kind.CROPS, identity_id, _packed({"crops": face.crops}))
            row.encoder, row.model, row.licence = face.recogniser, model, licence
            row.state = IdentityState.ACTIVE
            row.last_used_at = self._clock()
            keeps_photos = has_live_tick(session, row, Purpose.KEEP_PHOTOS, self._clock())
            stored = _identity_facts(row)
        details = {"model": _word(model), "encoder": _word(face.recogniser)}
        self._record_event(
            "identity.enrolled", identity_id, details, tenant_id=tenant_id, actor=actor
        )
        if not keeps_photos:
            for photo in self.photos(tenant_id, identity_id):
                self.delete_photo(tenant_id, photo.id)
        return stored

    def read_identity(
        self, tenant_id: str, identity_id: str, *, purpose: Purpose, actor: str = "service"
    ) -> Identity:
        """The face of a person, for one purpose they agreed to. There is no other way to it.

        Args:
            tenant_id: who asks.
            identity_id: whose face.
            purpose: what for.
            actor: who asks, as a pseudonym, for the audit log.

        Raises:
            ConsentMissing: no live consent for this purpose; recorded as an event.
            NotStored: this tenant has no such identity, or it is still a draft.
            DataKeyDestroyed: it was erased a moment ago.
        """
        now = self._clock()

        # A write transaction, so that a withdrawal waits for its end, or came before and is seen.
        def look(session: Session) -> tuple[bytes, bytes, str, Grant]:
            row, grant = self._consents.allowed_within(session, tenant_id, identity_id, purpose)
            if row.sealed_embeddings is None or row.sealed_facts is None or row.encoder is None:
                raise NotStored(f"Identity {identity_id} is a draft without a face. Enrol it.")
            if purpose == Purpose.GENERATE and now - row.last_used_at > _USED_AGAIN:
                row.last_used_at = now
            return row.sealed_embeddings, row.sealed_facts, row.encoder, grant

        with self._consents.refusals_recorded(tenant_id, identity_id, purpose, actor):
            sealed_embeddings, sealed_facts, encoder, grant = self._database.write(look)
        details = {"purpose": purpose.value}
        self._record_event("identity.read", identity_id, details, tenant_id=tenant_id, actor=actor)
        arrays = load_arrays(
            self._vault.open(grant, f"{identity_id}/embeddings", sealed_embeddings)
        )
        facts = json.loads(self._vault.open(grant, f"{identity_id}/facts", sealed_facts))
        crops = load_arrays(self._vault.get(grant, Kind.CROPS, identity_id))["crops"]
        return Identity(
            crops=crops,
            embeddings=arrays["embeddings"],
            embedding=arrays["embedding"],
            recogniser=encoder,
            reports=tuple(report_of(report) for report in facts["reports"]),
            fingerprint=facts["fingerprint"],
        )

    # Photos

    def add_photo(
        self, tenant_id: str, identity_id: str, data: bytes, media_type: str, actor: str = "service"
    ) -> str:
        """Store a selfie and return its id.

        Raises:
            ConsentMissing: no live consent to generate; nothing was stored.
            InvalidInput: empty, or of a media type that is no photo.
            NotStored: this tenant has no such identity.
        """
        _check_media(data, media_type)
        photo_id = new_id("photo")
        row = PhotoRow(
            tenant_id=tenant_id,
            id=photo_id,
            identity_id=identity_id,
            media_type=media_type,
            byte_count=len(data),
            created_at=self._clock(),
        )
        purpose = Purpose.GENERATE
        self._consents.grant(tenant_id, identity_id, purpose, actor)
        with (
            self._blob(tenant_id, identity_id, Kind.PHOTO, photo_id, data),
            self._consents.allowed(tenant_id, identity_id, purpose, actor) as (session, _, _),
        ):
            session.add(row)
        return photo_id

    def photos(self, tenant_id: str, identity_id: str) -> list[PhotoFacts]:
        """The photos of an identity, oldest first."""
        wanted = (PhotoRow.tenant_id == tenant_id, PhotoRow.identity_id == identity_id)
        with self._database.reading() as session:
            rows = session.scalars(
                select(PhotoRow).where(*wanted).order_by(PhotoRow.created_at, PhotoRow.id)
            )
            return [_photo_facts(row) for row in rows]

    def read_photo(
        self, tenant_id: str, photo_id: str, *, purpose: Purpose, actor: str = "service"
    ) -> bytes:
        """The bytes of a selfie, for one purpose the person agreed to.

        Raises:
            ConsentMissing: no live consent for this purpose; recorded as an event.
            NotStored: this tenant has no such photo.
        """
        row = self._row(PhotoRow, tenant_id, photo_id)
        grant = self._consents.grant(tenant_id, row.identity_id, purpose, actor)
        details = {"purpose": purpose.value, "photo_id": photo_id}
        self._record_event("photo.read", row.identity_id, details, tenant_id=tenant_id, actor=actor)
        return self._vault.get(grant, Kind.PHOTO, photo_id)

    def delete_photo(self, tenant_id: str, photo_id: str) -> None:
        """Delete a selfie.

        Raises:
            NotStored: this tenant has no such photo.
        """
        row = self._row(PhotoRow, tenant_id, photo_id)
        self._vault.delete(tenant_id, row.identity_id, Kind.PHOTO, photo_id)
        self._delete_row(PhotoRow, tenant_id, photo_id)

    # Pictures

    @contextmanager
    def new_images(self, tenant_id: str) -> Iterator[NewImages]:
        """Finished pictures to be stored all together, or not at all.

        Within the block add them, then have `NewImages.keep` called in a write transaction. When
        the block ends without that, or with an error, their files are deleted. A process that dies
        in between leaves sealed files without rows; erasure finds them, because it deletes by name.
        """
        images = NewImages(tenant_id, self._vault, self._consents, self._clock, self._forget_looks)
        try:
            yield images
        except BaseException as error:
            images.drop()
            if isinstance(error, ConsentMissing) and images.refused is not None:
                # Not before the transaction that was refused has ended: the log needs its lock.
                with self._consents.refusals_recorded(tenant_id, images.refused, Purpose.GENERATE):
                    raise
            raise
        if not images.are_kept:
            images.drop()

    def drop_image_file(self, tenant_id: str, identity_id: str, image_id: str) -> None:
        """Delete the file of a picture that was never kept; no row may name it."""
        self._vault.delete(tenant_id, identity_id, Kind.IMAGE, image_id)

    def add_image(
        self,
        tenant_id: str,
        person_id: str,
        data: bytes,
        media_type: str,
        size: tuple[int, int],
        recipe: Recipe | None = None,
        identity_id: str | None = None,
        job_id: str | None = None,
    ) -> str:
        """Store a finished picture and return its id. Arguments and errors as `NewImages.add`."""
        with self.new_images(tenant_id) as images:
            made = images.add(person_id, data, media_type, size, recipe, identity_id, job_id)
            self._database.write(images.keep)
        return made

    def images(
        self, tenant_id: str, person_id: str | None = None, job_id: str | None = None
    ) -> list[ImageFacts]:
        """The pictures of a tenant, of one person or of one job, oldest first."""
        wanted = select(ImageRow).where(ImageRow.tenant_id == tenant_id)
        if person_id is not None:
            wanted = wanted.where(ImageRow.person_id == person_id)
        if job_id is not None:
            wanted = wanted.where(ImageRow.job_id == job_id)
        with self._database.reading() as session:
            rows = session.scalars(wanted.order_by(ImageRow.created_at, ImageRow.id))
            return [image_facts(row) for row in rows]

    def read_image(
        self, tenant_id: str, image_id: str, *, purpose: Purpose, actor: str = "service"
    ) -> bytes:
        """The marked file of a picture.

        Raises:
            ConsentMissing: not for this purpose; recorded as an event.
            NotStored: this tenant has no such picture.
        """
        row = self._row(ImageRow, tenant_id, image_id)
        grant = self._image_grant(row, purpose, actor)
        if purpose != Purpose.OWN_ACCESS:  # people look at their pictures all the time
            details = {"purpose": purpose.value, "image_id": image_id}
            self._record_event(
                "image.read", row.key_owner_id, details, tenant_id=tenant_id, actor=actor
            )
        return self._vault.get(grant, Kind.IMAGE, image_id)

    def read_recipe(
        self, tenant_id: str, image_id: str, *, purpose: Purpose, actor: str = "service"
    ) -> Recipe | None:
        """How a picture was made; None if that was not stored.

        Raises:
            ConsentMissing, NotStored: as `read_image`.
        """
        row = self._row(ImageRow, tenant_id, image_id)
        if row.sealed_recipe is None:
            return None
        grant = self._image_grant(row, purpose, actor)
        return Recipe(
            **json.loads(self._vault.open(grant, f"{image_id}/recipe", row.sealed_recipe))
        )

    def delete_image(self, tenant_id: str, image_id: str) -> None:
        """Delete a picture.

        Raises:
            NotStored: this tenant has no such picture.
        """
        row = self._row(ImageRow, tenant_id, image_id)
        self._vault.delete(tenant_id, row.key_owner_id, Kind.IMAGE, image_id)
        if row.record is not None:
            self._forget_looks([row.record])
        self._delete_row(ImageRow, tenant_id, image_id)

    def forget_looks_of(self, tenant_id: str, subject_id: str) -> int:
        """Have it forgotten how the pictures of an identity or person look; for `Eraser`.

        Returns:
            How many pictures there were. Those that are kept passed to another key before.
        """
        wanted = (ImageRow.tenant_id == tenant_id, ImageRow.key_owner_id == subject_id)
        with self._database.reading() as session:
            found = session.scalars(select(ImageRow.record).where(*wanted))
            records = [record for record in found if record is not None]
        if records:
            self._forget_looks(records)
        return len(records)

    def has_record(self, tenant_id: str, identity_id: str, record: int) -> bool:
        """Whether a picture of this identity leads to this audit entry."""
        wanted = (
            ImageRow.tenant_id == tenant_id,
            ImageRow.identity_id == identity_id,
            ImageRow.record == record,
        )
        with self._database.reading() as session:
            return session.scalars(select(ImageRow.id).where(*wanted)).first() is not None

    def delete_images_beside(self, tenant_id: str, identity_id: str) -> int:
        """Delete the pictures of others on which an identity is shown too; for `Eraser`."""
        wanted = (ImageRow.tenant_id == tenant_id, ImageRow.beside_id == identity_id)
        with self._database.reading() as session:
            names = list(session.scalars(select(ImageRow.id).where(*wanted)))
        for image_id in names:
            self.delete_image(tenant_id, image_id)
        return len(names)

    def keep_images_without_identity(self, tenant_id: str, identity_id: str) -> int:
        """Seal the pictures of an identity under its person's key, so that they outlive it.

        Safe to run again after a crash. Used by erasure, when the person keeps the pictures.
        """
        wanted = select(ImageRow).where(
            ImageRow.tenant_id == tenant_id, ImageRow.key_owner_id == identity_id
        )
        with self._database.reading() as session:
            rows = list(session.scalars(wanted))
        for row in rows:
            grant = self._consents.grant_while_erasing(tenant_id, identity_id)
            data = self._vault.get(grant, Kind.IMAGE, row.id)
            recipe = None
            if row.sealed_recipe is not None:
                recipe = self._vault.open(grant, f"{row.id}/recipe", row.sealed_recipe)
            self._vault.put(tenant_id, row.person_id, Kind.IMAGE, row.id, data)
            with self._database.writing() as session:
                moved = session.get_one(ImageRow, (tenant_id, row.id))
                moved.key_owner_id, moved.identity_id = row.person_id, None
                if recipe is not None:
                    moved.sealed_recipe = self._vault.seal(
                        tenant_id, row.person_id, f"{row.id}/recipe", recipe
                    )
        return len(rows)

    @contextmanager
    def _blob(
        self, tenant_id: str, owner_id: str, kind: Kind, object_id: str, data: bytes
    ) -> Iterator[None]:
        """A blob that stays only if the block, which stores its row, succeeds.

        A process that dies in between leaves a sealed file without a row; erasure finds it,
        because it deletes by name.
        """
        self._vault.put(tenant_id, owner_id, kind, object_id, data)
        try:
            yield
        except BaseException:
            self._vault.delete(tenant_id, owner_id, kind, object_id)
            raise

    def _image_grant(self, row: ImageRow, purpose: Purpose, actor: str) -> Grant:
        if row.identity_id is not None:
            return self._consents.grant(row.tenant_id, row.identity_id, purpose, actor)
        return self._consents.grant_person(row.tenant_id, row.person_id, purpose, actor)

    def _sealed_text(
        self, tenant_id: str, owner_id: str, object_id: str, text: str
    ) -> bytes | None:
        return self._vault.seal(tenant_id, owner_id, object_id, text.encode()) if text else None

    def _opened_text(self, grant: Grant, object_id: str, sealed: bytes | None) -> str:
        return "" if sealed is None else self._vault.open(grant, object_id, sealed).decode()

    def _row(self, table: type[Row], tenant_id: str, row_id: str) -> Row:
        with self._database.reading() as session:
            row = session.get(table, (tenant_id, row_id))
        if row is None:
            raise NotStored(f"There is no {table.__tablename__[:-1]} {row_id!r} here.")
        return row

    def _delete_row(self, table: type[Row], tenant_id: str, row_id: str) -> None:
        with self._database.writing() as session:
            row = session.get(table, (tenant_id, row_id))
            if row is not None:
                session.delete(row)


def _person(session: Session, tenant_id: str, person_id: str) -> PersonRow:
    """The person, locked until the transaction ends, so that an erasure waits or is seen."""
    row = session.get(PersonRow, (tenant_id, person_id), with_for_update=True)
    erasing = select(ErasureRow.id).where(
        ErasureRow.tenant_id == tenant_id, ErasureRow.subject_id == person_id
    )
    if row is None or session.scalars(erasing).first() is not None:
        raise NotStored(f"There is no person {person_id!r} here.")
    return row


def _check_name(name: str) -> None:
    if len(name) > MAX_NAME_CHARACTERS:
        raise InvalidInput(
            f"The name has {len(name)} characters; {MAX_NAME_CHARACTERS} are allowed."
        )


def _check_media(data: bytes, media_type: str) -> None:
    if media_type not in MEDIA_TYPES:
        raise InvalidInput(
            f"{media_type[:80]!r} is no media type we store. Known: {', '.join(MEDIA_TYPES)}."
        )
    if not data:
        raise InvalidInput("The picture is empty (0 bytes).")


def _word(name: str) -> str:
    """A name as one word for the audit log, which takes no sentences."""
    return re.sub(r"[^A-Za-z0-9_.:/+=-]", "_", name)[:100] or "unknown"


def _packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    return bytes(save_arrays(dict(arrays)))


def report_of(facts: dict[str, Any]) -> PhotoReport:
    """A photo report from its JSON.

    Raises:
        KeyError, TypeError, ValueError: the JSON is not that of a report.
    """
    return PhotoReport(
        name=facts["name"],
        verdict=PhotoVerdict(facts["verdict"]),
        sentences=tuple(facts["sentences"]),
        codes=tuple(facts["codes"]),
        measures=facts["measures"],
        face_count=facts["face_count"],
    )


def _identity_facts(row: IdentityRow) -> IdentityFacts:
    return IdentityFacts(
        id=row.id,
        person_id=row.person_id,
        version=row.version,
        state=IdentityState(row.state),
        encoder=row.encoder,
        model=row.model,
        licence=row.licence,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        expires_at=row.expires_at,
    )


def _photo_facts(row: PhotoRow) -> PhotoFacts:
    return PhotoFacts(
        id=row.id,
        identity_id=row.identity_id,
        media_type=row.media_type,
        byte_count=row.byte_count,
        created_at=row.created_at,
    )


def image_facts(row: ImageRow) -> ImageFacts:
    """What the tables say of a picture, without opening anything sealed."""
    return ImageFacts(
        id=row.id,
        person_id=row.person_id,
        identity_id=row.identity_id,
        job_id=row.job_id,
        media_type=row.media_type,
        byte_count=row.byte_count,
        width=row.width,
        height=row.height,
        created_at=row.created_at,
    )

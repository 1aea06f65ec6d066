"""Making a person known and forgetting them again: photos and a consent in, an identity out."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from PIL import Image

from imagine.core import Identity, PhotoReport
from imagine.errors import DifferentPeople, InvalidInput, NotStored
from imagine.identity import decode_photo, wipe
from imagine.identity.fuse import fingerprint, fuse_embeddings
from imagine.service.admission import Admission
from imagine.service.errors import BadParameter
from imagine.service.loaded_models import LoadedModels
from imagine.settings import Settings
from imagine.storage.consent import TICKS, ConsentBook, ConsentForm, Purpose
from imagine.storage.erasure import Eraser, Outputs
from imagine.storage.people import IdentityFacts, PeopleStore
from imagine.storage.verified import Standing, Standings

_PHOTO_QUALITY = 95  # of the JPEG a photo is kept as


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A new identity and what we think of its photos."""

    facts: IdentityFacts
    reports: tuple[PhotoReport, ...]
    standing: Standing


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """Signed certificates, as JSON objects; of the person too when nothing of them is left."""

    certificate: dict[str, Any]
    person_certificate: dict[str, Any] | None


class Enrolment:
    """Enrols people and erases them."""

    def __init__(
        self,
        people: PeopleStore,
        consents: ConsentBook,
        eraser: Eraser,
        models: LoadedModels,
        limits: Settings,
        admission: Admission,
        standings: Standings,
    ) -> None:
        self._people = people
        self._consents = consents
        self._eraser = eraser
        self._models = models
        self._limits = limits
        self._admission = admission
        self._standings = standings

    def enrol(
        self,
        tenant_id: str,
        photos: Sequence[bytes],
        form: ConsentForm,
        name: str = "",
        person_id: str | None = None,
        choose: Mapping[int, int] | None = None,
        actor: str = "service",
    ) -> Enrolled:
        """Make an identity out of photos; when anything is wrong nothing is kept.

        Args:
            tenant_id: whose.
            photos: one to five files.
            form: what the person agreed to; looked at before any photo is.
            name: what the person calls it.
            person_id: somebody known already, whose next version this is.
            choose: photo index -> index of the face that is theirs, both from 0, 0 is left.
            actor: who does it, as a pseudonym.

        Raises:
            InvalidInput: the consent or a photo cannot be used; each has its own class.
            EnrolmentRefused: a machine made a photo, or the person asked never to be shown.
            CheckMissing: a safety check cannot run.
            NotStored: this tenant has no such person.
        """
        check_consent(form)
        known = [one for one in self._people.identities(tenant_id) if one.person_id == person_id]
        if person_id is not None and not known:
            raise NotStored(f"There is no person {person_id!r} here.")
        self._admission.refuse_machine_made(tenant_id, photos, actor)
        face = self._models.describe(list(photos), dict(choose) if choose else None)
        return self._kept(tenant_id, photos, face, form, name, person_id, actor)

    def add_photos(
        self,
        tenant_id: str,
        identity_id: str,
        photos: Sequence[bytes],
        form: ConsentForm,
        choose: Mapping[int, int] | None = None,
        actor: str = "service",
    ) -> Enrolled:
        """Make the next version of an identity: what it was made of, and more photos.

        Where that is more than an identity may have, the oldest are left out. The old version
        stays as it is; a version has a consent of its own.

        Args:
            tenant_id: whose.
            identity_id: the version that is there.
            photos: one to five files.
            form: what the person agreed to, these photos included.
            choose: as `enrol`.
            actor: who does it, as a pseudonym.

        Raises:
            ConsentMissing: no live consent to use the version that is there.
            DifferentPeople: the photos show somebody else.
            InvalidInput, EnrolmentRefused, CheckMissing, NotStored: as `enrol`.
        """
        check_consent(form)
        known = self._people.identity(tenant_id, identity_id)
        name = self._people.read_identity_name(tenant_id, identity_id)
        self._admission.refuse_machine_made(tenant_id, photos, actor)
        purpose = Purpose.GENERATE
        before = self._people.read_identity(tenant_id, identity_id, purpose=purpose, actor=actor)
        try:
            more = self._models.describe(list(photos), dict(choose) if choose else None)
            try:
                face = self._joined(before, more)
            finally:
                wipe(more)
        finally:
            wipe(before)
        return self._kept(tenant_id, photos, face, form, name, known.person_id, actor)

    def _joined(self, before: Identity, more: Identity) -> Identity:
        encoder = self._models.faces[1]
        if before.recogniser != encoder.name or before.crops.shape[1:] != more.crops.shape[1:]:
            raise InvalidInput(
                f"This identity was measured by {before.recogniser}, and the service has "
                f"{encoder.name} now; they cannot be joined. Enrol the person anew."
            )
        if encoder.distance(before.embedding, more.embedding) > encoder.same_person_distance:
            raise DifferentPeople(
                "These photos show somebody else than the identity they were meant for. Add "
                "photos of the same person, or enrol the other one by themselves."
            )
        most = self._limits.max_photos
        crops = np.concatenate([before.crops, more.crops])[-most:]
        embeddings = np.concatenate([before.embeddings, more.embeddings])[-most:]
        return Identity(
            crops=crops,
            embeddings=embeddings,
            embedding=fuse_embeddings(embeddings),
            recogniser=encoder.name,
            reports=(*before.reports, *more.reports)[-most:],
            fingerprint=fingerprint(crops),
        )

    def _kept(
        self,
        tenant_id: str,
        photos: Sequence[bytes],
        face: Identity,
        form: ConsentForm,
        name: str,
        person_id: str | None,
        actor: str,
    ) -> Enrolled:
        """Store a face with its consent, or nothing of either."""
        owner, identity_id = person_id, None
        try:
            accepted = self._admission.judge(tenant_id, photos, face, actor)
            owner = owner or self._people.add_person(tenant_id)
            identity_id = self._people.add_identity(tenant_id, owner, name).id
            if accepted.needs_review:
                self._standings.hold(tenant_id, identity_id)
            self._consents.give(tenant_id, identity_id, form)
            if Purpose.KEEP_PHOTOS in form.purposes:
                for photo in photos:
                    kept = self._without_metadata(photo)
                    self._people.add_photo(tenant_id, identity_id, kept, "image/jpeg", actor)
            licence = self._models.faces[1].licence
            revision = self._models.info.model_revision
            facts = self._people.enrol(tenant_id, identity_id, face, revision, licence, actor)
            return Enrolled(facts, face.reports, self._standings.of(tenant_id, identity_id))
        except BaseException:
            if person_id is None and owner is not None:
                self._eraser.erase_person(tenant_id, owner)
            elif identity_id is not None:
                self._eraser.erase_identity(tenant_id, identity_id)
            raise
        finally:
            wipe(face)

    def check(
        self, photos: Sequence[bytes], choose: Mapping[int, int] | None = None
    ) -> tuple[PhotoReport, ...]:
        """What we think of photos; nothing is kept."""
        return self._models.check_photos(list(photos), dict(choose) if choose else None)

    def erase(
        self, tenant_id: str, identity_id: str, outputs: Outputs = Outputs.DELETE
    ) -> ErasureReceipt:
        """Erase an identity; with its last one, and no picture kept, the person as well.

        Raises:
            NotStored: this tenant never had such an identity.
        """
        person_id = self._person_of(tenant_id, identity_id)
        certificate = self._eraser.erase_identity(tenant_id, identity_id, outputs)
        person: str | None = None
        if person_id is not None and self._is_nothing_left(tenant_id, person_id):
            person = self._eraser.erase_person(tenant_id, person_id)
        return ErasureReceipt(
            json.loads(certificate), None if person is None else json.loads(person)
        )

    def _person_of(self, tenant_id: str, identity_id: str) -> str | None:
        try:
            return self._people.identity(tenant_id, identity_id).person_id
        except NotStored:
            return None  # erased already: the eraser knows, and gives the certificate again

    def _is_nothing_left(self, tenant_id: str, person_id: str) -> bool:
        left = self._people.identities(tenant_id, person_id)
        return not left and not self._people.images(tenant_id, person_id)

    def _without_metadata(self, photo: bytes) -> bytes:
        """The photo as plain pixels in a new file: no place, no date, nothing appended."""
        pixels = decode_photo(photo, None, self._limits)
        kept = io.BytesIO()
        Image.fromarray(pixels).save(kept, "JPEG", quality=_PHOTO_QUALITY, subsampling=0)
        return kept.getvalue()


def consent_form(
    text: str,
    purposes: Sequence[str],
    *,
    declared_adult: bool,
    declared_self: bool,
    locale: str,
    method: str,
    days: int,
) -> ConsentForm:
    """A form from the fields of a request.

    Raises:
        BadParameter: no such purpose, or too many days; names the field.
    """
    ticks = ticked(purposes)
    return ConsentForm(
        text, locale, ticks, declared_adult, declared_self, method, timedelta(days=days)
    )


def ticked(purposes: Sequence[str]) -> frozenset[Purpose]:
    """Ticks by their names, "keep_photos" or "keep photos".

    Raises:
        BadParameter: there is no such tick; lists the known ones.
    """
    known = {tick.value: tick for tick in sorted(TICKS)}
    asked = [purpose.strip().lower().replace(" ", "_") for purpose in purposes]
    unknown = [purpose for purpose in asked if purpose not in known]
    if unknown:
        raise BadParameter(
            "purposes", f"There is no purpose {unknown[0][:40]!r}. Known: {', '.join(known)}."
        )
    return frozenset(known[purpose] for purpose in asked)


def check_consent(form: ConsentForm) -> None:
    """Refuse a form under which no face may be made, before any photo is looked at.

    Raises:
        BadParameter: a declaration or the tick to generate is missing.
    """
    if not form.declared_adult:
        raise BadParameter(
            "declared_adult", "The person did not declare to be of age. Minors cannot enrol."
        )
    if not form.declared_self:
        raise BadParameter(
            "declared_self",
            'The person did not declare "this is me". Each person consents for themselves.',
        )
    if Purpose.GENERATE not in form.purposes:
        raise BadParameter(
            "consent_purposes",
            "Without the tick 'generate' no face is made. Ask the person for it.",
        )


def read_choice(text: str | None, photos: int) -> dict[int, int] | None:
    """Which face is theirs, from JSON like {"1": 0}: photo and face, both from 0.

    Raises:
        BadParameter: not of this form, or no such photo.
    """
    if not text:
        return None
    try:
        chosen = {int(photo): face for photo, face in json.loads(text).items()}
        is_fit = all(
            0 <= photo < photos and type(face) is int and face >= 0
            for photo, face in chosen.items()
        )
    except (ValueError, AttributeError, RecursionError):
        is_fit = False
    if not is_fit:
        raise BadParameter(
            "choose",
            'choose is not understood. Write JSON like {"1": 0}: photo 1 shows you as face 0, '
            "both counted from 0.",
        )
    return chosen

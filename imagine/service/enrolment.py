"""Making a person known and forgetting them again: photos and a consent in, an identity out."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from PIL import Image

from imagine.core import PhotoReport
from imagine.errors import NotStored
from imagine.identity import decode_photo, wipe
from imagine.service.errors import BadParameter
from imagine.service.loaded_models import LoadedModels
from imagine.settings import Settings
from imagine.storage.consent import TICKS, ConsentBook, ConsentForm, Purpose
from imagine.storage.erasure import Eraser, Outputs
from imagine.storage.people import IdentityFacts, PeopleStore

_PHOTO_QUALITY = 95  # of the JPEG a photo is kept as


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A new identity and what we think of its photos."""

    facts: IdentityFacts
    reports: tuple[PhotoReport, ...]


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
    ) -> None:
        self._people = people
        self._consents = consents
        self._eraser = eraser
        self._models = models
        self._limits = limits

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
            NotStored: this tenant has no such person.
        """
        check_consent(form)
        known = [one for one in self._people.identities(tenant_id) if one.person_id == person_id]
        if person_id is not None and not known:
            raise NotStored(f"There is no person {person_id!r} here.")
        face = self._models.make_identity(list(photos), dict(choose) if choose else None)
        owner = person_id or self._people.add_person(tenant_id)
        identity_id: str | None = None
        try:
            identity_id = self._people.add_identity(tenant_id, owner, name).id
            self._consents.give(tenant_id, identity_id, form)
            if Purpose.KEEP_PHOTOS in form.purposes:
                for photo in photos:
                    kept = self._without_metadata(photo)
                    self._people.add_photo(tenant_id, identity_id, kept, "image/jpeg", actor)
            licence = self._models.faces[1].licence
            revision = self._models.info.model_revision
            facts = self._people.enrol(tenant_id, identity_id, face, revision, licence, actor)
            return Enrolled(facts, face.reports)
        except BaseException:
            if person_id is None:
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

"""Everything about a person in one zip, and such a zip made a person again, somewhere else.

The zip is plain: whoever holds it needs no key and no software of ours. So it is written only
where the person asked for it, never to a temporary file. Reading one trusts nothing in it: no
name of it ever becomes a path, every size is counted while unpacking, and each face is measured
and judged anew by the rules of enrolment. That somebody passed the camera check, or that a
reviewer let them through, counts only with the signature of an installation we trust, over this
very face; that a face waits for a reviewer always counts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import IO, Any, Protocol, cast, get_type_hints

import numpy as np
import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from imagine.core import CROP_SIZE, Identity, PhotoReport, Recipe
from imagine.errors import UnusableArchive
from imagine.storage.consent import ConsentBook, ConsentForm, Purpose
from imagine.storage.database import utc_now
from imagine.storage.events import RecordEvent
from imagine.storage.people import (
    MAX_NAME_CHARACTERS,
    MEDIA_TYPES,
    IdentityFacts,
    PeopleStore,
    report_of,
)
from imagine.storage.tables import ID_LENGTH
from imagine.storage.verified import Standing, Standings

EXPORT_FORMAT = "imagine export 1"
INDEX = "index.json"
# tenant id, ids of the person and the identities -> what the audit log says of them
LogEntries = Callable[[str, Sequence[str]], Sequence[Mapping[str, object]]]
# tenant id, person id -> forgets them; what a broken import had stored
Erase = Callable[[str, str], object]


@dataclass(frozen=True, slots=True)
class Admitted:
    """A face of an archive that may come in.

    Attributes:
        face: measured here, from the crops; this is what is kept.
        model: of the images here, e.g. a revision.
        licence: of the recogniser here.
        needs_review: nothing may be made of it before a reviewer cleared the age.
    """

    face: Identity
    model: str
    licence: str
    needs_review: bool


class Gate(Protocol):
    """Who and what may come in; asked before anything is stored."""

    def admit_arrival(
        self, tenant_id: str, photos: Sequence[bytes], face: Identity, actor: str
    ) -> Admitted:
        """Judge a face by the rules of enrolment.

        Args:
            tenant_id: who takes the person in.
            photos: files of the archive that belong to the face; there may be none.
            face: as the archive has it; only its crops are to be believed.
            actor: who does it, as a pseudonym.

        Raises:
            EnrolmentRefused, InvalidInput, CheckMissing: as an enrolment.
        """
        ...

    def says_machine_made(self, picture: bytes) -> bool:
        """Whether a picture says of itself that a machine made it."""
        ...


@dataclass(frozen=True, slots=True)
class ImportLimits:
    """What an archive may hold; anything larger is refused while it is read, not after."""

    members: int = 5_000
    member_bytes: int = 64 * 1024 * 1024
    total_bytes: int = 2 * 1024 * 1024 * 1024
    index_bytes: int = 16 * 1024 * 1024
    identities: int = 100


DEFAULT_LIMITS = ImportLimits()
MAX_CROPS = 64  # photos in one face; far above what enrolment accepts


class Porter:
    """Carries people out of and into a store."""

    def __init__(
        self,
        people: PeopleStore,
        consents: ConsentBook,
        record_event: RecordEvent,
        log_entries: LogEntries,
        standings: Standings,
        signing_key: Ed25519PrivateKey,
        gate: Gate,
        erase: Erase,
        trusted_keys: Sequence[Ed25519PublicKey] = (),
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Be ready to carry.

        Args:
            people: who is carried.
            consents: what they agreed to.
            record_event: the audit log.
            log_entries: what the log says of them.
            standings: verified or not, waiting for a reviewer or not.
            signing_key: signs the standings that leave; what it signed is believed again.
            gate: the rules of enrolment, for those who come in.
            erase: forgets a person of whom only a part could be stored.
            trusted_keys: of other installations whose word on a standing is taken.
            clock: the time, with a zone.
        """
        self._people = people
        self._consents = consents
        self._record_event = record_event
        self._log_entries = log_entries
        self._standings = standings
        self._signing_key = signing_key
        self._gate = gate
        self._erase = erase
        self._trusted_keys = (signing_key.public_key(), *trusted_keys)
        self._clock = clock

    def export_person(
        self, tenant_id: str, person_id: str, file: IO[bytes], actor: str = "service"
    ) -> None:
        """Write everything about a person as a zip.

        Inside: `index.json` with every fact, photos and pictures as they are, and for each
        identity its face as safetensors.

        Args:
            tenant_id: whose.
            person_id: who.
            file: where the zip goes, as plain bytes; an answer to the person, not a shared folder.
            actor: who asked, as a pseudonym.

        Raises:
            NotStored: this tenant has no such person.
        """
        name = self._people.read_person_name(tenant_id, person_id)
        identities = self._people.identities(tenant_id, person_id)
        details = {"identities": len(identities)}
        self._record_event("person.exported", person_id, details, tenant_id=tenant_id, actor=actor)
        # Pictures are compressed already.
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            index = {
                "format": EXPORT_FORMAT,
                "exported_at": self._clock().isoformat(),
                "person": {"id": person_id, "name": name},
                "identities": [
                    self._export_identity(tenant_id, facts, archive, actor) for facts in identities
                ],
                "images": self._export_images(tenant_id, person_id, archive, actor),
                "log": [
                    dict(entry)
                    for entry in self._log_entries(
                        tenant_id, [person_id, *(facts.id for facts in identities)]
                    )
                ],
            }
            told = json.dumps(index, indent=1, ensure_ascii=False, default=_plain)
            archive.writestr(INDEX, told)

    def _export_identity(
        self, tenant_id: str, facts: IdentityFacts, archive: zipfile.ZipFile, actor: str
    ) -> dict[str, Any]:
        photos = []
        for photo in self._people.photos(tenant_id, facts.id):
            member = f"photos/{photo.id}{MEDIA_TYPES[photo.media_type]}"
            archive.writestr(
                member,
                self._people.read_photo(
                    tenant_id, photo.id, purpose=Purpose.OWN_ACCESS, actor=actor
                ),
            )
            photos.append({**asdict(photo), "file": member})
        consents = []
        for consent in self._consents.history(tenant_id, facts.id):
            consents.append({**asdict(consent), "purposes": sorted(consent.purposes)})
        told = {
            **asdict(facts),
            "name": self._people.read_identity_name(tenant_id, facts.id),
            "photos": photos,
            "consents": consents,
            "face": None,
            "standing": None,
        }
        if facts.encoder is not None:
            face = self._people.read_identity(
                tenant_id, facts.id, purpose=Purpose.OWN_ACCESS, actor=actor
            )
            member = f"faces/{facts.id}.safetensors"
            arrays = {
                "crops": face.crops,
                "embeddings": face.embeddings,
                "embedding": face.embedding,
            }
            packed = save_arrays(arrays)
            archive.writestr(member, packed)
            told["face"] = {
                "file": member,
                "fingerprint": face.fingerprint,
                "reports": [asdict(report) for report in face.reports],
            }
            told["standing"] = self._export_standing(tenant_id, facts.id, packed)
        return told

    def _export_standing(self, tenant_id: str, identity_id: str, face: bytes) -> dict[str, object]:
        standing = self._standings.of(tenant_id, identity_id)
        signature = self._signing_key.sign(_standing_words(standing, face))
        return {**_standing_facts(standing), "signature": base64.b64encode(signature).decode()}

    def _export_images(
        self, tenant_id: str, person_id: str, archive: zipfile.ZipFile, actor: str
    ) -> list[dict[str, Any]]:
        told = []
        own = Purpose.OWN_ACCESS
        for image in self._people.images(tenant_id, person_id):
            data = self._people.read_image(tenant_id, image.id, purpose=own, actor=actor)
            recipe = self._people.read_recipe(tenant_id, image.id, purpose=own, actor=actor)
            member = f"images/{image.id}{MEDIA_TYPES[image.media_type]}"
            archive.writestr(member, data)
            recipe_facts = None if recipe is None else asdict(recipe)
            told.append({**asdict(image), "file": member, "recipe": recipe_facts})
        return told

    def import_person(
        self,
        tenant_id: str,
        file: IO[bytes],
        consent: ConsentForm,
        limits: ImportLimits = DEFAULT_LIMITS,
        actor: str = "service",
    ) -> str:
        """Make a person from an export, under new ids and a consent given here and now.

        Consents in the archive were given to somebody else and count for nothing here. The whole
        archive is read and checked, and every face judged, before anything of it is stored.
        Embeddings in it are never used: faces are measured again from their crops. Photos come
        along only with the tick to keep them, pictures only if they say a machine made them.

        Args:
            tenant_id: who takes the person in.
            file: the zip, seekable.
            consent: what the person agrees to here; holds for every identity in the archive.
            limits: how large an archive may be.
            actor: who does it, as a pseudonym.

        Returns:
            The new id of the person.

        Raises:
            UnusableArchive: not an export, damaged, changed, too large, or built to do harm.
            InvalidInput: the consent form is not complete, or a face cannot be used.
            EnrolmentRefused: somebody may not become an identity here.
            CheckMissing: a safety check cannot run.
            NotStored: there is no such tenant.
        """
        with _Archive(file, limits) as archive:
            plan = _read_plan(archive)
            self._consents.check_form(consent)
            not_believed = sum(
                one.standing != Standing() and not self._believes(one, archive)
                for one in plan.identities
            )
            admitted = [self._admit(tenant_id, one, archive, actor) for one in plan.identities]
            self._check_pictures(plan, archive)
            person_id = self._people.add_person(tenant_id, plan.name)
            try:
                self._store(tenant_id, person_id, plan, admitted, archive, consent, actor)
            except BaseException:
                self._erase(tenant_id, person_id)
                raise
        details = {
            "identities": len(plan.identities),
            "images": len(plan.images),
            "standings_not_believed": not_believed,
        }
        self._record_event("person.imported", person_id, details, tenant_id=tenant_id, actor=actor)
        return person_id

    def _admit(
        self, tenant_id: str, plan: _IdentityPlan, archive: _Archive, actor: str
    ) -> Admitted | None:
        if plan.face is None:
            return None
        photos = [archive.read(member) for member, _ in plan.photos]
        face = _read_face(archive, plan.face)
        return self._gate.admit_arrival(tenant_id, photos, face, actor)

    def _check_pictures(self, plan: _Plan, archive: _Archive) -> None:
        """Nothing leaves this house unmarked, so nothing unmarked comes in to be shown again."""
        for image in plan.images:
            if not self._gate.says_machine_made(archive.read(image.member)):
                raise UnusableArchive(
                    f"{image.member[:80]!r} does not say that a machine made it, as pictures of "
                    "an export do. Give the zip as it was exported."
                )

    def _store(
        self,
        tenant_id: str,
        person_id: str,
        plan: _Plan,
        admitted: Sequence[Admitted | None],
        archive: _Archive,
        consent: ConsentForm,
        actor: str,
    ) -> None:
        identities = {
            identity.old_id: self._import_identity(
                tenant_id, person_id, identity, one, archive, consent, actor
            )
            for identity, one in zip(plan.identities, admitted, strict=True)
        }
        for image in plan.images:
            self._people.add_image(
                tenant_id,
                person_id,
                archive.read(image.member),
                image.media_type,
                image.size,
                recipe=image.recipe,
                identity_id=identities.get(image.old_identity_id or ""),
            )

    def _import_identity(
        self,
        tenant_id: str,
        person_id: str,
        plan: _IdentityPlan,
        admitted: Admitted | None,
        archive: _Archive,
        consent: ConsentForm,
        actor: str,
    ) -> str:
        ends_later = plan.expires_at is not None and plan.expires_at > self._clock()
        expires_at = plan.expires_at if ends_later else None
        made = self._people.add_identity(tenant_id, person_id, plan.name, expires_at)
        self._consents.give(tenant_id, made.id, consent, actor)
        standing = plan.standing
        if not self._believes(plan, archive):
            standing = Standing(held_at=standing.held_at)
        if admitted is not None and admitted.needs_review:
            standing = replace(standing, held_at=standing.held_at or self._clock())
        if standing != Standing():  # before there is a face to draw
            self._standings.take_over(tenant_id, made.id, standing)
        if Purpose.KEEP_PHOTOS in consent.purposes:
            for member, media_type in plan.photos:
                self._people.add_photo(tenant_id, made.id, archive.read(member), media_type, actor)
        if admitted is not None:
            face, model, licence = admitted.face, admitted.model, admitted.licence
            self._people.enrol(tenant_id, made.id, face, model, licence, actor)
        return made.id

    def _believes(self, plan: _IdentityPlan, archive: _Archive) -> bool:
        """Whether an installation we trust signed how this very face stands."""
        if plan.face is None:
            return False
        words = _standing_words(plan.standing, archive.read(plan.face.member))
        for key in self._trusted_keys:
            try:
                key.verify(plan.signature, words)
            except InvalidSignature:
                continue
            return True
        return False


class _Archive:
    """A zip from a stranger, read by name and never unpacked to a disk."""

    def __init__(self, file: IO[bytes], limits: ImportLimits) -> None:
        self.limits = limits
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise UnusableArchive(
                "This is not a zip archive, or it is cut off. Export it again."
            ) from error
        infos = self._zip.infolist()
        self._infos = {info.filename: info for info in infos}
        if len(infos) > limits.members:
            raise UnusableArchive(
                f"The archive has {len(infos)} members; at most {limits.members} are accepted."
            )
        if len(self._infos) != len(infos):
            raise UnusableArchive("Two members of the archive have one name. Export it again.")
        if sum(info.file_size for info in infos) > limits.total_bytes:
            raise UnusableArchive(
                f"The archive unpacks to more than {limits.total_bytes} bytes. Split it."
            )

    def __enter__(self) -> _Archive:
        return self

    def __exit__(self, *exception: object) -> None:
        self._zip.close()

    def __contains__(self, member: str) -> bool:
        return member in self._infos

    def read(self, member: str, limit: int | None = None) -> bytes:
        """The bytes of a member, never more than the limit, whatever the archive claims."""
        most = self.limits.member_bytes if limit is None else limit
        info = self._infos.get(member)
        if info is None:
            raise UnusableArchive(f"The archive has no {member[:80]!r}, which its index names.")
        if info.flag_bits & 0x1 or info.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise UnusableArchive(
                f"{member[:80]!r} is encrypted or packed in a way we do not read. Export it again."
            )
        try:
            with self._zip.open(info) as opened:
                data = opened.read(most + 1)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError) as error:
            raise UnusableArchive(f"{member[:80]!r} is damaged. Export it again.") from error
        if len(data) > most:
            raise UnusableArchive(f"{member[:80]!r} unpacks to more than {most} bytes.")
        return data


@dataclass(frozen=True, slots=True)
class _FacePlan:
    member: str
    encoder: str
    fingerprint: str
    reports: tuple[PhotoReport, ...]


@dataclass(frozen=True, slots=True)
class _IdentityPlan:
    old_id: str
    name: str
    expires_at: datetime | None
    photos: tuple[tuple[str, str], ...]  # member, media type
    face: _FacePlan | None
    standing: Standing
    signature: bytes  # of the standing and the face


@dataclass(frozen=True, slots=True)
class _ImagePlan:
    member: str
    media_type: str
    size: tuple[int, int]
    old_identity_id: str | None
    recipe: Recipe | None


@dataclass(frozen=True, slots=True)
class _Plan:
    name: str
    identities: tuple[_IdentityPlan, ...]
    images: tuple[_ImagePlan, ...]


def _read_plan(archive: _Archive) -> _Plan:
    """Check the index and every member it names; afterwards the archive can be relied on."""
    if INDEX not in archive:
        raise UnusableArchive(
            f"This zip is not the export of a person: it has no {INDEX}. Give the zip that the "
            "export wrote; of several people, one zip after the other."
        )
    try:
        index = json.loads(archive.read(INDEX, archive.limits.index_bytes))
        if index["format"] != EXPORT_FORMAT:
            raise ValueError(f"the format is not {EXPORT_FORMAT!r}")
        identities = tuple(
            _identity_plan(facts) for facts in sorted(index["identities"], key=_version)
        )
        images = tuple(_image_plan(facts) for facts in index["images"])
        plan = _Plan(_text(index["person"]["name"], MAX_NAME_CHARACTERS), identities, images)
        _check_plan(plan, archive)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UnusableArchive(
            f"The index of the archive is not one of ours ({type(error).__name__}). Give the zip "
            "as it was exported."
        ) from error
    return plan


def _check_plan(plan: _Plan, archive: _Archive) -> None:
    if len(plan.identities) > archive.limits.identities:
        raise UnusableArchive(
            f"The archive has {len(plan.identities)} identities; at most "
            f"{archive.limits.identities} are accepted."
        )
    pictures = [picture for identity in plan.identities for picture in identity.photos]
    pictures += [(image.member, image.media_type) for image in plan.images]
    for member, media_type in pictures:
        if not _looks_like(archive.read(member), media_type):
            raise UnusableArchive(f"{member[:80]!r} is not {media_type}. Export it again.")
    for identity in plan.identities:
        if identity.face is not None:
            _read_face(archive, identity.face)


def _identity_plan(facts: dict[str, Any]) -> _IdentityPlan:
    face = None
    if facts["face"] is not None:
        face = _FacePlan(
            member=_text(facts["face"]["file"], 200),
            encoder=_text(facts["encoder"], 100),
            fingerprint=_text(facts["face"]["fingerprint"], 200),
            reports=tuple(report_of(report) for report in facts["face"]["reports"]),
        )
    expires_at = facts["expires_at"]
    told = facts.get("standing")  # archives of before there were any have none
    standing, signature = (Standing(), b"") if told is None else _standing(told)
    return _IdentityPlan(
        old_id=_text(facts["id"], ID_LENGTH),
        name=_text(facts["name"], MAX_NAME_CHARACTERS),
        expires_at=None if expires_at is None else _moment(expires_at),
        photos=tuple((_text(p["file"], 200), _media_type(p)) for p in facts["photos"]),
        face=face,
        standing=standing,
        signature=signature,
    )


def _image_plan(facts: dict[str, Any]) -> _ImagePlan:
    old_identity_id = facts["identity_id"]
    return _ImagePlan(
        member=_text(facts["file"], 200),
        media_type=_media_type(facts),
        size=(_whole(facts["width"]), _whole(facts["height"])),
        old_identity_id=None if old_identity_id is None else _text(old_identity_id, ID_LENGTH),
        recipe=None if facts["recipe"] is None else _recipe(facts["recipe"]),
    )


def _read_face(archive: _Archive, plan: _FacePlan) -> Identity:
    try:
        arrays = load_arrays(archive.read(plan.member))
        crops, embeddings = arrays["crops"], arrays["embeddings"]
        embedding = arrays["embedding"]
    except (SafetensorError, KeyError, ValueError) as error:
        raise UnusableArchive(f"{plan.member[:80]!r} holds no face. Export it again.") from error
    photos, width = len(crops), embedding.shape[-1] if embedding.ndim else 0
    fits = (
        crops.dtype == np.uint8
        and crops.shape == (photos, CROP_SIZE, CROP_SIZE, 3)
        and 1 <= photos <= MAX_CROPS
        and embeddings.dtype == embedding.dtype == np.float32
        and embeddings.shape == (photos, width)
        and embedding.shape == (width,)
        and bool(np.isfinite(embeddings).all() and np.isfinite(embedding).all())
    )
    if not fits:
        raise UnusableArchive(
            f"The face in {plan.member[:80]!r} has another shape than ours. Export it again."
        )
    return Identity(
        crops=crops,
        embeddings=embeddings,
        embedding=embedding,
        recogniser=plan.encoder,
        reports=plan.reports,
        fingerprint=plan.fingerprint,
    )


def _standing(told: dict[str, Any]) -> tuple[Standing, bytes]:
    moments = {
        name: None if told[name] is None else _moment(told[name])
        for name in ("verified_at", "held_at", "cleared_at")
    }
    try:
        signature = base64.b64decode(_text(told["signature"], 100), validate=True)
    except binascii.Error as error:
        raise ValueError("signature") from error
    return Standing(**moments), signature


def _standing_facts(standing: Standing) -> dict[str, object]:
    return {
        name: None if moment is None else moment.isoformat()
        for name, moment in asdict(standing).items()
    }


def _standing_words(standing: Standing, face: bytes) -> bytes:
    """What is signed: how somebody stands, bound to the very face that was looked at."""
    facts = {
        "format": "imagine standing 1",
        "face_sha256": hashlib.sha256(face).hexdigest(),
        **_standing_facts(standing),
    }
    return rfc8785.dumps(cast("dict[str, str]", facts))


def _recipe(facts: dict[str, Any]) -> Recipe:
    recipe = Recipe(**facts)
    for name, kind in get_type_hints(Recipe).items():
        value = getattr(recipe, name)
        allowed = (int, float) if kind is float else (kind,)
        if isinstance(value, bool) or not isinstance(value, allowed):
            raise TypeError(name)
    return recipe


def _looks_like(data: bytes, media_type: str) -> bool:
    match media_type:
        case "image/jpeg":
            return data.startswith(b"\xff\xd8\xff")
        case "image/png":
            return data.startswith(b"\x89PNG\r\n\x1a\n")
        case "image/webp":
            return data[:4] == b"RIFF" and data[8:12] == b"WEBP"
        case _:  # HEIC and HEIF are ISO media files
            return data[4:8] == b"ftyp"


def _version(facts: dict[str, Any]) -> int:
    return _whole(facts["version"])


def _media_type(facts: dict[str, Any]) -> str:
    media_type = _text(facts["media_type"], 64)
    if media_type not in MEDIA_TYPES:
        raise ValueError("media type")
    return media_type


def _text(value: object, longest: int) -> str:
    if not isinstance(value, str) or len(value) > longest or "\0" in value:
        raise ValueError("text")
    return value


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
        raise ValueError("number")
    return value


def _moment(value: object) -> datetime:
    moment = datetime.fromisoformat(_text(value, 64))
    if moment.tzinfo is None:
        raise ValueError("time zone")
    return moment


def _plain(value: object) -> str:
    """How JSON tells what it has no type for."""
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)

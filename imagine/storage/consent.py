"""Who agreed to what, and the one door to a face: no live consent for the purpose, no grant.

Reads of faces, photos and pictures come through `ConsentBook.grant`, or through
`ConsentBook.allowed` when they write as well; `people.py` calls them. A refusal is an error and
an event for the audit log. Withdrawing takes effect before the call returns.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from imagine.errors import ConsentMissing, InvalidInput, NotStored
from imagine.storage.database import Database, new_id, utc_now
from imagine.storage.events import RecordEvent
from imagine.storage.tables import ConsentRow, ErasureRow, IdentityRow, IdentityState, PersonRow
from imagine.storage.vault import Grant

# tenant id, identity id -> how many queued and running jobs were cancelled
CancelJobs = Callable[[str, str], int]

LONGEST_CONSENT = timedelta(days=3 * 365)  # 740 ILCS 14/15(a): destroy within three years
MAX_TEXT_CHARACTERS = 50_000
_LOCALE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_METHOD = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class Purpose(StrEnum):
    """What a face may be used for. Each is a tick of its own, except the person's own access."""

    GENERATE = "generate"
    KEEP_PHOTOS = "keep_photos"
    REVIEW = "review"
    IMPROVE = "improve"
    OWN_ACCESS = "own_access"  # the person looks at or exports what is theirs: a right, no tick
    DECISION = "decision"  # a reviewer looks because somebody asked for a decision: a duty, no tick


TICKS = frozenset(Purpose) - {Purpose.OWN_ACCESS, Purpose.DECISION}


@dataclass(frozen=True, slots=True)
class ConsentForm:
    """What somebody filled in.

    Attributes:
        text: exactly what was shown.
        locale: language of the text, e.g. "en" or "de-DE".
        purposes: the ticks that were set.
        declared_adult: "I am of age" was ticked.
        declared_self: "this is me" was ticked.
        method: how it was given, as a word that names nobody, e.g. "web-form".
        lifetime: how long it holds, three years at most.
    """

    text: str = field(repr=False)
    locale: str
    purposes: Collection[Purpose]
    declared_adult: bool
    declared_self: bool
    method: str
    lifetime: timedelta = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Consent:
    """A consent on record. `text_sha256` is the hex hash of the text in UTF-8."""

    id: str
    identity_id: str
    person_id: str
    text: str = field(repr=False)
    text_sha256: str
    locale: str
    purposes: frozenset[Purpose]
    declared_adult: bool
    declared_self: bool
    method: str
    given_at: datetime
    expires_at: datetime
    withdrawn_at: datetime | None

    def is_live(self, now: datetime) -> bool:
        """Whether it holds at this moment."""
        return self.withdrawn_at is None and self.given_at <= now < self.expires_at


class ConsentBook:
    """Consents of all tenants: given, withdrawn, asked for."""

    def __init__(
        self,
        database: Database,
        record_event: RecordEvent,
        cancel_jobs: CancelJobs,
        clock: Callable[[], datetime] = utc_now,
        accepted_texts: Collection[str] | None = None,
    ) -> None:
        """Open the book.

        Args:
            database: where consents are kept.
            record_event: takes what happened to the audit log.
            cancel_jobs: stops the work on an identity when its consent is withdrawn.
            clock: the time, with a zone.
            accepted_texts: hex SHA-256 of the texts that hold today; a consent to another text
                counts no more, and the person is asked again. None: every text holds.
        """
        self._database = database
        self._record_event = record_event
        self._cancel_jobs = cancel_jobs
        self._clock = clock
        self._accepted_texts = None if accepted_texts is None else frozenset(accepted_texts)

    def give(
        self, tenant_id: str, identity_id: str, form: ConsentForm, actor: str = "service"
    ) -> Consent:
        """Put a consent on record.

        Raises:
            InvalidInput: a declaration is missing, nothing is ticked, or a field is malformed.
            ConsentMissing: consent to this identity was withdrawn; the person enrols anew.
            NotStored: this tenant has no such identity.
        """
        self.check_form(form)
        now = self._clock()
        with self._database.writing() as session:
            identity = _identity(session, tenant_id, identity_id, lock=True)
            if identity.state == IdentityState.FROZEN:
                raise ConsentMissing(
                    f"Consent to identity {identity_id} was withdrawn, which is final for this "
                    "identity. Make a new one from the photos."
                )
            row = ConsentRow(
                tenant_id=tenant_id,
                id=new_id("consent"),
                person_id=identity.person_id,
                identity_id=identity_id,
                text=form.text,
                text_sha256=text_sha256(form.text),
                locale=form.locale,
                purposes=sorted(form.purposes),
                declared_adult=form.declared_adult,
                declared_self=form.declared_self,
                method=form.method,
                given_at=now,
                expires_at=now + form.lifetime,
            )
            session.add(row)
            consent = _consent(row)
        self._record_event(
            "consent.given", identity_id, _public_facts(consent), tenant_id=tenant_id, actor=actor
        )
        return consent

    def withdraw(
        self,
        tenant_id: str,
        identity_id: str,
        purposes: Collection[Purpose] = TICKS,
        actor: str = "service",
    ) -> int:
        """Take consent back, at once; no reason is asked.

        The ticks that are not taken back live on. When none is left the identity is frozen.
        Doing it again is harmless, and finishes what a crash interrupted.

        Returns:
            How many queued and running jobs were cancelled.

        Raises:
            NotStored: this tenant has no such identity.
        """
        taken = frozenset(purposes)
        now = self._clock()
        with self._database.writing() as session:
            identity = _identity(session, tenant_id, identity_id, lock=True)
            rows = _consent_rows(session, tenant_id, identity_id)
            live = [row for row in rows if _consent(row).is_live(now)]
            for row in live:
                _withdraw_row(session, row, taken, now)
            session.flush()
            rows = _consent_rows(session, tenant_id, identity_id)
            if not any(_consent(row).is_live(now) for row in rows):
                identity.state = IdentityState.FROZEN
            frozen = identity.state == IdentityState.FROZEN
        generation_ended = frozen or Purpose.GENERATE in taken
        cancelled = self._cancel_jobs(tenant_id, identity_id) if generation_ended else 0
        details = {
            "purposes": sorted(taken),
            "frozen": frozen,
            "jobs_cancelled": cancelled,
        }
        self._record_event(
            "consent.withdrawn", identity_id, details, tenant_id=tenant_id, actor=actor
        )
        return cancelled

    def history(self, tenant_id: str, identity_id: str) -> list[Consent]:
        """Every consent of an identity, oldest first.

        Raises:
            NotStored: this tenant has no such identity.
        """
        with self._database.reading() as session:
            _identity(session, tenant_id, identity_id, lock=False)
            return [_consent(row) for row in _consent_rows(session, tenant_id, identity_id)]

    def grant(
        self, tenant_id: str, identity_id: str, purpose: Purpose, actor: str = "service"
    ) -> Grant:
        """Leave to open what an identity's key seals.

        Args:
            tenant_id: who asks.
            identity_id: whose face.
            purpose: what for; without a live consent for just that there is no grant.
            actor: who looks, as a pseudonym.

        Raises:
            ConsentMissing: no live consent for this purpose; recorded as an event.
            NotStored: this tenant has no such identity.
        """
        with (
            self.refusals_recorded(tenant_id, identity_id, purpose, actor),
            self._database.reading() as session,
        ):
            identity = _identity(session, tenant_id, identity_id, lock=False)
            return self._granted(session, identity, purpose)

    @contextmanager
    def allowed(
        self, tenant_id: str, identity_id: str, purpose: Purpose, actor: str = "service"
    ) -> Iterator[tuple[Session, IdentityRow, Grant]]:
        """A write transaction on an identity in which the purpose is consented to.

        Withdrawal and erasure wait for its end, or come before it and are seen.

        Raises:
            ConsentMissing, NotStored: as `grant`.
        """
        # The refusal is recorded outside the transaction, which holds SQLite's write lock.
        with (
            self.refusals_recorded(tenant_id, identity_id, purpose, actor),
            self._database.writing() as session,
        ):
            yield session, *self.allowed_within(session, tenant_id, identity_id, purpose)

    def allowed_within(
        self, session: Session, tenant_id: str, identity_id: str, purpose: Purpose
    ) -> tuple[IdentityRow, Grant]:
        """As `allowed`, in a write transaction of the caller, who lets refusals be recorded."""
        identity = _identity(session, tenant_id, identity_id, lock=True)
        return identity, self._granted(session, identity, purpose)

    def grant_person(
        self, tenant_id: str, person_id: str, purpose: Purpose, actor: str = "service"
    ) -> Grant:
        """Leave to open what a person's own key seals: the name, pictures that were kept.

        Raises:
            ConsentMissing: for anything but the person's own access; recorded as an event.
            NotStored: this tenant has no such person.
        """
        with self.refusals_recorded(tenant_id, person_id, purpose, actor):
            with self._database.reading() as session:
                if session.get(PersonRow, (tenant_id, person_id)) is None:
                    raise NotStored(f"There is no person {person_id!r} here.")
            if purpose != Purpose.OWN_ACCESS:
                raise ConsentMissing(
                    f"What belongs to {person_id} alone is not open for {purpose.value!r}. "
                    "Only the person may look at it."
                )
            return Grant(tenant_id, person_id, purpose)

    def grant_while_erasing(self, tenant_id: str, identity_id: str) -> Grant:
        """Leave to carry over the pictures a person keeps from an identity that is being erased.

        Raises:
            ConsentMissing: the identity is not being erased.
        """
        with self._database.reading() as session:
            row = session.get(IdentityRow, (tenant_id, identity_id))
        if row is None or row.state != IdentityState.ERASING:
            raise ConsentMissing(f"Identity {identity_id} is not being erased.")
        return Grant(tenant_id, identity_id, Purpose.OWN_ACCESS)

    def grant_for_decision(self, tenant_id: str, owner_id: str) -> Grant:
        """Leave for a reviewer to look at what somebody asked them to decide about.

        An appeal or a report of the person, a takedown by whoever is shown, or a case: these are
        answered without a tick, also after consent was withdrawn. Only `reviews.py` and what it
        is made of may call this, and writes every look into the audit log.

        Raises:
            NotStored: the identity, person or notice is being erased.
        """
        with self._database.reading() as session:
            erasing = select(ErasureRow.id).where(
                ErasureRow.tenant_id == tenant_id,
                ErasureRow.subject_id == owner_id,
            )
            if session.scalars(erasing).first() is not None:
                raise NotStored("What this was about is being erased. There is nothing to see.")
        return Grant(tenant_id, owner_id, Purpose.DECISION)

    def _granted(self, session: Session, identity: IdentityRow, purpose: Purpose) -> Grant:
        grant = Grant(identity.tenant_id, identity.id, purpose)
        if purpose == Purpose.OWN_ACCESS:
            return grant
        now = self._clock()
        if identity.state == IdentityState.FROZEN:
            raise ConsentMissing(
                f"Consent to identity {identity.id} was withdrawn; nothing is done with it any "
                "more. The person may enrol anew."
            )
        if identity.expires_at is not None and identity.expires_at <= now:
            raise ConsentMissing(
                f"Identity {identity.id} expired on {identity.expires_at:%Y-%m-%d}. "
                "Ask the person to enrol anew."
            )
        if not self._holds(session, identity, purpose, now):
            raise ConsentMissing(
                f"There is no live consent to use identity {identity.id} for {purpose.value!r}. "
                "Ask the person, with the present text."
            )
        return grant

    def _holds(
        self, session: Session, identity: IdentityRow, purpose: Purpose, now: datetime
    ) -> bool:
        # Only what decides, not the text of kilobytes: every request comes along here.
        live = select(ConsentRow.purposes, ConsentRow.text_sha256).where(
            ConsentRow.tenant_id == identity.tenant_id,
            ConsentRow.identity_id == identity.id,
            ConsentRow.withdrawn_at.is_(None),
            ConsentRow.given_at <= now,
            ConsentRow.expires_at > now,
        )
        accepted = self._accepted_texts
        return any(
            purpose in purposes and (accepted is None or text in accepted)
            for purposes, text in session.execute(live)
        )

    @contextmanager
    def refusals_recorded(
        self, tenant_id: str, subject: str, purpose: Purpose, actor: str = "service"
    ) -> Iterator[None]:
        """Records a refusal within the block; goes around a transaction, never inside."""
        try:
            yield
        except ConsentMissing:
            self._record_event(
                "consent.missing",
                subject,
                {"purpose": purpose.value},
                tenant_id=tenant_id,
                actor=actor,
            )
            raise

    def check_form(self, form: ConsentForm) -> None:
        """Refuse a form that `give` would refuse, before anything is made for it.

        Raises:
            InvalidInput: a declaration is missing, nothing is ticked, or a field is malformed.
        """
        if not form.declared_adult:
            raise InvalidInput("The person did not declare to be of age. Minors cannot enrol.")
        if not form.declared_self:
            raise InvalidInput(
                'The person did not declare "this is me". Each person consents for themselves.'
            )
        if not form.purposes or not TICKS.issuperset(form.purposes):
            raise InvalidInput(
                f"purposes is {sorted(form.purposes)}; tick at least one of {sorted(TICKS)}."
            )
        if not form.text.strip() or len(form.text) > MAX_TEXT_CHARACTERS or "\0" in form.text:
            raise InvalidInput(
                f"The consent text has {len(form.text)} characters; give exactly what was shown, "
                f"1 to {MAX_TEXT_CHARACTERS} characters."
            )
        if self._accepted_texts is not None and text_sha256(form.text) not in self._accepted_texts:
            raise InvalidInput(
                f"The consent text (SHA-256 {text_sha256(form.text)[:16]}) is not one that holds "
                "today. Show the present text."
            )
        if _LOCALE.fullmatch(form.locale) is None or len(form.locale) > 35:
            raise InvalidInput(f"locale is {form.locale[:40]!r}; write it like en or de-DE.")
        if _METHOD.fullmatch(form.method) is None:
            raise InvalidInput(
                f"method is {form.method[:70]!r}; write a lower-case word, like web-form."
            )
        if not timedelta(0) < form.lifetime <= LONGEST_CONSENT:
            raise InvalidInput(
                f"A consent for {form.lifetime.days} days; choose 1 to {LONGEST_CONSENT.days}."
            )


def text_sha256(text: str) -> str:
    """The hash a consent text is known by."""
    return hashlib.sha256(text.encode()).hexdigest()


def has_live_tick(session: Session, identity: IdentityRow, purpose: Purpose, now: datetime) -> bool:
    """Whether a tick is set right now; for retention, which reads no face."""
    rows = _consent_rows(session, identity.tenant_id, identity.id)
    consents = [_consent(row) for row in rows]
    return any(c.is_live(now) and purpose in c.purposes for c in consents)


def consent_ended_at(session: Session, identity: IdentityRow, now: datetime) -> datetime | None:
    """When the last consent of an identity ended; None while one lives, or if none was given."""
    consents = [_consent(r) for r in _consent_rows(session, identity.tenant_id, identity.id)]
    if not consents or any(consent.is_live(now) for consent in consents):
        return None
    return max(min(c.expires_at, c.withdrawn_at or c.expires_at) for c in consents)


def _identity(session: Session, tenant_id: str, identity_id: str, *, lock: bool) -> IdentityRow:
    row = session.get(IdentityRow, (tenant_id, identity_id), with_for_update=lock or None)
    if row is None or row.state == IdentityState.ERASING:
        raise NotStored(f"There is no identity {identity_id!r} here. Make one from the photos.")
    erasing = select(ErasureRow.id).where(
        ErasureRow.tenant_id == tenant_id, ErasureRow.subject_id == row.person_id
    )
    if session.scalars(erasing).first() is not None:
        raise NotStored(f"The person of identity {identity_id!r} is being erased.")
    return row


def _consent_rows(session: Session, tenant_id: str, identity_id: str) -> list[ConsentRow]:
    wanted = (ConsentRow.tenant_id == tenant_id, ConsentRow.identity_id == identity_id)
    found = session.scalars(select(ConsentRow).where(*wanted).order_by(ConsentRow.given_at))
    return list(found)


def _withdraw_row(
    session: Session, row: ConsentRow, taken: frozenset[Purpose], now: datetime
) -> None:
    left = [purpose for purpose in row.purposes if purpose not in taken]
    if len(left) == len(row.purposes):
        return
    row.withdrawn_at = now
    if left:  # a record is never changed: what still holds is a new one, to the same text
        session.add(
            ConsentRow(
                tenant_id=row.tenant_id,
                id=new_id("consent"),
                person_id=row.person_id,
                identity_id=row.identity_id,
                text=row.text,
                text_sha256=row.text_sha256,
                locale=row.locale,
                purposes=left,
                declared_adult=row.declared_adult,
                declared_self=row.declared_self,
                method="partial-withdrawal",
                given_at=now,
                expires_at=row.expires_at,
            )
        )


def _consent(row: ConsentRow) -> Consent:
    return Consent(
        id=row.id,
        identity_id=row.identity_id,
        person_id=row.person_id,
        text=row.text,
        text_sha256=row.text_sha256,
        locale=row.locale,
        purposes=frozenset(Purpose(purpose) for purpose in row.purposes),
        declared_adult=row.declared_adult,
        declared_self=row.declared_self,
        method=row.method,
        given_at=row.given_at,
        expires_at=row.expires_at,
        withdrawn_at=row.withdrawn_at,
    )


def _public_facts(consent: Consent) -> dict[str, object]:
    return {
        "consent_id": consent.id,
        "text_sha256": consent.text_sha256,
        "locale": consent.locale,
        "purposes": sorted(consent.purposes),
        "declared_adult": consent.declared_adult,
        "declared_self": consent.declared_self,
        "method": consent.method,
        "given_at": consent.given_at.isoformat(),
        "expires_at": consent.expires_at.isoformat(),
    }

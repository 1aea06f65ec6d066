"""What happened, in a log that nobody can quietly rewrite and that names nobody.

Each entry is canonical JSON (RFC 8785) and a leaf of a hash tree (RFC 6962, `merkle.py`). With
each entry the root of the tree so far is signed (`checkpoints.py`), so a change made without the
signing key is found, and found at its entry. A log written anew with the key is caught by any
older checkpoint that somebody kept elsewhere.

Who and what of a person stand in an entry only as keyed commitments: an HMAC under a key of that
person. Once the key is destroyed an entry says nothing of anybody, and the tree still stands.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol, TextIO

from sqlalchemy import BigInteger, LargeBinary, String, Text, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, Session, mapped_column

from imagine.errors import (
    AuditLogBroken,
    InvalidInput,
    NotStored,
    SigningKeyUnusable,
    UnreadableAuditLog,
)
from imagine.storage.audit_check import (
    EXPORT_FORMAT,
    StoredEntry,
    Verification,
    canonical,
    missing_entries,
    verify_entries,
)
from imagine.storage.checkpoints import Checkpoint, SigningKey, VerifierKey
from imagine.storage.database import Base, Database, utc_now
from imagine.storage.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    inclusion_proofs,
    leaf_hash,
    verify_inclusion,
)

MAX_ENTRY_BYTES = 8 * 1024

_KIND = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,63}")
# No blank and no @: a prompt, a sentence or an address cannot slip in as plain text.
_PLAIN_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/+=-]{0,127}")


class AuditEntryRow(Base):
    """One entry, never changed. `tenant_id` and `subject` repeat what `entry` says, to search."""

    __tablename__ = "audit_entries"

    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    tenant_id: Mapped[str | None] = mapped_column(String(64), index=True)
    subject: Mapped[str | None] = mapped_column(String(64), index=True)
    entry: Mapped[str] = mapped_column(Text)
    signature: Mapped[bytes] = mapped_column(LargeBinary)


class AuditHeadRow(Base):
    """The one row that all writers queue for: how large the tree is and how it goes on."""

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    origin: Mapped[str] = mapped_column(String(200))
    public_key: Mapped[bytes] = mapped_column(LargeBinary)
    size: Mapped[int] = mapped_column(BigInteger)
    peaks: Mapped[bytes] = mapped_column(LargeBinary)
    signature: Mapped[bytes] = mapped_column(LargeBinary)


class SubjectKeys(Protocol):
    """Where the log gets the keys of people; whoever keeps them destroys them on erasure."""

    def commitment_key(self, tenant_id: str, subject: str) -> bytes:
        """At least 16 secret bytes, always the same ones for one subject of one tenant.

        Raises:
            DataKeyDestroyed: this subject was erased.
        """


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who acted; stands in the log as a commitment under their own key."""

    id: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Private:
    """A value about the subject that the log may only vouch for, not show: any JSON value."""

    value: object = field(repr=False)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An entry as it stands in the log.

    Attributes:
        sequence: its place, from 0.
        text: its canonical JSON.
    """

    sequence: int
    text: str

    @property
    def facts(self) -> dict[str, Any]:
        """What it says: version, sequence, time, kind, tenant, subject, actor, details."""
        facts: dict[str, Any] = json.loads(self.text)
        return facts


@dataclass(frozen=True, slots=True)
class EntryProof:
    """All a stranger with the public key needs to see that an entry is in the log.

    Attributes:
        entry: the entry.
        path: sibling hashes up to the root, 32 bytes each.
        checkpoint: the signed root they lead to.
    """

    entry: AuditEntry
    path: tuple[bytes, ...]
    checkpoint: Checkpoint

    def convinces(self, key: VerifierKey) -> bool:
        """Whether the entry is in a log that the holder of `key` signed."""
        size, root = self.checkpoint.size, self.checkpoint.root
        leaf = leaf_hash(self.entry.text.encode())
        proven = verify_inclusion(leaf, self.entry.sequence, size, self.path, root)
        return proven and key.confirms(self.checkpoint)


class AuditLog:
    """The log of one database.

    Appends of several threads, processes and hosts are put in order by the database. An append
    inside a longer transaction (`within`) keeps the others waiting until that commits, so make it
    the last act of the transaction; then the deed and its entry stand or fall together.
    """

    def __init__(
        self,
        database: Database,
        signing_key: SigningKey,
        subject_keys: SubjectKeys,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._signing_key = signing_key
        self._subject_keys = subject_keys
        self._clock = clock

    def append(
        self,
        kind: str,
        subject: str | None,
        details: Mapping[str, object],
        actor: str | Person,
        *,
        tenant_id: str | None = None,
        within: Session | None = None,
    ) -> AuditEntry:
        """Write down what happened.

        Args:
            kind: what, in dotted words: "identity.read".
            subject: id of the person or identity it is about, of this tenant; only a commitment
                is kept. Log an erasure before the key is destroyed: afterwards nothing can be
                said about the subject any more.
            details: facts. Plain ones are numbers, yes or no, single words (ids, versions, names
                of models), lists of words and counts by name; wrap everything that says something
                of a person in `Private`.
            actor: name of a program in clear, or a `Person`.
            tenant_id: whose business it is, kept in clear; needed to speak of people.
            within: a writing session to take part in; its end decides about the entry too.

        Raises:
            InvalidInput: a field that could hold a person's words in clear, or too much of it.
            AuditLogBroken: the end of the log is not as it was signed; nothing was written.
            DataKeyDestroyed: the subject or the actor was erased.
            SigningKeyUnusable: this log was begun with another key.
        """
        _check_words(kind, details, actor, tenant_id)
        # Keys may lie far away; nobody else should wait for the head meanwhile.
        key = None if subject is None else self._key_of(tenant_id, subject)
        who = self._actor(tenant_id, actor)

        def appended(session: Session) -> AuditEntry:
            head = self._lock_head(session)
            facts = {
                "version": 1,
                "sequence": head.frontier.size,
                "time": self._clock().astimezone(UTC).isoformat(timespec="microseconds"),
                "kind": kind,
                "tenant": tenant_id,
                "subject": None if key is None else _pseudonym(key, subject),
                "actor": who,
                "details": _committed(details, key, head.frontier.size),
            }
            return self._write(session, head, facts)

        return self._database.write(appended) if within is None else appended(within)

    def checkpoint(self) -> Checkpoint:
        """The log as it stands now, signed. Keep copies where this machine cannot reach them."""
        with self._database.writing() as session:
            return self._lock_head(session).checkpoint

    @property
    def verifier_key(self) -> VerifierKey:
        """The public key that checks this log; publish it."""
        return self._signing_key.verifier_key(self.checkpoint().origin)

    def entries_about(self, tenant_id: str, subject: str) -> list[AuditEntry]:
        """All entries about a subject, oldest first; possible only while its key exists."""
        pseudonym = _pseudonym(self._key_of(tenant_id, subject), subject)
        about = AuditEntryRow.subject == pseudonym
        with self._database.reading() as session:
            chosen = select(AuditEntryRow).where(about).order_by(AuditEntryRow.sequence)
            return [AuditEntry(row.sequence, row.entry) for row in session.scalars(chosen)]

    def reveals(self, entry: AuditEntry, subject: str, name: str, value: object) -> bool:
        """Whether the private detail `name` of an entry about `subject` is `value`."""
        key = self._key_of(entry.facts["tenant"], subject)
        expected = {"commitment": commitment(key, [entry.sequence, name, value])}
        return bool(entry.facts["details"].get(name) == expected)

    def prove(self, sequence: int) -> EntryProof:
        """Prove that an entry is in the log as it stands; reads all entries.

        Raises:
            NotStored: there is no such entry.
        """
        with _snapshot(self._database) as (head, stored):
            found = [entry.text for entry in stored]
        if not 0 <= sequence < len(found) or head is None:
            raise NotStored(f"There is no entry {sequence}: the log has {len(found)} entries.")
        path = inclusion_proof(sequence, [leaf_hash(text.encode()) for text in found])
        return EntryProof(AuditEntry(sequence, found[sequence]), path, head.checkpoint)

    def prove_all(self, sequences: Iterable[int]) -> list[EntryProof]:
        """Prove that entries are in the log, all to one checkpoint; reads all entries once.

        Raises:
            NotStored: one of them is not there.
        """
        wanted = sorted(set(sequences))
        with _snapshot(self._database) as (head, stored):
            found = [entry.text for entry in stored]
        if wanted and (head is None or not 0 <= wanted[0] <= wanted[-1] < len(found)):
            raise NotStored(f"There is no entry {wanted[-1]}: the log has {len(found)} entries.")
        if head is None:
            return []
        paths = inclusion_proofs(wanted, [leaf_hash(text.encode()) for text in found])
        return [
            EntryProof(AuditEntry(sequence, found[sequence]), paths[sequence], head.checkpoint)
            for sequence in wanted
        ]

    def prove_extends(self, old: Checkpoint) -> tuple[tuple[bytes, ...], Checkpoint]:
        """Prove that the log as it stands begins with all of an older one; reads all entries.

        Returns:
            The hashes for `merkle.verify_consistency`, and the newer checkpoint they lead to.

        Raises:
            AuditLogBroken: the log is shorter than it was.
        """
        with _snapshot(self._database) as (head, stored):
            leaves = [leaf_hash(entry.text.encode()) for entry in stored]
        if head is None or old.size > len(leaves):
            raise AuditLogBroken(missing_entries(len(leaves), old.size))
        return consistency_proof(old.size, leaves), head.checkpoint

    def verify(self, kept: Sequence[Checkpoint] = ()) -> Verification:
        """Check every entry against our own key, its signature and the checkpoints kept."""
        return verify_database(self._database, self._signing_key.public_bytes, kept)

    def _lock_head(self, session: Session) -> _Head:
        """Wait for our turn to append and learn where the tree stands; begin it if need be."""
        row = _read_head(session, lock=True)
        if row is None:
            self._begin(session)
            row = _read_head(session, lock=True)
            assert row is not None
        if row.public_key != self._signing_key.public_bytes:
            raise SigningKeyUnusable(
                "This audit log was begun with another signing key. Give the key file it was "
                "begun with; a log cannot change its key without anybody noticing."
            )
        # Never sign what the database says without a signature of our own on it: else whoever can
        # write there could have a rewritten past signed by the next append.
        if not row.verifier_key.confirms(row.checkpoint):
            raise AuditLogBroken(
                f"The head of the audit log ({row.size} entries) is not as it was "
                "signed. Run `imagine-me audit verify` and restore the database from a backup."
            )
        return row

    def _begin(self, session: Session) -> None:
        origin = f"imagine-yourself/audit/{secrets.token_hex(8)}"
        empty = self._signing_key.sign(origin, 0, EMPTY_ROOT)
        dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
        first = dialect.insert(AuditHeadRow).values(
            id=1,
            origin=origin,
            public_key=self._signing_key.public_bytes,
            size=0,
            peaks=b"",
            signature=empty.signature,
        )
        begun = first.on_conflict_do_nothing(index_elements=["id"]).returning(AuditHeadRow.id)
        we_began = session.execute(begun).one_or_none() is not None  # else somebody just did
        if we_began and session.scalar(select(func.count()).select_from(AuditEntryRow)):
            raise AuditLogBroken(
                "The head of the audit log is gone, and its entries are still there. "
                "Restore the database from a backup."
            )

    def _write(self, session: Session, head: _Head, facts: dict[str, object]) -> AuditEntry:
        text = canonical(facts)
        if len(text) > MAX_ENTRY_BYTES:
            raise InvalidInput(
                f"An audit entry of {len(text)} bytes is too long (most: {MAX_ENTRY_BYTES}). "
                "Log ids and digests, not contents."
            )
        frontier = head.frontier.append(leaf_hash(text))
        signed = self._signing_key.sign(head.origin, frontier.size, frontier.root)
        session.execute(
            insert(AuditEntryRow).values(
                sequence=head.frontier.size,
                tenant_id=facts["tenant"],
                subject=facts["subject"],
                entry=text.decode(),
                signature=signed.signature,
            )
        )
        session.execute(
            update(AuditHeadRow)
            .where(AuditHeadRow.id == 1)
            .values(size=frontier.size, peaks=frontier.to_bytes(), signature=signed.signature)
            .execution_options(synchronize_session=False)
        )
        return AuditEntry(head.frontier.size, text.decode())

    def _actor(self, tenant_id: str | None, actor: str | Person) -> dict[str, str]:
        if isinstance(actor, Person):
            return {"person": _pseudonym(self._key_of(tenant_id, actor.id), actor.id)}
        return {"program": actor}

    def _key_of(self, tenant_id: str | None, subject: str) -> bytes:
        if tenant_id is None:
            raise InvalidInput("An audit entry that speaks of a person needs the tenant_id.")
        return self._subject_keys.commitment_key(tenant_id, subject)


def commitment(key: bytes, value: object) -> str:
    """HMAC-SHA256 of the canonical JSON of `value`, as hex; says nothing without the key."""
    if len(key) < 16:
        raise ValueError("A commitment under a guessable key hides nothing: give 16 bytes or more.")
    return hmac.new(key, canonical(value), hashlib.sha256).hexdigest()


def _pseudonym(key: bytes, subject: str | None) -> str:
    # The same in every entry, so that entries about somebody can be found while the key is.
    return commitment(key, ["subject", subject])


def _committed(
    details: Mapping[str, object], key: bytes | None, sequence: int
) -> dict[str, object]:
    """The details with commitments in place of what is private."""
    shown: dict[str, object] = dict(details)
    for name, value in details.items():
        if isinstance(value, Private):
            if key is None:
                raise InvalidInput(
                    f"The private detail {name!r} needs a subject whose key hides it."
                )
            # The sequence is part of it: equal values in two entries must not look equal.
            shown[name] = {"commitment": commitment(key, [sequence, name, value.value])}
    return shown


def verify_database(
    database: Database, public_key: bytes | None = None, kept: Sequence[Checkpoint] = ()
) -> Verification:
    """Check the log of a database; without a key, against the one the database itself names.

    To somebody who does not trust the machine, only a check against a key from elsewhere, and
    against checkpoints kept elsewhere, means something.

    Args:
        database: where the log is; nothing is changed in it.
        public_key: 32 bytes, who must have signed.
        kept: checkpoints from elsewhere, in any order.
    """
    with _snapshot(database) as (head, stored):
        if head is None:
            return verify_entries(stored, None, None, kept)
        key = VerifierKey(head.origin, public_key or head.public_key)
        return verify_entries(stored, key, head.checkpoint, kept)


def verifier_key_of(database: Database) -> VerifierKey:
    """The public key that the log of a database names; publish it, and compare it elsewhere.

    Raises:
        UnreadableAuditLog: this database has no log yet.
    """
    with database.reading() as session:
        head = _read_head(session)
    if head is None:
        raise _no_log_yet()
    return head.verifier_key


def export_log(database: Database, file: TextIO) -> Checkpoint:
    """Write the whole log as lines of JSON: the public key, the entries, the checkpoint.

    Raises:
        UnreadableAuditLog: this database has no log yet.
    """
    with _snapshot(database) as (head, stored):
        if head is None:
            raise _no_log_yet()
        _write_line(file, {"format": EXPORT_FORMAT, "key": str(head.verifier_key)})
        for entry in stored:
            signature = base64.b64encode(entry.signature).decode()
            # The text goes in as it stands, so that a damaged one is exported as it is.
            file.write(f'{{"entry":{entry.text},"signature":"{signature}"}}\n')
        _write_line(file, {"checkpoint": str(head.checkpoint)})
        return head.checkpoint


@dataclass(frozen=True, slots=True)
class _Head:
    """The head row as found in this transaction; nothing of it is believed yet."""

    origin: str
    public_key: bytes
    size: int
    peaks: bytes
    signature: bytes

    @property
    def frontier(self) -> Frontier:
        return Frontier.from_bytes(self.size, self.peaks)

    @property
    def verifier_key(self) -> VerifierKey:
        return VerifierKey(self.origin, self.public_key)

    @property
    def checkpoint(self) -> Checkpoint:
        try:
            root = self.frontier.root
        except ValueError:  # damaged; an empty root makes every check of it fail
            root = b""
        return Checkpoint(self.origin, self.size, root, self.signature, self.verifier_key.key_id)


def _read_head(session: Session, lock: bool = False) -> _Head | None:
    head = AuditHeadRow
    chosen = select(head.origin, head.public_key, head.size, head.peaks, head.signature)
    # SQLite knows no row locks and leaves this out: there the writing session holds the lock.
    row = session.execute(chosen.with_for_update() if lock else chosen).one_or_none()
    return None if row is None else _Head(*row)


@contextmanager
def _snapshot(database: Database) -> Iterator[tuple[_Head | None, Iterator[StoredEntry]]]:
    """The head and all entries as they are at one and the same moment, read bit by bit."""
    row = AuditEntryRow
    chosen = select(row.sequence, row.entry, row.signature, row.tenant_id, row.subject)
    in_order = chosen.order_by(row.sequence).execution_options(yield_per=500)
    with database.reading() as session:
        if not database.is_sqlite:  # whose reading transaction sees one moment by itself
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        head = _read_head(session)
        with session.execute(in_order) as found:
            yield (
                head,
                (
                    StoredEntry(sequence, text, signature, {"tenant": tenant, "subject": subject})
                    for sequence, text, signature, tenant, subject in found
                ),
            )


def _no_log_yet() -> UnreadableAuditLog:
    return UnreadableAuditLog(
        "This database has no audit log yet. It begins with the first thing that happens."
    )


def _write_line(file: TextIO, facts: dict[str, object]) -> None:
    file.write(canonical(facts).decode() + "\n")


def _check_words(
    kind: str, details: Mapping[str, object], actor: str | Person, tenant_id: str | None
) -> None:
    """Refuse everything in clear that is not a plain word, a number, or yes and no."""
    if not _KIND.fullmatch(kind):
        raise InvalidInput(f"{kind!r} is not a kind of event: write it as 'identity.read'.")
    for name, value in details.items():
        if not _FIELD.fullmatch(name):
            raise InvalidInput(f"{name!r} is not a name of a detail: write it like 'photo_count'.")
        if not isinstance(value, Private) and not _is_plain(value):
            # The value itself is not repeated: it may be what must not be written anywhere.
            raise InvalidInput(
                f"The detail {name!r} is not a plain word or number. Wrap it in Private() if it "
                "says something of a person, or log an id or a digest instead."
            )
    for role, word in (("actor", actor), ("tenant", tenant_id)):
        if isinstance(word, str) and not _PLAIN_WORD.fullmatch(word):
            raise InvalidInput(f"The {role} is not a plain word; wrap people in Person().")


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return _PLAIN_WORD.fullmatch(value) is not None
    if isinstance(value, list | tuple):
        return all(isinstance(one, str) and _is_plain(one) for one in value)
    if isinstance(value, Mapping):
        return all(_FIELD.fullmatch(str(n)) and type(count) is int for n, count in value.items())
    return value is None or isinstance(value, bool | int | float)

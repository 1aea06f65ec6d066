"""How the other files of this room tell the audit log what happened, without knowing it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from imagine.storage.audit_log import AuditLog, Person


class RecordEvent(Protocol):
    """Takes an event to the audit log. Called outside transactions, which may hold its lock."""

    def __call__(
        self,
        kind: str,
        subject: str | None,
        details: Mapping[str, object],
        *,
        tenant_id: str,
        actor: str,
    ) -> None:
        """Record an event.

        Args:
            kind: what happened, in dotted words.
            subject: id of the identity or person it is about; None once that is erased.
            details: plain words, ids and numbers; never a name, a prompt or a face.
            tenant_id: whose business it is.
            actor: id of a person, or the name of a program.
        """


def recorder(log: AuditLog) -> RecordEvent:
    """Events go to this log; an actor that is a person stands in it as a commitment."""

    def record(
        kind: str,
        subject: str | None,
        details: Mapping[str, object],
        *,
        tenant_id: str,
        actor: str,
    ) -> None:
        log.append(kind, subject, details, acting(actor), tenant_id=tenant_id)

    return record


def acting(actor: str) -> str | Person:
    """An actor as the log wants it: people as commitments, programs in clear."""
    return Person(actor) if actor.startswith("person_") else actor

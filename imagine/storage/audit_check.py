"""Checking an audit log: pure reading, from a database or an export, trusting only a public key.

The first entry that is not as it was signed is named, with what is wrong with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import rfc8785

from imagine.errors import InvalidInput, UnreadableAuditLog
from imagine.storage.checkpoints import Checkpoint, VerifierKey, from_base64, parse_checkpoint
from imagine.storage.merkle import Frontier, leaf_hash

EXPORT_FORMAT = "imagine-yourself audit log, version 1"


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of a whole log found.

    Attributes:
        size: entries found to be as they were signed before the check ended.
        first_bad: the first entry that is not as it was signed; None when all are.
        finding: in a sentence.
        checkpoint: the last signed state that was confirmed; None before the first entry.
    """

    size: int
    first_bad: int | None
    finding: str
    checkpoint: Checkpoint | None

    @property
    def is_intact(self) -> bool:
        """Whether every entry is as it was signed."""
        return self.first_bad is None


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as found, before anything is believed of it.

    Attributes:
        sequence: the place it claims.
        text: what should be canonical JSON.
        signature: what should be a signature of the tree up to it.
        columns: what its row says beside the text, to be compared with it.
    """

    sequence: int
    text: str
    signature: bytes
    columns: Mapping[str, object] = field(default_factory=dict)


def verify_export(
    path: Path, key: VerifierKey | None = None, kept: Sequence[Checkpoint] = ()
) -> Verification:
    """Check an exported log without any database; without a key, against the one in the file.

    Raises:
        UnreadableAuditLog: the file is no export, or what is not an entry in it was damaged.
    """
    with _open_export(path) as file:
        named = _key_line(file, path)
        entries = _ExportReader(file, path)
        return verify_entries(entries, key or named, lambda: entries.checkpoint, kept)


def verify_entries(
    entries: Iterable[StoredEntry],
    key: VerifierKey | None,
    claimed: Checkpoint | Callable[[], Checkpoint | None] | None,
    kept: Sequence[Checkpoint] = (),
) -> Verification:
    """Check entries one by one and stop at the first that is not as it was signed.

    Args:
        entries: in the order found.
        key: who must have signed; None only for a log that was never begun.
        claimed: the signed state that says how many entries there are; a function when it is
            known only after the last entry.
        kept: checkpoints from elsewhere, which may be older than the log.
    """
    foreign = next((old for old in kept if key is None or not key.confirms(old)), None)
    if foreign is not None:
        return _bad(0, None, _foreign(foreign, key))
    known: dict[int, set[bytes]] = {}
    for old in kept:
        known.setdefault(old.size, set()).add(old.root)
    frontier, confirmed = Frontier(), None
    trusted = 0  # entries that a kept checkpoint has confirmed
    for stored in entries:
        complaint = _complaint(stored, frontier.size)
        if complaint is not None or key is None:
            return _bad(frontier.size, confirmed, complaint or "There is no key to check it with.")
        frontier = frontier.append(leaf_hash(stored.text.encode()))
        signed = Checkpoint(key.name, frontier.size, frontier.root, stored.signature, key.key_id)
        if not key.confirms(signed):
            return _bad(stored.sequence, confirmed, _changed(stored.sequence))
        if known.get(frontier.size, {frontier.root}) != {frontier.root}:
            return _bad(trusted, confirmed, _rebuilt(trusted, frontier.size))
        confirmed = signed
        trusted = frontier.size if frontier.size in known else trusted
    end = claimed() if callable(claimed) else claimed
    complaint = _complaint_about_end(frontier, end, key, max(known, default=0))
    if complaint is not None:
        return _bad(min(frontier.size, end.size if end else frontier.size), confirmed, complaint)
    finding = f"All {frontier.size} entries are as they were signed."
    return Verification(frontier.size, None, finding, end)


def canonical(value: object) -> bytes:
    """The one spelling of a JSON value, as RFC 8785 has it.

    Raises:
        InvalidInput: not JSON, or a number that JSON readers disagree about.
    """
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]
    except rfc8785.CanonicalizationError as error:
        raise InvalidInput(
            f"An audit entry cannot hold this ({error}). Write big numbers as text."
        ) from error


def _complaint(stored: StoredEntry, place: int) -> str | None:
    """What is wrong with an entry by itself, at the place where it was found."""
    if stored.sequence != place:
        return f"Entry {place} is missing; entry {stored.sequence} stands in its place."
    facts = _parsed(stored.text)
    if facts is None:
        return f"Entry {place} was changed: it is not canonical JSON any more."
    if facts.get("sequence") != place:
        return f"Entry {place} was replaced by entry {facts.get('sequence')!r}."
    for name, value in stored.columns.items():
        if facts.get(name) != value:
            return f"The column {name} of entry {place} was changed; the entry says otherwise."
    return None


def _complaint_about_end(
    frontier: Frontier, end: Checkpoint | None, key: VerifierKey | None, expected: int
) -> str | None:
    """What is wrong with how a log ends, all its entries being in order."""
    size = frontier.size
    if (most := max(expected, end.size if end else 0)) > size:
        return missing_entries(size, most)
    if key is None:  # a log that was never begun
        return None
    if end is None:
        return f"The log stops after {size} entries without a signed end: it was cut off there."
    if end.size < size:
        return f"Entry {end.size} is not counted: the signed end has {end.size} entries."
    if end.root != frontier.root or not key.confirms(end):
        return f"The signed end of the log was changed; its {size} entries are as they were signed."
    return None


def _parsed(text: str) -> dict[str, Any] | None:
    """The JSON object of a line, or None unless this is its one canonical spelling."""
    try:
        facts = json.loads(text)
        is_canonical = rfc8785.dumps(facts) == text.encode()
    except (ValueError, RecursionError, rfc8785.CanonicalizationError):
        return None
    return facts if isinstance(facts, dict) and is_canonical else None


class _ExportReader:
    """The entries of an export; the checkpoint is known after the last one."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file = file
        self._path = path
        self.checkpoint: Checkpoint | None = None

    def __iter__(self) -> Iterator[StoredEntry]:
        for place, line in enumerate(self._file):
            facts = _parsed(line.removesuffix("\n"))
            if facts is not None and facts.keys() == {"checkpoint"}:
                self.checkpoint = parse_checkpoint(str(facts["checkpoint"]))
                if self._file.read(1):
                    raise UnreadableAuditLog(
                        f"Something stands behind the checkpoint of {str(self._path)!r}, which "
                        "should be its last line. Export the log again."
                    )
                return
            yield _exported_entry(facts, place)


def _exported_entry(facts: dict[str, Any] | None, place: int) -> StoredEntry:
    entry = facts.get("entry") if facts else None
    if facts is None or not isinstance(entry, dict) or facts.keys() != {"entry", "signature"}:
        return StoredEntry(place, "", b"")  # `_complaint` says that it was changed
    claimed = entry.get("sequence")
    sequence = claimed if type(claimed) is int else place
    signature = from_base64(str(facts["signature"])) or b""
    return StoredEntry(sequence, rfc8785.dumps(entry).decode(), signature)


@contextmanager
def _open_export(path: Path) -> Iterator[TextIO]:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            yield file
    except OSError as error:
        raise UnreadableAuditLog(
            f"The export {str(path)!r} cannot be read ({error.strerror})."
        ) from error


def _key_line(file: TextIO, path: Path) -> VerifierKey:
    facts = _parsed(file.readline(4096).removesuffix("\n"))
    if facts is None or facts.keys() != {"format", "key"} or facts["format"] != EXPORT_FORMAT:
        raise UnreadableAuditLog(
            f"{str(path)!r} is not an exported audit log: its first line should name the format "
            f"{EXPORT_FORMAT!r} and a key. Make one with `imagine-me audit export`."
        )
    return VerifierKey.parse(str(facts["key"]))


def _bad(first_bad: int, confirmed: Checkpoint | None, finding: str) -> Verification:
    size = confirmed.size if confirmed else 0
    return Verification(size, first_bad, finding, confirmed)


def _changed(sequence: int) -> str:
    return f"Entry {sequence} was changed: it is not what was signed when it was written."


def missing_entries(found: int, expected: int) -> str:
    """The sentence for a log that ends too early."""
    which = f"Entry {found} is" if expected - found == 1 else f"Entries {found}-{expected - 1} are"
    return f"{which} missing: a signed checkpoint has {expected} entries, the log has {found}."


def _rebuilt(first: int, size: int) -> str:
    where = f"entry {first}" if size - first == 1 else f"one of the entries {first}-{size - 1}"
    return (
        f"The log was written anew: {where} is not what the checkpoint you kept "
        f"(of {size} entries) has signed."
    )


def _foreign(old: Checkpoint, key: VerifierKey | None) -> str:
    ours = key.name if key else "no log at all"
    return (
        f"The checkpoint you kept is of the log {old.origin}, key {old.key_id.hex()}; here is "
        f"{ours}{f', key {key.key_id.hex()}' if key else ''}. Either it belongs to another log, "
        "or this log was written anew with another key."
    )

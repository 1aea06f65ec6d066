"""Evidence: pictures, what was decided about them and why nobody can have changed that, in a zip.

The zip is checked offline with nothing but itself and the public key of the audit log: a manifest
names every file by its hash, an entry of the log names the manifest, every entry comes with its
proof, and the proofs lead to one signed checkpoint. Compare the key with the one that was
published, or somebody may have made all of it with a key of their own.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from imagine.errors import EvidenceInvalid, SigningKeyUnusable, UnreadableAuditLog
from imagine.storage.audit_check import canonical
from imagine.storage.audit_log import AuditEntry, AuditLog, EntryProof
from imagine.storage.checkpoints import VerifierKey, from_base64, parse_checkpoint
from imagine.storage.database import utc_now
from imagine.storage.events import acting

FORMAT = "imagine-yourself evidence, version 1"
EXPORTED = "evidence.exported"
MAX_BYTES = 2 * 1024**3
MAX_FILES = 20_000
_MANIFEST, _KEY, _CHECKPOINT, _ENTRIES = (
    "manifest.json",
    "key.txt",
    "checkpoint.txt",
    "entries.jsonl",
)
# All that the zip reader is known to raise when bytes of a zip were changed.
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,  # also NotImplementedError: a method of compression nobody has
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
_README = """\
Evidence from an installation of Imagine yourself.

  pictures/        marked pictures, as they were shown or may be shown
  about.json       what was decided about them, by whom and why
  manifest.json    the SHA-256 of each of these files
  entries.jsonl    entries of the audit log with their proofs; one of them names the manifest
  checkpoint.txt   the signed state of the log the proofs lead to
  key.txt          the public key that signed it: compare it with the published one

Check it offline:  imagine-me reviews verify-evidence FILE --public-key KEY
"""


@dataclass(frozen=True, slots=True)
class EvidenceFile:
    """A picture of the evidence, marked."""

    name: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class EvidenceReport:
    """What a check of evidence found; there is none for evidence that does not hold.

    Attributes:
        pictures: names of the pictures.
        entries: how many entries of the log were proven.
        key: the key that vouches, as a line.
        is_key_known: whether the key was given, or only the file says so itself.
        exported_at: when, by the log.
        about: what was decided.
    """

    pictures: tuple[str, ...]
    entries: int
    key: str
    is_key_known: bool
    exported_at: str
    about: Mapping[str, Any]


class EvidenceMaker:
    """Makes evidence of what the audit log vouches for."""

    def __init__(self, log: AuditLog, clock: Callable[[], datetime] = utc_now) -> None:
        self._log = log
        self._clock = clock

    def make(
        self,
        tenant_id: str,
        subject: str,
        about: Mapping[str, object],
        pictures: Sequence[EvidenceFile],
        entries: Sequence[AuditEntry],
        act_id: str,
        actor: str,
    ) -> bytes:
        """A zip; that it was made, and what is in it, is an entry of the log as well.

        Args:
            tenant_id: whose.
            subject: identity, person or notice it is about.
            about: what was decided, as JSON values; nobody's name.
            pictures: marked files.
            entries: of the log, to be proven.
            act_id: the approved act that allows it.
            actor: who takes it out of the house.
        """
        files = {
            "README.txt": _README.encode(),
            "about.json": json.dumps(about, indent=2, sort_keys=True).encode(),
            **{f"pictures/{picture.name}": picture.data for picture in pictures},
        }
        proven = sorted({entry.sequence for entry in entries})
        manifest = canonical(
            {
                "format": FORMAT,
                "made_at": self._clock().isoformat(),
                "tenant": tenant_id,
                "act": act_id,
                "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
                "entries": proven,
            }
        )
        exported = self._log.append(
            EXPORTED,
            subject,
            {
                "act_id": act_id,
                "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
                "pictures": len(pictures),
            },
            acting(actor),
            tenant_id=tenant_id,
        )
        proofs = self._log.prove_all([*proven, exported.sequence])
        files |= {
            _MANIFEST: manifest,
            _KEY: f"{self._log.verifier_key}\n".encode(),
            _CHECKPOINT: str(proofs[0].checkpoint).encode(),
            _ENTRIES: b"".join(_line(proof) for proof in proofs),
        }
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return buffer.getvalue()


def verify_evidence(source: Path | bytes, key: VerifierKey | None = None) -> EvidenceReport:
    """Check evidence offline.

    Args:
        source: the zip or its path.
        key: the published key of the log; without it the one in the zip, which proves only that
            the parts belong together.

    Raises:
        EvidenceInvalid: something was changed, added or left out; names it.
    """
    with _opened(source) as archive:
        names = [item.filename for item in archive.infolist()]
        if len(set(names)) != len(names):
            raise EvidenceInvalid("A file stands in the evidence twice. Ask for it again.")
        files = {name: archive.read(name) for name in names}
    manifest = _json(files, _MANIFEST)
    if manifest.get("format") != FORMAT:
        raise EvidenceInvalid(f"The manifest is not of the format {FORMAT!r}.")
    named = _key(files)
    if key is not None and key != named:
        raise EvidenceInvalid(
            f"The evidence is signed by the key {named.name}, not by the one you gave. It is of "
            "another log, or was made up."
        )
    proofs = _proofs(files)
    for proof in proofs:
        if not proof.convinces(named):
            raise EvidenceInvalid(
                f"Entry {proof.entry.sequence} is not in the log that the checkpoint signs: it, "
                "its proof or the checkpoint was changed."
            )
    exported = _export_entry(proofs, files[_MANIFEST])
    _check_files(manifest, files)
    sequences = [proof.entry.sequence for proof in proofs]
    if sorted([*_listed(manifest), exported.sequence]) != sorted(sequences):
        raise EvidenceInvalid("Entries of the log were added or left out since the export.")
    return EvidenceReport(
        pictures=tuple(name for name in files if name.startswith("pictures/")),
        entries=len(proofs),
        key=str(named),
        is_key_known=key is not None,
        exported_at=str(exported.facts["time"]),
        about=_json(files, "about.json"),
    )


@contextmanager
def _opened(source: Path | bytes) -> Iterator[zipfile.ZipFile]:
    """The archive, if it is one and will not fill the memory."""
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
        with file, zipfile.ZipFile(file) as archive:
            items = archive.infolist()
            if len(items) > MAX_FILES or sum(item.file_size for item in items) > MAX_BYTES:
                raise EvidenceInvalid("The file is too large to be evidence of ours.")
            yield archive
    except _UNREADABLE as error:
        raise EvidenceInvalid(
            f"The evidence cannot be read as a zip file ({type(error).__name__}): it is damaged, "
            "cut off, or something else."
        ) from error


def _line(proof: EntryProof) -> bytes:
    path = [base64.b64encode(node).decode() for node in proof.path]
    return canonical({"entry": proof.entry.facts, "path": path}) + b"\n"


def _proofs(files: Mapping[str, bytes]) -> list[EntryProof]:
    try:
        checkpoint = parse_checkpoint(_file(files, _CHECKPOINT).decode())
        proofs = []
        for line in _file(files, _ENTRIES).splitlines():
            told = json.loads(line)
            text = canonical(told["entry"]).decode()
            path = tuple(from_base64(node) or b"" for node in told["path"])
            sequence = int(told["entry"]["sequence"])
            proofs.append(EntryProof(AuditEntry(sequence, text), path, checkpoint))
    except (ValueError, KeyError, TypeError, RecursionError, UnreadableAuditLog) as error:
        raise EvidenceInvalid(
            "The entries or the checkpoint of the evidence are damaged. Ask for it again."
        ) from error
    return proofs


def _export_entry(proofs: Sequence[EntryProof], manifest: bytes) -> AuditEntry:
    digest = hashlib.sha256(manifest).hexdigest()
    for proof in proofs:
        facts = proof.entry.facts
        if facts["kind"] == EXPORTED and facts["details"].get("manifest_sha256") == digest:
            return proof.entry
    raise EvidenceInvalid("No entry of the log vouches for this manifest: it was changed.")


def _check_files(manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    told = manifest.get("files")
    named = told if isinstance(told, dict) else {}
    rest = files.keys() - {_MANIFEST, _KEY, _CHECKPOINT, _ENTRIES}
    if extra := sorted(rest - named.keys()):
        raise EvidenceInvalid(f"{extra[0]!r} was added to the evidence; nothing vouches for it.")
    for name, digest in named.items():
        if hashlib.sha256(_file(files, name)).hexdigest() != digest:
            raise EvidenceInvalid(f"{name!r} was changed: it is not what the manifest names.")


def _listed(manifest: Mapping[str, Any]) -> list[int]:
    listed = manifest.get("entries")
    return [one for one in listed if type(one) is int] if isinstance(listed, list) else []


def _key(files: Mapping[str, bytes]) -> VerifierKey:
    try:
        return VerifierKey.parse(_file(files, _KEY).decode())
    except (SigningKeyUnusable, UnicodeDecodeError) as error:
        raise EvidenceInvalid("The public key in the evidence is damaged.") from error


def _file(files: Mapping[str, bytes], name: str) -> bytes:
    if name not in files:
        raise EvidenceInvalid(f"{name!r} is missing from the evidence.")
    return files[name]


def _json(files: Mapping[str, bytes], name: str) -> Mapping[str, Any]:
    try:
        told = json.loads(_file(files, name))
    except (ValueError, RecursionError) as error:
        raise EvidenceInvalid(f"{name!r} is damaged.") from error
    if not isinstance(told, dict):
        raise EvidenceInvalid(f"{name!r} is damaged.")
    return told

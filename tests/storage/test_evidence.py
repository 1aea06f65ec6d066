from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from imagine.errors import EvidenceInvalid
from imagine.storage.checkpoints import SigningKey
from imagine.storage.database import open_database
from imagine.storage.evidence import EvidenceFile, verify_evidence
from imagine.storage.reviews import Ruling
from tests.storage.house import TENANT
from tests.storage.office import ANN, Office

Files = dict[str, bytes]


@pytest.fixture
def office(sqlite_url: str) -> Office:
    return Office(open_database(sqlite_url))


@pytest.fixture
def made(office: Office) -> bytes:
    """Evidence of a decided review with one picture."""
    review = office.blocked()
    office.house.add_draft()  # others have entries too
    office.decide(review, Ruling.LEAVE)
    entries = office.log.entries_about(TENANT, office.identity_id)
    pictures = [EvidenceFile("withheld_1.png", b"a marked picture")]
    about = {"review": review.id, "ruling": "leave"}
    words = (TENANT, office.identity_id, about, pictures, entries, "act_1", ANN)
    return office.evidence.make(*words)


def unpacked(data: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(files: Files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_evidence_is_checked_with_nothing_but_itself_and_a_key(
    office: Office, made: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "case.zip"
    path.write_bytes(made)
    found = verify_evidence(path, office.log.verifier_key)
    assert found.pictures == ("pictures/withheld_1.png",) and found.is_key_known
    assert found.entries == 3  # queued, decided, exported
    assert found.about["ruling"] == "leave"
    assert not verify_evidence(made).is_key_known
    [last] = office.log.entries_about(TENANT, office.identity_id)[-1:]
    assert last.facts["kind"] == "evidence.exported"


def test_evidence_signed_by_another_key_is_refused(office: Office, made: bytes) -> None:
    other = SigningKey.generate().verifier_key(office.log.verifier_key.name)
    with pytest.raises(EvidenceInvalid, match="another log"):
        verify_evidence(made, other)


def _edit(name: str, old: bytes, new: bytes) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        assert old in files[name]
        files[name] = files[name].replace(old, new, 1)

    return change


def _drop_line(files: Files) -> None:
    lines = files["entries.jsonl"].splitlines(keepends=True)
    files["entries.jsonl"] = b"".join(lines[1:])


def _shorten_list(files: Files) -> None:
    told = json.loads(files["manifest.json"])
    told["entries"] = told["entries"][1:]
    files["manifest.json"] = json.dumps(told).encode()


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (_edit("pictures/withheld_1.png", b"marked", b"masked"), "withheld_1.png' was changed"),
        (_edit("about.json", b"leave", b"remove"), "about.json' was changed"),
        (_edit("README.txt", b"offline", b"online!"), "README.txt' was changed"),
        (_edit("entries.jsonl", b'"leave"', b'"remove"'), "not in the log"),
        (_edit("entries.jsonl", b"key_ann", b"key_ben"), "not in the log"),
        (_edit("entries.jsonl", b'"sequence":', b'"sequence":1'), "not in the log"),
        (_edit("manifest.json", b"act_1", b"act_2"), "vouches for this manifest"),
        (_edit("checkpoint.txt", b"\n3\n", b"\n4\n"), "not in the log"),
        (_edit("key.txt", b"+", b"-"), "key in the evidence is damaged"),
        (_drop_line, "added or left out"),
        (_shorten_list, "vouches for this manifest"),
        (lambda files: files.pop("pictures/withheld_1.png"), "is missing"),
        (lambda files: files.pop("checkpoint.txt"), "is missing"),
        (lambda files: files.update({"pictures/more.png": b"x"}), "was added"),
        (lambda files: files.update({"entries.jsonl": b"{}\n"}), "damaged"),
        (lambda files: files.update({"manifest.json": b"[]"}), "damaged"),
    ],
)
def test_whatever_is_changed_is_found_and_named(
    made: bytes, change: Callable[[Files], None], finding: str
) -> None:
    files = unpacked(made)
    change(files)
    with pytest.raises(EvidenceInvalid, match=finding):
        verify_evidence(packed(files))


def test_what_is_no_evidence_is_an_error_and_no_crash(made: bytes, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    for nothing in (b"", b"PK", made[: len(made) // 2], packed({}), b"\0" * 1000):
        with pytest.raises(EvidenceInvalid):
            verify_evidence(nothing)
    for path in (tmp_path / "missing", tmp_path / "empty", tmp_path):
        with pytest.raises(EvidenceInvalid):
            verify_evidence(path)
    for place in range(0, len(made), 97):  # a flipped bit anywhere that matters
        flipped = bytearray(made)
        flipped[place] ^= 1
        try:
            verify_evidence(bytes(flipped))
        except EvidenceInvalid:
            continue
        assert unpacked(bytes(flipped)) == unpacked(made)  # the zip's own padding and dates


def test_a_file_that_would_fill_the_memory_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagine.storage.evidence.MAX_BYTES", 1000)
    with pytest.raises(EvidenceInvalid, match="too large"):
        verify_evidence(packed({"manifest.json": b"\0" * 2000}))

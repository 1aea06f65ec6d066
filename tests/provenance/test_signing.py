from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from imagine.errors import MarkingKeyUnusable
from imagine.provenance import (
    AuditReference,
    Provenance,
    identity_of,
    mark_image,
    open_marker,
    open_verifier,
    signing,
)
from imagine.provenance.signing import OperatorCertificate, open_marking_keys, operator_identity
from imagine.provenance.watermark_report import drawing


@pytest.fixture
def folder(marks: Path, marker: object, tmp_path: Path) -> Path:
    """A copy of an installation's keys, to be damaged."""
    return Path(shutil.copytree(marks, tmp_path / "marks"))


def test_the_first_run_makes_keys_only_the_owner_can_read_and_says_so(tmp_path: Path) -> None:
    keys = open_marking_keys(tmp_path / "data" / "marks")
    secret = ["watermark.key", "signing-key.pem", "authority-key.pem"]
    modes = {name: (tmp_path / "data/marks" / name).stat().st_mode & 0o777 for name in secret}
    assert set(modes.values()) == {0o600}
    assert "untrusted" in keys.note and "certificate" in keys.note
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == ["marks"]


def test_later_runs_find_the_same_keys_and_keep_quiet(tmp_path: Path) -> None:
    first, again = (open_marking_keys(tmp_path / "marks") for _ in range(2))
    assert again.note == "" and again.watermark_key == first.watermark_key
    assert again.identity.certificate_chain == first.identity.certificate_chain


def test_nothing_secret_shows_in_a_repr(tmp_path: Path) -> None:
    keys = open_marking_keys(tmp_path / "marks")
    assert "BEGIN" not in repr(keys) and str(keys.watermark_key) not in repr(keys)


@pytest.mark.parametrize("name", ["watermark.key", "signing-key.pem"])
def test_a_key_open_to_others_is_refused_with_the_command_that_mends_it(
    folder: Path, name: str
) -> None:
    (folder / name).chmod(0o640)
    with pytest.raises(MarkingKeyUnusable, match="chmod 600"):
        open_marking_keys(folder)


@pytest.mark.parametrize(
    "name", ["watermark.key", "signing-key.pem", "signing-chain.pem", "authority.pem"]
)
@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_a_missing_or_damaged_file_is_refused(
    folder: Path, name: str, content: bytes | None
) -> None:
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    with pytest.raises(MarkingKeyUnusable, match="backup"):
        open_marking_keys(folder)


def test_a_key_of_another_certificate_is_refused(folder: Path, tmp_path: Path) -> None:
    open_marking_keys(tmp_path / "other")
    with pytest.raises(MarkingKeyUnusable, match="does not belong"):
        operator_identity(
            folder / "signing-chain.pem",
            tmp_path / "other" / "signing-key.pem",
            folder / "authority.pem",
        )


def test_another_kind_of_key_is_refused(folder: Path) -> None:
    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "signing-key.pem").write_bytes(pem)
    with pytest.raises(MarkingKeyUnusable, match="P-256"):
        open_marking_keys(folder)


def test_a_key_that_lives_elsewhere_only_has_to_sign(marks: Path, marker: object) -> None:
    local = open_marking_keys(marks).identity
    asked: list[bytes] = []

    def sign(message: bytes) -> bytes:
        asked.append(message)
        return local.sign(message)

    identity = identity_of(local.certificate_chain, sign, local.trust_anchors)
    assert len(asked) == 1 and replace(identity, sign=local.sign) == local


def test_a_signing_certificate_about_to_end_is_renewed_under_the_same_authority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "_LEAF_YEARS", 0)
    old = open_marking_keys(tmp_path / "marks").identity
    monkeypatch.undo()
    new = open_marking_keys(tmp_path / "marks").identity
    leaf = x509.load_pem_x509_certificates(new.certificate_chain.encode())[0]
    assert leaf.not_valid_after_utc > datetime.now(UTC) + timedelta(days=1000)
    assert new.name == old.name and new.certificate_chain != old.certificate_chain


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MarkingKeyUnusable, match="could not be made"):
        open_marking_keys(tmp_path / "file" / "marks")


@pytest.fixture
def brought(tmp_path: Path) -> OperatorCertificate:
    """A certificate as an operator would bring it: from another authority."""
    open_marking_keys(tmp_path / "authority")
    folder = tmp_path / "authority"
    return OperatorCertificate(
        folder / "signing-chain.pem", folder / "signing-key.pem", folder / "authority.pem"
    )


def test_a_brought_certificate_signs_and_older_pictures_stay_ours(
    tmp_path: Path, brought: OperatorCertificate
) -> None:
    audit = AuditReference(5, "", "")
    own, _ = open_marker(tmp_path / "marks")
    before = mark_image(drawing(2, 128), None, own, audit).to_bytes(".jpg")
    theirs, keys = open_marker(tmp_path / "marks", operator=brought)
    after = mark_image(drawing(2, 128), None, theirs, audit).to_bytes(".jpg")
    assert keys.identity.name == own.identity.name
    assert keys.identity.certificate_chain == brought.chain.read_text()
    # A verifier is told nothing of the settings: the public half lies beside the keys.
    verifier = open_verifier(tmp_path / "marks")
    for data in (before, after):
        assert verifier.verify(data).verdict is Provenance.UNTOUCHED
    stranger = open_verifier(tmp_path / "authority").verify(before)
    assert stranger.manifest == "another's"


def test_a_brought_certificate_that_is_damaged_is_refused(
    tmp_path: Path, brought: OperatorCertificate
) -> None:
    with pytest.raises(MarkingKeyUnusable, match="could not be read"):
        open_marking_keys(tmp_path / "marks", None, replace(brought, chain=tmp_path / "missing"))
    open_marking_keys(tmp_path / "marks", None, brought)
    (copy,) = (tmp_path / "marks").glob("operator-*-roots.pem")
    copy.write_text("nonsense")
    with pytest.raises(MarkingKeyUnusable, match="backup"):
        open_marking_keys(tmp_path / "marks")

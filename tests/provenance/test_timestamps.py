"""Signatures with a time stamp of RFC 3161, from an authority that runs here for the test."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from imagine.errors import NotMarked
from imagine.provenance import (
    AuditReference,
    Provenance,
    identity_of,
    make_marking,
    mark_image,
    open_marker,
    open_verifier,
    signing,
)
from imagine.provenance.c2pa_manifest import read_manifest
from imagine.provenance.watermark_report import drawing
from imagine.settings import Settings

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl command")

_CONFIGURATION = """
[tsa]
default_tsa = here
[here]
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa-key.pem
certs = {folder}/chain.pem
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
accuracy = secs:1
ess_cert_id_alg = sha256
"""


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[tuple[str, list[int]]]:
    """The address of a time stamp authority, and how long each request to it was."""
    folder = tmp_path / "tsa"
    folder.mkdir()
    _make_certificates(folder)
    (folder / "openssl.cnf").write_text(_CONFIGURATION.format(folder=folder))
    (folder / "serial").write_text("01")
    asked: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(len(query))
            (folder / "query.tsq").write_bytes(query)
            command = ["openssl", "ts", "-reply", "-config", str(folder / "openssl.cnf")]
            command += ["-queryfile", str(folder / "query.tsq"), "-out", str(folder / "reply")]
            subprocess.run(command, check=True, capture_output=True)
            reply = (folder / "reply").read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", asked
    server.shutdown()
    server.server_close()


def _make_certificates(folder: Path) -> None:
    """An authority and a certificate for stamping under it, as PEM files."""
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = _certificate("root", root_key, "root", root_key, True)
    leaf = _certificate("stamps", key, "root", root_key, False)
    pem = serialization.Encoding.PEM
    (folder / "tsa.pem").write_bytes(leaf.public_bytes(pem))
    (folder / "chain.pem").write_bytes(root.public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "tsa-key.pem").write_bytes(secret)


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    is_root: bool,
) -> x509.Certificate:
    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test {text}")])

    start = datetime.now(UTC) - timedelta(days=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=30))
        .add_extension(x509.BasicConstraints(is_root, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    usage = signing._key_usage(certificates=is_root)
    builder = builder.add_extension(usage, critical=True)
    if not is_root:
        use = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
        builder = builder.add_extension(use, critical=True)
    return builder.sign(issuer_key, hashes.SHA256())


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_every_file_written_asks_for_a_stamp_and_stays_untouched(
    tmp_path: Path, authority: tuple[str, list[int]], suffix: str
) -> None:
    url, asked = authority
    settings = Settings(data_directory=tmp_path, timestamp_url=url)
    marking = make_marking(settings, lambda kind, facts: 3, "cd" * 32)
    data = marking(drawing(2, 128), None).to_bytes(suffix)
    assert len(asked) == 1 and asked[0] < 200  # a hash, and nothing of the picture
    report = open_verifier(tmp_path / "marks").verify(data)
    assert report.verdict is Provenance.UNTOUCHED


@pytest.mark.slow
def test_a_stamped_picture_outlives_its_certificate_and_an_unstamped_one_does_not(
    tmp_path: Path, authority: tuple[str, list[int]]
) -> None:
    open_marker(tmp_path / "marks")
    root_key = serialization.load_pem_private_key(
        (tmp_path / "marks" / "authority-key.pem").read_bytes(), None
    )
    root_pem = (tmp_path / "marks" / "authority.pem").read_bytes()
    root = x509.load_pem_x509_certificate(root_pem)
    assert isinstance(root_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    seconds = 15
    end = datetime.now(UTC) + timedelta(seconds=seconds)
    usage = signing._key_usage(certificates=False)
    leaf = (
        signing._certificate(
            signing._name("signer of pictures"), root.subject, key.public_key(),
            root_key.public_key(), 1,
        )
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
        )
    )  # fmt: skip
    leaf._not_valid_after = end.replace(tzinfo=None)
    chain = leaf.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    sign = signing.es256_with(pem, tmp_path)
    roots = root_pem.decode() + (tmp_path / "tsa" / "chain.pem").read_text()
    marker, _ = open_marker(tmp_path / "marks")
    readings = {}
    for url in (authority[0], None):
        identity = identity_of((chain + root_pem).decode(), sign, roots, timestamp_url=url)
        signer = replace(marker, identity=identity)
        data = mark_image(drawing(2, 128), None, signer, AuditReference(1, "", "")).to_bytes(".jpg")
        readings[url is not None] = (data, identity)
    time.sleep(max(0.0, (end - datetime.now(UTC)).total_seconds()) + 1.5)
    intact = {
        stamped: (reading := read_manifest(data, "JPEG", identity)) is not None and reading.intact
        for stamped, (data, identity) in readings.items()
    }
    assert intact == {True: True, False: False}


def test_an_authority_that_does_not_answer_keeps_the_picture_back(tmp_path: Path) -> None:
    settings = Settings(data_directory=tmp_path, timestamp_url="http://127.0.0.1:9/")
    marking = make_marking(settings, lambda kind, facts: 3, "cd" * 32)
    marked = marking(drawing(2, 128), None)
    with pytest.raises(NotMarked, match="time stamp service"):
        marked.to_bytes(".jpg")

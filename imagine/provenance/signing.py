"""Keys and certificates of the marks, made on the first run and kept in the data folder.

The local authority is good enough to recognise our own pictures, but nobody else knows it: other
people's tools will say "untrusted" until the operator brings a certificate that they trust.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from imagine.errors import MarkingKeyUnusable
from imagine.provenance.c2pa_manifest import GENERATOR, SigningIdentity
from imagine.provenance.spread_spectrum import MIN_KEY_BYTES

LOCAL_AUTHORITY_NOTE = (
    "A signing authority was made for this installation in {folder}. Pictures are signed with it, "
    "but other people's tools will call the signature untrusted, because they do not know this "
    "authority. Bring a certificate they know to change that; keep this folder secret and backed "
    "up: who has it can sign as you, and without it old pictures are no longer recognised."
)
MARKS_FOLDER = "marks"  # where the keys are, inside the data folder
_WATERMARK_KEY, _CA_KEY, _CA = "watermark.key", "authority-key.pem", "authority.pem"
_KEY, _CHAIN = "signing-key.pem", "signing-chain.pem"
_ROOTS = "-roots.pem"  # ends the name of the roots of an operator's certificate
_CA_YEARS, _LEAF_YEARS, _RENEW_DAYS = 30, 5, 90


@dataclass(frozen=True, slots=True)
class MarkingKeys:
    """All that is needed to mark and to recognise our marks.

    Attributes:
        watermark_key: secret of the invisible watermark.
        identity: who signs manifests.
        note: what the operator should be told; empty when nothing was made just now.
    """

    watermark_key: bytes = field(repr=False)
    identity: SigningIdentity
    note: str = ""


@dataclass(frozen=True, slots=True)
class OperatorCertificate:
    """A certificate from an authority that others know.

    Attributes:
        chain: PEM file, signing certificate first, then those above it.
        key: PEM file of its private key, readable by the owner only.
        anchors: PEM file of the roots above it.
    """

    chain: Path
    key: Path
    anchors: Path


def open_marking_keys(
    folder: Path, timestamp_url: str | None = None, operator: OperatorCertificate | None = None
) -> MarkingKeys:
    """The keys in `folder`; on the first run they are made, with an authority of our own.

    Args:
        folder: where they are.
        timestamp_url: RFC 3161 service; None asks nobody.
        operator: signs in place of our own authority, whose older signatures stay ours.

    Raises:
        MarkingKeyUnusable: a file is missing, damaged, open to others or does not fit the rest.
    """
    made = not folder.exists()
    if made:
        _make_whole(folder)
    watermark_key = _secret(folder / _WATERMARK_KEY)
    if len(watermark_key) < MIN_KEY_BYTES:
        raise MarkingKeyUnusable(
            f"{folder / _WATERMARK_KEY} has {len(watermark_key)} bytes, {MIN_KEY_BYTES} are the "
            "least. Restore it from a backup."
        )
    _renew_if_due(folder)
    own = (folder / _CHAIN, folder / _KEY, folder / _CA)
    paths = (operator.chain, operator.key, operator.anchors) if operator else own
    identity = operator_identity(*paths, timestamp_url=timestamp_url)
    if operator is not None:
        _remember_operator(folder, identity)
    former = _operators(folder)
    if operator is not None:
        former += (_public_identity(own[0], own[2]),)
        identity = replace(identity, name=former[-1].name)  # a public root is not ours alone
    identity = replace(identity, former=former)
    return MarkingKeys(
        watermark_key, identity, LOCAL_AUTHORITY_NOTE.format(folder=folder) if made else ""
    )


def _remember_operator(folder: Path, identity: SigningIdentity) -> None:
    """Keep the public half of a brought certificate, which verifying needs for ever."""
    leaf = x509.load_pem_x509_certificates(identity.certificate_chain.encode())[0]
    name = f"operator-{leaf.fingerprint(hashes.SHA256()).hex()[:16]}"
    try:
        (folder / f"{name}{_ROOTS}").write_text(identity.trust_anchors, "ascii")
        (folder / f"{name}.pem").write_text(identity.certificate_chain, "ascii")
    except OSError as error:
        raise MarkingKeyUnusable(
            f"The operator's certificate could not be copied to {folder}: "
            f"{error.strerror or error}. Allow writing there."
        ) from error


def _operators(folder: Path) -> tuple[SigningIdentity, ...]:
    """Everybody this installation signed as with a brought certificate."""
    roots = sorted(folder.glob(f"operator-*{_ROOTS}"))
    chains = [path.with_name(path.name.removesuffix(_ROOTS) + ".pem") for path in roots]
    pairs = zip(chains, roots, strict=True)
    return tuple(_public_identity(chain, root) for chain, root in pairs if chain.exists())


def _public_identity(chain: Path, anchors: Path) -> SigningIdentity:
    """An identity that recognises signatures and makes none."""
    try:
        return _identity(_public(chain), _cannot_sign, _public(anchors), None)
    except ValueError as error:
        raise MarkingKeyUnusable(
            f"The certificate {chain} or {anchors} is damaged. Restore it from a backup."
        ) from error


def _cannot_sign(message: bytes) -> bytes:
    raise MarkingKeyUnusable(f"There is no key here to sign {len(message)} bytes with.")


def operator_identity(
    chain: Path, key: Path, anchors: Path, *, timestamp_url: str | None = None
) -> SigningIdentity:
    """An identity from PEM files; a key that lives elsewhere goes into `SigningIdentity` directly.

    Args:
        chain: signing certificate first, then those above it; P-256, for signing, with the
            extended use "e-mail protection" or "document signing".
        key: its private key, readable by the owner only.
        anchors: roots whose signatures count as ours; add old ones so that old pictures stay ours.
        timestamp_url: RFC 3161 service; None asks nobody.

    Raises:
        MarkingKeyUnusable: a file is missing, damaged, open to others or does not fit the rest.
    """
    sign = es256_with(_secret(key), key)
    return identity_of(_public(chain), sign, _public(anchors), timestamp_url=timestamp_url)


def identity_of(
    chain: str, sign: Callable[[bytes], bytes], anchors: str, *, timestamp_url: str | None = None
) -> SigningIdentity:
    """An identity whose key may live elsewhere, e.g. in a key service; it signs once as a test.

    Args:
        chain: PEM as in `operator_identity`.
        sign: ES256 with the key of the first certificate: r and s, 64 bytes raw.
        anchors: PEM of the roots whose signatures count as ours.
        timestamp_url: RFC 3161 service; None asks nobody.

    Raises:
        MarkingKeyUnusable: the PEM is damaged or the key does not fit the certificate.
    """
    try:
        identity = _identity(chain, sign, anchors, timestamp_url)
        _prove(sign, x509.load_pem_x509_certificates(chain.encode())[0])
    except (ValueError, InvalidSignature, AttributeError, TypeError) as error:
        raise MarkingKeyUnusable(
            "The signing certificate does not belong to the signing key, or one of them or the "
            "roots is damaged. Restore them from a backup, or bring a matching pair."
        ) from error
    return identity


def _identity(
    chain: str, sign: Callable[[bytes], bytes], anchors: str, timestamp_url: str | None
) -> SigningIdentity:
    first = x509.load_pem_x509_certificates(chain.encode())[0]
    root = x509.load_pem_x509_certificates(anchors.encode())[0]
    name = root.fingerprint(hashes.SHA256()).hex()[:16]
    signer = (_one(first, NameOID.ORGANIZATION_NAME), _one(first, NameOID.COMMON_NAME))
    return SigningIdentity(chain, sign, anchors, name, signer, timestamp_url)


def _one(certificate: x509.Certificate, part: x509.ObjectIdentifier) -> str:
    found = certificate.subject.get_attributes_for_oid(part)
    return str(found[0].value) if found else ""


def es256_with(pem: bytes, name: Path) -> Callable[[bytes], bytes]:
    """A signing function over a private key in memory.

    Raises:
        MarkingKeyUnusable: not a P-256 private key without a password; `name` says which.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise MarkingKeyUnusable(
            f"{name} is not a private key we can read. Restore it from a "
            "backup, or use PEM without a password."
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise MarkingKeyUnusable(f"{name} holds another kind of key. ES256 needs a P-256 key.")

    def sign(message: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    return sign


def _prove(sign: Callable[[bytes], bytes], certificate: x509.Certificate) -> None:
    public, message = certificate.public_key(), b"does the key fit the certificate?"
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise ValueError("not an elliptic curve certificate")
    raw = sign(message)
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    public.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))


def _make_whole(folder: Path) -> None:
    """All files or none: made aside, then renamed; when two start at once, the first one wins."""
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}.part")
    try:
        aside.mkdir(parents=True, mode=0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        authority = _authority(key)
        _write_secret(aside / _WATERMARK_KEY, secrets.token_bytes(32))
        _write_secret(aside / _CA_KEY, _pem(key))
        (aside / _CA).write_bytes(authority.public_bytes(serialization.Encoding.PEM))
        _write_leaf(aside, key, authority)
        try:
            aside.rename(folder)
        except OSError:
            if not folder.exists():
                raise
    except OSError as error:
        raise MarkingKeyUnusable(
            f"The keys of the marks could not be made in {folder}: {error.strerror or error}. "
            "Make room or allow writing there, or choose another data folder."
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _renew_if_due(folder: Path) -> None:
    """A signing certificate that ends soon is made anew under the same authority."""
    try:
        leaf = x509.load_pem_x509_certificates((folder / _CHAIN).read_bytes())[0]
        if leaf.not_valid_after_utc - datetime.now(UTC) > timedelta(days=_RENEW_DAYS):
            return
        authority = x509.load_pem_x509_certificate((folder / _CA).read_bytes())
        key = serialization.load_pem_private_key(_secret(folder / _CA_KEY), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("not an elliptic curve key")
        _write_leaf(folder, key, authority)
    except (OSError, ValueError) as error:
        raise MarkingKeyUnusable(
            f"The signing certificate in {folder} is missing, damaged or could not be renewed. "
            "Restore the folder from a backup."
        ) from error


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = _name("authority of an installation")
    usage = _key_usage(certificates=True)
    builder = _certificate(name, name, key.public_key(), key.public_key(), _CA_YEARS)
    builder = builder.add_extension(x509.BasicConstraints(True, 1), critical=True)
    return builder.add_extension(usage, critical=True).sign(key, hashes.SHA256())


def _write_leaf(
    folder: Path, ca_key: ec.EllipticCurvePrivateKey, authority: x509.Certificate
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _certificate(
        _name("signer of pictures"), authority.subject, key.public_key(), ca_key.public_key(),
        _LEAF_YEARS,
    )  # fmt: skip
    builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
    builder = builder.add_extension(_key_usage(certificates=False), critical=True)
    # C2PA wants one of a few extended uses; this is the one every authority can give.
    purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
    leaf = builder.add_extension(purpose, critical=False).sign(ca_key, hashes.SHA256())
    chain = [leaf, authority]
    pem = b"".join(item.public_bytes(serialization.Encoding.PEM) for item in chain)
    _write_secret(folder / _KEY, _pem(key))
    (folder / _CHAIN).write_bytes(pem)


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    issuer_public: ec.EllipticCurvePublicKey,
    years: int,
) -> x509.CertificateBuilder:
    start = datetime.now(UTC) - timedelta(minutes=5)  # clocks of machines differ
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_public)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=365 * years))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(authority, critical=False)
    )


def _name(role: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, GENERATOR),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{GENERATOR}: {role}"),
        ]
    )


def _key_usage(certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write_secret(path: Path, content: bytes) -> None:
    """Whole, and readable by the owner only from the first byte on."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    partial.replace(path)


def _secret(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        mode = path.stat().st_mode
    except OSError as error:
        raise MarkingKeyUnusable(
            f"The key {path} could not be read: {error.strerror or error}. Restore it from a "
            "backup."
        ) from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise MarkingKeyUnusable(f"The key {path} is open to others. Run: chmod 600 {path}")
    return content


def _public(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise MarkingKeyUnusable(
            f"The certificate file {path} could not be read. Restore it from a backup."
        ) from error

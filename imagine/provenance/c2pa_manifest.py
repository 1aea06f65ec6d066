"""Content Credentials (C2PA): a signed manifest inside the file, and reading one back.

The private key never has to be here: signing is a function that gets bytes and returns an ES256
signature, so it may ask a key service. The only file that talks to the c2pa library.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from imagine.errors import NotMarked
from imagine.settings import VERSION

GENERATOR = "Imagine yourself"
WATERMARK_ALGORITHM = "imagine-yourself.spread-spectrum.1"
_FACTS_LABEL = "org.imagine-yourself.facts"
_MIME_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
_MAX_MANIFEST_TEXT = 1_000_000  # characters; ours has five thousand

# The library logs the text of exceptions that we translate anyway, and could quote file content.
logging.getLogger("c2pa").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class SigningIdentity:
    """Who signs: certificates and a function that signs with the key of the first of them.

    Attributes:
        certificate_chain: PEM, signing certificate first, root last or left out; P-256.
        sign: ES256: SHA-256 and ECDSA over the given bytes, returned as r and s, 64 bytes raw.
        trust_anchors: PEM of the roots whose signatures count as ours when verifying.
        name: public name of this installation; not secret, and nothing about any person.
        signer: organisation and common name of the signing certificate; a signature under the
            same roots counts as ours only with these, for a public root signs for many.
        timestamp_url: RFC 3161 service that confirms the time; None asks nobody. Without it
            signatures stop counting when the certificate expires.
        former: identities this installation signed with before; what they signed stays ours.
    """

    certificate_chain: str = field(repr=False)
    sign: Callable[[bytes], bytes] = field(repr=False)
    trust_anchors: str = field(repr=False)
    name: str
    signer: tuple[str, str]
    timestamp_url: str | None = None
    former: tuple[SigningIdentity, ...] = ()


@dataclass(frozen=True, slots=True)
class ManifestFacts:
    """What a manifest of ours says.

    Attributes:
        source_type: term of IPTC's vocabulary, e.g. "trainedAlgorithmicMedia".
        record: number of the audit record.
        model: revision of the model; `model_sha256` of its weights, hex.
        policy_sha256: hash of the policy in force, hex.
        perceptual_hash: PDQ of the picture, hex.
        installation: `SigningIdentity.name` of who made it.
    """

    source_type: str
    record: int
    model: str
    model_sha256: str
    policy_sha256: str
    perceptual_hash: str
    installation: str


@dataclass(frozen=True, slots=True)
class ManifestReading:
    """What could be made of the manifest in a file.

    Attributes:
        intact: the bytes are those that were signed, and the signature is right.
        ours: the signature is right and its certificate is ours, under one of our roots.
        says_us: the manifest names this program as its maker, rightly or not.
        signer: organisation of the certificate as written there; "" when unreadable.
        generator: the program it names as its maker.
        says_generated: it calls the picture made or changed by a trained model.
        facts: our facts; only to be believed when `ours`.
        problems: codes of what failed, as the standard names them.
    """

    intact: bool
    ours: bool
    says_us: bool
    signer: str = ""
    generator: str = ""
    says_generated: bool = False
    facts: ManifestFacts | None = None
    problems: tuple[str, ...] = ()


def sign_picture(data: bytes, kind: str, identity: SigningIdentity, facts: ManifestFacts) -> bytes:
    """The same file with a signed manifest inside; pixels and other metadata stay as they are.

    Args:
        data: a finished file; nothing may touch it afterwards.
        kind: "PNG", "JPEG" or "WEBP".
        identity: who signs.
        facts: what is signed.

    Raises:
        NotMarked: the key did not sign, the certificates do not fit, the time stamp service did
            not answer.
    """
    import c2pa

    signed = io.BytesIO()
    refusals: list[Exception] = []

    def sign(message: bytes) -> bytes:
        # Across the native code only "it failed" survives; the reason is kept here.
        try:
            return identity.sign(message)
        except Exception as error:
            refusals.append(error)
            raise

    try:
        # No thumbnail: it is an unblurred copy of the picture and up to 800 kB.
        with (
            c2pa.Context.from_dict({"builder": {"thumbnail": {"enabled": False}}}) as context,
            c2pa.Signer.from_callback(
                sign, c2pa.C2paSigningAlg.ES256, identity.certificate_chain, identity.timestamp_url
            ) as signer,
            c2pa.Builder(_manifest(kind, facts), context=context) as builder,
        ):
            builder.sign(signer, _MIME_TYPES[kind], io.BytesIO(data), signed)
    except c2pa.C2paError as error:
        reason = refusals[0] if refusals else error
        raise NotMarked(
            f"The picture could not be signed: {reason} Check the signing key, its certificates"
            + (f" and the time stamp service {identity.timestamp_url!r}." if identity.timestamp_url
               else ".")
        ) from reason  # fmt: skip
    return signed.getvalue()


def _manifest(kind: str, facts: ManifestFacts) -> dict[str, object]:
    agent = {"name": GENERATOR, "version": VERSION}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    source = "http://cv.iptc.org/newscodes/digitalsourcetype/" + facts.source_type
    actions = [
        {
            "action": "c2pa.created",
            "when": now,
            "digitalSourceType": source,
            "softwareAgent": agent,
        },
        {"action": "c2pa.watermarked.bound", "when": now, "softwareAgent": agent},
    ]
    binding = {
        "alg": WATERMARK_ALGORITHM,
        "blocks": [{"scope": {}, "value": f"{facts.record:08x}"}],
    }
    ours = {
        "record": facts.record,
        "model": facts.model,
        "model_sha256": facts.model_sha256,
        "policy_sha256": facts.policy_sha256,
        "pdq": facts.perceptual_hash,
        "installation": facts.installation,
    }
    return {
        "claim_generator_info": [agent],
        "format": _MIME_TYPES[kind],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": actions}},
            {"label": "c2pa.soft-binding", "data": binding},
            {"label": _FACTS_LABEL, "data": ours},
        ],
    }


def read_manifest(
    data: bytes, kind: str, identity: SigningIdentity | None = None
) -> ManifestReading | None:
    """Validate the manifest inside a file; None when there is none.

    Nothing is fetched: neither remote manifests nor revocation lists. Whatever the file holds, the
    answer is a reading; damage shows as `intact=False`.
    """
    reading = _read_as(data, kind, identity)
    if identity and reading and not reading.ours:
        former = (_read_as(data, kind, one) for one in identity.former)
        return next((one for one in former if one and one.ours), reading)
    return reading


def _read_as(data: bytes, kind: str, identity: SigningIdentity | None) -> ManifestReading | None:
    import c2pa

    settings: dict[str, object] = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
    if identity:
        settings["trust"] = {"user_anchors": identity.trust_anchors}
    try:
        with (
            c2pa.Context.from_dict(settings) as context,
            c2pa.Reader(_MIME_TYPES[kind], io.BytesIO(data), context=context) as reader,
        ):
            text, state = reader.json(), reader.get_validation_state()
    except c2pa.C2paError as error:
        if isinstance(error, c2pa.C2paError.ManifestNotFound):
            return None
        return _damaged(data, "unreadable")
    try:
        return _reading(text, state, identity)
    except (ValueError, RecursionError):
        return _damaged(data, "unreadable")


def _damaged(data: bytes, problem: str) -> ManifestReading:
    # What it said can no longer be parsed; whose it claimed to be stands there in plain text.
    return ManifestReading(False, False, GENERATOR.encode() in data, problems=(problem,))


def _reading(text: str, state: str | None, identity: SigningIdentity | None) -> ManifestReading:
    if len(text) > _MAX_MANIFEST_TEXT:
        raise ValueError("manifest too long")
    told = json.loads(text)
    active = _dict(_dict(told.get("manifests")).get(told.get("active_manifest")))
    results = _dict(_dict(told.get("validation_results")).get("activeManifest"))
    failed = tuple(_codes(results.get("failure")))
    passed = _codes(results.get("success"))
    trusted = {"signingCredential.trusted", "claimSignature.validated"} <= set(passed)
    generators = _list(active.get("claim_generator_info"))
    generator = str(_dict(generators[0]).get("name", "")) if generators else ""
    signature = _dict(active.get("signature_info"))
    signer = (str(signature.get("issuer", "")), str(signature.get("common_name", "")))
    assertions = [_dict(item) for item in _list(active.get("assertions"))]
    untrusted_only = {"signingCredential.untrusted"}
    return ManifestReading(
        intact=state in ("Valid", "Trusted") and set(failed) <= untrusted_only,
        ours=identity is not None and trusted and signer == identity.signer,
        says_us=generator == GENERATOR,
        signer=signer[0][:100],
        generator=generator[:100],
        says_generated=any("rainedAlgorithmicMedia" in json.dumps(item) for item in assertions),
        facts=_facts(assertions),
        problems=tuple(code for code in failed if code not in untrusted_only),
    )


def _facts(assertions: Iterable[Mapping[str, Any]]) -> ManifestFacts | None:
    by_label = {str(item.get("label")): _dict(item.get("data")) for item in assertions}
    ours = by_label.get(_FACTS_LABEL, {})
    words = ("model", "model_sha256", "policy_sha256", "pdq", "installation")
    record = ours.get("record")
    if not isinstance(record, int) or not all(isinstance(ours.get(word), str) for word in words):
        return None
    actions = _list(_dict(by_label.get("c2pa.actions.v2")).get("actions"))
    source = str(_dict(actions[0]).get("digitalSourceType", "")) if actions else ""
    return ManifestFacts(source.rpartition("/")[2], record, *(str(ours[word]) for word in words))


def _codes(items: object) -> list[str]:
    return [str(_dict(item).get("code", "")) for item in _list(items)]


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []

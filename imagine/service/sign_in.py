"""People sign in with their organisation: OpenID Connect, for browsers and for bearer tokens.

The issuer is found by its discovery document, its keys are kept for an hour and fetched anew when a
token names one we do not know. What a person may do is told by a claim; whose data they see by
another, or by themselves alone. Neither name nor address of anybody is kept: an account is a keyed
hash of issuer and subject.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from authlib.oidc.discovery import OpenIDProviderMetadata, get_well_known_url
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from imagine.errors import InvalidInput, ServiceUnreachable, SignInRefused
from imagine.service.auth import LOOPBACK, ROLES, Caller
from imagine.service.settings import OidcSettings

# Only signatures with a public key: "none" and shared secrets would let others sign too.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
LOGIN_SECONDS = 600  # from leaving for the issuer to coming back
CALLBACK_PATH = "/auth/callback"
_LEEWAY_SECONDS = 60
_KEYS_SECONDS = 3600.0
_KEYS_PAUSE_SECONDS = 30.0  # between two looks for a key nobody knows
_MOST_TOKEN_CHARACTERS = 16_384
_NONCE_BYTES = 12
# Makes the tenant of somebody, if it is not there yet.
AddTenant = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Departure:
    """A login on its way out.

    Attributes:
        url: where the browser goes.
        cookie: what it must bring back; sealed.
    """

    url: str
    cookie: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """Somebody who came back.

    Attributes:
        caller: who they are here.
        next_path: where they wanted to go, on this service.
    """

    caller: Caller
    next_path: str


class SignIn:
    """Logins and tokens of one issuer. Safe to use from many threads.

    Args:
        settings: the issuer, and what its claims mean here.
        key: 32 secret bytes of this service, the same in all its processes.
        add_tenant: makes the tenant of somebody who is new.
        http: a connection of one's own, for proxies or tests.
        clock: seconds since 1970.

    Raises:
        InvalidInput: a setting is missing, or the issuer is not https.
    """

    def __init__(
        self,
        settings: OidcSettings,
        key: bytes,
        add_tenant: AddTenant,
        http: httpx2.Client | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        _check(settings)
        self._settings = settings
        self._key = hmac.digest(key, b"imagine accounts 1", hashlib.sha256)
        self._seal = AESGCM(hmac.digest(key, b"imagine logins 1", hashlib.sha256))
        self._add_tenant = add_tenant
        self._http = http or httpx2.Client(timeout=10.0, follow_redirects=False)
        self._clock = clock
        self._lock = threading.Lock()
        self._metadata: OpenIDProviderMetadata | None = None
        self._keys: KeySet | None = None
        self._keys_at = 0.0
        self._known: set[tuple[str, str]] = set()  # tenants made by this process

    def __repr__(self) -> str:
        return f"SignIn({self._settings.issuer!r})"

    # Bearer tokens

    def caller(self, token: str) -> Caller:
        """Who sends this access or ID token.

        Raises:
            SignInRefused: not signed by the issuer for this service, expired, or of nobody who
                has a role here (`lacks_scope` is set then).
            ServiceUnreachable: the issuer cannot be asked for its keys.
        """
        return self._caller(self._claims(token, self._settings.audiences))

    # Logins

    def leave(self, next_path: str, base_url: str) -> Departure:
        """Begin a login; `next_path` is where to go afterwards, on this service.

        Raises:
            ServiceUnreachable: the issuer does not answer.
        """
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        words = {
            "redirect_uri": self._callback(base_url),
            "state": state,
            "nonce": nonce,
            "code_challenge": create_s256_code_challenge(verifier),
            "code_challenge_method": "S256",
        }
        url = prepare_grant_uri(
            self._metadata_of_issuer()["authorization_endpoint"],
            self._settings.client_id,
            "code",
            scope=self._settings.scope,
            **words,
        )
        facts = {
            "state": state,
            "nonce": nonce,
            "verifier": verifier,
            "next": local_path(next_path),
            "until": self._clock() + LOGIN_SECONDS,
        }
        return Departure(str(url), self._sealed(facts))

    def arrive(
        self, cookie: str | None, state: str, code: str, base_url: str, issuer: str | None = None
    ) -> Arrival:
        """End a login.

        Args:
            cookie: as `leave` gave it, from the same browser.
            state: from the issuer, as it was sent there.
            code: from the issuer; exchanged for tokens.
            base_url: of this service.
            issuer: who says to be the issuer (RFC 9207), if anybody.

        Raises:
            SignInRefused: the login was not begun in this browser, took too long, or the issuer's
                answer is not good.
            ServiceUnreachable: the issuer does not answer.
        """
        facts = self._opened(cookie)
        if not hmac.compare_digest(str(facts["state"]).encode(), state.encode()):
            raise SignInRefused("This login was not begun in this browser. Sign in again.")
        if issuer is not None and issuer != self._settings.issuer:
            raise SignInRefused("This login was answered by another issuer. Sign in again.")
        tokens = self._exchanged(code, str(facts["verifier"]), base_url)
        claims = self._claims(
            str(tokens.get("id_token", "")),
            (self._settings.client_id,),
            nonce=str(facts["nonce"]),
            access_token=tokens.get("access_token"),
        )
        return Arrival(self._caller(claims), local_path(str(facts["next"])))

    # What both share

    def _claims(self, token: str, audiences: tuple[str, ...], **more: Any) -> Mapping[str, Any]:
        if not 1 <= len(token) <= _MOST_TOKEN_CHARACTERS:
            raise SignInRefused("The issuer's token is missing or far too long. Sign in again.")
        try:
            decoded = self._decoded(token)
            options = {
                "iss": {"essential": True, "value": self._settings.issuer},
                "aud": {"essential": True, "values": list(audiences)},
                "sub": {"essential": True},
                "exp": {"essential": True},
            }
            if "nonce" not in more:
                options["iat"] = {"essential": True}
            claims = _Claims(decoded.claims, decoded.header, options, more)
            claims.validate(now=int(self._clock()), leeway=_LEEWAY_SECONDS)
        except (JoseError, ValueError, TypeError, AttributeError) as error:
            raise SignInRefused(
                f"This token is not good here ({type(error).__name__}): it must be signed by "
                f"{self._settings.issuer} for this service and not have expired. Sign in again."
            ) from error
        return dict(decoded.claims)

    def _decoded(self, token: str) -> jwt.Token:
        registry = JWSRegistry(algorithms=list(ALGORITHMS))
        keys, fetched_at = self._key_set(older_than=_KEYS_SECONDS)
        try:
            return jwt.decode(token, keys, algorithms=list(ALGORITHMS), registry=registry)
        except (JoseError, ValueError):
            # Perhaps the issuer has new keys; but whoever sends nonsense must not make us ask.
            again, at = self._key_set(older_than=_KEYS_PAUSE_SECONDS)
            if at == fetched_at:
                raise
            return jwt.decode(token, again, algorithms=list(ALGORITHMS), registry=registry)

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        told = _claim(claims, self._settings.roles_claim)
        names = told.split() if isinstance(told, str) else told if isinstance(told, list) else []
        roles = {self._settings.role_of(str(name)) for name in names} & ROLES.keys()
        if not roles:
            raise SignInRefused(
                f"You have no role here: the claim {self._settings.roles_claim!r} names none of "
                f"{', '.join(ROLES)}. Ask whoever looks after accounts.",
                lacks_scope=True,
            )
        account = self._hashed(claims["sub"])
        tenant_id = self._tenant(claims, account)
        scopes = frozenset[str]().union(*(ROLES[role] for role in roles))
        return Caller(tenant_id, f"user_{account}", scopes)

    def _tenant(self, claims: Mapping[str, Any], account: str) -> str:
        """Whose data somebody sees: their organisation's, or where no claim says so, their own."""
        if self._settings.tenant_claim:
            organisation = _claim(claims, self._settings.tenant_claim)
            if not isinstance(organisation, str) or not organisation:
                raise SignInRefused(
                    f"Your token has no claim {self._settings.tenant_claim!r}, which says whose "
                    "data you see. Ask whoever looks after accounts.",
                    lacks_scope=True,
                )
            tenant = ("org_" + self._hashed(organisation), organisation[:200])
        else:
            tenant = ("own_" + account, "One person")
        if tenant not in self._known:
            self._add_tenant(*tenant)
            self._known.add(tenant)
        return tenant[0]

    def _hashed(self, name: object) -> str:
        told = json.dumps([self._settings.issuer, name]).encode()
        return hmac.digest(self._key, told, hashlib.sha256).hex()[:32]

    def _exchanged(self, code: str, verifier: str, base_url: str) -> dict[str, Any]:
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._callback(base_url),
            "code_verifier": verifier,
            "client_id": self._settings.client_id,
        }
        headers = {"Accept": "application/json"}
        if self._settings.client_secret:
            pair = (self._settings.client_id, self._settings.client_secret)
            basic = base64.b64encode(f"{pair[0]}:{pair[1]}".encode()).decode()
            headers["Authorization"] = f"Basic {basic}"
        place = self._metadata_of_issuer()["token_endpoint"]
        answer = self._answer("POST", place, data=fields, headers=headers)
        if answer.status_code != 200:
            raise SignInRefused("The issuer did not accept this login. Sign in again.")
        return self._json(answer)

    def _metadata_of_issuer(self) -> OpenIDProviderMetadata:
        with self._lock:
            if self._metadata is None:
                place = get_well_known_url(self._settings.issuer, external=True)
                metadata = OpenIDProviderMetadata(self._json(self._answer("GET", place)))
                if metadata.get("issuer") != self._settings.issuer:
                    raise ServiceUnreachable(
                        f"The issuer calls itself {str(metadata.get('issuer'))[:80]!r}, not "
                        f"{self._settings.issuer!r}. Write the setting exactly as it does."
                    )
                for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                    if not _is_safe(str(metadata.get(name, ""))):
                        raise ServiceUnreachable(f"The issuer's {name} is missing or not https.")
                self._metadata = metadata
            return self._metadata

    def _key_set(self, older_than: float) -> tuple[KeySet, float]:
        place = self._metadata_of_issuer()["jwks_uri"]
        with self._lock:
            now = time.monotonic()
            if self._keys is None or now - self._keys_at > older_than:
                told = self._json(self._answer("GET", place))
                try:
                    # Only what signs, and only public keys: an issuer publishes nothing else.
                    usable = [one for one in told["keys"] if one.get("kty") in ("RSA", "EC")]
                    usable = [one for one in usable if one.get("use", "sig") == "sig"]
                    self._keys = KeySet.import_key_set({"keys": usable})
                except (JoseError, ValueError, KeyError, TypeError, AttributeError) as error:
                    raise ServiceUnreachable("The issuer's keys cannot be read.") from error
                self._keys_at = now
            return self._keys, self._keys_at

    def _answer(self, method: str, place: str, **words: Any) -> httpx2.Response:
        try:
            return self._http.request(method, place, **words)
        except httpx2.TransportError as error:
            raise ServiceUnreachable(
                f"The issuer {self._settings.issuer} did not answer ({type(error).__name__})."
            ) from error

    def _json(self, answer: httpx2.Response) -> dict[str, Any]:
        try:
            told = answer.json() if answer.status_code == 200 else None
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise ServiceUnreachable(
                f"The issuer {self._settings.issuer} answered {answer.status_code} with something "
                "that is not understood."
            )
        return told

    def _callback(self, base_url: str) -> str:
        return (self._settings.public_url or base_url).rstrip("/") + CALLBACK_PATH

    def _sealed(self, facts: Mapping[str, object]) -> str:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._seal.encrypt(nonce, json.dumps(facts).encode(), b"login")
        return base64.urlsafe_b64encode(sealed).decode()

    def _opened(self, cookie: str | None) -> dict[str, Any]:
        try:
            sealed = base64.urlsafe_b64decode((cookie or "").encode())
            told = self._seal.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], b"login")
        except Exception as error:  # the library has many words for "no"
            raise SignInRefused(
                "This login was not begun in this browser, or its cookie was lost. Sign in again."
            ) from error
        facts: dict[str, Any] = json.loads(told)
        if facts["until"] < self._clock():
            raise SignInRefused("This login took too long. Sign in again.")
        return facts


class _Claims(CodeIDToken):  # type: ignore[misc]  # authlib has no types
    """As of an ID token; an access token has no nonce, so only a login asks for one."""

    def validate_azp(self) -> None:
        """An access token may be issued to another program than it is meant for."""
        if "nonce" in self.params:
            super().validate_azp()


def local_path(path: str) -> str:
    """A path on this service, or "/" for what would lead elsewhere."""
    is_local = path.startswith("/") and not path.startswith("//") and "\\" not in path
    return path if is_local and path.isprintable() and len(path) <= 500 else "/"


def _claim(claims: Mapping[str, Any], name: str) -> object:
    """A claim by its name, "roles", or by its way down, "realm_access.roles"."""
    if name in claims:
        return claims[name]
    found: object = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _check(settings: OidcSettings) -> None:
    if not settings.client_id:
        raise InvalidInput(
            "An issuer is set and no client id. Set IMAGINE_SERVICE_OIDC_CLIENT_ID to the name "
            "the issuer knows this service by."
        )
    for name, url in (("ISSUER", settings.issuer), ("PUBLIC_URL", settings.public_url)):
        if url and not _is_safe(url):
            raise InvalidInput(f"IMAGINE_SERVICE_OIDC_{name} is {url[:80]!r}; it must be https.")


def _is_safe(url: str) -> bool:
    """Encrypted, or to this machine alone."""
    parsed = urlsplit(url)
    is_here = parsed.scheme == "http" and parsed.hostname in LOOPBACK
    return bool(parsed.hostname) and (parsed.scheme == "https" or is_here)

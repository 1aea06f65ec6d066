"""What an operator decides about a service; read once from the environment, then frozen.

Where things are kept is told by `imagine.settings`, which commands without a service read too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from imagine.errors import InvalidInput

_PREFIX = "IMAGINE_SERVICE_"
_CPU_JOBS = 4
_NUMBERS = (
    "requests_per_minute",
    "tenant_requests_per_minute",
    "concurrent_jobs",
    "verified_pictures_per_day",
    "unverified_pictures_per_day",
    "one_shot_pictures_per_day",
    "registrations_per_hour",
)


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """The login of an organisation; without an issuer there is none.

    Attributes:
        issuer: exactly as its discovery document names it, https.
        client_id: how the issuer knows this service.
        client_secret: of a confidential client; "" for a public one, which PKCE protects alone.
        audience: of access tokens for this service; "" takes those for the client id.
        scope: what a login asks the issuer for.
        roles_claim: names what somebody may do, e.g. "roles" or "realm_access.roles".
        roles: what the issuer's words mean here, as (word, role); others are taken as they are.
        tenant_claim: names whose data somebody sees; "" gives everybody a tenant of their own.
        public_url: of this service, where a proxy hides it; "" takes it from the request.
    """

    issuer: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    audience: str = ""
    scope: str = "openid"
    roles_claim: str = "roles"
    roles: tuple[tuple[str, str], ...] = ()
    tenant_claim: str = ""
    public_url: str = ""

    @property
    def audiences(self) -> tuple[str, ...]:
        """Whom a bearer token may be meant for."""
        return tuple(dict.fromkeys(one for one in (self.audience, self.client_id) if one))

    def role_of(self, word: str) -> str:
        """What a word of the issuer means here."""
        return dict(self.roles).get(word, word)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> OidcSettings:
        """From IMAGINE_SERVICE_OIDC_<NAME>; roles are written staff=user,chief=admin.

        Raises:
            InvalidInput: a role is not written so.
        """
        found = {
            item.name: environment[variable]
            for item in fields(cls)
            if (variable := f"{_PREFIX}OIDC_{item.name.upper()}") in environment
        }
        pairs = [one.split("=") for one in found.pop("roles", "").replace(",", " ").split()]
        if any(len(pair) != 2 for pair in pairs):
            raise InvalidInput(
                f"{_PREFIX}OIDC_ROLES is not understood. Write it like staff=user,chief=admin."
            )
        return cls(**found, roles=tuple((word, role) for word, role in pairs))


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """Which models a service runs, whom it lets in, and how much it lets anybody do.

    Attributes:
        backend: image model, a name in `imagine.backends.BACKENDS`.
        detector: face detector, a name in `imagine.identity.FACE_DETECTORS`.
        encoder: face recogniser, a name in `imagine.identity.FACE_ENCODERS`.
        device: "cpu", "cuda", ...
        weights: folder of the backend's weights; None takes the backend's own place.
        licence: "permissive" loads only weights that may be used commercially, "research" any.
        single_user: whoever sits at this machine may do everything, without a key.
        requests_per_minute: of one key.
        tenant_requests_per_minute: of all keys of a tenant together.
        concurrent_jobs: jobs a worker holds at once, at most 4 of them on a CPU, where pictures
            are drawn one after the other; else the engine batches them.
        review_blocked_share: share of blocked pictures that reviewers look at, 0 to 1.
        review_borderline_share: share of doubtful pictures that they look at.
        preview_seconds: least time between two previews of a picture; 0 shows none.
        verified_pictures_per_day: of an identity whose person passed the camera check.
        unverified_pictures_per_day: of any other identity.
        one_shot_pictures_per_day: of a tenant, of identities that live for one call.
        registrations_per_hour: of people who ask never to be shown, from one address.
        trusted_list_keys: hex Ed25519 public keys whose signed do-not-generate lists are taken.
        accepted_consent_texts: hex SHA-256 of the consent texts that hold; empty: every text.
        needs_consent_token: a consent counts only with the token of the form that was shown.
        worker_process: pictures are drawn by a process of its own, so that many may ask at once
            and be answered soon; takes the memory of a second Python. Else by this one.
        shared_rate_limits: count requests in the database, for all processes together; None does
            so with PostgreSQL, where there may be several, and not with SQLite.
        webhook_networks: networks that webhooks may call though they are not public.
        oidc: the login of an organisation.
    """

    backend: str = "embedded"
    detector: str = "dlib"
    encoder: str = "dlib"
    device: str = "cpu"
    weights: Path | None = None
    licence: str = "permissive"
    single_user: bool = False
    requests_per_minute: int = 300
    tenant_requests_per_minute: int = 1200
    concurrent_jobs: int = 16
    preview_seconds: float = 1.0
    review_blocked_share: float = 0.1
    review_borderline_share: float = 1.0
    verified_pictures_per_day: int = 200
    unverified_pictures_per_day: int = 20
    one_shot_pictures_per_day: int = 200
    registrations_per_hour: int = 10
    trusted_list_keys: tuple[str, ...] = ()
    accepted_consent_texts: tuple[str, ...] = ()
    needs_consent_token: bool = False
    worker_process: bool = False
    shared_rate_limits: bool | None = None
    webhook_networks: tuple[str, ...] = ()
    oidc: OidcSettings = OidcSettings()

    @property
    def jobs_at_once(self) -> int:
        """Jobs a worker holds at once on this device."""
        return (
            min(self.concurrent_jobs, _CPU_JOBS) if self.device == "cpu" else self.concurrent_jobs
        )

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] = os.environ, /, **chosen: object
    ) -> ServiceSettings:
        """Settings from IMAGINE_SERVICE_<NAME>; what is `chosen` wins over the environment.

        Raises:
            InvalidInput: a number is not a number; names the variable.
        """
        found: dict[str, object] = {}
        for name in ("backend", "detector", "encoder", "device", "licence"):
            _take(found, environment, name, str)
        for name in _NUMBERS:
            _take(found, environment, name, int)
        for name in ("preview_seconds", "review_blocked_share", "review_borderline_share"):
            _take(found, environment, name, float)
        _take(found, environment, "weights", Path)
        for name in ("accepted_consent_texts", "trusted_list_keys", "webhook_networks"):
            words = environment.get(f"{_PREFIX}{name.upper()}", "")
            found[name] = tuple(words.replace(",", " ").split())
        for name in ("needs_consent_token", "shared_rate_limits", "worker_process"):
            _take(found, environment, name, _yes_or_no)
        found["oidc"] = OidcSettings.from_environment(environment)
        return cls(**{**found, **chosen})  # type: ignore[arg-type]


def _yes_or_no(text: str) -> bool:
    return {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}[
        text.lower()
    ]


def _take(
    found: dict[str, object],
    environment: Mapping[str, str],
    name: str,
    kind: Callable[[str], object],
) -> None:
    variable = f"{_PREFIX}{name.upper()}"
    text = environment.get(variable, "")
    if not text:
        return
    try:
        found[name] = kind(text)
    except ValueError as error:
        raise InvalidInput(f"{variable} is {text!r}; it must be a number.") from error
    except KeyError as error:
        raise InvalidInput(f"{variable} is {text!r}; it must be yes or no.") from error

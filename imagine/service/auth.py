"""Who asks, for which tenant, and what they may do.

A key names its tenant; every look into the storage carries it, so that what others have answers
like what does not exist. In single-user mode whoever sits at this machine needs no key: that is
checked by the address of the connection, and by the names a browser was made to use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from imagine.errors import InvalidInput, KeyRefused
from imagine.service.rate_limits import Quota, RateLimiter, refuse
from imagine.service.settings import ServiceSettings
from imagine.storage.api_keys import ApiKeys

LOCAL_TENANT = "local"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
UNKNOWN_PER_MINUTE = 60  # requests with no good key, from one address

_PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")

SCOPES = frozenset(
    {
        "identities:read",
        "identities:write",
        "generations:read",
        "generations:write",
        "images:read",
        "images:write",
        "images:review",
        "service:read",
    }
)
_PERSONAL = SCOPES - {"images:review", "service:read"}
# A role is a set of scopes with a name. A user looks after people and pictures; a developer also
# sees how the service does; a reviewer sees pictures only where the person agreed to that.
ROLES: dict[str, frozenset[str]] = {
    "user": frozenset(_PERSONAL),
    "developer": frozenset(_PERSONAL | {"service:read"}),
    "reviewer": frozenset({"generations:read", "images:review"}),
    "admin": SCOPES,
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        tenant_id: whose data they may see.
        actor: their pseudonym in the audit log.
        scopes: what they may do.
    """

    tenant_id: str
    actor: str
    scopes: frozenset[str]


class Doorkeeper:
    """Looks at every request before anything is done for it."""

    def __init__(self, keys: ApiKeys, settings: ServiceSettings) -> None:
        self._keys = keys
        self._single_user = settings.single_user
        self._by_key = RateLimiter(Quota("key", settings.requests_per_minute))
        self._by_tenant = RateLimiter(Quota("tenant", settings.tenant_requests_per_minute))
        self._by_address = RateLimiter(Quota("address", UNKNOWN_PER_MINUTE))

    def admit(self, request: Request, token: str | None, scopes: tuple[str, ...]) -> Caller:
        """The caller, if they may do one of `scopes`.

        Raises:
            KeyRefused: no key, a bad one, or one without the scope.
            RateLimited: asked too often.
        """
        if token is None and self._single_user:
            _check_is_local(request)
            # Nobody to share with: a page with hundreds of pictures may load them all at once.
            return Caller(LOCAL_TENANT, "local", SCOPES)
        caller = self._holder(request, token, scopes)
        self._count(request, caller)
        return caller

    def _holder(self, request: Request, token: str | None, scopes: tuple[str, ...]) -> Caller:
        try:
            if token is None:
                raise KeyRefused(
                    "This request carries no API key. Send it as the header "
                    "Authorization: Bearer imk_..."
                )
            key = self._check(token, scopes)
        except KeyRefused as error:
            if not error.lacks_scope:
                address = request.client.host if request.client else "unknown"
                allowance = self._by_address.take(address)
                if not allowance.is_allowed:
                    raise refuse(allowance, "An address without a good key") from error
            raise
        return key

    def _check(self, token: str, scopes: tuple[str, ...]) -> Caller:
        """The holder of a key with any of the scopes; the first scope is named in a refusal."""
        refusal: KeyRefused | None = None
        for scope in scopes:
            try:
                key = self._keys.check(token, scope)
            except KeyRefused as error:
                if not error.lacks_scope:
                    raise
                refusal = refusal or error
            else:
                return Caller(key.tenant_id, f"key_{key.id}", key.scopes)
        assert refusal is not None
        raise refusal

    def _count(self, request: Request, caller: Caller) -> None:
        name = f"{caller.tenant_id}/{caller.actor}"
        allowances = (self._by_key.take(name), self._by_tenant.take(caller.tenant_id))
        request.scope["imagine_allowances"] = allowances
        for allowance, whose in zip(allowances, ("This key", "This tenant"), strict=True):
            if not allowance.is_allowed:
                raise refuse(allowance, whose)


_BEARER = HTTPBearer(
    auto_error=False, scheme_name="API key", description="A key made by `imagine-me keys create`."
)


def caller_with(*scopes: str) -> Callable[..., Caller]:
    """A dependency that admits whoever may do one of these scopes."""
    assert set(scopes) <= SCOPES

    def admitted(
        request: Request,
        credentials: HTTPAuthorizationCredentials | None = Depends(_BEARER),  # noqa: B008
    ) -> Caller:
        doorkeeper: Doorkeeper = request.app.state.service.doorkeeper
        token = credentials.credentials if credentials else request.headers.get("x-api-key")
        return doorkeeper.admit(request, token, scopes)

    return admitted


def check_scope(caller: Caller, scope: str) -> None:
    """Refuse a caller who may not also do this.

    Raises:
        KeyRefused: with `lacks_scope`.
    """
    if scope not in caller.scopes:
        raise KeyRefused(
            f"This API key may not {scope!r}. Ask for a key with this scope.", lacks_scope=True
        )


def scopes_of(role: str) -> frozenset[str]:
    """What a role may do.

    Raises:
        InvalidInput: no such role; lists the known ones.
    """
    if role not in ROLES:
        raise InvalidInput(f"There is no role {role[:40]!r}. Known: {', '.join(ROLES)}.")
    return ROLES[role]


def check_bound_to_loopback(host: str) -> None:
    """Refuse to open a service without accounts to a network.

    Raises:
        InvalidInput: the address is not one that only this machine reaches.
    """
    if host not in LOOPBACK:
        raise InvalidInput(
            f"--single-user needs no key, so it must not listen on {host!r}. Use --host "
            "127.0.0.1, or leave --single-user out and make keys with `imagine-me keys create`."
        )


def _check_is_local(request: Request) -> None:
    """Only this machine, and only pages that this machine served.

    The Host header stops a foreign site whose name was pointed at 127.0.0.1; Origin and
    Sec-Fetch-Site stop forms and scripts of other sites in the same browser.
    """
    address = request.client.host if request.client else ""
    host = request.headers.get("host", "")
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site", "none")
    is_ours = origin is None or urlsplit(origin).netloc == host
    # A proxy on this machine would make everybody look local; those who say so are believed.
    is_passed_on = any(name in request.headers for name in _PROXY_HEADERS)
    named = urlsplit(f"//{host}").hostname or ""
    if (
        address not in LOOPBACK
        or named not in LOOPBACK
        or not is_ours
        or is_passed_on
        or site not in ("none", "same-origin")
    ):
        raise KeyRefused(
            "This service is for one user at this machine, and the request came from elsewhere. "
            "Open it under 127.0.0.1, or use an API key."
        )

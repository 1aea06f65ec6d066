"""Who asks, for which tenant, and what they may do.

Programs come with an API key, people with a token of their organisation (`sign_in.py`) or with the
cookie of a visit. All of them name a tenant; every look into the storage carries it, so that what
others have answers like what does not exist. In single-user mode whoever sits at this machine
needs no key: that is checked by the address of the connection, and by the names a browser was made
to use.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from imagine.errors import ForgedRequest, InvalidInput, KeyRefused
from imagine.service.rate_limits import Limiter, Quota, RateLimiter, refuse
from imagine.service.settings import ServiceSettings
from imagine.storage.api_keys import ApiKey, ApiKeys
from imagine.storage.database import utc_now
from imagine.storage.visits import Visit, Visits

LOCAL_TENANT = "local"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
UNKNOWN_PER_MINUTE = 60  # requests with no good key, from one address
SESSION_COOKIE = "imagine_session"  # holds the secret of a visit; also that of the pages
CSRF_HEADER = "X-CSRF-Token"
_TRUSTED_SECONDS = 1.0  # a key that another process revokes is refused after so long
_MOST_TRUSTED = 10_000
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

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
        "review",
        "service:read",
        "safety:write",
        "webhooks:read",
        "webhooks:write",
    }
)
_WEBHOOKS = {"webhooks:read", "webhooks:write"}
_REVIEWING = {"images:review", "review"}
_PERSONAL = SCOPES - _REVIEWING - {"service:read", "safety:write"} - _WEBHOOKS
# A role is a set of scopes with a name. A user looks after people and pictures; a developer also
# sees how the service does and is called back by it; a reviewer decides what is queued, and sees
# pictures only where the person agreed to that or somebody asked for a decision.
ROLES: dict[str, frozenset[str]] = {
    "user": frozenset(_PERSONAL),
    "developer": frozenset(_PERSONAL | {"service:read"} | _WEBHOOKS),
    "reviewer": frozenset({"generations:read"} | _REVIEWING),
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


# A token that is no API key, and the caller it stands for; raises KeyRefused.
CheckToken = Callable[[str], Caller]


class Doorkeeper:
    """Looks at every request before anything is done for it.

    Args:
        keys: of programs.
        settings: who is let in, and how often.
        visits: of people at a browser; None lets no cookie in.
        check_token: verifies what people's organisations signed; None takes API keys alone.
        limit: makes the limiters; the plain one counts in this process.
    """

    def __init__(
        self,
        keys: ApiKeys,
        settings: ServiceSettings,
        visits: Visits | None = None,
        check_token: CheckToken | None = None,
        limit: Callable[[Quota], Limiter] = RateLimiter,
    ) -> None:
        self._keys = keys
        self._visits = visits
        self._check_token = check_token
        self._single_user = settings.single_user
        self._by_key = limit(Quota("key", settings.requests_per_minute))
        self._by_tenant = limit(Quota("tenant", settings.tenant_requests_per_minute))
        self._by_address = limit(Quota("address", UNKNOWN_PER_MINUTE))
        self._registering = limit(Quota("registrations", settings.registrations_per_hour, 3600.0))
        # hash of a token -> when it was checked, after how many revocations here, and its key
        self._trusted: OrderedDict[bytes, tuple[float, int, ApiKey]] = OrderedDict()

    def admit(self, request: Request, token: str | None, scopes: tuple[str, ...]) -> Caller:
        """The caller, if they may do one of `scopes`; may have to ask the database.

        Raises:
            KeyRefused: no key, a bad one, or one without the scope.
            ForgedRequest: a browser was made to ask by a page that is not ours.
            RateLimited: asked too often.
        """
        if token is None and self._single_user:
            _check_is_local(request)
            # Nobody to share with: a page with hundreds of pictures may load them all at once.
            return Caller(LOCAL_TENANT, "local", SCOPES)
        caller = self._holder(request, token, scopes)
        self._count(request, caller)
        return caller

    def admit_at_once(
        self, request: Request, token: str | None, scopes: tuple[str, ...]
    ) -> Caller | None:
        """As `admit`, of somebody who asked a moment ago; None when the database must be asked."""
        trusted = None if token is None else self._trusted.get(_digest(token))
        if trusted is None:
            return None
        since, revocations, key = trusted
        is_fresh = time.monotonic() - since <= _TRUSTED_SECONDS
        has_ended = key.expires_at is not None and key.expires_at <= utc_now()
        may = not key.scopes.isdisjoint(scopes)
        if not is_fresh or has_ended or not may or revocations != self._keys.revocations:
            return None
        caller = Caller(key.tenant_id, f"key_{key.id}", key.scopes)
        name = _bucket(caller)
        if not (self._by_key.is_at_once(name) and self._by_tenant.is_at_once(key.tenant_id)):
            return None
        self._count(request, caller)
        return caller

    def admit_anybody(self, request: Request) -> None:
        """Count a request of somebody without an account, by their address.

        Raises:
            RateLimited: asked too often.
        """
        allowance = self._by_address.take(request.client.host if request.client else "unknown")
        if not allowance.is_allowed:
            raise refuse(allowance, "An address without an account")

    def admit_registration(self, request: Request) -> None:
        """Let in somebody without an account who asks never to be shown, now and then.

        Raises:
            KeyRefused: a single-user service was asked from elsewhere.
            RateLimited: this address asked too often.
        """
        if self._single_user:
            _check_is_local(request)
        address = request.client.host if request.client else "unknown"
        allowance = self._registering.take(address)
        if not allowance.is_allowed:
            raise refuse(allowance, "An address without an account")

    def _holder(self, request: Request, token: str | None, scopes: tuple[str, ...]) -> Caller:
        try:
            if token is None:
                return self._visitor(request, scopes)
            if self._check_token is not None and not token.startswith("imk_"):
                return _allowed(self._check_token(token), scopes)
            return self._check(token, scopes)
        except KeyRefused as error:
            if not error.lacks_scope:
                address = request.client.host if request.client else "unknown"
                allowance = self._by_address.take(address)
                if not allowance.is_allowed:
                    raise refuse(allowance, "An address without a good key") from error
            raise

    def _visitor(self, request: Request, scopes: tuple[str, ...]) -> Caller:
        secret = request.cookies.get(SESSION_COOKIE)
        visit = None if self._visits is None or not secret else self._visits.find(secret)
        if visit is None or not secret:
            raise KeyRefused(
                "This request carries no API key. Send it as the header "
                "Authorization: Bearer imk_..."
            )
        _check_is_ours(request, secret)
        return _allowed(self._caller_of(visit), scopes)

    def _caller_of(self, visit: Visit) -> Caller:
        if visit.key_id is None:
            if (visit.tenant_id, visit.account) == (LOCAL_TENANT, "local"):
                raise KeyRefused("This service has accounts now. Sign in.")
            return Caller(visit.tenant_id, visit.account, visit.scopes)
        key = self._keys.still_good(visit.tenant_id, visit.key_id)
        return Caller(visit.tenant_id, visit.account, key.scopes)

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
                self._trust(token, key)
                return Caller(key.tenant_id, f"key_{key.id}", key.scopes)
        assert refusal is not None
        raise refusal

    def _trust(self, token: str, key: ApiKey) -> None:
        self._trusted[_digest(token)] = (time.monotonic(), self._keys.revocations, key)
        while len(self._trusted) > _MOST_TRUSTED:
            self._trusted.popitem(last=False)

    def _count(self, request: Request, caller: Caller) -> None:
        allowances = (
            self._by_key.take(_bucket(caller)),
            self._by_tenant.take(caller.tenant_id),
        )
        request.scope["imagine_allowances"] = allowances
        for allowance, whose in zip(allowances, ("This key", "This tenant"), strict=True):
            if not allowance.is_allowed:
                raise refuse(allowance, whose)


_BEARER = HTTPBearer(
    auto_error=False, scheme_name="API key", description="A key made by `imagine-me keys create`."
)


def caller_with(*scopes: str) -> Callable[..., Awaitable[Caller]]:
    """A dependency that admits whoever may do one of these scopes."""
    assert set(scopes) <= SCOPES

    async def admitted(
        request: Request,
        credentials: HTTPAuthorizationCredentials | None = Depends(_BEARER),  # noqa: B008
    ) -> Caller:
        doorkeeper: Doorkeeper = request.app.state.service.doorkeeper
        token = credentials.credentials if credentials else request.headers.get("x-api-key")
        at_once = doorkeeper.admit_at_once(request, token, scopes)
        if at_once is not None:
            return at_once
        return await run_in_threadpool(doorkeeper.admit, request, token, scopes)

    return admitted


def csrf_token(secret: str) -> str:
    """What a page of ours must send along with a change; nobody has it without the cookie."""
    return hmac.digest(secret.encode(), b"imagine csrf 1", hashlib.sha256).hex()


def anybody(request: Request) -> None:
    """A dependency that admits people without an account, by their address."""
    doorkeeper: Doorkeeper = request.app.state.service.doorkeeper
    doorkeeper.admit_anybody(request)


def registering(request: Request) -> None:
    """A dependency that admits people who ask never to be shown, by their address."""
    doorkeeper: Doorkeeper = request.app.state.service.doorkeeper
    doorkeeper.admit_registration(request)


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


def _allowed(caller: Caller, scopes: tuple[str, ...]) -> Caller:
    if caller.scopes.isdisjoint(scopes):
        raise KeyRefused(
            f"Your role may not {scopes[0] if scopes else 'do this'!r}. Ask an admin for it.",
            lacks_scope=True,
        )
    return caller


def _bucket(caller: Caller) -> str:
    return f"{caller.tenant_id}/{caller.actor}"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _check_is_ours(request: Request, secret: str) -> None:
    """A cookie comes along whoever made the browser ask: a change needs what only our pages know.

    Raises:
        ForgedRequest: another site's page asks, or the token is not there.
    """
    if request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise ForgedRequest("Another site made this browser ask. Nothing was done.")
    if request.method in _SAFE_METHODS:
        return
    given = request.headers.get(CSRF_HEADER, "")
    if not hmac.compare_digest(given.encode(), csrf_token(secret).encode()):
        raise ForgedRequest(
            f"A change by cookie needs the header {CSRF_HEADER} with the `csrf_token` of "
            "GET /v1/session. Nothing was done."
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

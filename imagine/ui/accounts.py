"""Who is at the page of a service: by API key, by another login, or because it is their machine.

Takes the place of `Sessions`, with two differences: visits are kept in the database, so that a
restart ends none of them, and an API key is looked at again on every request, so that revoking it
ends the visit too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request

from imagine.errors import KeyRefused
from imagine.service.auth import LOCAL_TENANT, Caller
from imagine.storage.visits import Visit
from imagine.ui.remote import RemoteStudio, RemoteStudios
from imagine.ui.sessions import IDLE_SECONDS, Sessions

# A key with any of these has something to do here.
_WELCOME = ("generations:read", "images:review", "service:read")


@dataclass(eq=False)
class _Open:
    studio: RemoteStudio
    last_seen: float


class Accounts(Sessions):
    """The visits of a service. Safe to use from several threads.

    Args:
        studios: opens a studio for an account.
        clock: monotonic seconds.
    """

    house = "service"

    def __init__(self, studios: RemoteStudios, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(studios, clock=clock)
        self.boot = "kept"  # a restart loses nothing, so pages need not know of it
        self._accounts = studios
        self.service = studios.service
        self._visits = studios.service.visits
        self.signs_in = not studios.service.settings.single_user
        self._open: dict[str, _Open] = {}

    def check(self, request: Request) -> None:
        """Refuse whoever may not even see the page.

        Raises:
            KeyRefused: the page is for whoever sits at this machine, and this came from elsewhere.
        """
        if not self.signs_in:
            self.service.doorkeeper.admit(request, None, ())

    def welcome(self) -> str | None:
        """The secret of somebody new; None when they must sign in first."""
        if self.signs_in:
            return None
        studio = self._accounts.open()
        return self._visits.begin(LOCAL_TENANT, "local", studio.caller.scopes)

    def sign_in(self, request: Request, token: str) -> str:
        """Begin a visit with an API key and return its secret.

        Raises:
            KeyRefused: not a good key, or one with nothing to do here.
            RateLimited: too many attempts.
        """
        caller = self.service.doorkeeper.admit(request, token.strip(), _WELCOME)
        key_id = caller.actor.removeprefix("key_")
        return self._visits.begin(caller.tenant_id, caller.actor, caller.scopes, key_id)

    def sign_in_as(self, caller: Caller) -> str:
        """Begin a visit of somebody another login vouches for, and return its secret."""
        return self._visits.begin(caller.tenant_id, caller.actor, caller.scopes)

    def studio(self, secret: str | None) -> RemoteStudio | None:
        """The studio of a secret; None for a secret nobody has, or whose key has ended."""
        visit = self._visits.find(secret) if secret else None
        caller = None if visit is None else self._caller(visit)
        if visit is None or caller is None:
            return None
        with self._lock:
            known = self._open.get(visit.id)
            if known is None:
                known = self._open[visit.id] = _Open(self._accounts.open_for(caller), 0.0)
            known.studio.caller = caller  # what the key may do, as of now
            known.last_seen = self._clock()
            return known.studio

    def last_seen(self, secret: str) -> float:
        """When somebody last came with this secret, in seconds of the clock."""
        visit = self._visits.find(secret)
        with self._lock:
            known = self._open.get(visit.id) if visit is not None else None
        return self._clock() if known is None else known.last_seen

    def end(self, secret: str) -> None:
        """End a visit: its photos go, what the service keeps stays."""
        visit = self._visits.find(secret)
        self._visits.end(secret)
        if visit is not None:
            self._drop(visit.id)

    def sweep(self) -> None:
        """Let go of the photos of those who have not been here for a while."""
        now = self._clock()
        with self._lock:
            idle = [key for key, one in self._open.items() if now - one.last_seen > IDLE_SECONDS]
        for key in idle:
            self._drop(key)

    def close(self) -> None:
        """The program ends: visits go on with the next one."""
        with self._lock:
            open_ones = list(self._open)
        for key in open_ones:
            self._drop(key)

    def _caller(self, visit: Visit) -> Caller | None:
        if visit.key_id is None:
            is_local = (visit.tenant_id, visit.account) == (LOCAL_TENANT, "local")
            if is_local and self.signs_in:
                return None  # the service has accounts now
            return Caller(visit.tenant_id, visit.account, visit.scopes)
        try:
            key = self.service.api_keys.still_good(visit.tenant_id, visit.key_id)
        except KeyRefused:
            return None
        return Caller(visit.tenant_id, visit.account, key.scopes)

    def _drop(self, key: str) -> None:
        with self._lock:
            gone = self._open.pop(key, None)
        if gone is not None:
            gone.studio.close()

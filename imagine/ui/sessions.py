"""Who is at the page: an unguessable secret in a cookie leads to one studio, and to no other.

A session nobody has used for a while is ended and its studio closed. Nothing is written down: when
the program ends every session is gone.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request

from imagine.ui.studio import Studio, Studios

COOKIE = "imagine_session"
IDLE_SECONDS = 30 * 60.0
MAX_SESSIONS = 64  # each may hold some hundred megabytes of photos and pictures


@dataclass(eq=False)
class _Session:
    studio: Studio
    last_seen: float


class Sessions:
    """Studios by secret. Safe to use from several threads.

    Attributes:
        house: which words fit: "" where everything is in memory only (`words.py`).
        signs_in: whether people have to say who they are.

    Args:
        studios: opens them.
        idle_seconds: an unused session ends after so long.
        max_sessions: when there are more, one ends: empty ones first, then the one unused
            for longest.
        clock: monotonic seconds.
    """

    house = ""
    signs_in = False

    def __init__(
        self,
        studios: Studios,
        idle_seconds: float = IDLE_SECONDS,
        max_sessions: int = MAX_SESSIONS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.studios = studios
        self.boot = secrets.token_hex(8)  # a page that sees another one knows of the restart
        self._idle_seconds = idle_seconds
        self._max_sessions = max_sessions
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: dict[str, _Session] = {}

    def __len__(self) -> int:
        with self._lock:
            return len(self._sessions)

    def check(self, request: Request) -> None:
        """Refuse whoever may not even see the page; here everybody may."""

    def welcome(self) -> str | None:
        """The secret of somebody new; None where they must sign in first."""
        return self.open()

    def open(self) -> str:
        """Begin a session and return its secret."""
        secret = secrets.token_urlsafe(32)
        with self._lock:
            crowd = dict(self._sessions)
        if len(crowd) >= self._max_sessions:
            # Whoever has given something is kept before whoever only opened the page.
            self.end(min(crowd, key=lambda key: (_holds(crowd[key]), crowd[key].last_seen)))
        studio = self.studios.open()
        with self._lock:
            self._sessions[secret] = _Session(studio, self._clock())
        return secret

    def studio(self, secret: str | None) -> Studio | None:
        """The studio of a secret; None for a secret nobody has."""
        with self._lock:
            session = self._sessions.get(secret or "")
            if session is None:
                return None
            session.last_seen = self._clock()
            return session.studio

    def last_seen(self, secret: str) -> float:
        """When somebody last came with this secret, in seconds of the clock; 0 for a stranger."""
        with self._lock:
            session = self._sessions.get(secret)
            return 0.0 if session is None else session.last_seen

    def stop_if_gone(self, secret: str, since: float) -> None:
        """Stop drawing for somebody who left and asked for that, unless they came back."""
        if self.last_seen(secret) <= since and (studio := self.studio(secret)) is not None:
            studio.stop()

    def end(self, secret: str) -> None:
        """End one session."""
        with self._lock:
            session = self._sessions.pop(secret, None)
        if session is not None:
            session.studio.close()

    def sweep(self) -> None:
        """End sessions nobody has used for a while."""
        now = self._clock()
        with self._lock:
            idle = [
                secret
                for secret, session in self._sessions.items()
                if now - session.last_seen > self._idle_seconds
            ]
        for secret in idle:
            self.end(secret)

    def close(self) -> None:
        """End all sessions."""
        with self._lock:
            ended = list(self._sessions.values())
            self._sessions.clear()
        for session in ended:
            session.studio.close()
        self.studios.close()


def _holds(session: _Session) -> bool:
    studio = session.studio
    return bool(studio.photos() or studio.person() or studio.pictures())

"""What happens to a job while it is worked on, for those who watch: progress, previews, the end.

Lives in memory, beside the worker. Who watches a job of another process sees its end from the
database. A newer progress or preview replaces the older one, so a feed stays small however long
the job takes; somebody who comes late, or again, gets what still holds.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

MAX_FEEDS = 1000  # jobs remembered; the longest untouched go first


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """Something that happened.

    Attributes:
        id: names the event for `Last-Event-ID`; grows within one feed.
        kind: "progress", "preview" or "ended".
        data: JSON values; of a preview, a small marked picture in base64.
    """

    id: str
    kind: str
    data: Mapping[str, object] = field(repr=False)

    @property
    def is_last(self) -> bool:
        """Whether nothing comes after it."""
        return self.kind == "ended"


@dataclass(eq=False)
class _Feed:
    identity_id: str | None
    count: int = 0
    # what the event is about -> its number and itself; a newer one replaces the older
    events: dict[str, tuple[int, FeedEvent]] = field(default_factory=dict)
    listeners: list[Callable[[], None]] = field(default_factory=list)


class Feeds:
    """The feeds of all jobs of this process. Safe to use from many threads and from asyncio."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._feeds: OrderedDict[tuple[str, str], _Feed] = OrderedDict()
        # An id of an earlier process means nothing here: the watcher gets everything again.
        self._epoch = secrets.token_hex(4)

    def open(self, tenant_id: str, job_id: str, identity_id: str | None) -> None:
        """Begin the feed of a job; what an earlier attempt told is dropped."""
        with self._lock:
            feed = self._feed(tenant_id, job_id)
            feed.identity_id = identity_id
            feed.events.clear()

    def publish(
        self,
        tenant_id: str,
        job_id: str,
        kind: str,
        data: Mapping[str, object],
        about: str = "",
    ) -> None:
        """Tell everybody who watches.

        Args:
            tenant_id: whose job.
            job_id: which job.
            kind: as in `FeedEvent`; after "ended" the previews are dropped.
            data: JSON values.
            about: of several events of one kind, the newest of each is kept.
        """
        with self._lock:
            feed = self._feed(tenant_id, job_id)
            feed.count += 1
            event = FeedEvent(f"{self._epoch}-{feed.count}", kind, data)
            if event.is_last:
                feed.events.clear()
            feed.events[f"{kind}/{about}"] = (feed.count, event)
            listeners = list(feed.listeners)
        for listener in listeners:
            listener()

    def after(self, tenant_id: str, job_id: str, last_id: str | None) -> list[FeedEvent]:
        """Events after one, oldest first; all that still hold when it is unknown."""
        epoch, _, number = (last_id or "").partition("-")
        seen = int(number) if epoch == self._epoch and number.isdecimal() else 0
        with self._lock:
            feed = self._feeds.get((tenant_id, job_id))
            if feed is None:
                return []
            return [event for place, event in sorted_by_place(feed.events) if place > seen]

    def watched(self) -> list[tuple[str, str]]:
        """Tenant and id of every job that somebody watches and that has not ended here."""
        with self._lock:
            return [
                key
                for key, feed in self._feeds.items()
                if feed.listeners and not any(event.is_last for _, event in feed.events.values())
            ]

    def forget_identity(self, tenant_id: str, identity_id: str) -> int:
        """Drop everything about an identity; says how many feeds there were."""
        with self._lock:
            gone = [
                key
                for key, feed in self._feeds.items()
                if key[0] == tenant_id and feed.identity_id == identity_id
            ]
            for key in gone:
                self._feeds[key].events.clear()
                if not self._feeds[key].listeners:
                    del self._feeds[key]
            return len(gone)

    async def changed(
        self, tenant_id: str, job_id: str, last_id: str | None, timeout_seconds: float
    ) -> list[FeedEvent]:
        """Events after one, as soon as there are any; an empty list when the time is over."""
        loop, wake = asyncio.get_running_loop(), asyncio.Event()

        def listener() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(wake.set)

        with self._lock:
            feed = self._feed(tenant_id, job_id)
            feed.listeners.append(listener)
        try:
            events = self.after(tenant_id, job_id, last_id)
            if not events:
                try:
                    await asyncio.wait_for(wake.wait(), timeout_seconds)
                except TimeoutError:
                    return []
                events = self.after(tenant_id, job_id, last_id)
            return events
        finally:
            with self._lock:
                feed.listeners.remove(listener)

    def _feed(self, tenant_id: str, job_id: str) -> _Feed:
        key = (tenant_id, job_id)
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = _Feed(None)
        self._feeds.move_to_end(key)
        for old in list(self._feeds)[: max(0, len(self._feeds) - MAX_FEEDS)]:
            if not self._feeds[old].listeners:  # somebody waits there
                del self._feeds[old]
        return feed


def sorted_by_place(
    events: Mapping[str, tuple[int, FeedEvent]],
) -> list[tuple[int, FeedEvent]]:
    """Events in the order they came."""
    return sorted(events.values(), key=lambda placed: placed[0])

from __future__ import annotations

import asyncio
import threading

from imagine.service import feeds
from imagine.service.feeds import Feeds

JOB = ("tenant", "job")


def kinds(found: list[feeds.FeedEvent]) -> list[str]:
    return [event.kind for event in found]


def test_events_come_in_order_and_newer_ones_replace_older() -> None:
    told = Feeds()
    told.publish(*JOB, "progress", {"step": 1})
    told.publish(*JOB, "preview", {"n": 0}, about="0")
    told.publish(*JOB, "progress", {"step": 2})
    found = told.after(*JOB, None)
    assert kinds(found) == ["preview", "progress"] and found[1].data == {"step": 2}


def test_who_has_seen_an_event_gets_only_what_came_after() -> None:
    told = Feeds()
    told.publish(*JOB, "progress", {"step": 1})
    seen = told.after(*JOB, None)[-1].id
    told.publish(*JOB, "preview", {}, about="0")
    assert kinds(told.after(*JOB, seen)) == ["preview"]


def test_an_id_of_an_earlier_process_means_from_the_beginning() -> None:
    told = Feeds()
    told.publish(*JOB, "progress", {"step": 1})
    for foreign in ("00000000-7", "nonsense", "-", ""):
        assert kinds(told.after(*JOB, foreign)) == ["progress"]


def test_after_the_end_no_preview_is_left() -> None:
    told = Feeds()
    told.publish(*JOB, "preview", {}, about="0")
    told.publish(*JOB, "ended", {})
    assert kinds(told.after(*JOB, None)) == ["ended"]


def test_forgetting_a_person_drops_what_was_shown_of_them() -> None:
    told = Feeds()
    told.open(*JOB, "identity")
    told.publish(*JOB, "preview", {}, about="0")
    assert told.forget_identity("other", "identity") == 0
    assert told.forget_identity("tenant", "identity") == 1
    assert told.after(*JOB, None) == []


def test_only_so_many_feeds_are_remembered() -> None:
    told = Feeds()
    for number in range(feeds.MAX_FEEDS + 10):
        told.publish("tenant", f"job_{number}", "progress", {})
    assert told.after("tenant", "job_0", None) == []
    assert len(told._feeds) == feeds.MAX_FEEDS


def test_a_watcher_wakes_when_something_happens_in_another_thread() -> None:
    told = Feeds()

    async def watch() -> list[str]:
        threading.Timer(0.05, told.publish, (*JOB, "progress", {})).start()
        return kinds(await told.changed(*JOB, None, 5.0))

    assert asyncio.run(watch()) == ["progress"]
    assert told._feeds[JOB].listeners == []


def test_a_watcher_goes_on_when_nothing_happens() -> None:
    assert asyncio.run(Feeds().changed(*JOB, None, 0.01)) == []

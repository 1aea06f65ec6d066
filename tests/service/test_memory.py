from __future__ import annotations

import platform
import re
import subprocess
import sys

import pytest

from imagine.service.feeds import MAX_FEEDS, Feeds

# Each thread asks for memory at the same time as the others, so that each would like its own heap.
PROBE = """
import ctypes, sys, threading
from imagine.service.memory import bound_heaps
if sys.argv[1] == "bounded":
    assert bound_heaps()
together = threading.Barrier(12)
def ask():
    together.wait()
    kept = [bytearray(50_000) for _ in range(50)]
    together.wait()
threads = [threading.Thread(target=ask) for _ in range(12)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
ctypes.CDLL(None).malloc_stats()
"""


def heaps(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, how], capture_output=True, text=True, check=True
    )
    return len(re.findall(r"^Arena \d+:", done.stderr, re.MULTILINE))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="heaps of threads are glibc's")
def test_threads_share_two_heaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    assert heaps("bounded") <= 2 < heaps("free")


def test_what_the_environment_says_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from imagine.service.memory import bound_heaps

    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    assert not bound_heaps()


def test_feeds_of_jobs_long_ended_are_forgotten() -> None:
    feeds = Feeds()
    for number in range(2 * MAX_FEEDS):
        feeds.open("house", f"job_{number}", "identity_1")
        feeds.publish("house", f"job_{number}", "preview", {"data": "x" * 100})
        feeds.publish("house", f"job_{number}", "ended", {"status": "succeeded"})
    assert feeds.after("house", "job_0", None) == []
    assert len(feeds._feeds) == MAX_FEEDS
    kept = feeds.after("house", f"job_{2 * MAX_FEEDS - 1}", None)
    assert [event.kind for event in kept] == ["ended"]  # no preview outlives its job

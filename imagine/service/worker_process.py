"""A worker in a process of its own: drawing, marking and signing take no time from answering.

Python runs one thread at a time, so a request that is answered beside a worker waits for it again
and again. Here the process that answers hands its worker two words (wake, cancel) through a pipe
and gets back what watchers are told. Everything else goes through the database, as with any other
worker; one that dies is started again, and its jobs are done again when their leases run out.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from imagine.errors import ImagineError
from imagine.service.feeds import Feeds
from imagine.service.memory import bound_heaps

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from imagine.service.loaded_models import LoadedModels
    from imagine.service.wiring import Service

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)  # until a worker that died is started again
_PATIENCE_SECONDS = 30.0  # for a worker that was asked to stop
_TOLD_SECONDS = 1.0  # between two reports of how the engine does

# Builds the service of the other process around its feeds; pickled on the way there.
Build = Callable[[Feeds], "Service"]


class WorkerProcess:
    """Has the face of `Worker`, and does the work in another process.

    Args:
        build: makes the service whose worker works there.
        feeds: of this process; hears what happens over there.
        models: of this process; told what was opened over there, and how the engine does.
    """

    def __init__(self, build: Build, feeds: Feeds, models: LoadedModels) -> None:
        self.name = f"process of {os.getpid()}"
        self.build = build
        self._feeds = feeds
        self._models = models
        self._sending = threading.Lock()
        self._stopping = threading.Event()
        self._pipe: Connection | None = None
        self._process: BaseProcess | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the other process runs."""
        process = self._process
        return process is not None and process.is_alive()

    def start(self) -> None:
        """Begin to work; returns at once."""
        self._thread = threading.Thread(
            target=self._run, name="imagine-worker-process", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop between two steps; unfinished jobs go back to the queue unharmed."""
        self._stopping.set()
        self._send("stop")
        if self._thread is not None:
            self._thread.join(_PATIENCE_SECONDS)
            if self._thread.is_alive() and self._process is not None:
                self._process.kill()
                self._thread.join()
            self._thread = None

    def wake(self) -> None:
        """There is something to do: look now."""
        self._send("wake")

    def cancel(self, tenant_id: str, job_id: str) -> None:
        """Stop a job that may be in work there; the queue must know already."""
        self._send("cancel", tenant_id, job_id)

    def _send(self, *words: str) -> None:
        with self._sending:
            if self._pipe is not None:
                with suppress(OSError):  # it has just died: its next life reads the queue
                    self._pipe.send(words)

    def _run(self) -> None:
        deaths = 0
        while not self._stopping.is_set():
            born = time.monotonic()
            self._live()
            if self._stopping.is_set():
                return
            deaths = 0 if time.monotonic() - born > _AGAIN_SECONDS[-1] else deaths + 1
            pause = _AGAIN_SECONDS[min(deaths, len(_AGAIN_SECONDS)) - 1]
            logger.error("the worker process has died; starting it again in %g s", pause)
            self._stopping.wait(pause)

    def _live(self) -> None:
        """One life of the other process, from its start to its end."""
        context = multiprocessing.get_context("spawn")  # threads and forks do not go together
        here, there = context.Pipe()
        process = context.Process(
            target=work, args=(self.build, there), name="imagine-worker", daemon=True
        )
        process.start()
        there.close()
        with self._sending:
            self._process, self._pipe = process, here
        if self._stopping.is_set():
            self._send("stop")
        try:
            while True:
                self._hear(here.recv())
        except (EOFError, OSError):
            pass  # it has ended, one way or the other
        with self._sending:
            self._pipe = None
            here.close()
        process.join()

    def _hear(self, message: tuple[str, tuple[Any, ...]]) -> None:
        kind, words = message
        match kind:
            case "open":
                self._feeds.open(*words)
            case "publish":
                self._feeds.publish(*words)
            case "models":
                self._models.are_elsewhere(*words)
            case "stats":
                self._models.doing_elsewhere(*words)


class RelayedFeeds(Feeds):
    """The feeds of a worker whose watchers are in another process; nothing is kept here."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__()
        self._pipe = pipe
        self._sending = threading.Lock()

    def tell(self, kind: str, *words: object) -> None:
        """Say something to the process that answers."""
        with self._sending, suppress(OSError):  # nobody is there any more: we shall end, too
            self._pipe.send((kind, words))

    def open(self, tenant_id: str, job_id: str, identity_id: str | None) -> None:
        """As `Feeds.open`, over there."""
        self.tell("open", tenant_id, job_id, identity_id)

    def publish(
        self,
        tenant_id: str,
        job_id: str,
        kind: str,
        data: Mapping[str, object],
        about: str = "",
    ) -> None:
        """As `Feeds.publish`, over there."""
        self.tell("publish", tenant_id, job_id, kind, dict(data), about)


def work(build: Build, pipe: Connection) -> None:
    """What the other process does: work until it is told to stop, or nobody is there to tell it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches both; ours is to be told
    bound_heaps()
    feeds = RelayedFeeds(pipe)
    service = build(feeds)
    stop = threading.Event()
    service.worker.start()
    telling = threading.Thread(target=_tell, args=(service, feeds, stop), daemon=True)
    telling.start()
    try:
        while (message := pipe.recv())[0] != "stop":
            if message[0] == "wake":
                service.worker.wake()
            else:
                service.worker.cancel(*message[1:])
    except (EOFError, OSError):
        pass  # whoever answers has died: what we held goes back to the queue
    finally:
        stop.set()
        service.close()
        telling.join()


def _tell(service: Service, feeds: RelayedFeeds, stop: threading.Event) -> None:
    """Open the models, say which, then say now and then how the engine does."""
    try:
        service.models.load()
    except ImagineError as error:
        # The service that answers goes on saying "models"; the operator reads why here.
        logger.error("the models cannot be opened: %s", error)
        return
    feeds.tell("models", service.models.info)
    while not stop.wait(_TOLD_SECONDS):
        feeds.tell("stats", service.models.stats)

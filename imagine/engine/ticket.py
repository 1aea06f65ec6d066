"""What somebody who waits for a picture holds: its state, its result, and the way to stop it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from imagine.core import ImageArray
from imagine.errors import Cancelled, ImagineError


class Phase(StrEnum):
    """Where a request stands; the last three are final."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


FINAL = (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELED)


@dataclass(frozen=True, slots=True)
class Status:
    """A moment in the life of a request.

    Attributes:
        phase: where it stands.
        step: denoising steps done.
        num_steps: denoising steps in all.
        ahead: requests that came before and still wait; 0 once running.
        eta_seconds: until it is done, at the engine's present speed; None before that is known.
        preview: (h, w, 3) uint8, small and unmarked: mark it before anybody sees it. None at first.
        previews: how many previews there have been.
    """

    phase: Phase
    step: int
    num_steps: int
    ahead: int = 0
    eta_seconds: float | None = None
    preview: ImageArray | None = field(default=None, repr=False)
    previews: int = 0


class Ticket:
    """One submitted request. Safe to use from any thread and from asyncio.

    Attributes:
        number: order of arrival.
        replica: who draws it, when there are several.
    """

    def __init__(
        self,
        number: int,
        num_steps: int,
        on_cancel: Callable[[], object] = lambda: None,
    ) -> None:
        self.number = number
        self.replica = ""
        self._on_cancel = on_cancel
        self._history = [Status(Phase.WAITING, 0, num_steps)]
        self._changed = threading.Condition()
        self._result: ImageArray | None = None
        self._error: ImagineError | None = None
        self._cancel_asked = threading.Event()
        self._listeners: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"Ticket({self.number}, {self.status.phase}, step {self.status.step})"

    @property
    def status(self) -> Status:
        """The newest state."""
        with self._changed:
            return self._history[-1]

    @property
    def is_done(self) -> bool:
        """Whether the state is final."""
        return self.status.phase in FINAL

    @property
    def wants_cancel(self) -> bool:
        """Whether somebody asked to stop."""
        return self._cancel_asked.is_set()

    def cancel(self) -> None:
        """Stop before the next step; does nothing to a finished request."""
        if not self._cancel_asked.is_set() and not self.is_done:
            self._cancel_asked.set()
            self._on_cancel()

    def result(self, timeout_seconds: float | None = None) -> ImageArray:
        """Wait for the picture, (h, w, 3) uint8 RGB, unmarked.

        Raises:
            Cancelled: it was cancelled.
            ImagineError: why it failed.
            TimeoutError: not done in time; it goes on.
        """
        with self._changed:
            done = self._changed.wait_for(lambda: self._history[-1].phase in FINAL, timeout_seconds)
            if not done:
                raise TimeoutError(f"The picture was not done after {timeout_seconds} s.")
            return self._outcome()

    def news(self, seen: int) -> list[Status]:
        """States after the first `seen`."""
        with self._changed:
            return self._history[seen:]

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener`, from the engine's thread, whenever there is news."""
        with self._changed:
            self._listeners.append(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        """Stop calling `listener`."""
        with self._changed:
            self._listeners.remove(listener)

    def events(self, poll_seconds: float = 0.1) -> Iterator[Status]:
        """Every state from the first to a final one, in order.

        While nothing changes the last state comes again every `poll_seconds`, so that a reader
        can look at other things. Only the newest preview is kept.
        """
        return (status for _, status in watch([self], poll_seconds))

    async def aevents(self) -> AsyncIterator[Status]:
        """Like `events`, for asyncio; leaving the loop early does not cancel the request."""
        loop, wake = asyncio.get_running_loop(), asyncio.Event()

        def listener() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(wake.set)

        self.listen(listener)
        seen = 0
        try:
            while True:
                wake.clear()
                for status in self.news(seen):
                    seen += 1
                    yield status
                    if status.phase in FINAL:
                        return
                await wake.wait()
        finally:
            self.unlisten(listener)

    async def aresult(self) -> ImageArray:
        """Like `result`; cancelling the waiting task cancels the request."""
        try:
            async for _ in self.aevents():
                pass
        except asyncio.CancelledError:
            self.cancel()
            raise
        with self._changed:
            return self._outcome()

    def _outcome(self) -> ImageArray:
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    # The engine's side.

    def advance(self, **changes: object) -> None:
        """Publish a new state."""
        with self._changed:
            if self._history[-1].phase not in FINAL:
                self._publish(changes)

    def publish(self, status: Status) -> None:
        """Publish a state made elsewhere."""
        with self._changed:
            if self._history[-1].phase not in FINAL:
                self._publish({name: getattr(status, name) for name in status.__slots__})

    def succeed(self, image: ImageArray) -> None:
        """Finish with a picture."""
        with self._changed:
            self._result = image
            self._finish(Phase.SUCCEEDED)

    def fail(self, error: ImagineError) -> None:
        """Finish without a picture; a `Cancelled` error is a cancellation."""
        with self._changed:
            self._error = error
            self._finish(Phase.CANCELED if isinstance(error, Cancelled) else Phase.FAILED)

    def _finish(self, phase: Phase) -> None:
        self._publish({"phase": phase, "ahead": 0, "eta_seconds": 0.0, "preview": None})

    def _publish(self, changes: Mapping[str, object]) -> None:
        last = self._history[-1]
        self._history.append(replace(last, **changes))  # type: ignore[arg-type]
        if last.preview is not None:
            self._history[-2] = replace(last, preview=None)
        self._changed.notify_all()
        for listener in self._listeners:
            listener()


def watch(tickets: Sequence[Ticket], poll_seconds: float = 0.1) -> Iterator[tuple[int, Status]]:
    """States of several requests as they come, each in its own order, until all are final.

    Yields the position of the ticket and its state. While nothing changes the first ticket's last
    state comes again every `poll_seconds`, so that a reader can look at other things.
    """
    wake = threading.Event()
    for ticket in tickets:
        ticket.listen(wake.set)
    seen = [0] * len(tickets)
    try:
        while True:
            wake.clear()
            final = 0
            for index, ticket in enumerate(tickets):
                for status in ticket.news(seen[index]):
                    seen[index] += 1
                    yield index, status
                final += ticket.is_done and not ticket.news(seen[index])
            if final == len(tickets):
                return
            if not wake.wait(poll_seconds):
                yield 0, tickets[0].status
    finally:
        for ticket in tickets:
            ticket.unlisten(wake.set)

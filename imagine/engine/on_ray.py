"""The same engine on several machines: Ray Serve places, scales and routes; we only draw.

Requests of one person go to the replica that knows the person already (Ray's model multiplexing,
with the person in the place of the model), progress streams back, and a caller who goes away
cancels the drawing. Needs the extra `ray`; nothing else in the package imports this file.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from imagine.backends import BACKENDS, BackendInfo
from imagine.core import ImageArray, Request
from imagine.engine.batcher import Priority
from imagine.engine.engine import Engine, person_key
from imagine.engine.limits import Limits, check_request
from imagine.engine.ticket import FINAL, Status, Ticket
from imagine.errors import Cancelled, GenerationFailed, ImagineError, MissingExtra

try:
    from ray import serve
    from ray.exceptions import RayError, TaskCancelledError
except ImportError as error:
    raise MissingExtra("Ray is not installed. Run: pip install 'imagine-yourself[ray]'") from error

PEOPLE_PER_REPLICA = 1000
NOBODY = "nobody"


class _Known:
    """Stands for a person in Ray's routing; when Ray forgets it, the engine forgets the person."""

    def __init__(self, forget: Callable[[], object]) -> None:
        self._forget = forget

    def __del__(self) -> None:
        self._forget()


class EngineReplica:
    """One engine with its own copy of the weights, in a process that Ray looks after."""

    def __init__(
        self,
        backend: str,
        weights: Path | None,
        device: str,
        limits: Limits,
        people_bytes: int,
    ) -> None:
        loaded = BACKENDS.get(backend).load(weights, device)
        self._engine = Engine(loaded, limits, people_bytes=people_bytes)
        self._tag = serve.get_replica_context().replica_id.unique_id
        self._arriving: dict[str, ImageArray] = {}

    def info(self) -> BackendInfo:
        """Facts about the model."""
        return self._engine.backend.info

    def active(self) -> int:
        """Pictures waiting or in the making here."""
        stats = self._engine.stats
        return stats.waiting + stats.active

    def forget_person(self, key: str) -> bool:
        """Drop what is kept of a person here."""
        return self._engine.forget_key(key)

    async def draw(
        self, request: Request, tenant: str, priority: int, timeout_seconds: float | None
    ) -> AsyncIterator[Status | ImageArray | ImagineError | str]:
        """This replica's name, every state, then the picture or why there is none."""
        yield self._tag
        await self._known(serve.get_multiplexed_model_id())
        try:
            ticket = self._engine.submit(
                request,
                tenant=tenant,
                priority=Priority(priority),
                timeout_seconds=timeout_seconds,
            )
        except ImagineError as error:
            yield error
            return
        try:
            async for status in ticket.aevents():
                if status.phase not in FINAL:
                    yield status
            try:
                yield await ticket.aresult()
            except ImagineError as error:
                yield error
        finally:
            ticket.cancel()  # of no effect when it is done; otherwise the caller went away

    @serve.multiplexed(max_num_models_per_replica=PEOPLE_PER_REPLICA)  # type: ignore[untyped-decorator]
    async def _known(self, key: str) -> _Known:
        return _Known(lambda: self._engine.forget_key(key))


class RayEngine:
    """What `Engine` is, for pictures drawn by a Ray Serve deployment.

    Args:
        handle: from `deploy`.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._numbers = itertools.count(1)

    @property
    def info(self) -> BackendInfo:
        """Facts about the model, asked of one replica."""
        info: BackendInfo = self._handle.info.remote().result()
        return info

    def submit(
        self,
        request: Request,
        *,
        tenant: str = "local",
        priority: Priority = Priority.INTERACTIVE,
        timeout_seconds: float | None = None,
    ) -> Ticket:
        """As `Engine.submit`; a full replica's `Busy` comes by the ticket."""
        check_request(request)
        key = NOBODY if request.crops is None else person_key(request.crops)
        stream = self._handle.options(stream=True, multiplexed_model_id=key).draw.remote(
            request, tenant, int(priority), timeout_seconds
        )
        ticket = Ticket(next(self._numbers), request.num_inference_steps, stream.cancel)
        threading.Thread(target=_follow, args=(stream, ticket), daemon=True).start()
        return ticket

    def submit_all(
        self,
        requests: Sequence[Request],
        *,
        tenant: str = "local",
        priority: Priority = Priority.INTERACTIVE,
        timeout_seconds: float | None = None,
    ) -> list[Ticket]:
        """As `Engine.submit_all`; replicas accept or refuse each picture for itself."""
        for request in requests:
            check_request(request)
        return [
            self.submit(request, tenant=tenant, priority=priority, timeout_seconds=timeout_seconds)
            for request in requests
        ]


def _follow(stream: Any, ticket: Ticket) -> None:
    """Copy what a replica tells into the ticket of whoever waits here."""
    try:
        for news in stream:
            if isinstance(news, str):
                ticket.replica = news
            elif isinstance(news, Status):
                ticket.publish(news)
            elif isinstance(news, ImagineError):
                ticket.fail(news)
            else:
                ticket.succeed(news)
        if not ticket.is_done:
            raise RuntimeError("the stream ended early")
    except Exception as error:
        if ticket.wants_cancel or isinstance(error, TaskCancelledError):
            ticket.fail(Cancelled("Cancelled before the picture was finished; nothing was kept."))
            return
        kind = "The replica was lost" if isinstance(error, RayError) else type(error).__name__
        failed = GenerationFailed(f"{kind} while drawing. Ask again with the same seed.")
        failed.__cause__ = error
        ticket.fail(failed)


def deploy(
    backend: str = "embedded",
    *,
    weights: Path | None = None,
    device: str = "cpu",
    limits: Limits | None = None,
    people_bytes: int = 256 * 2**20,
    min_replicas: int = 1,
    max_replicas: int = 4,
    resources: Mapping[str, float] | None = None,
    name: str = "imagine",
) -> RayEngine:
    """Start replicas on the Ray cluster this process is connected to.

    Args:
        backend: a name in `imagine.backends.BACKENDS`.
        weights: folder of the weights, on every machine.
        device: of each replica.
        limits: of each replica's engine.
        people_bytes: identity tokens each replica keeps.
        min_replicas: running even without work.
        max_replicas: most under load; Ray adds one when the others have enough to do.
        resources: for each replica, e.g. {"num_gpus": 1}.
        name: of the Serve application.
    """
    chosen = limits or Limits()
    deployment = serve.deployment(
        EngineReplica,
        name="engine",
        max_ongoing_requests=chosen.max_active + chosen.max_waiting,
        autoscaling_config={
            "min_replicas": min_replicas,
            "max_replicas": max_replicas,
            "initial_replicas": min_replicas,
            # two full passes: one being drawn and one waiting for it
            "target_ongoing_requests": 2 * chosen.max_forward_rows,
        },
        ray_actor_options=dict(resources or {"num_cpus": 1}),
    )
    application = deployment.bind(backend, weights, device, chosen, people_bytes)
    return RayEngine(serve.run(application, name=name, route_prefix=None))

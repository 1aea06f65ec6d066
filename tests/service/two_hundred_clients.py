"""Two hundred clients at once against the fake backend, to be run by hand, not by pytest.

    python -m tests.service.two_hundred_clients --seconds 60

A process of its own serves (and another one draws, unless `--one-process`); this one asks. At the
end every accepted wish must have ended well, once, with one picture, and nothing else may be in
the queue. Prints what was measured as JSON and ends with status 1 when a job was lost or doubled.
Milliseconds of processor time, unlike latencies, say the same on a busy machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx2

TENANTS = 10
ARRIVAL_SECONDS = 10.0  # in which the clients come, one after the other
LOOK_SECONDS = 5.0  # between two looks at the memory of the service
PAUSE_SECONDS = 1.0  # a client looks at its picture before it asks for another


@dataclass
class Seen:
    """What the clients saw."""

    submit_seconds: list[float] = field(default_factory=list)
    accepted: list[tuple[int, str]] = field(default_factory=list)  # number of the tenant, job
    busy: int = 0
    errors: list[str] = field(default_factory=list)


def build(folder: str, worker_process: bool, feeds: Any = None) -> Any:
    """The service, with doubles for faces; that of a worker process is given its feeds."""
    from imagine import api
    from imagine.identity import FACE_DETECTORS, FACE_ENCODERS
    from imagine.service.loaded_models import LoadedModels
    from imagine.service.wiring import build_service
    from tests.conftest import calm as calm_checks
    from tests.service.conftest import chosen, places_in

    vars(api)["usual_checks"] = calm_checks  # painted faces have no age
    setattr(LoadedModels, "apparent_ages", lambda self, face: [30.0] * len(face.crops))  # noqa: B010
    FACE_DETECTORS.add("double", "tests.doubles:DoubleDetector")
    FACE_ENCODERS.add("double", "tests.doubles:DoubleEncoder")
    settings = chosen(preview_seconds=0.0, worker_process=worker_process)
    service = build_service(settings, places_in(Path(folder)), feeds=feeds)
    if worker_process:
        service.worker.build = partial(build, folder, False)  # type: ignore[union-attr]
    return service


def serve(folder: str, pipe: Connection, worker_process: bool) -> None:
    """The service: tells its port, keys and people, then works until it is told to end."""
    import uvicorn

    from imagine.backends.fake import FakeBackend
    from imagine.service.api import create_app
    from imagine.service.auth import SCOPES
    from imagine.service.memory import bound_heaps
    from imagine.storage.consent import ConsentForm, Purpose
    from tests.service.conftest import selfie

    bound_heaps()  # as `imagine-me serve` does
    service = build(folder, worker_process)
    if worker_process:  # people are enrolled for the model that the other process will open
        service.models.are_elsewhere(FakeBackend().info)
    form = ConsentForm("I agree.", "en", {Purpose.GENERATE}, True, True, "test")
    houses = []
    for number in range(TENANTS):
        tenant = f"tenant_{number}"
        service.people.add_tenant(tenant, tenant)
        token = service.api_keys.create(tenant, "load", SCOPES).token
        identity = service.enrolment.enrol(tenant, [selfie(number)], form).facts.id
        houses.append((token, identity))
    config = uvicorn.Config(
        create_app(service),
        port=0,
        log_level="error",
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    sockets = [config.bind_socket()]
    pipe.send((sockets[0].getsockname()[1], houses))
    uvicorn.Server(config).run(sockets)


async def client(
    http: httpx2.AsyncClient, tenant: int, house: tuple[str, str], until: float, seen: Seen
) -> None:
    """Ask for a picture, wait for it, ask again."""
    await asyncio.sleep(ARRIVAL_SECONDS * random.random())
    token, identity = house
    headers = {"Authorization": f"Bearer {token}"}
    number = 0
    while time.monotonic() < until:
        number += 1
        body = {"prompt": "in a forest", "identity": identity, "seed": number}
        started = time.perf_counter()
        try:
            answer = await http.post("/v1/generations", json=body, headers=headers)
            if answer.status_code == 503:
                seen.busy += 1
                await asyncio.sleep(1)
                continue
            seen.submit_seconds.append(time.perf_counter() - started)
            if answer.status_code != 202:
                seen.errors.append(f"{answer.status_code} {answer.text[:200]}")
                continue
            told = answer.json()
            seen.accepted.append((tenant, told["id"]))
            await http.get(told["urls"]["events"], headers=headers)  # ends with the last event
            await asyncio.sleep(PAUSE_SECONDS)
        except httpx2.TransportError as error:
            seen.errors.append(type(error).__name__)


async def ask(
    port: int, houses: list[tuple[str, str]], clients: int, seconds: float, look: Callable[[], None]
) -> Seen:
    """All clients at once, for so long; then until the last picture is there."""
    seen = Seen()

    async def look_again() -> None:
        while True:
            look()
            await asyncio.sleep(LOOK_SECONDS)

    limits = httpx2.Limits(max_connections=clients, max_keepalive_connections=clients)
    url = f"http://127.0.0.1:{port}"
    async with httpx2.AsyncClient(base_url=url, limits=limits, timeout=120) as http:
        until = time.monotonic() + seconds
        tasks = [
            client(http, n % TENANTS, houses[n % TENANTS], until, seen) for n in range(clients)
        ]
        looking = asyncio.create_task(look_again())
        await asyncio.gather(*tasks)
        looking.cancel()
    return seen


def count(folder: Path, seen: Seen) -> dict[str, int]:
    """What became of the accepted wishes, from the database."""
    from imagine.service.pictures import Pictures
    from imagine.storage.database import open_database
    from imagine.storage.jobs import JobState, JobStore

    with open_database(f"sqlite:///{folder / 'imagine.db'}") as database:
        jobs = [
            job
            for n in range(TENANTS)
            for job in JobStore(database).find(f"tenant_{n}", limit=1_000_000)
        ]
        pictures = [
            picture
            for n in range(TENANTS)
            for picture in Pictures(database).page(f"tenant_{n}", 1_000_000, None)
        ]
    accepted = {job_id for _, job_id in seen.accepted}
    drawn = [picture.job_id for picture in pictures]
    return {
        "jobs": len(jobs),
        "lost": len(accepted - {j.id for j in jobs if j.state is JobState.SUCCEEDED}),
        "doubled": len(drawn) - len(set(drawn)),
        "unasked": len({job.id for job in jobs} - accepted),
        "done_more_than_once": sum(job.attempts > 1 for job in jobs),
    }


@dataclass(frozen=True)
class Measures:
    """Of one process; Linux only."""

    name: str
    memory_mb: float
    cpu_seconds: float


def measures(process_id: int) -> list[Measures]:
    """Of the process that answers and of the one that draws, if there is one."""
    tasks = Path(f"/proc/{process_id}/task").glob("*/children")  # each thread has its own
    children = [child for task in tasks for child in task.read_text().split()]
    draws = [
        int(child)
        for child in children
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    found = []
    for name, one in zip(("answers", "draws"), (process_id, *draws), strict=False):
        pages = int(Path(f"/proc/{one}/statm").read_text().split()[1])
        times = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks = int(times[11]) + int(times[12])
        found.append(Measures(name, pages * 4096 / 1e6, ticks / os.sysconf("SC_CLK_TCK")))
    return found


def main() -> int:
    """Run it and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--one-process", action="store_true", help="answer and draw in one")
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        here, there = context.Pipe()
        server = context.Process(target=serve, args=(folder, there, not given.one_process))
        server.start()
        if not here.poll(120):
            raise SystemExit("the service did not start")
        port, houses = here.recv()
        time.sleep(10)  # until everything is open
        looks: list[list[Measures]] = []

        def look() -> None:
            looks.append(measures(server.pid or 0))

        load = Path("/proc/loadavg").read_text().split()[0]
        seen = asyncio.run(ask(port, houses, given.clients, given.seconds, look))
        look()
        server.terminate()
        server.join()
        counts = count(Path(folder), seen)
    times = sorted(seen.submit_seconds)

    def of(name: str, what: str) -> list[float]:
        return [getattr(one, what) for some in looks for one in some if one.name == name]

    def percentile(share: float) -> float:
        return round(1000 * times[min(len(times) - 1, int(share * len(times)))], 1)

    told: dict[str, Any] = {
        "clients": given.clients,
        "seconds": given.seconds,
        "accepted": len(seen.accepted),
        "busy": seen.busy,
        "errors": len(seen.errors),
        "first_error": next(iter(seen.errors), None),
        "submit_ms": {f"p{round(100 * p)}": percentile(p) for p in (0.5, 0.95, 0.99)},
        "memory_mb": {one.name: [round(n) for n in of(one.name, "memory_mb")] for one in looks[-1]},
        "cpu_ms_each": {
            one.name: round(
                1000
                * (one.cpu_seconds - of(one.name, "cpu_seconds")[0])
                / max(1, len(seen.accepted)),
                1,
            )
            for one in looks[-1]
        },
        "load_average": {"before": load, "after": Path("/proc/loadavg").read_text().split()[0]},
        **counts,
    }
    print(json.dumps(told, indent=2))
    return 1 if counts["lost"] or counts["doubled"] or counts["unasked"] or seen.errors else 0


if __name__ == "__main__":
    sys.exit(main())

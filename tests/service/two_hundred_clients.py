"""Two hundred clients at once against the fake backend, to be run by hand, not by pytest.

    python -m tests.service.two_hundred_clients --seconds 60

A process of its own serves; this one asks. At the end every accepted wish must have ended well,
once, with one picture, and nothing else may be in the queue. Prints what was measured as JSON and
ends with status 1 when a job was lost or doubled.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx2

TENANTS = 10
ARRIVAL_SECONDS = 10.0  # in which the clients come, one after the other
PAUSE_SECONDS = 1.0  # a client looks at its picture before it asks for another


@dataclass
class Seen:
    """What the clients saw."""

    submit_seconds: list[float] = field(default_factory=list)
    accepted: list[tuple[int, str]] = field(default_factory=list)  # number of the tenant, job
    busy: int = 0
    errors: list[str] = field(default_factory=list)


def serve(folder: str, pipe: Connection) -> None:
    """The service: tells its port, keys and people, then works until it is killed."""
    import uvicorn

    from imagine import api
    from imagine.identity import FACE_DETECTORS, FACE_ENCODERS
    from imagine.service.api import create_app
    from imagine.service.auth import SCOPES
    from imagine.service.loaded_models import LoadedModels
    from imagine.service.wiring import build_service
    from imagine.storage.consent import ConsentForm, Purpose
    from tests.conftest import calm as calm_checks
    from tests.service.conftest import chosen, places_in, selfie

    vars(api)["usual_checks"] = calm_checks  # painted faces have no age
    setattr(LoadedModels, "apparent_ages", lambda self, face: [30.0] * len(face.crops))  # noqa: B010
    FACE_DETECTORS.add("double", "tests.doubles:DoubleDetector")
    FACE_ENCODERS.add("double", "tests.doubles:DoubleEncoder")
    service = build_service(chosen(preview_seconds=0.0), places_in(Path(folder)))
    form = ConsentForm("I agree.", "en", {Purpose.GENERATE}, True, True, "test")
    houses = []
    for number in range(TENANTS):
        tenant = f"tenant_{number}"
        service.people.add_tenant(tenant, tenant)
        token = service.api_keys.create(tenant, "load", SCOPES).token
        identity = service.enrolment.enrol(tenant, [selfie(number)], form).facts.id
        houses.append((token, identity))
    config = uvicorn.Config(create_app(service), port=0, log_level="error", access_log=False)
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


async def ask(port: int, houses: list[tuple[str, str]], clients: int, seconds: float) -> Seen:
    """All clients at once, for so long; then until the last picture is there."""
    seen = Seen()
    limits = httpx2.Limits(max_connections=clients, max_keepalive_connections=clients)
    url = f"http://127.0.0.1:{port}"
    async with httpx2.AsyncClient(base_url=url, limits=limits, timeout=120) as http:
        until = time.monotonic() + seconds
        tasks = [
            client(http, n % TENANTS, houses[n % TENANTS], until, seen) for n in range(clients)
        ]
        await asyncio.gather(*tasks)
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


def memory_mb(process_id: int) -> float:
    """Resident memory of a process, Linux only."""
    pages = Path(f"/proc/{process_id}/statm").read_text().split()[1]
    return int(pages) * 4096 / 1e6


def main() -> int:
    """Run it and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=200)
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        here, there = context.Pipe()
        server = context.Process(target=serve, args=(folder, there), daemon=True)
        server.start()
        if not here.poll(120):
            raise SystemExit("the service did not start")
        port, houses = here.recv()
        time.sleep(1)
        before = memory_mb(server.pid or 0)
        seen = asyncio.run(ask(port, houses, given.clients, given.seconds))
        after = memory_mb(server.pid or 0)
        server.terminate()
        server.join()
        counts = count(Path(folder), seen)
    times = sorted(seen.submit_seconds)

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
        "memory_mb": {"before": round(before, 1), "after": round(after, 1)},
        **counts,
    }
    print(json.dumps(told, indent=2))
    return 1 if counts["lost"] or counts["doubled"] or counts["unasked"] or seen.errors else 0


if __name__ == "__main__":
    sys.exit(main())

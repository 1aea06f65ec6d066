"""Two replicas on one machine without a network; prints what happened as JSON.

Run by test_on_ray.py in a process of its own: Ray starts processes and threads that a test run
should not inherit.
"""

from __future__ import annotations

import json
import logging
import os
import time
from itertools import pairwise

os.environ.update(
    RAY_USAGE_STATS_ENABLED="0",
    RAY_DEDUP_LOGS="0",
    RAY_SERVE_LOG_TO_STDERR="0",
    # A busy machine answers late; a router that will not wait for the replica takes another one.
    RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S="10",
    RAY_SERVE_MAX_QUEUE_LENGTH_RESPONSE_DEADLINE_S="20",
    RAY_SERVE_MULTIPLEXED_MODEL_ID_MATCHING_TIMEOUT_S="10",
)

import numpy as np
import ray
from ray import serve

from imagine.backends.fake import FakeBackend
from imagine.engine import Engine, Limits, Phase
from imagine.engine.on_ray import deploy
from imagine.errors import Cancelled, InvalidInput
from tests.engine.doubles import wish

PEOPLE = 12  # all of twelve on one of two replicas: once in 2048 runs
ROUNDS = 5
NEWS_SECONDS = 2.0  # until the router has heard who knows whom; replicas tell it every 0.1 s


def main() -> None:
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
    )
    try:
        print(json.dumps(story()))
    finally:
        serve.shutdown()
        ray.shutdown()


def story() -> dict[str, object]:
    engine = deploy("fake", min_replicas=2, max_replicas=2, limits=Limits(max_active=64))
    told: dict[str, object] = {"backend": engine.info.name}
    # one after another, so that where a person goes is not a question of load
    replicas: dict[int, list[str]] = {}
    same = True
    with Engine(FakeBackend()) as local:
        for seed in range(ROUNDS):
            for person in range(PEOPLE):
                request = wish(seed, person=person)
                ticket = engine.submit(request)
                picture = ticket.result(60)
                replicas.setdefault(person, []).append(ticket.replica)
                same &= bool(np.array_equal(picture, local.submit(request).result(60)))
            time.sleep(NEWS_SECONDS)
    told["same_as_one_machine"] = same
    went = [earlier == later for names in replicas.values() for earlier, later in pairwise(names)]
    told["went_where_they_were_known"] = sum(went) / len(went)
    told["replicas_used"] = len(set().union(*replicas.values()))
    states = list(engine.submit(wish(steps=5)).events())
    told["steps_told"] = sorted({s.step for s in states if s.phase is Phase.RUNNING})
    told["canceled"], told["left_running"] = cancel_one(engine)
    try:
        engine.submit(wish(steps=0))
    except InvalidInput as error:
        told["refused"] = str(error)
    return told


def cancel_one(engine: object) -> tuple[bool, int]:
    ticket = engine.submit(wish(steps=200, seed=5))  # type: ignore[attr-defined]
    ticket.cancel()
    try:
        ticket.result(30)
        canceled = False
    except Cancelled:
        canceled = True
    until = time.monotonic() + 20
    active = 1
    while active and time.monotonic() < until:
        asked = [engine._handle.active.remote() for _ in range(6)]  # type: ignore[attr-defined]
        active = max(answer.result() for answer in asked)
        time.sleep(0.1)
    return canceled, active


if __name__ == "__main__":
    main()

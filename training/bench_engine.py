"""The engine against what one would do without it, on the embedded model, in one run.

Arms, all with the same weights, dtype, steps, solver and inference mode:
1. stock: one request at a time through a plain loop around the denoiser and diffusers' scheduler,
   which projects prompt and person to keys and values at every step, as stock pipelines do;
2. fifo: a server with a queue and one worker around (1);
3. dynamic: requests of equal steps and guidance are put in one batch when the worker is free, and
   leave together (what request-level batching servers do);
4. engine: `imagine.engine.Engine`, also with each of its features taken away alone.

Load comes as an open-loop Poisson trace with mixed steps, guidance and people, at shares of the
capacity of arm 2 measured first. Run with `make bench` (a few minutes) or in full:
    python -m training.bench_engine --requests 80 --rounds 3 --isolation 1000 --endurance 2000
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imagine.backends.base import draw_alone
from imagine.backends.embedded import MODEL_FOLDER, EmbeddedBackend
from imagine.core import ImageArray, Request
from imagine.engine import Engine, Limits
from imagine.settings import Settings
from training.bench_arms import (
    BATCH,
    DynamicArm,
    EngineArm,
    FifoArm,
    Served,
    StockEmbedded,
    serve,
    without_features,
)
from training.bench_report import as_markdown, plot_features, plot_load

PROMPTS = (
    "me in a forest, smiling",
    "a black and white photo of me in the city",
    "me wearing a red shirt in a park at sunset",
    "as a scientist in the laboratory with round glasses on",
)
STEPS = (8, 20, 30)
GUIDANCE = (1.0, 2.0, 3.5)
PEOPLE = 6
PHOTOS = 2
SHARES = (0.5, 0.8, 1.0, 1.2)
WARM_UP = 500  # requests before memory is looked at
# Levels of 255 between stock and ours, which add up in another order: where a pixel stands on the
# border between two levels, the last bit decides. Ours alone and in a crowd are equal.
TOLERANCE = 2

Arm = FifoArm | EngineArm


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=30, help="per arm and load")
    parser.add_argument("--rounds", type=int, default=1, help="traces per arm and load")
    parser.add_argument("--repeats", type=int, default=7, help="of single requests")
    parser.add_argument("--isolation", type=int, default=60, help="mixed requests checked alone")
    parser.add_argument("--endurance", type=int, default=0, help="requests of the memory run")
    parser.add_argument("--shares", type=float, nargs="*", default=list(SHARES))
    parser.add_argument("--only", choices=["isolation", "endurance"], help="one part alone")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-engine"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    # Engines are compared, and stock draws a wish once.
    os.environ["IMAGINE_CANDIDATES"] = "1"
    backend = EmbeddedBackend.load()
    results: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "weights": backend.info.model_revision,
        "load_average_before": round(os.getloadavg()[0], 2),
    }
    if given.only != "endurance":
        results["isolation"] = measure_isolation(backend, given.isolation)
    if given.only is None:
        results |= measure_speed(backend, given)
    if given.endurance:
        results["endurance"] = measure_endurance(backend, given.endurance)
    results["load_average_after"] = round(os.getloadavg()[0], 2)
    name = given.only or "engine"
    (given.out / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")
    (given.out / f"{name}.md").write_text(as_markdown(results))
    if given.only is None:
        plot_load(given.out / "engine.png", results["load"])
        plot_features(given.out / "features.png", results["features"])
    print(as_markdown(results))


def measure_speed(backend: EmbeddedBackend, given: argparse.Namespace) -> dict[str, Any]:
    """Everything about time."""
    stock = StockEmbedded(Settings().assets_directory / "models" / MODEL_FOLDER)
    arms = (FifoArm(stock), DynamicArm(stock), EngineArm(backend))
    features = without_features(backend)
    results: dict[str, Any] = {}
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "single": lambda: measure_single(stock, features, given.repeats),
        "saturation": lambda: measure_saturation(arms, given.requests),
        "features": lambda: measure_saturation(features, given.requests // 2),
    }
    for name, measure in parts.items():
        results[name] = measure()
        print(json.dumps({name: results[name]}), flush=True)  # a run cut short is not lost
    capacity = results["saturation"]["images_per_second"]["fifo"]
    results["load"] = measure_load(arms, capacity, given.requests, given.rounds, given.shares)
    results["cancel"] = measure_cancel(backend)
    return results


def mixed_requests(count: int, seed: int = 0) -> list[Request]:
    """Requests of several people with mixed prompts, steps, guidance and likeness."""
    random = np.random.default_rng(seed)
    people = random.integers(0, 255, (PEOPLE, PHOTOS, 128, 128, 3), dtype=np.uint8)
    return [
        Request(
            prompt=PROMPTS[random.integers(len(PROMPTS))],
            crops=people[random.integers(PEOPLE)],
            seed=int(random.integers(2**31)),
            num_inference_steps=int(random.choice(STEPS)),
            guidance_scale=float(random.choice(GUIDANCE)),
            likeness=float(random.choice([0.5, 0.7, 1.0])),
        )
        for _ in range(count)
    ]


def measure_single(
    stock: StockEmbedded, features: Sequence[EngineArm], repeats: int
) -> dict[str, Any]:
    """One request alone, stock loop and engine in turns, and the engine without each feature."""
    request = replace(mixed_requests(1)[0], num_inference_steps=20, guidance_scale=2.0)
    arms: dict[str, Callable[[], ImageArray]] = {"stock": lambda: stock.draw([request])[0]}
    engines = {arm.name: (Engine(arm.backend, arm.limits), arm.change) for arm in features}

    def through(engine: Engine, wanted: Request) -> Callable[[], ImageArray]:
        return lambda: engine.submit(wanted).result()

    arms |= {n: through(engine, change(request)) for n, (engine, change) in engines.items()}
    pictures = {name: arm() for name, arm in arms.items()}
    times: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(repeats):
        for name, arm in arms.items():
            started = time.perf_counter()
            arm()
            times[name].append(time.perf_counter() - started)
    for engine, _ in engines.values():
        engine.close()
    base = statistics.median(times["stock"])
    return {
        "seconds": {name: round(statistics.median(t), 4) for name, t in times.items()},
        "spread": {name: [round(min(t), 4), round(max(t), 4)] for name, t in times.items()},
        "times_as_fast": {name: round(base / statistics.median(t), 3) for name, t in times.items()},
        "largest_difference_levels": _difference(pictures["stock"], pictures["engine"]),
        "tolerance_levels": TOLERANCE,
    }


def measure_saturation(arms: Sequence[Arm], count: int) -> dict[str, Any]:
    """Everything arrives at once: images per second, twice, in turns."""
    rates: dict[str, list[float]] = {arm.name: [] for arm in arms}
    for round_number in range(2):
        for arm in arms:
            served = [Served(request, 0.0) for request in mixed_requests(count, round_number)]
            rates[arm.name].append(count / serve(arm, served))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "requests": count,
        "images_per_second": {name: round(rate, 3) for name, rate in medians.items()},
        "spread": {name: [round(min(v), 3), round(max(v), 3)] for name, v in rates.items()},
        "engine_over": {n: round(medians["engine"] / rate, 3) for n, rate in medians.items()},
    }


def measure_load(
    arms: Sequence[Arm], capacity: float, count: int, rounds: int, shares: Sequence[float]
) -> list[dict[str, Any]]:
    """Poisson arrivals at shares of the capacity of arm 2; every arm serves the same traces."""
    rows: list[dict[str, Any]] = []
    for share in shares:
        everything: dict[str, list[Served]] = {arm.name: [] for arm in arms}
        rates: dict[str, list[float]] = {arm.name: [] for arm in arms}
        for number in range(rounds):
            gaps = np.random.default_rng(number).exponential(1.0 / (share * capacity), count)
            arrivals = np.cumsum(gaps)
            for arm in arms:
                served = [
                    Served(request, float(at))
                    for request, at in zip(mixed_requests(count, 2 + number), arrivals, strict=True)
                ]
                rates[arm.name].append(count / serve(arm, served))
                everything[arm.name] += served
        for name, served in everything.items():
            rate = statistics.median(rates[name])
            rows.append({"load": share, "arm": name, **_latencies(served, rate)})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def _latencies(served: Sequence[Served], images_per_second: float) -> dict[str, Any]:
    latency = [one.finished - one.arrived for one in served]
    waits = [one.started - one.arrived for one in served]
    previews = [one.previewed - one.arrived for one in served if one.previewed is not None]
    return {
        "requests": len(served),
        "images_per_second": round(images_per_second, 3),
        "p50_seconds": round(float(np.percentile(latency, 50)), 3),
        "p95_seconds": round(float(np.percentile(latency, 95)), 3),
        "wait_p50_seconds": round(float(np.percentile(waits, 50)), 3),
        "wait_p95_seconds": round(float(np.percentile(waits, 95)), 3),
        "first_preview_p50_seconds": round(float(np.median(previews)), 3) if previews else None,
    }


def measure_cancel(backend: EmbeddedBackend) -> dict[str, float]:
    """Steps and time a request still takes after it was cancelled, over ten tries."""
    steps, seconds = [], []
    with Engine(backend, Limits(max_forward_rows=1)) as engine:
        for request in mixed_requests(10, 3):
            ticket = engine.submit(replace(request, num_inference_steps=30))
            for status in ticket.events():
                if status.step >= 3 and not ticket.wants_cancel:
                    ticket.cancel()
                    at, when = ticket.status.step, time.perf_counter()
            seconds.append(time.perf_counter() - when)
            steps.append(ticket.status.step - at)
    return {"most_steps": max(steps), "median_seconds": round(statistics.median(seconds), 4)}


def measure_isolation(backend: EmbeddedBackend, count: int) -> dict[str, Any]:
    """Mixed requests together, and each again alone: the largest difference, in levels of 255."""
    short = {8: 2, 20: 3, 30: 5}  # steps; a leak would show in the first
    requests = [
        replace(request, num_inference_steps=short[request.num_inference_steps])
        for request in mixed_requests(count, 4)
    ]
    with Engine(backend, Limits(max_forward_rows=3 * BATCH, max_waiting=count)) as engine:
        together = [ticket.result() for ticket in engine.submit_all(requests)]
    with Engine(backend, Limits(max_forward_rows=1, max_waiting=count)) as engine:
        alone = [ticket.result() for ticket in engine.submit_all(requests)]
    differences = [_difference(a, b) for a, b in zip(together, alone, strict=True)]
    swapped = replace(requests[0], crops=requests[1].crops)
    return {
        "requests": count,
        "largest_difference_levels": max(differences),
        "tolerance_levels": TOLERANCE,
        "above_tolerance": sum(difference > TOLERANCE for difference in differences),
        # what a leak of another person would look like
        "another_person_differs_by_levels": _difference(draw_alone(backend, swapped), alone[0]),
    }


def measure_endurance(backend: EmbeddedBackend, count: int) -> dict[str, Any]:
    """Resident memory after a warm-up and after so many requests more.

    The warm-up is a pass of every size, since matrix libraries keep a kernel for each, and some
    requests, until the allocator has met every order of sizes; then memory must stay.
    """
    plain = replace(mixed_requests(1)[0], crops=None, guidance_scale=1.0)
    for rows in range(1, 3 * BATCH + 1):
        backend.denoise_step([backend.prepare(plain)] * rows)
    sizes = []
    with Engine(backend, Limits(max_forward_rows=3 * BATCH)) as engine:
        for start in range(0, WARM_UP + count, 100):
            requests = [
                replace(request, num_inference_steps=2) for request in mixed_requests(100, start)
            ]
            for ticket in engine.submit_all(requests):
                ticket.result()
            sizes.append(_resident_megabytes())
    early, late = sizes[WARM_UP // 100 - 1], max(sizes[-2:])
    return {
        "requests": count,
        "early_mb": round(early, 1),
        "late_mb": round(late, 1),
        "growth": round(late / early - 1.0, 4),
        "warm_up_requests": WARM_UP,
        "mb_after_every_100": [round(size) for size in sizes],
    }


def _resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _difference(first: ImageArray, second: ImageArray) -> int:
    return int(np.abs(first.astype(int) - second.astype(int)).max())


if __name__ == "__main__":
    main()

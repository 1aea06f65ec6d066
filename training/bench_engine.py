"""The engine against what one would do without it, on the embedded model, in one run.

Arms, all with the same weights, dtype, steps, solver and inference mode:
1. stock: one request at a time through a plain loop around the denoiser and diffusers' scheduler,
   which projects prompt and person to keys and values at every step, as stock pipelines do;
2. fifo: a server with a queue and one worker around (1);
3. dynamic: requests of equal steps and guidance are put in one batch when the worker is free, and
   leave together (what request-level batching servers do);
4. engine: `imagine.engine.Engine`.

Load comes as an open-loop Poisson trace with mixed steps, guidance and people, at shares of the
capacity of arm 2 measured first. Run with `make bench` (a small form) or
`python -m training.bench_engine --requests 40 --out runs/bench-engine`.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from torch import Tensor

from imagine.backends.embedded import (
    FULL_LIKENESS_GUIDANCE,
    MODEL_FOLDER,
    EmbeddedBackend,
)
from imagine.backends.minilm import load_text_encoder
from imagine.core import ImageArray, Request
from imagine.engine import Engine, Limits, Phase
from imagine.models.denoiser import Denoiser
from imagine.models.identity_adapter import IdentityAdapter
from imagine.settings import Settings

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
BATCH = 8  # requests of one pass, arms 3 and 4 alike
TOLERANCE = 2  # levels of 255: batched sums add up in another order


class StockEmbedded:
    """The embedded model as a stock pipeline would run it."""

    def __init__(self, folder: Path) -> None:
        words: dict[str, Any] = {"local_files_only": True, "low_cpu_mem_usage": False}
        denoiser = Denoiser.from_pretrained(folder / "denoiser", **words)
        adapter = IdentityAdapter.from_pretrained(folder / "identity_adapter", **words)
        self.denoiser, self.adapter = denoiser.float().eval(), adapter.float().eval()
        self.scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
        self.text_encoder = load_text_encoder("cpu")

    @torch.inference_mode()
    def draw(self, requests: Sequence[Request]) -> list[ImageArray]:
        """Requests of equal steps and guidance, together from the first step to the last."""
        steps, guidance = requests[0].num_inference_steps, requests[0].guidance_scale
        text, text_mask = self.text_encoder([request.prompt for request in requests])
        people = torch.cat([self._tokens(request.crops) for request in requests])
        person = torch.tensor([FULL_LIKENESS_GUIDANCE * r.likeness for r in requests])
        weights = torch.stack(
            [torch.full_like(person, 1.0 - guidance), guidance - person, person], dim=1
        )
        kept = [row for row in range(3) if weights[:, row].abs().max() > 1e-6]
        count = len(kept)
        with_text = torch.tensor([row > 0 for row in kept])
        with_person = torch.tensor([row == 2 for row in kept])
        text, text_mask = text.repeat_interleave(count, 0), text_mask.repeat_interleave(count, 0)
        people = people.repeat_interleave(count, 0)
        present = torch.ones(people.shape[:2], dtype=torch.bool)
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.scheduler.config)
        scheduler.set_timesteps(steps)
        latents = torch.stack([self._noise(request.seed) for request in requests])
        estimate = latents
        for index, timestep in enumerate(scheduler.timesteps):
            sigma = scheduler.sigmas[index]
            conditioning = self.denoiser.condition(
                text,
                text_mask & with_text.repeat(len(requests))[:, None],
                people,
                present & with_person.repeat(len(requests))[:, None],
                torch.ones(len(people)),
            )
            rows = latents.repeat_interleave(count, 0)
            clean = self.denoiser(rows, sigma.expand(len(rows)), conditioning)
            clean = clean.unflatten(0, (len(requests), count))
            estimate = (clean * weights[:, kept, None, None, None]).sum(1).clamp(-1.0, 1.0)
            velocity = (latents - estimate) / sigma
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        return [_pixels(picture) for picture in estimate]

    def _tokens(self, crops: ImageArray | None) -> Tensor:
        assert crops is not None
        size = self.adapter.config.image_size
        resized = np.stack(
            [
                np.asarray(Image.fromarray(crop).resize((size, size), Image.Resampling.BOX))
                for crop in crops
            ]
        )
        pixels = torch.from_numpy(resized).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)
        tokens: Tensor = self.adapter(pixels).flatten(0, 1)[None]
        return tokens

    def _noise(self, seed: int) -> Tensor:
        size = self.denoiser.config.image_size
        return torch.randn((3, size, size), generator=torch.Generator("cpu").manual_seed(seed))


@dataclass(eq=False)
class Served:
    """One request of a trace and when what happened, seconds since the trace began."""

    request: Request = field(repr=False)
    arrived: float
    started: float = 0.0
    previewed: float | None = None
    finished: float = 0.0
    image: ImageArray | None = field(default=None, repr=False)


class FifoArm:
    """Arm 2: a queue and one worker."""

    name = "fifo"

    def __init__(self, stock: StockEmbedded) -> None:
        self.stock = stock

    def serve(self, arrivals: Sequence[Served], clock: Callable[[], float]) -> None:
        """Play a trace to its end."""
        waiting: queue.Queue[Served] = queue.Queue()
        with ThreadPoolExecutor(1) as worker:
            work = worker.submit(self._work, waiting, len(arrivals), clock)
            _play(arrivals, clock, waiting.put)
            work.result()

    def _work(self, waiting: queue.Queue[Served], count: int, clock: Callable[[], float]) -> None:
        served = 0
        while served < count:
            batch = self._next(waiting)
            for one in batch:
                one.started = clock()
            for one, image in zip(
                batch, self.stock.draw([one.request for one in batch]), strict=True
            ):
                one.image, one.finished = image, clock()
            served += len(batch)

    def _next(self, waiting: queue.Queue[Served]) -> list[Served]:
        return [waiting.get()]


class DynamicArm(FifoArm):
    """Arm 3: the head of the queue and whoever is compatible with it."""

    name = "dynamic"

    def __init__(self, stock: StockEmbedded) -> None:
        super().__init__(stock)
        self._put_back: list[Served] = []

    def _next(self, waiting: queue.Queue[Served]) -> list[Served]:
        if not self._put_back:
            self._put_back.append(waiting.get())
        while not waiting.empty():
            self._put_back.append(waiting.get())
        head = self._put_back[0].request
        alike = [
            one
            for one in self._put_back
            if one.request.num_inference_steps == head.num_inference_steps
            and one.request.guidance_scale == head.guidance_scale
        ][:BATCH]
        self._put_back = [one for one in self._put_back if one not in alike]
        return alike


class EngineArm:
    """Arm 4: ours."""

    name = "engine"

    def __init__(self, backend: EmbeddedBackend) -> None:
        self.limits = Limits(
            max_forward_rows=3 * BATCH, max_active=2 * BATCH, max_waiting=4096, preview_seconds=0.5
        )
        self.backend = backend

    def serve(self, arrivals: Sequence[Served], clock: Callable[[], float]) -> None:
        """Play a trace to its end."""
        with Engine(self.backend, self.limits) as engine:
            watchers: list[threading.Thread] = []

            def submit(one: Served) -> None:
                ticket = engine.submit(one.request)

                def follow() -> None:
                    for status in ticket.events(5.0):
                        now = clock()
                        if status.phase is not Phase.WAITING and not one.started:
                            one.started = now
                        if status.previews and one.previewed is None:
                            one.previewed = now
                    one.image, one.finished = ticket.result(), clock()

                watchers.append(threading.Thread(target=follow))
                watchers[-1].start()

            _play(arrivals, clock, submit)
            for watcher in watchers:
                watcher.join()


def _play(
    arrivals: Sequence[Served], clock: Callable[[], float], submit: Callable[[Served], object]
) -> None:
    for one in arrivals:
        time.sleep(max(0.0, one.arrived - clock()))
        submit(one)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=12, help="per arm and load")
    parser.add_argument("--repeats", type=int, default=9, help="of single requests")
    parser.add_argument("--isolation", type=int, default=100, help="mixed requests checked alone")
    parser.add_argument("--endurance", type=int, default=0, help="requests of the memory run")
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES))
    parser.add_argument("--out", type=Path, default=Path("runs/bench-engine"))
    given = parser.parse_args()
    folder = Settings().assets_directory / "models" / MODEL_FOLDER
    stock, backend = StockEmbedded(folder), EmbeddedBackend.load()
    results: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "load_average_before": round(os.getloadavg()[0], 2),
        "single": measure_single(stock, backend, given.repeats),
        "saturation": measure_saturation(stock, backend, given.requests),
    }
    capacity = results["saturation"]["images_per_second"]["fifo"]
    results["load"] = measure_load(stock, backend, capacity, given.requests, given.shares)
    results["cancel_steps"] = measure_cancel(backend)
    results["isolation"] = measure_isolation(backend, given.isolation)
    if given.endurance:
        results["endurance"] = measure_endurance(backend, given.endurance)
    results["load_average_after"] = round(os.getloadavg()[0], 2)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "engine.json").write_text(json.dumps(results, indent=2) + "\n")
    (given.out / "engine.md").write_text(as_markdown(results))
    plot_load(given.out / "engine.png", results["load"])
    print(as_markdown(results))


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


def measure_single(stock: StockEmbedded, backend: EmbeddedBackend, repeats: int) -> dict[str, Any]:
    """One request alone, stock loop and engine in turns; features of ours one by one."""
    request = replace(mixed_requests(1)[0], num_inference_steps=20, guidance_scale=2.0)
    engine = Engine(backend, Limits(max_forward_rows=1))
    plain = replace(request, guidance_interval=(0.0, 0.5))
    arms: dict[str, Callable[[], ImageArray]] = {
        "stock": lambda: stock.draw([request])[0],
        "backend alone": lambda: _alone(backend, request),
        "engine": lambda: engine.submit(request).result(),
        "engine, guidance in the first half": lambda: engine.submit(plain).result(),
    }
    pictures = {name: arm() for name, arm in arms.items()}
    times: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(repeats):
        for name, arm in arms.items():
            started = time.perf_counter()
            arm()
            times[name].append(time.perf_counter() - started)
    engine.close()
    base = statistics.median(times["stock"])
    return {
        "seconds": {name: round(statistics.median(t), 4) for name, t in times.items()},
        "spread": {name: [round(min(t), 4), round(max(t), 4)] for name, t in times.items()},
        "times_as_fast": {name: round(base / statistics.median(t), 3) for name, t in times.items()},
        "largest_difference_levels": _difference(pictures["stock"], pictures["engine"]),
        "tolerance_levels": TOLERANCE,
    }


def measure_saturation(
    stock: StockEmbedded, backend: EmbeddedBackend, count: int
) -> dict[str, Any]:
    """Everything arrives at once: images per second of the three servers, twice, in turns."""
    arms = (FifoArm(stock), DynamicArm(stock), EngineArm(backend))
    rates: dict[str, list[float]] = {arm.name: [] for arm in arms}
    for round_number in range(2):
        for arm in arms:
            served = [Served(request, 0.0) for request in mixed_requests(count, round_number)]
            seconds = _serve(arm, served)
            rates[arm.name].append(count / seconds)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "images_per_second": {name: round(rate, 3) for name, rate in medians.items()},
        "spread": {name: [round(min(v), 3), round(max(v), 3)] for name, v in rates.items()},
        "engine_over_fifo": round(medians["engine"] / medians["fifo"], 3),
        "engine_over_dynamic": round(medians["engine"] / medians["dynamic"], 3),
    }


def measure_load(
    stock: StockEmbedded,
    backend: EmbeddedBackend,
    capacity: float,
    count: int,
    shares: Sequence[float],
) -> list[dict[str, Any]]:
    """Poisson arrivals at shares of the capacity of arm 2."""
    rows = []
    for share in shares:
        gaps = np.random.default_rng(1).exponential(1.0 / (share * capacity), count)
        arrivals = np.cumsum(gaps)
        for arm in (FifoArm(stock), DynamicArm(stock), EngineArm(backend)):
            served = [
                Served(request, float(at))
                for request, at in zip(mixed_requests(count, 2), arrivals, strict=True)
            ]
            seconds = _serve(arm, served)
            rows.append({"load": share, "arm": arm.name, **_latencies(served, seconds)})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def _serve(arm: FifoArm | EngineArm, served: Sequence[Served]) -> float:
    began = time.perf_counter()
    arm.serve(served, lambda: time.perf_counter() - began)
    return time.perf_counter() - began


def _latencies(served: Sequence[Served], seconds: float) -> dict[str, Any]:
    latency = [one.finished - one.arrived for one in served]
    waits = [one.started - one.arrived for one in served]
    previews = [one.previewed - one.arrived for one in served if one.previewed is not None]
    return {
        "images_per_second": round(len(served) / seconds, 3),
        "p50_seconds": round(float(np.percentile(latency, 50)), 3),
        "p95_seconds": round(float(np.percentile(latency, 95)), 3),
        "queue_wait_p50_seconds": round(float(np.percentile(waits, 50)), 3),
        "first_preview_p50_seconds": round(float(np.median(previews)), 3) if previews else None,
    }


def measure_cancel(backend: EmbeddedBackend) -> int:
    """Steps a request still takes after it was cancelled, at most over ten tries."""
    worst = 0
    with Engine(backend, Limits(max_forward_rows=1)) as engine:
        for request in mixed_requests(10, 3):
            ticket = engine.submit(replace(request, num_inference_steps=30))
            for status in ticket.events():
                if status.step >= 3 and not ticket.wants_cancel:
                    ticket.cancel()
                    at = ticket.status.step
            worst = max(worst, ticket.status.step - at)
    return worst


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
        "another_person_differs_by_levels": _difference(_alone(backend, swapped), alone[0]),
    }


def measure_endurance(backend: EmbeddedBackend, count: int) -> dict[str, Any]:
    """Resident memory after a tenth of the requests and after all of them."""
    sizes = []
    with Engine(backend, Limits(max_forward_rows=3 * BATCH)) as engine:
        for start in range(0, count, 100):
            requests = [
                replace(request, num_inference_steps=2)
                for request in mixed_requests(min(100, count - start), start)
            ]
            for ticket in engine.submit_all(requests):
                ticket.result()
            sizes.append(_resident_megabytes())
    early = statistics.median(sizes[len(sizes) // 10 : len(sizes) // 10 + 2])
    late = statistics.median(sizes[-2:])
    return {
        "requests": count,
        "early_mb": round(early, 1),
        "late_mb": round(late, 1),
        "growth": round(late / early - 1.0, 4),
    }


def _resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _alone(backend: EmbeddedBackend, request: Request) -> ImageArray:
    state: Any = backend.prepare(request)
    while state.step < state.num_steps:
        (state,) = backend.denoise_step([state])
    return backend.decode(state)


def _pixels(picture: Tensor) -> ImageArray:
    unit = (picture.float() + 1.0) * 127.5
    return np.asarray(unit.round().clamp(0, 255).byte().permute(1, 2, 0).numpy())


def _difference(first: ImageArray, second: ImageArray) -> int:
    return int(np.abs(first.astype(int) - second.astype(int)).max())


def as_markdown(results: dict[str, Any]) -> str:
    """The figures as tables."""
    single, full = results["single"], results["saturation"]
    lines = [
        f"Load average {results['load_average_before']} before, "
        f"{results['load_average_after']} after; {results['machine']['threads']} threads.",
        "",
        "| one request, 20 steps | seconds | times as fast |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {seconds:.3f} | {single['times_as_fast'][name]:.2f} |"
        for name, seconds in single["seconds"].items()
    ]
    lines += [
        "",
        f"Largest difference between stock and engine: {single['largest_difference_levels']} "
        f"levels of 255 (tolerance {TOLERANCE}).",
        "",
        "| saturated | images/s |",
        "| --- | --- |",
        *(f"| {name} | {rate:.2f} |" for name, rate in full["images_per_second"].items()),
        "",
        f"Engine over fifo {full['engine_over_fifo']:.2f}, over dynamic "
        f"{full['engine_over_dynamic']:.2f}.",
        "",
        "| load | arm | images/s | p50 s | p95 s | wait p50 s | first preview s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['load']} | {row['arm']} | {row['images_per_second']:.2f} | "
        f"{row['p50_seconds']:.2f} | {row['p95_seconds']:.2f} | "
        f"{row['queue_wait_p50_seconds']:.2f} | {row['first_preview_p50_seconds'] or '-'} |"
        for row in results["load"]
    ]
    isolation = results["isolation"]
    lines += [
        "",
        f"Cancelled within {results['cancel_steps']} step(s). {isolation['requests']} mixed "
        f"requests together and alone: largest difference "
        f"{isolation['largest_difference_levels']} levels, {isolation['above_tolerance']} above "
        f"tolerance (another person would differ by "
        f"{isolation['another_person_differs_by_levels']}).",
    ]
    if "endurance" in results:
        endurance = results["endurance"]
        lines.append(
            f"Memory over {endurance['requests']} requests: {endurance['early_mb']} MB to "
            f"{endurance['late_mb']} MB, {endurance['growth']:+.1%}."
        )
    return "\n".join(lines) + "\n"


def plot_load(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Latency against load, one line an arm."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row for row in rows if row["arm"] == arm]
        loads = [row["load"] for row in own]
        (line,) = axes.plot(loads, [row["p50_seconds"] for row in own], label=f"{arm} p50")
        axes.plot(
            loads, [row["p95_seconds"] for row in own], "--", color=line.get_color(), label="p95"
        )
    axes.set(xlabel="load, share of fifo's capacity", ylabel="seconds", yscale="log")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    main()

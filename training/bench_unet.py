"""The FaceID backend against stock diffusers, on an SDXL of random weights.

Interleaved in one run, same weights, dtype, steps, scheduler and seed:
- stock: `StableDiffusionXLPipeline` with the adapter loaded as its documentation says;
- stock, LoRA fused: the same after `fuse_lora`, the one thing a careful user would do;
- ours: `SdxlFaceIdBackend` through the engine.
These stop at the latents, since decoding is the same work for all. Then mixed requests of several
people through a FIFO of the stock pipeline and through the engine, whole pictures. Stock diffusers
has no batching server to compare with: a call with two people mixes their faces.

CPU (about 40 M parameters):  python -m training.bench_unet
GPU (SDXL's own shape, compiled, share of the device's peak):
                              python -m training.bench_unet --shape full --device cuda
Without a GPU the second form says so and does nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from imagine.backends.memory_plan import device_bytes, make_plan
from imagine.backends.sdxl_faceid import SdxlFaceIdBackend
from imagine.core import FloatArray, ImageArray, Request
from imagine.engine import Engine, Limits
from training.random_sdxl import FACE_WIDTH, SHAPES, write_random_sdxl
from training.trainer import measure_matmul_peak

GUIDANCE = 5.0
LIKENESS = 0.7
FORWARD_TFLOP = 6.761  # one row of SDXL's UNet at 1024 pixels, counted with its attention
TOLERANCE = 2  # levels of 255 between together and alone: sums of a batch add up in another order


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-engine"))
    parser.add_argument("--requests", type=int, default=8, help="of the mixed run")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("Left out: SDXL at full size; this machine has no CUDA device.")
        return
    diffusers.utils.logging.set_verbosity_error()
    dtype = torch.float32 if given.device == "cpu" else torch.bfloat16
    with tempfile.TemporaryDirectory() as folder:
        source = write_random_sdxl(Path(folder) / "model", SHAPES[given.shape], dtype)
        results = measure(source, dtype, given)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / f"unet-{given.shape}.json").write_text(json.dumps(results, indent=2) + "\n")
    print(as_markdown(results))


def measure(source: Path, dtype: torch.dtype, given: argparse.Namespace) -> dict[str, Any]:
    """Times of all arms in turns, and how far their latents are apart."""
    device, steps = given.device, given.steps
    backend, measures = load_backend(source, dtype, device)
    request = replace(mixed_requests(1, steps)[0], num_inference_steps=steps)
    stock, fused = (stock_pipeline(source, dtype, device) for _ in range(2))
    fused.fuse_lora()
    fused.unload_lora_weights()
    arms: dict[str, Callable[[], Tensor]] = {
        "stock": lambda: run_stock(stock, request, device, dtype),
        "stock, LoRA fused": lambda: run_stock(fused, request, device, dtype),
        "ours": lambda: run_ours(backend, request),
    }
    latents = {name: arm().float().cpu() for name, arm in arms.items()}
    times: dict[str, list[float]] = {name: [] for name in arms}
    cpu: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(given.repeats):
        for name, arm in arms.items():
            _wait(device)
            wall, used = time.perf_counter(), time.process_time()
            arm()
            _wait(device)
            times[name].append(time.perf_counter() - wall)
            cpu[name].append(time.process_time() - used)
    base = statistics.median(times["stock"])
    results: dict[str, Any] = {
        "shape": given.shape,
        "device": device,
        "dtype": str(dtype),
        "steps": steps,
        "unet_million_parameters": round(sum(p.numel() for p in fused.unet.parameters()) / 1e6, 1),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        "seconds": {name: round(statistics.median(t), 4) for name, t in times.items()},
        "spread": {name: [round(min(t), 4), round(max(t), 4)] for name, t in times.items()},
        "times_as_fast": {n: round(base / statistics.median(t), 3) for n, t in times.items()},
        "times_as_fast_by_cpu_seconds": {
            name: round(statistics.median(cpu["stock"]) / statistics.median(t), 3)
            for name, t in cpu.items()
        },
        "largest_relative_difference": {
            name: float(
                (latents[name] - latents["stock"]).abs().max() / latents["stock"].abs().max()
            )
            for name in ("stock, LoRA fused", "ours")
        },
    }
    results["measures"] = measures
    results["mixed"] = measure_mixed(stock, backend, mixed_requests(given.requests, steps), given)
    if given.shape == "full" and device == "cuda":
        peak = measure_matmul_peak(device)
        results["matmul_peak_tflops"] = round(peak / 1e12, 1)
        results["share_of_peak"] = {
            pictures: share_of_peak(
                backend, replace(request, num_inference_steps=30), pictures, peak
            )
            for pictures in (1, 2, 4)
        }
    return results


def load_backend(
    source: Path, dtype: torch.dtype, device: str
) -> tuple[SdxlFaceIdBackend, list[str]]:
    """Our backend; on a GPU by its memory plan, which compiles, and what the plan left out."""
    said: list[str] = []
    plan = None
    if device == "cuda":
        plan = make_plan("sdxl_faceid", device_bytes(device), dtypes=("bfloat16",))
    backend = SdxlFaceIdBackend.load(
        source, device, embed_crops=fixed_embedding, dtype=dtype, plan=plan, announce=said.append
    )
    return backend, said


def mixed_requests(count: int, steps: int) -> list[Request]:
    """Requests of five people with mixed seeds and steps."""
    people = np.random.default_rng(0).integers(0, 255, (5, 1, 128, 128, 3), dtype=np.uint8)
    return [
        Request(
            "me in a forest, smiling",
            people[number % len(people)],
            seed=number,
            num_inference_steps=steps // 2 + number % 3,
            guidance_scale=GUIDANCE,
            likeness=LIKENESS,
        )
        for number in range(count)
    ]


def measure_mixed(
    stock: Any, backend: SdxlFaceIdBackend, requests: list[Request], given: argparse.Namespace
) -> dict[str, Any]:
    """All requests at once: a FIFO of stock calls, the engine, the engine one by one."""
    dtype = stock.unet.dtype

    def fifo() -> list[ImageArray]:
        return [run_stock_picture(stock, request, given.device, dtype) for request in requests]

    def engine(**limits: int) -> list[ImageArray]:
        with Engine(backend, Limits(max_waiting=len(requests), **limits)) as running:
            return [ticket.result() for ticket in running.submit_all(requests)]

    arms: dict[str, Callable[[], list[ImageArray]]] = {
        "fifo": fifo,
        "engine": engine,
        "engine, one at a time": lambda: engine(max_active=1, max_forward_rows=1),
    }
    pictures: dict[str, list[ImageArray]] = {}
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(2):
        for name, arm in arms.items():
            started = time.perf_counter()
            pictures[name] = arm()
            rates[name].append(len(requests) / (time.perf_counter() - started))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    alone = pictures["engine, one at a time"]
    differences = [
        int(np.abs(a.astype(int) - b.astype(int)).max())
        for a, b in zip(pictures["engine"], alone, strict=True)
    ]
    return {
        "requests": len(requests),
        "images_per_second": {name: round(rate, 3) for name, rate in medians.items()},
        "spread": {name: [round(min(v), 3), round(max(v), 3)] for name, v in rates.items()},
        "engine_over_fifo": round(medians["engine"] / medians["fifo"], 3),
        "largest_difference_levels": max(differences),
        "tolerance_levels": TOLERANCE,
    }


def share_of_peak(
    backend: SdxlFaceIdBackend, request: Request, pictures: int, peak: float
) -> float:
    """Of the device's own matrix product rate, while so many pictures step together."""
    states: list[Any] = [backend.prepare(request) for _ in range(pictures)]
    rows = sum(backend.forward_rows(state) for state in states)
    taken = []
    for _ in range(12):  # the first ones compile
        torch.cuda.synchronize()
        started = time.perf_counter()
        states = list(backend.denoise_step(states))
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return round(rows * FORWARD_TFLOP * 1e12 / statistics.median(taken[4:]) / peak, 3)


def stock_pipeline(source: Path, dtype: torch.dtype, device: str) -> Any:
    """Stock diffusers with the adapter."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        source, local_files_only=True, image_encoder=None, dtype=dtype
    ).to(device)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_ip_adapter(
        source,
        subfolder="ip_adapter",
        weight_name="ip-adapter-faceid_sdxl.safetensors",
        image_encoder_folder=None,
        local_files_only=True,
    )
    pipeline.set_ip_adapter_scale(LIKENESS)
    return pipeline


@torch.inference_mode()
def run_stock(pipeline: Any, request: Request, device: str, dtype: torch.dtype) -> Tensor:
    """Latents of one picture the stock way."""
    return call_stock(pipeline, request, device, dtype, "latent")  # type: ignore[no-any-return]


@torch.inference_mode()
def run_stock_picture(
    pipeline: Any, request: Request, device: str, dtype: torch.dtype
) -> ImageArray:
    """One picture the stock way."""
    unit = call_stock(pipeline, request, device, dtype, "np")
    return np.asarray((unit * 255).round().astype(np.uint8))


def call_stock(
    pipeline: Any, request: Request, device: str, dtype: torch.dtype, output: str
) -> Any:
    """The documented call."""
    assert request.crops is not None
    faces = torch.from_numpy(fixed_embedding(request.crops))[None].to(device, dtype)
    return pipeline(
        request.prompt,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        ip_adapter_image_embeds=[torch.cat([torch.zeros_like(faces), faces])],
        generator=torch.Generator("cpu").manual_seed(request.seed),
        output_type=output,
    ).images[0]


def run_ours(backend: SdxlFaceIdBackend, request: Request) -> Tensor:
    """Latents of one picture our way."""
    state: Any = backend.prepare(request)
    while state.step < state.num_steps:
        (state,) = backend.denoise_step([state])
    latents: Tensor = state.latents
    return latents


def fixed_embedding(crops: ImageArray) -> FloatArray:
    """Unit vectors in the place of a face recogniser's, (photos, 512)."""
    seed = int(crops.sum(dtype=np.uint64))  # another person, another face
    vectors = np.random.default_rng(seed).standard_normal((len(crops), FACE_WIDTH))
    unit: FloatArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit.astype(np.float32)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def as_markdown(results: dict[str, Any]) -> str:
    """The figures as a table."""
    lines = [
        f"UNet of {results['unet_million_parameters']} M parameters, {results['steps']} steps, "
        f"{results['device']}, {results['dtype']}, {results['threads']} threads, load average "
        f"{results['load_average']}.",
        "",
        "| arm | seconds | times as fast | by CPU seconds | largest relative difference |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, seconds in results["seconds"].items():
        difference = results["largest_relative_difference"].get(name)
        lines.append(
            f"| {name} | {seconds:.3f} | {results['times_as_fast'][name]:.2f} | "
            f"{results['times_as_fast_by_cpu_seconds'][name]:.2f} | "
            f"{'-' if difference is None else f'{difference:.1e}'} |"
        )
    mixed = results["mixed"]
    lines += [
        "",
        f"| {mixed['requests']} requests of five people at once | images/s |",
        "| --- | --- |",
        *(f"| {name} | {rate:.2f} |" for name, rate in mixed["images_per_second"].items()),
        "",
        f"Together and one at a time differ by {mixed['largest_difference_levels']} levels of 255 "
        f"at most (tolerance {mixed['tolerance_levels']}).",
        *results["measures"],
    ]
    for pictures, share in results.get("share_of_peak", {}).items():
        lines.append(
            f"{pictures} picture(s) a step use {share:.0%} of the bf16 matrix product peak, "
            f"{results['matmul_peak_tflops']} TFLOP/s."
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

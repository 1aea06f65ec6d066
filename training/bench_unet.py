"""The FaceID backend against stock diffusers, on an SDXL of random weights.

Interleaved in one run, same weights, dtype, steps, scheduler and seed:
- stock: `StableDiffusionXLPipeline` with the adapter loaded as its documentation says;
- stock, LoRA fused: the same after `fuse_lora`, the one thing a careful user would do;
- ours: `SdxlFaceIdBackend` through the engine.
All stop at the latents, since decoding is the same work for all.

CPU (about 40 M parameters):  python -m training.bench_unet
GPU (SDXL's own shape):       python -m training.bench_unet --shape full --device cuda
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from imagine.backends.sdxl_faceid import SdxlFaceIdBackend
from imagine.core import FloatArray, ImageArray, Request
from training.random_sdxl import FACE_WIDTH, SHAPES, write_random_sdxl
from training.trainer import measure_matmul_peak

GUIDANCE = 5.0
LIKENESS = 0.7
FORWARD_TFLOP = 6.761  # one row of SDXL's UNet at 1024 pixels, counted with its attention


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-engine"))
    given = parser.parse_args()
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
    backend = SdxlFaceIdBackend.load(source, device, embed_crops=fixed_embedding, dtype=dtype)
    crops = np.random.default_rng(0).integers(0, 255, (1, 128, 128, 3), dtype=np.uint8)
    request = Request("me in a forest, smiling", crops, 7, steps, GUIDANCE, LIKENESS)
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
    if given.shape == "full" and device == "cuda":
        peak = measure_matmul_peak(device)
        per_step = results["seconds"]["ours"] / steps
        results["matmul_peak_tflops"] = round(peak / 1e12, 1)
        results["share_of_peak"] = round(2 * FORWARD_TFLOP * 1e12 / per_step / peak, 3)
    return results


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
    assert request.crops is not None
    faces = torch.from_numpy(fixed_embedding(request.crops))[None].to(device, dtype)
    latents: Tensor = pipeline(
        request.prompt,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        ip_adapter_image_embeds=[torch.cat([torch.zeros_like(faces), faces])],
        generator=torch.Generator("cpu").manual_seed(request.seed),
        output_type="latent",
    ).images[0]
    return latents


def run_ours(backend: SdxlFaceIdBackend, request: Request) -> Tensor:
    """Latents of one picture our way."""
    state: Any = backend.prepare(request)
    while state.step < state.num_steps:
        (state,) = backend.denoise_step([state])
    latents: Tensor = state.latents
    return latents


def fixed_embedding(crops: ImageArray) -> FloatArray:
    """Unit vectors in the place of a face recogniser's, (photos, 512)."""
    vectors = np.random.default_rng(len(crops)).standard_normal((len(crops), FACE_WIDTH))
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
    if "share_of_peak" in results:
        lines.append(
            f"\nOurs uses {results['share_of_peak']:.0%} of the bf16 matrix product peak, "
            f"{results['matmul_peak_tflops']} TFLOP/s."
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

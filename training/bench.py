"""Speed and memory of the embedded model, as ratios against a named baseline in one run.

Baseline: one picture at a time, default steps, through `prepare`, `denoise_step`, `decode`.
Run with `make bench`; writes JSON to stdout. Figures are for this machine at this moment.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from imagine.backends.base import RowState
from imagine.backends.embedded import EmbeddedBackend
from imagine.core import Request
from imagine.settings import Settings

REPEATS = 5


def main() -> None:
    """Measure, print JSON."""
    assets = Settings().assets_directory
    selfies = sorted(assets.glob("people/*/selfie_*.jpg"))[:4]
    started = time.perf_counter()
    backend = EmbeddedBackend.load()
    load_seconds = time.perf_counter() - started
    baseline = _seconds(lambda: _draw(backend, 1))
    results = {
        "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "load_average_before": os.getloadavg()[0],
        "size_on_disk_mb": round(_folder_bytes(assets / "models" / "imagine-mini") / 1e6, 1),
        "load_seconds": round(load_seconds, 2),
        "baseline_seconds_per_picture": round(baseline, 2),
        "ratios_to_baseline_per_picture": {
            "four pictures in one batch": round(
                _seconds(lambda: _draw(backend, 4)) / 4 / baseline, 2
            ),
            "no person (likeness 0)": round(
                _seconds(lambda: _draw(backend, 1, likeness=0.0)) / baseline, 2
            ),
            "four selfies instead of one": round(
                _seconds(lambda: _draw(backend, 1, photos=4)) / baseline, 2
            ),
        },
        "command": _command(selfies),
    }
    print(json.dumps(results, indent=2))


def _draw(backend: EmbeddedBackend, count: int, likeness: float = 0.7, photos: int = 1) -> None:
    crops = np.random.default_rng(0).integers(0, 255, (photos, 128, 128, 3), dtype=np.uint8)
    info = backend.info
    rows: list[RowState] = [
        backend.prepare(Request("me in a forest", crops, seed, info.default_steps, 2.5, likeness))
        for seed in range(count)
    ]
    for _ in range(info.default_steps):
        rows = backend.denoise_step(rows)
    for row in rows:
        backend.decode(row)


def _seconds(work: Callable[[], None]) -> float:
    work()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _command(selfies: list[Path]) -> dict[str, float]:
    """Wall seconds and peak memory of `imagine-me generate` from a cold start."""
    photos = [argument for selfie in selfies for argument in ("--photo", str(selfie))]
    command = [sys.executable, "-m", "imagine.cli", "generate", *photos, "smiling in a park"]
    with TemporaryDirectory() as folder:
        command += ["--seed", "1", "-o", str(Path(folder) / "me.png")]
        started = time.perf_counter()
        subprocess.run(
            command,
            check=True,
            capture_output=True,
        )
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    return {"seconds_in_all": round(seconds, 1), "peak_rss_gb": round(peak, 2)}


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()

"""How one small network beside the denoiser is taught, by the clock: the upsampler, the refiner.

Subclasses of `SideTraining` say what a batch costs; checkpoints, averages, rates, progress and the
line in `stages.jsonl` are the same for all.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from training.checkpoints import save_whole
from training.clock import Stopwatch
from training.trainer import schedule, update_average

logger = logging.getLogger(__name__)
Network = TypeVar("Network", bound=nn.Module)
SAVED_EVERY = 120.0  # seconds


@dataclass
class NetworkState(Generic[Network]):
    """All that a checkpoint holds.

    Attributes:
        name: of the network, and of its files.
        network: in training.
        averaged: the exponential moving average of its weights.
        step: steps done.
        images_seen: pictures, or parts of them, seen.
    """

    name: str
    network: Network
    averaged: Network
    step: int = 0
    images_seen: int = 0


def resumed(run: Path, name: str, fresh: Network) -> NetworkState[Network]:
    """The newest checkpoint of a run, or the fresh network."""
    state = NetworkState(name, fresh, copy.deepcopy(fresh).requires_grad_(False))
    path = run / f"{name}.pt"
    if path.exists():
        device = next(fresh.parameters()).device
        stored = torch.load(path, map_location=device, weights_only=True)
        state.network.load_state_dict(stored[name])
        state.averaged.load_state_dict(stored["averaged"])
        state.step, state.images_seen = stored["step"], stored["images_seen"]
        logger.info("resumed at step %d, %d seen", state.step, state.images_seen)
    return state


def save_state(run: Path, state: NetworkState[Network]) -> None:
    """Write a checkpoint, whole or not at all."""
    stored: dict[str, Any] = {
        state.name: state.network.state_dict(),
        "averaged": state.averaged.state_dict(),
        "step": state.step,
        "images_seen": state.images_seen,
    }
    save_whole(run / f"{state.name}.pt", stored)


def add_arguments(
    parser: argparse.ArgumentParser, sizes: Iterable[str], defaults: Mapping[str, Any]
) -> None:
    """What every such stage can be told; `defaults` has `data`, `minutes`, `batch_size`, `rate`."""
    batch = defaults["batch_size"]
    parser.add_argument("--data", type=Path, default=defaults["data"], help="photo cache")
    parser.add_argument("--model", type=Path, default=Path("assets/models/imagine-mini"))
    parser.add_argument("--run", type=Path, default=Path("runs/imagine-mini"), help="checkpoints")
    parser.add_argument("--minutes", type=float, default=defaults["minutes"])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch-size", type=int, help=f"{batch} on cpu, 128 on cuda")
    parser.add_argument("--size", choices=sorted(sizes), default="mini")
    parser.add_argument("--learning-rate", type=float, default=defaults["rate"])
    parser.add_argument("--warm-start", type=float, default=0.02, help="share spent warming up")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export", type=Path, default=None, help="folder of a model to add it to")
    parser.set_defaults(cpu_batch_size=batch)


def with_initial_rates(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer, whose groups remember the rates that schedules scale."""
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


class SideTraining(ABC, Generic[Network]):
    """One run of a stage; what differs is in the abstract methods.

    Args:
        arguments: of `add_arguments`, with `decay`.
        state: to go on with.
        optimizer: of `with_initial_rates`.
        averaging: how much of the average of the weights a late step keeps.
    """

    stage: str
    unit: str  # what is seen, in the plural

    def __init__(
        self,
        arguments: argparse.Namespace,
        state: NetworkState[Network],
        optimizer: torch.optim.Optimizer,
        averaging: float,
    ) -> None:
        self.arguments, self.state, self.optimizer = arguments, state, optimizer
        self.averaging = averaging
        on_gpu = arguments.device == "cuda"
        self.batch_size = arguments.batch_size or (128 if on_gpu else arguments.cpu_batch_size)

    @abstractmethod
    def loss(self) -> tuple[Tensor, int]:
        """What one batch costs, and how many rows it has; runs under autocast."""

    @abstractmethod
    def measured(self) -> dict[str, float]:
        """Figures for `stages.jsonl`."""

    @abstractmethod
    def write_sheet(self) -> None:
        """Pictures to look at, into the folder of the run."""

    def run(self, watch: Stopwatch) -> None:
        """Train until the time is over; save, show and measure."""
        arguments, state = self.arguments, self.state
        bar = tqdm(total=round(watch.budget_seconds), unit="s", desc=self.stage, mininterval=5)
        first_images, last_save, losses = state.images_seen, 0.0, [0.0]
        while not watch.is_over:
            losses.append(self._step(watch.progress))
            rate = (state.images_seen - first_images) / watch.elapsed
            recent = float(np.mean(losses[-50:]))
            bar.set_postfix_str(f"loss {recent:.4f}, {rate:.1f} {self.unit}/s, step {state.step}")
            bar.update(round(watch.elapsed) - bar.n)
            if watch.elapsed - last_save > SAVED_EVERY:
                self._save()
                last_save = watch.elapsed
        bar.close()
        self._save()
        images = state.images_seen - first_images
        line = {
            "stage": self.stage,
            "device": arguments.device,
            "seconds": round(watch.elapsed),
            "images": images,
            "images_per_second": round(images / watch.elapsed, 1),
            "loss": round(float(np.mean(losses[-50:])), 5),
            "step": state.step,
            **self.measured(),
        }
        with (arguments.run / "stages.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        logger.info("%s", json.dumps(line))

    def _save(self) -> None:
        save_state(self.arguments.run, self.state)
        self.write_sheet()

    def _step(self, progress: float) -> float:
        arguments, state = self.arguments, self.state
        with torch.autocast(arguments.device, dtype=torch.bfloat16):
            loss, rows = self.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(state.network.parameters(), 1.0)
        factor = schedule(progress, arguments.warm_start, arguments.decay)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        state.images_seen += rows
        kept = min(self.averaging, (1 + state.step) / (10 + state.step))
        update_average(state.averaged, state.network, kept)
        return float(loss.detach())

"""The ways of serving pictures that `bench_engine` compares, all with the same weights.

stock, fifo and dynamic know nothing of our backend or engine; the engine's arm takes its features
away one at a time.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from torch import Tensor

from imagine.backends import packed_linear
from imagine.backends.base import BackendInfo, RowState
from imagine.backends.embedded import (
    DEFAULT_GUIDANCE_INTERVAL,
    FULL_LIKENESS_GUIDANCE,
    LOCATOR_FOLDER,
    REFINER_FOLDER,
    EmbeddedBackend,
)
from imagine.backends.minilm import load_text_encoder
from imagine.core import ImageArray, Request
from imagine.engine import Engine, Limits, Phase
from imagine.models.denoiser import Denoiser
from imagine.models.face_recogniser import FaceLocator
from imagine.models.face_refiner import FaceRefiner
from imagine.models.identity_adapter import IdentityAdapter
from imagine.models.upsampler import Upsampler

BATCH = 8  # requests of one pass, dynamic and engine alike


class StockEmbedded:
    """The embedded model as a stock pipeline would run it."""

    def __init__(self, folder: Path) -> None:
        words: dict[str, Any] = {"local_files_only": True, "low_cpu_mem_usage": False}
        denoiser = Denoiser.from_pretrained(folder / "denoiser", **words)
        adapter = IdentityAdapter.from_pretrained(folder / "identity_adapter", **words)
        self.denoiser, self.adapter = denoiser.float().eval(), adapter.float().eval()
        self.upsampler: Upsampler | None = None
        if (folder / "upsampler").is_dir():
            upsampler: Upsampler = Upsampler.from_pretrained(folder / "upsampler", **words)
            self.upsampler = upsampler.float().eval()
        self.refiner: FaceRefiner | None = None
        if (folder / REFINER_FOLDER).is_dir():
            refiner: FaceRefiner = FaceRefiner.from_pretrained(folder / REFINER_FOLDER, **words)
            self.refiner = refiner.float().eval()
            locator = FaceLocator.from_pretrained(folder / LOCATOR_FOLDER, **words)
            self.locator: FaceLocator = locator.float().eval()
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
        if self.refiner is not None:
            refined = [
                self._refined(picture[None], request.crops)
                for picture, request in zip(estimate, requests, strict=True)
            ]
            estimate = torch.cat(refined).clamp(-1.0, 1.0)
        if self.upsampler is not None:
            shown = people[count - 1 :: count]
            estimate = self.upsampler(estimate, shown).clamp(-1.0, 1.0)
        return [pixels(picture) for picture in estimate]

    def _refined(self, picture: Tensor, crops: ImageArray | None) -> Tensor:
        assert self.refiner is not None
        selfies = self.refiner.describe(self._pixels(crops, int(self.refiner.config.crop_size)))
        return self.refiner.refine(picture, self.locator(picture), selfies)

    def _tokens(self, crops: ImageArray | None) -> Tensor:
        seen = self._pixels(crops, int(self.adapter.config.image_size))
        tokens: Tensor = self.adapter(seen).flatten(0, 1)[None]
        return tokens

    def _pixels(self, crops: ImageArray | None, size: int) -> Tensor:
        assert crops is not None
        resized = np.stack(
            [
                np.asarray(Image.fromarray(crop).resize((size, size), Image.Resampling.BOX))
                for crop in crops
            ]
        )
        return torch.from_numpy(resized).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)

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
    """Arm 4: ours.

    Args:
        backend: the model.
        name: of the arm.
        is_continuous: whether requests share passes; otherwise one after another.
        change: what is done to each request first.
    """

    def __init__(
        self,
        backend: Any,
        name: str = "engine",
        *,
        is_continuous: bool = True,
        change: Callable[[Request], Request] = lambda request: request,
    ) -> None:
        self.name = name
        self.limits = Limits(
            max_forward_rows=3 * BATCH if is_continuous else 1,
            max_active=2 * BATCH if is_continuous else 1,
            max_waiting=4096,
            preview_seconds=0.5,
        )
        self.backend = backend
        self.change = change

    def serve(self, arrivals: Sequence[Served], clock: Callable[[], float]) -> None:
        """Play a trace to its end."""
        with Engine(self.backend, self.limits) as engine:
            watchers: list[threading.Thread] = []

            def submit(one: Served) -> None:
                ticket = engine.submit(self.change(one.request))

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


@dataclass(frozen=True)
class _Remembered:
    """A state and what it came from."""

    state: Any
    request: Request = field(repr=False)
    person: object = field(repr=False)

    @property
    def step(self) -> int:
        return int(self.state.step)

    @property
    def num_steps(self) -> int:
        return int(self.state.num_steps)

    @property
    def batch_key(self) -> tuple[object, ...]:
        key: tuple[object, ...] = self.state.batch_key
        return key


class Forgetful:
    """The embedded backend, projecting prompt and person anew at every step, as stock loops do."""

    def __init__(self, backend: EmbeddedBackend) -> None:
        self._backend = backend

    @classmethod
    def load(cls, source: Path | None = None, device: str = "cpu") -> Forgetful:
        """Like the backend's own."""
        return cls(EmbeddedBackend.load(source, device))

    @property
    def info(self) -> BackendInfo:
        """Of the backend."""
        return self._backend.info

    def prepare(self, request: Request) -> _Remembered:
        """Prepare, and remember the person's tokens: the crops are encoded once in every arm."""
        person = None if request.crops is None else self._backend.encode_person(request.crops)
        return _Remembered(self._backend.prepare(request, person), request, person)

    def denoise_step(self, states: Sequence[Any]) -> list[RowState]:
        """Project, then step."""
        fresh: list[RowState] = [
            replace(
                self._backend.prepare(kept.request, kept.person),
                step=kept.state.step,
                image=kept.state.image,
                estimate=kept.state.estimate,
            )
            for kept in states
        ]
        moved = self._backend.denoise_step(fresh)
        return [replace(kept, state=state) for kept, state in zip(states, moved, strict=True)]

    def decode(self, state: Any) -> ImageArray:
        """Of the backend."""
        return self._backend.decode(state.state)

    def preview(self, state: Any) -> ImageArray:
        """Of the backend."""
        return self._backend.preview(state.state)

    def forward_rows(self, state: Any) -> int:
        """Of the backend."""
        return self._backend.forward_rows(state.state)

    def is_finite(self, state: Any) -> bool:
        """Of the backend."""
        return self._backend.is_finite(state.state)


def without_features(backend: EmbeddedBackend) -> list[EngineArm]:
    """Our arm, and our arm with one feature changed at a time."""
    no_lru = EmbeddedBackend.load()
    no_lru._prompts.max_bytes = 0
    with _unpacked():
        plain = EmbeddedBackend.load()

    def rest_guidance(request: Request) -> Request:
        return replace(request, guidance_interval=DEFAULT_GUIDANCE_INTERVAL)

    return [
        EngineArm(backend),
        EngineArm(backend, "no continuous batching", is_continuous=False),
        EngineArm(Forgetful(backend), "keys and values at every step"),
        EngineArm(no_lru, "no kept prompts"),
        EngineArm(plain, "no packed matrices"),
        EngineArm(backend, "guidance in the first two thirds", change=rest_guidance),
    ]


@contextmanager
def _unpacked() -> Iterator[None]:
    with mock.patch.object(packed_linear, "_has_onednn", lambda: False):
        yield


def _play(
    arrivals: Sequence[Served], clock: Callable[[], float], submit: Callable[[Served], object]
) -> None:
    for one in arrivals:
        time.sleep(max(0.0, one.arrived - clock()))
        submit(one)


def serve(arm: FifoArm | EngineArm, served: Sequence[Served]) -> float:
    """Play a trace to its end; seconds it took."""
    began = time.perf_counter()
    arm.serve(served, lambda: time.perf_counter() - began)
    return time.perf_counter() - began


def pixels(picture: Tensor) -> ImageArray:
    """(3, h, w) in [-1, 1] to (h, w, 3) uint8."""
    unit = (picture.float() + 1.0) * 127.5
    return np.asarray(unit.round().clamp(0, 255).byte().permute(1, 2, 0).numpy())

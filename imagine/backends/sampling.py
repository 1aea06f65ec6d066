"""The pure maths of one denoising step, for rows that stand at different steps of different plans.

A stock scheduler is an object with a counter inside: it moves one request. Here its whole plan is
written out beforehand as a table of numbers, one line per step, and a step is three multiplications
and three additions in which every row uses its own line. Nothing is remembered between steps but
what the caller keeps with its row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from imagine.errors import InvalidInput, UnknownName

UNBOUNDED = float("inf")


@dataclass(frozen=True, slots=True)
class StepLine:
    """The numbers of one step.

    With x the latents, m the model's output and p the clean estimate of the step before:
        model input  = input_scale * x
        clean        = clamp(clean_from_latents * x + clean_from_output * m, -clip, clip)
        next latents = latents * x + output * m + clean * clean + previous * p

    Attributes:
        input_scale: of the latents on their way into the model.
        clean_from_latents: see above, as all that follow.
        clean_from_output: 0 where the output says nothing of the clean image.
        clip: bound of the clean estimate; infinite where the scheduler does not clip.
        latents: 0 or more.
        output: 0 for solvers that work on the clean estimate.
        clean: 0 for solvers that work on the output.
        previous: 0 but for two-step solvers after their first step.
    """

    input_scale: float
    clean_from_latents: float
    clean_from_output: float
    clip: float
    latents: float
    output: float
    clean: float
    previous: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """One request's plan from noise to image, as numbers only; many rows may share it.

    Attributes:
        name: of the sampler, a key of `SAMPLERS`.
        timesteps: (steps,) float32, what the model is told about the noise, falling.
        table: (steps, 8) float32, the fields of `StepLine` in their order.
        noise_scale: standard deviation of the noise the first step expects.
    """

    name: str
    timesteps: Tensor = field(repr=False)
    table: Tensor = field(repr=False)
    noise_scale: float

    @property
    def num_steps(self) -> int:
        """Denoising steps in all."""
        return len(self.timesteps)


class Sampler(NamedTuple):
    """A way to walk the plan: diffusers' own scheduler and how to write its steps down."""

    scheduler: type[Any]
    lines: Callable[[Any], list[StepLine]]


def make_schedule(
    name: str, config: Mapping[str, Any], num_inference_steps: int, *, mu: float | None = None
) -> Schedule:
    """Write out the plan of a stock scheduler.

    Args:
        name: a key of `SAMPLERS`.
        config: a scheduler_config.json of diffusers; what the sampler does not know is ignored, as
            `from_config` does.
        num_inference_steps: at least 1.
        mu: shift of a flow-matching schedule with dynamic shifting; None for the others.

    Raises:
        UnknownName: no such sampler; the known ones are listed.
        InvalidInput: the config asks for something no table can hold (fresh noise in every step,
            dynamic thresholding), or the step count does not fit it.
    """
    if name not in SAMPLERS:
        raise UnknownName(f"There is no sampler called {name!r}. Known: {', '.join(SAMPLERS)}.")
    if num_inference_steps < 1:
        raise InvalidInput(f"num_inference_steps is {num_inference_steps}. Ask for at least 1.")
    sampler = SAMPLERS[name]
    own = {key: value for key, value in config.items() if not key.startswith("_")}
    scheduler = sampler.scheduler.from_config(own)
    _refuse_unwritable(name, scheduler.config)
    shift = {} if mu is None else {"mu": mu}
    try:
        scheduler.set_timesteps(num_inference_steps, **shift)
    except (ValueError, IndexError) as error:
        raise InvalidInput(
            f"The sampler {name!r} cannot plan {num_inference_steps} steps with this scheduler "
            f"config: {error}. Choose another number of steps."
        ) from error
    lines = sampler.lines(scheduler)
    if len(lines) != len(scheduler.timesteps):
        raise InvalidInput(
            f"The sampler {name!r} planned {len(scheduler.timesteps)} timesteps and {len(lines)} "
            "steps with this scheduler config. Choose another scheduler config."
        )
    rows = [[getattr(line, entry.name) for entry in fields(StepLine)] for line in lines]
    return Schedule(
        name=name,
        timesteps=scheduler.timesteps.to(torch.float32, copy=True),
        table=torch.tensor(rows, dtype=torch.float32),
        noise_scale=float(getattr(scheduler, "init_noise_sigma", 1.0)),
    )


def scale_model_input(
    latents: Tensor, schedules: Sequence[Schedule], steps: Sequence[int]
) -> Tensor:
    """What the model is shown, shape and dtype of `latents`; row i stands at steps[i]."""
    return latents * _columns(latents, schedules, steps)[0].to(latents.dtype)


def timesteps_of(schedules: Sequence[Schedule], steps: Sequence[int]) -> Tensor:
    """What the model is told about each row's noise, (rows,) float32 on the CPU."""
    return torch.stack([plan.timesteps[step] for plan, step in zip(schedules, steps, strict=True)])


def take_step(
    latents: Tensor,
    model_output: Tensor,
    previous_clean: Tensor,
    schedules: Sequence[Schedule],
    steps: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Move every row one step of its own plan.

    Args:
        latents: (rows, ...) noisy latents, unscaled.
        model_output: shape of `latents`; noise, velocity or clean image, as the model was trained.
        previous_clean: shape of `latents`, what the step before returned; zeros at the first step.
        schedules: one per row; they may differ in sampler and length.
        steps: steps each row has done.

    Returns:
        The next latents, and the estimate of the clean ones, both in the dtype of `latents`. Keep
        the estimate with its row: two-step solvers want it back, previews show it.

    Source: Euler of flow matching and of Karras et al. 2022, arXiv 2206.00364; DDIM with eta 0,
    arXiv 2010.02502, eq. 12; DPM-Solver++(2M), arXiv 2211.01095, algorithm 2.
    """
    lines = _columns(latents, schedules, steps)
    _, clean_from_latents, clean_from_output, clip, on_latents, on_output, on_clean, on_previous = (
        lines
    )
    x, m, previous = latents.float(), model_output.float(), previous_clean.float()
    clean = clean_from_latents * x + clean_from_output * m
    clean = torch.minimum(torch.maximum(clean, -clip), clip)
    following = on_latents * x + on_output * m + on_clean * clean + on_previous * previous
    return following.to(latents.dtype), clean.to(latents.dtype)


def _columns(
    latents: Tensor, schedules: Sequence[Schedule], steps: Sequence[int]
) -> tuple[Tensor, ...]:
    """The rows' lines as eight tensors (rows, 1, ...) on the device of the latents."""
    if not len(latents) == len(schedules) == len(steps):
        raise ValueError(
            f"{len(latents)} rows of latents came with {len(schedules)} schedules and "
            f"{len(steps)} steps."
        )
    lines = torch.stack([plan.table[step] for plan, step in zip(schedules, steps, strict=True)])
    shape = (len(steps),) + (1,) * (latents.ndim - 1)
    return tuple(column.reshape(shape) for column in lines.to(latents.device).unbind(1))


def _flow_lines(scheduler: Any) -> list[StepLine]:
    """Next x = x + (next sigma - sigma) * velocity; velocity = noise - clean."""
    sigmas = scheduler.sigmas.double().tolist()
    return [
        StepLine(1.0, 1.0, -sigma, UNBOUNDED, 1.0, following - sigma, 0.0, 0.0)
        for sigma, following in _pairs(sigmas)
    ]


def _euler_lines(scheduler: Any) -> list[StepLine]:
    """Next x = x + (next sigma - sigma) * (x - clean) / sigma, x = clean + sigma * noise."""
    lines = []
    for sigma, following in _pairs(scheduler.sigmas.double().tolist()):
        variance = sigma**2 + 1.0
        from_latents, from_output = _clean_by_sigma(
            scheduler.config.prediction_type, sigma, variance
        )
        if from_latents == 1.0 and from_output == -sigma:
            # The model says the noise itself: dividing by sigma again would only lose digits.
            weights = (1.0, following - sigma, 0.0)
        else:
            weights = (following / sigma, 0.0, 1.0 - following / sigma)
        lines.append(
            StepLine(variance**-0.5, from_latents, from_output, UNBOUNDED, *weights, previous=0.0)
        )
    return lines


def _clean_by_sigma(prediction_type: str, sigma: float, variance: float) -> tuple[float, float]:
    """Shares of latents and output in the clean estimate, for x = clean + sigma * noise."""
    if prediction_type == "epsilon":
        return 1.0, -sigma
    if prediction_type == "v_prediction":
        return 1.0 / variance, -sigma * variance**-0.5
    return 0.0, 1.0


def _ddim_lines(scheduler: Any) -> list[StepLine]:
    """Clean from x and the output, then down to the noise level of the next timestep."""
    config = scheduler.config
    alphas = scheduler.alphas_cumprod.double().tolist()
    stride = config.num_train_timesteps // scheduler.num_inference_steps
    clip = float(config.clip_sample_range) if config.clip_sample else UNBOUNDED
    lines = []
    for timestep in scheduler.timesteps.tolist():
        earlier = timestep - stride
        alpha = alphas[timestep]
        alpha_next = alphas[earlier] if earlier >= 0 else float(scheduler.final_alpha_cumprod)
        signal, noise = alpha**0.5, (1.0 - alpha) ** 0.5
        from_latents, from_output = _clean_by_alpha(config.prediction_type, signal, noise)
        # Noise is read off the unclipped estimate, as the stock scheduler does by default.
        direction = (1.0 - alpha_next) ** 0.5
        if config.prediction_type == "epsilon":
            weights = (0.0, direction)
        elif config.prediction_type == "v_prediction":
            weights = (direction * noise, direction * signal)
        else:
            weights = (direction / noise, -direction * signal / noise)
        lines.append(
            StepLine(1.0, from_latents, from_output, clip, *weights, alpha_next**0.5, previous=0.0)
        )
    return lines


def _clean_by_alpha(prediction_type: str, signal: float, noise: float) -> tuple[float, float]:
    """Shares of latents and output in the clean estimate, for x = signal * clean + noise * eps."""
    if prediction_type == "epsilon":
        if signal == 0.0:
            raise InvalidInput(
                "The scheduler config starts from pure noise (rescale_betas_zero_snr), from which "
                "a model that predicts noise learns nothing. Set rescale_betas_zero_snr to false."
            )
        return 1.0 / signal, -noise / signal
    if prediction_type == "v_prediction":
        return signal, -noise
    return 0.0, 1.0


def _dpmpp_2m_lines(scheduler: Any) -> list[StepLine]:
    """One-step form at both ends, two-step form between, on the clean estimate."""
    config = scheduler.config
    levels = [_signal_and_noise(sigma) for sigma in scheduler.sigmas.double().tolist()]
    count = len(scheduler.timesteps)
    gentle_end = (
        config.euler_at_final
        or (config.lower_order_final and count < 15)
        or config.final_sigmas_type == "zero"
    )
    lines = []
    for index in range(count):
        (signal, noise), (next_signal, next_noise) = levels[index], levels[index + 1]
        # exp(-h), h the step in log(signal / noise); written so that it is 0 at the very end.
        shrink = (next_noise / next_signal) * (signal / noise)
        on_clean, on_previous = next_signal * (1.0 - shrink), 0.0
        first_order = config.solver_order == 1 or index == 0 or (gentle_end and index == count - 1)
        if not first_order:
            before = levels[index - 1]
            h, h_before = (
                _log_step(levels[index], levels[index + 1]),
                _log_step(before, levels[index]),
            )
            bend = (
                0.5 * on_clean
                if config.solver_type == "midpoint"
                else next_signal * ((shrink - 1.0) / h + 1.0)
            ) * (h / h_before)
            on_clean, on_previous = on_clean + bend, -bend
        from_latents, from_output = _clean_by_alpha(config.prediction_type, signal, noise)
        lines.append(
            StepLine(
                1.0,
                from_latents,
                from_output,
                UNBOUNDED,
                latents=next_noise / noise,
                output=0.0,
                clean=on_clean,
                previous=on_previous,
            )
        )
    return lines


def _signal_and_noise(sigma: float) -> tuple[float, float]:
    """The two shares of x = signal * clean + noise * eps with noise / signal = sigma."""
    signal = (sigma**2 + 1.0) ** -0.5
    return signal, sigma * signal


def _log_step(before: tuple[float, float], after: tuple[float, float]) -> float:
    """How far log(signal / noise) moves between two levels, positive while denoising."""
    return float(torch.log(torch.tensor(before[1] / before[0] * after[0] / after[1]).double()))


def _pairs(sigmas: list[float]) -> list[tuple[float, float]]:
    return list(pairwise(sigmas))


def _refuse_unwritable(name: str, config: Mapping[str, Any]) -> None:
    """A table can hold neither fresh noise nor bounds that depend on the picture."""
    unwritable = {
        "thresholding": (True,),
        "stochastic_sampling": (True,),
        "use_flow_sigmas": (True,),
        "algorithm_type": ("dpmsolver", "sde-dpmsolver", "sde-dpmsolver++"),
        "solver_order": (3,),
        "variance_type": ("learned", "learned_range"),
        "prediction_type": ("flow_prediction",),
        "timestep_type": ("continuous",),
    }
    for key, values in unwritable.items():
        if config.get(key) in values:
            raise InvalidInput(
                f"The scheduler config has {key}={config[key]!r}, which the sampler {name!r} "
                "does not do. Choose another scheduler config."
            )


SAMPLERS: dict[str, Sampler] = {
    "flow_match_euler": Sampler(FlowMatchEulerDiscreteScheduler, _flow_lines),
    "euler": Sampler(EulerDiscreteScheduler, _euler_lines),
    "ddim": Sampler(DDIMScheduler, _ddim_lines),
    "dpmpp_2m": Sampler(DPMSolverMultistepScheduler, _dpmpp_2m_lines),
}

from typing import Any

import pytest
import torch
from torch import Tensor

from imagine.backends.sampling import (
    SAMPLERS,
    Schedule,
    make_schedule,
    scale_model_input,
    take_step,
    timesteps_of,
)
from imagine.errors import InvalidInput, UnknownName

# Both sides count in float32, stock in another order: some last bits of values of size one part
# over a whole trajectory, relative to the largest value of the trajectory's end.
STOCK_TOLERANCE = 2e-5

LATENT_MODEL = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
ZERO_SNR = {
    "rescale_betas_zero_snr": True,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
}
PLANS: list[tuple[str, dict[str, Any]]] = [
    ("flow_match_euler", {"num_train_timesteps": 1000, "shift": 3.0}),
    ("euler", LATENT_MODEL),
    ("euler", {**LATENT_MODEL, "timestep_spacing": "trailing"}),
    ("euler", {**LATENT_MODEL, "use_karras_sigmas": True, "timestep_spacing": "linspace"}),
    ("euler", {**LATENT_MODEL, "prediction_type": "v_prediction"}),
    ("euler", {**LATENT_MODEL, "prediction_type": "sample"}),
    ("ddim", {**LATENT_MODEL, "clip_sample": False, "set_alpha_to_one": False}),
    ("ddim", {**LATENT_MODEL, "clip_sample": True}),
    ("ddim", {**LATENT_MODEL, "clip_sample": False, "prediction_type": "v_prediction"}),
    ("ddim", {**LATENT_MODEL, "clip_sample": False, "prediction_type": "sample"}),
    ("ddim", {**LATENT_MODEL, **ZERO_SNR, "clip_sample": False}),
    ("dpmpp_2m", LATENT_MODEL),
    ("dpmpp_2m", {**LATENT_MODEL, "use_karras_sigmas": True, "timestep_spacing": "linspace"}),
    ("dpmpp_2m", {**LATENT_MODEL, "solver_type": "heun", "final_sigmas_type": "sigma_min"}),
    ("dpmpp_2m", {**LATENT_MODEL, "euler_at_final": True, "final_sigmas_type": "sigma_min"}),
    ("dpmpp_2m", {**LATENT_MODEL, "prediction_type": "v_prediction"}),
    ("dpmpp_2m", {**LATENT_MODEL, "solver_order": 1}),
]


def model(latents: Tensor, timesteps: Tensor) -> Tensor:
    """Stands in for a trained network: bent, another one at every timestep, but not chaotic."""
    level = timesteps.float().reshape(-1, 1, 1, 1) / 1000.0
    return torch.sin(0.9 * latents + 2.0 * level) + 0.3 * latents.roll(1, -1).tanh()


def noise(row: int) -> Tensor:
    return torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(row))


def stock_walk(name: str, config: dict[str, Any], num_steps: int, row: int) -> Tensor:
    scheduler = SAMPLERS[name].scheduler.from_config(config)
    scheduler.set_timesteps(num_steps)
    latents = noise(row) * getattr(scheduler, "init_noise_sigma", 1.0)
    for timestep in scheduler.timesteps:
        scaled = latents
        if hasattr(scheduler, "scale_model_input"):
            scaled = scheduler.scale_model_input(latents, timestep)
        output = model(scaled, timestep.reshape(1))
        latents = scheduler.step(output, timestep, latents, return_dict=False)[0]
    return latents


def our_walk(plans: list[Schedule], rows: list[int], head_starts: list[int]) -> list[Tensor]:
    """Walk all rows at once; row i starts alone and is `head_starts[i]` steps ahead."""
    latents = [noise(row) * plan.noise_scale for row, plan in zip(rows, plans, strict=True)]
    clean = [torch.zeros_like(one) for one in latents]
    done = [0] * len(plans)

    def advance(moving: list[int]) -> None:
        own, steps = [plans[i] for i in moving], [done[i] for i in moving]
        x = torch.cat([latents[i] for i in moving])
        output = model(scale_model_input(x, own, steps), timesteps_of(own, steps))
        x, c = take_step(x, output, torch.cat([clean[i] for i in moving]), own, steps)
        for place, i in enumerate(moving):
            latents[i], clean[i], done[i] = x[place : place + 1], c[place : place + 1], done[i] + 1

    for i, ahead in enumerate(head_starts):
        for _ in range(ahead):
            advance([i])
    while moving := [i for i, plan in enumerate(plans) if done[i] < plan.num_steps]:
        advance(moving)
    return latents


def relative_difference(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max() / second.abs().max())


@pytest.mark.parametrize("num_steps", [1, 4, 20])
@pytest.mark.parametrize(("name", "config"), PLANS)
def test_a_whole_walk_ends_where_the_stock_scheduler_ends(
    name: str, config: dict[str, Any], num_steps: int
) -> None:
    (ours,) = our_walk([make_schedule(name, config, num_steps)], [3], [0])
    stock = stock_walk(name, config, num_steps, 3)
    assert relative_difference(ours, stock) < STOCK_TOLERANCE


def test_timesteps_and_noise_scale_are_those_of_the_stock_scheduler() -> None:
    for name, config in PLANS:
        scheduler = SAMPLERS[name].scheduler.from_config(config)
        scheduler.set_timesteps(7)
        plan = make_schedule(name, config, 7)
        assert torch.equal(plan.timesteps, scheduler.timesteps.float())
        assert plan.noise_scale == pytest.approx(float(getattr(scheduler, "init_noise_sigma", 1)))


def test_rows_of_all_samplers_at_different_steps_of_different_lengths_walk_as_if_alone() -> None:
    lengths = [5 + 3 * (i % 4) for i in range(len(PLANS))]
    plans = [make_schedule(*plan, steps) for plan, steps in zip(PLANS, lengths, strict=True)]
    rows = list(range(len(plans)))
    together = our_walk(plans, rows, [i % 4 for i in rows])
    for row, plan, moved in zip(rows, plans, together, strict=True):
        (alone,) = our_walk([plan], [row], [0])
        assert torch.equal(moved, alone)  # the maths is elementwise: no other row can reach it


def test_the_given_rows_are_not_changed() -> None:
    plan = make_schedule("dpmpp_2m", LATENT_MODEL, 5)
    latents, output, clean = noise(0), noise(1), noise(2)
    before = [tensor.clone() for tensor in (latents, output, clean)]
    take_step(latents, output, clean, [plan], [2])
    assert all(torch.equal(a, b) for a, b in zip((latents, output, clean), before, strict=True))


def test_only_the_two_step_solver_looks_at_the_step_before() -> None:
    for name, config in PLANS:
        looks_back = make_schedule(name, config, 6).table[:, -1].abs().sum() > 0
        assert looks_back == (name == "dpmpp_2m" and config.get("solver_order") != 1)
        assert make_schedule(name, config, 6).table[0, -1] == 0


def test_half_precision_rows_come_back_as_they_came() -> None:
    plan = make_schedule("euler", LATENT_MODEL, 5)
    latents = noise(0).half()
    moved, clean = take_step(latents, noise(1).half(), torch.zeros_like(latents), [plan], [1])
    assert moved.dtype == clean.dtype == scale_model_input(latents, [plan], [1]).dtype
    assert moved.dtype == torch.float16


def test_unequal_numbers_of_rows_and_plans_are_refused() -> None:
    plan = make_schedule("euler", LATENT_MODEL, 5)
    with pytest.raises(ValueError, match="2 rows of latents"):
        scale_model_input(torch.cat([noise(0), noise(1)]), [plan], [0])


def test_an_unknown_sampler_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"'heun'.*dpmpp_2m"):
        make_schedule("heun", {}, 5)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("ddim", {"thresholding": True}),
        ("dpmpp_2m", {"algorithm_type": "sde-dpmsolver++"}),
        ("dpmpp_2m", {"solver_order": 3}),
        ("flow_match_euler", {"stochastic_sampling": True}),
    ],
)
def test_what_no_table_can_hold_is_refused_by_name(name: str, setting: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(setting))):
        make_schedule(name, {**LATENT_MODEL, **setting}, 5)


def test_predicting_noise_from_nothing_but_noise_is_refused() -> None:
    with pytest.raises(InvalidInput, match="rescale_betas_zero_snr"):
        make_schedule("ddim", {**LATENT_MODEL, **ZERO_SNR, "prediction_type": "epsilon"}, 5)


@pytest.mark.parametrize("num_steps", [0, -1, 5000])
def test_impossible_step_counts_are_refused(num_steps: int) -> None:
    with pytest.raises(InvalidInput, match=str(num_steps)):
        make_schedule("ddim", LATENT_MODEL, num_steps)

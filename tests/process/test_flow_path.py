"""The path of flow matching and its samplers where the answer is known: Gaussian data, two atoms, a linear velocity."""

from __future__ import annotations

import math

import pytest
import torch
from exact import (
    STEPS,
    assert_fresh_rotations_are_told_from_one,
    distances,
    gaussian,
    two_atoms,
    variance_at_the_end,
    velocity,
)

from symdiff_plugin.process.diffusion import centred_noise, padded_mask
from symdiff_plugin.process.flow_path import FlowPath
from symdiff_plugin.process.level import Level, Prediction
from symdiff_plugin.process.sampler import Sampler
from symdiff_plugin.process.step_grids import GRIDS
from symdiff_plugin.process.step_rules import FLOW_RULES, StepState
from symdiff_plugin.process.walk import walk

PATH = FlowPath(0.02)
VARIANCE = 0.25
# Of the midpoint rule it is 2, but for a Gaussian, whose variance is quadratic in t, the errors of that order cancel.
ORDERS = {"euler": 1, "midpoint": 3, "heun": 2, "sde-dpm++": 2, "dpm++": 2}


def sampler(name: str, steps: int, **flags: object) -> Sampler:
    asked = {"probabilistic_model": "flow_matching", "sampler": name, "sampling_steps": steps * FLOW_RULES[name].calls}
    return Sampler.of({**asked, **flags}, 1000)


def test_levels_are_of_the_path_and_the_network_is_told_one_minus_t() -> None:
    for t in (0.0, 0.3, 1.0):
        level = PATH.level(1 - t)
        assert (level.alpha, level.sigma) == pytest.approx((t, 1 - 0.98 * t), abs=1e-12)
        assert level.time == 1 - t
    for ratio in (-5.0, 0.0, 2.0):
        assert PATH.level_at(ratio).log_ratio == pytest.approx(ratio, abs=1e-9)
    assert PATH.level_at(9.0) == PATH.level(0.0)


@pytest.mark.parametrize("name", GRIDS)
def test_grids_go_from_noise_to_data(name: str) -> None:
    levels = GRIDS[name](PATH, 10)
    assert (levels[0], levels[-1], len(levels)) == (PATH.level(1.0), PATH.level(0.0), 11)
    times = [level.time for level in levels]
    assert times == sorted(set(times), reverse=True)


def test_the_velocity_says_what_data_and_noise_are() -> None:
    torch.manual_seed(0)
    data, noise = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    level = PATH.level(0.4)
    z = 0.6 * data + (1 - 0.98 * 0.6) * noise
    found = PATH.read(z, data - 0.98 * noise, level)
    torch.testing.assert_close(found.data, data, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.noise, noise, rtol=1e-12, atol=1e-12)


def field(z: torch.Tensor, t: float) -> torch.Tensor:
    return torch.sin(2 * z) + t * z


@pytest.mark.parametrize("name", ["euler", "midpoint", "heun"])
@pytest.mark.parametrize("t", [0.0, 0.3, 0.8])
def test_steps_are_the_textbooks(name: str, t: float) -> None:
    dt = 0.2
    torch.manual_seed(0)
    z = torch.randn(4, 3, 5, dtype=torch.float64)
    v = field(z, t)
    ahead = {
        "euler": v,
        "midpoint": field(z + dt / 2 * v, t + dt / 2),
        "heun": (v + field(z + dt * v, t + dt)) / 2,
    }[name]

    def predict(z: torch.Tensor, level: Level) -> Prediction:
        return PATH.read(z, field(z, 1 - level.time), level)

    before, after = PATH.level(1 - t), PATH.level(1 - t - dt)
    found = FLOW_RULES[name].step(z, predict(z, before), before, after, StepState(predict, lambda: None, 0.0))
    torch.testing.assert_close(found, z + dt * ahead, rtol=1e-12, atol=1e-12)


def error(name: str, steps: int, **flags: object) -> float:
    return variance_at_the_end(sampler(name, steps, **flags), VARIANCE, PATH) - (VARIANCE + PATH.sigma**2)


def test_every_rule_has_its_order() -> None:
    assert ORDERS.keys() == FLOW_RULES.keys()


@pytest.mark.parametrize("name", ORDERS)
def test_the_variance_of_gaussian_data_converges_at_the_rules_order(name: str) -> None:
    grid = {} if name in ("euler", "midpoint", "heun") else {"step_grid": "logsnr"}
    errors = [abs(error(name, steps, **grid)) for steps in (200, 400)]
    assert errors[1] < 0.02 * VARIANCE
    assert math.log2(errors[0] / errors[1]) == pytest.approx(ORDERS[name], abs=0.2)


@pytest.mark.parametrize(("name", "eta"), [("euler", 0.5), ("euler", 1.0), ("sde-dpm++", 1.4)])
@pytest.mark.parametrize("grid", GRIDS)
def test_noise_on_the_way_does_not_change_the_law(name: str, eta: float, grid: str) -> None:
    assert abs(error(name, 1000, stochasticity=eta, step_grid=grid)) < 0.02 * VARIANCE


def test_a_velocity_that_is_a_little_off_would_be_seen() -> None:
    assert abs(error("heun", 200)) < 1e-4 * VARIANCE
    one = sampler("heun", 200)
    assert abs(variance_at_the_end(one, 1.1 * VARIANCE, PATH) - VARIANCE) > 0.05 * VARIANCE


def ends(one: Sampler, count: int, known) -> torch.Tensor:
    torch.manual_seed(0)
    mask = padded_mask(torch.full((count,), 2), torch.float64)
    *_, z = walk(
        centred_noise(mask, 1), one.levels(PATH), one, velocity(PATH, known), lambda: centred_noise(mask, 1), mask
    )
    assert z[..., :3].sum(1).abs().max() < 1e-12
    return z


@pytest.mark.parametrize("name", FLOW_RULES)
def test_two_atoms_come_to_their_distance(name: str) -> None:
    z = ends(sampler(name, 200, step_grid="logsnr"), 2000, two_atoms(1.4))
    squared = distances(z) ** 2
    assert squared.mean().item() == pytest.approx(1.4**2 + 6 * PATH.sigma**2, rel=0.02)
    direction = (z[:, 0, :3] - z[:, 1, :3]) / distances(z)[:, None]
    torch.testing.assert_close(direction.T @ direction / 2000, torch.eye(3, dtype=torch.float64) / 3, rtol=0, atol=0.03)


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_the_way_of_two_atoms_converges_at_the_rules_order(name: str, order: int) -> None:
    mask = padded_mask(torch.full((20,), 2), torch.float64)
    torch.manual_seed(0)
    start = centred_noise(mask, 1)

    def middle(steps: int) -> torch.Tensor:
        """From noise to where the distance is still open: at the end all rules agree on it."""
        stops = [PATH.level(1 - 0.6 * i / steps) for i in range(steps + 1)]
        *_, z = walk(start, stops, sampler(name, steps), velocity(PATH, two_atoms(1.4)), lambda: None, mask)
        return distances(z)

    exact = middle(2000)
    errors = [(middle(steps) - exact).abs().mean().item() for steps in (25, 50)]
    assert errors[1] < 0.02
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize(("name", "steps"), [("euler", 3), ("midpoint", 2), ("heun", 5)])
def test_gaussian_data_on_the_subspace_by_samples(name: str, steps: int) -> None:
    """The walk over molecules has the variance that was followed coefficient by coefficient, at few steps too."""
    one = sampler(name, steps)
    z = ends(one, 20_000, gaussian(VARIANCE))
    wanted = variance_at_the_end(one, VARIANCE, PATH)
    assert z[..., :3].square().mean().item() == pytest.approx(wanted / 2, rel=0.03)
    assert z[..., 3:].square().mean().item() == pytest.approx(wanted, rel=0.03)


def test_a_rotation_a_step_is_told_from_one_for_the_whole_way() -> None:
    one = sampler("euler", STEPS)
    assert_fresh_rotations_are_told_from_one(one.levels(PATH), one, PATH.read)

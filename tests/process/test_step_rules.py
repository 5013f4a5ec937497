"""Every step rule where the answer is known: Gaussian data, two atoms at a distance, and the papers' own formulas."""

from __future__ import annotations

import math

import pytest
import torch
from exact import (
    SCHEDULE,
    STEPS,
    assert_fresh_rotations_are_told_from_one,
    distances,
    gaussian,
    two_atoms,
    variance_at_the_end,
)

from symdiff_plugin.process.diffusion import centred_noise, padded_mask
from symdiff_plugin.process.level import Level, Prediction
from symdiff_plugin.process.sampler import Sampler
from symdiff_plugin.process.step_rules import RULES, StepState, langevin, multistep
from symdiff_plugin.process.walk import walk

VARIANCE = 0.25
ORDERS = {"ancestral": 1, "ddim": 1, "sde-dpm++": 2, "dpm++": 2, "heun": 2, "euler-maruyama": 1}


def sampler(name: str, steps: int, **flags: object) -> Sampler:
    return Sampler.of({"sampler": name, "sampling_steps": steps, "step_grid": "logsnr", **flags}, 1000)


def error(name: str, steps: int, **flags: object) -> float:
    end = SCHEDULE.level(0.0)
    return variance_at_the_end(sampler(name, steps, **flags), VARIANCE) - (end.alpha**2 * VARIANCE + end.sigma**2)


def test_every_rule_has_its_order() -> None:
    assert ORDERS.keys() == RULES.keys()


@pytest.mark.parametrize("name", ORDERS)
def test_the_variance_of_gaussian_data_converges_at_the_rules_order(name: str) -> None:
    calls = RULES[name].calls
    errors = [abs(error(name, steps * calls)) for steps in (400, 800)]
    assert errors[1] < 0.02 * VARIANCE
    assert math.log2(errors[0] / errors[1]) == pytest.approx(ORDERS[name], abs=0.15)


def test_the_second_prediction_and_the_second_call_are_worth_it() -> None:
    assert abs(error("dpm++", 50)) < 0.1 * abs(error("ddim", 50))
    assert abs(error("heun", 100)) < 0.25 * abs(error("ddim", 100))
    assert abs(error("sde-dpm++", 50)) < 0.1 * abs(error("ancestral", 50))


@pytest.mark.parametrize("name", ["ddim", "sde-dpm++", "euler-maruyama"])
@pytest.mark.parametrize("stochasticity", [0.0, 0.5, 1.0])
def test_the_law_does_not_depend_on_the_stochasticity(name: str, stochasticity: float) -> None:
    assert abs(error(name, 2000, stochasticity=stochasticity)) < 1e-2 * VARIANCE


@pytest.mark.parametrize("name", ["sde-dpm++", "euler-maruyama"])
def test_more_noise_than_the_sdes_has_the_same_law(name: str) -> None:
    assert abs(error(name, 2000, stochasticity=1.4)) < 5e-3 * VARIANCE


def test_a_wrong_amount_of_noise_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    less = "symdiff_plugin.process.step_rules._noise"
    monkeypatch.setattr(less, lambda deviation, state: 0.9 * deviation * state.draw())
    assert abs(error("sde-dpm++", 2000)) > 0.1 * VARIANCE


def test_langevin_steps_repair_what_a_coarse_solver_spoils() -> None:
    without, with_them = (error("ddim", steps, corrector_steps=n) for steps, n in ((25, 0), (125, 4)))
    assert abs(with_them) < 0.5 * abs(without)


def test_langevin_steps_leave_the_right_law_alone() -> None:
    assert abs(error("dpm++", 2000, corrector_steps=1)) < 0.03 * VARIANCE


def levels() -> tuple[Level, Level, Level]:
    return tuple(SCHEDULE.level(time) for time in (0.83, 0.6, 0.41))


def drawn() -> tuple[torch.Tensor, Prediction, Prediction, torch.Tensor]:
    torch.manual_seed(0)
    z, before, epsilon, xi = torch.randn(4, 2, 3, 7, dtype=torch.float64)
    _, t, _ = levels()
    return z, Prediction((z - t.sigma * epsilon) / t.alpha, epsilon), Prediction(before, before), xi


def test_ancestral_is_edms_posterior_whatever_lies_between() -> None:
    _, t, s = levels()
    z, now, _, xi = drawn()
    state = StepState(lambda z, level: None, lambda: xi, 1.0)
    # EDM's sample_p_zs_given_zt, from its gammas.
    gamma_t, gamma_s = -2 * t.log_ratio, -2 * s.log_ratio
    alpha_ts = t.alpha / s.alpha
    sigma2_ts = -math.expm1(math.log1p(math.exp(gamma_s)) - math.log1p(math.exp(gamma_t)))
    mean = z / alpha_ts - sigma2_ts / alpha_ts / t.sigma * now.noise
    wanted = mean + math.sqrt(sigma2_ts) * s.sigma / t.sigma * xi
    torch.testing.assert_close(RULES["ancestral"].step(z, now, t, s, state), wanted, rtol=1e-12, atol=1e-12)
    # SDE-DPM-Solver++(1), which is the multistep rule before it has two predictions, is the same thing exactly.
    torch.testing.assert_close(multistep(z, now, t, s, state), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
def test_ddim_is_song_and_others(eta: float) -> None:
    _, t, s = levels()
    z, now, _, xi = drawn()
    # Equations 12 and 16, whose alpha is the square of ours.
    deviation = eta * math.sqrt((1 - s.alpha**2) / (1 - t.alpha**2) * (1 - t.alpha**2 / s.alpha**2))
    wanted = s.alpha * now.data + math.sqrt(1 - s.alpha**2 - deviation**2) * now.noise + deviation * xi
    found = RULES["ddim"].step(z, now, t, s, StepState(lambda z, level: None, lambda: xi, eta))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
def test_the_multistep_rule_is_lu_and_others(eta: float) -> None:
    r, t, s = levels()
    z, now, before, xi = drawn()
    h, h_before = s.log_ratio - t.log_ratio, t.log_ratio - r.log_ratio
    ratio = h_before / h
    data = (1 + 1 / (2 * ratio)) * now.data - 1 / (2 * ratio) * before.data
    if eta:  # SDE-DPM-Solver++(2M), of eta = 1; otherwise dz / dlambda has 1 + eta^2 in the place of its 2
        wanted = s.sigma / t.sigma * math.exp(-(eta**2) * h) * z + s.alpha * (1 - math.exp(-(1 + eta**2) * h)) * data
        wanted = wanted + s.sigma * math.sqrt(1 - math.exp(-2 * eta**2 * h)) * xi
    else:  # DPM-Solver++(2M), Algorithm 2
        wanted = s.sigma / t.sigma * z - s.alpha * (math.exp(-h) - 1) * data
    state = StepState(lambda z, level: None, lambda: xi, eta, (r, before))
    torch.testing.assert_close(multistep(z, now, t, s, state), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
def test_euler_maruyama_is_the_reverse_sde(eta: float) -> None:
    """dz = [f z - (1 + eta^2) / 2 g^2 score] dt + eta g dw, with f dt = d log alpha and g^2 dt = -2 sigma^2 dlambda."""
    _, t, s = levels()
    z, now, _, xi = drawn()
    f_dt, g2_dt = t.log_alpha - s.log_alpha, 2 * t.sigma**2 * (s.log_ratio - t.log_ratio)
    score = -now.noise / t.sigma
    wanted = z - f_dt * z + (1 + eta**2) / 2 * g2_dt * score + eta * math.sqrt(g2_dt) * xi
    found = RULES["euler-maruyama"].step(z, now, t, s, StepState(lambda z, level: None, lambda: xi, eta))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_a_langevin_step_goes_along_the_score() -> None:
    _, t, _ = levels()
    z, now, _, xi = drawn()
    length = 0.1 * t.sigma**2
    wanted = z + length * -now.noise / t.sigma + math.sqrt(2 * length) * xi
    found = langevin(z, now, t, StepState(lambda z, level: None, lambda: xi, 0.0))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_a_deterministic_rule_draws_nothing() -> None:
    def no_draw() -> torch.Tensor:
        raise AssertionError

    _, t, s = levels()
    z, now, _, _ = drawn()
    for name in ("ddim", "dpm++", "heun"):
        RULES[name].step(z, now, t, s, StepState(lambda z, level: now, no_draw, 0.0))


DISTANCE = 1.4


def ends(one: Sampler, count: int, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    mask = padded_mask(torch.full((count,), 2), torch.float64)
    way = walk(
        centred_noise(mask, 1), one.levels(SCHEDULE), one, two_atoms(DISTANCE), lambda: centred_noise(mask, 1), mask
    )
    *_, z = way
    assert z[..., :3].sum(1).abs().max() < 1e-12
    return z


@pytest.mark.parametrize("name", RULES)
def test_two_atoms_come_to_their_distance(name: str) -> None:
    z = ends(sampler(name, 200 * RULES[name].calls), 2000)
    end = SCHEDULE.level(0.0)
    squared = distances(z) ** 2
    # |y_0 + noise|^2 with y = (x_1 - x_2) / sqrt(2); sigma_0 is 0.003.
    assert squared.mean().item() == pytest.approx(end.alpha**2 * DISTANCE**2 + 6 * end.sigma**2, rel=0.01)
    assert squared.std() < 0.05
    direction = (z[:, 0, :3] - z[:, 1, :3]) / distances(z)[:, None]
    torch.testing.assert_close(direction.T @ direction / 2000, torch.eye(3, dtype=torch.float64) / 3, rtol=0, atol=0.03)


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpm++", 2), ("heun", 2)])
def test_the_way_of_two_atoms_converges_at_the_rules_order(name: str, order: int) -> None:
    calls, mask = RULES[name].calls, padded_mask(torch.full((20,), 2), torch.float64)
    torch.manual_seed(0)
    start = centred_noise(mask, 1)

    def middle(steps: int) -> torch.Tensor:
        """From noise to where the distance is still open: at the end all solvers agree on it."""
        one = sampler(name, steps * calls)
        first, last = SCHEDULE.level(1.0).log_ratio, 0.5
        stops = [SCHEDULE.level_at(first + (last - first) * i / steps) for i in range(steps + 1)]
        *_, z = walk(start, stops, one, two_atoms(DISTANCE), lambda: None, mask)
        return distances(z)

    exact = middle(3200)
    errors = [(middle(steps) - exact).abs().mean().item() for steps in (50, 100)]
    assert errors[1] < 0.02
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


# A path whose ends are exact: alpha = t, sigma = 1 - t.
def straight(time: float) -> Level:
    """Level of the straight path, ``time`` 0 being noise."""
    return Level(time, math.log(time) if time else -math.inf, math.log1p(-time) if time < 1 else -math.inf)


def test_a_rotation_a_step_is_told_from_one_for_the_whole_way() -> None:
    def read(z: torch.Tensor, v: torch.Tensor, level: Level) -> Prediction:
        return Prediction(z + (1 - level.time) * v, z - level.time * v)

    stops = [straight(i / STEPS) for i in range(STEPS + 1)]
    assert_fresh_rotations_are_told_from_one(stops, sampler("ddim", STEPS), read)


def test_gaussian_data_on_the_subspace_by_samples() -> None:
    """The walk over molecules has the variance that was followed coefficient by coefficient."""
    one, count = sampler("ancestral", 8), 4000
    torch.manual_seed(0)
    mask = padded_mask(torch.tensor([4, 3] * (count // 2)), torch.float64)
    *_, z = walk(
        centred_noise(mask, 2), one.levels(SCHEDULE), one, gaussian(VARIANCE), lambda: centred_noise(mask, 2), mask
    )
    wanted = variance_at_the_end(one, VARIANCE)
    assert abs(wanted - VARIANCE) > 0.1 * VARIANCE  # eight steps are few: the data's own would not do
    for first, n in ((0, 4), (1, 3)):
        assert z[first::2, :n, :3].square().mean().item() == pytest.approx(wanted * (1 - 1 / n), rel=0.03)
        assert z[first::2, :n, 3:].square().mean().item() == pytest.approx(wanted, rel=0.03)
    assert z[1::2, 3:].abs().max() == 0
    assert z[..., :3].sum(1).abs().max() < 1e-12

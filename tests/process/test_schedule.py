"""The schedule at any time, its way back, and the grids on it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from exact import SCHEDULE

from symdiff_plugin.process.level import Level
from symdiff_plugin.process.schedule import NoiseSchedule, tabulated
from symdiff_plugin.process.step_grids import GRIDS


def test_at_the_tables_times_it_is_the_table() -> None:
    for t in (0, 1, 37, 500, 999, 1000):
        level, gamma = SCHEDULE.level(t / 1000), SCHEDULE.gamma[t].double()
        assert level.alpha == pytest.approx(torch.sigmoid(-gamma).sqrt().item(), rel=1e-13)
        assert level.sigma == pytest.approx(torch.sigmoid(gamma).sqrt().item(), rel=1e-13)
        assert level.log_ratio == pytest.approx(-gamma.item() / 2, rel=1e-13)
        assert level.alpha**2 + level.sigma**2 == pytest.approx(1, rel=1e-14)


def test_between_them_gamma_is_a_straight_line() -> None:
    a, middle, b = (SCHEDULE.level(time).log_ratio for time in (0.6, 0.6003, 0.601))
    assert middle == pytest.approx(0.7 * a + 0.3 * b, rel=1e-12)
    assert a > middle > b


@pytest.mark.parametrize("time", [0.0, 0.00037, 0.25, 0.49951, 0.9999, 1.0])
def test_the_way_back_is_exact(time: float) -> None:
    level = SCHEDULE.level(time)
    assert SCHEDULE.level_at(level.log_ratio).time == pytest.approx(time, abs=1e-12)


def test_beyond_the_ends_are_the_ends() -> None:
    assert SCHEDULE.level_at(50.0) == SCHEDULE.level(0.0)
    assert SCHEDULE.level_at(-50.0) == SCHEDULE.level(1.0)


def test_a_level_of_pure_noise_or_pure_data_is_one_too() -> None:
    noise, data = Level(0.0, -math.inf, 0.0), Level(1.0, 0.0, -math.inf)
    assert (noise.alpha, noise.sigma, noise.log_ratio) == (0, 1, -math.inf)
    assert (data.alpha, data.sigma, data.log_ratio) == (1, 0, math.inf)


def test_a_table_that_rounding_made_uneven_still_has_a_way_back() -> None:
    gamma = torch.tensor([-4.0, -1.0, -1.0 - 1e-6, 2.0])
    schedule = NoiseSchedule(gamma)
    assert schedule.level_at(1.0).time == pytest.approx(2 / 9)
    assert schedule.level_at(-0.5).time == pytest.approx(8 / 9, abs=1e-6)


def test_a_table_from_a_module() -> None:
    line = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(line.weight, 20)
    torch.nn.init.constant_(line.bias, -10)
    found = tabulated(line, 8, torch.device("cpu"))
    assert line.weight.dtype == torch.float32  # the module itself is left alone
    assert found.steps == 8
    assert found.level(0.3).log_ratio == pytest.approx(2.0)


@pytest.mark.edm
@pytest.mark.parametrize("name", ["polynomial_2", "cosine", "learned"])
def test_edms_schedules_are_known_at_any_time(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    from symdiff_plugin.edm import import_edm

    module = import_edm("equivariant_diffusion.en_diffusion")
    torch.manual_seed(0)
    gamma = module.GammaNetwork() if name == "learned" else module.PredefinedNoiseSchedule(name, 200, 1e-5)
    schedule = tabulated(gamma, 200, torch.device("cpu"))
    for t in (0, 1, 99, 200):
        wanted = -gamma(torch.tensor([[t / 200]])).item() / 2
        assert schedule.level(t / 200).log_ratio == pytest.approx(wanted, abs=1e-3 if name == "learned" else 1e-6)
    assert np.diff([schedule.level(t / 777).log_ratio for t in range(778)]).max() < 0
    if name == "learned":  # known between the entries too, for its module is a function of any time
        wanted = -gamma(torch.tensor([[0.4567]])).item() / 2
        assert schedule.level(0.4567).log_ratio == pytest.approx(wanted, abs=1e-3)
    assert schedule.level_at(0.3).log_ratio == pytest.approx(0.3)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("intervals", [1, 2, 17])
def test_grids_go_from_noise_to_data(name: str, intervals: int) -> None:
    levels = GRIDS[name](SCHEDULE, intervals)
    assert len(levels) == intervals + 1
    assert (levels[0], levels[-1]) == (SCHEDULE.level(1.0), SCHEDULE.level(0.0))
    assert (np.diff([level.time for level in levels]) < 0).all()
    assert (np.diff([level.log_ratio for level in levels]) > 0).all()


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("logsnr", lambda level: level.log_ratio),
        ("time", lambda level: level.time),
        ("karras", lambda level: (level.sigma / level.alpha) ** (1 / 7)),
    ],
)
def test_a_grids_steps_are_equal_in_its_measure(name: str, measure) -> None:
    steps = np.diff([measure(level) for level in GRIDS[name](SCHEDULE, 13)])
    np.testing.assert_allclose(steps, steps[0], rtol=1e-9)
    other = np.diff([measure(level) for level in GRIDS["logsnr" if name == "time" else "time"](SCHEDULE, 13)])
    assert not np.allclose(other, other[0], rtol=0.1)


def test_edms_grid_is_the_table() -> None:
    times = [level.time for level in GRIDS["time"](SCHEDULE, 1000)]
    np.testing.assert_allclose(times, np.arange(1000, -1, -1) / 1000, atol=1e-15)

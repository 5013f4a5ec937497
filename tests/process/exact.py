"""Data of which everything is known, and the exact predictors of their noised versions. float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from symdiff_plugin.process.flow_path import FlowPath
from symdiff_plugin.process.level import Level, Prediction
from symdiff_plugin.process.sampler import Sampler
from symdiff_plugin.process.schedule import NoiseSchedule, polynomial_gamma
from symdiff_plugin.process.walk import last, walk

SCHEDULE = NoiseSchedule(polynomial_gamma(1000))


def gaussian(variance: float) -> Callable[[Tensor, Level], Prediction]:
    """What is best predicted of z where every coordinate of the data is N(0, ``variance``): by Bayes linear in z."""

    def predict(z: Tensor, level: Level) -> Prediction:
        total = level.alpha**2 * variance + level.sigma**2
        return Prediction(level.alpha * variance / total * z, level.sigma / total * z)

    return predict


def variance_at_the_end(sampler: Sampler, variance: float, path: NoiseSchedule | FlowPath = SCHEDULE) -> float:
    """The exact variance that a sampler makes of Gaussian data, with the exact predictor.

    z stays linear in the first noise and in all that is drawn later: it is followed as the vector of its coefficients,
    which are independent, so that no sample is needed.
    """
    levels = sampler.levels(path)
    first = math.sqrt(levels[0].alpha ** 2 * variance + levels[0].sigma ** 2)  # not 1: its error is not the solver's
    unit = _units(sampler.intervals * (1 + sampler.corrector_steps) + 1)
    known = gaussian(variance) if path is SCHEDULE else velocity(path, gaussian(variance))
    z, mask = next(unit) * first, torch.ones(1, 1, 1, dtype=torch.float64)
    return last(walk(z, levels, sampler, known, lambda: next(unit), mask)).square().sum().item()


def velocity(path: FlowPath, known: Callable[[Tensor, Level], Prediction]) -> Callable[[Tensor, Level], Prediction]:
    """A predictor of a flow's velocity E[x_1 - (1 - s) x_0 | x_t], read as the samplers read it."""

    def predict(z: Tensor, level: Level) -> Prediction:
        best = known(z, level)
        return path.read(z, best.data - (1 - path.sigma) * best.noise, level)

    return predict


def _units(count: int) -> Iterator[Tensor]:
    for i in range(count):
        one = torch.zeros(1, 1, 3 + count, dtype=torch.float64)  # x, which a lone atom does not have, and h
        one[..., 3 + i] = 1
        yield one


def two_atoms(distance: float) -> Callable[[Tensor, Level], Prediction]:
    """What is best predicted of two atoms whose distance is ``distance`` and whose direction is any.

    With y = (x_1 - x_2) / sqrt(2), in which the noise has unit variance, and r = distance / sqrt(2):
    E[y_0 | y] = r (coth k - 1/k) y / |y|, k = alpha r |y| / sigma^2. h, if there is any, is N(0, 1).
    """
    r = distance / math.sqrt(2)

    def predict(z: Tensor, level: Level) -> Prediction:
        y = (z[:, 0, :3] - z[:, 1, :3]) / math.sqrt(2)
        length = y.norm(dim=-1, keepdim=True)
        k = level.alpha * r * length / level.sigma**2
        towards = torch.where(k < 1e-3, k / 3, 1 / torch.tanh(k) - 1 / k)
        y_0 = r * towards * y / length / math.sqrt(2)
        data = torch.cat([torch.stack([y_0, -y_0], dim=1), level.alpha * z[..., 3:]], dim=-1)
        return Prediction(data, (z - level.alpha * data) / level.sigma)

    return predict


def distances(z: Tensor) -> Tensor:
    """(B,) between the two atoms."""
    return (z[:, 0, :3] - z[:, 1, :3]).norm(dim=-1)

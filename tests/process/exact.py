"""Data of which everything is known, and the exact predictors of their noised versions. float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

from symdiff_plugin import Symmetrised
from symdiff_plugin.process.flow_path import FlowPath
from symdiff_plugin.process.level import Level, Prediction
from symdiff_plugin.process.sampler import Sampler
from symdiff_plugin.process.schedule import NoiseSchedule, polynomial_gamma
from symdiff_plugin.process.walk import last, walk

SCHEDULE = NoiseSchedule(polynomial_gamma(1000))
# A linear velocity that is not equivariant.
A = torch.tensor([[0.9, 0.8, 0.0], [-0.3, 0.2, 0.7], [0.5, 0.0, -0.6]], dtype=torch.float64)
STEPS = 10


def assert_fresh_rotations_are_told_from_one(
    levels: Sequence[Level], sampler: Sampler, read: Callable[[Tensor, Tensor, Level], Prediction]
) -> None:
    """E|x|^2 of one of two atoms after ``STEPS`` of Euler's steps of dx = A x dt, of variance 1 at the start.

    Turned at random anew in each step it grows by 1 + 2 dt tr A / 3 + dt^2 tr(A^T A) / 3 a step, with one rotation for
    the whole way as without any.

    Args:
        levels: of ``STEPS`` equal steps of a straight path.
        sampler: Euler's.
        read: the path's, of z, velocity and level.
    """
    dt = 1 / STEPS
    fresh = 3 * (1 + 2 * dt * A.trace() / 3 + dt**2 * (A.T @ A).trace() / 3) ** STEPS
    B = torch.linalg.matrix_power(torch.eye(3, dtype=torch.float64) + dt * A, STEPS)
    held = (B.T @ B).trace()
    assert abs(fresh - held) > 0.1 * held
    turned = Symmetrised(lambda x: x @ A.T, "o3", returns="vector")
    for wanted, is_fresh in ((fresh, True), (held, False)):
        torch.manual_seed(0)
        count = 40_000
        R = torch.linalg.qr(torch.randn(count, 3, 3, dtype=torch.float64))[0]

        def predict(z: Tensor, level: Level, is_fresh: bool = is_fresh, R: Tensor = R) -> Prediction:
            return read(z, turned(z) if is_fresh else z @ R @ A.T @ R.mT, level)

        u = torch.randn(count, 1, 3, dtype=torch.float64)
        mask = torch.ones(count, 2, 1, dtype=torch.float64)
        z = last(walk(torch.cat([u, -u], dim=1), levels, sampler, predict, lambda: None, mask))
        assert z[:, 0].square().sum(-1).mean().item() == pytest.approx(wanted.item(), rel=0.02)


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

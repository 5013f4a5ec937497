r"""What a noise schedule knows: alpha, sigma and log-SNR at any time, and the time at which the log-SNR is a given one.

    q(z_t | z_0) = N(alpha_t z_0, sigma_t^2)      alpha_t^2 + sigma_t^2 = 1,  t = 0, ..., T
    gamma_t = log sigma_t^2 - log alpha_t^2       alpha_t^2 = sigmoid(-gamma_t), sigma_t^2 = sigmoid(gamma_t)
    lambda_t = log(alpha_t / sigma_t) = -gamma_t / 2, half the log-SNR

(Hoogeboom et al. 2022, section 3.1; lambda is Lu et al.'s.) EDM's schedules, learned or not, are tables of gamma at
t / T; between its entries gamma is a straight line here, so that the way back from lambda to t is exact.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from symdiff_plugin.common.kinds import polynomial_power
from symdiff_plugin.process.level import Level, Prediction
from symdiff_plugin.process.probabilistic_model import DIFFUSION

# EDM lets alpha^2 fall by no more than this factor in a step; it matters in the last, at whose end alpha would be 0.
_STEEPEST = 1e-3


def polynomial_gamma(steps: int, power: float = 2.0, precision: float = 1e-5) -> Tensor:
    """EDM's table of gamma: alpha_t^2 = (1 - 2s) (1 - (t/T)^power)^2 + s, s the precision.

    Args:
        steps: T.
        power: 2 is EDM's ``polynomial_2``.
        precision: s, which keeps alpha and sigma away from zero.

    Returns:
        (T + 1,) float32, computed in float64; equal to EDM's to the last bit.
    """
    # t/T by way of T + 1, which EDM divides by: it is the same number, but for the rounding.
    time = np.linspace(0, steps + 1, steps + 1) / (steps + 1)
    ideal = (1 - time**power) ** 2
    ratio = np.clip(ideal / np.concatenate([[1.0], ideal[:-1]]), _STEEPEST, 1.0)
    alpha2 = (1 - 2 * precision) * np.cumprod(ratio) + precision
    return torch.from_numpy(np.log(1 - alpha2) - np.log(alpha2)).float()


def schedule_of(name: str, steps: int, precision: float) -> NoiseSchedule:
    """The schedule that EDM calls ``name`` (``--diffusion_noise_schedule``).

    Raises:
        ValueError: it is not one of the polynomial ones; EDM's cosine and learned ones come from its own model.
    """
    power = polynomial_power(name)
    if power is None or steps < 1 or not 0 < precision < 0.5:
        raise ValueError(f"no noise schedule {name!r} of {steps} steps and precision {precision} (only polynomial_P)")
    return NoiseSchedule(polynomial_gamma(steps, power, precision))


@torch.no_grad()
def tabulated(gamma: nn.Module, steps: int, device: torch.device) -> NoiseSchedule:
    """The schedule of EDM's module ``gamma``, polynomial, cosine or learned.

    Args:
        gamma: takes times (B, 1) in [0, 1]; a copy of it is asked in float64.
        steps: T.
        device: of the module.
    """
    times = torch.arange(steps + 1, device=device, dtype=torch.float64).view(-1, 1) / steps
    return NoiseSchedule(copy.deepcopy(gamma).double()(times).view(-1).cpu())


@dataclass(frozen=True)
class NoiseSchedule:
    """A schedule from its table of gamma; float64 whatever the network computes in.

    Attributes:
        gamma: (T + 1,).
    """

    gamma: Tensor
    process: ClassVar[str] = DIFFUSION

    @property
    def steps(self) -> int:
        """T."""
        return len(self.gamma) - 1

    def level(self, time: float) -> Level:
        """The level at ``time`` in [0, 1]; t / T need not be an entry of the table."""
        entries = np.arange(self.steps + 1)
        gamma = float(np.interp(time * self.steps, entries, self._table))
        return Level(time, -0.5 * _softplus(gamma), -0.5 * _softplus(-gamma))

    def level_at(self, log_ratio: float) -> Level:
        """The level where log(alpha / sigma) is ``log_ratio``; the nearest end of the schedule, if it is beyond."""
        entries = np.arange(self.steps + 1)
        return self.level(float(np.interp(-2 * log_ratio, self._table, entries)) / self.steps)

    def read(self, z: Tensor, epsilon: Tensor, level: Level) -> Prediction:
        """The prediction of a network that predicts the noise."""
        return Prediction((z - level.sigma * epsilon) / level.alpha, epsilon)

    def decode(self, z: Tensor, predict: Callable[[Tensor, Level], Prediction], draw: Callable[[], Tensor]) -> Tensor:
        """[x, h] from z_0: p(x | z_0) is Gaussian, of mean ``predict``'s data and deviation sigma_0 / alpha_0."""
        end = self.level(0.0)
        return predict(z, end).data + end.sigma / end.alpha * draw()

    @cached_property
    def _table(self) -> np.ndarray:
        # EDM averages the table along with the weights, and the rounding of that can turn neighbours round.
        return np.maximum.accumulate(self.gamma.double().numpy())


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))

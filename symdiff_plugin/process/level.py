"""A place on the way from noise to data, and what the network says there. Nothing here needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Level:
    """A place on the way from noise to data.

    Attributes:
        time: t / T in [0, 1], as the network is told.
        log_alpha, log_sigma: of the factor of the data and of that of the noise in z.
    """

    time: float
    log_alpha: float
    log_sigma: float

    @property
    def alpha(self) -> float:
        return math.exp(self.log_alpha)

    @property
    def sigma(self) -> float:
        return math.exp(self.log_sigma)

    @property
    def log_ratio(self) -> float:
        """lambda = log(alpha / sigma)."""
        return self.log_alpha - self.log_sigma


@dataclass(frozen=True)
class Prediction:
    """What the network says of z: alpha ``data`` + sigma ``noise`` = z. Both (B, N, 3 + nf)."""

    data: Tensor
    noise: Tensor

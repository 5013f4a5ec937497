r"""The conditional optimal-transport path of flow matching (Lipman et al. 2022, section 4.1), for eq. 32 of the paper.

    x_t = t x_1 + (1 - (1 - s) t) x_0,     x_0 ~ N_U(0, I) noise, x_1 data, t from 0 to 1, s small
    u_t(x_t | x_1) = x_1 - (1 - s) x_0

It is a Gaussian path like a diffusion's, of alpha = t and sigma = 1 - (1 - s) t. So what the velocity v says of x_1 and
x_0 is two lines (v = x_1 - (1 - s) x_0 and x_t are two equations for them),

    x_1 = (1 - s) x_t + sigma v,     x_0 = x_t - t v,

and grids, rules and walk are those of the diffusions. A straight path has v dt = dalpha x_1 + dsigma x_0, so DDIM's
step with eta = 0 is Euler's, to rounding.

Time: the network is told 1 - t, which is 1 at the noise and 0 at the data as in EDM; t, the flow's own, runs the other
way (footnote 6 of the paper).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from symdiff_plugin.process.level import Level, Prediction
from symdiff_plugin.process.probabilistic_model import FLOW

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class FlowPath:
    """The path, as grids and samplers ask for it; see :class:`symdiff_plugin.process.schedule.NoiseSchedule`.

    Attributes:
        sigma: s, above 0.
    """

    sigma: float
    process: ClassVar[str] = FLOW
    steps: ClassVar[int] = 0  # there are none but the sampler's

    def level(self, time: float) -> Level:
        """The level at ``time``, which is 1 - t, in [0, 1]; log alpha is minus infinity at 1, where all is noise."""
        t = 1 - time
        return Level(time, math.log(t) if t > 0 else -math.inf, math.log(1 - (1 - self.sigma) * t))

    def level_at(self, log_ratio: float) -> Level:
        """The level where log(alpha / sigma) is ``log_ratio``; the last, if it is beyond."""
        ratio = math.exp(log_ratio)
        return self.level(max(1 - ratio / (1 + (1 - self.sigma) * ratio), 0.0))

    def read(self, z: Tensor, velocity: Tensor, level: Level) -> Prediction:
        """The prediction of a network that predicts the velocity."""
        return Prediction((1 - self.sigma) * z + level.sigma * velocity, z - (1 - level.time) * velocity)

    def decode(self, z: Tensor, predict: Callable[[Tensor, Level], Prediction], draw: Callable[[], Tensor]) -> Tensor:
        """z itself: at t = 1 it is the data but for noise of standard deviation s, and no call is needed."""
        return z

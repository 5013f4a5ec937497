r"""Step rules: z at a noisier level t to z at a cleaner level s, from what the network says of z.

z = alpha_t x + sigma_t epsilon. The network's prediction is read as x and epsilon; lambda = log(alpha / sigma), and
h = lambda_s - lambda_t > 0. Any Gaussian path has these, a diffusion's as a flow's.

First order, with the prediction held for the whole step: z_s = alpha_s x + sigma_s (k epsilon + sqrt(1 - k^2) xi),
xi fresh noise. It has the right mean and variance for every k, the part of the noise that is kept:

    k = 1                            DDIM, eta = 0; DPM-Solver++(1): the probability-flow ODE
    k^2 = 1 - eta^2 (1 - e^(-2h))    DDIM (Song et al. 2021, eq. 16); with eta = 1 the ancestral sampler
    k = e^(-eta^2 h)                 the SDE with noise of strength eta, solved exactly; eta = 1 is again ancestral

Second order: x is put forward along a line through the last two predictions, DPM-Solver++(2M) and, with k < 1,
SDE-DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2 and eq. 19):

    x' = x_t + (x_t - x_r) h / (2 (lambda_t - lambda_r)),    z_s += alpha_s (1 - k e^(-h)) (x' - x)

Heun: the trapezoid rule for d(z / sigma) = x d(alpha / sigma). Euler-Maruyama: the reverse SDE with all held at t,

    z_s = z + log(alpha_s / alpha_t) z - (1 + eta^2) h sigma_t epsilon + eta sigma_t sqrt(2h) xi.

A flow's path is straight, alpha and sigma linear in t: v dt = (alpha_s - alpha_t) x + (sigma_s - sigma_t) epsilon for
every dt. Euler's step is DDIM's; the midpoint rule and Heun's take a second call.

Langevin: at one level, z - tau sigma epsilon + sigma sqrt(2 tau) xi, a step of length tau sigma^2 along the score
-epsilon / sigma, which leaves the law at that level as it is to first order in tau (Song et al. 2021b, Algorithm 5).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from symdiff_plugin.process.level import Level, Prediction

if TYPE_CHECKING:
    from torch import Tensor


_TAU = 0.1  # of a Langevin step: where sigma is all the spread there is, its variance comes out tau / 2 too large


@dataclass
class StepState:
    """What a rule has beside the step's two ends.

    Attributes:
        predict: the network at another z and level; a call each.
        draw: fresh noise, (B, N, 3 + nf).
        stochasticity: eta.
        previous: level and prediction of the step before; None at the first.
    """

    predict: Callable[[Tensor, Level], Prediction]
    draw: Callable[[], Tensor]
    stochasticity: float
    previous: tuple[Level, Prediction] | None = None


Step = Callable[["Tensor", Prediction, Level, Level, StepState], "Tensor"]


def ddim(z: Tensor, prediction: Prediction, t: Level, s: Level, state: StepState) -> Tensor:
    """First order, eta as Song et al. (2021) have it."""
    kept = 1 + state.stochasticity**2 * math.expm1(2 * (t.log_ratio - s.log_ratio))
    return _first_order(prediction, s, math.sqrt(kept), state)


def multistep(z: Tensor, prediction: Prediction, t: Level, s: Level, state: StepState) -> Tensor:
    """(SDE-)DPM-Solver++(2M); of first order in the first step."""
    h = s.log_ratio - t.log_ratio
    kept = math.exp(-(state.stochasticity**2) * h) if state.stochasticity else 1.0  # h of a flow's first step: infinity
    new = _first_order(prediction, s, kept, state)
    if state.previous is None:
        return new
    level, before = state.previous
    slope = h / (2 * (t.log_ratio - level.log_ratio))
    return new + s.alpha * (1 - kept * math.exp(-h)) * slope * (prediction.data - before.data)


def heun(z: Tensor, prediction: Prediction, t: Level, s: Level, state: StepState) -> Tensor:
    """The trapezoid rule; a second call of the network, at the end of DDIM's step."""
    new = _first_order(prediction, s, 1.0, state)
    ahead = state.predict(new, s)
    weight = -s.alpha * math.expm1(t.log_ratio - s.log_ratio)
    return new + weight / 2 * (ahead.data - prediction.data)


def midpoint(z: Tensor, prediction: Prediction, t: Level, s: Level, state: StepState) -> Tensor:
    """Euler's step to halfway, then the velocity there for the whole step. Of a straight path, such as a flow's."""
    halfway = Level((t.time + s.time) / 2, math.log((t.alpha + s.alpha) / 2), math.log((t.sigma + s.sigma) / 2))
    return z + _straight(state.predict(z + _straight(prediction, t, halfway), halfway), t, s)


def straight_heun(z: Tensor, prediction: Prediction, t: Level, s: Level, state: StepState) -> Tensor:
    """The mean of the velocities at both ends of Euler's step. Of a straight path, such as a flow's."""
    first = _straight(prediction, t, s)
    return z + (first + _straight(state.predict(z + first, s), t, s)) / 2


def euler_maruyama(z: Tensor, prediction: Prediction, t: Level, s: Level, state: StepState) -> Tensor:
    """The reverse SDE, everything held at t."""
    h, eta = s.log_ratio - t.log_ratio, state.stochasticity
    drift = (s.log_alpha - t.log_alpha) * z - (1 + eta**2) * h * t.sigma * prediction.noise
    return z + drift + _noise(eta * t.sigma * math.sqrt(2 * h), state)


def langevin(z: Tensor, prediction: Prediction, level: Level, state: StepState) -> Tensor:
    """A corrector: z at the same level."""
    return z - _TAU * level.sigma * prediction.noise + _noise(level.sigma * math.sqrt(2 * _TAU), state)


def _straight(prediction: Prediction, t: Level, s: Level) -> Tensor:
    """v dt of a path on which alpha and sigma are linear in time."""
    return (s.alpha - t.alpha) * prediction.data + (s.sigma - t.sigma) * prediction.noise


def _first_order(prediction: Prediction, s: Level, kept: float, state: StepState) -> Tensor:
    mean = s.alpha * prediction.data + s.sigma * kept * prediction.noise
    return mean + _noise(s.sigma * math.sqrt(1 - kept**2), state)


def _noise(deviation: float, state: StepState) -> Tensor | float:
    """None is drawn where none is wanted: an ODE takes no random numbers."""
    return deviation * state.draw() if deviation else 0.0


@dataclass(frozen=True)
class Rule:
    """A step rule with what the flags need to know of it.

    Attributes:
        step: the rule.
        stochasticity: the usual eta.
        most: the largest eta; equal to the usual one where there is no choice.
        calls: of the network, an interval.
    """

    step: Step
    stochasticity: float
    most: float
    calls: int = 1

    @property
    def least(self) -> float:
        """The smallest eta."""
        return self.stochasticity if self.stochasticity == self.most else 0.0


RULES: dict[str, Rule] = {
    "ancestral": Rule(ddim, 1.0, 1.0),
    "ddim": Rule(ddim, 0.0, 1.0),
    "sde-dpm++": Rule(multistep, 1.0, 2.0),
    "dpm++": Rule(multistep, 0.0, 0.0),
    "heun": Rule(heun, 0.0, 0.0, 2),
    "euler-maruyama": Rule(euler_maruyama, 1.0, 2.0),
}
FLOW_RULES: dict[str, Rule] = {
    "euler": Rule(ddim, 0.0, 1.0),
    "midpoint": Rule(midpoint, 0.0, 0.0, 2),
    "heun": Rule(straight_heun, 0.0, 0.0, 2),
    "sde-dpm++": RULES["sde-dpm++"],
    "dpm++": RULES["dpm++"],
}

r"""EDM's diffusion without EDM, for sampling: its noise schedule and its ancestral sampler.

    q(z_t | z_0) = N(alpha_t z_0, sigma_t^2)      t = 0, ..., T;   alpha_t^2 + sigma_t^2 = 1
    gamma_t = log sigma_t^2 - log alpha_t^2       alpha_t^2 = sigmoid(-gamma_t), sigma_t^2 = sigmoid(gamma_t)
    alpha_{t|s} = alpha_t / alpha_s,   sigma_{t|s}^2 = 1 - alpha_{t|s}^2
    z_s ~ N(z_t / alpha_{t|s} - sigma_{t|s}^2 / (alpha_{t|s} sigma_t) epsilon, (sigma_{t|s} sigma_s / sigma_t)^2)

with z = [x, h], x positions of zero centre of mass and h the scaled features: one column an atom type and, if it is
modelled, the charge. Equations: Hoogeboom et al. (2022), sections 3.1 to 3.3; Algorithm 2 of Zhang et al. (2024).

From the same state of torch's generator :func:`sample` returns the molecules of EDM's own ``sample``: the draws have
the same shapes and order. A test holds the one against the other.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from symdiff_plugin.common.kinds import polynomial_power
from symdiff_plugin.packed.atoms import remove_mean

N_DIMS = 3
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
        ValueError: it is not one of the polynomial ones; EDM's cosine and learned ones are not here.
    """
    power = polynomial_power(name)
    if power is None or steps < 1 or not 0 < precision < 0.5:
        raise ValueError(f"no noise schedule {name!r} of {steps} steps and precision {precision} (only polynomial_P)")
    return NoiseSchedule(polynomial_gamma(steps, power, precision))


@dataclass(frozen=True)
class NoiseSchedule:
    """The numbers of the sampler's steps, from a table of gamma; float64 whatever the network computes in.

    Attributes:
        gamma: (T + 1,).
    """

    gamma: Tensor

    @property
    def steps(self) -> int:
        """T."""
        return len(self.gamma) - 1

    def denoising(self) -> Tensor:
        """What the step from t to s = t - 1 needs, for t = 1, ..., T, without cancellation.

        Returns:
            (T, 3) float64: the factor of z_t, the factor of epsilon, the standard deviation of z_s.
        """
        gamma = self.gamma.double()
        gamma_s, gamma_t = gamma[:-1], gamma[1:]
        sigma_s, sigma_t = gamma_s.sigmoid().sqrt(), gamma_t.sigmoid().sqrt()
        alpha_ts = (0.5 * (F.logsigmoid(-gamma_t) - F.logsigmoid(-gamma_s))).exp()
        sigma2_ts = -torch.expm1(F.softplus(gamma_s) - F.softplus(gamma_t))
        return torch.stack(
            [1 / alpha_ts, sigma2_ts / (alpha_ts * sigma_t), sigma2_ts.sqrt() * sigma_s / sigma_t], dim=1
        )

    def decoding(self) -> tuple[float, float, float]:
        """p(x | z_0): the factor of z_0, the factor of epsilon and the standard deviation, sigma_0 / alpha_0, of x."""
        gamma = self.gamma[0].double()
        alpha, sigma = (-gamma).sigmoid().sqrt(), gamma.sigmoid().sqrt()
        return (1 / alpha).item(), (sigma / alpha).item(), (0.5 * gamma).exp().item()


def centred_noise(node_mask: Tensor, n_features: int) -> Tensor:
    """epsilon ~ N_U(0, I): normal, x without centre of mass, zero on padding.

    Args:
        node_mask: (B, N, 1) of 0 and 1, in the dtype of the noise.
        n_features: columns of h.

    Returns:
        (B, N, 3 + n_features).
    """
    like: dict[str, Any] = {"device": node_mask.device, "dtype": node_mask.dtype}
    x = torch.randn(*node_mask.shape[:2], N_DIMS, **like) * node_mask
    h = torch.randn(*node_mask.shape[:2], n_features, **like) * node_mask  # a draw of its own, as in EDM
    return torch.cat([remove_mean(x, node_mask), h], dim=-1)


def padded_mask(sizes: Tensor, dtype: torch.dtype = torch.float32, length: int | None = None) -> Tensor:
    """The node mask (B, N, 1) of molecules of ``sizes`` (B,) atoms, N being ``length`` or else the largest."""
    length = int(sizes.max()) if length is None else length
    return (torch.arange(length, device=sizes.device) < sizes[:, None]).to(dtype).unsqueeze(-1)


@torch.no_grad()
def sample(
    dynamics: Any,
    schedule: NoiseSchedule,
    node_mask: Tensor,
    n_types: int,
    n_features: int,
    position_scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Algorithm 2: molecules from noise, by all T steps of the schedule and the decoding of z_0.

    Args:
        dynamics: predicts the noise; called as EDM calls it, see
            :meth:`symdiff_plugin.model.dynamics.DiTDynamics._forward`.
        schedule: the one that the network was trained with.
        node_mask: (B, N, 1) of 0 and 1; its device and dtype are those of the computation.
        n_types: atom types, the first columns of h.
        n_features: columns of h, one more than ``n_types`` where the charge is modelled.
        position_scale: Angstrom a unit of x, the first of EDM's ``normalize_factors``; the others, of h, do not
            change which type is the most probable.

    Returns:
        Positions (B, N, 3) in Angstrom, of zero centre of mass and zero on padding, and the atom types (B, N),
        integers, of no meaning on padding.
    """
    batch, device = len(node_mask), node_mask.device

    def predict(t: int, z: Tensor) -> Tensor:
        time = torch.full((1, 1), t / schedule.steps, device=device, dtype=node_mask.dtype)
        return dynamics._forward(time.expand(batch, 1), z, node_mask, None, None)

    with getattr(dynamics, "sampling", contextlib.nullcontext)():  # the weights do not change
        z = centred_noise(node_mask, n_features)
        steps = schedule.denoising().tolist()
        for t in range(schedule.steps, 0, -1):
            of_z, of_epsilon, deviation = steps[t - 1]
            z = of_z * z - of_epsilon * predict(t, z) + deviation * centred_noise(node_mask, n_features)
            z = torch.cat([remove_mean(z[..., :N_DIMS], node_mask), z[..., N_DIMS:]], dim=-1)  # against rounding
        of_z, of_epsilon, deviation = schedule.decoding()
        xh = of_z * z - of_epsilon * predict(0, z) + deviation * centred_noise(node_mask, n_features)
    x = remove_mean(xh[..., :N_DIMS], node_mask) * position_scale
    return x, z[..., N_DIMS : N_DIMS + n_types].argmax(dim=-1)

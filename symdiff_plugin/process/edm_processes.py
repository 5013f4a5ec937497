"""Score and flow matching (Appendix E of Zhang et al. 2024) as EDM's diffusion model, with any of its networks.

Both keep all of EDM's class but the loss and the sampling: [x, h] on the subspace of zero centre of mass, its
normalisation, its noise, what its loop and its scripts call. The network draws its own R at every call, in training as
in sampling, so that every kernel is equivariant (eq. 29); eq. 31 has v(R . x) where v(R^T . x) is meant.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from symdiff_plugin.process.alignment import align
from symdiff_plugin.process.edm_diffusion import with_sampler
from symdiff_plugin.process.flow_path import FlowPath
from symdiff_plugin.process.sampler import Sampler
from symdiff_plugin.process.walk import N_DIMS


def joined(model: Any, x: Tensor, h: dict[str, Tensor], node_mask: Tensor) -> Tensor:
    """[x, h] (B, N, 3 + nf), normalised as EDM does."""
    x, h, _ = model.normalize(x, h, node_mask)
    return torch.cat([x, h["categorical"], h["integer"]], dim=2)


def error_a_dimension(prediction: Tensor, target: Tensor, node_mask: Tensor) -> Tensor:
    """Mean squared error (B,) over the 3 (N - 1) + N nf dimensions of a molecule, whatever its batch is padded to."""
    atoms = node_mask.sum((1, 2))
    dimensions = N_DIMS * (atoms - 1) + (target.shape[2] - N_DIMS) * atoms
    return (prediction - target).square().sum((1, 2)) / dimensions


@functools.cache
def flow_matching(edms: Any, chosen: Sampler, sigma: float, alignment: str = "none", special: bool = False) -> Any:
    """A class like ``edms`` whose network is a velocity, on the path of :class:`FlowPath`.

    Args:
        edms: EDM's ``EnVariationalDiffusion``.
        chosen: the sampler, of flow matching.
        sigma: s, of the path.
        alignment: of the noise with the data in training; see :func:`symdiff_plugin.process.alignment.align`.
        special: align by rotations alone, for a network that tells mirror images apart.
    """
    base: Any = with_sampler(edms, chosen)

    class FlowMatching(base):
        def path(self) -> FlowPath:
            return FlowPath(sigma)

        def forward(
            self, x: Tensor, h: dict[str, Tensor], node_mask: Tensor, edge_mask: Tensor | None = None,
            context: Tensor | None = None,
        ) -> Tensor:  # fmt: skip
            """The loss of eq. 32 (B,), lambda = 1 / dimensions, in training and evaluation: no likelihood."""
            x_1 = joined(self, x, h, node_mask)
            x_0 = self.sample_combined_position_feature_noise(len(x), x.shape[1], node_mask)
            x_0 = align(x_0, x_1, node_mask, alignment, special)
            t = torch.rand(len(x), 1, 1, device=x.device, dtype=x.dtype)
            x_t = t * x_1 + (1 - (1 - sigma) * t) * x_0
            velocity = self.phi(x_t, 1 - t[:, 0], node_mask, edge_mask, context)
            return error_a_dimension(velocity, x_1 - (1 - sigma) * x_0, node_mask)

        def sample_p_xh_given_z0(
            self, z0: Tensor, node_mask: Tensor, edge_mask: Tensor | None, context: Tensor | None,
            fix_noise: bool = False,
        ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
            """x and h of the end of the path: the largest of the columns of all atom types, and the rounded charge.

            What noise is left there has deviation s: a p(x, h | z) like EDM's would add a call, and noise of its own.
            """
            types = z0[..., N_DIMS : N_DIMS + self.num_classes]
            charge = z0[..., N_DIMS + self.num_classes :] if self.include_charges else torch.zeros(0, device=z0.device)
            x, types, charge = self.unnormalize(z0[..., :N_DIMS], types, charge, node_mask)
            categorical = F.one_hot(types.argmax(dim=2), self.num_classes) * node_mask
            return x, {"integer": torch.round(charge).long() * node_mask, "categorical": categorical}

        def log_info(self) -> dict[str, float]:
            info = {"flow_sigma": sigma}
            print(info)
            return info

    return FlowMatching


@functools.cache
def score_matching(edms: Any, chosen: Sampler, weighting: str) -> Any:
    r"""A class like ``edms`` that is trained by eq. 25, in continuous time, and is EDM's in everything else.

    The SDE is the variance-preserving one whose marginals are EDM's, q(z_t | z_0) = N(alpha_t z_0, sigma_t^2): it has
    g^2 = sigma^2 dgamma/dt, gamma = log sigma^2 / alpha^2, a straight line between the entries of EDM's table. The
    network predicts epsilon, the score is -epsilon / sigma, and eq. 25 is, of its lambda,

        sigma^2:     |epsilon_theta - epsilon|^2, here a dimension
        g^2 (half):  dgamma/dt / 2 |epsilon_theta - epsilon|^2, the likelihood's weight (Song et al. 2021), in nats

    So the samplers of the diffusions are its own: the reverse SDE by Euler-Maruyama's steps and better ones, and the
    probability-flow ODE. Its NLL in evaluation is EDM's bound, that of the ancestral sampler with all T steps.

    Args:
        edms: EDM's ``EnVariationalDiffusion``.
        chosen: the sampler.
        weighting: ``sigma2`` or ``g2``.
    """
    base: Any = with_sampler(edms, chosen)

    class ScoreMatching(base):
        def forward(
            self, x: Tensor, h: dict[str, Tensor], node_mask: Tensor, edge_mask: Tensor | None = None,
            context: Tensor | None = None,
        ) -> Tensor:  # fmt: skip
            """The loss (B,) in training, EDM's NLL (B,) in evaluation."""
            if not self.training:
                return super().forward(x, h, node_mask, edge_mask, context)
            xh = joined(self, x, h, node_mask)
            t = torch.rand(len(x), 1, device=x.device, dtype=x.dtype)
            gamma, slope = (part[..., None] for part in self._gamma_and_slope(t))
            epsilon = self.sample_combined_position_feature_noise(len(x), x.shape[1], node_mask)
            z = torch.sigmoid(-gamma).sqrt() * xh + torch.sigmoid(gamma).sqrt() * epsilon
            prediction = self.phi(z, t, node_mask, edge_mask, context)
            if weighting == "sigma2":
                return error_a_dimension(prediction, epsilon, node_mask)
            return 0.5 * (slope * (prediction - epsilon).square()).sum((1, 2))

        def _gamma_and_slope(self, t: Tensor) -> tuple[Tensor, Tensor]:
            """gamma and dgamma/dt (B, 1) at any t (B, 1); EDM's module rounds the time to a step."""
            step = (t * self.T).floor().clamp(max=self.T - 1)
            before, after = self.gamma(step / self.T), self.gamma((step + 1) / self.T)
            return torch.lerp(before, after, (t * self.T - step).to(before.dtype)), self.T * (after - before)

    return ScoreMatching

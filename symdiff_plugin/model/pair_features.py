r"""Gaussian pair embedding Psi (Appendix B.1; Luo et al. 2022), in memory linear in the number of atoms.

With d_ij = |x_j - x_i| and s_k = |sigma_k| + 0.01,

    psi_k(d) = exp(-((d - mu_k) / s_k)^2 / 2) / (sqrt(2 pi) s_k)
    Psi_i    = (1/N) sum_j psi(d_ij) W_D + b,      j over the N real atoms, i itself included.

(The paper's leading minus sign is absorbed in W_D; the floor of s keeps it from dividing by zero.) The mean over j
is linear, so it is taken before W_D, and over slices of rows: no tensor of size N x N x K ever exists. What the
backward pass needs of the sum over j are the three moments

    S_p = sum_j exp(-z^2 / 2) z^p,   z = (d_ij - mu_k) / s_k,   p = 0, 1, 2,

each (T, K), since d Psi / d mu ~ S_1 / s and d Psi / d s ~ (S_2 - S_0) / s.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from symdiff_plugin.packed.atoms import AtomLayout, PaddedGroup
from symdiff_plugin.packed.row_slices import row_slices

STD_FLOOR = 0.01
# In the place of a distance to padding: no kernel reaches as far, and z^2 does not overflow.
FAR = 1e6
# Elements of the largest temporary on devices other than the CPU: enough to fill a GPU.
ELEMENTS = 1 << 24


class GaussianPairEmbedding(nn.Module):
    """Psi: positions to a feature of each atom that does not change under rotations and reflections.

    Args:
        num_kernels: K.
        features: n_emb, the width of the result.
        release: scale the bias by the padded length, as the authors' release does (see :meth:`forward`).
    """

    def __init__(self, num_kernels: int, features: int, release: bool = False) -> None:
        super().__init__()
        self.means = nn.Parameter(torch.empty(num_kernels).uniform_(0, 3))
        self.stds = nn.Parameter(torch.empty(num_kernels).uniform_(0, 3))
        self.proj = nn.Linear(num_kernels, features)
        self.release = release

    def kernel_means(self, x: Tensor, layout: AtomLayout) -> Tensor:
        """(T, 3) packed positions -> (T, K), the mean of psi over the atoms of the same molecule."""
        if layout.exact:
            sums = layout.join([self._sums(_distances(part)) for part in layout.split(x)])
        else:
            sums = torch.cat([self._padded_sums(x, group) for group in layout.groups])
        return sums / layout.expand(layout.counts).to(x.dtype)

    def _padded_sums(self, x: Tensor, group: PaddedGroup) -> Tensor:
        d = _distances(group.pad(x)).masked_fill(~group.mask[:, None, :], FAR)
        return group.real(self._sums(d))

    def _sums(self, d: Tensor) -> Tensor:
        """(b, n, m) distances -> (b, n, K), the sum of psi over the last axis."""
        # autograd.Function cannot see whether gradients are wanted at all; sampling should not pay for moments.
        learning = torch.is_grad_enabled() and (self.means.requires_grad or self.stds.requires_grad)
        sums = _SumGaussian.apply(d.flatten(0, 1), self.means, self.stds.abs() + STD_FLOOR, learning)
        return sums.view(*d.shape[:2], -1)

    def forward(self, x: Tensor, layout: AtomLayout) -> Tensor:
        """
        Args:
            x: (T, 3) packed positions.
            layout: of the batch.

        Returns:
            (T, n_emb). With ``release``: (1/N) sum_j psi(d_ij) W_D + (M/N) b, M being the padded length. The release
            masks psi, applies W_D and b at all M positions, and divides their sum by N: its b depends on the padding.
        """
        psi = self.kernel_means(x, layout)
        if not self.release:
            return self.proj(psi)
        count = layout.expand(layout.counts).to(x.dtype)  # (T, 1)
        return nn.functional.linear(psi, self.proj.weight) + (layout.shape[1] / count) * self.proj.bias


def _distances(x: Tensor) -> Tensor:
    """(b, n, 3) -> (b, n, n)."""
    # By differences, not |a|^2 + |b|^2 - 2ab: the latter cancels for atoms close to each other.
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")


class _SumGaussian(torch.autograd.Function):
    """The sum of psi over the last axis of d: (M, n), (K,), (K,) -> (M, K); moments only when learning."""

    @staticmethod
    def forward(ctx: Any, d: Tensor, mu: Tensor, s: Tensor, learning: bool) -> Tensor:
        sums = [d.new_empty(d.shape[0], mu.shape[0]) for _ in range(3 if learning else 1)]
        for rows in _slices(d, mu):
            z = (d[rows, :, None] - mu).mul_(1 / s)  # (m, n, K)
            term = (z * z).mul_(-0.5).exp_()
            for power, out in enumerate(sums):
                if power:
                    term.mul_(z)
                torch.sum(term, dim=1, out=out[rows])
        ctx.save_for_backward(d, mu, s, *sums)
        return sums[0] / (math.sqrt(2 * math.pi) * s)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        d, mu, s, s0, *higher = ctx.saved_tensors
        grad = grad / (math.sqrt(2 * math.pi) * s * s)  # (M, K)
        grad_mu = grad_s = grad_d = None
        if higher:
            grad_mu = (grad * higher[0]).sum(0)
            grad_s = (grad * (higher[1] - s0)).sum(0)
        if ctx.needs_input_grad[0]:
            grad_d = torch.empty_like(d)
            for rows in _slices(d, mu):
                z = (d[rows, :, None] - mu).mul_(1 / s)
                slope = (z * z).mul_(-0.5).exp_().mul_(z)
                grad_d[rows] = torch.einsum("mnk,mk->mn", slope, grad[rows]).neg_()
        return grad_d, grad_mu, grad_s, None


def _slices(d: Tensor, mu: Tensor) -> Iterator[slice]:
    return row_slices(d.shape[0], d.shape[1] * mu.shape[0], d.device, elsewhere=ELEMENTS)

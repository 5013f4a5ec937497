r"""A base case from the molecule itself: its principal axes, with random signs.

The covariance C = 1/N sum_i (x_i - c)(x_i - c)^T of a molecule has eigenvectors V (columns, by rising eigenvalue), each
up to its sign. The frames V diag(s), s in {-1, 1}^d (det = 1 for SO(d)) turn with the molecule, V(Q . x) = Q V(x), as a
set, so that one of them at random is an equivariant gamma: 8 elements of O(3), 4 of SO(3).

Where eigenvalues are equal, V is any basis of their eigenspace, and LAPACK's choice does not turn with x. Hence the
eigenvectors are those of a molecule turned by R0 ~ Haar, R = R0 V(R0^{-1} . x) diag(s), which is Theorem 1 again: it
changes nothing in law where eigenvalues differ, and where they do not, it makes the basis of the eigenspace Haar
distributed. So gamma is equivariant without exception, for a symmetric, a flat or a single atom's molecule too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from symdiff_plugin.model.groups import Group
from symdiff_plugin.model.symmetrisation import act_inverse, compose
from symdiff_plugin.packed.precision import autocast


def pca_frames(x: Tensor, mask: Tensor | None, group: Group) -> Tensor:
    """One of each molecule's PCA frames, with all its signs equally likely.

    Gradients flow to x where the eigenvalues differ; where they do not, the frame is a constant.

    Args:
        x: (..., N, d), d that of the group; float32 or float64. Its eigendecomposition makes a GPU wait for the host.
        mask: (..., N, 1) or (..., N), true or 1 at atoms; None for all.
        group: where the frames lie.

    Returns:
        (..., d, d), of x's dtype. A molecule that is not finite, or has no atoms, gets a Haar draw.
    """
    batch = x.shape[:-2]
    R0 = group.sample_haar(*batch, device=x.device, dtype=x.dtype)
    signs = torch.randint(0, 2, (*batch, 1, group.dims), device=x.device) * 2 - 1
    V = _axes(_covariance(act_inverse(R0, x), mask))
    return compose(R0, group.orthogonalise(V * signs))


def _covariance(x: Tensor, mask: Tensor | None) -> Tensor:
    """(..., N, d) -> (..., d, d) up to a positive factor, finite whatever x is."""
    if mask is None:
        atoms = torch.ones_like(x[..., :1], dtype=torch.bool)
    else:
        atoms = (mask if mask.dim() == x.dim() else mask.unsqueeze(-1)) > 0
    x = torch.where(atoms, x, 0.0)
    x = torch.where(x.isfinite().all(-1, keepdim=True).all(-2, keepdim=True), x, 0.0)
    x = x / x.detach().abs().amax((-2, -1), keepdim=True).clamp(min=torch.finfo(x.dtype).tiny ** 0.5)
    centre = x.sum(-2, keepdim=True) / atoms.sum(-2, keepdim=True).clamp(min=1)
    x = torch.where(atoms, x - centre, 0.0)
    with autocast(x.device.type, enabled=False):
        return x.mT @ x


def _axes(covariance: Tensor) -> Tensor:
    """Eigenvectors as columns, by rising eigenvalue."""
    values, vectors = torch.linalg.eigh(covariance.detach())
    if not (covariance.requires_grad and torch.is_grad_enabled()):
        return vectors
    # The derivative of eigenvectors has 1 / (difference of their eigenvalues).
    apart = values.diff(dim=-1).amin(-1) > 1e2 * torch.finfo(values.dtype).eps * values[..., -1]
    ramp = torch.arange(1.0, values.shape[-1] + 1, device=values.device, dtype=values.dtype).diag()
    distinct = torch.linalg.eigh(torch.where(apart[..., None, None], covariance, ramp)).eigenvectors
    return torch.where(apart[..., None, None], distinct, vectors)

r"""A base case from the molecule itself: its principal axes, with random signs.

The covariance C = sum_i (x_i - c)(x_i - c)^T of a molecule has eigenvectors V (columns, by rising eigenvalue), each up
to its sign. The frames V diag(s), s in {-1, 1}^d (det = 1 for SO(d)) turn with the molecule, V(Q . x) = Q V(x), as a
set, so that one of them at random is an equivariant gamma: 8 elements of O(3), 4 of SO(3).

Where eigenvalues are equal, V is any basis of their eigenspace, and LAPACK's choice, which is rounding's, does not turn
with x. Hence V is that of C + e G, where G is a symmetric matrix of independent normals, whose law no Q changes
(Q G Q^T ~ G), and e is a little more than rounding. Where eigenvalues differ nothing changes but roundings; where they
do not, the basis of the eigenspace becomes Haar distributed. So gamma is equivariant without exception, for symmetric
and flat molecules and single atoms too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from symdiff_plugin.model.groups import Group
from symdiff_plugin.packed.precision import autocast

_ABOVE_ROUNDING = 64  # e, in the roundings of C


def pca_frames(x: Tensor, mask: Tensor | None, group: Group) -> Tensor:
    """One of each molecule's PCA frames, with all its signs equally likely.

    Gradients flow to x where the eigenvalues differ; where they do not, the frame is a constant.

    Args:
        x: (..., N, d), d that of the group; float32 or float64. A GPU's eigendecomposition makes the host wait for it.
        mask: (..., N, 1) or (..., N), true or 1 at atoms; None for all.
        group: where the frames lie.

    Returns:
        (..., d, d), of x's dtype. A molecule that is not finite, or has no atoms, gets a Haar draw.
    """
    covariance, noise = _covariance(x, mask)
    normal = torch.randn_like(covariance)
    signs = torch.randint(0, 2, (*x.shape[:-2], 1, group.dims), device=x.device) * 2 - 1
    return group.orthogonalise(_axes(covariance + noise * (normal + normal.mT), noise) * signs)


def _covariance(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """C (..., d, d) up to a positive factor, finite whatever x is, and e (..., 1, 1)."""
    if mask is None:
        atoms = torch.ones_like(x[..., :1], dtype=torch.bool)
    else:
        atoms = (mask if mask.dim() == x.dim() else mask.unsqueeze(-1)) > 0
    x = torch.where(atoms, x, 0.0)
    x = torch.where(x.isfinite().all(-1, keepdim=True).all(-2, keepdim=True), x, 0.0)
    centred = torch.where(atoms, x - x.sum(-2, keepdim=True) / atoms.sum(-2, keepdim=True).clamp(min=1), 0.0)
    with torch.no_grad():
        finfo = torch.finfo(x.dtype)
        extent = centred.abs().amax((-2, -1), keepdim=True).clamp(min=finfo.tiny**0.5)
        lost = (finfo.eps * x.abs().amax((-2, -1), keepdim=True) / extent).clamp(max=1e3)  # in centring
    centred = centred / extent
    with autocast(x.device.type, enabled=False):
        covariance = centred.mT @ centred
    trace = covariance.detach().diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    return covariance, _ABOVE_ROUNDING * (finfo.eps + lost) * trace.clamp(min=1)


def _axes(covariance: Tensor, noise: Tensor) -> Tensor:
    """Eigenvectors as columns, by rising eigenvalue."""
    values, vectors = torch.linalg.eigh(covariance.detach())
    if not (covariance.requires_grad and torch.is_grad_enabled()):
        return vectors
    # The derivative of eigenvectors has 1 / (difference of their eigenvalues).
    apart = values.diff(dim=-1).amin(-1)[..., None, None] > 100 * noise
    ramp = torch.arange(1.0, values.shape[-1] + 1, device=values.device, dtype=values.dtype).diag()
    distinct = torch.linalg.eigh(torch.where(apart, covariance, ramp)).eigenvectors
    return torch.where(apart, distinct, vectors)

r"""The orthogonal group O(3): Haar measure and Gram-Schmidt.

Notation: R in O(3) is a 3 x 3 matrix with R^T R = I, acting on a molecule x (N, 3), one atom a row, as
R . x = x R^T; so R^{-1} . x = x R.

Gram-Schmidt sends a matrix A = [a_1, a_2, a_3] (columns) to the Q of its QR decomposition A = Q U whose U is
upper triangular with a positive diagonal, which makes Q unique. In three dimensions it has a closed form:

    q_1 = a_1 / |a_1|,   q_2 = v / |v| with v = a_2 - (q_1 . a_2) q_1,   q_3 = s (q_1 x q_2)

with s = sign((q_1 x q_2) . a_3) = sign(det A). No LAPACK call, and nothing leaves the device. If A has
independent standard normal entries, Q is Haar distributed on O(3) (Mezzadri 2006, section 5).
"""

from __future__ import annotations

import torch
from torch import Tensor


def sample_haar(
    batch: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Draws from the Haar measure on O(3), reflections included.

    Args:
        batch: number of draws B.
        device, dtype: of the result. The draws come from torch's global generator of that device.

    Returns:
        (B, 3, 3) orthogonal matrices; half of them have determinant -1.
    """
    return gram_schmidt(torch.randn(batch, 3, 3, device=device, dtype=dtype))


def gram_schmidt(a: Tensor) -> Tensor:
    r"""The orthogonal factor of A = Q U, where U has a positive diagonal.

    Where a column is zero, or depends on the ones before it up to rounding, the direction that is missing is
    filled in by a constant one, through which no gradient flows: Q is in O(3) and the gradient is finite for
    every A.

    Args:
        a: (..., 3, 3); its columns are orthogonalised in turn.

    Returns:
        (..., 3, 3), Q with Q^T Q = I to rounding.

    Raises:
        ValueError: the last two dimensions are not 3 x 3.
    """
    if a.shape[-2:] != (3, 3):
        raise ValueError(f"gram_schmidt takes (..., 3, 3) matrices, not {tuple(a.shape)}")
    # Q does not change if a column is multiplied by a positive number: bring each near 1, so that no square
    # under- or overflows. Detached, because the derivative of Q along that direction is exactly 0.
    scale = a.detach().abs().amax(-2, keepdim=True).clamp(min=torch.finfo(a.dtype).tiny ** 0.5)
    a1, a2, a3 = (a / scale).unbind(-1)

    q1 = _normalise(a1, fallback=_least_axis(torch.zeros_like(a1)))
    q2 = _normalise(_reject(a2, q1), fallback=_least_axis(q1.abs()))
    # Cancellation leaves q2 short of orthogonal by rounding / |v|, and the axis is not orthogonal at all; a second pass
    # mends both.
    q2 = _unit(_reject(q2, q1))
    q3 = torch.linalg.cross(q1, q2)
    q3 = torch.where(_dot(q3, a3) < 0, -q3, q3)
    return torch.stack((q1, q2, q3), dim=-1)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1, keepdim=True)


def _unit(a: Tensor) -> Tensor:
    return a / torch.linalg.vector_norm(a, dim=-1, keepdim=True)


def _reject(a: Tensor, q: Tensor) -> Tensor:
    """The part of a orthogonal to the unit vector q."""
    return a - _dot(q, a) * q


def _least_axis(weights: Tensor) -> Tensor:
    """The coordinate axis e_i, i = argmin of ``weights`` (..., 3)."""
    # Not one_hot, which on a CPU looks at its argument's extremes.
    return torch.zeros_like(weights).scatter(-1, weights.argmin(-1, keepdim=True), 1.0)


def _normalise(a: Tensor, fallback: Tensor) -> Tensor:
    """a / |a|, or ``fallback`` where |a| is rounding noise beside columns of size 1."""
    norm = torch.linalg.vector_norm(a, dim=-1, keepdim=True)
    well = norm > 8 * torch.finfo(a.dtype).eps
    return torch.where(well, a / torch.where(well, norm, torch.ones_like(norm)), fallback)

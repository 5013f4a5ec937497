r"""The orthogonal groups O(3), SO(3), O(2) and SO(2): Haar measure and Gram-Schmidt.

Notation: R in O(3) is a 3 x 3 matrix with R^T R = I, acting on a molecule x (N, 3), one atom a row, as
R . x = x R^T; so R^{-1} . x = x R.

Gram-Schmidt sends a matrix A = [a_1, a_2, a_3] (columns) to the Q of its QR decomposition A = Q U whose U is
upper triangular with a positive diagonal, which makes Q unique. In three dimensions it has a closed form:

    q_1 = a_1 / |a_1|,   q_2 = v / |v| with v = a_2 - (q_1 . a_2) q_1,   q_3 = s (q_1 x q_2)

with s = sign((q_1 x q_2) . a_3) = sign(det A), or s = 1 for a rotation. In the plane q_2 is s times q_1 turned by 90
degrees. No LAPACK call, and nothing leaves the device. If A has independent standard normal entries, Q is Haar
distributed on O(3) (Mezzadri 2006, section 5), and with s = 1 on SO(3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """O(d) or SO(d), d = 2 or 3, acting on row vectors as R . x = x R^T.

    Attributes:
        dims: d.
        special: rotations alone.
    """

    dims: int
    special: bool

    def __str__(self) -> str:
        return f"{'S' * self.special}O({self.dims})"

    def sample_haar(self, *batch: int, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Tensor:
        r"""(\*batch, d, d) draws of the Haar measure, as :func:`sample_haar`."""
        return sample_haar(batch, self.dims, self.special, device=device, dtype=dtype)

    def orthogonalise(self, a: Tensor) -> Tensor:
        """The element of the group that Gram-Schmidt makes of each matrix of a, (..., d, d); it is itself if it is one.

        For SO(d) the last column has the sign that makes the determinant 1. For every Q of the group the element made
        of Q A is Q times that of A.
        """
        return gram_schmidt(a, self.special)


GROUPS = {str(group): group for group in (Group(d, special) for d in (3, 2) for special in (False, True))}


def get_group(name: str | Group) -> Group:
    """The group called ``name``: ``O(3)``, ``SO(3)``, ``O(2)`` or ``SO(2)``, or as flags have it, ``o3`` and so on.

    Raises:
        ValueError: no group has that name.
    """
    if isinstance(name, Group):
        return name
    for known, group in GROUPS.items():
        if name.lower() in (known.lower(), known.lower().translate({ord("("): None, ord(")"): None})):
            return group
    raise ValueError(f"unknown group {name!r}; choose one of {', '.join(GROUPS)}")


def sample_haar(
    batch: int | Sequence[int],
    dims: int = 3,
    special: bool = False,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Draws from the Haar measure on O(d), reflections included, or on SO(d).

    Args:
        batch: number of draws B, or their shape.
        dims: d, 2 or 3.
        special: SO(d).
        device, dtype: of the result. The draws come from torch's global generator of that device.

    Returns:
        (B, d, d) orthogonal matrices; of O(d), half of them have determinant -1.
    """
    shape = (batch,) if isinstance(batch, int) else batch
    return gram_schmidt(torch.randn(*shape, dims, dims, device=device, dtype=dtype), special)


def gram_schmidt(a: Tensor, special: bool = False) -> Tensor:
    r"""The orthogonal factor of A = Q U, where U has a positive diagonal.

    Where a column is zero, or depends on the ones before it up to rounding, the direction that is missing is
    filled in by a constant one, through which no gradient flows: Q is in O(3) and the gradient is finite for
    every A.

    Args:
        a: (..., 3, 3) or (..., 2, 2); its columns are orthogonalised in turn.
        special: give the last column the sign that makes det Q = 1; the last entry of U may then be negative.

    Returns:
        Q, of a's shape, with Q^T Q = I to rounding.

    Raises:
        ValueError: the last two dimensions are neither 3 x 3 nor 2 x 2.
    """
    if a.shape[-2:] not in ((3, 3), (2, 2)):
        raise ValueError(f"gram_schmidt takes (..., 3, 3) or (..., 2, 2) matrices, not {tuple(a.shape)}")
    # Q does not change if a column is multiplied by a positive number: bring each near 1, so that no square
    # under- or overflows. Detached, because the derivative of Q along that direction is exactly 0.
    scale = a.detach().abs().amax(-2, keepdim=True).clamp(min=torch.finfo(a.dtype).tiny ** 0.5)
    a1, a2, *rest = (a / scale).unbind(-1)

    q1 = _normalise(a1, fallback=_least_axis(torch.zeros_like(a1)))
    if not rest:
        return torch.stack((q1, _facing(torch.stack((-q1[..., 1], q1[..., 0]), -1), a2, special)), dim=-1)
    q2 = _normalise(_reject(a2, q1), fallback=_least_axis(q1.abs()))
    # Cancellation leaves q2 short of orthogonal by rounding / |v|, and the axis is not orthogonal at all; a second pass
    # mends both.
    q2 = _unit(_reject(q2, q1))
    return torch.stack((q1, q2, _facing(torch.linalg.cross(q1, q2), rest[0], special)), dim=-1)


def _facing(q: Tensor, a: Tensor, special: bool) -> Tensor:
    """The last column: q, which makes the determinant 1, or -q where only that is on a's side."""
    return q if special else torch.where(_dot(q, a) < 0, -q, q)


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

r"""Noise that goes with its molecule: x_0 turned and reordered to lie near x_1, for short paths of the flow.

x_0' = P x_0 Q, P a permutation of a molecule's own atoms (its features' noise goes with it) and Q in O(3) or SO(3),
chosen to make |x_0' - x_1|^2, a sum over positions, small (Klein et al. 2023; Song et al. 2023, section 3.1).

    rotation      Q = U diag(1, 1, s) V^T with x_0^T x_1 = U S V^T (Kabsch 1976): the best. s = 1 in O(3), whose
                  elements may reflect, s = det(U V^T) in SO(3).
    permutation   the assignment problem of the squared distances, by scipy's ``linear_sum_assignment``: the best.
    both          one after the other, until neither changes anything or five times: the cost never rises, but it need
                  not be the least of all.

**When the law of x_0' is right.** Sampling begins with N_U(0, I), so x_0' must have that law, x_1 integrated out. It
has it exactly where the law of x_1 is invariant under the group that is aligned by: align(k . x_0, k . x_1) is
k . align(x_0, x_1), so that with x_1 = k . y, k uniform, x_0' is uniform on its orbit, and the orbit is that of x_0,
which is as in N_U(0, I). QM9's molecules stand in directions and orders of their own, but for an equivariant network
that makes no difference: its loss at k . x_1, averaged over x_0 and R, is that at x_1. All networks here are
equivariant under permutations; under rotations all but ``dit``, which needs ``--data_augmentation True`` beside it.
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from symdiff_plugin.process.walk import N_DIMS

_ROUNDS = 5


@torch.no_grad()
def align(noise: Tensor, data: Tensor, node_mask: Tensor, by: str, special: bool = False) -> Tensor:
    """The noise (B, N, 3 + nf) that goes with ``data``; draws no random numbers.

    Args:
        noise: (B, N, 3 + nf), x of zero centre of mass, zero on padding.
        data: (B, N, 3 or more), its first three columns likewise.
        node_mask: (B, N, 1) of 0 and 1.
        by: ``none``, ``rotation``, ``permutation`` or ``both``.
        special: rotations alone, no reflections.
    """
    x_1 = data[..., :N_DIMS].double()
    for _ in range(_ROUNDS if by == "both" else 1):
        before = noise
        if by in ("permutation", "both"):
            order = best_order(noise[..., :N_DIMS].double(), x_1, node_mask)
            noise = noise.gather(1, order[..., None].expand_as(noise))
        if by in ("rotation", "both"):
            x_0 = noise[..., :N_DIMS]
            turned = (x_0.double() @ best_rotation(x_0.double(), x_1, special)).to(noise.dtype)
            noise = torch.cat([turned, noise[..., N_DIMS:]], dim=-1)
        if torch.equal(before, noise):
            break
    return noise


def best_rotation(x_0: Tensor, x_1: Tensor, special: bool) -> Tensor:
    """Q (B, 3, 3) that makes |x_0 Q - x_1|^2 least, of positions (B, N, 3) that are zero on padding."""
    U, _, Vh = torch.linalg.svd(x_0.mT @ x_1)
    if special:
        sign = torch.linalg.det(U @ Vh).sign()
        U = torch.cat([U[..., :2], U[..., 2:] * sign[:, None, None]], dim=-1)
    return U @ Vh


def best_order(x_0: Tensor, x_1: Tensor, node_mask: Tensor) -> Tensor:
    """Which atom of x_0 goes with each of x_1, (B, N), to make |x_0 - x_1|^2 least; padding stays where it is."""
    cost = -(x_1 @ x_0.mT).cpu()  # the squares do not depend on the order
    real = node_mask.squeeze(-1).bool().cpu()
    order = torch.arange(x_0.shape[1]).repeat(len(x_0), 1)
    for i, atoms in enumerate(real):
        places = atoms.nonzero().squeeze(-1)
        _, columns = linear_sum_assignment(cost[i][places][:, places].numpy())
        order[i, places] = places[torch.from_numpy(columns)]
    return order.to(x_0.device)

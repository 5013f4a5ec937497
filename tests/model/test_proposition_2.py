"""Proposition 2: with gamma the Haar measure, SymDiff's objective is that of data augmentation.

With z = alpha x + sigma eps, both losses of the noise prediction at one molecule, eps and t are

    augmentation   E_R  |[eps_x R^T, eps_h] - dit([z_x R^T, z_h], t)|^2
    symdiff_h      E_R0 |eps - symdiff_h(z, t; R0)|^2

estimated here from one draw of R and R0 for each of many (eps, t), which both share; R and R0 are independent.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable

import pytest
import torch
from molecules import qm9_batch, randomise
from torch import Tensor

from symdiff_plugin import build_dynamics, hooks
from symdiff_plugin.packed.atoms import remove_mean

MOLECULES, DRAWS = 6, 1500
# The time hardly moves the input, so that the draws of t do not average the network's sense of direction away.
SIZES = {"hidden_size": 16, "depth": 1, "num_heads": 2, "xh_hidden_size": 12, "K": 4, "time_scale": 1.0}


def haar(x: Tensor) -> Tensor:
    """What dit_aug trains on."""
    return hooks.augment(Namespace(model="dit_aug"), x)


def about_one_axis(x: Tensor) -> Tensor:
    angle = 2 * math.pi * torch.rand(len(x), dtype=x.dtype)
    R = torch.eye(3, dtype=x.dtype).repeat(len(x), 1, 1)
    R[:, 0, 0] = R[:, 1, 1] = angle.cos()
    R[:, 0, 1], R[:, 1, 0] = -angle.sin(), angle.sin()
    return x @ R.transpose(1, 2)


def not_at_all(x: Tensor) -> Tensor:
    return x


def largest_z(turn: Callable[[Tensor], Tensor], seed: int = 2) -> float:
    """The difference of the two losses in standard errors, the largest of all molecules'."""
    torch.manual_seed(seed)
    dit = build_dynamics("dit", 6, **SIZES).double()
    randomise(dit, std=0.5)
    symdiff_h = build_dynamics("symdiff_h", 6, **SIZES).double()
    symdiff_h.load_state_dict(dit.state_dict())

    _, xh, mask = (tensor.repeat_interleave(DRAWS, 0) for tensor in qm9_batch(MOLECULES, noise=0))
    eps = torch.randn_like(xh) * mask
    eps = torch.cat([remove_mean(eps[..., :3], mask), eps[..., 3:]], dim=-1)
    t = 0.3 * torch.rand(len(xh), 1, dtype=xh.dtype)
    alpha, sigma = (1 - t**2)[..., None], (1 - (1 - t**2) ** 2).sqrt()[..., None]  # polynomial_2, but for its floor
    z = alpha * xh + sigma * eps
    turned_z, turned_eps = turn(torch.cat([z[..., :3], eps[..., :3]], dim=1)).chunk(2, dim=1)  # by one R

    with torch.no_grad():
        predicted = dit._forward(t, torch.cat([turned_z, z[..., 3:]], dim=-1), mask)
        augmented = (torch.cat([turned_eps, eps[..., 3:]], dim=-1) - predicted).square().sum((1, 2))
        symmetrised = (eps - symdiff_h._forward(t, z, mask)).square().sum((1, 2))
    assert symmetrised.mean() > 1.2 * eps.square().sum((1, 2)).mean()  # the prediction is far from zero
    difference = (augmented - symmetrised).reshape(MOLECULES, DRAWS)
    return float((difference.mean(1) / (difference.std(1) / DRAWS**0.5)).abs().max())


def test_symdiff_h_has_the_objective_of_augmentation() -> None:
    assert largest_z(haar) < 4


@pytest.mark.parametrize("turn", [about_one_axis, not_at_all])
def test_other_augmentations_have_another_objective(turn: Callable[[Tensor], Tensor]) -> None:
    assert largest_z(turn) > 6

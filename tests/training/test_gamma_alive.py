"""Trained by the fast recipe gamma stays alive; at a high rate of f_theta it dies in as many steps."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from symdiff_plugin import build_dynamics
from symdiff_plugin.data.store import load_split
from symdiff_plugin.model.learned_gamma import STILL, GammaFigures, draw_twice, gamma_figures
from symdiff_plugin.packed.atoms import remove_mean
from symdiff_plugin.presets import PRESETS
from symdiff_plugin.training.optim import clip_gradients, get_optim, set_learning_rates

STEPS, BATCH = 300, 32
SMALL = {
    "hidden_size": 64, "depth": 2, "num_heads": 2, "xh_hidden_size": 32, "K": 32,
    "enc_hidden_size": 32, "enc_depth": 2, "enc_num_heads": 2, "dec_hidden_features": 16,
}  # fmt: skip


def trained(molecules: tuple[Tensor, Tensor], seed: int, **flags: Any) -> GammaFigures:
    """What f_theta does after a short training on noised molecules, by EDM's loss."""
    args = Namespace(model="symdiff_tiny", clip_grad=True, exp_name="run", **flags)
    torch.manual_seed(seed)
    dynamics = build_dynamics("symdiff_tiny", 6, **SMALL)
    model = nn.ModuleDict({"dynamics": dynamics})
    optim, queue, seen = get_optim(args, model), Namespace(), []
    dynamics.f_theta.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    for step in range(STEPS):
        rows = torch.randint(0, len(molecules[0]), (BATCH,))
        data, mask = molecules[0][rows], molecules[1][rows]
        noise = torch.randn_like(data) * mask
        noise = torch.cat([remove_mean(noise[..., :3], mask), noise[..., 3:]], dim=-1)
        t = torch.rand(BATCH, 1)
        alpha = (1 - t**2)[..., None]  # EDM's polynomial_2
        predicted = dynamics(t, alpha * data + (1 - alpha**2).sqrt() * noise, mask)
        set_learning_rates(args, optim, step, STEPS)
        optim.zero_grad()
        seen[:-1] = []
        (predicted - noise).square().sum().div(mask.sum() * noise.shape[-1]).backward()
        clip_gradients(args, model, optim, queue)
        optim.step()
    features, times, layout = seen[-1]
    return gamma_figures(*draw_twice(dynamics.f_theta, features.detach(), times, layout, 3))


@pytest.fixture(scope="module")
def molecules(qm9_thousand: Path) -> tuple[Tensor, Tensor]:
    """[x, h] (M, N, 9), scaled as EDM does, and the mask (M, N, 1)."""
    split = load_split(qm9_thousand, "train")
    charges = torch.as_tensor(split["charges"]).long()
    mask = (charges > 0).float()[..., None]
    x = remove_mean(torch.as_tensor(split["positions"]).float(), mask)
    types = (charges[..., None] == torch.tensor([1, 6, 7, 8, 9])).float() / 4
    return torch.cat([x, types, charges[..., None].float() / 10], dim=-1) * mask, mask


@pytest.mark.parametrize("seed", [0, 1])
def test_by_the_fast_recipe_gamma_lives(molecules: tuple[Tensor, Tensor], seed: int) -> None:
    flags = PRESETS["symdiff_tiny"].training_flags(recipe="fast")
    if not hasattr(torch.optim, "Muon"):
        flags["optimizer"] = "adamw"
    figures = trained(molecules, seed, **flags)
    assert figures.molecules > 2 * STILL
    assert figures.raw_scale < 1


def test_at_a_high_rate_it_dies(molecules: tuple[Tensor, Tensor]) -> None:
    """The control: what the rest's rate does in longer trainings, three times a high one does in 300 steps."""
    flags = {**PRESETS["symdiff_tiny"].training_flags(), "lr": 3e-3, "f_theta_lr": 3.0}
    figures = trained(molecules, 1, **flags)
    assert figures.kind == "constant"
    assert figures.raw_scale > 100

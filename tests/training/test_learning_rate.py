"""How the learning rate rises and falls."""

from __future__ import annotations

import itertools
import math
from argparse import Namespace

import pytest
import torch

from symdiff_plugin.training.learning_rate import SHAPES, factor
from symdiff_plugin.training.optim import get_optim, set_learning_rates


def test_without_flags_it_is_constant() -> None:
    assert {factor(step, 50) for step in range(50)} == {1.0}


@pytest.mark.parametrize("shape", SHAPES)
def test_it_rises_stays_and_falls(shape: str) -> None:
    steps, warmup, decay = 100, 9, 0.3
    rates = [factor(step, steps, warmup, decay, shape) for step in range(steps)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert set(rates[9:70]) == {1.0}
    falling = rates[69:]
    assert all(before > after > 0 for before, after in itertools.pairwise(falling))
    assert rates[-1] < 0.04


def test_the_shapes_are_the_papers() -> None:
    """In the middle of the decay, where they differ."""
    middle = {shape: factor(80, 100, 0, 0.4, shape) for shape in SHAPES}
    left = 20 / 41
    assert middle["linear"] == pytest.approx(left)
    assert middle["cosine"] == pytest.approx(math.cos(math.pi * (1 - left) / 2) ** 2)
    assert middle["sqrt"] == pytest.approx(1 - math.sqrt(1 - left))


def test_every_group_falls_from_its_own_rate() -> None:
    args = Namespace(
        model="symdiff_tiny", lr=0.1, weight_decay=0.0, f_theta_lr=0.5, warmup_steps=0, decay=1.0, decay_shape="linear"
    )
    model = torch.nn.ModuleDict({"f_theta": torch.nn.Linear(2, 2), "dit": torch.nn.Linear(2, 2)})
    optim = get_optim(args, model)
    for _ in range(2):  # from the first rates each time, not from the last ones
        set_learning_rates(args, optim, 4, 7)
        assert sorted(group["lr"] for group in optim.param_groups) == pytest.approx([0.05 * 3 / 8, 0.1 * 3 / 8])


def test_edms_models_have_none() -> None:
    optim = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    set_learning_rates(Namespace(model="egnn_dynamics"), optim, 99, 100)
    assert optim.param_groups[0]["lr"] == 0.1

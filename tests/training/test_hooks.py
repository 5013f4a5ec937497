"""What the patches call, as far as it can be seen without EDM."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace

import numpy as np
import pytest
import torch

from symdiff_plugin import hooks
from symdiff_plugin.model.dynamics import SymDiffDynamics


def test_importing_the_hooks_does_nothing_else() -> None:
    code = (
        "import random, numpy, torch\n"
        "torch.manual_seed(0); before = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].copy()\n"
        "from symdiff_plugin import hooks; hooks.wandb\n"
        "import sys\n"
        "assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]\n"
        "assert (numpy.random.get_state()[1] == before[2]).all()\n"
        "assert not {'wandb', 'utils', 'qm9', 'configs', 'egnn'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_name_is_there() -> None:
    assert all(hasattr(hooks, name) for name in hooks.__all__)


@pytest.mark.parametrize("name", ["egnn_dynamics", "gnn_dynamics"])
def test_edms_models_are_left_to_edm(name: str) -> None:
    assert hooks.build_dynamics(Namespace(model=name), in_node_nf=6) is None


def test_the_plugins_models_are_built_from_the_arguments() -> None:
    args = Namespace(model="symdiff_tiny", context_node_nf=2, depth=2, hidden_size=96, lr=1.0)
    network = hooks.build_dynamics(args, in_node_nf=6)
    assert isinstance(network, SymDiffDynamics)
    assert (network.in_node_nf, network.context_node_nf) == (6, 2)
    assert (network.architecture.depth, network.architecture.hidden_size) == (2, 96)
    assert network.architecture.K == 64  # the preset's


def test_data_are_turned_by_haar_draws() -> None:
    torch.manual_seed(0)
    x = torch.randn(4000, 5, 3, dtype=torch.float64)
    turned = hooks.augment(Namespace(model="dit_aug"), x)
    torch.testing.assert_close(torch.cdist(turned, turned), torch.cdist(x, x))
    matrix = torch.linalg.lstsq(x[:, :3], turned[:, :3]).solution  # (B, 3, 3), another one for each molecule
    determinant = torch.linalg.det(matrix)
    torch.testing.assert_close(determinant.abs(), torch.ones(4000, dtype=torch.float64))
    assert abs(float(determinant.mean())) < 4 / 4000**0.5  # reflections as often as rotations
    assert float(matrix.mean(0).abs().max()) < 4 * (1 / 3 / 4000) ** 0.5


@pytest.mark.parametrize(
    ("include_charges", "all_classes", "columns"),
    [(True, False, [3, 4, 5]), (True, True, [3, 4, 5]), (False, False, [3, 4]), (False, True, [3, 4, 5])],
)
def test_the_columns_of_the_classes(include_charges: bool, all_classes: bool, columns: list[int]) -> None:
    diffusion = Namespace(n_dims=3, num_classes=3, all_classes=all_classes)
    latent = np.arange(3 + 3 + include_charges)
    assert latent[hooks.class_columns(diffusion)].tolist() == columns

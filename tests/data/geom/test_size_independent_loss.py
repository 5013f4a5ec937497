"""EDM's l2 loss in batches of one size: the gradient that it has in shuffled batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from symdiff_plugin.data.geom.batches import SizeBucketedBatches
from symdiff_plugin.edm import import_edm
from symdiff_plugin.hooks import attach_sizes, begin_step, loss_size

pytestmark = pytest.mark.edm

SIZES = np.random.default_rng(1).choice([4, 6, 9, 13, 20], 45)
BATCH = 8


class Linear(nn.Module):
    """A network of EDM's interface with two parameters, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.6, -0.3], dtype=torch.float64))

    def _forward(self, t: torch.Tensor, xh: torch.Tensor, node_mask: torch.Tensor, *_: object) -> torch.Tensor:
        return torch.cat([self.weight[0] * xh[..., :3], self.weight[1] * xh[..., 3:]], dim=2) * node_mask


@pytest.fixture
def diffusion(edm_path: Path) -> nn.Module:
    module = import_edm("equivariant_diffusion.en_diffusion")
    model = module.EnVariationalDiffusion(
        Linear(), 2, 3, timesteps=1000, noise_schedule="polynomial_2", loss_type="l2", norm_values=(1, 1, 1),
        include_charges=False,
    )  # fmt: skip
    return model.double().train()


def loader(pool: int = 3) -> DataLoader:
    return DataLoader(list(range(len(SIZES))), batch_sampler=SizeBucketedBatches(SIZES, BATCH, pool))


def batch_of(indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """A mask (B, N, 1), and noise (B, N, 5) that is each molecule's own whatever its batch."""
    n = int(SIZES[indices].max())
    mask = (torch.arange(n) < torch.as_tensor(SIZES[indices])[:, None]).double()[..., None]
    noise = torch.zeros(len(indices), n, 5, dtype=torch.float64)
    for row, i in enumerate(indices):
        values = np.random.default_rng(i).normal(size=(SIZES[i], 5)) * np.sqrt(SIZES[i])
        noise[row, : SIZES[i]] = torch.as_tensor(values)
    return mask, noise


def gradient(model: nn.Module, indices: list[int]) -> np.ndarray:
    """(2,) the gradient of EDM's own compute_error, a step of training's mean."""
    mask, noise = batch_of(indices)
    begin_step(model, {"atom_mask": mask})
    model.padded_size = loss_size(model, mask)
    output = model.dynamics._forward(None, noise + 1, mask)
    error = model.compute_error(output, None, noise).mean()
    return torch.autograd.grad(error, model.dynamics.weight)[0].numpy()


def mean_gradients(model: nn.Module, pool: int, epochs: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Means over many epochs, and their standard errors, of (whole batch, short batch, parameter)."""
    found = []
    for seed in range(epochs):
        torch.manual_seed(seed)
        steps = np.array([gradient(model, batch) for batch in SizeBucketedBatches(SIZES, BATCH, pool)])
        found.append([steps[:-1].mean(axis=0), steps[-1]])
    draws = np.array(found)
    return draws.mean(axis=0), draws.std(axis=0, ddof=1) / np.sqrt(epochs)


def test_a_step_is_expected_to_have_the_gradient_of_a_shuffled_one(diffusion: nn.Module) -> None:
    shuffled, error = mean_gradients(diffusion, pool=1)  # upstream's loss
    plain, plain_error = mean_gradients(diffusion, pool=5)
    attach_sizes(diffusion, loader(5))
    ours, our_error = mean_gradients(diffusion, pool=5)
    z = np.abs(ours - shuffled) / np.hypot(error, our_error)
    assert z.max() < 4
    # Without the expected sizes whole batches are off, the short one is not.
    control = np.abs(plain - shuffled) / np.hypot(error, plain_error)
    assert control[0].min() > 20
    assert control[1].max() < 4


def training_loss(model: nn.Module, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """EDM's loss of training (B,) and the part of it that no size divides."""
    mask, noise = batch_of(indices)
    x = noise[..., :3] - noise[..., :3].sum(1, keepdim=True) / mask.sum(1, keepdim=True) * mask
    h = {"categorical": noise[..., 3:], "integer": torch.zeros(0, dtype=torch.float64)}
    begin_step(model, {"atom_mask": mask})
    torch.manual_seed(11)
    loss = model(x, h, mask, None, None)
    return loss.detach(), model.kl_prior(torch.cat([x, noise[..., 3:]], dim=2), mask).detach()


def test_training_divides_by_the_expected_size_in_whole_batches_alone(diffusion: nn.Module) -> None:
    whole, short = list(range(BATCH)), [4, 5]
    before = {len(indices): training_loss(diffusion, indices) for indices in (whole, short)}
    keys = list(diffusion.state_dict())
    attach_sizes(diffusion, loader())
    assert list(diffusion.state_dict()) == keys  # nothing is saved that upstream does not know
    loss, kl = training_loss(diffusion, whole)
    table = diffusion.padded_sizes.table.double()
    ratio = table[torch.as_tensor(SIZES[whole])] / SIZES[whole].max()
    assert (ratio - 1).abs().max() > 0.05
    assert torch.allclose((before[BATCH][0] - kl) / (loss - kl), ratio, rtol=1e-6)
    assert torch.equal(training_loss(diffusion, short)[0], before[2][0])


def test_without_batches_of_one_size_nothing_changes(diffusion: nn.Module) -> None:
    before = training_loss(diffusion, [0, 1, 2])[0]
    attach_sizes(diffusion, DataLoader(list(range(45)), BATCH, shuffle=True))
    attach_sizes(diffusion, DataLoader([0, 1], batch_sampler=SizeBucketedBatches(SIZES[:2], BATCH)))  # never whole
    assert torch.equal(training_loss(diffusion, [0, 1, 2])[0], before)
    assert not hasattr(diffusion, "padded_sizes")

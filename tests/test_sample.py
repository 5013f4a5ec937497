"""Sampling from a pretrained model, with a small network in the place of one: batches, memory, progress, divergence."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from symdiff_plugin.common import progress
from symdiff_plugin.evaluate import batch_size as batches
from symdiff_plugin.process.schedule import NoiseSchedule, polynomial_gamma
from symdiff_plugin.sample import pretrained_batch_size, sample_pretrained

SIZES = torch.tensor([3, 6, 2, 5, 6, 4])


class Network(nn.Module):
    """Predicts z; loses molecules of five atoms, and has no memory for more than ``most`` at once from ``since`` on."""

    def __init__(self, most: int = 100, since: int = 0, depends_on_padding: bool = False) -> None:
        super().__init__()
        self.depends_on_padding = depends_on_padding
        self.most, self.since, self.calls = most, since, []

    def _forward(self, t, z, node_mask, edge_mask=None, context=None):
        if len(z) > self.most and len(self.calls) >= self.since:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        assert not torch.is_grad_enabled()
        self.calls.append((t, z, node_mask))
        return torch.where(node_mask.sum(1, keepdim=True) == 5, torch.nan, z)


def pretrained(network: nn.Module, n_features: int = 4) -> SimpleNamespace:
    return SimpleNamespace(
        dynamics=network, schedule=NoiseSchedule(polynomial_gamma(4)), device=torch.device("cpu"), sizes=SIZES,
        atom_types=("H", "C", "O"), n_features=n_features, position_scale=2.0,
        draw_sizes=lambda n: SIZES[:n][torch.randperm(n)],
    )  # fmt: skip


@pytest.fixture
def advances(monkeypatch) -> list:
    """What is said of the progress."""
    found = []

    @contextlib.contextmanager
    def counting(label, total, unit):
        found.append(("total", total))
        yield found.append

    monkeypatch.setattr(progress, "counting", counting)
    return found


def positions(sampled) -> list[np.ndarray]:
    return [molecule.positions for molecule in sampled.molecules]


def test_a_network_that_sees_the_padding_gets_that_of_its_training(advances):
    network = Network(depends_on_padding=True)
    sample_pretrained(pretrained(network), 6, 4)
    assert {z.shape[1] for _, z, _ in network.calls} == {int(SIZES.max())}


def test_molecules_of_the_sizes_drawn_and_the_lost_ones_are_nowhere(advances):
    network = Network()
    found = sample_pretrained(pretrained(network), 6, 4)
    torch.manual_seed(0)
    sizes = SIZES[torch.randperm(6)].tolist()
    assert [len(molecule) for molecule in found.molecules] == sizes != sorted(sizes, reverse=True)
    assert [not molecule.is_finite for molecule in found.molecules] == [size == 5 for size in sizes]
    assert all(np.isnan(molecule.positions).all() for molecule in found.molecules if len(molecule) == 5)
    assert {symbol for molecule in found.molecules for symbol in molecule.symbols} <= {"H", "C", "O"}
    assert {type(molecule.positions) for molecule in found.molecules} == {np.ndarray}
    assert found.batch_sizes == [4, 2]
    assert [z.shape for _, z, _ in network.calls] == [(4, 6, 7)] * 5 + [(2, 3, 7)] * 5
    assert 0 < found.seconds < 60
    assert advances[0] == ("total", 6)
    assert sum(advances[1:]) == pytest.approx(6)
    assert advances[1:] == pytest.approx([4 / 5] * 5 + [2 / 5] * 5)


def test_the_seed_makes_the_molecules():
    found = [positions(sample_pretrained(pretrained(Network()), 6, 3, *seed)) for seed in ((), (0,), (1,))]
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(found[0], found[1], strict=True))
    assert not all(a.shape == b.shape and np.array_equal(a, b) for a, b in zip(found[0], found[2], strict=True))


@pytest.mark.parametrize("since", [0, 3])
def test_too_little_memory_halves_the_batch_and_changes_nothing_else(since, advances, capsys):
    wanted = sample_pretrained(pretrained(Network()), 6, 2)
    advances.clear()
    found = sample_pretrained(pretrained(Network(2, since)), 6, 5)
    assert found.batch_sizes == wanted.batch_sizes == [2, 2, 2]
    for a, b in zip(positions(found), positions(wanted), strict=True):
        np.testing.assert_array_equal(a, b)
    assert sum(advances[1:]) == pytest.approx(6)  # what was lost is taken back
    assert "sampling 2 molecules at once, not 5" in capsys.readouterr().err


def test_the_batch_size_is_tried_on_molecules_of_the_largest_size(monkeypatch):
    network, asked = Network(), []
    monkeypatch.setattr(batches, "fitting", lambda denoise, device: asked.append(device) or denoise(3) or 17)
    assert pretrained_batch_size(pretrained(network)) == 17
    ((t, z, mask),) = network.calls
    assert (t.tolist(), z.shape, mask.shape) == ([[1.0]], (3, 6, 7), (3, 6, 1))
    assert (mask == 1).all()
    assert asked == [torch.device("cpu")]

"""Batches of molecules of one size have the expectation of shuffled ones."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import chain, combinations, pairwise, permutations

import numpy as np
import pytest
import torch

from symdiff_plugin.data.geom import batches as module
from symdiff_plugin.data.geom.batches import SizeBucketedBatches, expected_inverse_size, padding_fraction

SIZES = np.array([3, 9, 4, 4, 7, 12, 5])


def epoch(sizes: np.ndarray, batch_size: int, pool: int, seed: int) -> list[list[int]]:
    torch.manual_seed(seed)
    return list(SizeBucketedBatches(sizes, batch_size, pool))


@pytest.mark.parametrize("n", [1, 7, 64, 65, 200])
@pytest.mark.parametrize("pool", [1, 3, 50])
def test_an_epoch_has_every_molecule_once_in_whole_batches(n: int, pool: int) -> None:
    sizes = np.random.default_rng(0).integers(5, 90, n)
    sampler = SizeBucketedBatches(sizes, 8, pool)
    found = list(sampler)
    assert sorted(chain(*found)) == list(range(n))
    assert [len(batch) for batch in found] == [8] * (n // 8) + [n % 8] * (n % 8 > 0)
    assert len(found) == len(sampler)


def test_whole_batches_are_of_one_size_and_in_no_order() -> None:
    sizes = np.random.default_rng(0).integers(5, 90, 803)
    found = epoch(sizes, 8, 100, 1)
    ranges = [(sizes[batch].min(), sizes[batch].max()) for batch in found[:-1]]
    disjoint = sorted(ranges)
    assert all(a[1] <= b[0] for a, b in pairwise(disjoint))
    assert ranges != disjoint
    assert found != epoch(sizes, 8, 100, 2)
    assert found == epoch(sizes, 8, 100, 1)


def test_an_epoch_takes_one_number_from_torchs_generator_at_its_start() -> None:
    """As torch's own shuffle does: what training draws in between changes nothing, and a restored state repeats."""
    sampler = SizeBucketedBatches(np.arange(5, 60), 8)
    torch.manual_seed(4)
    state = torch.get_rng_state()
    whole = list(sampler)
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    torch.empty((), dtype=torch.int64).random_()
    assert torch.equal(after, torch.get_rng_state())
    torch.set_rng_state(state)
    interrupted = []
    for batch in sampler:
        interrupted.append(batch)
        torch.randn(7)
    assert interrupted == whole


class Permutations:
    """Stands in for torch.randperm: goes through given permutations."""

    def __init__(self, *given: tuple[int, ...]) -> None:
        self.left = list(given)

    def __call__(self, n: int, generator: torch.Generator) -> torch.Tensor:
        order = torch.tensor(self.left.pop(0))
        assert len(order) == n
        return order


def test_each_step_is_expected_to_be_the_mean_of_the_data_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """All 5! orders of five molecules times all 2! of the two whole batches, in fractions."""
    sizes, values = np.array([3, 9, 4, 4, 7]), [Fraction(v) for v in (1, -2, 3, 10, 5)]
    sampler = SizeBucketedBatches(sizes, 2, pool=2)
    totals = [Fraction(0)] * 3
    positions: list[Counter[int]] = [Counter() for _ in range(3)]
    draws = [(a, b) for a in permutations(range(5)) for b in permutations(range(2))]
    for draw in draws:
        monkeypatch.setattr(module.torch, "randperm", Permutations(*draw))
        for step, batch in enumerate(sampler):
            totals[step] += sum(values[i] for i in batch) / len(batch)
            positions[step].update(batch)
    assert [total / len(draws) for total in totals] == [sum(values) / 5] * 3
    assert all(len(set(counter.values())) == 1 and len(counter) == 5 for counter in positions)


def step_means(batches: list[list[int]], values: np.ndarray) -> np.ndarray:
    return np.array([values[batch].mean(axis=0) for batch in batches])


def upstream_order(sizes: np.ndarray, batch_size: int) -> list[list[int]]:
    """EDM's --sequential: ascending sizes, no batch of two sizes."""
    order = np.argsort(sizes, kind="stable")
    runs = np.split(order, np.flatnonzero(np.diff(sizes[order])) + 1)
    return [list(run[i : i + batch_size]) for run in runs for i in range(0, len(run), batch_size)]


def largest_last(sizes: np.ndarray, batch_size: int, seed: int) -> list[list[int]]:
    """Sorted as a whole, so that the short batch has the largest molecules; then shuffled."""
    order = np.argsort(sizes, kind="stable")
    found = [list(order[i : i + batch_size]) for i in range(0, len(order), batch_size)]
    return [found[i] for i in np.random.default_rng(seed).permutation(len(found))]


def gradients(sizes: np.ndarray) -> np.ndarray:
    """(n, 2) float64: the gradient of a linear model's squared error that each molecule gives, by autograd."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(sizes), generator=generator, dtype=torch.float64)
    inputs = torch.stack([torch.as_tensor(sizes, dtype=torch.float64) / 10, x], dim=1)
    weight = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
    targets = torch.sin(inputs[:, 0]) + inputs[:, 0] ** 2
    return np.array(
        [torch.autograd.grad((i @ weight - y) ** 2, weight)[0].numpy() for i, y in zip(inputs, targets, strict=True)]
    )


def z_scores(draws: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """|mean - wanted| in standard errors, of (draws, steps, 2)."""
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    return np.abs(draws.mean(axis=0) - wanted) / np.maximum(error, 1e-12)


def test_each_steps_gradient_is_expected_to_be_the_datas() -> None:
    """Statistically, with a gradient that depends on the size; upstream's order and a short batch of the largest
    molecules are found out by the same test."""
    sizes = np.random.default_rng(1).choice([20, 30, 44, 60, 80], 45)
    each = gradients(sizes)
    wanted = each.mean(axis=0)
    ours = np.array([step_means(epoch(sizes, 8, 3, seed), each) for seed in range(4000)])
    assert ours.shape == (4000, 6, 2)
    assert z_scores(ours, wanted).max() < 4.5
    biased = np.array([step_means(largest_last(sizes, 8, seed), each) for seed in range(4000)])
    assert z_scores(biased, wanted).max() > 6
    first, *_, last = step_means(upstream_order(sizes, 8), each)
    assert np.abs(first - wanted).max() > 0.3 * np.abs(wanted).max() < np.abs(last - wanted).max()


@pytest.mark.parametrize("batch_size", [1, 2, 3, 6, 7])
def test_the_expected_inverse_size_is_that_of_all_batches(batch_size: int) -> None:
    found = expected_inverse_size(SIZES, batch_size)
    for i, size in enumerate(SIZES):
        others = [int(s) for j, s in enumerate(SIZES) if j != i]
        padded = [max([size, *chosen]) for chosen in combinations(others, batch_size - 1)]
        assert found[size] == pytest.approx(np.mean(1 / np.array(padded)), rel=1e-12)
    assert found[6] == pytest.approx(1 / 6)  # of which there is none


def geom_sizes(n: int, edm_path: object) -> np.ndarray:
    from symdiff_plugin.edm import import_edm

    histogram = import_edm("configs.datasets_config").geom_with_h["n_nodes"]
    counts = np.array(list(histogram.values()), dtype=float)
    return np.random.default_rng(0).choice(list(histogram), n, p=counts / counts.sum())


@pytest.mark.edm
def test_padding_on_the_sizes_of_geom(edm_path: object) -> None:
    """What is padding of batches of 64, with EDM's histogram of sizes."""
    sizes = geom_sizes(64 * 400, edm_path)
    shuffled = padding_fraction(sizes, epoch(sizes, 64, 1, 0))
    ours = padding_fraction(sizes, epoch(sizes, 64, module.POOL, 0))
    assert shuffled > 0.3
    assert ours < 0.03


@pytest.mark.edm
def test_without_the_expected_size_small_molecules_would_weigh_more(edm_path: object) -> None:
    """What it is for: the weights of EDM's l2 loss in batches of one size, against those in shuffled ones."""
    sizes = geom_sizes(64 * 200, edm_path)
    expected = expected_inverse_size(sizes, 64)
    draws = np.zeros(len(sizes))
    repeats = 30
    for seed in range(repeats):
        for batch in epoch(sizes, 64, 1, seed):
            draws[batch] += 1 / sizes[batch].max() / repeats
    assert draws[sizes == 44].mean() == pytest.approx(expected[44], rel=0.01)
    assert draws[sizes == 25].mean() == pytest.approx(expected[25], rel=0.02)
    assert expected[25] / expected[60] < 1.05 < 2 < (1 / 25) / (1 / 60)

"""Alignment of noise and data against brute force, and what it does to the law of the noise. float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from symdiff_plugin.model.groups import sample_haar
from symdiff_plugin.process.alignment import align
from symdiff_plugin.process.diffusion import centred_noise, padded_mask

KINDS = ("rotation", "permutation", "both")


def drawn(sizes: list[int], seed: int = 0, length: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    mask = padded_mask(torch.tensor(sizes), torch.float64, length)
    return centred_noise(mask, 4), centred_noise(mask, 4), mask


def cost(a: Tensor, b: Tensor) -> Tensor:
    return (a - b)[..., :3].square().sum((1, 2))


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("by", KINDS)
def test_the_cost_never_rises_and_the_path_gets_shorter(by: str, special: bool) -> None:
    noise, data, mask = drawn([7, 4, 1, 2, 9] * 20)
    found = align(noise, data, mask, by, special)
    before, after = cost(noise, data), cost(found, data)
    assert (after <= before + 1e-12).all()
    many = mask.sum((1, 2)) > 3
    assert after[many].mean() < 0.8 * before[many].mean()


def test_none_is_nothing_and_both_is_no_more_than_either_alone_on_the_mean() -> None:
    noise, data, mask = drawn([6] * 50)
    assert torch.equal(align(noise, data, mask, "none"), noise)
    costs = {by: cost(align(noise, data, mask, by), data) for by in KINDS}
    assert (costs["both"] <= costs["permutation"] + 1e-12).all()
    once = align(align(noise, data, mask, "permutation"), data, mask, "rotation")
    assert (costs["both"] < cost(once, data) - 1e-3).sum() > 10  # the rounds after the first are worth it
    assert costs["both"].mean() < 0.8 * min(costs["rotation"].mean(), costs["permutation"].mean())


def test_permutations_are_brute_forces_best() -> None:
    noise, data, mask = drawn([4] * 20)
    orders = list(itertools.permutations(range(4)))
    every = torch.stack([noise[:, list(order)] for order in orders])
    costs = torch.stack([cost(one, data) for one in every])
    wanted = every[costs.argmin(0), torch.arange(20)]  # with the columns of h
    assert torch.equal(align(noise, data, mask, "permutation"), wanted)
    assert len(set(costs.argmin(0).tolist())) > 5


def test_rotations_are_scipys_and_a_reflection_is_taken_only_where_it_may() -> None:
    noise, data, mask = drawn([4] * 40)
    proper, any_ = (align(noise, data, mask, "rotation", special) for special in (True, False))
    for i in range(40):
        one, other = (Rotation.align_vectors(data[i, :, :3], sign * noise[i, :, :3]) for sign in (1, -1))
        assert cost(proper[i : i + 1], data[i : i + 1]).item() == pytest.approx(one[1] ** 2, abs=1e-9)
        wanted = one[0].apply(noise[i, :, :3].numpy())
        np.testing.assert_allclose(proper[i, :, :3], wanted, atol=1e-6)
        best = min(one[1], other[1])
        assert cost(any_[i : i + 1], data[i : i + 1]).item() == pytest.approx(best**2, abs=1e-9)
    reflected = (cost(any_, data) < cost(proper, data) - 1e-6).sum()
    assert 5 < reflected < 35
    assert torch.equal(proper[..., 3:], noise[..., 3:])


def test_four_atoms_by_both_end_where_nothing_is_better() -> None:
    """Brute force over all 24 orders, each with its best rotation, is never beaten and at times hit."""
    noise, data, mask = drawn([4] * 40)
    orders = list(itertools.permutations(range(4)))
    every = torch.stack([cost(align(noise[:, list(o)], data, mask, "rotation"), data) for o in orders])
    found = cost(align(noise, data, mask, "both"), data)
    best = every.min(0).values
    assert (found >= best - 1e-9).all()
    assert (found < best + 1e-6).sum() >= 4  # a local optimum: chance would hit one in 24, of 40
    mirrored = torch.cat([-data[..., :3], data[..., 3:]], dim=-1)
    torch.testing.assert_close(cost(align(data, data, mask, "both"), data), torch.zeros(40, dtype=torch.float64))
    assert (cost(align(data, mirrored, mask, "rotation"), mirrored) < 1e-9).all()


@pytest.mark.parametrize("by", KINDS)
def test_padding_is_where_it_was_and_atoms_are_counted_by_the_mask(by: str) -> None:
    noise, data, mask = drawn([5, 3, 1], length=8)
    found = align(noise, data, mask, by)
    assert (found * (1 - mask)).abs().max() == 0
    assert found[..., :3].sum(1).abs().max() < 1e-12
    torch.testing.assert_close(found[2], noise[2])  # a lone atom has nothing to be moved to
    for i, n in enumerate((5, 3, 1)):
        alone = align(noise[i : i + 1, :n], data[i : i + 1, :n], mask[i : i + 1, :n], by)
        torch.testing.assert_close(found[i, :n], alone[0], rtol=0, atol=1e-9)
    shifted = torch.tensor([7, 0, 1, 2, 3, 4, 5, 6])  # padding first
    again = align(noise[:, shifted], data[:, shifted], mask[:, shifted], by)
    torch.testing.assert_close(again, found[:, shifted], rtol=0, atol=1e-9)


@pytest.mark.parametrize("by", KINDS)
def test_turned_and_reordered_together_the_result_is_so_too(by: str) -> None:
    """What the law of the noise rests on: align(k x_0, k x_1) = k align(x_0, x_1)."""
    noise, data, mask = drawn([6] * 10)
    Q, order = sample_haar(1, dtype=torch.float64)[0], torch.randperm(6)

    def moved(z: Tensor) -> Tensor:
        return torch.cat([z[..., :3] @ Q, z[..., 3:]], dim=-1)[:, order]

    found = align(moved(noise), moved(data), mask, by)
    torch.testing.assert_close(found, moved(align(noise, data, mask, by)), rtol=0, atol=1e-8)


def test_the_law_of_the_noise_stays_where_the_data_are_invariant_and_not_where_they_are_fixed() -> None:
    count = 6000
    noise, data, mask = drawn([3] * count)
    one = data[:1].expand(count, -1, -1)
    R = sample_haar(count, dtype=torch.float64)
    orders = torch.rand(count, 3).argsort(1)[..., None].expand(-1, -1, 7)
    invariant = torch.cat([one[..., :3] @ R, one[..., 3:]], dim=-1).gather(1, orders)

    def off(x_1: Tensor) -> float:
        """The largest z-score of the first and second moments of the aligned noise."""
        x = align(noise, x_1, mask, "both")[..., :3].flatten(1)
        second = torch.einsum("bi,bj->bij", x, x)
        eye = torch.eye(3, dtype=torch.float64)
        wanted = torch.kron(eye - 1 / 3, eye)
        z_first = x.mean(0) / (x.std(0) / count**0.5)
        z_second = (second.mean(0) - wanted) / (second.std(0) / count**0.5)
        return max(z_first.abs().max().item(), z_second.abs().max().item())

    assert off(invariant) < 4.5
    assert off(one) > 20


def test_nothing_is_drawn_and_the_type_is_kept() -> None:
    noise, data, mask = drawn([5, 3])
    torch.manual_seed(1)
    found = align(noise.float(), data.float(), mask.float(), "both")
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    assert found.dtype == torch.float32

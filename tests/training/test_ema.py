"""The moving average against upstream's formula, to the last bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from symdiff_plugin.training import ema
from symdiff_plugin.training.ema import update_average

BETA = 0.9999


def make_model(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 30), nn.BatchNorm1d(30), nn.Linear(30, 1), nn.Linear(1, 3)).to(dtype)
    model.gamma = nn.Parameter(torch.randn(501, dtype=dtype), requires_grad=False)  # as EDM's noise schedule
    return model


def disturb(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("chunk", "foreach"), [(1, True), (700, True), (1 << 20, True), (700, False)])
def test_many_updates_are_upstreams_to_the_last_bit(
    chunk: int, foreach: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``foreach``: whether PyTorch has its private functions for many tensors at a time."""
    monkeypatch.setattr(ema, "_CHUNK", chunk)
    if not foreach:
        for name in ("_foreach_mul", "_foreach_mul_", "_foreach_add_"):
            monkeypatch.delattr(torch, name)
    model = make_model(dtype)
    average = copy.deepcopy(model)
    expected = [parameter.detach().clone() for parameter in average.parameters()]
    places = [parameter.data_ptr() for parameter in average.parameters()]
    for _ in range(20):
        disturb(model)
        update_average(average, model, BETA)
        expected = [
            old * BETA + (1 - BETA) * new.detach()  # EDM's EMA.update_average
            for old, new in zip(expected, model.parameters(), strict=True)
        ]
    assert all(torch.equal(a, b) for a, b in zip(average.parameters(), expected, strict=True))
    assert [parameter.data_ptr() for parameter in average.parameters()] == places


def test_the_test_would_notice_a_fused_multiply_add() -> None:
    old, new = make_model()[0].weight.detach(), torch.randn(30, 40)
    assert not torch.equal(old.lerp(new, 1 - BETA), old * BETA + (1 - BETA) * new)


def test_the_model_and_the_buffers_are_left_alone() -> None:
    model = make_model()
    average = copy.deepcopy(model)
    disturb(model)
    model[1].running_mean += 1
    before = copy.deepcopy(model)
    update_average(average, model, BETA)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))
    assert torch.equal(average[1].running_mean, torch.zeros(30))
    assert [p.requires_grad for p in average.parameters()] == [p.requires_grad for p in model.parameters()]


def test_a_model_without_parameters_is_no_error() -> None:
    update_average(nn.Identity(), nn.Identity(), BETA)


def test_what_was_frozen_is_left_alone_to_the_last_bit() -> None:
    model = make_model()
    average = copy.deepcopy(model)
    model.frozen_parameters = frozenset({"0.weight"})
    disturb(model)
    before = copy.deepcopy(average)
    update_average(average, model, BETA)
    assert torch.equal(average[0].weight, before[0].weight)
    assert not torch.equal(average[0].bias, before[0].bias)


def test_chunks_hold_as_much_as_they_may_and_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ema, "_CHUNK", 10)
    sizes = [4, 6, 1, 20, 3, 10, 5, 5, 5]
    averages, currents = ([torch.full((size,), float(sign * size)) for size in sizes] for sign in (1, -1))
    chunks = list(ema._chunks(averages, currents))
    assert [[len(tensor) for tensor in chunk] for chunk, _ in chunks] == [[4, 6], [1], [20], [3], [10], [5, 5], [5]]
    assert all(torch.equal(a, -b) for pair in chunks for a, b in zip(*pair, strict=True))

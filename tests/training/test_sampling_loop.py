"""What a network learns from EDM's sampling loops: one time for all, and when nothing else changes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from symdiff_plugin.edm import import_edm
from symdiff_plugin.evaluate.sampling import guarded
from symdiff_plugin.training.debug_checks import enable_checks

pytestmark = pytest.mark.edm

STEPS = 8


class Recorder(nn.Module):
    """A network that predicts no noise, or NaN, and writes down the times and how often it is told of a sampling."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.value = value
        self.times: list[torch.Tensor] = []
        self.depth = self.entered = 0

    @contextlib.contextmanager
    def sampling(self) -> Iterator[None]:
        self.depth, self.entered = self.depth + 1, self.entered + 1
        try:
            yield
        finally:
            self.depth -= 1

    def _forward(self, t, xh, node_mask, edge_mask, context):
        assert (self.depth, self.training) == (1, False)  # without dropout
        self.times.append(t)
        if self.value == float("inf"):
            raise RuntimeError("no memory")
        return torch.full_like(xh, self.value) * node_mask


def diffusion(network: nn.Module) -> nn.Module:
    return import_edm("equivariant_diffusion.en_diffusion").EnVariationalDiffusion(
        network, 6, 3, STEPS, noise_schedule="polynomial_2", loss_type="l2", norm_values=(1, 4, 10)
    )


MASK = torch.tensor([[1.0, 1, 1], [1, 1, 0]])[..., None]
WAYS = pytest.mark.parametrize("way", ["sample", "sample_chain"])


@WAYS
@pytest.mark.parametrize("in_evaluation", [False, True])
def test_the_network_is_told_of_a_sampling(way: str, in_evaluation: bool) -> None:
    network = Recorder()
    model = diffusion(network)
    with guarded(model, lambda: None) if in_evaluation else contextlib.nullcontext():
        getattr(model, way)(2, 3, MASK, None, None)
    assert (network.entered, network.depth, len(network.times)) == (1, 0, STEPS + 1)


@WAYS
@pytest.mark.parametrize("fails", [False, True])
def test_each_part_is_in_its_mode_again_afterwards(way: str, fails: bool) -> None:
    model = diffusion(Recorder(float("inf") if fails else 0.0)).train()
    model.gamma.eval()
    before = [module.training for module in model.modules()]
    with pytest.raises(RuntimeError) if fails else contextlib.nullcontext():
        getattr(model, way)(2, 3, MASK, None, None)
    assert [module.training for module in model.modules()] == before


@WAYS
def test_and_of_its_end_when_it_fails(way: str) -> None:
    network = Recorder(float("inf"))
    with pytest.raises(RuntimeError, match="no memory"):
        getattr(diffusion(network), way)(2, 3, MASK, None, None)
    assert (network.entered, network.depth) == (1, 0)


@WAYS
def test_a_steps_time_is_one_number(way: str) -> None:
    network = Recorder()
    getattr(diffusion(network), way)(2, 3, MASK, None, None)
    assert all(t.shape == (2, 1) and t.stride(0) == 0 for t in network.times)
    expected = [torch.full((2, 1), s) / STEPS for s in range(STEPS, -1, -1)]
    assert all(torch.equal(t, e) for t, e in zip(network.times, expected, strict=True))


def test_elsewhere_each_molecule_has_its_own_time() -> None:
    model = diffusion(Recorder())
    model.sample(2, 3, MASK, None, None)
    model.dynamics.depth, model.dynamics.training, t = 1, False, torch.rand(2, 1)
    model.phi(torch.zeros(2, 3, 9), t, MASK, None, None)
    assert model.dynamics.times[-1] is t


def test_samples_that_are_not_finite_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    x, _ = diffusion(Recorder(float("nan"))).sample(2, 3, MASK, None, None)
    assert x[0].isnan().any()
    assert "cog drift with error nan" in capsys.readouterr().out


def test_with_checks_they_stop_the_run() -> None:
    enable_checks()
    try:
        with pytest.raises(AssertionError):
            diffusion(Recorder(float("nan"))).sample(2, 3, MASK, None, None)
    finally:
        enable_checks(False)


@pytest.mark.parametrize("checks", [False, True])
def test_the_evaluation_notes_them_with_and_without_checks(checks: bool) -> None:
    enable_checks(checks)
    try:
        model = diffusion(Recorder(float("nan")))
        with guarded(model, lambda: None) as dynamics:
            x, _ = model.sample(2, 3, MASK, None, None)
    finally:
        enable_checks(False)
    assert dynamics.diverged.tolist() == [True, True]
    assert x.isfinite().all()

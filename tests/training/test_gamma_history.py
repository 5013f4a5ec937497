"""The figures of gamma in a run's history."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from molecules import qm9_batch, randomise

from symdiff_plugin import build_dynamics
from symdiff_plugin.training.gamma_history import COLLAPSED_AFTER, GammaHistory
from symdiff_plugin.training.history import HISTORY, TRAIN_LOSS, History

FIGURES = {"gamma_draws", "gamma_molecules", "gamma_raw_scale", "gamma_raw_condition", "gamma_gradient_share"}


def trained_a_step(name: str = "symdiff_tiny") -> tuple[torch.nn.Module, GammaHistory]:
    torch.manual_seed(0)
    model = randomise(build_dynamics(name, 6))
    gamma = GammaHistory(model)
    t, xh, mask = (tensor.float() for tensor in qm9_batch())
    model(t, xh, mask).square().sum().backward()
    return model, gamma


def test_the_share_is_that_of_the_gradient_and_nothing_random_is_used() -> None:
    model, gamma = trained_a_step()
    before = torch.get_rng_state()
    found = gamma(7)
    assert torch.equal(torch.get_rng_state(), before)
    assert set(found) == FIGURES
    total = torch.cat([p.grad.double().flatten() for p in model.parameters()]).norm()
    part = torch.cat([p.grad.double().flatten() for p in model.f_theta.parameters()]).norm()
    assert part > 0
    assert found["gamma_gradient_share"] == pytest.approx((part / total).item(), rel=1e-4)
    assert gamma(7) == found
    assert gamma(8)["gamma_draws"] != found["gamma_draws"]


def test_a_call_in_evaluation_is_not_looked_at() -> None:
    model, gamma = trained_a_step()
    found = gamma(7)
    t, xh, mask = (tensor.float() for tensor in qm9_batch(seed=3))
    model.eval()
    model(t, xh, mask)
    assert gamma(7) == found
    model.train()
    model(t, xh, mask)
    assert gamma(7) != found


@pytest.mark.parametrize("name", ["symdiff_h_tiny", "dit_tiny"])
def test_a_model_without_f_theta_has_none(name: str) -> None:
    assert trained_a_step(name)[1](7) == {}
    assert GammaHistory(torch.nn.Linear(2, 2))(7) == {}


def test_a_gamma_that_has_collapsed_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    model, gamma = trained_a_step()
    gamma(COLLAPSED_AFTER)
    with torch.no_grad():
        model.f_theta.fc2.bias.copy_(torch.eye(3).flatten())
        model.f_theta.fc2.weight.mul_(1e-4)
    gamma(COLLAPSED_AFTER - 1)
    assert capsys.readouterr().out == ""
    gamma(COLLAPSED_AFTER)
    said = capsys.readouterr().out
    assert said.startswith(f"gamma is constant at step {COLLAPSED_AFTER}")
    assert "--f_theta_lr" in said
    gamma(COLLAPSED_AFTER + 1)
    assert capsys.readouterr().out == ""


def test_they_are_in_the_lines_that_are_due_and_in_the_epochs(tmp_path: Path) -> None:
    history = History(tmp_path, every=2, more=lambda step: {"gamma_draws": float(step)})
    for _ in range(5):
        history({"Batch NLL": 1.0})
    history({"Train Epoch NLL": 1.0})
    history.end_epoch()
    steps = [json.loads(line) for line in (tmp_path / TRAIN_LOSS).read_text().splitlines()]
    assert [(row["step"], row["gamma_draws"]) for row in steps] == [(2, 2.0), (4, 4.0), (5, 5.0)]
    (epoch,) = [json.loads(line) for line in (tmp_path / HISTORY).read_text().splitlines()]
    assert epoch["gamma_draws"] == 5.0

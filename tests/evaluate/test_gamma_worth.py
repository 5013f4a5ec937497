"""What gamma is worth in a trained run, held against EDM's own loss and networks made for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from symdiff_plugin.evaluate.__main__ import main
from symdiff_plugin.evaluate.gamma_worth import gamma_lines, gamma_worth
from symdiff_plugin.evaluate.likelihood import batch_inputs, partition_loader
from symdiff_plugin.evaluate.trained_run import TrainedRun, load_run
from symdiff_plugin.training.arguments import seed_everything

pytestmark = pytest.mark.edm


@pytest.fixture
def run(copied: Path) -> TrainedRun:
    """A tiny run whose f_theta turns, and whose output is not the zero of its start."""
    found = load_run(copied)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in found.model.dynamics.named_parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if "f_theta" in name else 0.1))
    return found


def worth(run: TrainedRun) -> dict:
    return gamma_worth(run, "val", 60, 20, seed=4)


def test_the_loss_is_edms_in_training(run: TrainedRun) -> None:
    found = worth(run)
    seed_everything(4)
    run.model.train()
    values = []
    with torch.no_grad():
        for data in partition_loader(run, "val", 60, 20):
            x, h, node_mask, edge_mask, context = batch_inputs(run, data)
            values.append(run.model(x, h, node_mask, edge_mask.view(len(x), -1), context))
    run.model.eval()
    assert found["loss"] == pytest.approx(torch.cat(values).double().mean().item(), rel=1e-9)
    assert found["loss_molecules"] == found["of_molecules"] == 60
    assert found["kind"] == "stochastic"
    assert worth(run) == found  # and nothing of the model has changed


def test_what_a_constant_f_is_worth_in_law(run: TrainedRun) -> None:
    """It costs nothing to replace a constant by itself, and something to replace what is none."""
    alive = worth(run)
    assert abs(alive["cost_f_constant"]) > 1e-5
    assert alive["cost_R_identity_standard_error"] > 0
    with torch.no_grad():
        run.model.dynamics.f_theta.fc2.weight.zero_()
    dead = worth(run)
    assert dead["kind"] == "constant"
    assert abs(dead["cost_f_constant"]) < 1e-6
    assert abs(dead["cost_f_identity"]) > 1e-5  # other draws of R, molecule by molecule
    assert dead["draws"] < 1e-2
    assert gamma_lines(dead)[0][1].startswith("constant: this is SymDiff-H")


def test_a_model_without_symmetrisation_has_none(run: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.model, "dynamics", torch.nn.Linear(1, 1))
    assert worth(run) is None
    assert gamma_lines({}) == []


def test_the_command_says_what_gamma_is(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(copied), "--n_samples", "2", "--batch_size", "15", "--nll_molecules", "30"]) == 0
    gamma = json.loads((copied / "metrics.json").read_text())["gamma"]
    assert gamma["kind"] in ("constant", "deterministic", "stochastic")
    assert gamma["loss_molecules"] == 30
    assert {"cost_f_identity", "cost_f_constant", "cost_R_identity"} <= set(gamma)
    text = capsys.readouterr().out
    assert f"  {gamma['kind']}" in text
    assert "Loss with R = I: not symmetrised" in text
    assert main([str(copied), "--n_samples", "2", "--batch_size", "15", "--nll_molecules", "0"]) == 0
    assert "gamma" not in json.loads((copied / "metrics.json").read_text())

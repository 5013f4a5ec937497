"""Score and flow matching from EDM's training script to molecules: resumed, evaluated, exported, sampled, reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from runs import SHORT, TINY, Workplace, equal

from symdiff_plugin import sample
from symdiff_plugin.evaluate.__main__ import main
from symdiff_plugin.evaluate.likelihood import negative_log_likelihood
from symdiff_plugin.evaluate.trained_run import load_run
from symdiff_plugin.pretrained import load
from symdiff_plugin.pretrained.export import export
from symdiff_plugin.process.flow_path import FlowPath
from symdiff_plugin.process.sampler import Sampler
from symdiff_plugin.report.__main__ import main as report

pytestmark = pytest.mark.edm

assert SHORT[:2] == ("--diffusion_steps", "8")
TINY_SYMDIFF = ("--model", "symdiff", *TINY, "--seed", 1)
FLOW = (*SHORT[2:], "--probabilistic_model", "flow_matching", "--sampling_steps", 4)


@pytest.fixture(scope="module")
def flow(workplace: Workplace, qm9_slice: Path) -> Path:
    """Two epochs of a tiny SymDiff. Not to be written to, save by its evaluation."""
    workplace.run("main_qm9.py", *TINY_SYMDIFF, *FLOW, "--datadir", qm9_slice, "--exp_name", "flow")
    return workplace.output("flow")


@pytest.fixture(scope="module")
def score(workplace: Workplace, qm9_slice: Path) -> Path:
    """One epoch of a tiny SymDiff."""
    more = ("--probabilistic_model", "score_matching", "--n_epochs", 1, "--sampling_steps", 4)
    workplace.run("main_qm9.py", *TINY_SYMDIFF, *SHORT, *more, "--datadir", qm9_slice, "--exp_name", "score")
    return workplace.output("score")


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def evaluated(folder: Path, *flags: object) -> dict:
    assert main([str(word) for word in (folder, "--n_samples", 4, *flags)]) == 0
    return json.loads((folder / "metrics.json").read_text())


def names(record: object) -> set[str]:
    """All keys of a record, whatever is inside what."""
    if isinstance(record, dict):
        return set(record) | set().union(*map(names, record.values()), set())
    return set().union(*map(names, record), set()) if isinstance(record, list) else set()


def test_the_history_of_a_flow_has_losses_and_no_nll(flow: Path) -> None:
    history = rows(flow)
    assert all(0.5 < row["val_loss"] < 4 and 0.5 < row["test_loss"] < 4 for row in history)  # without log p(N), 3 nats
    assert not [name for row in history for name in row if "nll" in name]


def test_a_flow_goes_on_to_the_last_bit(flow: Path, workplace: Workplace, qm9_slice: Path) -> None:
    half = ("--n_epochs", 1, "--exp_name", "half", "--datadir", qm9_slice)
    workplace.run("main_qm9.py", *TINY_SYMDIFF, *FLOW, *half)
    workplace.run("main_qm9.py", "--resume", "outputs/half", "--n_epochs", 2, "--no_wandb", "--datadir", qm9_slice)
    found, wanted = (
        torch.load(folder / "checkpoint.pt", weights_only=False) for folder in (workplace.output("half"), flow)
    )
    for part in ("epoch", "model", "model_ema", "optim", "best_nll", "rng"):
        assert equal(found[part], wanted[part]), part
    assert rows(workplace.output("half"))[1]["val_loss"] == rows(flow)[1]["val_loss"]


def test_an_evaluation_of_a_flow_has_no_nll(flow: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = evaluated(flow)
    said = capsys.readouterr().out
    assert "has no likelihood: the NLL is left out" in said
    assert "euler, 4 calls (time grid" in said
    assert not [name for name in names(record) - {"nll_molecules", "nll_draws"} if "nll" in name]
    assert record["probabilistic_model"] == "flow_matching"
    assert record["settings"]["nll_molecules"] == 0
    assert "NLL" not in said.replace("the NLL is left out", "")


@pytest.mark.parametrize("flags", [("--nll_draws", 2), ("--nll_molecules", 5)])
def test_a_likelihood_that_is_asked_for_is_refused(
    flags: tuple, flow: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(word) for word in (flow, "--n_samples", 4, *flags)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "flow matching draws R in every step and has no likelihood: leave out --nll_molecules" in line


def test_a_flow_is_sampled_otherwise_and_not_by_what_it_has_not(flow: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = evaluated(flow, "--sampler", "sde-dpm++", "--sampling_steps", 3)
    wanted = Sampler("sde-dpm++", 3, "time", 1.0, 0, "flow_matching")
    assert Sampler.of(record, 1000) == load_run(flow, sampling=wanted.record()).sampler == wanted
    assert main([str(flow), "--sampler", "ancestral"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("--sampler of flow_matching is one of euler, midpoint, heun, sde-dpm++, dpm++, not ancestral")


def test_what_edm_trained_with_is_the_regression_loss(flow: Path) -> None:
    run = load_run(flow)
    assert type(run.model).__name__ == "FlowMatching"
    with pytest.raises(ValueError, match="has no likelihood"):
        negative_log_likelihood(run, "test", 4)


def test_a_flow_is_exported_loaded_and_sampled(flow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(flow, "tiny-flow", tmp_path)
    model = load("tiny-flow", folder=tmp_path)
    assert model.schedule == FlowPath(1e-4)
    assert "nll" not in " ".join(model.card["training"])
    for flags, words in (
        ((), "euler, 50 calls (time grid, eta 0)"),
        (("--sampler", "heun", "--sampling_steps", "4"), "heun, 4 calls (time grid, eta 0)"),
    ):
        assert sample.main([str(flow), "--n_samples", "3", "--out", str(tmp_path / "out"), *flags]) == 0
        assert words in capsys.readouterr().out
    assert json.loads((tmp_path / "out/summary.json").read_text())["probabilistic_model"] == "flow_matching"
    first = (tmp_path / "out/molecules.xyz").read_text()
    heun = {"probabilistic_model": "flow_matching", "sampler": "heun", "sampling_steps": 4}
    again = sample.sample_pretrained(model, 3, 100, 0, Sampler.of(heun, 0))
    assert f"{again.molecules[0].positions[0][0]:.4f}" in first


def test_score_matching_has_edms_nll_and_is_exported(
    score: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert all(row["val_nll"] > 10 > row["train_loss"] for row in rows(score))
    args = json.loads((score / "config.json").read_text())["args"]
    assert (args["score_weighting"], args["sampler"], args["flow_sigma"]) == ("sigma2", "sde-dpm++", None)
    record = evaluated(score, "--nll_molecules", 8)
    assert record["test_nll"] > 10
    assert record["probabilistic_model"] == "score_matching"
    assert "sde-dpm++, 4 calls (logsnr grid, eta 1)" in capsys.readouterr().out
    assert evaluated(score, "--nll_molecules", 4, "--nll_draws", 2)["test_nll_gain"] >= 0
    export(score, "tiny-score", tmp_path)
    assert load("tiny-score", folder=tmp_path).card["score_weighting"] == "sigma2"
    assert sample.main([str(score), "--n_samples", "3", "--out", str(tmp_path / "out")]) == 0


def test_edms_egnn_conditional(workplace: Workplace, qm9_slice: Path) -> None:
    egnn = ("--model", "egnn_dynamics", "--nf", 16, "--n_layers", 1, "--normalize_factors", "[1,4,10]")
    of = ("--conditioning", "alpha", "--n_epochs", 1, "--n_report_steps", 100)
    said = workplace.run("main_qm9.py", *egnn, *FLOW, *of, "--datadir", qm9_slice, "--exp_name", "alpha_flow")
    assert "has no likelihood: what is printed as NLL below is its loss" in said
    folder = workplace.output("alpha_flow")
    assert evaluated(folder)["model"] == "egnn_dynamics"
    assert "molecule_stability" in evaluated(folder, "--sampler", "midpoint")


def test_a_report_of_both(flow: Path, score: Path, tmp_path: Path) -> None:
    evaluated(flow)
    evaluated(score, "--nll_molecules", 4)
    assert report([str(flow), str(score), "--out", str(tmp_path)]) == 0
    assert any(tmp_path.iterdir())

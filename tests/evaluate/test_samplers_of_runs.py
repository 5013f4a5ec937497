"""--sampler and its kin in training, in the evaluation and in EDM's own scripts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from runs import SHORT, Workplace

from symdiff_plugin.evaluate.__main__ import main
from symdiff_plugin.evaluate.trained_run import load_run
from symdiff_plugin.process.sampler import Sampler

pytestmark = pytest.mark.edm

TINY_EGNN = ("--model", "egnn_dynamics", "--nf", 16, "--n_layers", 1)
HEUN = ("--sampler", "heun", "--sampling_steps", 4)


@pytest.fixture(scope="module")
def egnn(workplace: Workplace, qm9_slice: Path) -> Path:
    """An EGNN whose samples are drawn in four calls, chains and sweeps as well."""
    flags = (*TINY_EGNN, *SHORT, *HEUN, "--n_epochs", 1, "--normalize_factors", "[1,4,10]", "--n_report_steps", 100)
    property_of = ("--conditioning", "alpha", "--visualize_every_batch", 2)
    workplace.run("main_qm9.py", *flags, *property_of, "--exp_name", "heun", "--datadir", qm9_slice, "--seed", 1)
    return workplace.output("heun")


def evaluated(folder: Path, *flags: object) -> dict:
    given = [folder, "--n_samples", 4, "--nll_molecules", 0, *flags]
    assert main([str(word) for word in given]) == 0
    return json.loads((folder / "metrics.json").read_text())


def of(record: dict) -> Sampler:
    return Sampler.of(record, 8)


def test_a_run_records_its_sampler_and_is_evaluated_by_it(egnn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = json.loads((egnn / "config.json").read_text())["args"]
    assert of(args) == Sampler("heun", 4, "logsnr", 0.0)
    assert list(egnn.glob("epoch_0_*/chain/*.png"))  # EDM's animation, of two frames
    record = evaluated(egnn)
    assert of(record) == Sampler("heun", 4, "logsnr", 0.0)
    assert "heun, 4 calls (logsnr grid, eta 0)" in capsys.readouterr().out
    assert type(load_run(egnn).model).__name__.startswith("EnVariationalDiffusion[heun")


def test_the_evaluation_may_sample_otherwise(copied: Path) -> None:
    usual = evaluated(copied)
    assert of(usual) == Sampler("ancestral", 8, "time", 1.0)
    assert type(load_run(copied).model).__name__ == "EnVariationalDiffusion"  # EDM's own class
    other = evaluated(copied, "--sampler", "sde-dpm++", "--sampling_steps", 3, "--stochasticity", 0.5)
    assert of(other) == Sampler("sde-dpm++", 3, "logsnr", 0.5)
    assert other["settings"]["sampler"] == "sde-dpm++"
    assert "sampler" not in usual["settings"]  # a kept run from before there was a choice is still the same


def test_several_runs_by_another_sampler(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = ("--runs", 2, "--batch_size", 4)
    record = evaluated(copied, *two, "--sampler", "ddim", "--sampling_steps", 3)
    assert not set(record["std"]) & set(Sampler.of({}, 8).record())
    assert record["stochasticity"] == 0.0
    evaluated(copied, *two, "--sampler", "ddim", "--sampling_steps", 3)
    assert capsys.readouterr().out.count("reused from") == 2
    evaluated(copied, *two, "--sampler", "ddim", "--sampling_steps", 4)
    assert capsys.readouterr().out.count("has sampling_steps 3, not 4") == 2
    evaluated(copied, *two)
    assert capsys.readouterr().out.count("has sampler ddim, not None") == 2


def test_what_cannot_be_is_one_line(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(copied.iterdir())
    assert main([str(copied), "--sampler", "heun", "--sampling_steps", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--sampling_steps must be at least 2 with --sampler heun" in line
    assert sorted(copied.iterdir()) == before


@pytest.mark.parametrize(
    ("script", "way", "words"),
    [
        ("eval_analyze.py", (), "ancestral, 8 calls (time grid"),
        ("eval_analyze.py", ("--step_grid", "karras"), "ancestral, 8 calls (karras grid"),
        ("eval_sample.py", ("--sampler", "ddim", "--sampling_steps", 3, "--n_chains", 0), "ddim, 3 calls (logsnr grid"),
    ],
)
def test_edms_scripts_sample_as_they_are_told(
    script: str, way: tuple, words: str, workplace: Workplace, trained: str
) -> None:
    assert words in workplace.run(script, "--model_path", f"outputs/{trained}", "--n_samples", 2, *way)


def test_edms_scripts_refuse_what_cannot_be(workplace: Workplace, trained: str) -> None:
    flags = ("--model_path", f"outputs/{trained}", "--sampler", "ddim", "--stochasticity", 1.5)
    done = workplace.start("eval_analyze.py", *flags)
    assert done.returncode == 2
    assert re.search(r"^error: --stochasticity of --sampler ddim is from 0 to 1, not 1.5$", done.stderr, re.M)

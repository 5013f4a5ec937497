"""A folder of the authors' release, as it is downloaded: evaluated, sampled, exported, and read by EDM's scripts."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import Workplace

from symdiff_plugin import sample
from symdiff_plugin.evaluate import __main__ as evaluate
from symdiff_plugin.evaluate.sampling import sample_molecules
from symdiff_plugin.evaluate.trained_run import load_run
from symdiff_plugin.molecules.molecule import read_xyz
from symdiff_plugin.pretrained import __main__ as pretrained
from symdiff_plugin.pretrained import load
from symdiff_plugin.process.sampler import FAST, Sampler

pytestmark = pytest.mark.edm

RUNS = Path(__file__).parents[1] / "files" / "release_run"
NAMES = {"symdiff": "release", "symdiff_fix_qr": "release_fix_qr", "dit": "release"}


@pytest.fixture(params=NAMES)
def downloaded(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(RUNS / request.param, tmp_path / request.param))


def change(folder: Path, **values: object) -> None:
    with (folder / "args.pickle").open("rb") as file:
        args = pickle.load(file)
    (folder / "args.pickle").write_bytes(pickle.dumps(argparse.Namespace(**{**vars(args), **values})))


def test_evaluate_recognises_and_evaluates_it(downloaded: Path, qm9_slice: Path, capsys) -> None:
    flags = [str(downloaded), "--n_samples", "4", "--nll_molecules", "8", "--datadir", str(qm9_slice)]
    assert evaluate.main(flags) == 0
    printed = capsys.readouterr().out
    assert f"recognised {'DiT' if downloaded.name == 'dit' else 'SymDiff'} of the authors' release" in printed
    metrics = json.loads((downloaded / "metrics.json").read_text())
    assert f"--symdiff_compat {NAMES[downloaded.name]}" in metrics["recognised"]
    assert metrics["test_nll_molecules"] == 8
    assert metrics["n_samples"] == 4


def test_sample_and_export_take_it_too(downloaded: Path, tmp_path: Path, capsys) -> None:
    out, folder = tmp_path / "samples", tmp_path / "pretrained"
    assert sample.main([str(downloaded), "--n_samples", "3", "--out", str(out), "--seed", "3"]) == 0
    assert "of the authors' release" in json.loads((out / "summary.json").read_text())["recognised"]
    name = downloaded.name.replace("_", "-")
    assert pretrained.main(["export", str(downloaded), "--name", name, "--folder", str(folder)]) == 0
    model = load(name, folder=folder)
    assert model.dynamics.architecture.compat == NAMES[downloaded.name]
    # The exported model is the one sampled above.
    sampler = Sampler.of({"sampler": FAST}, model.schedule.steps)
    drawn = sample.sample_pretrained(model, 3, 3, seed=3, sampler=sampler).molecules
    for one, sampled in zip(drawn, read_xyz(out / "molecules.xyz")[0], strict=True):
        assert one.symbols == sampled.symbols
        np.testing.assert_allclose(one.positions, sampled.positions, rtol=0, atol=1e-3)


def test_its_samples_are_padded_as_in_its_training(qm9_slice: Path, tmp_path: Path, monkeypatch) -> None:
    """Its outputs depend on the padding; EDM's sampler pads to 29 atoms, ours to the largest of a batch."""
    folder = Path(shutil.copytree(RUNS / "symdiff", tmp_path / "run"))
    run = load_run(folder, datadir=qm9_slice, device="cpu")
    seen: list[int] = []
    forward = type(run.model.dynamics)._forward
    monkeypatch.setattr(
        type(run.model.dynamics), "_forward",
        lambda self, t, xh, *rest: (seen.append(xh.shape[1]), forward(self, t, xh, *rest))[1],
    )  # fmt: skip
    torch.manual_seed(0)
    molecules = sample_molecules(run, 3, 3).molecules
    assert max(map(len, molecules)) < 29
    assert set(seen) == {29}


@pytest.mark.parametrize("script", ["eval_analyze.py", "eval_sample.py"])
def test_edms_scripts_read_it(workplace: Workplace, qm9_slice: Path, script: str) -> None:
    folder = Path(shutil.copytree(RUNS / "dit", workplace.output("released_dit"), dirs_exist_ok=True))
    change(folder, datadir=str(qm9_slice), diffusion_steps=50)
    more = ("--n_chains", 0) if script == "eval_sample.py" else ()
    printed = workplace.run(script, "--model_path", "outputs/released_dit", "--n_samples", 2, *more)
    assert "recognised DiT of the authors' release" in printed
    assert script == "eval_sample.py" or re.search(r"Final test nll -?\d", printed)


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize(
    ("script", "flag"),
    [
        ("eval_analyze.py", "--model_path"),
        ("eval_sample.py", "--model_path"),
        ("eval_conditional_qm9.py", "--generators_path"),
        ("eval_conditional_qm9.py", "--classifiers_path"),
    ],
)
def test_edms_scripts_run_nothing_of_args_pickle(workplace: Workplace, tmp_path: Path, script: str, flag: str) -> None:
    trace = tmp_path / "trace"
    (tmp_path / "args.pickle").write_bytes(pickle.dumps(argparse.Namespace(model=Evil(trace))))
    task = ("--task", "edm") if flag == "--classifiers_path" else ()
    done = workplace.start(script, flag, tmp_path, *task)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "nothing of it was run" in done.stderr
    assert not trace.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("eval_analyze.py", "--model_path", "outputs/none"), "outputs/none/args.pickle cannot be read"),
        (("eval_analyze.py", "--model_path", "outputs/symdiff", "--n_samples", 0), "--n_samples must be a whole"),
        (("eval_analyze.py", "--model_path", "outputs/symdiff", "--samples", 5), "unrecognized arguments: --samples"),
        (("eval_analyze.py", "--save_to_xyz", "exit(7)"), "--save_to_xyz must be True or False"),
        (("eval_sample.py", "--model_path", "outputs/symdiff", "--n_nodes", 0), "--n_nodes must be a whole"),
        (("eval_conditional_qm9.py", "--generators_path", "outputs/symdiff"), "symdiff is no conditional model"),
        (("eval_conditional_qm9.py", "--iterations", 0, "--task", "edm"), "--iterations must be a whole number from 1"),
    ],
)
def test_mistakes_given_to_edms_scripts_are_one_line(workplace: Workplace, trained: str, flags, message) -> None:
    done = workplace.start(*flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, capsys) -> None:
    assert evaluate.main([str(tmp_path)]) == 2
    assert "neither config.json nor args.pickle" in capsys.readouterr().err

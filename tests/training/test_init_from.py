"""Finetuning a trained DiT inside SymDiff (Appendix C.4): what is taken over, what is trained, what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from edm_flags import refused
from runs import SHORT, TINY, Workplace
from torch import Tensor

from symdiff_plugin import hooks
from symdiff_plugin.evaluate.trained_run import load_run

pytestmark = pytest.mark.edm

EMA = "generative_model_ema.npy"
# A short average and a large step, so that a few steps show in every weight.
OF_DIT = (*TINY[:10], *SHORT, "--ema_decay", "0.9", "--lr", "1e-2", "--n_epochs", "1")
FLAGS = (*TINY[10:], *OF_DIT)


def sizes(model: str) -> tuple[str, ...]:
    """Those of f_theta are refused for a plain DiT."""
    return TINY[:10] if model == "dit" else TINY


def weights(folder: Path, name: str = EMA) -> dict[str, Tensor]:
    return torch.load(folder / name, weights_only=True)


def is_f_theta(name: str) -> bool:
    return name.startswith("dynamics.f_theta.")


@pytest.fixture(scope="module")
def dit(workplace: Workplace, qm9_slice: Path) -> Path:
    """A tiny DiT, trained for an epoch."""
    workplace.run(
        "main_qm9.py", "--model", "dit", "--datadir", qm9_slice, "--seed", 1, *OF_DIT, "--exp_name", "ft_from"
    )
    return workplace.output("ft_from")


@pytest.fixture(scope="module")
def finetuned(workplace: Workplace, qm9_slice: Path, dit: Path) -> dict[str, Path]:
    """DiT-FT and DiT-FT-Freeze, from that DiT; the path is a relative one."""
    names = ("dit_ft", "dit_ft_freeze")
    for name in names:
        flags = ("--datadir", qm9_slice, "--init_from", "outputs/ft_from", "--seed", 2, *FLAGS)
        workplace.run("main_qm9.py", "--model", name, *flags)
    return {name: workplace.output(name) for name in names}


def test_epsilon_starts_from_the_moving_average_of_the_dit(dit: Path, qm9_slice: Path) -> None:
    run = load_run(dit, untrained=True, datadir=qm9_slice, device="cpu")
    args = Namespace(**{**vars(run.args), "model": "dit_ft", "frame": "learned"})
    args.init_from, args.resume_from, args.freeze_epsilon = str(dit), None, False
    args.init_from_sha256 = hashlib.sha256((dit / EMA).read_bytes()).hexdigest()
    torch.manual_seed(5)
    model = run.model
    model.dynamics = hooks.build_dynamics(args, in_node_nf=6)
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    hooks.get_optim(args, model)
    average, current = weights(dit), weights(dit, "generative_model.npy")
    taken = [name for name in average if name.startswith("dynamics.")]
    assert len(taken) > 10
    for name, value in model.state_dict().items():
        expected = average[name] if name in taken else fresh[name]
        assert torch.equal(value, expected), name
    assert any(not torch.equal(average[name], current[name]) for name in taken)  # EMA and last weights differ here
    assert any(not torch.equal(average[name], fresh[name]) for name in taken)


def test_freeze_changes_f_theta_alone(dit: Path, finetuned: dict[str, Path]) -> None:
    start, folder = weights(dit), finetuned["dit_ft_freeze"]
    for file in ("generative_model.npy", EMA):
        after = weights(folder, file)
        for name in filter(lambda name: name.startswith("dynamics."), start):
            assert torch.equal(after[name], start[name]), (file, name)
        assert torch.equal(after["gamma.gamma"], weights(folder, "generative_model.npy")["gamma.gamma"])
    last, average = weights(folder, "generative_model.npy"), weights(folder)
    parts = [name for name in last if is_f_theta(name)]
    assert parts
    # Where a weight moved, its average lags behind it, by far more than a rounding.
    assert all((last[name] - average[name]).abs().max() > 1e-3 for name in parts if name.endswith("weight"))
    config = json.loads((folder / "config.json").read_text())
    counts = config["parameters"]
    assert counts["trainable"] == counts["f_theta"] == sum(last[name].numel() for name in parts)
    optim = torch.load(folder / "checkpoint.pt", weights_only=True)["optim"]
    assert len(optim["param_groups"][0]["params"]) == len(parts)


def test_finetuning_changes_both_parts(dit: Path, finetuned: dict[str, Path]) -> None:
    start, folder = weights(dit), finetuned["dit_ft"]
    after, average = weights(folder, "generative_model.npy"), weights(folder)
    assert any(not torch.equal(after[name], start[name]) for name in start if name.startswith("dynamics.dit."))
    assert not torch.equal(after["dynamics.pair_embedding.means"], start["dynamics.pair_embedding.means"])
    assert any(not torch.equal(after[name], average[name]) for name in after if is_f_theta(name))


def test_the_configuration_says_where_the_weights_are_from(dit: Path, finetuned: dict[str, Path]) -> None:
    config = json.loads((finetuned["dit_ft"] / "config.json").read_text())
    digest = hashlib.sha256((dit / EMA).read_bytes()).hexdigest()
    assert config["init_from"] == {"path": "outputs/ft_from", "sha256": digest}
    assert "trainable" not in config["parameters"]


def test_going_on_and_evaluating_do_not_need_the_weights_again(
    workplace: Workplace, finetuned: dict[str, Path], dit: Path, qm9_slice: Path, tmp_path: Path
) -> None:
    folder = workplace.output("ft_resumed")
    shutil.copytree(finetuned["dit_ft_freeze"], folder)
    hidden = dit.rename(tmp_path / "hidden")
    try:
        said = workplace.run("main_qm9.py", "--resume", folder, "--n_epochs", 2, "--no_wandb")
        rebuilt = load_run(folder, datadir=qm9_slice, device="cpu")
    finally:
        hidden.rename(dit)
    assert "Going on from" in said
    assert "Starting from the weights" not in said
    before = torch.load(finetuned["dit_ft_freeze"] / "checkpoint.pt", weights_only=True)
    after = torch.load(folder / "checkpoint.pt", weights_only=True)
    for part in ("model", "model_ema"):
        changed = {name for name in before[part] if not torch.equal(before[part][name], after[part][name])}
        assert changed
        assert all(is_f_theta(name) for name in changed)
    assert rebuilt.model.dynamics.f_theta is not None
    old, new = (json.loads((run / "config.json").read_text()) for run in (finetuned["dit_ft_freeze"], folder))
    assert new["init_from"] == old["init_from"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["dit_ft"], "starts from a trained dit: train that with ./run_qm9.sh dit, then give --init_from outputs/dit"),
        (["dit_ft", "--init_from", "nowhere"], "nowhere is not there: give the folder of a trained run"),
        (["dit_ft", "--init_from", "."], f"{EMA} is missing"),
        (["dit_ft", "--init_from", "text"], "damaged or holds no weights"),
        (["dit_ft", "--init_from", "outputs/ft_from/checkpoint.pt"], "holds no weights of a model"),
        (["dit_ft", "--init_from", "outputs/ft_from", "--depth", "2"], "has depth 1, this run 2: give --depth 1"),
        (["dit_ft", "--init_from", "outputs/ft_from", "--num_heads", "4"], "give --num_heads 2"),
        (["dit_ft", "--init_from", "outputs/ft_from", "--normalize_factors", "[1,2,3]"], "_factors [1,4,10]"),
        (["dit", "--freeze_epsilon", "True"], "has none: leave it out"),
        (["symdiff", "--freeze_epsilon", "True"], "give --init_from as well"),
    ],
)
def test_a_mistake_is_one_line(
    flags: list[str], message: str, workplace: Workplace, dit: Path, qm9_slice: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(workplace.folder)
    Path("text").write_text("no weights")
    assert message in refused(capsys, *sizes(flags[0]), "--datadir", qm9_slice, "--model", *flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["dit_ft", "--init_from", "alone.npy", "--include_charges", "False"], "should be (16, 8) and is (16, 9)"),
        (["dit", "--init_from", "outputs/dit_ft"], "does not fit --model dit: f_theta"),
    ],
)
def test_weights_of_another_shape_are_refused_before_anything_is_written(
    flags: list[str], message: str, workplace: Workplace, finetuned: dict[str, Path], dit: Path, qm9_slice: Path
) -> None:
    shutil.copy(dit / EMA, workplace.folder / "alone.npy")
    given = ("--datadir", qm9_slice, *sizes(flags[0]), "--no_wandb", "--exp_name", "refused", "--model", *flags)
    done = workplace.start("main_qm9.py", *given)
    assert done.returncode == 2, done.stderr[-2000:]
    (line,) = done.stderr.strip().splitlines()
    assert message in line
    assert not list(workplace.output("refused").glob("*"))


def test_the_script_keeps_relative_paths(tmp_path: Path) -> None:
    setup = Path(__file__).parents[2] / "scripts" / "setup.sh"
    code = f'. {setup}; CALLER=/home/me; NAME=x N_SAMPLES=1; parse_flags "$@"; echo "${{FLAGS[@]}}"'
    for value, expected in (("outputs/dit", "outputs/dit"), ("mine/dit", "/home/me/mine/dit"), ("/abs", "/abs")):
        for words in (["--init_from", value], [f"--init_from={value}"]):
            done = subprocess.run(["bash", "-c", code, "x", *words], capture_output=True, text=True, check=True)
            assert done.stdout.strip() == f"--init_from={expected}"

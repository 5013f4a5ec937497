"""``--resume``: what a run that goes on keeps, what it may change, and what comes along under another name."""

from __future__ import annotations

import argparse
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from edm_flags import parse, refused
from other_process import in_another_process, kill
from runs import SHORT, Workplace

from symdiff_plugin.common.lock import Lock
from symdiff_plugin.data import write_slice
from symdiff_plugin.training import checkpoint, flag_table
from symdiff_plugin.training.history import read_rows
from symdiff_plugin.training.run import Run
from symdiff_plugin.training.stored_run import read_weights


def resumable(tmp_path: Path, **args: object) -> Path:
    """The folder of a run with a checkpoint that holds these arguments."""
    model = torch.nn.Linear(1, 1)
    queue = argparse.Namespace(items=[3000.0])
    state = checkpoint.TrainingState(model, model, torch.optim.AdamW(model.parameters()), queue)
    folder = tmp_path / "outputs" / str(args["exp_name"])
    checkpoint.save_checkpoint(folder / "checkpoint.pt", state, argparse.Namespace(**args), checkpoint.Position(3))
    return folder


def test_a_resumed_run_takes_the_old_flags_as_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    old = parse("--model", "symdiff_tiny", "--depth", 2, "--lr", 0.5, "--exp_name", "old", "--no_wandb", *data)
    folder = resumable(tmp_path, **vars(old))
    args = parse("--resume", folder, "--lr", 0.25)
    assert (args.model, args.depth, args.lr, args.exp_name, args.no_wandb) == ("symdiff_tiny", 2, 0.25, "old", False)
    assert args.resume is None  # EDM's own way is never taken
    assert args.resume_from == str(folder / "checkpoint.pt")
    assert parse("--resume", folder / "checkpoint.pt", "--exp_name", "new").exp_name == "new"
    line = refused(capsys, "--resume", folder, "--model", "dit")
    assert "--model symdiff_tiny -> dit" in line


def test_a_run_from_before_there_was_a_choice_of_group_and_base_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    old = vars(parse("--model", "symdiff_tiny", "--exp_name", "old", *data))
    assert (old.pop("group"), old.pop("base")) == ("o3", "haar")
    folder = resumable(tmp_path, **old)
    args = parse("--resume", folder, *data)
    assert (args.group, args.base, args.resumed) == ("o3", "haar", [])
    assert "--base haar -> pca" in refused(capsys, "--resume", folder, "--base", "pca", *data)


def test_resume_auto_starts_afresh_or_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: tuple[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ("--model", "symdiff_tiny", "--resume", "auto", *data)
    fresh = parse(*flags)
    assert fresh.resume_from is None
    resumable(tmp_path, **vars(fresh))
    assert parse(*flags).resume_from == "outputs/symdiff_tiny/checkpoint.pt"
    assert parse(*flags, "--exp_name", "other").resume_from is None


def test_a_run_is_overwritten_only_where_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ("--model", "symdiff_tiny", "--exp_name", "run", *data)
    folder = resumable(tmp_path, **vars(parse(*flags)))
    assert "outputs/run holds a run: go on with it by --resume outputs/run, or" in refused(capsys, *flags)
    assert parse(*flags, "--overwrite").overwrite
    assert parse(*flags, "--resume", "auto").resume_from
    assert "--overwrite would remove" in refused(capsys, *flags, "--resume", "auto", "--overwrite")
    other = resumable(tmp_path, **{**vars(parse(*flags, "--overwrite")), "exp_name": "other"})
    assert "outputs/run holds a run" in refused(capsys, "--resume", other, "--exp_name", "run", *data)
    (folder / "checkpoint.pt").unlink()
    parse(*flags)  # nothing is lost
    (folder / "history.jsonl").touch()
    assert "outputs/run holds a run: train anew with --overwrite" in refused(capsys, *flags)
    assert parse(*flags, "--resume", "auto").resume_from is None  # it was killed before its first checkpoint
    (folder / "generative_model.npy").touch()
    line = refused(capsys, *flags, "--resume", "auto")
    assert "outputs/run has weights but no checkpoint.pt to go on from: restore that, or train anew with --over" in line
    assert parse(*flags, "--overwrite").resume_from is None


def test_a_folder_that_another_process_trains_in_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ("--model", "symdiff_tiny", "--exp_name", "run", *data)
    holder = in_another_process(lambda: Lock(tmp_path / "outputs/run", "training"))
    try:
        assert f"process {holder} on " in refused(capsys, *flags)
    finally:
        kill(holder)
    parse(*flags)


# Flag, another value than below, in the words of the refusal.
SAME = [
    ("--num_heads", "2", "--num_heads 4 -> 2"),
    ("--time_scale", "1", "--time_scale 1000.0 -> 1.0"),
    ("--noise_std", "0.5", "--noise_std 1.0 -> 0.5"),
    ("--normalize_factors", "[1,1,1]", "--normalize_factors [1, 4, 10] -> [1, 1, 1]"),
    ("--symdiff_compat", "release", "--symdiff_compat paper -> release"),
    ("--diffusion_loss_type", "vlb", "--diffusion_loss_type l2 -> vlb"),
    ("--mlp_dropout", "0.1", "--mlp_dropout 0.0 -> 0.1"),
    ("--dataset", "qm9_second_half", "--dataset qm9 -> qm9_second_half"),
    ("--seed", "2", "--seed 1 -> 2"),
    ("--ema_decay", "0.5", "--ema_decay 0.999 -> 0.5"),
    ("--diffusion_steps", "10", "--diffusion_steps 1000 -> 10"),
    ("--conditioning", "mu", "--conditioning [] -> ['mu']"),
    ("--clip_norm", "1", "--clip_norm 2.0 -> 1.0"),
    ("--start_epoch", "2", "--start_epoch 0 -> 2"),
]  # fmt: skip
FREE = {
    "--sampler": "ddim", "--sampling_steps": 9, "--step_grid": "karras", "--stochasticity": 0.5, "--corrector_steps": 2,
    "--hold_frame": True,
    "--n_epochs": 7, "--lr": 0.125, "--batch_size": 8, "--test_epochs": 3, "--n_stability_samples": 9,
    "--n_report_steps": 5, "--num_workers": 2, "--save_model": False, "--keep_checkpoints": True,
    "--visualize_every_batch": 4, "--precision": "bf16", "--fused": False, "--checkpoint_minutes": 0.5,
    "--decay": 0.25, "--decay_shape": "sqrt",
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: tuple[str, str]) -> Path:
    """A run with a checkpoint after three epochs."""
    monkeypatch.chdir(tmp_path)
    return resumable(tmp_path, **vars(parse("--model", "symdiff_tiny", "--seed", 1, "--exp_name", "run", *data)))


@pytest.mark.parametrize(("flag", "value", "words"), SAME)
def test_what_would_make_another_run_is_refused(
    flag: str, value: str, words: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(capsys, "--resume", run, flag, value)
    line = refused(capsys, "--resume", run, flag, value, "--depth", 1, "--lr", 1)
    assert words in line
    assert "--depth 6 -> 1" in line
    assert "--lr" not in line


def test_a_flag_that_is_not_said_to_change_does_not() -> None:
    """The rule is a list of what may change; a new flag is on none."""
    assert flag_table.Flag(flag_table.TEXT).resumed == "same"
    free = {f"--{name}" for name, flag in flag_table.FLAGS.items() if flag.resumed == "free"}
    assert free == {*FREE, "--datadir", "--data_file", "--compile"}


def test_what_may_change_is_recorded_at_every_start(run: Path) -> None:
    words = [str(word) for pair in FREE.items() for word in pair]
    args = parse("--resume", run, *words)
    assert {flag: getattr(args, flag[2:]) for flag in FREE} == FREE
    (line,) = args.resumed
    assert line.startswith("after 3 epochs: ")
    assert "--lr 0.0005 -> 0.125" in line
    assert line.count(" -> ") == len(FREE)
    again = parse("--resume", resumable(run.parents[1], **vars(args)), "--lr", 0.25)
    assert again.resumed == [line, "after 3 epochs: --lr 0.125 -> 0.25"]
    assert parse("--resume", run).resumed == [line]


def test_other_data_are_refused_wherever_they_lie(
    run: Path, qm9_slice: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(qm9_slice / "qm9", tmp_path / "moved/qm9")
    args = parse("--resume", run, "--datadir", tmp_path / "moved")
    assert args.resumed == [f"after 3 epochs: --datadir {qm9_slice} -> {tmp_path / 'moved'}"]
    write_slice(qm9_slice, tmp_path / "other", 100, 20, 20)
    capsys.readouterr()  # its progress
    line = refused(capsys, "--resume", run, "--datadir", tmp_path / "other")
    assert f"--datadir {tmp_path / 'other'} holds other data than the run to resume was trained on" in line


def test_other_conformers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in (("a", b"1" * 9999), ("b", b"1" * 9998 + b"2")):
        (tmp_path / f"{name}.npy").write_bytes(content)
    shutil.copy("a.npy", "c.npy")
    run = resumable(tmp_path, **vars(parse("--model", "symdiff_tiny", "--data_file", "a.npy", geom=True)))
    assert "--data_file a.npy -> c.npy" in parse("--resume", run, "--data_file", "c.npy", geom=True).resumed[0]
    assert "b.npy holds other data" in refused(capsys, "--resume", run, "--data_file", "b.npy", geom=True)
    assert "--split official -> molecule" in refused(capsys, "--resume", run, "--split", "molecule", geom=True)


@pytest.mark.parametrize(("name", "value"), [("lr", "fast"), ("exp_name", "../x"), ("model", None), ("K", {})])
def test_a_checkpoint_of_another_shape_is_one_line(
    name: str, value: object, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = torch.load(run / "checkpoint.pt", weights_only=True)
    record["args"][name] = value
    torch.save(record, run / "checkpoint.pt")
    assert f"checkpoint.pt is damaged (its {name} must be" in refused(capsys, "--resume", run)


def test_a_history_of_another_shape_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs/run").mkdir(parents=True)
    (tmp_path / "outputs/run/history.jsonl").write_text("[]\n")
    network = torch.nn.Linear(1, 1)
    args = argparse.Namespace(
        model="egnn_dynamics", exp_name="run", seed=1, dataset="geom", cuda=False, n_report_steps=1, start_epoch=1
    )
    state = checkpoint.TrainingState(argparse.Namespace(dynamics=network), network, None, None)
    with pytest.raises(SystemExit) as stop:
        Run(args, state)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "outputs/run/history.jsonl is damaged (line 1 is none of its rows)" in line


@pytest.mark.edm
def test_under_another_name_the_best_weights_come_along(workplace: Workplace, trained: str) -> None:
    printed = workplace.run("main_qm9.py", "--resume", f"outputs/{trained}", "--exp_name", "renamed", "--lr", "1e-5")
    assert "Changed on the way: after 2 epochs: --lr 0.0002 -> 1e-05" in printed
    old, new = workplace.output(trained), workplace.output("renamed")
    for name in ("generative_model.npy", "generative_model_ema.npy", "optim.npy", "history.jsonl", "train_loss.jsonl"):
        assert (new / name).read_bytes() == (old / name).read_bytes(), name
    assert read_weights(new, "generative_model_ema.npy")
    assert pickle.loads((new / "args.pickle").read_bytes()).exp_name == "renamed"  # our own run's
    config = json.loads((new / "config.json").read_text())
    assert config["args"]["resumed"] == ["after 2 epochs: --lr 0.0002 -> 1e-05"]


@pytest.mark.edm
def test_without_its_weights_the_best_begins_anew(workplace: Workplace, trained: str) -> None:
    """A checkpoint alone: its best NLL must not keep weights from being written."""
    record = checkpoint.load_checkpoint(workplace.output(trained) / "checkpoint.pt")
    record["best_nll"] = [-1e6, -1e6]  # no later epoch could be better
    (workplace.folder / "alone").mkdir()
    torch.save(record, workplace.folder / "alone/checkpoint.pt")
    printed = workplace.run(
        "main_qm9.py", "--resume", "alone/checkpoint.pt", "--exp_name", "anew", "--n_epochs", 3, "--no_wandb"
    )
    assert "The weights of the best epoch are not in alone: from here on the best begins anew" in printed
    (row,) = read_rows(workplace.output("anew") / "history.jsonl")
    resumed = checkpoint.load_checkpoint(workplace.output("anew") / "checkpoint.pt")
    assert resumed["best_nll"] == pytest.approx([row["val_nll"], row["test_nll"]])
    assert (workplace.output("anew") / "generative_model_ema.npy").is_file()


@pytest.mark.edm
def test_an_egnn_without_a_finite_gradient_is_stopped(workplace: Workplace, qm9_slice: Path) -> None:
    """Upstream trains on with NaN for weights, to the end and with exit status 0."""
    flags = ("--datadir", qm9_slice, *SHORT, "--batch_size", 16, "--nf", 16, "--n_layers", 1, "--lr", "1e30")
    done = workplace.start("main_qm9.py", *flags, "--exp_name", "diverged")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("Stopped: 10 steps in a row without a finite gradient")
    assert "Trained" not in done.stdout

"""EDM's scripts with the plugin's models, end to end on a slice of QM9."""

from __future__ import annotations

import json
import math
import pickle
import re
from pathlib import Path

import pytest
import torch
from runs import SHORT, TINY, Workplace, equal

from symdiff_plugin.training.history import read_rows

pytestmark = pytest.mark.edm


def test_a_run_leaves_its_configuration_history_and_models(workplace: Workplace, trained: str) -> None:
    folder = workplace.output(trained)
    for name in ("generative_model.npy", "generative_model_ema.npy", "optim.npy", "args.pickle", "checkpoint.pt"):
        assert (folder / name).stat().st_size > 0
    assert list(folder.glob("generative_model_*[0-9].npy")) == []  # --keep_checkpoints
    epochs = read_rows(folder / "history.jsonl")
    assert [row["epoch"] for row in epochs] == [0, 1]
    for row in epochs:
        assert all(math.isfinite(row[key]) for key in ("train_loss", "val_nll", "test_nll", "seconds"))
        assert all(0 <= row[key] <= 1 for key in ("mol_stable", "atm_stable", "validity", "uniqueness", "novelty"))
    losses = read_rows(folder / "train_loss.jsonl")
    assert [row["step"] for row in losses] == list(range(1, 9))  # 240 molecules are 4 batches of 64
    assert sum(row["loss"] for row in losses[:4]) / 4 == pytest.approx(epochs[0]["train_loss"], rel=1e-6)


def test_the_configuration_is_resolved(workplace: Workplace, trained: str, qm9_slice: Path) -> None:
    config = json.loads((workplace.output(trained) / "config.json").read_text())
    assert (config["model"], config["preset"], config["seed"]) == ("symdiff", "SymDiff", 1)
    assert config["architecture"]["hidden_size"] == 32  # given
    assert config["architecture"]["noise_dims"] == 3  # the preset's
    assert (config["args"]["lr"], config["args"]["ema_decay"], config["args"]["clip_norm"]) == (2e-4, 0.9999, 2.0)
    assert config["args"]["datadir"] == str(qm9_slice)
    assert config["molecules"] == {"train": 240, "valid": 60, "test": 60}
    parts = config["parameters"]
    saved = torch.load(workplace.output(trained) / "generative_model.npy", weights_only=True)
    count = sum(value.numel() for key, value in saved.items() if key.startswith("dynamics."))
    assert parts["total"] == parts["epsilon_theta"] + parts["f_theta"] == count
    assert torch.__version__.startswith(config["versions"]["torch"])  # PyPI's own calls itself 2.6.0+cu124 besides


def test_the_pickled_arguments_are_plain(workplace: Workplace, trained: str) -> None:
    def plain(value: object) -> bool:
        if isinstance(value, list):
            return all(map(plain, value))
        return value is None or type(value) in (bool, int, float, str)

    with open(workplace.output(trained) / "args.pickle", "rb") as file:
        args = vars(pickle.load(file))  # our own run's
    assert [name for name, value in args.items() if not plain(value)] == []


def test_the_weights_move_and_the_average_follows(workplace: Workplace, trained: str) -> None:
    model, average = (
        torch.load(workplace.output(trained) / f"{name}.npy", weights_only=True)
        for name in ("generative_model", "generative_model_ema")
    )
    learned = [key for key in model if key.startswith("dynamics.") and not torch.equal(model[key], average[key])]
    assert any("dit" in key for key in learned)
    assert any("f_theta" in key for key in learned)


def test_eval_analyze(workplace: Workplace, trained: str) -> None:
    printed = workplace.run(
        "eval_analyze.py", "--model_path", f"outputs/{trained}", "--n_samples", 5, "--batch_size_gen", 3,
        "--save_to_xyz", "True",
    )  # fmt: skip
    assert re.search(r"Validity over 5 molecules", printed)
    assert re.search(r"Validity \d\.\d{4}, Uniqueness: \d\.\d{4}, Novelty: \d\.\d{4}", printed)
    assert math.isfinite(float(re.search(r"Final test nll (\S+)", printed)[1]))
    molecules = list((workplace.output(trained) / "eval/analyzed_molecules").glob("*.txt"))
    assert len(molecules) == 5


def test_eval_sample_honours_its_flags(workplace: Workplace, trained: str) -> None:
    workplace.run("eval_sample.py", "--model_path", f"outputs/{trained}", "--n_samples", 2, "--n_chains", 0)
    folder = workplace.output(trained) / "eval"
    assert sorted(path.name for path in (folder / "molecules").glob("molecule_0*.txt")) == [
        "molecule_000.txt", "molecule_001.txt",
    ]  # fmt: skip
    assert not (folder / "chain_0").exists()


def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(
    workplace: Workplace, trained: str, qm9_slice: Path, tmp_path: Path
) -> None:
    flags = ("--model", "symdiff", "--datadir", qm9_slice, "--seed", 1, *TINY, *SHORT, "--exp_name", "parts")
    workplace.run("main_qm9.py", *flags, "--n_epochs", 1, "--resume", "auto")  # nothing to go on from yet
    # In a Python of its own, which hashes strings otherwise.
    printed = workplace.run("main_qm9.py", "--resume", "outputs/parts", "--n_epochs", 2, python_path=tmp_path)
    assert "1 epochs done, 1 of --n_epochs left" in printed
    whole, parts = (
        torch.load(workplace.output(name) / "checkpoint.pt", weights_only=True) for name in (trained, "parts")
    )
    assert [key for key in whole if key != "args" and not equal(whole[key], parts[key])] == []
    for name in ("train_loss.jsonl", "history.jsonl"):
        rows = [read_rows(workplace.output(run) / name) for run in (trained, "parts")]
        for row in rows[0] + rows[1]:
            for key in [key for key in row if key.endswith("seconds")]:
                del row[key]
        assert rows[0] == rows[1]


def test_the_last_epoch_is_tested_beside_the_run(workplace: Workplace, qm9_slice: Path) -> None:
    """Its test draws random numbers, which a run that goes on for more epochs must not notice."""
    flags = ("--model", "symdiff", "--datadir", qm9_slice, "--seed", 1, *TINY, *SHORT, "--test_epochs", 9)
    workplace.run("main_qm9.py", *flags, "--n_epochs", 2, "--exp_name", "longer")
    tested = [row for row in read_rows(workplace.output("longer") / "history.jsonl") if "val_nll" in row]
    assert [row["epoch"] for row in tested] == [0, 1]
    workplace.run("main_qm9.py", "--resume", "outputs/longer", "--n_epochs", 3)
    workplace.run("main_qm9.py", *flags, "--n_epochs", 3, "--exp_name", "at_once")
    longer, at_once = (
        torch.load(workplace.output(name) / "checkpoint.pt", weights_only=True) for name in ("longer", "at_once")
    )
    for key in ("model", "model_ema", "optim", "queue", "rng"):
        assert equal(longer[key], at_once[key]), key


def test_conditional_on_alpha(workplace: Workplace, qm9_slice: Path) -> None:
    """Training with pictures on the way, likelihood, samples; the training subset holds one size alone."""
    workplace.run(
        "main_qm9.py", "--model", "symdiff", "--datadir", qm9_slice, *TINY, *SHORT, "--diffusion_steps", 2,
        "--n_epochs", 1, "--conditioning", "alpha", "--exp_name", "alpha", "--dataset", "qm9_second_half",
        "--filter_n_atoms", 19, "--batch_size", 6, "--visualize_every_batch", 2,
    )  # fmt: skip
    folder = workplace.output("alpha")
    assert len(list((folder / "epoch_0_1").glob("molecule_*.png"))) == 5
    assert (folder / "epoch_0_1/chain/output.gif").exists()
    assert (folder / "epoch_0/conditional/output.gif").exists()

    printed = workplace.run("eval_analyze.py", "--model_path", "outputs/alpha", "--n_samples", 20)
    assert math.isfinite(float(re.search(r"Final test nll (\S+)", printed)[1]))
    assert "No training molecule has" not in printed  # every sample has the 19 atoms that the filter left

    printed = workplace.run(
        "eval_sample.py", "--model_path", "outputs/alpha",
        "--n_samples", 1, "--n_nodes", 3, "--n_tries", 1, "--n_chains", 1,
    )  # fmt: skip
    assert printed.count("No training molecule has 3 atoms: its property is drawn from those with 19") == 1
    sampled = list((folder / "eval/molecules").glob("*.txt"))
    assert {path.read_text().split()[0] for path in sampled} == {"19"}
    chain = list((folder / "eval/chain_0").glob("*.txt"))
    assert len(chain) == 2 + 10  # the two steps, and the last one ten times more
    assert {path.read_text().split()[0] for path in chain} == {"3"}
    assert (folder / "eval/chain_0/output.gif").stat().st_size > 0


def test_a_batch_of_one_and_every_class(workplace: Workplace, qm9_slice: Path) -> None:
    flags = (
        "--model", "dit_aug", "--datadir", qm9_slice, *TINY[:10], *SHORT, "--exp_name", "one", "--n_epochs", 1,
        "--batch_size", 239, "--diffusion_steps", 2, "--n_stability_samples", 101, "--seed", 2,
        "--include_charges", "False", "--all_classes",
    )  # fmt: skip
    printed = workplace.run("main_qm9.py", *flags)
    assert "Validity over 101 molecules" in printed
    assert [row["step"] for row in read_rows(workplace.output("one") / "train_loss.jsonl")] == [1, 2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "no_such_model"], r"--model must be one of egnn_dynamics, .*symdiff, .*not no_such_model"),
        (["--model", "symdiff", "--datadir", "no_such_folder"], r"no_such_folder.*python -m symdiff_plugin.data.qm9"),
    ],
)
def test_a_mistake_is_one_line(workplace: Workplace, flags: list[str], message: str) -> None:
    done = workplace.start("main_qm9.py", *flags)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert re.search(message, done.stderr)


def test_a_damaged_checkpoint_is_refused(workplace: Workplace, trained: str) -> None:
    whole = (workplace.output(trained) / "checkpoint.pt").read_bytes()
    (workplace.folder / "damaged.pt").write_bytes(whole[: len(whole) // 2])
    done = workplace.start("main_qm9.py", "--resume", "damaged.pt", "--no_wandb")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "damaged.pt is cut short or no checkpoint" in done.stderr

"""The JSON lines of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from symdiff_plugin.training.history import History, read_rows


def train(history: History, losses: list[float], val: float | None = None) -> None:
    """One epoch as EDM logs it."""
    for loss in losses:
        history({"Batch NLL": loss})
    history({"Train Epoch NLL": sum(losses) / len(losses)})
    if val is not None:
        history({"mol_stable": 0.25, "atm_stable": 0.75})
        history({"Val loss ": val})
        history({"Test loss ": val + 1})
        history({"Best cross-validated test loss ": val})
    history.end_epoch()
    history.start_epoch()


def test_one_line_an_epoch_and_one_every_few_iterations(tmp_path: Path) -> None:
    # Read at the start, the end of training and the end of each of the two epochs.
    clock, cpu_clock = iter([10.0, 12.0, 15.0, 20.0, 21.0, 21.5, 30.0]), iter([1.0, 4.5, 7.0, 9.0, 11.0])
    history = History(tmp_path, 2, clock=lambda: next(clock), cpu_clock=lambda: next(cpu_clock))
    train(history, [1.0, 2.0, 6.0], val=10.0)
    train(history, [4.0, 5.0, 6.0])
    assert read_rows(tmp_path / "history.jsonl") == [
        {"epoch": 0, "train_loss": 3.0, "mol_stable": 0.25, "atm_stable": 0.75, "val_nll": 10.0, "test_nll": 11.0,
         "train_seconds": 2.0, "train_cpu_seconds": 3.5, "seconds": 5.0},
        {"epoch": 1, "train_loss": 5.0, "train_seconds": 1.0, "train_cpu_seconds": 2.0, "seconds": 1.5},
    ]  # fmt: skip
    assert read_rows(tmp_path / "train_loss.jsonl") == [
        {"step": 2, "epoch": 0, "loss": 1.5},
        {"step": 3, "epoch": 0, "loss": 6.0},
        {"step": 5, "epoch": 1, "loss": 4.5},
        {"step": 6, "epoch": 1, "loss": 6.0},
    ]


def test_the_learning_rate_of_an_epoch_is_kept(tmp_path: Path) -> None:
    history = History(tmp_path, every=1)
    history.end_epoch(1e-3)
    history.end_epoch(3e-4)
    assert [row["lr"] for row in read_rows(tmp_path / "history.jsonl")] == [1e-3, 3e-4]


@pytest.mark.parametrize("torn", [False, True])
def test_going_on_drops_the_epochs_that_will_be_trained_again(tmp_path: Path, torn: bool) -> None:
    history = History(tmp_path, every=2)
    for loss in (1.0, 2.0, 3.0):
        train(history, [loss] * 3)
    if torn:  # cut short in the middle of a line
        for name in ("history.jsonl", "train_loss.jsonl"):
            path = tmp_path / name
            path.write_text(path.read_text()[:-9])
    train(History(tmp_path, every=2, epoch=2), [9.0] * 3)
    assert [row["train_loss"] for row in read_rows(tmp_path / "history.jsonl")] == [1.0, 2.0, 9.0]
    assert [(row["step"], row["loss"]) for row in read_rows(tmp_path / "train_loss.jsonl")] == [
        (2, 1.0), (3, 1.0), (5, 2.0), (6, 2.0), (8, 9.0), (9, 9.0),
    ]  # fmt: skip


def test_a_run_that_starts_afresh_has_no_past(tmp_path: Path) -> None:
    train(History(tmp_path, every=1), [1.0])
    train(History(tmp_path, every=1), [2.0])
    assert [row["train_loss"] for row in read_rows(tmp_path / "history.jsonl")] == [2.0]
    assert [row["step"] for row in read_rows(tmp_path / "train_loss.jsonl")] == [1]


def test_a_loss_that_is_no_number_is_null_in_json(tmp_path: Path) -> None:
    history = History(tmp_path, every=1)
    train(history, [float("nan")])
    (line,) = (tmp_path / "train_loss.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=pytest.fail)["loss"] is None


def test_losses_on_a_device_are_read_when_their_line_is_due(tmp_path: Path) -> None:
    floats, tensors = History(tmp_path / "floats", every=3), History(tmp_path / "tensors", every=3)
    losses = torch.tensor([0.1, 0.2, 0.7, 1.1])
    for history, values in ((floats, losses.tolist()), (tensors, losses)):
        history.folder.mkdir()
        for value in values:
            history({"Batch NLL": value})
        history.end_epoch()
    lines = [(history.folder / "train_loss.jsonl").read_text() for history in (floats, tensors)]
    assert lines[0] == lines[1]
    assert len(lines[0].splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("history.jsonl", "[]"),
        ("history.jsonl", "3"),
        ("history.jsonl", '{"val_nll": 1.0}'),
        ("history.jsonl", '{"epoch": "first"}'),
        ("history.jsonl", '{"epoch": 1, "val_nll": "low"}'),
        ("train_loss.jsonl", '{"epoch": 1, "step": 2}'),
        ("train_loss.jsonl", '{"epoch": 1, "loss": 0.5}'),
    ],
)
def test_a_history_of_another_shape_is_one_line(name: str, line: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text('{"epoch": 0, "step": 1, "loss": 0.5}\n' + line + "\n")
    with pytest.raises(ValueError, match=f"{name} is damaged .line 2 is none of its rows.: remove it") as error:
        read_rows(tmp_path / name)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=f"{name} is damaged"):  # as a run that goes on
        History(tmp_path, every=1, epoch=1)

"""Runs that are ended inside an epoch or its test: nothing is lost, and what goes on is the unbroken run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from forked import kills, run_forked
from runs import SHORT, TINY, Workplace

from symdiff_plugin.common.workers import ENDING
from symdiff_plugin.training import interrupt
from symdiff_plugin.training.checkpoint import RUN_FILES, load_checkpoint
from symdiff_plugin.training.interrupt import Interrupts
from symdiff_plugin.training.run import is_due

AT_ENDS = ("--checkpoint_minutes", 0)
EVERY_STEP = ("--checkpoint_minutes", 1e-9)


@pytest.mark.edm
def test_a_run_ended_at_every_kind_of_moment_is_the_unbroken_one(workplace: Workplace, qm9_slice: Path) -> None:
    """Four steps an epoch: inside it, after its last step, in its test, with and without processes of a loader."""
    flags = ("--model", "symdiff", "--datadir", qm9_slice, "--seed", 1, "--no-cuda", *TINY, *SHORT)
    flags = (*flags, "--n_report_steps", 3, *AT_ENDS, "--exp_name")
    assert run_forked(workplace, "main_qm9.py", *flags, "whole")[0] == 0
    parts, go_on = workplace.output("parts"), ("--resume", "outputs/parts", "--no_wandb")

    def end(words: tuple[object, ...], stop: tuple[signal.Signals, str, int], where: tuple[int, int]) -> list[str]:
        status, said = run_forked(workplace, "main_qm9.py", *words, stop=stop)
        assert status == 128 + stop[0], said
        record = load_checkpoint(parts / "checkpoint.pt")
        assert (record["epoch"], record["inside"]["done"]) == where
        return said

    said = end((*flags, "parts"), (signal.SIGTERM, "Batch NLL", 2), (0, 2))
    assert said == ["SIGTERM: stopped; 0 epochs and 2 steps are done; --resume outputs/parts goes on from there"]
    end((*go_on, "--num_workers", 1), (signal.SIGUSR1, "Batch NLL", 2), (0, 4))
    said = end(go_on, (signal.SIGINT, "Batch NLL", 1), (1, 1))
    assert said == ["Ctrl-C: stopped; 1 epochs and 1 steps are done; --resume outputs/parts goes on from there"]
    assert end((*go_on, *EVERY_STEP, "--num_workers", 1), (signal.SIGKILL, "Batch NLL", 2), (1, 2)) == []
    end((*go_on, *AT_ENDS), (signal.SIGHUP, "mol_stable", 1), (1, 4))
    (parts / ".checkpoint.pt.0123abcd.partial").touch()
    assert run_forked(workplace, "main_qm9.py", *go_on) == (0, [])
    assert kills.differences(workplace.output("whole"), parts) == []
    assert list(parts.glob(".*")) == [parts / ".lock"]
    assert " is training since " in (parts / ".lock").read_text()

    assert run_forked(workplace, "main_qm9.py", *flags, "parts")[0] == 2
    assert (parts / "checkpoint.pt").exists()
    assert run_forked(workplace, "main_qm9.py", *flags, "parts", "--overwrite", "--n_epochs", 0)[0] == 0
    assert not [name for name in RUN_FILES if (parts / name).exists()]


@pytest.mark.edm
@pytest.mark.parametrize("model", ["symdiff", "egnn_dynamics"])
def test_batches_of_one_size_go_on_inside_an_epoch(model: str, workplace: Workplace, geom_file: Path) -> None:
    """GEOM's --sequential, and EDM's own model, whose clipping depends on the last norms."""
    small = (
        TINY if model == "symdiff" else ("--nf", 8, "--n_layers", 1, "--ema_decay", 0.9, "--keep_checkpoints", False)
    )
    flags = ("--model", model, *small, *SHORT[:2], "--batch_size", 8, "--n_epochs", 2, "--test_epochs", 2, "--no-cuda")
    flags = (*flags, "--n_stability_samples", 2, "--no_wandb", "--sequential", "--split", "molecule", "--seed", 2)
    flags = (*flags, "--n_report_steps", 5, "--exp_name")
    whole, parts = f"whole_{model}", f"parts_{model}"
    assert run_forked(workplace, "main_geom_drugs.py", *flags, whole)[0] == 0
    stop = (signal.SIGTERM, "Batch NLL", 3)
    assert run_forked(workplace, "main_geom_drugs.py", *flags, parts, stop=stop)[0] == 143
    again = ("--resume", f"outputs/{parts}", "--num_workers", 1)
    assert run_forked(workplace, "main_geom_drugs.py", *again, stop=(signal.SIGTERM, "Batch NLL", 7))[0] == 143
    assert run_forked(workplace, "main_geom_drugs.py", "--resume", f"outputs/{parts}")[0] == 0
    assert kills.differences(workplace.output(whole), workplace.output(parts)) == []


def test_a_difference_is_seen(copied: Path, tmp_path: Path) -> None:
    """The comparison that the tests above rest on."""
    kills.shutil.copytree(copied, tmp_path / "other")
    assert kills.differences(copied, tmp_path / "other") == []
    record = torch.load(tmp_path / "other/checkpoint.pt", weights_only=True)
    record["queue"][0] += 1e-9
    torch.save(record, tmp_path / "other/checkpoint.pt")
    rows = (tmp_path / "other/history.jsonl").read_text()
    (tmp_path / "other/history.jsonl").write_text(rows.replace('"val_nll": ', '"val_nll": 1'))
    assert kills.differences(copied, tmp_path / "other") == ["checkpoint.pt: queue", "history.jsonl"]


class Ended(Exception):
    pass


def end(cause: signal.Signals) -> None:
    raise Ended(cause)


@pytest.fixture
def interrupts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Interrupts]:
    kept = {number: signal.getsignal(number) for number in ENDING}
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL)
    yield Interrupts(end)
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_a_signal_waits_for_the_end_of_a_step(interrupts: Interrupts) -> None:
    interrupts.check()
    interrupts.waiting = True
    kept = signal.signal(signal.SIGCHLD, lambda *_: pytest.fail("a loader's process died"))  # as torch's raises
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)  # the same one passed on, say: within a second
    os.kill(os.getpid(), signal.SIGCHLD)
    signal.signal(signal.SIGCHLD, kept)
    with pytest.raises(Ended) as ended:
        interrupts.check()
    assert ended.value.args == (signal.SIGUSR1,)


def test_outside_a_step_it_is_answered_at_once(interrupts: Interrupts) -> None:
    with pytest.raises(Ended):
        os.kill(os.getpid(), signal.SIGINT)


def test_what_the_process_was_started_to_ignore_stays_ignored(interrupts: Interrupts) -> None:
    """nohup."""
    os.kill(os.getpid(), signal.SIGHUP)
    interrupts.check()


def test_a_second_signal_ends_at_once(interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "_TWICE", 0.0)

    def twice() -> None:
        own = Interrupts(end)
        own.waiting = True
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)

    assert kills.end_of(kills.start(Path(), (), twice)) == 143


def test_a_process_that_was_forked_is_not_ended(interrupts: Interrupts) -> None:
    def forked() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)

    assert kills.end_of(kills.start(Path(), (), forked)) == 0


@pytest.mark.parametrize(
    ("minutes", "since", "cost", "due"),
    [
        (10, 599, 0.1, False), (10, 600, 0.1, True), (10, 600, 6, True), (10, 600, 8, False), (10, 800, 8, True),
        (0, 1e9, 0.1, False), (1e-9, 1e-3, 0.9, True), (1e-9, 100, 1.1, False),
    ],
)  # fmt: skip
def test_checkpoints_take_a_hundredth_of_the_time_at_most(minutes: float, since: float, cost: float, due: bool) -> None:
    assert is_due(minutes, since, cost) is due

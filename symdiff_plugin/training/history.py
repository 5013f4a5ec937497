"""The history of a run as JSON lines in its folder, taken from what EDM logs.

``train_loss.jsonl`` holds the mean training loss of every ``n_report_steps`` iterations, ``history.jsonl`` one line
an epoch. The training loss (by default the L2 loss of the noise and -log p(N): 2 to 3 on QM9) and the validation
and test NLL (a bound on the likelihood, often over 100) are different quantities. Of a process without a
likelihood there are ``val_loss`` and ``test_loss`` instead, the loss of held-out molecules.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from symdiff_plugin.common.files import replacing
from symdiff_plugin.training.host_reads import read

TRAIN_LOSS = "train_loss.jsonl"
HISTORY = "history.jsonl"
_NAMES = {  # EDM's keys, trailing blanks included
    "Train Epoch NLL": "train_loss",
    "Val loss ": "val_nll",
    "Test loss ": "test_nll",
    "mol_stable": "mol_stable",
    "atm_stable": "atm_stable",
    "Validity": "validity",
    "Uniqueness": "uniqueness",
    "Novelty": "novelty",
}


class History:
    """Writes the history of one run.

    Args:
        folder: the run's folder.
        every: training iterations a line of ``train_loss.jsonl``.
        epoch: the first epoch; lines of this and later ones, from a run that was cut short, are dropped.
        inside: where in that epoch it goes on, from :meth:`inside`; None at its beginning.
        clock: wall-clock time in seconds, from any beginning.
        cpu_clock: seconds that the process has computed, on all its cores: on a machine shared with others they are
            what a budget can be counted in.
        more: called with the number of the step when a line of ``train_loss.jsonl`` is due; what it returns goes into
            that line, and the last of an epoch into the epoch's.
        likelihood: whether the losses that EDM logs of held-out molecules are NLLs.
    """

    def __init__(
        self,
        folder: Path,
        every: int,
        epoch: int = 0,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.process_time,
        more: Callable[[int], dict[str, float]] = lambda step: {},
        likelihood: bool = True,
        inside: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.every = every
        self.epoch = epoch
        self._names = _NAMES if likelihood else {**_NAMES, "Val loss ": "val_loss", "Test loss ": "test_loss"}
        inside = {"step": -1, "losses": (), "row": {}, "seconds": 0.0, "cpu_seconds": 0.0} if inside is None else inside
        self._losses: list[Tensor | float] = list(inside["losses"])
        self._row: dict[str, Any] = dict(inside["row"])
        steps = _keep(folder / TRAIN_LOSS, lambda row: row["epoch"] < epoch or row["step"] <= inside["step"])
        _keep(folder / HISTORY, lambda row: row["epoch"] < epoch)
        self._step = steps[-1]["step"] if steps else 0
        self._clock, self._cpu_clock, self._more = clock, cpu_clock, more
        self.start_epoch()
        self._began -= inside["seconds"]
        self._cpu_began -= inside["cpu_seconds"]

    def __call__(self, record: dict[str, Any]) -> None:
        """Take in one dictionary that EDM logs; a batch's loss may be a tensor, which is read when its line is due."""
        if "Batch NLL" in record:
            self._losses.append(record["Batch NLL"])
            if len(self._losses) >= self.every:
                self.write_losses()
        for key, value in record.items():
            if key in self._names:
                self._row[self._names[key]] = float(value)
        if "Train Epoch NLL" in record:  # EDM's evaluation of the epoch comes after it
            self._row["train_seconds"] = round(self._clock() - self._began, 3)
            self._row["train_cpu_seconds"] = round(self._cpu_clock() - self._cpu_began, 3)

    def start_epoch(self) -> None:
        """Set the clocks going; what was done since the last epoch, such as a checkpoint, is not counted."""
        self._began, self._cpu_began = self._clock(), self._cpu_clock()

    def inside(self) -> dict[str, Any]:
        """What a run needs that goes on inside the epoch, plain values."""
        return {
            "step": self._step,
            "losses": [float(loss) for loss in read(*self._losses)],
            "row": dict(self._row),
            "seconds": self._clock() - self._began,
            "cpu_seconds": self._cpu_clock() - self._cpu_began,
        }

    def end_epoch(self, lr: float | None = None) -> None:
        """Write the line of the epoch that ends, with the ``seconds`` it took, and how many of them were training.

        ``lr`` is the learning rate of its last step.
        """
        self.write_losses()
        row = self._row if lr is None else {"lr": lr, **self._row}
        self._append(HISTORY, {"epoch": self.epoch, **row, "seconds": round(self._clock() - self._began, 3)})
        self._row = {}
        self.epoch += 1

    def write_losses(self) -> None:
        """Write the line of the steps since the last one, if there were any."""
        if self._losses:
            self._step += len(self._losses)
            loss = sum(read(*self._losses)) / len(self._losses)
            more = self._more(self._step)
            self._row.update(more)
            self._append(TRAIN_LOSS, {"step": self._step, "epoch": self.epoch, "loss": loss, **more})
            self._losses = []

    def _append(self, name: str, row: dict[str, Any]) -> None:
        finite = {key: value if math.isfinite(value) else None for key, value in row.items()}
        with open(self.folder / name, "a", encoding="utf-8") as file:
            file.write(json.dumps(finite) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a history; a last line that was cut short is left out.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is of another shape; the message is one line with the remedy.
    """
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not _is_row(row, path.name):
            raise ValueError(f"{path} is damaged (line {number} is none of its rows): remove it or train again")
        rows.append(row)
    return rows


def validation(row: Mapping[str, Any]) -> float | None:
    """The figure by which the best epoch is found, of a line of the history; None of an epoch that was not tested."""
    return row.get("val_nll", row.get("val_loss"))


def _is_row(row: Any, name: str) -> bool:
    """Whether a line holds nothing but numbers, and those that every line of this file has."""
    if not isinstance(row, dict) or not all(isinstance(value, int | float | None) for value in row.values()):
        return False
    counts = {HISTORY: ("epoch",), TRAIN_LOSS: ("epoch", "step")}.get(name, ())
    return all(isinstance(row.get(count), int) for count in counts) and (name != TRAIN_LOSS or "loss" in row)


def _keep(path: Path, kept: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    rows = list(filter(kept, read_rows(path))) if path.exists() else []
    if rows:
        with replacing(path) as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    else:
        path.unlink(missing_ok=True)
    return rows

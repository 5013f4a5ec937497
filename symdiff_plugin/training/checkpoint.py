"""Checkpoints from which a run goes on exactly: one file, whole or not there, of tensors and plain values.

EDM saves a model when its validation NLL improves, in several files, and its ``--resume`` reads others than it
writes. Here everything that decides the next step is kept: the model, its moving average, the optimiser, the queue
of gradient norms, the best NLLs, the state of every random generator, the arguments and, inside an epoch, how much of
it is done and in what order its data come.
"""

from __future__ import annotations

import pickle
import random
import shutil
import warnings
import zipfile
import zlib
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import nn

from symdiff_plugin.common.files import Changes, replacing
from symdiff_plugin.common.weights import finite
from symdiff_plugin.training.history import HISTORY, TRAIN_LOSS, read_rows, validation
from symdiff_plugin.training.host_reads import read
from symdiff_plugin.training.run_config import read_config

FILE_NAME = "checkpoint.pt"
_FORMAT = 2
_READ = (1, 2)  # 1: of an epoch's end, always
NO_NLL = (1e8, 1e8)  # EDM's, before a first test
_KEYS = ("epoch", "args", "model", "model_ema", "optim", "queue", "best_nll", "rng")
# What a group of the optimiser's parameters does not take over from a checkpoint: the flags' and the implementation.
_NOT_RESTORED = ("lr", "initial_lr", "weight_decay", "fused", "foreach", "capturable", "differentiable")
# What EDM writes at the epoch of the best validation NLL, beside args.pickle.
BEST_FILES = ("generative_model.npy", "generative_model_ema.npy", "optim.npy")
# All that a run writes while it trains, and what is made of it: what --overwrite replaces.
RUN_FILES = (*BEST_FILES, "args.pickle", FILE_NAME, HISTORY, TRAIN_LOSS, "metrics.json")
_UNREADABLE = (OSError, RuntimeError, ValueError, EOFError, KeyError)


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or of another model; the message is one line, with the remedy."""


@dataclass
class TrainingState:
    """What a training loop carries from one epoch to the next.

    Attributes:
        model, model_ema: the model and its moving average; the same object where there is none.
        optim: the optimiser.
        queue: EDM's queue of gradient norms.
        best_nll: best validation NLL and the test NLL of that epoch.
    """

    model: nn.Module
    model_ema: nn.Module
    optim: torch.optim.Optimizer
    queue: Any
    best_nll: tuple[float, float] = NO_NLL


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint that ``path``, a run's folder or the file itself, stands for; it need not be there."""
    path = Path(path)
    return path if path.suffix == ".pt" else path / FILE_NAME


def why_missing(path: Path, last: str | None = None) -> str:
    """Why the weights of a run's best epoch are not there, and what to do, in one line.

    Args:
        path: where they should be, in the folder of a run.
        last: how to ask for those of the last epoch, which ``checkpoint.pt`` holds; None if it cannot be done.
    """
    folder = path.parent
    try:
        rows = read_rows(folder / HISTORY)
        saves = read_config(folder)["args"].get("save_model", True)
    except (OSError, ValueError):  # of a run that has not begun, or is damaged: said by whoever needs it
        rows, saves = [], True
    tested = [validation(row) for row in rows if "val_nll" in row or "val_loss" in row]
    again = "train again with a smaller --lr, and check the data"
    go_on = f"go on with the training (--resume {folder})" if find_checkpoint(folder).is_file() else "train it"
    if last is not None and find_checkpoint(folder).is_file():
        go_on = f"take those of the last epoch with {last}, or {go_on}"
    if not saves:
        return f"{path} is missing: the run was trained with --save_model False; train again without it"
    if tested and not any(nll is not None and nll < NO_NLL[0] for nll in tested):
        return f"{path} is missing: no validation NLL of the run was a number, or below 1e8; {again}"
    if tested:
        return f"{path} is missing, though the run was tested: restore it, or {go_on}"
    return f"{path} is missing: no epoch of the run has been tested yet; {go_on}"


@dataclass
class Position:
    """Where a run is: between two steps, at the state of the random generators that the next one begins with.

    Attributes:
        epoch: it is in, or begins with.
        done: batches of the epoch that are behind it.
        batch_size: of this epoch's batches.
        order: state of torch's CPU generator at the beginning of the epoch, from which its order is drawn.
        losses: of the batches that are done, as EDM keeps them to report their mean.
        rng: see :func:`rng_state`; None for the generators' present state.
        history: see :meth:`symdiff_plugin.training.history.History.inside`.
    """

    epoch: int
    done: int = 0
    batch_size: int = 0
    order: torch.Tensor | None = None
    losses: list[Any] = field(default_factory=list)
    rng: dict[str, Any] | None = None
    history: dict[str, Any] | None = None

    @property
    def inside(self) -> bool:
        """Whether something of the epoch is done."""
        return self.done > 0


def save_checkpoint(path: Path, state: TrainingState, args: Namespace, position: Position) -> None:
    """Write a checkpoint.

    Args:
        path: the file; an earlier one is replaced once the new one is complete.
        state: what to keep.
        args: the run's arguments, plain values.
        position: where a resumed run goes on.

    Raises:
        OSError: it cannot be written; an earlier one is untouched.
    """
    with replacing(path, "wb") as file:
        write_tensors(_record(state, args, position), file)


def _record(state: TrainingState, args: Namespace, position: Position) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "epoch": position.epoch,
        "inside": _inside(position) if position.inside else None,
        "args": dict(vars(args)),
        "model": state.model.state_dict(),
        "model_ema": None if state.model_ema is state.model else state.model_ema.state_dict(),
        "optim": state.optim.state_dict(),
        "queue": [float(norm) for norm in state.queue.items],
        "best_nll": [float(nll) for nll in state.best_nll],
        "rng": position.rng or rng_state(),
    }


def _inside(position: Position) -> dict[str, Any]:
    return {
        "done": position.done,
        "batch_size": position.batch_size,
        "order": position.order,
        "losses": torch.tensor(read(*position.losses), dtype=torch.float64),
        "history": position.history,
    }


def _position(record: dict[str, Any]) -> Position:
    """Where a checkpoint is. Raises KeyError, TypeError or AttributeError if it is of another shape."""
    inside = record.get("inside")
    if inside is None:
        return Position(record["epoch"], rng=record["rng"])
    history = {name: inside["history"][name] for name in ("step", "losses", "row", "seconds", "cpu_seconds")}
    return Position(
        record["epoch"], int(inside["done"]), int(inside["batch_size"]), inside["order"],
        list(read(*inside["losses"].tolist())), record["rng"], history,
    )  # fmt: skip


class _Telling:
    """A file that remembers why it could not be written, which torch does not pass on."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def write_tensors(record: Any, file: IO[bytes]) -> None:
    """``torch.save`` that fails with the system's own error.

    Raises:
        OSError: it cannot be written.
    """
    telling = _Telling(file)
    try:
        torch.save(record, telling)  # type: ignore[arg-type]  # which asks for no more than these two methods
    except (RuntimeError, OSError) as error:  # torch's report of a failed write is of its own
        raise (telling.error or OSError(str(error))) from error


def load_checkpoint(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in it is executed.

    Args:
        path: the file.
        mmap: leave the tensors on the disk, where only plain values are wanted.

    Raises:
        CheckpointError: it is missing, damaged or no checkpoint of ours, or its weights are not finite.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {path}: give --resume the folder of a run that has one")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is cut short or no checkpoint: resume from another one")
    try:
        if not mmap:
            with zipfile.ZipFile(path) as archive:  # torch itself does not look at the checksums
                if archive.testzip() is not None:
                    raise zipfile.BadZipFile
        record = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (*_UNREADABLE, zlib.error, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} is damaged or no checkpoint: resume from another one") from error
    ours = isinstance(record, dict) and record.get("format") in _READ and all(key in record for key in _KEYS)
    if not ours or not isinstance(record["epoch"], int) or not isinstance(record["args"], dict):
        raise CheckpointError(f"{path} is no checkpoint of this version of symdiff_plugin: resume from another one")
    if not mmap:
        try:
            for key in ("model", "model_ema"):
                finite(record[key] or {}, path)
        except ValueError as error:
            raise CheckpointError(str(error)) from error
    return record


def restore(path: Path, state: TrainingState, args: Namespace) -> Position:
    """Put a checkpoint back into a training loop that has just been set up.

    The learning rate, the weight decay and the optimiser's implementation stay those of ``args``.

    Args:
        path: the file.
        state: changed in place, last of all the random generators.
        args: the arguments of the run that goes on.

    Returns:
        Where to go on.

    Raises:
        CheckpointError: it is missing, damaged or of another model.
    """
    record = load_checkpoint(path)
    kept = [{k: v for k, v in group.items() if k in _NOT_RESTORED} for group in state.optim.param_groups]
    try:
        # Before they are loaded, because torch puts the counts of steps where the implementation needs them.
        for group, ours in zip(record["optim"]["param_groups"], kept, strict=True):
            group.update(ours)
        state.model.load_state_dict(record["model"])
        if state.model_ema is not state.model:
            state.model_ema.load_state_dict(record["model_ema"] or record["model"])
        state.optim.load_state_dict(record["optim"])
        queue = list(map(float, record["queue"]))
        best_val, test_then = map(float, record["best_nll"])
        position = _position(record)
        set_rng_state(record["rng"])
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is of another model than --model {args.model} with these flags: give the flags it was trained with"
        ) from error
    state.queue.items[:] = queue
    state.best_nll = best_val, test_then
    return position


def best_weights(args: Any) -> str:
    """The file that EDM's evaluation takes: the moving average of the epoch of the best validation NLL."""
    return "generative_model_ema.npy" if getattr(args, "ema_decay", 0) > 0 else "generative_model.npy"


def carry_along(source: Path, target: Path, args: Namespace, state: TrainingState, position: Position) -> None:
    """Give the folder of a run that goes on under another name its past, all or none of it.

    That is the best weights, the history, and the checkpoint.

    Args:
        source: the folder that it comes from.
        target: the new one; what it has of these files is replaced.
        args: of the run that goes on; EDM's evaluation scripts find them pickled beside the weights.
        state, position: of its checkpoint.

    Raises:
        OSError: a file cannot be read or written.
    """
    changes = Changes(target)
    try:
        for name in (*BEST_FILES, HISTORY, TRAIN_LOSS):
            if (source / name).is_file():
                with open(source / name, "rb") as old:
                    shutil.copyfileobj(old, changes.open(name))
            else:
                changes.remove(name)
        if (source / best_weights(args)).is_file():
            pickle.dump(args, changes.open("args.pickle"))
        write_tensors(_record(state, args, position), changes.open(FILE_NAME))
        changes.commit()
    finally:
        changes.discard()


def rng_state() -> dict[str, Any]:
    """The state of torch's (CPU and every GPU), NumPy's and Python's global generators."""
    numpy = np.random.get_state(legacy=False)
    keys = numpy["state"]["key"].astype(np.int64)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [
            numpy["bit_generator"],
            torch.from_numpy(keys),
            numpy["state"]["pos"],
            numpy["has_gauss"],
            numpy["gauss"],
        ],
        "python": random.getstate(),
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Undo :func:`rng_state`; GPUs are left alone, with a warning, where their number is another now."""
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    else:
        warnings.warn("another number of GPUs than before: their random numbers start afresh", stacklevel=2)
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))

"""What a run left in its folder, read: its arguments and its weights, whoever trained it."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from symdiff_plugin.common.errors import EvaluationError
from symdiff_plugin.common.weights import read_state_dict
from symdiff_plugin.training import args_pickle, released
from symdiff_plugin.training import checkpoint as checkpoints
from symdiff_plugin.training.run_config import CONFIG

# Of the arguments of a run, what is read here; what its model needs is found lacking when that is built.
_NEEDED = (
    "model", "dataset", "batch_size", "conditioning", "remove_h", "include_charges", "num_workers", "filter_n_atoms",
    "diffusion_steps",
)  # fmt: skip


def read_arguments(folder: Path) -> argparse.Namespace:
    """The arguments of the run in ``folder``; see :func:`symdiff_plugin.training.released.read_configuration`.

    Raises:
        EvaluationError: they are missing, or describe no run.
    """
    if not folder.is_dir():
        raise EvaluationError(f"{folder} is not there: give the folder of a run, such as outputs/symdiff")
    try:
        args = argparse.Namespace(**released.read_configuration(folder)["args"])
    except FileNotFoundError as error:
        raise EvaluationError(
            f"{folder} has neither {CONFIG} nor {args_pickle.FILE_NAME}: give the folder of a run of main_qm9.py, "
            "main_geom_drugs.py or of the authors' release"
        ) from error
    except (OSError, ValueError) as error:
        raise EvaluationError(str(error)) from error
    lacking = [name for name in _NEEDED if not hasattr(args, name)]
    if lacking:
        raise EvaluationError(f"{folder}: its configuration lacks {lacking[0]!r}: train again")
    return args


def read_weights(
    folder: Path, name: str, last: str = f"--checkpoint {checkpoints.FILE_NAME}"
) -> dict[str, torch.Tensor]:
    """The state dict in the file ``name`` of a run, on the CPU; the moving average, if it is ``checkpoint.pt``.

    EDM's best weights are those of the epoch whose validation NLL was lowest, a noisy estimate: once epochs differ by
    less than its error, those of the last epoch may be the better ones.

    Args:
        folder: of the run.
        name: of the file in it.
        last: how the command that reads them is told to take those of the last epoch.

    Raises:
        EvaluationError: it is missing, damaged, or holds something else.
    """
    path = folder / name
    if name == checkpoints.FILE_NAME:
        try:
            record = checkpoints.load_checkpoint(path)
        except checkpoints.CheckpointError as error:
            raise EvaluationError(str(error)) from error
        return record["model"] if record["model_ema"] is None else record["model_ema"]
    if not path.is_file():
        raise EvaluationError(checkpoints.why_missing(path, last))
    try:
        state = read_state_dict(path)
        return released.whole_model(state) if released.is_release(state) else state
    except ValueError as error:
        raise EvaluationError(str(error)) from error

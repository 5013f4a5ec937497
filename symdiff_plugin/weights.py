"""State dicts: read as tensors alone, and compared with a model by name and shape before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from symdiff_plugin import checkpoint
from symdiff_plugin.history import HISTORY, read_rows
from symdiff_plugin.run_config import read_config


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict in a file that ``torch.save`` wrote, on the CPU; nothing in it is executed.

    Raises:
        ValueError: the file is damaged or holds something else; one line without a remedy, which is the caller's.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its readers of zip, pickle and old formats raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} is damaged or holds no weights ({reason[:80]})") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{path} holds no weights of a model")
    return weights


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
    tested = [row["val_nll"] for row in rows if "val_nll" in row]
    again = "train again with a smaller --lr, and check the data"
    go_on = f"go on with the training (--resume {folder})" if checkpoint.find(folder).is_file() else "train it"
    if last is not None and checkpoint.find(folder).is_file():
        go_on = f"take those of the last epoch with {last}, or {go_on}"
    if not saves:
        return f"{path} is missing: the run was trained with --save_model False; train again without it"
    if tested and not any(nll is not None and nll < checkpoint.NO_NLL[0] for nll in tested):
        return f"{path} is missing: no validation NLL of the run was a number, or below 1e8; {again}"
    if tested:
        return f"{path} is missing, though the run was tested: restore it, or {go_on}"
    return f"{path} is missing: no epoch of the run has been tested yet; {go_on}"


def mismatch(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """The first tensor that is missing, unknown or of another shape, in words; None if all fit."""
    wanted, given = ({name: tuple(value.shape) for name, value in state.items()} for state in (expected, found))
    odd = next((name for name in (*wanted, *given) if wanted.get(name) != given.get(name)), None)
    if odd is None:
        return None
    return f"{odd} should be {wanted.get(odd, 'absent')} and is {given.get(odd, 'absent')}"

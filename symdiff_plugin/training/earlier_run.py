"""An earlier run in the folder of a new one: it goes on or is given up, and only where that is said."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from symdiff_plugin.common import lock
from symdiff_plugin.training import checkpoint
from symdiff_plugin.training.history import HISTORY


def why_spared(args: Namespace) -> str | None:
    """Why a run with these arguments must not begin, in one line with the remedy; None if it may.

    Args:
        args: ``exp_name``, ``overwrite``, ``resume`` as it was given and ``resume_from``, the checkpoint found for it.
    """
    folder = Path("outputs") / str(args.exp_name)
    if (folder / lock.FILE_NAME).exists():
        try:
            lock.Lock(folder, "training").release()  # the run takes it itself; here it is said before data are read
        except (lock.LockedError, OSError) as error:
            return str(error)
    goes_on = args.resume_from is not None and Path(args.resume_from).resolve().parent == folder.resolve()
    if goes_on:
        return f"--overwrite would remove {args.resume_from}: leave out it or --resume" if args.overwrite else None
    if args.overwrite:
        return None
    weights = [name for name in checkpoint.BEST_FILES if (folder / name).exists()]
    has_checkpoint = (folder / checkpoint.FILE_NAME).exists()
    anew = "train anew with --overwrite, which removes it, or under another --exp_name"
    if args.resume == "auto":  # there is no checkpoint then
        gone = f"{folder} has weights but no {checkpoint.FILE_NAME} to go on from: restore that, or {anew}"
        return gone if weights else None
    if has_checkpoint:
        return f"{folder} holds a run: go on with it by --resume {folder}, or {anew}"
    if weights or (folder / HISTORY).exists():
        return f"{folder} holds a run: {anew}"
    return None

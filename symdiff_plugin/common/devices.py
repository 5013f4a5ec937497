"""The device that a command line names."""

from __future__ import annotations

import torch

from symdiff_plugin.common.errors import EvaluationError, first_line
from symdiff_plugin.common.kinds import DEVICE


def usable_device(name: str | None) -> torch.device:
    """The device called ``name``; a GPU if there is one, by default.

    Raises:
        EvaluationError: there is no such device here.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if fault := DEVICE.fault(name):
        raise EvaluationError(f"--device {fault}")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error).split(". ")[0][:100]
        raise EvaluationError(f"--device {name} cannot be used here ({reason}): leave it out, or give cpu") from error
    return device

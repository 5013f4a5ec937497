"""State dicts: read as tensors alone, finite, and compared with a model by name and shape before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

Weights = TypeVar("Weights", bound=Mapping[str, Tensor])


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict in a file that ``torch.save`` wrote, on the CPU; nothing in it is executed.

    Raises:
        ValueError: the file is damaged or holds something else, or weights that are not finite; one line without a
            remedy, which is the caller's.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its readers of zip, pickle and old formats raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} is damaged or holds no weights ({reason[:80]})") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{path} holds no weights of a model")
    return finite(weights, path)


def finite(weights: Weights, path: str | Path) -> Weights:
    """``weights`` as they are, once it is known that all of them are numbers; whatever reads weights calls it.

    Raises:
        ValueError: NaN or an infinity among them; one line that names ``path``, where they are from, and the tensor.
    """
    odd = next((name for name, value in weights.items() if not value.isfinite().all()), None)
    if odd is not None:
        raise ValueError(f"{path} holds weights that are not finite, in {odd}: the training diverged, take others")
    return weights


def mismatch(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """The first tensor that is missing, unknown or of another shape, in words; None if all fit."""
    wanted, given = ({name: tuple(value.shape) for name, value in state.items()} for state in (expected, found))
    odd = next((name for name in (*wanted, *given) if wanted.get(name) != given.get(name)), None)
    if odd is None:
        return None
    return f"{odd} should be {wanted.get(odd, 'absent')} and is {given.get(odd, 'absent')}"

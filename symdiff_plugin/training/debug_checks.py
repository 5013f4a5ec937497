"""Checks that make the host wait for the device: upstream makes them at every step, here ``--debug_checks`` does.

They are EDM's assertions that padding is zero and that positions have zero centre of mass, and its message when the
EGNN's output is NaN: some ten host reads a step in training as in sampling. Nothing that is computed depends on them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_enabled = False


def checking() -> bool:
    """Whether the checks are made."""
    return _enabled


def enable_checks(enabled: bool = True) -> None:
    """Make the checks from now on, in this process; or, with False, leave them out."""
    global _enabled
    _enabled = enabled


def debug_check(check: Callable[..., None]) -> Callable[..., None]:
    """Decorate an assertion of EDM's: it is made only while :func:`checking`."""

    @functools.wraps(check)
    def made(*args: Any, **kwargs: Any) -> None:
        if checking():
            check(*args, **kwargs)

    return made


def zeros_if_nan(velocity: Tensor) -> Tensor:
    """Zeros if there is a NaN anywhere in ``velocity`` (of any shape), else ``velocity``.

    It is decided on the device. That it happened is printed, in EDM's words, only while :func:`checking`.
    """
    found = velocity.isnan().any()
    if checking() and found:
        print("Warning: detected nan, resetting EGNN output to zero.")
    return torch.where(found, torch.zeros_like(velocity), velocity)

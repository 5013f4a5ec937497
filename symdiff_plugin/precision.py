"""Where the networks compute in bfloat16."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def autocast(device_type: str, enabled: bool) -> AbstractContextManager[None]:
    """bfloat16 autocast on or off; nothing on devices that have none, such as ``meta``."""
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, torch.bfloat16, enabled=enabled)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type in which a Linear would compute on ``x``: autocast's where it is on, else that of ``x``."""
    kind = x.device.type
    if x.dtype == torch.float32 and torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype

"""Where the networks compute in bfloat16."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def autocast(device_type: str, enabled: bool) -> AbstractContextManager[None]:
    """bfloat16 autocast on or off; nothing on devices that have none, such as ``meta``."""
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, torch.bfloat16, enabled=enabled)

"""Moving data between the host and the device so that neither waits for the other more often than it must.

A GPU runs behind the host, which queues work for it. Reading one of its numbers, or copying to it from ordinary
memory, makes the host wait until the queue is empty; then the GPU idles until the host has queued more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# What EDM's training loop takes from a batch, besides the properties of --conditioning.
_INPUTS = ("positions", "one_hot", "charges", "atom_mask", "edge_mask")


def read(*scalars: Tensor | float) -> list[np.float64]:
    """The values of ``scalars``, tensors of one element on one device, in a single transfer; floats are passed on.

    NumPy's float64 is a float that also has ``item()``, which EDM's report calls.
    """
    tensors = [scalar.detach().reshape(()) for scalar in scalars if isinstance(scalar, Tensor)]
    values = iter(torch.stack(tensors).tolist() if tensors else ())
    return [np.float64(next(values) if isinstance(scalar, Tensor) else scalar) for scalar in scalars]


class Arriving:
    """A number of the device's on its way to the host, which goes on meanwhile.

    Args:
        scalar: a tensor of one element.
    """

    def __init__(self, scalar: Tensor) -> None:
        self._event = None
        self._value = scalar.detach().reshape(())
        if scalar.is_cuda:
            self._value = torch.empty_like(self._value, device="cpu", pin_memory=True)
            self._value.copy_(scalar.detach().reshape(()), non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(scalar.device))

    @property
    def there(self) -> bool:
        """Whether reading it makes nobody wait because it never left the host."""
        return self._event is None

    def value(self) -> float:
        """The number; waits if it has not arrived."""
        if self._event is not None:
            self._event.synchronize()
        return self._value.item()


def to_device(batch: dict[str, Tensor], device: torch.device, properties: Sequence[str] = ()) -> dict[str, Tensor]:
    """``batch`` with what the training loop takes from it on its way to ``device``; the host does not wait.

    Args:
        batch: as EDM's data loaders make it.
        device: a GPU; elsewhere the batch is returned as it is.
        properties: further keys to move.
    """
    if torch.device(device).type != "cuda":
        return batch
    moved = dict(batch)
    for key in (*_INPUTS, *properties):
        if key in batch and not batch[key].is_cuda:
            moved[key] = batch[key].pin_memory().to(device, non_blocking=True)  # from other memory it would block
    return moved

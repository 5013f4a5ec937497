"""How often a piece of work makes the host wait for the device.

A GPU runs behind the host, and each number that the host wants of it empties the queue between them. Which operations
do so can be seen on a CPU as well, where nothing waits: they are those that hand a tensor's content to Python or make a
tensor whose size depends on it.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.profiler_util import FunctionEvent
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile, record_function

# Operations that read, as torch's profiler names them. One may call another, and then the outer one counts.
_OPERATIONS = {
    f"aten::{name}"
    for name in (
        "_local_scalar_dense", "item", "is_nonzero", "equal", "allclose",
        "nonzero", "nonzero_numpy", "argwhere", "masked_select", "bincount",
        "_unique", "_unique2", "unique_dim", "unique_consecutive",
    )
}  # fmt: skip
# Methods that the profiler does not see, or not on a CPU.
_METHODS = {
    getattr(Tensor, name): f"Tensor.{name}" for name in ("tolist", "numpy", "cpu", "to", "__array__", "__dlpack__")
}
_READS = _OPERATIONS | set(_METHODS.values())
CUDA = "torch.cuda.set_sync_debug_mode"


def count_synchronisations(step: Callable[[], object]) -> dict[str, int]:
    """Run ``step`` once and count what makes the host wait.

    The steps that an optimiser counts lie on the host; what reads them is left out. So is, on a CPU, a copy from the
    host to the device, for there it is none.

    Args:
        step: the work; call it once before, so that what is computed only once is not counted.

    Returns:
        The number of reads by operation or method, for example ``{"aten::item": 1}``; empty if there was none. With
        a GPU also, under :data:`CUDA`, the synchronisations that torch warns of, of which the reads are a part.
    """
    with _synchronisations_of_cuda() as warned, profile(activities=[ProfilerActivity.CPU]) as profiled, _Methods():
        step()
    counts = Counter(event.name for event in profiled.events() if event.name in _READS and _counts(event))
    if warned:
        counts[CUDA] = sum("synchronizing CUDA operation" in str(warning.message) for warning in warned)
    return {name: count for name, count in counts.items() if count}


class _Methods(TorchFunctionMode):
    """Marks calls of ``_METHODS`` for the profiler."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = _METHODS.get(function)
        if name is None or (name == "Tensor.to" and not _is_to_the_host(*args[1:], **kwargs)):
            return function(*args, **kwargs)
        with record_function(name):
            return function(*args, **kwargs)


def _is_to_the_host(*args: Any, **kwargs: Any) -> bool:
    """Whether ``Tensor.to`` is told "cpu"; a ``torch.device`` of the CPU is, in a run there, *the* device."""
    target = kwargs.get("device", args[0] if args else None)
    return isinstance(target, str) and target.startswith("cpu")


def _counts(event: FunctionEvent) -> bool:
    parent = event.cpu_parent
    while parent is not None:
        if parent.name in _READS or parent.name.startswith("Optimizer.step#"):
            return False
        parent = parent.cpu_parent
    return True


@contextmanager
def _synchronisations_of_cuda() -> Iterator[list[warnings.WarningMessage]]:
    """Collect torch's warnings of them, where there is a GPU."""
    if not torch.cuda.is_available():
        yield []
        return
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield caught
        finally:
            torch.cuda.set_sync_debug_mode(before)

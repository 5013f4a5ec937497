"""Slices of rows whose temporaries stay in a CPU's cache.

A chain of elementwise operations on a tensor larger than the cache reads and writes main memory once for each of
them; on a slice at a time, only its first input and its last output. Other devices are best served whole.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import device as Device

# Elements of a temporary: a mebibyte in float32. Smaller ones cost more in starting threads than they save.
CPU_ELEMENTS = 1 << 18


def row_slices(rows: int, width: int, device: Device, elsewhere: int | None = None) -> Iterator[slice]:
    """Slices of ``range(rows)``, each of at least one row.

    Args:
        rows: how many there are.
        width: elements a row of the largest temporary.
        device: of the tensors.
        elsewhere: elements of a temporary on other devices than the CPU; all at once if not given.
    """
    limit = CPU_ELEMENTS if device.type == "cpu" else elsewhere
    step = max(1, rows if limit is None else limit // max(1, width))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))

"""Loaders whose processes start from anywhere.

Where processes are spawned (macOS) or started by a server (Linux from Python 3.14 on), each first imports the main
script. EDM's main scripts do all their work at import: the process would parse the command line, load the data and ask
for processes of its own, which ends in a RuntimeError. A loader's process needs nothing of the main script.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils import data


@contextmanager
def main_set_aside() -> Iterator[None]:
    """While it lasts, processes that are started find no main module to import."""
    main = vars(sys.modules["__main__"])
    kept: dict[str, Any] = {name: main[name] for name in ("__file__", "__spec__") if name in main}
    main.update(dict.fromkeys(kept))
    try:
        yield
    finally:
        main.update(kept)


class DataLoader(data.DataLoader):
    """torch's loader; ``--num_workers`` processes start without the main script."""

    def __iter__(self) -> Any:
        with main_set_aside():  # it starts them all before it returns
            return super().__iter__()

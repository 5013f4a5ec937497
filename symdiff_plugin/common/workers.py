"""Loaders whose processes start from anywhere.

Where processes are spawned (macOS) or started by a server (Linux from Python 3.14 on), each first imports the main
script. EDM's main scripts do all their work at import: the process would parse the command line, load the data and ask
for processes of its own, which ends in a RuntimeError. A loader's process needs nothing of the main script.
"""

from __future__ import annotations

import copy
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from torch.utils import data

# Signals that end a training, which the main process answers.
ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)]


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


def leave_signals_to_main(worker: int) -> None:
    """Let process number ``worker`` of a loader live through a signal that went to the whole group of processes.

    Not through SIGTERM, which is how the main process ends it.
    """
    for number in ENDING:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)


class DataLoader(data.DataLoader):
    """torch's loader; ``--num_workers`` processes start without the main script, and Ctrl-C is not theirs."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "worker_init_fn": leave_signals_to_main})

    def __iter__(self) -> Any:
        with main_set_aside():  # it starts them all before it returns
            return super().__iter__()


def rest_of(loader: data.DataLoader, done: int, batch_size: int) -> data.DataLoader:
    """``loader`` without the first ``done`` batches of an epoch, which are drawn from the sampler but not read.

    It takes the random numbers that ``loader`` takes, at the same moments.

    Args:
        loader: one that makes batches.
        done: how many to leave out.
        batch_size: what the epoch's batches hold; ``loader``'s own may have become another since.
    """
    batches: Any = copy.copy(loader.batch_sampler)
    batches.batch_size = batch_size
    rest = copy.copy(loader)
    vars(rest)["batch_sampler"] = _Rest(batches, done)  # torch refuses to have it set
    return rest


class _Rest(data.Sampler[list[int]]):
    def __init__(self, batches: Any, done: int) -> None:
        self.batches = batches
        self.done = done

    def __iter__(self) -> Iterator[list[int]]:
        return islice(self.batches, self.done, None)

    def __len__(self) -> int:
        return len(self.batches) - self.done

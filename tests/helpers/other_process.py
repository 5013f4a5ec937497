"""A second process beside the tests' own, forked from it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def in_another_process(work: Callable[[], object]) -> int:
    """The number of a process that did ``work`` and lives."""
    ready, done = os.pipe()
    if process := os.fork():
        os.read(ready, 1)
        return process
    try:
        work()
    finally:
        os.write(done, b".")
        signal.pause()
        os._exit(0)


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)

"""Signals that end a training: its running step is finished and kept, and one line says how to go on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from symdiff_plugin.common.workers import ENDING

# Within so many seconds a second signal is the first one come twice: to the group of processes, and from a script.
_TWICE = 1.0


class Interrupts:
    """Answers SIGINT (Ctrl-C), SIGTERM, SIGUSR1 and SIGHUP from now on; a second one ends the process at once.

    Those that the process was started to ignore, as by nohup, it goes on to ignore.

    Args:
        end: called with the signal where the training can end; it must not return.

    Attributes:
        waiting: whether a signal waits for the next :meth:`check`, as within a step; else it is answered at once.
    """

    def __init__(self, end: Callable[[signal.Signals], NoReturn]) -> None:
        self.waiting = False
        self._end = end
        self._came: signal.Signals | None = None
        self._at = 0.0
        self._process = os.getpid()
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def check(self) -> None:
        """Answer a signal that has come."""
        if self._came is not None:
            self._end(self._came)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a process that was forked from it
            return
        now = time.monotonic()
        if self._came is None:
            self._came, self._at = signal.Signals(number), now
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a loader's process may have died of it: torch would raise
            if not self.waiting:
                self.waiting = True  # not to be answered again while it is
                self._end(self._came)
        elif now - self._at >= _TWICE:
            signal.signal(number, signal.SIG_DFL)
            os.kill(self._process, number)

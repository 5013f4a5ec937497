"""Ctrl-C during training: one line instead of a traceback."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

from symdiff_plugin.training import checkpoint


def explain_interrupts(folder: Path) -> None:
    """From now on let an interrupted process end with one line on stderr that says how to go on.

    It still dies of the signal, as a shell expects (status 130); every other exception is reported as before.

    Args:
        folder: the run's.
    """
    report = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            report(kind, error, traceback)
        elif checkpoint.find_checkpoint(folder).exists():
            print(f"interrupted; --resume {folder} goes on from the last checkpoint", file=sys.stderr)
        else:
            print("interrupted before the first checkpoint; start again", file=sys.stderr)

    sys.excepthook = hook

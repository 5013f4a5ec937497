"""EDM's scripts in processes forked from the tests' own, which import nothing again, ended at a chosen moment."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path
from typing import Any

from runs import Workplace

from symdiff_plugin.training.tracker import Tracker

_spec = importlib.util.spec_from_file_location("kills", Path(__file__).parents[2] / "scripts/kills.py")
kills = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(kills)


def run_forked(
    place: Workplace, script: str, *flags: object, stop: tuple[signal.Signals, str, int] | None = None
) -> tuple[int, list[str]]:
    """Exit status as a shell has it, and the lines on stderr.

    Args:
        place: where to run.
        script: of EDM.
        flags: its command line.
        stop: a signal that the run's group of processes gets when a key was logged so many times.
    """
    errors = place.folder / "stderr"

    def prepare() -> None:
        os.chdir(place.folder)
        os.setsid()
        sys.stdout, sys.stderr = open(os.devnull, "w"), open(errors, "w")  # noqa: SIM115 - not pytest's
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):  # some may be ignored here
            signal.signal(number, signal.SIG_DFL)
        if stop is not None:
            _stop_at(*stop)

    status = kills.end_of(kills.start(place.edm / script, flags, prepare))
    return status, errors.read_text().splitlines()


def _stop_at(cause: signal.Signals, key: str, count: int) -> None:
    log, left = Tracker.log, count

    def stopping(self: Tracker, record: dict[str, Any], **options: Any) -> None:
        nonlocal left
        log(self, record, **options)
        left -= key in record
        if left == 0:
            left = -1
            os.killpg(os.getpid(), cause)

    Tracker.log = stopping  # type: ignore[method-assign]

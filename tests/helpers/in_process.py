"""A command line called in the process of the tests."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence

import pytest


def call(
    main: Callable[[Sequence[str]], int], capsys: pytest.CaptureFixture[str], *arguments: object
) -> subprocess.CompletedProcess[str]:
    """Exit status and what ``main`` printed, as of a process."""
    capsys.readouterr()
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse's way
        status = stop.code
    printed = capsys.readouterr()
    return subprocess.CompletedProcess([], status, printed.out, printed.err)

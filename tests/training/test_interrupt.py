"""Ctrl-C: one line and the shell's status, in place of a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import SHORT, TINY, Workplace

from symdiff_plugin.training.interrupt import explain_interrupts


@pytest.mark.edm
def test_an_interrupted_training_says_how_to_go_on(workplace: Workplace, qm9_slice: Path) -> None:
    folder = workplace.output("interrupted")
    flags = (*TINY, *SHORT, "--n_epochs", 10**6, "--test_epochs", 10**6, "--exp_name", "interrupted")
    process = subprocess.Popen(
        [sys.executable, workplace.edm / "main_qm9.py", "--model", "symdiff", "--datadir", qm9_slice, *map(str, flags)],
        cwd=workplace.folder, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # it may be ignored here
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not (folder / "checkpoint.pt").exists() and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, printed = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGINT  # 130 to a shell
    lines = [line for line in printed.splitlines() if "it/s" not in line]
    assert lines == ["interrupted; --resume outputs/interrupted goes on from the last checkpoint"]


@pytest.mark.parametrize(
    ("error", "line"),
    [(KeyboardInterrupt, "interrupted before the first checkpoint; start again"), (ValueError, "ValueError: mistake")],
)
def test_other_errors_are_reported_as_before(
    error: type[BaseException], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    explain_interrupts(tmp_path)
    sys.excepthook(error, error("mistake"), None)
    assert capsys.readouterr().err == f"{line}\n"

"""QM9 for the data tests: the full set, made once by the command, a small slice of it, and raw rows."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from in_process import call
from qm9_files import Command, Row, read_rows, run

from symdiff_plugin.data import write_slice
from symdiff_plugin.data.qm9 import main
from symdiff_plugin.data.qm9pack_source import find_qm9pack


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """The data command in this process: arguments in, exit status and what it printed out."""

    return partial(call, main, capsys)


@pytest.fixture(scope="session")
def qm9pack() -> Path:
    """The folder of qm9pack's CSV files."""
    folder = find_qm9pack()
    if folder is None:
        pytest.skip("needs qm9pack: pip install qm9pack")
    return folder


@pytest.fixture(scope="session")
def full(qm9pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A datadir with the full set. Not to be written to."""
    datadir = tmp_path_factory.mktemp("qm9") / "full"
    result = run("--datadir", datadir)
    assert result.returncode == 0, result.stderr
    assert f"{datadir}/qm9 (from qm9pack, content verified)" in result.stdout
    return datadir


@pytest.fixture
def small(full: Path, tmp_path: Path) -> Path:
    """A datadir with a slice of 40/10/10 molecules, to be spoilt at will."""
    write_slice(full, tmp_path / "small", 40, 10, 10)
    return tmp_path / "small"


@pytest.fixture(scope="session")
def rows(qm9pack: Path) -> list[Row]:
    """About 300 molecules as qm9pack has them, many with numbers in exponential notation."""
    return read_rows(qm9pack, n_plain=250, n_with_exponents=50)

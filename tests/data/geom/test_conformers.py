"""The array of atoms as a sequence of conformers."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from geom_conformers import make_molecules, write

from symdiff_plugin.data import DataError
from symdiff_plugin.data.geom import conformers as module
from symdiff_plugin.data.geom.conformers import Conformers
from symdiff_plugin.data.geom.layout import GeomFiles


@pytest.fixture
def files(tmp_path: Path) -> GeomFiles:
    return write(make_molecules(30), tmp_path)


def expected(files: GeomFiles) -> list[np.ndarray]:
    """The conformers as EDM finds them (build_geom_dataset.py:78-81), all in memory."""
    rows = np.load(files.data)
    ids = rows[:, 0].astype(int)
    return np.split(rows[:, 1:], np.nonzero(ids[:-1] - ids[1:])[0] + 1)


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("rows_at_once", [1 << 20, 101, 1])
def test_the_conformers_are_edms(
    files: GeomFiles, beside: bool, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", rows_at_once)
    if not beside:
        files.n_atoms.unlink()
    found, wanted = Conformers(files.data), expected(files)
    assert len(found) == len(wanted) > 40
    assert found.sizes.dtype == np.int64
    assert found.sizes.tolist() == [len(conformer) for conformer in wanted]
    assert all(map(np.array_equal, found, wanted))
    assert np.array_equal(found[-1], wanted[-1])
    with pytest.raises(IndexError):
        found[len(wanted)]


def test_a_conformer_is_a_view_that_cannot_be_written(files: GeomFiles) -> None:
    found = Conformers(files.data)
    assert not found[0].flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        found[0][0, 0] = 1


def test_a_pickle_leaves_the_data_out(files: GeomFiles) -> None:
    found = Conformers(files.data)
    content = pickle.dumps(found)
    assert len(content) < files.data.stat().st_size / 20
    again = pickle.loads(content)
    assert again.sizes.tolist() == found.sizes.tolist()
    assert all(map(np.array_equal, again, found))


@pytest.mark.parametrize(
    "sizes",
    [
        lambda n: n[:-1],
        lambda n: np.concatenate([n[1:], n[:1]]),  # the right sum
        lambda n: n.astype(float),
        lambda n: np.concatenate([n, [0]]),
    ],
)
def test_atoms_counts_of_other_data_are_left_aside(
    files: GeomFiles, sizes: object, capsys: pytest.CaptureFixture[str]
) -> None:
    n = np.load(files.n_atoms)
    np.save(files.n_atoms, sizes(n))
    assert Conformers(files.data).sizes.tolist() == n.tolist()
    assert "not of the data beside it" in capsys.readouterr().err


def spoilt(rows: np.ndarray, kind: str) -> np.ndarray:
    if kind == "a column short":
        return rows[:, :4]
    if kind == "single precision":
        return rows.astype(np.float32)
    if kind == "from one":
        return rows + np.array([1.0, 0, 0, 0, 0])
    if kind == "descending":
        return rows[::-1].copy()
    if kind == "a gap":
        return rows[rows[:, 0] != 2]
    if kind == "NaN":
        return np.where(np.arange(len(rows))[:, None] == 40, np.nan, rows)
    if kind == "by columns":
        return np.asfortranarray(rows)
    return rows[:0]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("a column short", r"is float64 \(\d+, 4\), not float64 \(atoms, 5\)"),
        ("single precision", r"is float32 \(\d+, 5\), not float64"),
        ("from one", "ids of its conformers begin with 1, not 0"),
        ("descending", r"ids of its conformers are not 0, 1, 2, ... ascending \(row 0\)"),
        ("a gap", r"not 0, 1, 2, ... ascending"),
        ("NaN", r"not 0, 1, 2, ... ascending \(row 40\)"),
        ("by columns", "not in one piece"),
        ("empty", "has no atoms"),
    ],
)
def test_what_is_no_such_array_is_refused(files: GeomFiles, kind: str, message: str) -> None:
    np.save(files.data, spoilt(np.load(files.data), kind))
    if kind == "NaN":
        files.n_atoms.unlink()  # with it, not every id is looked at
    with pytest.raises(DataError, match=message) as error:
        Conformers(files.data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"no array", b"half"])
def test_a_damaged_file_is_refused(files: GeomFiles, content: bytes) -> None:
    whole = files.data.read_bytes()
    files.data.write_bytes(whole[: len(whole) // 2] if content == b"half" else content)
    with pytest.raises(DataError, match="cut short or no array of atoms") as error:
        Conformers(files.data)
    assert "\n" not in str(error.value)
    files.data.unlink()
    with pytest.raises(DataError, match=r"make it with `python -m symdiff_plugin\.data\.geom convert`"):
        Conformers(files.data)


@pytest.mark.parametrize("odd", [np.nan, -np.inf, 1e6])
def test_an_atom_without_coordinates_is_refused_when_it_is_read(files: GeomFiles, odd: float) -> None:
    rows = np.load(files.data)
    rows[np.flatnonzero(rows[:, 0] == 2)[1], 3] = odd
    np.save(files.data, rows)
    found = Conformers(files.data)
    assert np.isfinite(found[1]).all()
    with pytest.raises(DataError, match="conformer 2 has coordinates that are not finite or beyond"):
        found[2]


MEMORY = """
import re, sys
import numpy as np
from symdiff_plugin.data.geom.conformers import Conformers
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
before = peak()
conformers = Conformers(sys.argv[1])
print(len(conformers), peak() - before, end=" ")
np.load(sys.argv[1], mmap_mode="r")[:, 0].max()  # all of one map
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_the_array_is_never_in_memory(tmp_path: Path) -> None:
    """400 MB of atoms without a file of counts, gone through in one pass."""
    n, size = 250_000, 40
    path = tmp_path / "large.npy"
    rows = np.lib.format.open_memmap(path, "w+", np.float64, (n * size, 5))
    for first in range(0, n, 10_000):
        ids = np.repeat(np.arange(first, first + 10_000), size)
        rows[first * size : (first + 10_000) * size] = np.stack([ids, *[np.ones(len(ids))] * 4], axis=1)
    rows.flush()
    done = subprocess.run([sys.executable, "-c", MEMORY, path], capture_output=True, text=True, check=True)
    count, mebibytes, of_one_map = done.stdout.split()
    assert int(count) == n
    assert float(mebibytes) < 150  # 40 for the atoms at hand, the rest for what NumPy makes of their ids
    assert float(of_one_map) > 300  # that the measurement can tell

"""What of a split's arrays is no molecule, and that each is said in one line with its molecule; QM9 itself passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from molecules import MOLECULES

from symdiff_plugin.data import SPLITS, DataError, check_datadir, load_split
from symdiff_plugin.data.plausible import NEEDED, _distances, check_split
from symdiff_plugin.data.schema import CHARGES

Arrays = dict[str, np.ndarray]
N = 29


def sound(n_molecules: int = 12) -> Arrays:
    """Real molecules in the arrays' layout, with one property."""
    chosen = [MOLECULES[i % len(MOLECULES)] for i in range(n_molecules)]
    arrays = {
        "num_atoms": np.array([len(molecule["symbols"]) for molecule in chosen]),
        "charges": np.zeros((n_molecules, N), dtype=np.int64),
        "positions": np.zeros((n_molecules, N, 3), dtype=np.float32),
        "alpha": np.linspace(1, 2, n_molecules, dtype=np.float32),
    }
    for row, molecule in enumerate(chosen):
        n = len(molecule["symbols"])
        arrays["charges"][row, :n] = [CHARGES[symbol] for symbol in molecule["symbols"]]
        arrays["positions"][row, :n] = molecule["positions"]
    return arrays


def put(key: str, place: tuple[int, ...], value: float) -> Callable[[Arrays], None]:
    """A change of one number."""

    def change(arrays: Arrays) -> None:
        arrays[key][place] = value

    return change


def as_type(key: str, kind: object) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[key] = arrays[key].astype(kind)

    return change


def first(key: str, count: int) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[key] = arrays[key][:count]

    return change


def nothing(arrays: Arrays) -> None:
    for key in arrays:
        arrays[key] = arrays[key][:0]


def closer(arrays: Arrays) -> None:
    arrays["positions"][5] *= 0.1  # nanometres


def two_in_one_place(arrays: Arrays) -> None:
    arrays["positions"][5, 1] = arrays["positions"][5, 0]


FAULTS = {
    "nan": (put("positions", (5, 1, 2), np.nan), r"molecule 5 .* positions that are not finite"),
    "inf": (put("positions", (5, 1, 2), -np.inf), r"molecule 5 .* positions that are not finite"),
    "nan on padding": (put("positions", (5, N - 1, 0), np.nan), r"molecule 5 .* positions that are not finite"),
    "nan of a property": (put("alpha", (7,), np.nan), r"molecule 7 .* alpha that are not finite"),
    "1e6": (put("positions", (5, 1, 2), 1e6), r"molecule 5 .* beyond 10,000 Angstrom"),
    "1e6 away": (put("positions", (5, slice(0, 3)), 1e6), r"molecule 5 .* beyond 10,000 Angstrom"),
    "far atom": (put("positions", (5, 0, 0), 40.0), r"molecule 5 .* an atom more than 10 Angstrom from all others"),
    "wrong unit": (closer, r"molecule 5 .* two atoms less than 0.3 Angstrom apart"),
    "one place": (two_in_one_place, r"molecule 5 .* two atoms less than 0.3 Angstrom apart"),
    "element": (put("charges", (5, 0), 16), r"molecule 5 .* an element other than H C N O F"),
    "negative": (put("charges", (5, 0), -1), r"molecule 5 .* an element other than H C N O F"),
    "count": (put("num_atoms", (5,), 2), r"molecule 5 .* another number of charges than its num_atoms"),
    "lost charge": (put("charges", (5, 0), 0), r"molecule 5 .* another number of charges than its num_atoms"),
    "padding": (put("positions", (5, N - 1, 0), 1.0), r"molecule 5 .* coordinates of an atom without a charge"),
    "no molecules": (nothing, "no molecules"),
    "lengths": (first("charges", 11), r"'charges' of shape \(11, 29\) for 12 molecules"),
    "property's length": (first("alpha", 3), r"'alpha' of shape \(3,\) for 12 molecules"),
    "text": (as_type("alpha", str), "'alpha' holds <U32, not numbers"),
    "float charges": (as_type("charges", float), "'charges' of float64, not of integers"),
    "integer positions": (as_type("positions", int), "'positions' of int64, not of floats"),
    "flat": (lambda a: a.update(positions=a["positions"][..., :2]), r"positions \(12, 29, 2\)"),
    "scalar": (lambda a: a.update(alpha=np.float32(1)), r"'alpha' of shape \(\)"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_its_molecule(name: str) -> None:
    change, words = FAULTS[name]
    arrays = sound()
    check_split(arrays)
    change(arrays)
    with pytest.raises(DataError, match=words) as caught:
        check_split(arrays)
    assert "\n" not in str(caught.value)


def test_an_empty_molecule_is_none() -> None:
    arrays = sound()
    arrays["num_atoms"][3], arrays["charges"][3], arrays["positions"][3] = 0, 0, 0
    with pytest.raises(DataError, match=r"molecule 3 .* no atoms"):
        check_split(arrays)


def test_one_atom_alone_is_a_molecule() -> None:
    arrays = sound()
    arrays["num_atoms"][3], arrays["charges"][3, 1:], arrays["positions"][3, 1:] = 1, 0, 0
    check_split(arrays)


def test_distances_are_those_of_a_loop_over_pairs() -> None:
    random = np.random.default_rng(0)
    positions, real = random.normal(size=(300, 5, 3)), random.random((300, 5)) < 0.6
    closest, loneliest = _distances(positions, real)
    for row in range(300):
        atoms = positions[row, real[row]]
        gaps = [[np.linalg.norm(atoms[i] - atoms[j]) for j in range(len(atoms)) if j != i] for i in range(len(atoms))]
        nearest = [min(gap) for gap in gaps if gap]
        assert closest[row] == pytest.approx(min(nearest, default=np.inf), rel=1e-5)
        assert loneliest[row] == pytest.approx(max(nearest, default=0), rel=1e-5)


def write(datadir: Path, split: str, arrays: Arrays) -> Path:
    path = datadir / "qm9" / f"{split}.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("name", FAULTS)
def test_reading_a_split_refuses_it(name: str, tmp_path: Path) -> None:
    arrays = sound()
    FAULTS[name][0](arrays)
    path = write(tmp_path, "valid", arrays)
    with pytest.raises(DataError, match=FAULTS[name][1]) as caught:
        load_split(tmp_path, "valid", NEEDED)
    assert str(caught.value).startswith(f"{path}: ")
    assert f"python -m symdiff_plugin.data.qm9 --datadir {tmp_path} --force" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    path = write(tmp_path, "train", {**sound(), "alpha": np.array([Path("runs code")] * 12, dtype=object)})
    with pytest.raises(DataError, match="holds Python objects, not numbers, which are never unpickled") as caught:
        load_split(tmp_path, "train", NEEDED)
    assert str(path) in str(caught.value)


def test_a_file_is_checked_once_and_again_when_it_has_changed(tmp_path: Path, monkeypatch) -> None:
    from symdiff_plugin.data import store

    seen = []
    monkeypatch.setattr(store, "check_split", lambda arrays: seen.append(len(arrays)) or check_split(arrays))
    for split in SPLITS:
        write(tmp_path, split, sound())
    check_datadir(tmp_path, NEEDED)
    assert len(seen) == 3
    arrays = load_split(tmp_path, "train", NEEDED)
    assert len(seen) == 3
    for key, values in sound().items():
        assert arrays[key].dtype == values.dtype
        np.testing.assert_array_equal(arrays[key], values)
    write(tmp_path, "train", sound(13))
    load_split(tmp_path, "train", NEEDED)
    assert len(seen) == 4
    broken = sound(13)
    FAULTS["nan"][0](broken)
    write(tmp_path, "test", broken)
    with pytest.raises(DataError, match=r"test\.npz: molecule 5"):
        check_datadir(tmp_path, NEEDED)


def test_all_of_qm9_is_plausible(full: Path) -> None:
    check_datadir(full)

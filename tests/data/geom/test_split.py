"""EDM's split of GEOM-Drugs and the one by molecule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from geom_conformers import make_molecules, write

from symdiff_plugin.data import DataError
from symdiff_plugin.data.geom.layout import GeomFiles
from symdiff_plugin.data.geom.split import split


@pytest.fixture
def files(tmp_path: Path) -> GeomFiles:
    return write(make_molecules(40), tmp_path)


def count(files: GeomFiles) -> int:
    return len(np.load(files.n_atoms))


def test_official_is_edms_formula(files: GeomFiles) -> None:
    n = count(files)
    permutation = np.load(files.permutation)
    found = split("official", files, n)
    first, second = int(n * 0.1), 2 * int(n * 0.1)
    assert found["val"].tolist() == permutation[:first].tolist()
    assert found["test"].tolist() == permutation[first:second].tolist()
    assert found["train"].tolist() == permutation[second:].tolist()


def test_official_of_geom_itself(tmp_path: Path) -> None:
    """Its numbers of conformers, from the lengths of the splits that EDM's formula gives."""
    n = 6_922_516
    np.save(tmp_path / "geom_permutation.npy", np.arange(n, dtype=np.int32))
    found = split("official", GeomFiles(tmp_path / "geom_drugs_30.npy"), n)
    assert {name: len(rows) for name, rows in found.items()} == {"train": 5_538_014, "val": 692_251, "test": 692_251}


def test_the_permutation_beside_the_data_comes_first(files: GeomFiles, tmp_path: Path) -> None:
    n = count(files)
    elsewhere = tmp_path / "elsewhere.npy"
    np.save(elsewhere, np.arange(n))
    beside = np.load(files.permutation)
    assert split("official", files, n, permutation=elsewhere)["val"].tolist() == beside[: n // 10].tolist()
    files.permutation.unlink()
    assert split("official", files, n, permutation=elsewhere)["val"].tolist() == list(range(n // 10))
    elsewhere.unlink()
    with pytest.raises(DataError, match=r"edm get --geom`, or split by molecule with --split molecule"):
        split("official", files, n, permutation=elsewhere)


@pytest.mark.parametrize(
    ("permutation", "message"),
    [
        (lambda p: p[:-1], r"is of \d+ conformers, .* has \d+: .*--split molecule"),
        (lambda p: np.arange(6_922), r"is of 6,922 conformers"),
        (lambda p: np.where(p == 5, 6, p), "is no permutation: it lacks conformer 5"),
        (lambda p: np.where(p == 5, -1, p), "lacks conformer 5"),
        (lambda p: np.where(p == 5, len(p), p), "lacks conformer 5"),
        (lambda p: p.astype(float), "damaged or no permutation"),
    ],
)
def test_a_permutation_that_does_not_fit_is_refused(files: GeomFiles, permutation: object, message: str) -> None:
    np.save(files.permutation, permutation(np.load(files.permutation)))
    with pytest.raises(DataError, match=message) as error:
        split("official", files, count(files))
    assert "\n" not in str(error.value)


def test_by_molecule_nothing_leaks(files: GeomFiles) -> None:
    n = count(files)
    smiles = np.repeat(files.smiles.read_text().split("\n")[:-1], np.load(files.conformers))
    assert len(set(files.smiles.read_text().split())) < len(np.load(files.conformers))  # one is there twice
    for seed in range(8):
        found = split("molecule", files, n, seed)
        assert sorted(np.concatenate(list(found.values()))) == list(range(n))
        parts = [set(smiles[rows]) for rows in found.values()]
        assert sum(map(len, parts)) == len(set().union(*parts))
        assert [len(part) for part in parts] == [33, 3, 3]  # of 39 molecules
    official = [set(smiles[rows]) for rows in split("official", files, n).values()]
    assert official[0] & official[1]  # it does leak, as EDM's


def test_by_molecule_the_seed_decides(files: GeomFiles) -> None:
    n = count(files)
    first, again, other = (split("molecule", files, n, seed) for seed in (4, 4, 5))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["test"], other["test"])


def test_molecules_without_conformers_take_no_part(files: GeomFiles) -> None:
    before = split("molecule", files, count(files))
    np.save(files.conformers, np.insert(np.load(files.conformers), 3, 0))
    lines = files.smiles.read_text().splitlines()
    files.smiles.write_text("\n".join([*lines[:3], "C", *lines[3:]]) + "\n")
    after = split("molecule", files, count(files))
    assert sorted(np.concatenate(list(after.values()))) == list(range(count(files)))
    assert len(after["train"]) + len(after["val"]) + len(after["test"]) == sum(map(len, before.values()))


def test_by_molecule_what_is_missing_is_named(files: GeomFiles) -> None:
    n = count(files)
    counts = np.load(files.conformers)
    np.save(files.conformers, counts[:-1])
    with pytest.raises(DataError, match=r"is of \d+ conformers, .* has \d+: write it with"):
        split("molecule", files, n)
    np.save(files.conformers, np.append(counts, 0))
    with pytest.raises(DataError, match=r"geom_drugs_smiles.txt has 40 molecules, .* 41"):
        split("molecule", files, n)
    np.save(files.conformers, counts)
    files.smiles.unlink()
    with pytest.raises(DataError, match=r"geom_drugs_smiles.txt cannot be read"):
        split("molecule", files, n)
    files.conformers.unlink()
    with pytest.raises(DataError, match=r"`python -m symdiff_plugin\.data\.geom convert` from the archive"):
        split("molecule", files, n)


def test_too_few_to_split(tmp_path: Path) -> None:
    files = write(make_molecules(40)[:2], tmp_path)
    for kind in ("official", "molecule"):
        with pytest.raises(DataError, match=r"too small to split: nothing is left for (val|test)"):
            split(kind, files, count(files))

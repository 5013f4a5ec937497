"""The converter writes what EDM's own script writes, and the conformers of each molecule beside it."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from geom_archives import ARCHIVE, assert_refused, command, contents, edm_converts, names, read_maps, repeated

from symdiff_plugin.data.geom.convert import convert
from symdiff_plugin.data.geom.layout import GeomFiles


@pytest.mark.edm
@pytest.mark.parametrize("remove_h", [False, True])
@pytest.mark.parametrize("conformations", [30, 4])
def test_is_edms_to_the_byte(archive: Path, tmp_path: Path, conformations: int, remove_h: bool) -> None:
    long = repeated(tmp_path / "edm" / ARCHIVE, archive, times=2)  # the same molecules in other maps are kept
    expected = edm_converts(long, conformations, remove_h)
    made = convert(long, tmp_path / "ours", conformations, remove_h)
    name = names(conformations, remove_h)
    assert {path.name for path in made} == set(name.values())
    ours = contents(tmp_path / "ours")
    counts = np.load(io.BytesIO(ours.pop(name["conformers"])))
    assert ours == expected
    kept = [min(len(record["conformers"]), conformations) for some in read_maps(long) for record in some.values()]
    assert max(kept) == conformations
    assert counts.dtype == np.int64
    assert counts.tolist() == kept
    assert counts.sum() == len(np.load(tmp_path / "ours" / name["n"]))


def test_ties_are_not_sorted_stably(archive: Path) -> None:
    """Or the comparison with EDM would say nothing about ties."""
    energies = [
        np.array([conformer["totalenergy"] for conformer in record["conformers"]])
        for some in read_maps(archive)
        for record in some.values()
    ]
    assert any(len(np.unique(each)) < len(each) > 30 for each in energies)
    assert any((np.argsort(each)[:30] != np.argsort(each, kind="stable")[:30]).any() for each in energies)


@pytest.mark.parametrize("compression", ["", "gz", "xz"])
def test_reads_the_archive_as_dataverse_ships_it(archive: Path, tmp_path: Path, compression: str) -> None:
    packed = tmp_path / "4360331"  # what wget calls it
    with tarfile.open(packed, f"w:{compression}") as tar:
        tar.add(archive, f"somewhere/{ARCHIVE}")
    convert(packed, tmp_path / "packed")
    convert(archive, tmp_path / "plain")
    assert contents(tmp_path / "packed") == contents(tmp_path / "plain")


def test_a_second_run_does_nothing(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(archive, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = command("convert", archive, "--out", tmp_path, capsys=capsys)
    assert again.returncode == 0
    assert "is there already" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    made = command("convert", archive, "--out", tmp_path, "--overwrite", capsys=capsys)
    assert made.returncode == 0, made.stderr
    assert set(before) == set(tmp_path.iterdir())
    assert all(path.stat().st_mtime_ns > then for path, then in before.items())


def test_what_edm_made_lacks_our_file(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(archive, tmp_path)
    (tmp_path / names()["conformers"]).unlink()
    before = contents(tmp_path)
    assert_refused(command("convert", archive, "--out", tmp_path, capsys=capsys), "convert", 2, "--overwrite")
    assert contents(tmp_path) == before


def test_two_data_sets_share_the_list_of_molecules(
    archive: Path, rdkit_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(archive, tmp_path)
    convert(archive, tmp_path, remove_h=True)
    other = repeated(tmp_path / "other" / ARCHIVE, rdkit_archive, times=2)
    before = contents(tmp_path)
    refused = command("convert", other, "--out", tmp_path, "--conformations", 3, capsys=capsys)
    assert_refused(refused, "convert", 2, "geom_drugs_smiles.txt", "--overwrite")
    assert {name: content for name, content in contents(tmp_path).items() if ".partial" not in name} == before
    made = command("convert", other, "--out", tmp_path, "--conformations", 3, "--overwrite", capsys=capsys)
    assert made.returncode == 0, made.stderr
    shutil.rmtree(other.parent)
    assert set(contents(tmp_path)) == {*names().values(), *names(30, True).values(), *names(3).values()}


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_refuses_counts_that_are_none(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], count: str
) -> None:
    out = tmp_path / "out"
    refused = command("convert", archive, "--out", out, "--conformations", count, capsys=capsys)
    assert_refused(refused, "convert", 2, "--conformations", count)
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "geom_drugs_30.npy",
            ["geom_drugs_n_30.npy", "geom_drugs_smiles.txt", "geom_drugs_conformers_30.npy", "geom_drugs_30_info.json"],
        ),
        (
            "geom_drugs_no_h_5.npy",
            [
                "geom_drugs_n_no_h_5.npy", "geom_drugs_smiles.txt", "geom_drugs_conformers_no_h_5.npy",
                "geom_drugs_no_h_5_info.json",
            ],
        ),
        ("mine.npy", ["mine_n.npy", "mine_smiles.txt", "mine_conformers.npy", "mine_info.json"]),
        (
            "geom_drugs_of_mine.npy",
            [
                "geom_drugs_of_mine_n.npy", "geom_drugs_of_mine_smiles.txt", "geom_drugs_of_mine_conformers.npy",
                "geom_drugs_of_mine_info.json",
            ],
        ),
    ],
)  # fmt: skip
def test_names_of_a_data_set(tmp_path: Path, name: str, expected: list[str]) -> None:
    files = GeomFiles(tmp_path / name)
    assert [files.n_atoms, files.smiles, files.conformers, files.info] == [tmp_path / each for each in expected]
    assert files.permutation == tmp_path / "geom_permutation.npy"

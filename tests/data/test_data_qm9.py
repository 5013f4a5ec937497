"""The full set: EDM's arrays to the last bit, and the command that makes them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from qm9_files import PROPERTY_COLUMNS, Command, Row, as_xyz, snapshot, value, write_archive

from symdiff_plugin.data import SPLITS, check_datadir, load_split
from symdiff_plugin.data.figshare_source import read_archive
from symdiff_plugin.data.integrity import content_hash
from symdiff_plugin.data.splits import tabulate

SIZES = {"train": 100_000, "valid": 17_748, "test": 13_083}
ENERGIES = ("zpve", "U0", "U", "H", "G", "Cv")
KEYS = [
    "num_atoms", "charges", "positions", "index", *PROPERTY_COLUMNS, "omega1",
    *(f"{name}_thermo" for name in ENERGIES),
]  # fmt: skip
CHARGES = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
# QM9's atomref.txt, in the order of ENERGIES.
ATOMREF = {
    "H": (0.0, -0.500273, -0.498857, -0.497912, -0.510927, 2.981),
    "C": (0.0, -37.846772, -37.845355, -37.844411, -37.861317, 2.981),
    "N": (0.0, -54.583861, -54.582445, -54.581501, -54.598897, 2.981),
    "O": (0.0, -75.064579, -75.063163, -75.062219, -75.079532, 2.981),
    "F": (0.0, -99.718730, -99.717314, -99.716370, -99.733544, 2.981),
}


@pytest.mark.parametrize("split", SPLITS)
def test_layout_is_edms(full: Path, split: str) -> None:
    arrays = load_split(full, split)
    B = SIZES[split]
    assert list(arrays) == KEYS
    for key, values in arrays.items():
        shape = {"charges": (B, 29), "positions": (B, 29, 3)}.get(key, (B,))
        integer = key in ("num_atoms", "charges", "index")
        dtype = np.int64 if integer else np.float64 if key.endswith("_thermo") else np.float32
        assert (values.shape, values.dtype) == (shape, dtype), key
        assert np.isfinite(values).all(), key
    atom = np.arange(29) < arrays["num_atoms"][:, None]
    assert ((arrays["charges"] > 0) == atom).all()
    assert (arrays["positions"][~atom] == 0).all()
    assert arrays["num_atoms"].max() == 29  # EDM pads each split to its own largest molecule


def test_split_is_edms(full: Path) -> None:
    index = {split: load_split(full, split)["index"] for split in SPLITS}
    everything = np.sort(np.concatenate(list(index.values())))
    assert len(np.unique(everything)) == 130_831
    assert everything.min() == 1
    assert everything.max() == 133_885
    state = np.random.get_state()
    np.random.seed(0)  # as EDM draws it
    order = np.random.permutation(130_831)
    np.random.set_state(state)
    for split, part in zip(SPLITS, np.split(order, [100_000, 117_748]), strict=True):
        np.testing.assert_array_equal(index[split], everything[np.sort(part)])


def test_train_counts(full: Path) -> None:
    train = load_split(full, "train")
    atoms = [int((train["charges"] == charge).sum()) for charge in CHARGES.values()]
    assert atoms == [923_537, 635_559, 101_476, 140_202, 2_323]
    sizes = np.bincount(train["num_atoms"], minlength=30)
    assert [sizes[n] for n in (3, 4, 5, 18, 19, 28, 29)] == [1, 4, 5, 13_364, 13_832, 0, 25]


@pytest.mark.edm
def test_train_histograms_are_those_of_edms_config(full: Path, edm_checkout: Path) -> None:
    source = edm_checkout / "configs" / "datasets_config.py"
    specification = importlib.util.spec_from_file_location("edm_datasets_config", source)
    config = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(config)

    train = load_split(full, "train")
    sizes = dict(zip(*np.unique(train["num_atoms"], return_counts=True), strict=True))
    assert sizes == config.qm9_with_h["n_nodes"]
    for types, with_hydrogen in ((config.qm9_with_h, True), (config.qm9_without_h, False)):
        decoder = types["atom_decoder"]
        assert ("H" in decoder) == with_hydrogen
        counts = {i: (train["charges"] == CHARGES[symbol]).sum() for i, symbol in enumerate(decoder)}
        assert counts == types["atom_types"]


def test_values_are_those_of_qm9pack(full: Path, rows: list[Row]) -> None:
    splits = [load_split(full, split) for split in SPLITS]
    seen = 0
    for row in rows:
        index = value(row["Index"])
        (arrays, i), = ((arrays, int(np.flatnonzero(arrays["index"] == index)[0]))
                        for arrays in splits if index in arrays["index"])  # fmt: skip
        elements, xyz = value(row["Elements"]), value(row["XYZ_Ang"])
        n = len(elements)
        seen += "e-" in row["XYZ_Ang"].lower()
        assert arrays["num_atoms"][i] == n == value(row["N_atoms"])
        assert arrays["charges"][i, :n].tolist() == [CHARGES[symbol] for symbol in elements]
        np.testing.assert_array_equal(arrays["positions"][i, :n], np.array(xyz, dtype=np.float32))
        for name, column in PROPERTY_COLUMNS.items():
            assert arrays[name][i] == np.float32(value(row[column])), name
        assert arrays["omega1"][i] == np.float32(max(value(row["Harmonic_Freq_cmi"])))
        for k, name in enumerate(ENERGIES):
            total = 0.0
            for symbol, energies in ATOMREF.items():
                total += energies[k] * elements.count(symbol)
            assert arrays[f"{name}_thermo"][i] == total, name
    assert seen == 50


@pytest.mark.edm
def test_edms_own_preparation_makes_the_same_bits(rows: list[Row], edm_checkout: Path, tmp_path: Path) -> None:
    archive = tmp_path / "dsgdb9nsd.xyz.tar.bz2"
    write_archive(archive, {int(row["Index"]): as_xyz(row) for row in rows})
    # In a process of its own: EDM's top-level names stay out of ours.
    code = """
import sys
import numpy as np
if not hasattr(np, "int"):
    np.int = int
from qm9.data.prepare.process import process_xyz_files, process_xyz_gdb9
from qm9.data.prepare.qm9 import add_thermo_targets, get_thermo_dict
import urllib.request
urllib.request.urlretrieve = lambda url, filename: open(filename, "w").write(sys.argv[3])
arrays = process_xyz_files(sys.argv[1], process_xyz_gdb9, stack=True)
arrays = add_thermo_targets(arrays, get_thermo_dict(sys.argv[2]))
np.savez_compressed(sys.argv[2] + "/edm.npz", **arrays)
"""
    atomref = "\n".join(" ".join([symbol, *map(str, energies)]) for symbol, energies in ATOMREF.items())
    environment = {**os.environ, "PYTHONPATH": str(edm_checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, archive, tmp_path, f"atomref\n{atomref}\n"],
        check=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    edm = dict(np.load(tmp_path / "edm.npz"))

    ours = tabulate(read_archive(archive), len(rows))
    width = ours["num_atoms"].max()
    ours = {k: v[:, :width] if k in ("charges", "positions") else v for k, v in ours.items()}
    assert list(edm) == list(ours)
    for key in edm:
        assert edm[key].dtype == ours[key].dtype, key
        assert edm[key].shape == ours[key].shape, key
        assert edm[key].tobytes() == ours[key].tobytes(), key
    assert content_hash(edm) == content_hash(ours)


def test_a_second_run_says_so_and_changes_nothing(full: Path, command: Command) -> None:
    before = snapshot(full)
    result = command("--datadir", full)
    assert result.returncode == 0
    assert result.stdout == f"QM9: {full}/qm9 (already there, content verified)\n"
    assert result.stderr == ""
    assert snapshot(full) == before
    assert set(before) == {f"qm9/{split}.npz" for split in SPLITS}
    check_datadir(full)


def test_an_npz_file_of_ours_is_as_numpy_writes_it(full: Path, tmp_path: Path) -> None:
    arrays = load_split(full, "test")
    np.savez_compressed(tmp_path / "test.npz", **arrays)
    with np.load(tmp_path / "test.npz") as theirs, np.load(full / "qm9" / "test.npz") as ours:
        assert theirs.files == ours.files
        assert content_hash(dict(theirs.items())) == content_hash(dict(ours.items()))


def test_reading_qm9_needs_neither_qm9pack_nor_pandas() -> None:
    code = "import sys; import symdiff_plugin.data.qm9; print({'pandas', 'qm9pack', 'torch'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


def test_a_molecule_as_published(tmp_path: Path) -> None:
    """Methane's file of the original archive."""
    write_archive(tmp_path / "one.tar.bz2", {1: METHANE})
    table = tabulate(read_archive(tmp_path / "one.tar.bz2"), 1)
    assert table["charges"][0, :6].tolist() == [6, 1, 1, 1, 1, 0]
    assert table["positions"][0, 0].tolist() == np.float32([-0.0126981359, 1.0858041578, 0.0080009958]).tolist()
    assert table["U0"][0] == np.float32(-40.47893)
    assert table["omega1"][0] == np.float32(3151.7078)


# Tabs, padded numbers, a trailing tab after the properties: the published file, unlike qm9pack's digits.
METHANE = (
    "5\n"
    "gdb 1\t157.7118\t157.70997\t157.70699\t0.\t13.21\t-0.3877\t0.1171\t0.5048\t35.3641\t0.044749\t-40.47893"
    "\t-40.476062\t-40.475117\t-40.498597\t6.469\t\n"
    "C\t-0.0126981359\t 1.0858041578\t 0.0080009958\t-0.535689\n"
    "H\t 0.002150416\t-0.0060313176\t 0.0019761204\t 0.133921\n"
    "H\t 1.0117308433\t 1.4637511618\t 0.0002765748\t 0.133922\n"
    "H\t-0.540815069\t 1.4475266138\t-0.8766437152\t 0.133923\n"
    "H\t-0.5238136345\t 1.4379326443\t 0.9063972942\t 0.133923\n"
    "1341.307\t1341.3284\t1341.365\t1562.6731\t1562.7453\t3038.3205\t3151.6034\t3151.6788\t3151.7078\n"
    "C\tC\t\n"
    "InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4\n"
)

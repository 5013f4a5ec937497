"""What a QM9 data set is in EDM's layout: splits, keys, dtypes, elements, and the error all readers raise.

``DIR/qm9/{train,valid,test}.npz`` hold, for B molecules of at most N = 29 atoms,

    num_atoms (B,), charges (B, N), index (B,)       int64, charges 0 on padding
    positions (B, N, 3)                              float32, Angstrom, 0 on padding
    A, B, C, mu, alpha, homo, ..., Cv, omega1 (B,)   float32, in the units of Ramakrishnan et al. (2014)
    zpve_thermo, U0_thermo, ..., Cv_thermo (B,)      float64, sums over the atoms of the reference energies
"""

from __future__ import annotations

from pathlib import Path

SPLITS = ("train", "valid", "test")
SPLIT_SIZES = {"train": 100_000, "valid": 17_748, "test": 13_083}
N_MOLECULES = 130_831  # characterised molecules
N_UNCHARACTERIZED = 3_054  # geometries that did not keep their molecular graph; nobody trains on them
N_GDB9 = N_MOLECULES + N_UNCHARACTERIZED
MAX_ATOMS = 29
SMALLEST_SLICE = {"train": 4, "valid": 2, "test": 2}  # room for the fluorine that each needs

CHARGES = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
PROPERTIES = ("A", "B", "C", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv")

# QM9's atomref.txt: reference energies in Hartree, Cv in cal/(mol K), by atomic number, ascending.
REFERENCE = {
    "zpve": {1: 0.0, 6: 0.0, 7: 0.0, 8: 0.0, 9: 0.0},
    "U0": {1: -0.500273, 6: -37.846772, 7: -54.583861, 8: -75.064579, 9: -99.718730},
    "U": {1: -0.498857, 6: -37.845355, 7: -54.582445, 8: -75.063163, 9: -99.717314},
    "H": {1: -0.497912, 6: -37.844411, 7: -54.581501, 8: -75.062219, 9: -99.716370},
    "G": {1: -0.510927, 6: -37.861317, 7: -54.598897, 8: -75.079532, 9: -99.733544},
    "Cv": {1: 2.981, 6: 2.981, 7: 2.981, 8: 2.981, 9: 2.981},
}

KEYS = (
    "num_atoms", "charges", "positions", "index", *PROPERTIES, "omega1",
    *(f"{name}_thermo" for name in REFERENCE),
)  # fmt: skip


class DataError(ValueError):
    """Data that cannot be read or made. The message is one line: what is wrong and what to do."""

    exit_status = 2


class ResourceError(DataError):
    """The data cannot be made for want of disk space, network or a package, not for bad input."""

    exit_status = 1


def split_path(datadir: str | Path, split: str) -> Path:
    """``datadir/qm9/split.npz``, where EDM looks for it.

    Raises:
        DataError: no split has that name.
    """
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    return Path(datadir) / "qm9" / f"{split}.npz"

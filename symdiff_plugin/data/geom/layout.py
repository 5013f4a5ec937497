"""The files of a data set of conformers: EDM's array of atoms, and what lies beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

COLUMNS = 5  # of the array: conformer's id, atomic number, x, y, z
_GEOM = re.compile(r"geom_drugs_(?P<rest>(no_h_)?[0-9]+)")


@dataclass(frozen=True)
class GeomFiles:
    """The paths that belong to one data set; none of them need exist.

    GEOM-Drugs, ``geom_drugs_30.npy`` or ``geom_drugs_no_h_30.npy``, has EDM's names
    (build_geom_dataset.py); any other ``NAME.npy`` has ``NAME_n.npy``, ``NAME_smiles.txt`` and so on.

    Args:
        data: the array of atoms, (n_atoms_total, 5) float64: conformer's id, atomic number, x, y, z in Angstrom.
    """

    data: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", Path(self.data))  # a string does as well

    @property
    def n_atoms(self) -> Path:
        """(n_conformers,) int64: the atoms of each conformer."""
        return self._beside("n", ".npy")

    @property
    def smiles(self) -> Path:
        """One SMILES a line, one line a molecule."""
        if _GEOM.fullmatch(self.data.stem):  # EDM has one list, with hydrogens or without
            return self.data.with_name("geom_drugs_smiles.txt")
        return self._beside("smiles", ".txt")

    @property
    def conformers(self) -> Path:
        """(n_molecules,) int64: the conformers kept of each molecule, in the order of the SMILES; ours, not EDM's."""
        return self._beside("conformers", ".npy")

    @property
    def info(self) -> Path:
        """EDM's dataset_info of this data set as JSON; where it is missing EDM's own for GEOM-Drugs holds."""
        return self.data.with_name(f"{self.data.stem}_info.json")

    @property
    def permutation(self) -> Path:
        """(n_conformers,) integers: the order that EDM's split of GEOM-Drugs cuts into validation, test, training."""
        return self.data.with_name("geom_permutation.npy")

    def _beside(self, what: str, suffix: str) -> Path:
        if match := _GEOM.fullmatch(self.data.stem):
            return self.data.with_name(f"geom_drugs_{what}_{match['rest']}{suffix}")
        return self.data.with_name(f"{self.data.stem}_{what}{suffix}")

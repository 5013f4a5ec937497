"""One conformer of a user's own data, and what every one of them must fulfil, from whatever file it is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from rdkit import Chem
from scipy.spatial import cKDTree

from symdiff_plugin.data.geom.dataset_info import ELEMENTS
from symdiff_plugin.data.plausible import CLOSEST, FARTHEST, LONELIEST
from symdiff_plugin.data.schema import DataError

BONDED = 1.8  # Angstrom; C-C has 1.54, bonds of drawings in two dimensions 1 to 1.5
_PERIODIC_TABLE = Chem.GetPeriodicTable()


class Rejected(DataError):
    """A record that cannot be taken, named in the message.

    Args:
        where: the file and the record.
        reason: in a few words, by which such records are counted.
        detail: what else there is to say.
    """

    def __init__(self, where: str, reason: str, detail: str = "") -> None:
        super().__init__(f"{where}: {reason}{f' ({detail})' if detail else ''}")
        self.where, self.reason = where, reason


@dataclass(frozen=True)
class Conformer:
    """One conformer.

    Attributes:
        where: the file and the record it is from.
        file: the file's name, without its folder and endings.
        title: what the record calls itself; may be empty.
        smiles: canonical, without stereo and isotopes; None if not known.
        numbers: (n,) atomic numbers.
        positions: (n, 3) in Angstrom.
    """

    where: str
    file: str
    title: str
    smiles: str | None
    numbers: np.ndarray
    positions: np.ndarray

    @property
    def formula(self) -> str:
        """Elements and how many of each, by atomic number: ``H8C9O4``."""
        return "".join(f"{symbol(number)}{count}" for number, count in sorted(Counter(self.numbers.tolist()).items()))


def symbol(number: int) -> str:
    """The symbol of an element."""
    return _PERIODIC_TABLE.GetElementSymbol(int(number))


def check_conformer(where: str, numbers: np.ndarray, positions: np.ndarray) -> None:
    """Refuse what EDM cannot be trained on.

    Args:
        where: the file and the record.
        numbers: (n,) atomic numbers.
        positions: (n, 3) in Angstrom.

    Raises:
        Rejected: see the messages.
    """
    if len(numbers) < 2:
        raise Rejected(where, "fewer than two atoms")
    if (numbers == 0).any():
        raise Rejected(where, "dummy atoms", f"atom {int(np.argmin(numbers)) + 1}")
    unknown = sorted(set(numbers.tolist()) - set(ELEMENTS))
    if unknown:
        names = ", ".join(map(symbol, unknown))
        known = " ".join(name for name, _ in ELEMENTS.values())
        raise Rejected(where, f"EDM's analysis does not know {names}", f"only {known}")
    if not (np.abs(positions) <= FARTHEST).all():  # nor is NaN
        raise Rejected(where, "coordinates that are not finite", f"or beyond {FARTHEST:,.0f} Angstrom")
    tree = cKDTree(positions)
    distances, nearest = tree.query(positions, k=2)
    atom = int(distances[:, 1].argmin())
    if distances[atom, 1] < CLOSEST:
        other = next(index for index in nearest[atom].tolist() if index != atom)  # the atom itself is first or second
        first, second = sorted((atom + 1, other + 1))
        detail = f"atoms {first} and {second} are {distances[atom, 1]:.2f} Angstrom apart"
        raise Rejected(where, "coinciding atoms or no coordinates", detail)
    atom = int(distances[:, 1].argmax())
    if distances[atom, 1] > LONELIEST:
        detail = f"atom {atom + 1} is {distances[atom, 1]:.1f} Angstrom from the next"
        raise Rejected(where, "an atom far from all others", detail)
    carbons = positions[numbers == 6]
    if np.ptp(positions[:, 2]) == 0 and len(carbons):  # benzene may lie in a plane, methane may not
        neighbours = tree.query_ball_point(carbons, BONDED, return_length=True).max() - 1
        if neighbours > 3:
            raise Rejected(where, "no 3D coordinates", f"a carbon with {neighbours} neighbours, and all z are equal")


def smiles_without_hydrogens(mol: Chem.Mol) -> str:
    """The SMILES that all conformers, stereoisomers and isotopologues of a molecule have in common.

    Args:
        mol: sanitised; changed.
    """
    for atom in mol.GetAtoms():
        atom.SetIsotope(0)
        atom.SetAtomMapNum(0)
    Chem.RemoveStereochemistry(mol)
    return Chem.MolToSmiles(Chem.RemoveHs(mol), isomericSmiles=False)

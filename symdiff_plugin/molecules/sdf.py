"""SDF files of molecules with their bonds, for RDKit, PyMOL, Avogadro and their like.

XYZ has no bonds, and every program guesses others. Here the bonds are those that the metrics are about: EDM's, or,
without EDM, those of :mod:`.perception`. A molecule that RDKit cannot sanitise (a carbon of valence five) is written
as it is: nothing is sanitised, no hydrogen is added, and each atom's valence is fixed so that no reader adds one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Geometry import Point3D

from symdiff_plugin.common.files import replacing
from symdiff_plugin.common.progress import progress
from symdiff_plugin.molecules.molecule import Molecule

ORDERS = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}
# Angstrom; the ten columns of V2000 hold a sign and four decimals besides. RDKit of 2024 does not look, today's does.
WIDEST_V2000 = 9999.0


def to_rdkit(molecule: Molecule, bonds: np.ndarray) -> Chem.Mol:
    """An RDKit molecule as it stands: not sanitised, without implicit hydrogens, with one conformer.

    Args:
        molecule: with finite coordinates, if it is to be written.
        bonds: (n_bonds, 3) integers: atoms i and j, and the order, 1 to 3.
    """
    mol = Chem.RWMol()
    for symbol in molecule.symbols:
        atom = Chem.Atom(symbol)
        atom.SetNoImplicit(True)  # every hydrogen is there; none may be added to mend a valence
        mol.AddAtom(atom)
    for i, j, order in bonds:
        mol.AddBond(int(i), int(j), ORDERS[int(order)])
    conformer = Chem.Conformer(len(molecule))
    conformer.Set3D(True)
    for index, position in enumerate(molecule.positions):
        conformer.SetAtomPosition(index, Point3D(*map(float, position)))
    mol.AddConformer(conformer)
    return mol


class Judged(Protocol):
    """What is written of a molecule beside its atoms.

    Attributes:
        bonds: (n_bonds, 3) integers: atoms i and j, and the order.
        words: a word or two.
        smiles: of the largest fragment; None where RDKit cannot sanitise it.
    """

    @property
    def bonds(self) -> np.ndarray: ...
    @property
    def words(self) -> str: ...
    @property
    def smiles(self) -> str | None: ...


def write_sdf(path: str | os.PathLike[str], molecules: Sequence[Molecule], verdicts: Sequence[Judged]) -> int:
    """Write the molecules whose coordinates are finite as one SDF file, whole or not at all.

    A record's title is the molecule's place in ``molecules``, from 0, which is its frame in ``molecules.xyz``; its
    properties are ``verdict`` (:attr:`Judged.words`) and ``SMILES`` (of the largest fragment, absent where RDKit
    cannot sanitise the molecule). Coordinates are in Angstrom with four decimals (V2000), or, of a molecule that
    flew too far apart for that, with six (V3000), as also of more than 999 atoms.

    Args:
        path: the file; it is replaced if it exists.
        molecules: in order.
        verdicts: of each molecule, with its bonds.

    Returns:
        How many molecules were left out because their coordinates are not finite.

    Raises:
        OSError: the file cannot be written.
    """

    def records() -> Iterator[Record]:
        pairs = progress(zip(molecules, verdicts, strict=True), "Writing SDF", total=len(molecules))
        for place, (molecule, verdict) in enumerate(pairs):
            if molecule.is_finite:
                yield Record(place, to_rdkit(molecule, verdict.bonds), verdict.words, verdict.smiles)

    return len(molecules) - write_records(path, records())


@dataclass(frozen=True)
class Record:
    """One molecule of an SDF file.

    Attributes:
        place: its title: the molecule's place among the samples, from 0.
        mol: with one conformer, in Angstrom, all coordinates finite.
        verdict: a word or two.
        smiles: None if it is not valid.
        kekulize: whether aromatic bonds are written as single and double ones, which only a sanitised ``mol`` allows.
    """

    place: int
    mol: Chem.Mol
    verdict: str
    smiles: str | None
    kekulize: bool = False


def write_records(path: str | os.PathLike[str], records: Iterable[Record]) -> int:
    """Write ``records`` as one SDF file, whole or not at all; returns how many.

    Raises:
        OSError: the file cannot be written.
    """
    written = 0
    with replacing(path) as file, rdBase.BlockLogs():
        for record in records:
            mol = Chem.Mol(record.mol)
            mol.SetProp("_Name", str(record.place))
            mol.SetProp("verdict", record.verdict)
            if record.smiles:
                mol.SetProp("SMILES", record.smiles)
            mol.UpdatePropertyCache(strict=False)  # the valences, which the writer asks for
            far = bool((np.abs(mol.GetConformer().GetPositions()) > WIDEST_V2000).any())
            file.write(Chem.SDWriter.GetText(mol, kekulize=record.kekulize, force_v3000=far))
            written += 1
    return written

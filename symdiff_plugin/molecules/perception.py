"""What RDKit makes of a molecule's coordinates alone: bonds, SMILES, SDF. It needs no EDM, and is not EDM's rule.

Atoms are bonded by distance (:mod:`symdiff_plugin.molecules.bonds`: 1.15 times the sum of the covalent radii).
A molecule is valid when it is finite, in one piece, RDKit's DetermineBondOrders finds, in at most 1,000 trials, bond
orders and formal charges of sum zero, and the result passes RDKit's sanitisation. On real QM9 it accepts 500 of 500
molecules tried. EDM's validity, by a table of bond lengths, is of the largest fragment: it does not compare.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem.rdDetermineBonds import DetermineBondOrders

from symdiff_plugin.molecules.bonds import bonded_pairs, count_pieces
from symdiff_plugin.molecules.molecule import Molecule
from symdiff_plugin.molecules.sdf import Record, to_rdkit, write_records

RULE = "RDKit's DetermineBondOrders (charge 0) and sanitisation; bonds below 1.15 x the sum of RDKit's covalent radii"
_TRIALS: dict[str, Any] = {}
if "maxIterations" in str(DetermineBondOrders.__doc__):  # RDKit of 2025 or newer
    _TRIALS["maxIterations"] = 1000


@dataclass(frozen=True, eq=False)
class Perceived:
    """One molecule as RDKit sees it.

    Attributes:
        mol: RDKit's molecule, with coordinates; of single bonds, unsanitised, where it is not valid.
        smiles: canonical, without hydrogens; None if the molecule is not valid.
        pieces: into how many the graph of the bonds falls; 1 for a connected molecule.
        finite: whether all coordinates are numbers.
    """

    mol: Chem.Mol
    smiles: str | None
    pieces: int
    finite: bool

    @property
    def words(self) -> str:
        """The verdict in a word or two."""
        if not self.finite:
            return "not finite"
        return "valid" if self.smiles is not None else "not valid" if self.pieces == 1 else "in pieces"


def perceive(molecule: Molecule) -> Perceived:
    """Bonds, bond orders and SMILES from coordinates; a diverged molecule has no bonds."""
    pairs = bonded_pairs(molecule)
    pieces = count_pieces(len(molecule), pairs)
    graph = to_rdkit(molecule, np.insert(pairs, 2, 1, axis=1))  # single bonds, to begin with
    if not molecule.is_finite or pieces != 1:
        return Perceived(graph, None, pieces, molecule.is_finite)
    found = Chem.RWMol(graph)
    try:
        with rdBase.BlockLogs():  # a wrong valence is a result here, not an error
            DetermineBondOrders(found, charge=0, embedChiral=False, **_TRIALS)
            Chem.SanitizeMol(found)
            smiles = Chem.MolToSmiles(Chem.RemoveHs(found))
    except (ValueError, RuntimeError):  # no assignment found, or an impossible valence
        return Perceived(graph, None, pieces, True)
    return Perceived(found.GetMol(), smiles, pieces, True)


def perceived_fractions(perceived: Sequence[Perceived]) -> dict[str, float]:
    """``connected``, ``validity`` and ``non_finite`` over the molecules, ``uniqueness`` over the valid ones.

    Raises:
        ValueError: there are no molecules.
    """
    if not perceived:
        raise ValueError("there are no molecules")
    valid = [one.smiles for one in perceived if one.smiles is not None]
    return {
        "connected": float(np.mean([one.finite and one.pieces == 1 for one in perceived])),
        "validity": len(valid) / len(perceived),
        "uniqueness": len(set(valid)) / max(len(valid), 1),
        "non_finite": float(np.mean([not one.finite for one in perceived])),
    }


def write_perceived(path: str | os.PathLike[str], perceived: Sequence[Perceived]) -> int:
    """Write the finite molecules as one SDF file, whole or not at all; returns how many.

    A record's title is the molecule's place, from 0; its properties are ``verdict`` and, where it is valid, ``SMILES``.
    The bonds of one that is not valid are all single, which is how they were found.

    Raises:
        OSError: the file cannot be written.
    """
    return write_records(
        path,
        (
            Record(place, one.mol, one.words, one.smiles, kekulize=one.smiles is not None)
            for place, one in enumerate(perceived)
            if one.finite  # the format has no place for NaN
        ),
    )

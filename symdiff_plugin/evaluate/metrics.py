"""Stability, validity, uniqueness and novelty as EDM measures them, and what it leaves unsaid.

EDM counts a molecule as valid when RDKit can sanitise its graph, whatever the graph's pieces: of a shattered
molecule the largest fragment is a valid molecule too. The fraction of molecules in one piece therefore stands beside
the validity. A molecule with a coordinate that is no number would be valid as well, an atom of it; here it counts as
nothing in every metric, and how many there were is said.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from rdkit import rdBase

from symdiff_plugin.common.progress import progress
from symdiff_plugin.molecules.bonds import count_pieces
from symdiff_plugin.molecules.edm_rules import rules_of
from symdiff_plugin.molecules.molecule import Molecule


@dataclass(frozen=True)
class Verdict:
    """What is said of one molecule.

    Attributes:
        stable_atoms: atoms whose valence, by EDM's table of bond lengths, is one that EDM allows.
        stable: whether all atoms are.
        smiles: EDM's SMILES of the largest fragment; None if RDKit cannot sanitise the molecule (not valid).
        pieces: into how many the graph of EDM's bonds falls; 1 for a connected molecule.
        finite: whether all coordinates are numbers; one that is not has no stable atom, no SMILES and no bonds.
        bonds: (n_bonds, 3) integers: atoms i > j of each of EDM's bonds, and its order in the molecule that EDM builds.
    """

    stable_atoms: int
    stable: bool
    smiles: str | None
    pieces: int
    finite: bool
    bonds: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), dtype=np.int16), compare=False, repr=False)

    @property
    def connected(self) -> bool:
        return self.finite and self.pieces == 1

    @property
    def valid(self) -> bool:
        return self.smiles is not None

    @property
    def words(self) -> str:
        """The verdict in a word or two, best news first."""
        if not self.finite:
            return "not finite"
        if not self.connected:
            return "in pieces"
        return "stable" if self.stable else "valid" if self.valid else "not valid"


def judge(molecules: Sequence[Molecule], dataset_info: dict[str, Any]) -> list[Verdict]:
    """EDM's verdict on each molecule.

    Args:
        molecules: made of the atom types of the data set.
        dataset_info: EDM's description of the data set.
    """
    return list(verdicts_of(progress(molecules, f"Analysing {len(molecules):,} molecules"), dataset_info))


def verdicts_of(molecules: Iterable[Molecule], dataset_info: dict[str, Any]) -> Iterator[Verdict]:
    """:func:`judge` for molecules that come one at a time, as they come."""
    rules = rules_of(dataset_info)
    types = {symbol: index for index, symbol in enumerate(dataset_info["atom_decoder"])}
    for molecule in molecules:
        if not molecule.is_finite:
            yield Verdict(0, False, None, len(molecule), False)
            continue
        kinds = np.array([types[symbol] for symbol in molecule.symbols])
        positions = np.asarray(molecule.positions)
        with rdBase.BlockLogs(), np.errstate(over="ignore"):  # a wrong valence is a result here
            stable = rules.stable_atoms(positions, kinds)
            bonds = rules.bonds(torch.from_numpy(positions), kinds)
            smiles = rules.smiles(kinds, bonds)
        pieces = count_pieces(len(molecule), bonds)
        yield Verdict(int(stable.sum()), bool(stable.all()), smiles, pieces, True, bonds)


def summarise(
    molecules: Sequence[Molecule], verdicts: Sequence[Verdict], training_smiles: Collection[str] | None = None
) -> dict[str, float | None]:
    """Fractions over all samples; each verdict belongs to the molecule of its place. See :func:`fractions`."""
    return fractions(sum(map(len, molecules)), verdicts, training_smiles)


def fractions(
    n_atoms: int, verdicts: Sequence[Verdict], training_smiles: Collection[str] | None = None
) -> dict[str, float | None]:
    """Fractions over molecules, of which the verdicts and the number of all atoms suffice.

    Those that are not finite are among the molecules and the atoms that it is divided by, and in ``non_finite`` alone.

    Args:
        training_smiles: a set of SMILES as EDM computes them; novelty is None without it.

    Returns:
        ``atom_stability`` over atoms; ``molecule_stability``, ``validity``, ``connected`` (in one piece),
        ``valid_connected`` and ``non_finite`` over molecules; ``uniqueness`` over the valid; ``novelty`` over the
        unique; ``validity_x_uniqueness``.
    """
    count = len(verdicts)
    valid = [verdict.smiles for verdict in verdicts if verdict.smiles is not None]
    unique = set(valid)
    uniqueness = len(unique) / len(valid) if valid else 0.0
    novelty = None
    if training_smiles is not None:
        novelty = sum(smiles not in training_smiles for smiles in unique) / len(unique) if unique else 0.0
    return {
        "atom_stability": sum(verdict.stable_atoms for verdict in verdicts) / n_atoms,
        "molecule_stability": sum(verdict.stable for verdict in verdicts) / count,
        "validity": len(valid) / count,
        "uniqueness": uniqueness,
        "novelty": novelty,
        "validity_x_uniqueness": len(valid) / count * uniqueness,
        "connected": sum(verdict.connected for verdict in verdicts) / count,
        "valid_connected": sum(verdict.connected and verdict.valid for verdict in verdicts) / count,
        "non_finite": sum(not verdict.finite for verdict in verdicts) / count,
    }

"""EDM's two rules for a molecule, all pairs of atoms at once: which atoms are stable, and whether it is valid.

EDM's ``check_stability`` and ``build_xae_molecule`` walk over the pairs in Python, 1,035 of them for a drug of 46
atoms. Here the same distances, in the same floating-point numbers, are compared with the same tables in one step.
The two rules take their distances differently, as in EDM, so that a bond at a threshold may count for one alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rdkit import Chem

from symdiff_plugin.edm import import_edm
from symdiff_plugin.molecules.edm_bonds import bond_orders, bond_thresholds, molecule_of


@dataclass(frozen=True)
class Rules:
    """EDM's tables for the atom types of one data set.

    Attributes:
        atom_decoder: the symbol of every type.
        thresholds: (3, K, K) from :func:`symdiff_plugin.molecules.edm_bonds.bond_thresholds`, symmetric: EDM looks a
            pair up in the order of the types.
        allowed: (K, largest valence + 2) booleans: whether a type may have that many bonds; the last column, for any
            larger number, is False.
        highest_order: of the bonds in the molecules that EDM builds: GEOM-Drugs' are single ones all.
        mol2smiles: EDM's function of that name.
    """

    atom_decoder: tuple[str, ...]
    thresholds: np.ndarray
    allowed: np.ndarray
    highest_order: int
    mol2smiles: Callable[[Chem.Mol], str | None]

    def stable_atoms(self, positions: np.ndarray, kinds: np.ndarray) -> np.ndarray:
        """Whether each atom's valence is one that EDM allows, as in ``qm9.analyze.check_stability``.

        Args:
            positions: (N, 3) in Angstrom; computed with in their dtype. One that is no number bonds to nothing.
            kinds: (N,) atom types.

        Returns:
            (N,) booleans.
        """
        difference = positions[:, None] - positions[None]
        squares = difference * difference
        lengths = 100 * np.sqrt(squares[..., 0] + squares[..., 1] + squares[..., 2])
        below = lengths < self.thresholds[:, kinds[:, None], kinds[None, :]]
        orders = np.cumprod(below, axis=0).sum(axis=0)
        np.fill_diagonal(orders, 0)
        return self.allowed[kinds, np.minimum(orders.sum(axis=1), self.allowed.shape[1] - 1)]

    def bonds(self, positions: torch.Tensor, kinds: np.ndarray) -> np.ndarray:
        """The bonds of the molecule that EDM builds, (n_bonds, 3): atoms i > j and the order, by rising i, then j."""
        orders = np.minimum(bond_orders(positions, kinds, self.thresholds), self.highest_order)
        pairs = np.argwhere(orders)
        return np.column_stack([pairs, orders[tuple(pairs.T)]]).astype(np.int16)

    def smiles(self, kinds: np.ndarray, bonds: np.ndarray) -> str | None:
        """SMILES of the largest fragment as in EDM's ``compute_validity``; None if RDKit cannot sanitise the whole."""
        mol = molecule_of(kinds, bonds, self.atom_decoder)
        if self.mol2smiles(mol) is None:
            return None
        fragments = Chem.GetMolFrags(mol, asMols=True)
        return self.mol2smiles(max(fragments, default=mol, key=lambda fragment: fragment.GetNumAtoms()))


def rules_of(dataset_info: dict[str, Any]) -> Rules:
    """EDM's rules for the data set of ``dataset_info``."""
    decoder: Sequence[str] = dataset_info["atom_decoder"]
    valences = import_edm("qm9.bond_analyze").allowed_bonds
    allowed = np.zeros((len(decoder), max(np.max(numbers) for numbers in valences.values()) + 2), dtype=bool)
    for kind, symbol in enumerate(decoder):
        allowed[kind, valences.get(symbol, [])] = True  # an element that EDM does not know is never stable
    thresholds = bond_thresholds(decoder)
    thresholds = np.where(np.tri(len(decoder), k=-1, dtype=bool), thresholds.swapaxes(1, 2), thresholds)
    highest = 1 if dataset_info["name"] == "geom" else 3
    return Rules(tuple(decoder), thresholds, allowed, highest, import_edm("qm9.rdkit_functions").mol2smiles)

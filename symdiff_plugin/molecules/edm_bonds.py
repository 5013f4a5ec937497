"""Bonds as EDM finds them, from its table of bond lengths, all pairs of a molecule at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def molecule_of(kinds: np.ndarray, bonds: np.ndarray, atom_decoder: Sequence[str]) -> Any:
    """RDKit's molecule as EDM's ``build_molecule`` makes it, on which the SMILES depend.

    Args:
        kinds: (N,) atom types.
        bonds: (n_bonds, 3) integers: atoms i > j and the order, by rising i, then j.
        atom_decoder: the symbol of every atom type.
    """
    from qm9.rdkit_functions import bond_dict  # EDM's
    from rdkit import Chem

    mol = Chem.RWMol()
    for kind in kinds:
        mol.AddAtom(Chem.Atom(atom_decoder[kind]))
    for i, j, order in bonds:
        mol.AddBond(int(i), int(j), bond_dict[order])
    return mol


def bond_thresholds(atom_decoder: Sequence[str]) -> np.ndarray:
    """Lengths in pm below which EDM sees a single, a double and a triple bond.

    Returns:
        (3, K, K) float32 for K atom types, minus infinity where EDM's table knows no such bond.
    """
    from qm9 import bond_analyze  # EDM's

    tables = (bond_analyze.bonds1, bond_analyze.bonds2, bond_analyze.bonds3)
    margins = (bond_analyze.margin1, bond_analyze.margin2, bond_analyze.margin3)
    return np.array(
        [
            [[table.get(a, {}).get(b, -np.inf) + margin for b in atom_decoder] for a in atom_decoder]
            for table, margin in zip(tables, margins, strict=True)
        ],
        dtype=np.float32,
    )


def bond_orders(positions: torch.Tensor, kinds: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """EDM's bond orders, all pairs at once.

    Args:
        positions: (N, 3) in Angstrom; the distances are computed as EDM computes them, in their dtype.
        kinds: (N,) atom types.
        thresholds: (3, K, K) from :func:`bond_thresholds`.

    Returns:
        (N, N) integers 0 to 3, below the diagonal alone.
    """
    lengths = 100 * torch.cdist(positions[None], positions[None], p=2)[0].numpy()
    below = lengths < thresholds[:, kinds[:, None], kinds[None, :]]
    return np.tril(np.cumprod(below, axis=0).sum(axis=0), -1)

"""Which atoms are bonded, judged by distance alone: for pictures and for the example without EDM.

Atoms i and j are bonded when |x_i - x_j| < 1.15 (r_i + r_j), r the covalent radii of RDKit's periodic table.
The factor is measured: of 15,769 molecules drawn from QM9 it finds as many bonds as the molecule's SMILES has
in all but one (1.2 is wrong for 1.1% of them; 1.3, RDKit's own, for 5%). It gives no bond orders, and EDM's
metrics do not use it: they have a table of bond lengths of their own.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from rdkit import Chem
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import pdist

from symdiff_plugin.molecules.molecule import Molecule

TOLERANCE = 1.15


@cache
def covalent_radius(symbol: str) -> float:
    """Covalent radius of an element in Angstrom, from RDKit's periodic table.

    Raises:
        ValueError: there is no such element.
    """
    try:
        return Chem.GetPeriodicTable().GetRcovalent(symbol)
    except RuntimeError:
        raise ValueError(f"no element is called {symbol!r}") from None


def bonded_pairs(molecule: Molecule, tolerance: float = TOLERANCE) -> np.ndarray:
    """Bonds of a molecule, (n_bonds, 2) integers with i < j; an atom without finite coordinates has none."""
    radii = np.array([covalent_radius(symbol) for symbol in molecule.symbols])
    first, second = np.triu_indices(len(molecule), k=1)
    close = pdist(molecule.positions) < tolerance * (radii[first] + radii[second])  # False for what is no number
    return np.stack([first[close], second[close]], axis=1)


def count_pieces(n_atoms: int, pairs: np.ndarray) -> int:
    """Number of connected pieces of the graph of ``n_atoms`` atoms with the bonds ``pairs``, (n_bonds, 2 or more)."""
    if n_atoms == 0:
        return 0
    first, second = pairs[:, :2].T.astype(np.int32)  # with int64 SciPy 1.11 answers 0
    graph = csr_array((np.ones(len(pairs)), (first, second)), shape=(n_atoms, n_atoms))
    return int(connected_components(graph, directed=False, return_labels=False))

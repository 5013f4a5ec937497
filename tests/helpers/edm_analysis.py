"""EDM's own analysis of molecules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from symdiff_plugin.edm import import_edm
from symdiff_plugin.molecules.molecule import Molecule


def edms_own(molecules: Sequence[Molecule], dataset_info: Mapping[str, Any]) -> dict[str, float]:
    """EDM's ``analyze_stability_for_molecules`` on padded tensors, as EDM's scripts call it."""
    longest = max(map(len, molecules))
    batch = {
        "one_hot": torch.zeros(len(molecules), longest, len(dataset_info["atom_decoder"])),
        "x": torch.zeros(len(molecules), longest, 3),
        "node_mask": torch.zeros(len(molecules), longest, 1),
    }
    for i, molecule in enumerate(molecules):
        n = len(molecule)
        batch["x"][i, :n] = torch.from_numpy(molecule.positions)
        batch["node_mask"][i, :n] = 1
        batch["one_hot"][i, range(n), [dataset_info["atom_decoder"].index(one) for one in molecule.symbols]] = 1
    stability, (rdkit, _) = import_edm("qm9.analyze").analyze_stability_for_molecules(batch, dataset_info)
    return {
        "atom_stability": stability["atm_stable"],
        "molecule_stability": stability["mol_stable"],
        "validity": rdkit[0],
        "uniqueness": rdkit[1],
        "novelty": rdkit[2],
    }

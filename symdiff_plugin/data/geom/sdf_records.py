"""The conformers of an SDF file, one record at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from rdkit import Chem, rdBase

from symdiff_plugin.data.geom.geometry import Conformer, Rejected, check_conformer, smiles_without_hydrogens
from symdiff_plugin.data.geom.text_source import TextSource
from symdiff_plugin.data.schema import DataError

LARGEST_RECORD = 64 << 20  # characters


def read_sdf_conformers(source: TextSource) -> Iterator[Conformer | Rejected]:
    """Every record of an SDF file: its conformer, or why it cannot be taken.

    Raises:
        DataError: the file cannot be read any further.
    """
    for place, lines in enumerate(_records(source), start=1):
        title = lines[0].strip() if lines else ""
        where = f"{source.path}, record {place}{f' ({title[:40]})' if title else ''}"
        try:
            yield _conformer(source, where, title, "\n".join(lines))
        except Rejected as rejected:
            yield rejected


def _records(source: TextSource) -> Iterator[list[str]]:
    lines: list[str] = []
    size = 0
    for line in source:
        if line.startswith("$$$$"):
            yield lines
            lines, size = [], 0
            continue
        lines.append(line)
        size += len(line) + 1
        if size > LARGEST_RECORD:
            raise DataError(f"{source.path}, line {source.line}: a record of over 64 MiB, without $$$$ at its end: "
                            "this is no SDF file")  # fmt: skip
    if any(map(str.strip, lines)):
        yield lines


def _conformer(source: TextSource, where: str, title: str, block: str) -> Conformer:
    with rdBase.BlockLogs():  # what RDKit would say is in the message
        mol = Chem.MolFromMolBlock(block, sanitize=False, removeHs=False)
        if mol is None:
            raise Rejected(where, "RDKit cannot read it", "cut short, a number that is none, or no mol block")
        if mol.GetNumAtoms() == 0:
            raise Rejected(where, "fewer than two atoms")
        numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
        conformer = mol.GetConformer()
        positions = conformer.GetPositions()
        if not conformer.Is3D():  # RDKit: not marked as 3D, and no z but 0
            raise Rejected(where, "no 3D coordinates", "a flat molecule needs 3D in the second line of its record")
        check_conformer(where, numbers, positions)
        try:
            Chem.SanitizeMol(mol)
        except (Chem.MolSanitizeException, RuntimeError) as error:
            raise Rejected(where, "RDKit cannot make sense of its bonds", str(error).strip().splitlines()[0]) from error
        lacking = sum(atom.GetTotalNumHs() for atom in mol.GetAtoms())
        if lacking:
            raise Rejected(where, "hydrogens without coordinates", f"{lacking} are implied; EDM needs every one")
        return Conformer(where, stem(source), title, smiles_without_hydrogens(mol), numbers, positions)


def stem(source: TextSource) -> str:
    """The name of a file without its folder and its endings."""
    return source.path.name.removesuffix(".gz").rpartition(".")[0] or source.path.name

"""The conformers of an XYZ file of one or more frames, one frame at a time.

A frame is the number of atoms, a comment, and a line an atom: symbol or atomic number, x, y, z in Angstrom (what
follows on the line is not read). XYZ has no bonds and none are guessed here. A SMILES in the comment is believed if
it has the frame's atoms, hydrogens included: then it cannot have got there by chance.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
from rdkit import Chem, rdBase

from symdiff_plugin.data.geom.geometry import Conformer, Rejected, check_conformer, smiles_without_hydrogens, symbol
from symdiff_plugin.data.geom.sdf_records import stem
from symdiff_plugin.data.geom.text_source import TextSource

MOST_ATOMS = 1_000_000  # what a frame may claim to have, so that no more lines than that are ever held
_NUMBERS = {symbol(number): number for number in range(1, 119)} | {"D": 1, "T": 1, "X": 0, "*": 0}
_LABEL = re.compile(r"smiles[=:]", re.IGNORECASE)
_WORDS = 16  # of a comment, among which a SMILES is looked for


def read_xyz_conformers(source: TextSource) -> Iterator[Conformer | Rejected]:
    """Every frame of an XYZ file: its conformer, or why it cannot be taken.

    After a line that should be the number of atoms and is not, there is no telling where the next frame starts: the
    rest of the file counts as one frame that cannot be taken.

    Raises:
        DataError: the file cannot be read any further.
    """
    lines = iter(source)
    place = 0
    for line in lines:
        if not line.strip():
            continue
        place += 1
        where = f"{source.path}, frame {place} (line {source.line})"
        count = line.strip()
        if not count.isdecimal() or not 1 <= int(count) <= MOST_ATOMS:
            yield Rejected(where, "no number of atoms where a frame should start", f"{count[:40]!r}")
            return
        comment = next(lines, None)
        atoms = [atom for _, atom in zip(range(int(count)), lines, strict=False)]
        if comment is None or len(atoms) < int(count):
            yield Rejected(where, "cut short", f"{len(atoms)} of {count} atoms")
            return
        try:
            numbers, positions = _atoms(where, atoms)
            check_conformer(where, numbers, positions)
            yield Conformer(where, stem(source), comment.strip(), smiles_in(comment, numbers), numbers, positions)
        except Rejected as rejected:
            yield rejected


def _atoms(where: str, lines: list[str]) -> tuple[np.ndarray, np.ndarray]:
    numbers, positions = [], []
    for place, line in enumerate(lines, start=1):
        fields = line.split()
        try:
            positions.append([float(field) for field in fields[1:4]])
            name = fields[0]
            numbers.append(int(name) if name.isdecimal() else _NUMBERS[name.capitalize()])
            if len(positions[-1]) != 3 or numbers[-1] > 118:
                raise ValueError
        except (ValueError, KeyError, IndexError):
            raise Rejected(where, "a line that is no atom", f"atom {place}: {line.strip()[:60]!r}") from None
    return np.array(numbers), np.array(positions, dtype=np.float64)


def smiles_in(comment: str, numbers: np.ndarray) -> str | None:
    """The canonical SMILES that a frame's comment holds; None if it holds none of these atoms.

    Args:
        comment: any text; the SMILES is one of its first words, alone or after ``smiles=``.
        numbers: (n,) atomic numbers of the frame.
    """
    expected = Counter(numbers.tolist())
    with rdBase.BlockLogs():
        for word in comment.split()[:_WORDS]:
            mol = Chem.MolFromSmiles(_LABEL.sub("", word, count=1).strip("\"'"))
            if mol is None or mol.GetNumAtoms() == 0:
                continue
            if Counter(atom.GetAtomicNum() for atom in Chem.AddHs(mol).GetAtoms()) == expected:
                return smiles_without_hydrogens(mol)
    return None

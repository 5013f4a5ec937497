"""A data set of one's own, written conformer by conformer: nothing of it is held but its histograms."""

from __future__ import annotations

from contextlib import ExitStack
from typing import IO, Any

import numpy as np

from symdiff_plugin.common.files import replacing
from symdiff_plugin.data.geom.dataset_info import DatasetStatistics, write_dataset_info
from symdiff_plugin.data.geom.layout import COLUMNS, GeomFiles
from symdiff_plugin.data.geom.npy import header


class GrowingArray:
    """An ``.npy`` file whose number of rows is known at the end.

    Args:
        file: open for writing bytes, at its start.
        dtype: of the array.
        row: the shape of one row.
    """

    def __init__(self, file: IO[bytes], dtype: type, row: tuple[int, ...] = ()) -> None:
        self._file, self._dtype, self._row, self.rows = file, np.dtype(dtype), row, 0
        self._file.write(header((0, *row), dtype))
        self._start = file.tell()

    def append(self, rows: np.ndarray) -> None:
        """Write rows, (n, *row)."""
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).tobytes())
        self.rows += len(rows)

    def finish(self) -> None:
        """Write the number of rows into the header."""
        self._file.seek(0)
        self._file.write(header((self.rows, *self._row), self._dtype))
        self._file.flush()
        if self._file.tell() != self._start:  # NumPy leaves room for the first dimension to grow
            raise RuntimeError("the header of an .npy file grew: this NumPy cannot be used")


class DataSetWriter:
    """Writes the files of :class:`GeomFiles`; they are put in place when the block ends after :meth:`finish`.

    Args:
        files: where; what is there is replaced.

    Attributes:
        conformers, molecules, n_atoms: how many have been written; molecules are lines of the SMILES file.
        info: the dataset_info, once finished.

    Raises:
        OSError: a file cannot be written; all are then what they were.
    """

    def __init__(self, files: GeomFiles) -> None:
        self.files = files
        self.conformers = self.molecules = self.n_atoms = 0
        self.info: dict[str, Any] = {}
        self._statistics = DatasetStatistics()
        self._label: str | None = None
        self._of_label = 0
        self._stack = ExitStack()

    def __enter__(self) -> DataSetWriter:
        with ExitStack() as stack:
            # Put in place in the opposite order: the array itself, by which a data set is known, last.
            self._atoms = GrowingArray(self._open(stack, self.files.data), np.float64, (COLUMNS,))
            self._info = stack.enter_context(replacing(self.files.info))
            self._sizes = GrowingArray(self._open(stack, self.files.n_atoms), np.int64)
            self._conformers = GrowingArray(self._open(stack, self.files.conformers), np.int64)
            self._smiles = stack.enter_context(replacing(self.files.smiles))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._stack.__exit__(*raised)

    @staticmethod
    def _open(stack: ExitStack, path: Any) -> IO[bytes]:
        return stack.enter_context(replacing(path, "wb"))

    def add(self, label: str, numbers: np.ndarray, positions: np.ndarray) -> None:
        """Write one conformer.

        Args:
            label: of its molecule, one line; conformers that follow each other with the same are of one molecule.
            numbers: (n,) atomic numbers.
            positions: (n, 3) in Angstrom.
        """
        if label != self._label:
            self._end_molecule()
            self._label = label
        self._of_label += 1
        ids = np.full(len(numbers), self.conformers)
        self._atoms.append(np.column_stack([ids, numbers, positions]))
        self._sizes.append(np.array([len(numbers)]))
        self._statistics.add(numbers)
        self.conformers += 1
        self.n_atoms += len(numbers)

    def finish(self, name: str) -> None:
        """Complete the files, under the data set's name.

        Raises:
            OSError: a file cannot be written.
        """
        self._end_molecule()
        for array in (self._atoms, self._sizes, self._conformers):
            array.finish()
        self.info = self._statistics.dataset_info(name)
        write_dataset_info(self.info, self._info)
        for file in (self._info, self._smiles):  # a full disk shows itself before the first is put in place
            file.flush()

    def _end_molecule(self) -> None:
        if self._label is not None:
            self._smiles.write(f"{self._label}\n")
            self._conformers.append(np.array([self._of_label]))
            self.molecules += 1
        self._of_label = 0

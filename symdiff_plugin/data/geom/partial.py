"""A data set in the making: rows go to disk as they come, and a killed process is gone on with.

The hidden folder ``.NAME.partial`` beside the data set holds its four files so far and ``state.json``, written
after they are on disk: the lengths they had then, and where the source was read to. Going on cuts them to these.
"""

from __future__ import annotations

import fcntl
import filecmp
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from symdiff_plugin.common.files import write_json
from symdiff_plugin.data.geom.archive import Place
from symdiff_plugin.data.geom.layout import COLUMNS, GeomFiles
from symdiff_plugin.data.geom.npy import header
from symdiff_plugin.data.schema import DataError

FORMAT = 1
BUFFER_BYTES = 2**18


class Partial:
    """The four files of a data set while they are written; a context manager that closes them.

    Args:
        files: where the data set will be.
        of: what it is made of and how, to be compared with what an earlier process left; goes into JSON.

    Raises:
        DataError: another process is making the same data set.
        OSError: the folder cannot be written.
    """

    def __init__(self, files: GeomFiles, of: dict[str, Any]) -> None:
        self.files = files
        self.folder = files.data.with_name(f".{files.data.stem}.partial")
        self.place = Place()
        self.n_molecules = self.n_conformers = self.n_atoms = 0
        self.note = ""
        self._of = of
        # The main file last: where it is, the others are.
        self._targets = {
            "n_atoms.npy": files.n_atoms, "smiles.txt": files.smiles, "conformers.npy": files.conformers,
            "atoms.npy": files.data,
        }  # fmt: skip
        self._made = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        with ExitStack() as stack:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock(stack)
            state = self._left_before()
            mode = "wb" if state is None else "r+b"
            self._open = {
                name: stack.enter_context((self.folder / name).open(mode, BUFFER_BYTES)) for name in self._targets
            }
            if state is None:
                self._state.unlink(missing_ok=True)
                self._write_headers()
            else:
                self._go_on(state)
            self._close = stack.pop_all().close

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # a full disk was reported already
            self._close()

    def last_smiles(self, count: int) -> list[str]:
        """The SMILES of the last ``count`` molecules."""
        if not count:
            return []
        self._open["smiles.txt"].flush()
        return (self.folder / "smiles.txt").read_text(encoding="utf-8").splitlines()[-count:]

    def add(self, smiles: str, conformers: Sequence[np.ndarray]) -> None:
        """Append a molecule.

        Args:
            smiles: of the molecule.
            conformers: arrays (n_atoms, 4) float64: atomic number, x, y, z in Angstrom.
        """
        sizes = np.array([len(atoms) for atoms in conformers], dtype=np.int64)
        rows = np.empty((int(sizes.sum()), COLUMNS))
        rows[:, 0] = np.repeat(np.arange(self.n_conformers, self.n_conformers + len(sizes)), sizes)
        if len(sizes):
            np.concatenate(conformers, out=rows[:, 1:])
        self._open["atoms.npy"].write(rows.data)
        self._open["n_atoms.npy"].write(sizes.data)
        self._open["conformers.npy"].write(np.int64(len(sizes)).tobytes())
        self._open["smiles.txt"].write(f"{smiles}\n".encode())
        self.n_molecules += 1
        self.n_conformers += len(sizes)
        self.n_atoms += len(rows)

    def save(self, place: Place) -> None:
        """Put on disk what was added, and that it is all of the source up to ``place``."""
        for file in self._open.values():
            file.flush()
            os.fsync(file.fileno())
        self.place = place
        counts = [self.n_molecules, self.n_conformers, self.n_atoms]
        lengths = {name: file.tell() for name, file in self._open.items()}
        state = {"format": FORMAT, "of": self._of, "place": asdict(place), "counts": counts, "lengths": lengths}
        write_json(self._state, state)

    def finish(self, overwrite: bool = False) -> list[Path]:
        """Put the four files in place, the main one last, and remove the folder.

        Args:
            overwrite: even over a list of SMILES that another data set of this folder shares.

        Raises:
            DataError: nothing was added, or the list of SMILES there is another.
        """
        if not self.n_conformers:
            raise DataError("there are no conformers in it: nothing to write")
        self._write_headers()
        self._close()
        shared = self.files.smiles
        if not overwrite and shared.exists() and not filecmp.cmp(self.folder / "smiles.txt", shared, shallow=False):
            raise DataError(f"{shared} lists other molecules: choose another folder, or --overwrite it")
        self.files.data.unlink(missing_ok=True)  # or the old one would stand beside new side files for a moment
        for name, target in self._targets.items():
            os.replace(self.folder / name, target)
        shutil.rmtree(self.folder)
        return [self.files.data, self.files.n_atoms, self.files.smiles, self.files.conformers]

    def discard(self) -> None:
        """Remove the folder, and those above it that were made for it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for folder in self._made:
            with suppress(OSError):
                folder.rmdir()

    @property
    def _state(self) -> Path:
        return self.folder / "state.json"

    def _lock(self, stack: ExitStack) -> None:
        handle = os.open(self.folder, os.O_RDONLY)
        stack.callback(os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"another process is making {self.files.data}: wait for it") from None

    def _left_before(self) -> dict[str, Any] | None:
        """The state an earlier process left, if it was making the same; ``note`` says what was found."""
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            if state["format"] != FORMAT or state["of"] != self._of:
                self.note = "discarding what is half made there of another archive, or with other options"
                return None
            if all((self.folder / name).stat().st_size >= state["lengths"][name] for name in self._targets):
                return state
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            pass
        self.note = "discarding what is half made there: it is damaged"
        return None

    def _go_on(self, state: dict[str, Any]) -> None:
        self.place = Place(**state["place"])
        self.n_molecules, self.n_conformers, self.n_atoms = state["counts"]
        for name, file in self._open.items():
            file.truncate(state["lengths"][name])
            file.seek(0, os.SEEK_END)
        self.note = f"going on after {self.n_molecules:,} molecules that an earlier run left"

    def _write_headers(self) -> None:
        shapes = {
            "atoms.npy": header((self.n_atoms, COLUMNS), float),
            "n_atoms.npy": header((self.n_conformers,), np.int64),
            "conformers.npy": header((self.n_molecules,), np.int64),
        }
        for name, head in shapes.items():
            file = self._open[name]
            file.seek(0)
            file.write(head)
            file.seek(0, os.SEEK_END)
            file.flush()
            os.fsync(file.fileno())

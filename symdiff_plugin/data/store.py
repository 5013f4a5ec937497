"""The data set on disk: read it, check it, write it whole."""

from __future__ import annotations

import contextlib
import json
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from symdiff_plugin.common.files import finish_changes, remove_leftovers
from symdiff_plugin.data.integrity import SPLIT_HASHES, content_hash, json_writer, npz_writer, write_together
from symdiff_plugin.data.plausible import check_split
from symdiff_plugin.data.schema import KEYS, SMALLEST_SLICE, SPLIT_SIZES, SPLITS, DataError, split_path
from symdiff_plugin.data.splits import Arrays

SLICE_RECORD = "slice.json"
_checked: set[tuple[Path, int, int]] = set()  # files as they were when their content was found to be sound
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class SliceSpec:
    """Which slice of QM9: molecules of train, valid and test, and the seed of the draw.

    Raises:
        DataError: a size that no slice can have, or a seed out of range.
    """

    sizes: tuple[int, int, int]
    seed: int = 0

    def __post_init__(self) -> None:
        for split, size in zip(SPLITS, self.sizes, strict=True):
            if not SMALLEST_SLICE[split] <= size <= SPLIT_SIZES[split]:
                raise DataError(
                    f"a slice holds {SMALLEST_SLICE[split]} to {SPLIT_SIZES[split]:,} molecules of {split}, not {size}"
                )
        if not 0 <= self.seed < 2**32:
            raise DataError(f"the seed of a slice must lie between 0 and 2**32 - 1, not {self.seed}")

    def __str__(self) -> str:
        return f"a slice of {'/'.join(map(str, self.sizes))} molecules, seed {self.seed}"


def make_command(datadir: str | Path) -> str:
    """The command that makes the data set, for messages."""
    return f"python -m symdiff_plugin.data.qm9 --datadir {datadir}"


def load_split(datadir: str | Path, split: str, keys: Sequence[str] = KEYS) -> Arrays:
    """One split as arrays, whose content is checked the first time that a process reads them.

    Args:
        datadir: the folder that holds ``qm9/``.
        split: ``train``, ``valid`` or ``test``.
        keys: what must be there, of :data:`~symdiff_plugin.data.plausible.NEEDED` at least.

    Returns:
        The arrays described in :mod:`symdiff_plugin.data.schema`.

    Raises:
        DataError: no such split, a file that is missing, corrupt or something else, or a molecule that is none
            (:func:`~symdiff_plugin.data.plausible.check_split`).
    """
    path = split_path(datadir, split)
    if not path.is_file():
        raise DataError(f"{path} is missing: make it with {make_command(datadir)}")
    remedy = f"remake it with {make_command(datadir)} --force"
    arrays = _read_npz(path, remedy)
    lacking = [key for key in keys if key not in arrays]
    if lacking:
        raise DataError(f"{path} has no {lacking[0]!r}: {remedy}")
    state = path.stat()
    file = (path.resolve(), state.st_mtime_ns, state.st_size)
    if file not in _checked:
        try:
            check_split(arrays)
        except DataError as error:
            raise DataError(f"{path}: {error}: mend that, or {remedy}") from error
        _checked.add(file)
    return arrays


def split_sizes(datadir: str | Path) -> dict[str, int]:
    """Molecules of each split, which tells a slice from the full QM9 (``SPLIT_SIZES``).

    Raises:
        DataError: a file is missing or cannot be read.
    """
    sizes = {}
    for split in SPLITS:
        path = split_path(datadir, split)
        try:
            with np.load(path) as arrays:
                sizes[split] = len(arrays["num_atoms"])
        except _UNREADABLE as error:
            raise DataError(f"{path} cannot be read ({error}): make it with {make_command(datadir)}") from error
    return sizes


def check_datadir(datadir: str | Path, keys: Sequence[str] = KEYS) -> None:
    """Check the three files that EDM will read, as :func:`load_split` does; takes about two seconds for the full set.

    Raises:
        DataError: they are not what they should be; the message names the command that makes them.
    """
    _finish(datadir)
    missing = [path for split in SPLITS if not (path := split_path(datadir, split)).is_file()]
    if missing:
        raise DataError(f"{missing[0]} is missing: make it with {make_command(datadir)}")
    for split in SPLITS:
        load_split(datadir, split, keys)


def _finish(datadir: str | Path) -> None:
    """Finish what a ``--force`` began that was killed while it put its files in place.

    Raises:
        DataError: that cannot be done.
    """
    try:
        finish_changes(Path(datadir) / "qm9")
    except (OSError, ValueError) as error:
        raise DataError(f"{Path(datadir) / 'qm9'} was left half replaced: {error}") from error


def is_made(datadir: str | Path, spec: SliceSpec | None = None) -> bool:
    """Whether the data set, or the slice ``spec`` of it, is there already, its content verified.

    Returns:
        False where files are missing and those that are there (if any) are genuine.

    Raises:
        DataError: files of something else, or corrupt ones: only ``--force`` replaces them.
    """
    _finish(datadir)
    paths = {split: path for split in SPLITS if (path := split_path(datadir, split)).exists()}
    if not paths:
        return False
    folder = Path(datadir) / "qm9"
    found, hashes = _read_record(folder)
    if found != spec:
        raise DataError(
            f"{folder} holds {found or 'no slice'}, not {spec or 'the full QM9'}: "
            "choose another --datadir, or replace it with --force"
        )
    for split, path in paths.items():
        arrays = _read_npz(path, remedy="remake it with --force")
        if content_hash(arrays) != hashes[split]:
            what = spec or "QM9 as EDM prepares it"
            raise DataError(f"{path} has other content than {what}: remake it with --force")
    return len(paths) == len(SPLITS)


@contextlib.contextmanager
def open_folder(datadir: str | Path) -> Iterator[Path]:
    """``datadir/qm9``, made if need be; folders made here go again if the block fails and leaves them empty.

    Raises:
        DataError: ``datadir`` is not a folder, its parent is missing, or it cannot be written to.
    """
    datadir = Path(datadir)
    folder = datadir / "qm9"
    if not datadir.absolute().parent.is_dir():
        raise DataError(f"{datadir} cannot be made: {datadir.absolute().parent} is not a folder; make it first")
    made = []
    try:
        for path in (datadir, folder):
            try:
                path.mkdir()
                made.append(path)
            except FileExistsError:
                if not path.is_dir():
                    raise DataError(f"{path} is a file: choose a folder for --datadir") from None
            except OSError as error:
                raise DataError(f"{path} cannot be made ({error.strerror}): choose another --datadir") from error
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise DataError(f"{folder} cannot be written to ({error.strerror}): choose another --datadir") from error
        remove_leftovers(folder)
        yield folder
    except BaseException:
        for path in reversed(made):
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def save_splits(datadir: str | Path, splits: Mapping[str, Arrays], spec: SliceSpec | None = None) -> None:
    """Write the three files, and for a slice the record of what it is: all of them or none.

    Raises:
        ResourceError: they cannot be written.
    """
    folder = Path(datadir) / "qm9"
    writers: dict[Path, Callable[[IO[bytes]], None] | None] = {folder / SLICE_RECORD: None}
    if spec is not None:
        record = {
            "note": "A random slice of QM9 for trying things out; results on it are not results on QM9.",
            "sizes": dict(zip(SPLITS, spec.sizes, strict=True)),
            "seed": spec.seed,
            "content_sha256": {split: content_hash(splits[split]) for split in SPLITS},
        }
        writers[folder / SLICE_RECORD] = json_writer(record)
    for split in SPLITS:
        path = split_path(datadir, split)
        writers[path] = npz_writer(splits[split], path.name)
    write_together(writers)


def _read_npz(path: Path, remedy: str) -> Arrays:
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("not an npz file")
        with file:
            return dict(file.items())
    except PermissionError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (*_UNREADABLE, NotImplementedError, RuntimeError) as error:
        if "Object arrays" in str(error):
            raise DataError(f"{path} holds Python objects, not numbers, which are never unpickled: {remedy}") from error
        raise DataError(f"{path} is corrupt or not an npz file: {remedy}") from error


def _read_record(folder: Path) -> tuple[SliceSpec | None, Mapping[str, str]]:
    """What the folder says it holds, and the content hashes that go with it."""
    path = folder / SLICE_RECORD
    if not path.exists():
        return None, SPLIT_HASHES
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        train, valid, test = (int(record["sizes"][split]) for split in SPLITS)
        hashes = {split: str(record["content_sha256"][split]) for split in SPLITS}
        return SliceSpec((train, valid, test), int(record["seed"])), hashes
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read: remake the slice with --force") from error

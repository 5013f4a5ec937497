"""Content hashes, and writing that leaves all files or none.

The hash is taken over the arrays, not over the npz container, whose bytes depend on the compressor.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from symdiff_plugin.common.files import Changes, why_unwritten
from symdiff_plugin.common.progress import bar
from symdiff_plugin.data.schema import SPLITS, ResourceError, split_path

# Of the arrays that EDM's own preparation made from all molecules of qm9pack, written in the archive's format.
SPLIT_HASHES = {
    "train": "3f7eae8b3d454af30a7fd8bb954201dfc3bc5bd352fdec95def4aa316704bda4",
    "valid": "51eeef96150ec472ca7fdd4af5dd1d8ef7807e2b62bf9800c626d9d0f0a30554",
    "test": "6682194967f06b2565f8699be40f3610867abb8487da922e5ce85fccc1134a02",
}
# Of the ascending indices of the 130,831 characterised molecules, int64, little-endian.
INDEX_HASH = "0f765488b299e839161159ae9209ae86dc40bbd9d22c8e8051515367b97d8b38"


def index_hash(index: np.ndarray) -> str:
    """sha256 of the indices as little-endian int64."""
    return hashlib.sha256(np.ascontiguousarray(index, dtype="<i8").tobytes()).hexdigest()


def content_hash(arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 over key, dtype, shape and bytes (little-endian, row by row) of each array, in the order given."""
    digest = hashlib.sha256()
    for key, values in arrays.items():
        values = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
        digest.update(f"{key} {values.dtype.str} {values.shape}\n".encode())
        digest.update(values.data)
    return digest.hexdigest()


def data_hash(datadir: str | Path) -> str:
    """sha256 over name, size and CRC-32 of every array of QM9's splits, read off the archives' directories.

    Raises:
        OSError, zipfile.BadZipFile: a split is missing or damaged.
    """
    digest = hashlib.sha256()
    for split in SPLITS:
        with zipfile.ZipFile(split_path(datadir, split)) as archive:
            for member in sorted(archive.infolist(), key=lambda member: member.filename):
                digest.update(f"{split} {member.filename} {member.file_size} {member.CRC}\n".encode())
    return digest.hexdigest()


def sampled_hash(path: str | Path, blocks: int = 256, block: int = 4096) -> str:
    """sha256 over the size of a file and ``blocks`` evenly placed blocks of it: of 13 GB it reads one MB.

    Raises:
        OSError: the file cannot be read.
    """
    size = os.path.getsize(path)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for number in range(blocks):
            file.seek(max(size - block, 0) * number // (blocks - 1))
            digest.update(file.read(block))
    return digest.hexdigest()


def require_space(directory: Path, n_bytes: int) -> None:
    """Check that ``n_bytes`` fit on the disk of ``directory``.

    Raises:
        ResourceError: they do not.
    """
    free = shutil.disk_usage(directory).free
    if free < n_bytes:
        raise ResourceError(
            f"{directory} has {free / 1e6:,.0f} MB free and {n_bytes / 1e6:,.0f} MB are needed: "
            "make room or choose another --datadir"
        )


def npz_writer(arrays: Mapping[str, np.ndarray], name: str) -> Callable[[IO[bytes]], None]:
    """A writer of ``arrays`` in the format of ``np.savez_compressed``, with a progress bar that says ``name``."""

    def write(file: IO[bytes]) -> None:
        size = sum(values.nbytes for values in arrays.values())
        with (
            bar(f"Writing {name}", size, "B", unit_scale=True) as shown,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            for key, values in arrays.items():
                with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, values, allow_pickle=False)
                shown.update(values.nbytes)

    return write


def json_writer(content: object) -> Callable[[IO[bytes]], None]:
    """A writer of ``content`` as indented JSON."""

    def write(file: IO[bytes]) -> None:
        file.write((json.dumps(content, indent=2) + "\n").encode())

    return write


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """The name of a temporary file in the folder of ``path``, gone at the end unless it was renamed."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def write_together(writers: dict[Path, Callable[[IO[bytes]], None] | None]) -> None:
    """Write several files of one folder, all or none, wherever the process is killed.

    See :class:`~symdiff_plugin.common.files.Changes`: whoever reads the folder calls ``finish_changes`` before.

    Args:
        writers: of each file; None removes it.

    Raises:
        ResourceError: the disk is full or refuses to be written; the message names the file.
    """
    (folder,) = {path.parent for path in writers}
    changes, path = Changes(folder), folder
    try:
        for path, write in writers.items():
            if write is None:
                changes.remove(path.name)
            else:
                write(changes.open(path.name))
        changes.commit()
    except OSError as error:
        raise ResourceError(f"{why_unwritten(path, error)} (nothing was changed)") from error
    finally:
        changes.discard()

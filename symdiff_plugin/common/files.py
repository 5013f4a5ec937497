"""Files that are either complete or not there: written under a temporary name, then put in place.

A process that is killed leaves its temporary files. They have a name of their own, and a lock that ended with the
process: :func:`remove_leftovers` knows them by both.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.partial")  # of mkstemp
_CHANGES = ".changes.json"
_CAUSES = {
    errno.ENOSPC: "the disk is full: make room",
    errno.EDQUOT: "your quota of the disk is used up: make room",
    errno.EFBIG: "it is larger than files may be there (ulimit -f, or the disk's format): raise the limit",
    errno.EROFS: "the disk is read-only: choose another place",
    errno.EACCES: "that is not permitted: choose another place, or have it permitted",
    errno.EPERM: "that is not permitted: choose another place, or have it permitted",
    errno.EIO: "the disk fails: choose another one",
}


@contextmanager
def replacing(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` that takes its place when the block ends without an error.

    Args:
        path: the file to write or to replace; its folder is made where it is missing.
        mode: ``"w"`` for UTF-8 text, ``"wb"`` for bytes.

    Raises:
        OSError: the folder cannot be made or written; ``path`` is then what it was before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    file, temporary = _temporary(path, mode)
    try:
        with file:
            yield file
            _settle(file)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


class Changes:
    """Files of one folder that belong together: all of them change, or none, wherever the process is killed.

    Each is written under a temporary name; then one small file says what is to be put in place of what. From its
    being there on the new ones hold, and whoever finds it first finishes the work (:func:`finish_changes`).

    Args:
        folder: of the files; made if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, IO[Any]] = {}
        self._changes: dict[str, str | None] = {}

    def open(self, name: str, mode: str = "wb") -> IO[Any]:
        """A temporary file that will take the place of ``name``; not to be closed.

        Raises:
            OSError: it cannot be made.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        file, temporary = _temporary(self.folder / name, mode)
        self._files[temporary.name] = file
        self._changes[temporary.name] = name
        return file

    def remove(self, name: str) -> None:
        """Let ``name`` go, too."""
        self._changes[name] = None

    def commit(self) -> None:
        """Put all of it in place.

        Raises:
            OSError: it cannot be written, and nothing was changed.
        """
        for file in self._files.values():
            _settle(file)
        write_json(self.folder / _CHANGES, self._changes)
        finish_changes(self.folder)
        self.discard()

    def discard(self) -> None:
        """Remove what has not been put in place."""
        for temporary, file in self._files.items():
            with suppress(OSError):  # what could not be written cannot be flushed
                file.close()
            (self.folder / temporary).unlink(missing_ok=True)
        self._files.clear()
        self._changes.clear()


def finish_changes(folder: Path) -> None:
    """Finish what a process began that was killed while it put files of ``folder`` in place; mostly there is nothing.

    Raises:
        OSError: that cannot be done.
        ValueError: the file that says what is to be done is damaged; the message is one line.
    """
    try:
        changes = read_json(folder / _CHANGES)
    except (FileNotFoundError, NotADirectoryError):
        return
    for source, target in changes.items():
        names = [source] if target is None else [source, target]
        if not all(isinstance(name, str) and name == Path(name).name for name in names):
            raise ValueError(f"{folder / _CHANGES} is damaged: remove it, and make anew what is in the folder")
        if target is None:
            (folder / source).unlink(missing_ok=True)
        else:
            with suppress(FileNotFoundError):  # in its place already
                os.replace(folder / source, folder / target)
    (folder / _CHANGES).unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> int:
    """Remove the temporary files in ``folder`` that nobody writes any more; the bytes that they took.

    Raises:
        OSError: one of them cannot be removed.
    """
    found = 0
    for path in [path for path in folder.iterdir() if _TEMPORARY.fullmatch(path.name) and path.is_file()]:
        with suppress(FileNotFoundError), open(path, "rb+") as file:
            if _locked(file):
                found += os.fstat(file.fileno()).st_size
                path.unlink()
    return found


def why_unwritten(path: str | os.PathLike[str], error: OSError) -> str:
    """Why a file could not be written, by name and in one line, with the remedy."""
    known = _CAUSES.get(error.errno or 0)
    return f"cannot write {path}: {known or f'{error.strerror or error}: check the folder and the disk'}"


def _temporary(path: Path, mode: str) -> tuple[IO[Any], Path]:
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    file = os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8")
    _locked(file)
    return file, Path(temporary)


def _locked(file: IO[Any]) -> bool:
    """Take the lock of an open file, which goes with its process; False where another has it, or there are none."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _settle(file: IO[Any]) -> None:
    """Have all of it on the disk, as readable as any file; mkstemp gives 0600."""
    file.flush()
    os.fsync(file.fileno())
    os.fchmod(file.fileno(), 0o666 & ~_umask())


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds none; the message is one line without a remedy, which is the caller's.
    """
    try:
        record = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({' '.join(str(error).split())})") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} is damaged (not a JSON object)")
    return record


def write_json(path: str | os.PathLike[str], record: dict[str, Any]) -> None:
    """Write ``record`` as indented JSON, whole or not at all; NaN and infinities, which JSON lacks, are null.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as file:
        json.dump(_without_nan(record), file, indent=2, allow_nan=False)
        file.write("\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _umask() -> int:
    """The process's umask, which mkstemp ignores; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask

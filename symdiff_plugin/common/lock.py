"""One process at a time in a folder: a lock that the kernel gives back when its process ends, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import sys
import time
from pathlib import Path

FILE_NAME = ".lock"


class LockedError(RuntimeError):
    """Another process has the folder; the message is one line, with the remedy."""


class Lock:
    """Has ``folder`` until it is released or the process ends; children do not inherit it.

    The file stays, with the text of who was the last; only the kernel's lock counts. It is a POSIX record lock, which
    NFS passes on to the other machines, and which the processes of a data loader do not keep after their parent's end.

    Args:
        folder: made if it is missing.
        doing: what is done there, for whoever is refused.

    Raises:
        LockedError: another process has it.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, doing: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE_NAME
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                holder = os.read(self._file, 500).decode(errors="replace").strip() or "another process"
                self.release()
                raise LockedError(f"{folder}: {holder}; wait for it or stop it, or choose another folder") from None
            print(f"{folder} is on a disk without locks: start no second process there", file=sys.stderr)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        os.ftruncate(self._file, 0)
        os.write(self._file, f"process {os.getpid()} on {platform.node()} is {doing} since {since}\n".encode())

    def release(self) -> None:
        """Let others in."""
        os.close(self._file)

"""GEOM-Drugs' ``drugs_crude.msgpack``, one molecule at a time.

The archive is a concatenation of msgpack maps, each of about a thousand molecules,

    {SMILES: {"conformers": [{"totalenergy": float, "xyz": [[Z, x, y, z], ...], ...}, ...], ...}, ...}

with energies in Hartree and coordinates in Angstrom (Axelrod & Gomez-Bombarelli 2022; 292 maps, 50 GB). EDM
unpacks a map at once, over a GB of Python objects; here only its header is, then one molecule after the other.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import msgpack

from symdiff_plugin.data.schema import DataError

ARCHIVE_NAME = "drugs_crude.msgpack"
# The largest molecule of GEOM-Drugs has 7,451 conformers: at most 50 MB packed for 181 atoms.
MAX_MOLECULE_BYTES = 128 * 2**20
MAX_TEXT_BYTES = 2**20
MAX_ITEMS = 2**17  # a list's room is taken when its length is read, which a flipped byte can make 4 billion
READ_BYTES = 2**18
HEAD_BYTES = 2**20
_UNREADABLE = (OSError, EOFError, tarfile.TarError, zlib.error)
_MALFORMED = (ValueError, TypeError, msgpack.exceptions.UnpackException)


@dataclass(frozen=True)
class Place:
    """Where reading stands, between two molecules.

    Args:
        offset: bytes from the start; of the unpacked stream, for a compressed archive.
        read: molecules read of the map that is open.
        left: molecules left in it.
        molecules: molecules read of the archive.
    """

    offset: int = 0
    read: int = 0
    left: int = 0
    molecules: int = 0


class Archive:
    """An archive that is open for reading; a context manager.

    ``size`` is its length in bytes, unpacked; ``place`` where the reading stands, after the molecule that
    :meth:`molecules` yielded last.

    Args:
        path: ``drugs_crude.msgpack``, or a tar file, compressed or not, that holds it as Dataverse's does.

    Raises:
        DataError: a missing, empty or foreign file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = Place()
        with ExitStack() as stack:
            self._file, self.size = _open(path, stack)
            if self.size == 0:
                raise DataError(f"{path} is empty: fetch {ARCHIVE_NAME} again")
            self._close = stack.pop_all().close

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def identity(self) -> dict[str, Any]:
        """Tells this archive from others without reading all of it: size, time of change, hash of its head."""
        try:
            status = self.path.stat()
            with self.path.open("rb") as file:
                head = hashlib.sha256(file.read(HEAD_BYTES)).hexdigest()
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}") from error
        return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256_of_head": head}

    def molecules(self, place: Place = Place(), seen: Iterable[str] = ()) -> Iterator[tuple[str, Any]]:
        """Yield the SMILES and the record of each molecule, in the archive's order; once for an open archive.

        Args:
            place: where to start.
            seen: SMILES of the ``place.read`` molecules before it in the map that is open there.

        Raises:
            DataError: the archive is truncated, corrupt or foreign; the message names the byte.
        """
        self.place = place
        seen = set(seen)
        source = _Source(self._file)
        try:
            self._skip(place.offset)
            unpacker = msgpack.Unpacker(
                source, read_size=READ_BYTES, max_buffer_size=MAX_MOLECULE_BYTES, max_str_len=MAX_TEXT_BYTES,
                max_bin_len=MAX_TEXT_BYTES, max_array_len=MAX_ITEMS, max_map_len=MAX_ITEMS,
            )  # fmt: skip
            while self.place.left or self.place.offset < self.size:
                if not self.place.left:
                    left = unpacker.read_map_header()
                    self.place = replace(self.place, offset=place.offset + unpacker.tell(), read=0, left=left)
                    seen.clear()
                    continue
                source.start_molecule()
                smiles, record = unpacker.unpack(), unpacker.unpack()
                self._check_key(smiles, seen)
                seen.add(smiles)
                self._advance(place.offset + unpacker.tell())
                yield smiles, record
        except msgpack.exceptions.OutOfData as error:
            end = place.offset + source.n_bytes
            raise DataError(
                f"{self.path} ends at byte {end:,}, within what starts at byte {self.place.offset:,}, after "
                f"{self.place.molecules:,} whole molecules: it is truncated; fetch {ARCHIVE_NAME} again"
            ) from error
        except _UNREADABLE as error:
            end = place.offset + source.n_bytes
            raise DataError(
                f"{self.path} cannot be read beyond byte {end:,}, after {self.place.molecules:,} molecules "
                f"({error}): it is truncated or corrupt; fetch it again"
            ) from error
        except _MALFORMED as error:
            if isinstance(error, DataError):
                raise
            raise self.fault(self.place.offset, self.place.molecules, str(error) or type(error).__name__) from error

    def fault(self, offset: int, molecules: int, reason: str) -> DataError:
        """The error to raise for what starts at byte ``offset``, after ``molecules`` good ones."""
        return DataError(
            f"{self.path} is corrupt or not {ARCHIVE_NAME} at byte {offset:,}, after {molecules:,} molecules "
            f"({reason}): fetch it again, or give GEOM-Drugs' {ARCHIVE_NAME}"
        )

    def _skip(self, n_bytes: int) -> None:
        if not isinstance(self._file, tarfile.ExFileObject):
            self._file.seek(n_bytes)
            return
        while n_bytes:  # a compressed stream cannot be entered in the middle
            block = self._file.read(min(n_bytes, READ_BYTES))
            if not block:
                raise EOFError("it ends before the place to go on from")
            n_bytes -= len(block)

    def _advance(self, offset: int) -> None:
        place = self.place
        self.place = Place(offset, place.read + 1, place.left - 1, place.molecules + 1)

    @staticmethod
    def _check_key(smiles: object, seen: set[str]) -> None:
        if not isinstance(smiles, str) or not smiles or not smiles.isprintable() or " " in smiles:
            raise ValueError(f"a SMILES should stand there, not {str(smiles)[:40]!r}")
        if smiles in seen:  # EDM's dict would keep the last and drop the first without a word
            raise ValueError(f"the map holds {smiles[:40]} twice")


class _Source:
    """The stream as msgpack reads it, counted and with a limit to what one molecule may take."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.n_bytes = 0
        self._limit = 0

    def start_molecule(self) -> None:
        self._limit = self.n_bytes + MAX_MOLECULE_BYTES

    def read(self, n_bytes: int) -> bytes:
        if self._limit and self.n_bytes > self._limit:
            raise ValueError(f"one molecule takes over {MAX_MOLECULE_BYTES:,} bytes")
        block = self._file.read(n_bytes)
        self.n_bytes += len(block)
        return block


def _open(path: Path, stack: ExitStack) -> tuple[IO[bytes], int]:
    """The stream of the archive and its length."""
    if not path.is_file():
        raise DataError(f"{path} is not a file: give the path of {ARCHIVE_NAME}")
    try:
        file = stack.enter_context(path.open("rb"))
        head = file.read(512)
        file.seek(0)
        if head[257:262] != b"ustar" and not head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")):
            return file, path.stat().st_size
        tar = tarfile.open(fileobj=file, mode="r|*")  # noqa: SIM115  (a stream; the stack closes it)
        stack.enter_context(tar)
        for member in tar:
            if member.isfile() and member.name.endswith(".msgpack"):
                content = tar.extractfile(member)
                assert content is not None  # it is a regular file
                return stack.enter_context(content), member.size
    except _UNREADABLE as error:
        raise DataError(f"{path} is corrupt or no tar archive ({error}): fetch or unpack it again") from error
    raise DataError(f"{path} holds no .msgpack file: give {ARCHIVE_NAME} or Dataverse's {ARCHIVE_NAME}.tar.gz")

"""QM9 from the original archive of Ramakrishnan et al. (2014), a local copy or figshare's.

``dsgdb9nsd.xyz.tar.bz2`` holds one file a molecule: the number of atoms; ``gdb``, the index and 15
properties; one line an atom (element, x, y, z, Mulliken charge); the harmonic frequencies; SMILES; InChI.
Numbers may be written ``1.2*^-6``. ``uncharacterized.txt`` lists the 3,054 molecules to leave out.
"""

from __future__ import annotations

import hashlib
import http.client
import tarfile
import urllib.request
import zlib
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from symdiff_plugin.common.progress import bar
from symdiff_plugin.data.integrity import INDEX_HASH, index_hash
from symdiff_plugin.data.schema import N_GDB9, DataError, ResourceError
from symdiff_plugin.data.splits import QM9Molecule, make_molecule

ARCHIVE_NAME = "dsgdb9nsd.xyz.tar.bz2"
UNCHARACTERIZED_NAME = "uncharacterized.txt"
FIGSHARE = "https://springernature.figshare.com/ndownloader/files"


@dataclass(frozen=True)
class Remote:
    """A file on figshare, with the MD5 that figshare publishes."""

    url: str
    md5: str


REMOTES = {
    ARCHIVE_NAME: Remote(f"{FIGSHARE}/3195389", "ad1ebd51ee7f5b3a6e32e974e5d54012"),
    UNCHARACTERIZED_NAME: Remote(f"{FIGSHARE}/3195404", "a361887bacb427b8a0ce7903d92a53b4"),
}


def parse_xyz(text: str) -> QM9Molecule:
    """One molecule from its file in the archive.

    Raises:
        DataError: not QM9's format.
    """
    try:
        lines = text.replace("*^", "e").splitlines()
        n = int(lines[0])
        _, index, *properties = lines[1].split()
        atoms = [line.split() for line in lines[2 : n + 2]]
        return make_molecule(
            int(index),
            [atom[0] for atom in atoms],
            [float(value) for _, x, y, z, _ in atoms for value in (x, y, z)],
            [float(value) for value in properties],
            [float(value) for value in lines[n + 2].split()],
        )
    except DataError:
        raise
    except (ValueError, IndexError) as error:
        raise DataError(f"not in QM9's format ({error})") from error


def read_archive(path: Path, excluded: Container[int] = frozenset()) -> Iterator[QM9Molecule]:
    """The molecules of an archive in QM9's format, in its order.

    Args:
        path: a tar file, compressed in any way or not.
        excluded: the ``index`` of molecules to leave out.

    Raises:
        DataError: a missing, corrupt or foreign file.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a file: give the path of {ARCHIVE_NAME}")
    name = path.name
    try:
        with (
            tarfile.open(path, "r|*") as archive,  # a stream: bz2 cannot seek
            bar("Reading the archive", N_GDB9, " molecules", unit_scale=True) as shown,
        ):
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # or tarfile keeps them all, in a list with no public name
                file = archive.extractfile(member)
                if file is None:
                    continue
                name = f"{path}, member {member.name}"
                molecule = parse_xyz(file.read().decode("utf-8"))
                shown.update()
                if molecule.index not in excluded:
                    yield molecule
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is corrupt or no tar archive ({error}): fetch {ARCHIVE_NAME} again") from error
    except ValueError as error:  # DataError is one
        raise DataError(f"{name}: {error}: is this {ARCHIVE_NAME}?") from error


def read_uncharacterized(path: Path) -> frozenset[int]:
    """The ``index`` of the 3,054 molecules to leave out, from figshare's list: first number of each line.

    Raises:
        DataError: another list.
    """
    try:
        words = [line.split()[:1] for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}): give figshare's {UNCHARACTERIZED_NAME}") from error
    return _check_excluded({int(word[0]) for word in words if word and word[0].isdigit()}, path)


def uncharacterized_by_index(index: np.ndarray, source: object) -> frozenset[int]:
    """The ``index`` of the molecules to leave out, from those that stay.

    Raises:
        DataError: ``index`` is not that of the 130,831 characterised molecules.
    """
    return _check_excluded(set(range(1, N_GDB9 + 1)).difference(index.tolist()), source)


def _check_excluded(excluded: set[int], source: object) -> frozenset[int]:
    kept = np.array(sorted(set(range(1, N_GDB9 + 1)) - excluded))
    if index_hash(kept) != INDEX_HASH:
        raise DataError(f"{source} does not tell QM9's 3,054 uncharacterised molecules: it is another list")
    return frozenset(excluded)


def download(name: str, target: Path) -> None:
    """Fetch ``name``, a key of ``REMOTES``, from figshare.

    Raises:
        ResourceError: no network, or figshare sends something else.
    """
    remote = REMOTES[name]
    request = urllib.request.Request(remote.url, headers={"User-Agent": "symdiff-plugin"})
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with urllib.request.urlopen(request, timeout=60) as response, target.open("wb") as file:
            length = int(response.headers.get("Content-Length") or 0) or None
            with bar(f"Fetching {name}", length, "B", unit_scale=True) as shown:
                while block := response.read(1 << 18):
                    file.write(block)
                    digest.update(block)
                    shown.update(len(block))
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ResourceError(f"figshare could not send {name} ({error})") from error
    if digest.hexdigest() != remote.md5:  # figshare answers with an empty page where it suspects a robot
        raise ResourceError(f"what figshare sent ({target.stat().st_size:,} bytes) is not {name}: wrong MD5")

"""``python -m symdiff_plugin.data.geom convert drugs_crude.msgpack``: GEOM-Drugs from its archive.

Writes what EDM's build_geom_dataset.py writes, byte for byte, and the number of conformers of each molecule;
in memory that does not grow with the archive, and going on where a killed process stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from symdiff_plugin.common.kinds import whole
from symdiff_plugin.common.progress import bar
from symdiff_plugin.data.geom.archive import ARCHIVE_NAME, Archive
from symdiff_plugin.data.geom.ensemble import lowest
from symdiff_plugin.data.geom.layout import GeomFiles
from symdiff_plugin.data.geom.partial import Partial
from symdiff_plugin.data.schema import DataError, ResourceError

SAVE_BYTES = 256 * 2**20  # of the archive, between two notes of where we are: seconds of work


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("archive", type=Path, metavar="ARCHIVE", help=f"{ARCHIVE_NAME}, or its .tar.gz")
    parser.add_argument("--out", type=Path, default=Path("data/geom"), metavar="FOLDER", help="default: data/geom")
    parser.add_argument(
        "--conformations", type=whole(), default=30, metavar="N", help="conformers kept of a molecule (default: 30)"
    )
    parser.add_argument("--remove_h", action="store_true", help="leave out the hydrogens")
    parser.add_argument("--overwrite", action="store_true", help="replace a data set that is there")


def main(options: argparse.Namespace) -> list[Path]:
    """Convert, unless it is done; return the files of the data set."""
    return convert(options.archive, options.out, options.conformations, options.remove_h, options.overwrite)


def convert(
    archive: Path,
    out: Path,
    conformations: int = 30,
    remove_h: bool = False,
    overwrite: bool = False,
    save_bytes: int = SAVE_BYTES,
) -> list[Path]:
    """Make ``out/geom_drugs_30.npy`` and its side files from the archive, unless they are there.

    Args:
        archive: ``drugs_crude.msgpack``, or a tar file with it.
        out: folder of the data set, made where it is missing.
        conformations: how many conformers of lowest energy to keep of each molecule.
        remove_h: leave out the hydrogens; the name is then ``geom_drugs_no_h_30.npy``.
        overwrite: replace a data set that is there.
        save_bytes: how much of the archive to read between two points that a killed run goes on from.

    Returns:
        The array's file, then those beside it (:mod:`~symdiff_plugin.data.geom.layout`).

    Raises:
        DataError: a truncated, corrupt or foreign archive (nothing is left then), or one in the way.
        ResourceError: the disk is full or refuses to be written; the same call goes on then.
    """
    if conformations < 1:
        raise DataError(f"--conformations {conformations}: keep one at least")
    files = GeomFiles(out / f"geom_drugs_{'no_h_' if remove_h else ''}{conformations}.npy")
    made = [files.data, files.n_atoms, files.smiles, files.conformers]
    if not overwrite and files.data.exists():
        if missing := [path.name for path in made if not path.exists()]:
            raise DataError(f"{files.data} is there without {', '.join(missing)}: --overwrite makes all of them")
        print(f"{files.data} is there already; --overwrite makes it again")
        return made
    with Archive(archive) as source:
        of = {"archive": source.identity(), "conformations": conformations, "remove_h": remove_h}
        try:
            with Partial(files, of) as partial:
                if partial.note:
                    print(partial.note)
                try:
                    _fill(partial, source, conformations, remove_h, save_bytes)
                    made = partial.finish(overwrite)
                except KeyboardInterrupt:
                    kept = f"{partial.place.molecules:,} molecules are kept"
                    raise KeyboardInterrupt(f"interrupted; {kept}, the same command goes on") from None
        except OSError as error:
            raise ResourceError(
                f"cannot write to {out} ({error.strerror or error}): make room, then the same command goes on, "
                "or choose another --out"
            ) from error
    print(
        f"{partial.n_molecules:,} molecules, {partial.n_conformers:,} conformers, {partial.n_atoms:,} atoms "
        f"in {files.data}"
    )
    return made


def _fill(partial: Partial, source: Archive, conformations: int, remove_h: bool, save_bytes: int) -> None:
    """Read the archive to its end into ``partial``, which is discarded if the archive is at fault."""
    place = partial.place
    molecules = source.molecules(place, partial.last_smiles(place.read))
    try:
        with bar("Converting", source.size, "B", unit_scale=True, initial=place.offset) as shown:
            for smiles, record in molecules:
                try:
                    kept = lowest(record, conformations, remove_h)
                except ValueError as error:
                    raise source.fault(place.offset, place.molecules, f"{smiles[:40]}: {error}") from error
                partial.add(smiles, kept)
                shown.update(source.place.offset - place.offset)
                place = source.place
                if place.offset - partial.place.offset >= save_bytes:
                    partial.save(place)
        partial.save(place)  # a disk that fills up from here on costs no second reading
        if not partial.n_conformers:
            raise source.fault(0, place.molecules, "there are no conformers in it")
    except DataError:
        partial.discard()
        raise

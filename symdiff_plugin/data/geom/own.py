"""One's own molecules, from SDF or XYZ files, as a data set in the format of EDM's GEOM-Drugs.

    python -m symdiff_plugin.data.geom own molecules.sdf more.sdf.gz folder_of_xyz --name mine
    python main_geom_drugs.py --data_file data/mine/mine.npy --split molecule ...

What is one molecule matters to the split by molecule, which keeps the conformers of one out of the test set of
another; lines of the SMILES file that are equal are one molecule to it. ``--molecules`` says what is put there:

    smiles    canonical SMILES without stereo: SDF has bonds, and XYZ may have a SMILES in its comment
    formula   the atoms alone: coarser, isomers count as one molecule, and so nothing can leak either
    title     the record's title (SDF), the comment line (XYZ)
    file      the file's name: one molecule a file

Without it: SMILES if the first conformer has one, else the formula. XYZ has no bonds, so that whether two files hold
one molecule cannot be told from more than the formula. Consecutive conformers of one molecule share a line; one that
turns up again later has another line with the same text. Records are read one at a time, whatever the file's size.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from symdiff_plugin.common.progress import counting
from symdiff_plugin.data.geom.atom_array import DataSetWriter
from symdiff_plugin.data.geom.geometry import Conformer, Rejected
from symdiff_plugin.data.geom.layout import GeomFiles
from symdiff_plugin.data.geom.sdf_records import read_sdf_conformers
from symdiff_plugin.data.geom.text_source import XYZ, TextSource, find_text_files, kind_of
from symdiff_plugin.data.geom.xyz_frames import read_xyz_conformers
from symdiff_plugin.data.schema import DataError, ResourceError

# What tells molecules apart. All but SMILES have a prefix, so that no line is mistaken for a SMILES.
LABELS: dict[str, Callable[[Conformer], str | None]] = {
    "smiles": lambda conformer: conformer.smiles,
    "formula": lambda conformer: f"formula:{conformer.formula}",
    "title": lambda conformer: f"title:{' '.join(conformer.title.split())}" if conformer.title else None,
    "file": lambda conformer: f"file:{conformer.file}",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand ``own``."""
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        type=Path,
        help=".sdf, .mol or .xyz files, gzipped or not, or folders of them; every hydrogen explicit",
    )
    parser.add_argument("--name", required=True, help="of the data set: the files are NAME.npy, NAME_n.npy, ...")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where they go; default data/NAME")
    parser.add_argument(
        "--molecules",
        choices=LABELS,
        help="what tells molecules apart, for the split by molecule; "
        "default: smiles if the first conformer has one, else formula",
    )
    parser.add_argument(
        "--skip_bad",
        action="store_true",
        help="leave out, and count, records that would be refused: without all hydrogens or 3D "
        "coordinates, with elements that EDM does not know, unreadable, ...",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a data set of this name")
    parser.add_argument(
        "--remove_h", action="store_true", help="refused: EDM's main_geom_drugs.py cannot train without hydrogens"
    )


def main(options: argparse.Namespace) -> list[Path]:
    """Make the data set; all files or none.

    Returns:
        What was written.

    Raises:
        DataError: a record cannot be taken (and ``--skip_bad`` was not given), or the options make no sense.
        ResourceError: the files cannot be written.
    """
    if options.remove_h:
        raise DataError("--remove_h: EDM's main_geom_drugs.py cannot train on conformers without hydrogens, and its "
                        "rules of stability need them: leave it out")  # fmt: skip
    if not _NAME.fullmatch(options.name) or options.name.endswith(".npy"):
        raise DataError(f"--name {options.name!r}: use letters, digits, dots, - and _, as in mine (no path, no .npy)")
    files = GeomFiles((options.out or Path("data") / options.name) / f"{options.name}.npy")
    there = [path for path in (files.data, files.n_atoms, files.smiles, files.conformers, files.info) if path.exists()]
    if there and not options.overwrite:
        raise DataError(f"{there[0]} is there already: choose another --name or --out, or give --overwrite")
    sources = find_text_files(options.paths)
    tally = _Tally(options.skip_bad)
    try:
        with DataSetWriter(files) as writer:
            for label, conformer in _labelled(tally.taken(_read(sources)), options.molecules, tally):
                writer.add(label, conformer.numbers, conformer.positions)
            if not writer.conformers:
                raise DataError(f"no conformer can be taken{tally.summary()}")
            writer.finish(options.name)
    except OSError as error:
        raise ResourceError(f"cannot write {files.data.parent} ({error.strerror or error}): make room, or name another "
                            "folder with --out") from error  # fmt: skip
    print(f"{files.data}: {writer.conformers:,} conformers, {writer.molecules:,} lines of molecules, "
          f"{writer.n_atoms:,} atoms of {' '.join(writer.info['atom_decoder'])}, at most {writer.info['max_n_nodes']} "
          f"a conformer{tally.summary()}")  # fmt: skip
    if 1 not in writer.info["atomic_nb"]:
        print(f"{files.data}: no hydrogen at all; were they left out? EDM's rules of stability need them",
              file=sys.stderr)  # fmt: skip
    print(f"Train on it: main_geom_drugs.py --data_file {files.data} --split molecule")
    return [files.data, files.n_atoms, files.smiles, files.conformers, files.info]


def _read(sources: list[Path]) -> Iterator[Conformer | Rejected]:
    total = sum(path.stat().st_size for path in sources)
    with counting(f"Reading {len(sources):,} files", total, "bytes") as advance:
        for path in sources:
            source = TextSource(path, advance)
            yield from (read_xyz_conformers if kind_of(path) in XYZ else read_sdf_conformers)(source)


class _Tally:
    """Lets conformers through; raises what cannot be taken, or counts it by its reason."""

    def __init__(self, skip: bool) -> None:
        self.skip = skip
        self.reasons: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def reject(self, rejected: Rejected) -> None:
        if not self.skip:
            raise DataError(f"{rejected}: mend it, or leave such records out with --skip_bad")
        self.reasons[rejected.reason] += 1
        self.examples.setdefault(rejected.reason, rejected.where)

    def taken(self, records: Iterator[Conformer | Rejected]) -> Iterator[Conformer]:
        for record in records:
            if isinstance(record, Rejected):
                self.reject(record)
            else:
                yield record

    def summary(self) -> str:
        if not self.reasons:
            return ""
        left = "; ".join(f"{count:,} {reason}, first {self.examples[reason]}"
                         for reason, count in self.reasons.most_common())  # fmt: skip
        return f"; {self.reasons.total():,} records left out: {left}"


def _labelled(conformers: Iterator[Conformer], kind: str | None, tally: _Tally) -> Iterator[tuple[str, Conformer]]:
    """Each conformer with the text that tells its molecule from others."""
    for conformer in conformers:
        if kind is None:
            kind = "smiles" if conformer.smiles else "formula"
        label = LABELS[kind](conformer)
        if label:
            yield label, conformer
        else:  # two kinds of labels in one data set: a molecule could be in it under both, and leak
            tally.reject(Rejected(conformer.where, f"no {kind} to tell its molecule by",
                                  "--molecules formula or file does without"))  # fmt: skip

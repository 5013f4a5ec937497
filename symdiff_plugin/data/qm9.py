"""``python -m symdiff_plugin.data.qm9 --datadir DIR``: QM9 as EDM's own preparation makes it, bit for bit.

Writes ``DIR/qm9/{train,valid,test}.npz``, where EDM's ``--datadir DIR`` looks for them. The sources, in
order: the files themselves if they are there, an archive the user names, the package qm9pack, figshare. The
content is compared with known hashes whichever it was. ``--slice`` makes a small subset for trying things out.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from symdiff_plugin.common.command_line import OneLineParser, refuse
from symdiff_plugin.common.kinds import SEED
from symdiff_plugin.data.figshare_source import (
    ARCHIVE_NAME,
    UNCHARACTERIZED_NAME,
    download,
    read_archive,
    read_uncharacterized,
    uncharacterized_by_index,
)
from symdiff_plugin.data.integrity import SPLIT_HASHES, content_hash, require_space, temporary_beside
from symdiff_plugin.data.qm9_slices import make_slice_from_qm9pack, save_slice, slice_bytes, write_slice
from symdiff_plugin.data.qm9pack_source import find_qm9pack, read_catalogue, read_qm9pack
from symdiff_plugin.data.schema import N_MOLECULES, SPLITS, DataError, ResourceError
from symdiff_plugin.data.splits import Arrays, QM9Molecule, split_table, tabulate
from symdiff_plugin.data.store import SliceSpec, is_made, open_folder, save_splits

FULL_BYTES = 60_000_000  # the three files take 35 MB
DOWNLOAD_BYTES = 120_000_000  # the archive takes 86 MB


def prepare_qm9(
    datadir: str | Path,
    archive: str | Path | None = None,
    uncharacterized: str | Path | None = None,
    slice_spec: SliceSpec | None = None,
    slice_of: str | Path | None = None,
    force: bool = False,
) -> str:
    """Make ``datadir/qm9`` the full QM9, or the slice ``slice_spec`` of it, unless it is that already.

    Args:
        datadir: as EDM's ``--datadir``.
        archive: a local ``dsgdb9nsd.xyz.tar.bz2`` to read rather than qm9pack or figshare.
        uncharacterized: figshare's ``uncharacterized.txt``, needed with ``archive`` unless it lies beside the
            archive or qm9pack is installed.
        slice_spec: which slice to make.
        slice_of: with ``slice_spec``, a datadir holding the full set to draw from.
        force: replace whatever is there.

    Returns:
        Where the data came from.

    Raises:
        DataError: bad input, or no source to be had.
    """
    if not force and is_made(datadir, slice_spec):
        return "already there, content verified"
    if slice_spec is not None and slice_of is not None:
        if not is_made(slice_of):
            raise DataError(f"{slice_of} does not hold the full QM9: make it there first")
        write_slice(slice_of, datadir, *slice_spec.sizes, seed=slice_spec.seed, force=force)
        return f"drawn from {Path(slice_of) / 'qm9'}"
    packed = find_qm9pack()
    if slice_spec is not None and archive is None and packed is not None:
        make_slice_from_qm9pack(datadir, *slice_spec.sizes, seed=slice_spec.seed, force=force)
        return "from qm9pack"

    with open_folder(datadir) as folder:
        size = FULL_BYTES if slice_spec is None else slice_bytes(slice_spec)
        require_space(folder, size if archive or packed else size + DOWNLOAD_BYTES)
        if archive is not None:
            splits, source = _from_archive(Path(archive), uncharacterized), f"from {archive}"
        elif packed is not None:
            splits, source = _split(read_qm9pack(packed), packed), "from qm9pack"
        else:
            splits, source = _from_figshare(folder), "from figshare"
        for split in SPLITS:
            if content_hash(splits[split]) != SPLIT_HASHES[split]:
                raise DataError(
                    f"the data {source} is not QM9 as published: its {split} split has another content hash; "
                    "nothing was written; try another source (--archive, or pip install qm9pack)"
                )
        if slice_spec is None:
            save_splits(datadir, splits)
        else:
            save_slice(splits, datadir, slice_spec)
    return f"{source}, content verified"


def _from_archive(archive: Path, uncharacterized: str | Path | None) -> dict[str, Arrays]:
    if not archive.is_file():
        raise DataError(f"--archive {archive} is not a file: give the path of {ARCHIVE_NAME}")
    beside = archive.with_name(UNCHARACTERIZED_NAME)
    if uncharacterized is None and beside.is_file():
        uncharacterized = beside
    if uncharacterized is not None:
        excluded = read_uncharacterized(Path(uncharacterized))
    elif (packed := find_qm9pack()) is not None:
        excluded = uncharacterized_by_index(read_catalogue(packed)[0], packed)
    else:
        raise DataError(
            f"--archive also needs the list of molecules to leave out: put {UNCHARACTERIZED_NAME} beside it, "
            "name it with --uncharacterized, or pip install qm9pack"
        )
    return _split(read_archive(archive, excluded), archive)


def _split(molecules: Iterable[QM9Molecule], source: Path) -> dict[str, Arrays]:
    try:
        return split_table(tabulate(molecules, N_MOLECULES))
    except DataError as error:
        if str(source) in str(error):
            raise
        raise DataError(f"{source} is not whole: {error}") from error


def _from_figshare(folder: Path) -> dict[str, Arrays]:
    print("qm9pack is not installed: fetching QM9 from figshare", flush=True)
    with (
        temporary_beside(folder / ARCHIVE_NAME) as archive,
        temporary_beside(folder / UNCHARACTERIZED_NAME) as uncharacterized,
    ):
        try:
            download(UNCHARACTERIZED_NAME, uncharacterized)
            download(ARCHIVE_NAME, archive)
            return _from_archive(archive, uncharacterized)
        except DataError as error:
            raise ResourceError(
                f"{error}; install qm9pack instead (pip install qm9pack), or name a copy with --archive"
            ) from error


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog=prog,
        description="Make DIR/qm9/{train,valid,test}.npz, QM9 as EDM reads it.",
        epilog="Sources, in order: files already there, --archive, the package qm9pack, figshare.",
        allow_abbrev=False,
    )
    parser.add_argument("--datadir", metavar="DIR", required=True, help="the folder given to EDM as --datadir")
    parser.add_argument("--archive", metavar="FILE", help=f"a local copy of {ARCHIVE_NAME} to read")
    parser.add_argument(
        "--uncharacterized", metavar="FILE",
        help=f"figshare's {UNCHARACTERIZED_NAME}; without it the one beside the archive, or qm9pack, tells",
    )  # fmt: skip
    parser.add_argument(
        "--slice", nargs=3, type=int, metavar=("N_TRAIN", "N_VALID", "N_TEST"),
        help="make a random subset of these sizes, for trying things out",
    )  # fmt: skip
    parser.add_argument("--seed", type=SEED, default=0, metavar="N", help="of the slice's draw (default: 0)")
    parser.add_argument("--slice-of", metavar="DIR", help="draw the slice from the full set in this datadir")
    parser.add_argument("--force", action="store_true", help="replace what is in DIR/qm9, whatever it is")
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = "python -m symdiff_plugin.data.qm9") -> int:
    """The command line. Returns the exit status: 0, 2 for bad input, 1 for what the machine lacks."""
    # A polite kill unwinds like Ctrl-C, so that temporary files go.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = _parser(prog)
    options = parser.parse_args(arguments)
    if options.slice is None and (options.slice_of is not None or options.seed != 0):
        parser.error("--seed and --slice-of go with --slice")
    if options.uncharacterized is not None and options.archive is None:
        parser.error("--uncharacterized goes with --archive")
    if options.archive is not None and options.slice_of is not None:
        parser.error("give --archive or --slice-of, not both")
    try:
        spec = None if options.slice is None else SliceSpec(tuple(options.slice), options.seed)
        source = prepare_qm9(
            options.datadir, options.archive, options.uncharacterized, spec, options.slice_of, options.force
        )
    except DataError as error:
        return refuse(parser.prog, error, error.exit_status)
    except OSError as error:
        return refuse(parser.prog, f"{error.filename or options.datadir}: {error.strerror}", 1)
    except KeyboardInterrupt:
        return refuse(parser.prog, "interrupted, nothing was changed", 130)
    print(f"{spec or 'QM9'}: {(Path(options.datadir) / 'qm9').resolve()} ({source})")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``python -m symdiff_plugin.report outputs/*``: the paper's tables with our runs, plots and one HTML page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from symdiff_plugin.common.command_line import OneLineParser, refuse

if TYPE_CHECKING:
    from symdiff_plugin.report.data_statistics import MoleculeStatistics


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog=prog,
        description="Set evaluated runs beside the paper's tables.",
        epilog="Writes report.md, tables.tex, report.json, report.html and PNG files. Without --over_seeds every run "
        "has a row of its own. Without RUN the tables are the paper's, with the sizes of the models counted here.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("folders", type=Path, nargs="*", metavar="RUN", help="folders of runs, such as outputs/*")
    add("--out", type=Path, default=Path("outputs/report"), help="where the report goes (%(default)s)")
    add("--datadir", type=Path, help="QM9, as EDM takes it: its test split is drawn beside the samples")
    add("--data_file", type=Path, metavar="PATH", help="GEOM-Drugs' array, or one's own: its conformers likewise")
    add("--over_seeds", action="store_true", help="mean and std over runs that differ in their seed alone")
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = "python -m symdiff_plugin.report") -> int:
    """The command line. Returns the exit status: 0, 2 for bad input, 1 for what the machine lacks."""
    parser = _parser(prog)
    options = parser.parse_args(arguments)

    # Imported here so that --help and a wrong option answer at once.
    from symdiff_plugin.report.data_statistics import geom_reference, qm9_reference
    from symdiff_plugin.report.folders import ReportError, read_runs
    from symdiff_plugin.report.write import write_report

    # The report itself lies in outputs/ by default, and a file there is no run.
    folders = [f for f in options.folders if f.resolve() != options.out.resolve() and not f.is_file()]
    runs, skipped = read_runs(folders)
    for folder, reason in skipped:
        print(f"left out {folder}: {reason}", file=sys.stderr)
    if options.folders and not runs:
        return refuse(parser.prog, "no folder holds an evaluated run: python -m symdiff_plugin.evaluate makes one", 2)
    try:
        references: dict[tuple[str, str | None], tuple[MoleculeStatistics, str]] = {}
        if any(run.dataset == "qm9" for run in runs) and (found := qm9_reference(options.datadir)):
            references["qm9", None] = found
        if any(run.dataset == "geom" for run in runs) and (geom := geom_reference(options.data_file)):
            statistics, source, name = geom
            references["geom", name] = statistics, source
        written = write_report(options.out, runs, skipped, references, options.over_seeds)
    except ReportError as error:
        return refuse(parser.prog, error, 2)
    except OSError as error:
        where = error.filename or options.out
        return refuse(parser.prog, f"{where}: {error.strerror or error}; make room or choose another --out", 1)
    except KeyboardInterrupt:
        return refuse(parser.prog, "interrupted; the files of an earlier report may be left", 130)
    print(f"{len(runs)} runs, {len(skipped)} folders left out. Written: " + ", ".join(map(str, written)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Data sets of conformers for EDM's GEOM scripts: ``python -m symdiff_plugin.data.geom SUBCOMMAND``.

python -m symdiff_plugin.data.geom convert drugs_crude.msgpack   GEOM-Drugs from its archive
python -m symdiff_plugin.data.geom rdkit --out FOLDER            a small archive of RDKit's conformers
python -m symdiff_plugin.data.geom own molecules.sdf             one's own SDF or XYZ files
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from symdiff_plugin.common.command_line import OneLineParser, refuse
from symdiff_plugin.data.schema import DataError

PROG = "python -m symdiff_plugin.data.geom"
COMMANDS = {
    "convert": ("convert", "GEOM-Drugs' drugs_crude.msgpack into EDM's array of atoms"),
    "rdkit": ("rdkit_archive", "make a small archive in GEOM-Drugs' format from RDKit's conformers"),
    "own": ("own", "SDF or XYZ files into the same array"),
}


def main(arguments: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Run one subcommand and return the exit status: 0, or 1 and 2 as :class:`DataError` says."""
    parser = OneLineParser(prog=prog, description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", metavar="SUBCOMMAND", required=True)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    modules = {}
    for name, (module, purpose) in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose)
        if name in arguments[:1]:  # RDKit and msgpack are loaded by what needs them alone
            modules[name] = import_module(f"symdiff_plugin.data.geom.{module}")
            modules[name].add_arguments(command)
    options = parser.parse_args(arguments)
    try:
        modules[options.command].main(options)
    except DataError as error:
        return refuse(f"{prog} {options.command}", error, error.exit_status)
    except KeyboardInterrupt as interrupt:  # what goes on where it stopped says so
        return refuse(f"{prog} {options.command}", str(interrupt) or "interrupted, nothing was written", 130)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Get EDM and apply our patches to it: ``python -m symdiff_plugin.edm get|apply|unapply|status|path``.

Exit status: 0 done (``status``: the series is applied), 1 EDM cannot be had (``status``: not applied), 2 what
is there or was asked for is wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from symdiff_plugin.edm import EdmError, checkout, edm_directory, series


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=prog, description="EDM as a pinned, patched submodule.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    get = commands.add_parser(
        "get", help="check out EDM's pinned commit, from EDM_REPO (path or URL of any clone or mirror) or GitHub"
    )
    get.add_argument("--geom", action="store_true", help=f"also {checkout.GEOM_PERMUTATION} (55 MB)")
    commands.add_parser("apply", help="apply the whole patch series")
    commands.add_parser("unapply", help="take the whole patch series away")
    commands.add_parser("status", help="say whether the series is applied; exit 0 if it is")
    commands.add_parser("path", help="print where EDM's checkout is, or would be")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "get":
        print(checkout.get(source=os.environ.get("EDM_REPO"), geom=arguments.geom))
    elif arguments.command == "apply":
        print(series.apply())
    elif arguments.command == "unapply":
        print(series.unapply())
    elif arguments.command == "path":
        print(edm_directory())
    else:
        found = series.status()
        print(found.state.value + (f": {found.detail}" if found.detail else ""))
        return 0 if found.state is series.State.APPLIED else 1
    return 0


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None, prog: str = "python -m symdiff_plugin.edm") -> int:
    """Run the command line ``argv`` and return the exit status."""
    signal.signal(signal.SIGTERM, _interrupt)
    arguments = _parser(prog).parse_args(argv)
    try:
        return _run(arguments)
    except EdmError as error:
        print(f"edm {arguments.command}: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        print(f"edm {arguments.command}: {error.filename or 'file'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"edm {arguments.command}: interrupted; run it again", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

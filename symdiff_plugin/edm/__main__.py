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
from pathlib import Path
from typing import NoReturn

from symdiff_plugin.edm import Edm, EdmError, checkout, series


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=prog, description="EDM, pinned and patched.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, purpose in (
        ("get", "check out EDM's pinned commit, from EDM_REPO (path or URL of any clone or mirror) or GitHub"),
        ("apply", "apply the whole patch series"),
        ("unapply", "take the whole patch series away"),
        ("status", "say whether the series is applied; exit 0 if it is"),
        ("path", "print where EDM's checkout is, or would be"),
    ):
        command = commands.add_parser(name, help=purpose, description=purpose)
        command.add_argument("--into", metavar="DIR", help="EDM's folder (default: EDM_DIR, or as `path` says)")
        if name == "get":
            command.add_argument("--geom", action="store_true", help=f"also {checkout.GEOM_PERMUTATION} (55 MB)")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    edm = Edm(Path(arguments.into).expanduser().resolve()) if arguments.into else Edm()
    if arguments.command == "get":
        print(checkout.get(edm, os.environ.get("EDM_REPO"), arguments.geom))
    elif arguments.command == "path":
        print(edm.directory)
    elif arguments.command == "status":
        state, detail = series.status(edm)
        print(": ".join(filter(None, (state.value, detail))))
        return 0 if state is series.State.APPLIED else 1
    else:
        print({"apply": series.apply, "unapply": series.unapply}[arguments.command](edm))
    return 0


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None, prog: str = "python -m symdiff_plugin.edm") -> int:
    """Run the command line ``argv`` and return the exit status."""
    signal.signal(signal.SIGTERM, _interrupt)
    arguments = _parser(prog).parse_args(argv)
    status, said = 1, ""
    try:
        return _run(arguments)
    except EdmError as error:
        status, said = error.exit_status, str(error)
    except OSError as error:
        said = f"{error.filename or 'file'}: {error.strerror or error}"
    except KeyboardInterrupt:
        status, said = 130, "interrupted; run it again"
    print(f"edm {arguments.command}: {said}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

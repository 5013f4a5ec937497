"""What our commands have in common: a mistake on the command line is one line and exit status 2."""

from __future__ import annotations

import argparse
import re
import sys
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line, without the usage before them."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {plain(message)} (--help lists the options)\n")


def plain(message: str) -> str:
    """A complaint of argparse in one line; "argument --lr: must be ..." is "--lr must be ..."."""
    return " ".join(re.sub(r"^argument (\S+): ", r"\1 ", message).split())


def refuse(prog: str, message: object, status: int) -> int:
    """Say on stderr, in one line, why ``prog`` ends with the exit status ``status``, and return that."""
    print(f"{prog}: {' '.join(str(message).split())}", file=sys.stderr)
    return status

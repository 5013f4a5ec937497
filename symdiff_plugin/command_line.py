"""What our commands have in common: a mistake on the command line is one line and exit status 2."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line, without the usage before them."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def refuse(prog: str, message: object, status: int) -> int:
    """Say on stderr, in one line, why ``prog`` ends with the exit status ``status``, and return that."""
    print(f"{prog}: {' '.join(str(message).split())}", file=sys.stderr)
    return status

"""The command ``symdiff``, also ``python -m symdiff_plugin``: a word or two for each of the package's programs.

Only the program that is called is imported: ``symdiff edm`` needs the standard library alone, and ``symdiff --help``
answers at once.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

import symdiff_plugin
from symdiff_plugin.common.command_line import OneLineParser

# A program is a module whose main(arguments, prog) returns the exit status.
COMMANDS = {
    "sample": ("symdiff_plugin.sample", "molecules from a pretrained model, or from a run"),
    "evaluate": ("symdiff_plugin.evaluate.__main__", "a run: samples, their metrics, the likelihood"),
    "report": ("symdiff_plugin.report.__main__", "the paper's tables with your runs, plots, one HTML page"),
    "benchmark": ("symdiff_plugin.benchmark.__main__", "speed and memory of several models, side by side"),
    "benchmark curves": ("symdiff_plugin.benchmark.curves", "training losses of runs, drawn and compared"),
    "data qm9": ("symdiff_plugin.data.qm9", "QM9 as EDM reads it"),
    "data geom": ("symdiff_plugin.data.geom.__main__", "GEOM-Drugs, or your own molecules, as EDM reads them"),
    "edm": ("symdiff_plugin.edm.__main__", "get EDM, and apply our patches to it"),
    "pretrained": ("symdiff_plugin.pretrained.__main__", "list the pretrained models, or make one from a run"),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that ``arguments`` begin with, and return its exit status.

    A word that begins no command is one line, with the nearest that there is, and exit status 2.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return import_module(COMMANDS[name][0]).main(words[length:], prog=f"symdiff {name}")
    group = f"{words.pop(0)} " if words and any(name.startswith(f"{words[0]} ") for name in COMMANDS) else ""
    purposes = {name.removeprefix(group): purpose for name, (_, purpose) in COMMANDS.items() if name.startswith(group)}
    parser = OneLineParser(
        prog=f"symdiff {group}".strip(), usage="%(prog)s COMMAND ...", allow_abbrev=False,
        description="commands:\n" + "\n".join(f"  {name:18}{purpose}" for name, purpose in purposes.items()),
        epilog="COMMAND --help says what it takes.", formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=symdiff_plugin.__version__)
    word = words[0] if words else ""
    if word.startswith("-"):
        parser.parse_args([word])
    if not word:
        parser.error("give a COMMAND")
    near = difflib.get_close_matches(word, [*purposes, *(name.split()[0] for name in purposes)], n=1)
    parser.error("; ".join([f"no command {word!r}", *(f"did you mean {name}?" for name in near)]))


if __name__ == "__main__":
    sys.exit(main())

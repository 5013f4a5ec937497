"""``python -m symdiff_plugin.pretrained list | export outputs/NAME --name NAME``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from symdiff_plugin.common.command_line import OneLineParser, refuse


def _parser(prog: str) -> OneLineParser:
    parser = OneLineParser(
        prog=prog,
        description="Pretrained models: what there is, and how one is made from a run.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="list|export")
    commands.add_parser("list", help="the models that are there")
    make = commands.add_parser("export", help="make one from the folder of a run (needs EDM)", allow_abbrev=False)
    add = make.add_argument
    add("run", type=Path, help="folder of a run, outputs/NAME")
    add("--name", required=True, help="what the model shall be called, such as qm9-mini")
    add("--folder", type=Path, help="where its two files go (the package)")
    add("--checkpoint", choices=("best", "last"), default="best", help="of EDM's best epoch, or of the last (best)")
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = "python -m symdiff_plugin.pretrained") -> int:
    """The command line. Returns the exit status: 0, 2 for bad input, 1 for what the machine lacks."""
    parser = _parser(prog)
    options = parser.parse_args(arguments)

    from symdiff_plugin.common.errors import EvaluationError
    from symdiff_plugin.edm import EdmError
    from symdiff_plugin.pretrained import FOLDER, PretrainedError, available, load
    from symdiff_plugin.pretrained.export import WEIGHTS, export
    from symdiff_plugin.training.checkpoint import FILE_NAME

    try:
        if options.command == "list":
            for name in available():
                card = load(name).card
                size = f"{card['weights']['numbers']:,} parameters"
                print(f"{name}: {card['model']}, {size}, trained on {card['dataset']}")
            return 0
        weights = FILE_NAME if options.checkpoint == "last" else WEIGHTS
        written = export(options.run, options.name, options.folder or FOLDER, weights)
        load(options.name, folder=options.folder)  # what was written must be readable
    except (PretrainedError, EvaluationError) as error:
        return refuse(parser.prog, error, 2)
    except EdmError as error:
        return refuse(parser.prog, error, error.exit_status)
    except OSError as error:
        return refuse(parser.prog, f"{error.filename}: {error.strerror or error}; make room or check the folder", 1)
    print("Written: " + ", ".join(f"{path} ({path.stat().st_size:,} bytes)" for path in written))
    return 0


if __name__ == "__main__":
    sys.exit(main())

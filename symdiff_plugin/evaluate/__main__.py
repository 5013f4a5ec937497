"""``python -m symdiff_plugin.evaluate outputs/NAME``: evaluate a run of ``main_qm9.py``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from symdiff_plugin.command_line import OneLineParser


def _number_or(word: str) -> Callable[[str], int | None]:
    def parse(text: str) -> int | None:
        if text == word:
            return None
        if not text.isdecimal():
            raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor {word!r}")
        return int(text)

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m symdiff_plugin.evaluate",
        description="Sample from a trained run and judge the samples as EDM does; estimate its test likelihood.",
        epilog="Writes metrics.json, molecules.xyz, xyz/ (up to 1,000 samples) and samples.png into the run's folder.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("run", type=Path, help="folder of a run, outputs/NAME")
    add("--n_samples", type=int, default=10_000, help="molecules to sample (%(default)s)")
    add(
        "--batch_size", type=_number_or("auto"), default=None, metavar="N|auto",
        help="molecules sampled at once; auto takes as many as memory and speed suggest (auto)",
    )  # fmt: skip
    add("--seed", type=int, default=0, help="of all random numbers (%(default)s)")
    add(
        "--nll_molecules", type=_number_or("all"), default=None, metavar="N|all",
        help="held-out molecules for the likelihood; 0 leaves it out (all)",
    )  # fmt: skip
    add(
        "--partition", nargs="+", choices=("test", "val"), default=["test"],
        help="whose likelihood, one or both (test)",
    )  # fmt: skip
    add(
        "--nll_draws", type=int, default=1, metavar="K",
        help="draws of R a step for the likelihood: a tighter bound for K times the work (%(default)s, the paper's)",
    )  # fmt: skip
    add("--checkpoint", metavar="FILE", help="weights in the run's folder (EDM's best by validation NLL)")
    add("--untrained", action="store_true", help="initial weights instead, for comparison: *_untrained files")
    add("--datadir", help="where the data are now, if not where the run was trained")
    add("--device", help="cpu or cuda (cuda where there is one)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status: 0, 2 for bad input, 1 for what the machine lacks."""
    parser = _parser()
    options = parser.parse_args(arguments)
    for name in ("n_samples", "batch_size", "nll_draws"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, not {getattr(options, name)}")
    if not 0 <= options.seed < 2**32:
        parser.error(f"--seed must lie between 0 and {2**32 - 1}, not {options.seed}")
    if options.untrained and options.checkpoint:
        parser.error("give --untrained or --checkpoint, not both")

    # Imported here so that --help and a wrong option answer at once.
    from symdiff_plugin.edm import EdmError
    from symdiff_plugin.evaluate.report import evaluate, table, write
    from symdiff_plugin.evaluate.run import EvaluationError, load_run

    try:
        run = load_run(
            options.run, options.untrained, options.checkpoint, options.datadir, options.device, seed=options.seed
        )
        evaluation = evaluate(
            run, options.n_samples, options.batch_size, options.seed, options.partition, options.nll_molecules,
            nll_draws=options.nll_draws,
        )  # fmt: skip
        written = write(evaluation, options.run, "_untrained" if options.untrained else "")
    except EvaluationError as error:
        return _refuse(parser, error, 2)
    except EdmError as error:
        return _refuse(parser, error, error.exit_code)
    except OSError as error:
        where = error.filename or options.run
        return _refuse(parser, f"{where}: {error.strerror or error}; make room or check the folder", 1)
    except KeyboardInterrupt:
        return _refuse(parser, "interrupted, nothing was written", 130)
    what = "initial weights" if options.untrained else run.checkpoint
    print(f"{options.run}: {run.args.model}, {what}, seed {options.seed}\n{table(evaluation.record)}")
    print("Written: " + ", ".join(map(str, written)))
    return 0


def _refuse(parser: argparse.ArgumentParser, message: object, status: int) -> int:
    print(f"{parser.prog}: {' '.join(str(message).split())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

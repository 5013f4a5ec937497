"""``python -m symdiff_plugin.evaluate outputs/NAME``: evaluate a run; with ``--data``, the data themselves."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from symdiff_plugin.common.command_line import OneLineParser, refuse
from symdiff_plugin.common.kinds import DEVICE, SAMPLES, SEED, whole, word_or
from symdiff_plugin.process import sampler
from symdiff_plugin.process.probabilistic_model import NO_LIKELIHOOD, has_likelihood

if TYPE_CHECKING:
    from symdiff_plugin.common.errors import EvaluationError
    from symdiff_plugin.data import DataError
    from symdiff_plugin.edm import EdmError

PARTITIONS = ("test", "val", "train")
POSEBUSTED = 1000
# Which flags go with --data, beside those of its data set; the others are of a run.
_OF_DATA = ("data", "dataset", "out", "n_molecules", "seed", "posebusters")
_OF_DATASET = {"qm9": ("datadir",), "geom": ("data_file", "split", "split_seed")}
_OF_DATA_ALONE = ("dataset", "out", "n_molecules", "split", "split_seed")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog=prog,
        description="Sample from a trained run and judge the samples as EDM does; estimate its test likelihood.",
        epilog="Writes metrics.json, molecules.xyz, molecules.sdf, xyz/ (up to 1,000 samples) and samples.png into the "
        "run's folder, and each evaluation run into evaluation/run_SEED there. With --data, metrics.json into --out.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("run", type=Path, nargs="?", help="folder of a run, outputs/NAME")
    add(
        "--runs", type=whole(1, 10_000), default=1, metavar="N",
        help="evaluation runs, with seed, seed + 1, ...: mean and standard deviation; those that a killed evaluation "
        "has finished are reused (%(default)s)",
    )  # fmt: skip
    add("--n_samples", type=SAMPLES, default=10_000, metavar="N", help="molecules to sample (%(default)s)")
    add(
        "--batch_size", type=word_or(whole(), "auto"), default=None, metavar="N|auto",
        help="molecules sampled at once; auto takes as many as memory and speed suggest (auto)",
    )  # fmt: skip
    add("--seed", type=SEED, default=0, help="of all random numbers (%(default)s)")
    add(
        "--nll_molecules", type=word_or(whole(0), "all"), default=None, metavar="N|all",
        help="held-out molecules for the likelihood; 0 leaves it out (all)",
    )  # fmt: skip
    add(
        "--partition", nargs="+", choices=("test", "val"), default=["test"],
        help="whose likelihood, one or both (test)",
    )  # fmt: skip
    add(
        "--nll_draws", type=whole(1, 10_000), default=1, metavar="K",
        help="draws of R a step for the likelihood: a tighter bound for K times the work (%(default)s, the paper's)",
    )  # fmt: skip
    sampler.add_sampler_flags(add)
    add("--checkpoint", metavar="FILE", help="in the run's folder; checkpoint.pt: of the last epoch (EDM's best)")
    add("--untrained", action="store_true", help="initial weights instead, for comparison: *_untrained files")
    add("--datadir", help="where QM9 is now, if not where the run was trained")
    add("--data_file", metavar="PATH", help="where GEOM-Drugs' array is now, if not where the run was trained")
    add("--device", type=DEVICE, help="cpu or cuda (cuda where there is one)")
    add(
        "--posebusters", type=word_or(whole(0), "all"), nargs="?", default=0, const=POSEBUSTED, metavar="N|all",
        help="put the first N samples (%(const)s) to PoseBusters' checks too; with 50 conformers made of each it takes "
        "seconds a drug; needs pip install posebusters",
    )  # fmt: skip
    data = parser.add_argument_group("the data themselves, and no run")
    add = data.add_argument
    add("--data", choices=PARTITIONS, help="evaluate the molecules of this split")
    add("--dataset", choices=tuple(_OF_DATASET), default="qm9", help="qm9 in --datadir, or geom (%(default)s)")
    add("--n_molecules", type=word_or(whole(), "all"), metavar="N|all", help="at random, with --seed (all)")
    add("--split", choices=("official", "molecule"), default="official", help="geom: as in training (%(default)s)")
    add("--split_seed", type=SEED, default=0, help="geom: of --split molecule (%(default)s)")
    add("--out", type=Path, metavar="DIR", help="where metrics.json goes (outputs/data_SPLIT, outputs/data_geom_SPLIT)")
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = "python -m symdiff_plugin.evaluate") -> int:
    """The command line. Returns the exit status: 0, 2 for bad input, 1 for what the machine lacks."""
    parser = _parser(prog)
    options = parser.parse_args(arguments)
    if (options.run is None) == (options.data is None):
        parser.error("give the folder of a run or --data SPLIT" + ("" if options.data is None else ", not both"))
    if options.data is not None:
        return _main_data(parser, options)
    for name in _OF_DATA_ALONE:
        if getattr(options, name) != parser.get_default(name):
            parser.error(f"--{name} goes with --data: a run has its own data, and its evaluation goes into its folder")
    if options.seed > 2**32 - options.runs:
        parser.error(f"--seed must be at most {2**32 - options.runs} with --runs {options.runs}, not {options.seed}")
    if options.untrained and options.checkpoint:
        parser.error("give --untrained or --checkpoint, not both")

    # Imported here so that --help and a wrong option answer at once.
    from symdiff_plugin.common.errors import EvaluationError
    from symdiff_plugin.data import DataError
    from symdiff_plugin.edm import EdmError
    from symdiff_plugin.evaluate.evaluation import metrics_table
    from symdiff_plugin.evaluate.posebusters import posebusters_version
    from symdiff_plugin.evaluate.repetitions import evaluate_runs, kept_runs
    from symdiff_plugin.evaluate.trained_run import load_run

    suffix = "_untrained" if options.untrained else ""
    try:
        if options.posebusters != 0:
            posebusters_version()  # before hours of sampling, not after
        run = load_run(
            options.run, options.untrained, options.checkpoint, options.datadir, options.device, seed=options.seed,
            data_file=options.data_file, sampling=vars(options),
        )  # fmt: skip
        if not has_likelihood(run.args):
            if options.nll_molecules or options.nll_draws > 1:
                raise EvaluationError(f"{NO_LIKELIHOOD}: leave out --nll_molecules and --nll_draws")
            print(f"{options.run}: {NO_LIKELIHOOD}: the NLL is left out")
            options.nll_molecules = 0
        record, written = evaluate_runs(
            run, options.runs, options.seed, options.n_samples, options.batch_size, options.partition,
            options.nll_molecules, options.nll_draws, suffix, posebusters=options.posebusters,
        )  # fmt: skip
    except (EvaluationError, DataError, EdmError, OSError) as error:
        return _refuse(parser.prog, error, options.run)
    except KeyboardInterrupt:
        if options.runs == 1:
            return refuse(parser.prog, "interrupted, nothing was written", 130)
        kept = kept_runs(options.run, suffix)
        return refuse(parser.prog, f"interrupted; runs that have ended are in {kept}, the same command goes on", 130)
    what = "initial weights" if options.untrained else run.checkpoint
    seeds = f"seed {options.seed}" + (f" to {options.seed + options.runs - 1}" if options.runs > 1 else "")
    print(f"{options.run}: {run.args.model}, {what}, {seeds}, {run.sampler}\n{metrics_table(record)}")
    lost = sum(round(one["non_finite"] * one["n_samples"]) for one in record["runs"])
    left_out = f" ({lost} molecules without finite coordinates are left out of the SDF)" if lost else ""
    print("Written: " + ", ".join(map(str, written)) + left_out)
    return 0


def _refuse(program: str, error: EvaluationError | DataError | EdmError | OSError, written: Path) -> int:
    if isinstance(error, OSError):
        where = error.filename or written
        return refuse(program, f"{where}: {error.strerror or error}; make room or check the folder", 1)
    return refuse(program, error, error.exit_status)


def _main_data(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    taken = (*_OF_DATA, *_OF_DATASET[options.dataset])
    for name, value in vars(options).items():
        if name not in taken and value != parser.get_default(name):
            other = next((dataset for dataset, names in _OF_DATASET.items() if name in names), None)
            what = f"goes with --dataset {other}" if other else "is of a run"
            parser.error(f"--data takes {', '.join(f'--{one}' for one in taken[1:])}; --{name} {what}")
    if options.seed != parser.get_default("seed") and options.n_molecules is None and options.posebusters == 0:
        parser.error("--seed is of a run, or of a choice of --n_molecules: all are evaluated")

    from symdiff_plugin.common.errors import EvaluationError
    from symdiff_plugin.common.files import write_json
    from symdiff_plugin.data import DataError
    from symdiff_plugin.edm import EdmError
    from symdiff_plugin.evaluate.data_split import DEFAULT_DATADIR, evaluate_geom_split, evaluate_split
    from symdiff_plugin.evaluate.evaluation import metrics_table
    from symdiff_plugin.evaluate.posebusters import posebusters_version

    geom = options.dataset == "geom"
    path = (options.out or Path("outputs") / f"data_{'geom_' * geom}{options.data}") / "metrics.json"
    try:
        if options.posebusters != 0:
            posebusters_version()
        chosen = (options.n_molecules, options.seed, options.posebusters)
        if geom:
            record = evaluate_geom_split(options.data_file, options.data, options.split, options.split_seed, *chosen)
        else:
            record = evaluate_split(options.datadir or DEFAULT_DATADIR, options.data, *chosen)
        write_json(path, record)
    except (EvaluationError, DataError, EdmError, OSError) as error:
        return _refuse(parser.prog, error, path)
    except KeyboardInterrupt:
        return refuse(parser.prog, "interrupted, nothing was written", 130)
    what = f"split of QM9, {record['n_samples']:,} molecules"
    if geom:
        what = f"split ({options.split}) of {record['data_set'] or 'GEOM-Drugs'}, {record['n_samples']:,} conformers"
    print(f"Data: {options.data} {what}\n{metrics_table(record)}\nWritten: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

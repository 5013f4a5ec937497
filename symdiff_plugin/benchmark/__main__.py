"""``python -m symdiff_plugin.benchmark``: presets and EGNNs side by side, in one run."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from symdiff_plugin.common.command_line import OneLineParser
from symdiff_plugin.common.kinds import DEVICE, SEED, whole

if TYPE_CHECKING:  # at run time where they are needed, so that --help answers at once
    import torch

    from symdiff_plugin.benchmark.contenders import Contender

WORKLOAD_NAMES = ("qm9_train", "qm9_call", "geom_train", "geom_call")


def _parser(prog: str) -> argparse.ArgumentParser:
    from symdiff_plugin.training.arguments import default_datadir

    parser = OneLineParser(
        prog=prog, allow_abbrev=False,
        description="Time training steps and denoising calls of several models in turn, on the same molecules, with "
        "EDM's diffusion model around each; measure memory and host reads; compare with the machine's floor.",
        epilog="Writes benchmark.json and benchmark.md into --out, and prints the latter.",
    )  # fmt: skip
    add = parser.add_argument
    add(
        "--models", nargs="+", default=["edm", "symdiff", "symdiff:bf16"], metavar="NAME[:bf16][:compile]",
        help="presets, and EGNNs edm, edm_plus, edm_plus_plus, edm_tiny; ratios are to the first EGNN (%(default)s)",
    )  # fmt: skip
    add("--workloads", nargs="+", default=list(WORKLOAD_NAMES), choices=WORKLOAD_NAMES, help="what to time (all)")
    add("--molecules", type=whole(1, 1_000_000), help="molecules of a batch, instead of each workload's own")
    add("--rounds", type=whole(1, 10_000), default=3, help="how often each model has its turn (%(default)s)")
    add("--no_scaling", action="store_true", help="leave out the scaling with size and padding")
    add("--datadir", type=Path, default=default_datadir(), help="folder of QM9 (%(default)s)")
    add("--device", type=DEVICE, help="cpu or cuda (cuda where there is one)")
    add("--threads", type=whole(1, 1024), help="threads on a CPU (torch's choice)")
    add("--seed", type=SEED, default=0, help="of the molecules and the weights (%(default)s)")
    add("--out", type=Path, default=Path("outputs/benchmark"), help="folder for the results (%(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = "python -m symdiff_plugin.benchmark") -> int:
    """The command line. Returns the exit status: 0, 2 for bad input, 1 for what the machine lacks."""
    parser = _parser(prog)
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)

    # Imported here so that --help and a wrong option answer at once.
    import torch

    from symdiff_plugin.benchmark.contenders import Contender
    from symdiff_plugin.common.devices import usable_device
    from symdiff_plugin.edm import EdmError

    try:
        contenders = [Contender.parse(text) for text in options.models]
        device = usable_device(options.device)
    except ValueError as error:
        parser.error(" ".join(str(error).split()))
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        text = run(options, contenders, device, shlex.join([*prog.split(), *given]))
    except EdmError as error:
        parser.exit(error.exit_status, f"{parser.prog}: {error}\n")
    except ValueError as error:
        parser.error(" ".join(str(error).split()))
    except OSError as error:
        parser.exit(1, f"{parser.prog}: {error.filename or options.out}: {error.strerror or error}; make room\n")
    print(text)
    return 0


def run(options: argparse.Namespace, contenders: list[Contender], device: torch.device, command: str) -> str:
    """Measure, write the results into ``options.out`` and return the Markdown."""
    from dataclasses import replace

    from symdiff_plugin.benchmark.floor import bandwidth, gemm_peak
    from symdiff_plugin.benchmark.measure import Peaks, measure
    from symdiff_plugin.benchmark.scaling import scaling
    from symdiff_plugin.benchmark.table import as_json, markdown
    from symdiff_plugin.benchmark.workloads import WORKLOADS
    from symdiff_plugin.common.files import replacing, write_json

    options.out.mkdir(parents=True, exist_ok=True)
    precisions = sorted({contender.precision for contender in contenders})
    peaks = Peaks({p: gemm_peak(p, device) for p in reversed(precisions)}, bandwidth(device))
    results = []
    for name in options.workloads:
        workload = WORKLOADS[name]
        if options.molecules:
            workload = replace(workload, molecules=options.molecules)
        results += measure(name, workload, contenders, options.datadir, device, options.rounds, peaks, options.seed)
    scalings = []
    if not options.no_scaling:
        ours = [c for c in contenders if not c.is_egnn]
        scalings = [scaling(c, options.datadir, device, options.rounds, options.seed) for c in ours]
    record = as_json(command, device, peaks, results, scalings)
    text = markdown(record)
    write_json(options.out / "benchmark.json", record)
    with replacing(options.out / "benchmark.md") as file:
        file.write(text)
    print(f"Written: {options.out / 'benchmark.json'}, {options.out / 'benchmark.md'}", file=sys.stderr)
    return text


if __name__ == "__main__":
    sys.exit(main())

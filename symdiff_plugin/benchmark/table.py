"""The results as JSON and as Markdown, the latter also in the layout of the paper's Tables 2, 3 and 7."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch

from symdiff_plugin.benchmark.contenders import Contender
from symdiff_plugin.benchmark.measure import Peaks, Result
from symdiff_plugin.benchmark.scaling import Scaling
from symdiff_plugin.benchmark.workloads import TRAINING_SET, WORKLOADS
from symdiff_plugin.common.paper import COSTS
from symdiff_plugin.presets import PRESETS

GIB = 2**30
_STEPS = 1000  # of the paper's diffusion
_EGNN_LABELS = {"edm": "EDM", "edm_plus": "EDM+", "edm_plus_plus": "EDM++", "edm_tiny": "EDM, tiny"}


def machine(device: torch.device) -> dict[str, Any]:
    """Where the measurements were made."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu()
    return {
        "date": date.today().isoformat(), "device": str(device), "name": name, "system": platform.platform(),
        "threads": torch.get_num_threads(), "python": platform.python_version(), "torch": torch.__version__,
    }  # fmt: skip


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def as_json(
    command: str, device: torch.device, peaks: Peaks, results: Sequence[Result], scalings: Sequence[Scaling]
) -> dict[str, Any]:
    """Everything that was measured, each round of it."""
    return {
        "command": command, "machine": machine(device), "peaks": asdict(peaks),
        "results": [asdict(result) for result in results], "scaling": [asdict(scaling) for scaling in scalings],
    }  # fmt: skip


def markdown(record: dict[str, Any]) -> str:
    """The tables of a record of :func:`as_json`."""
    results = [Result(**row) for row in record["results"]]
    where, peaks = record["machine"], record["peaks"]
    gemm = ", ".join(f"{value / 1e9:,.0f} GFLOP/s in {name}" for name, value in peaks["gemm"].items())
    parts = [
        f"`{record['command']}`",
        f"{where['date']}, {where['name']}, {where['threads']} threads, torch {where['torch']}, {where['system']}. "
        f"Peaks in the same run: {gemm}; {peaks['bandwidth'] / 1e9:,.1f} GB/s.",
        *(_side_by_side(name, [r for r in results if r.workload == name]) for name in WORKLOADS),
        *(_as_in_the_paper(dataset, results, where["device"]) for dataset in TRAINING_SET),
        _scaling([Scaling(**row) for row in record["scaling"]]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _side_by_side(name: str, results: Sequence[Result]) -> str:
    if not results:
        return ""
    workload, first = WORKLOADS[name], results[0]
    head = (
        f"## {workload.label}\n\n{first.molecules} molecules, {first.atoms / first.molecules:.1f} atoms on average, "
        f"padded to {first.length}. "
    )
    baseline = next((r.contender for r in results if r.ratios and Contender.parse(r.contender).is_egnn), None)
    versus = f"times {baseline}" if baseline else "ratio"
    network = ["loss and gradients, s", versus] if workload.training else []
    rows = [["model", "s", versus, *network, "memory, GiB", "host reads", "floor, s", "s / floor"]]
    for r in results:
        row = [r.contender, _time(r.rounds), _ratio(r.ratios)]
        if workload.training:
            row += [_time(r.network_rounds), _ratio(r.network_ratios)]
        row += [f"{r.memory / GIB:.3f}", str(sum(r.synchronisations.values())), f"{r.floor:.3f}"]
        rows.append([*row, f"{r.seconds / r.floor:.2f}"])
    return head + _explanation(workload.training) + "\n\n" + _table(rows)


def _explanation(training: bool) -> str:
    text = "Median of the rounds (smallest to largest); ratios are the median of the rounds' own."
    if training:
        return "The step has loss, gradients, clipping, optimiser and moving average. " + text
    return text


def _as_in_the_paper(dataset: str, results: Sequence[Result], device: str) -> str:
    """Rows with both workloads of a data set; seconds projected, the paper's figures beside them."""
    found: dict[str, dict[bool, Result]] = {}
    for result in results:
        workload = WORKLOADS[result.workload]
        if workload.dataset == dataset:
            found.setdefault(result.contender, {})[workload.training] = result
    complete = {name: pair for name, pair in found.items() if len(pair) == 2}
    if not complete:
        return ""
    title = "Tables 2 and 3 (QM9)" if dataset == "qm9" else "Table 7 (GEOM-Drugs)"
    rows = [[
        "method", "# parameters", "s/epoch", "sampling time, s", "memory, GiB",
        "paper: # parameters", "paper, H100: s/epoch", "paper, H100: sampling time, s", "paper, H100: vRAM, GB",
    ]]  # fmt: skip
    for name, pair in complete.items():
        contender = Contender.parse(name)
        step, call = pair[True], pair[False]
        paper = COSTS[dataset].get(contender.name)
        theirs = [paper.parameters, paper.epoch_seconds, paper.sample_seconds, paper.memory_gb] if paper else [None] * 4
        rows.append([
            _label(contender), f"{step.parameters / 1e6:.1f}M",
            f"{step.seconds * TRAINING_SET[dataset] / step.molecules:,.0f}",
            f"{call.seconds * (_STEPS + 1) / call.molecules:.2f}", f"{step.memory / GIB:.2f}",
            "-" if theirs[0] is None else f"{theirs[0]}M", *("-" if v is None else f"{v:,}" for v in theirs[1:]),
        ])  # fmt: skip
    return (
        f"## In the layout of {title}\n\nOurs are projected from one step and one call on {device}: an epoch is "
        f"{TRAINING_SET[dataset]:,} molecules, a sample {_STEPS + 1:,} calls; memory is the training step's peak above "
        "the state before. The paper's were measured by its authors on an H100, with other batch sizes; not checked "
        "here.\n\n" + _table(rows)
    )


def _label(contender: Contender) -> str:
    label = _EGNN_LABELS.get(contender.name) or PRESETS[contender.name].label
    switches = str(contender).split(":")[1:]
    return f"{label} ({', '.join(switches)})" if switches else label


def _scaling(scalings: Sequence[Scaling]) -> str:
    if not scalings:
        return ""
    rows = [["model", "memory with twice the atoms", "time padded to the data set's largest"]]
    for s in scalings:
        rows.append([s.contender, f"{s.memory_ratio:.2f} times", f"{100 * (s.padding_ratio - 1):+.1f}%"])
    first = scalings[0]
    return (
        "## Scaling\n\nA denoising call on the GEOM-Drugs molecules above: its peak memory when every molecule has "
        f"twice the atoms, and its time when padded to {first.max_n_nodes} atoms instead of the batch's "
        f"{first.longest}.\n\n" + _table(rows)
    )


def _time(rounds: Sequence[float]) -> str:
    return f"{median(rounds):.3f} ({min(rounds):.3f} to {max(rounds):.3f})"


def _ratio(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.1f}" if ratios else "-"


def _table(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])

"""Plots of the report as PNG files: learning curves, distributions beside the data's, grids of samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from symdiff_plugin.common.files import replacing
from symdiff_plugin.common.progress import progress
from symdiff_plugin.molecules.picture import write_picture
from symdiff_plugin.report.data_statistics import MoleculeStatistics, count, total_variation
from symdiff_plugin.report.folders import EvaluatedRun, is_number

PICTURED = 10
BONDS = ("C-H", "C-C", "C-N", "C-O")
# Okabe and Ito's colours, which the colour-blind tell apart; grey is the data's.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
REFERENCE, INK = "#9aa1ab", "#1f2329"
DPI = 130
NLL_TICKS = (-200, -150, -100, -50, 0, 50, 100, 200, 500, 1e3, 1e4, 1e5, 1e6)


def learning_curves(path: Path, runs: Sequence[EvaluatedRun]) -> bool:
    """Training loss by epoch, validation NLL by epoch and by hours of training, a line a run.

    False, and no file, if there is no history.
    """
    runs = [run for run in runs if run.history]
    if not runs:
        return False
    figure, (left, middle, right) = _figure(1, 3, 3.6)
    for index, run in enumerate(runs):
        style = {**_style(index), "label": _name(run)}
        epochs = [row["epoch"] + 1 for row in run.history]  # that many are done
        for axes, at, key in (
            (left, epochs, "train_loss"), (middle, epochs, "val_nll"), (right, run.training_hours, "val_nll"),
        ):  # fmt: skip
            points = [(x, row.get(key)) for x, row in zip(at, run.history, strict=True)]
            points = [(x, y) for x, y in points if is_number(x) and is_number(y)]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o" if len(points) < 30 else None, ms=4, **style)
    left.set(xlabel="epochs", ylabel="training loss", title="Training loss")
    middle.set(xlabel="epochs", ylabel="NLL (nats)", title="Validation NLL")
    clock = "core hours" if all(run.on_cpu for run in runs) else "hours"
    right.set(xlabel=f"{clock} of training", ylabel="NLL (nats)", title="Validation NLL")
    values = np.concatenate([line.get_ydata() for line in middle.lines] or [np.zeros(1)])
    if np.ptp(values) > 300:  # the first epochs are hundreds to 1e5 nats off
        ticks = [tick for tick in NLL_TICKS if values.min() <= tick <= values.max()]
        for axes in (middle, right):
            axes.set_yscale("symlog", linthresh=100)
            axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
    for axes in (left, middle):
        axes.xaxis.get_major_locator().set_params(integer=True)
    _legend(figure, left)
    _save(figure, path)
    return True


def distributions(path: Path, runs: Sequence[EvaluatedRun], reference: tuple[MoleculeStatistics, str] | None) -> bool:
    """Sizes, atom types and bond lengths of samples beside the data's. False, and no file, if there are no samples.

    The number in the legend is the total variation distance of the sizes and of the atom types to the data's.
    """
    runs = [run for run in runs if run.molecules and not run.is_data]
    if not runs:
        return False
    found = [(_name(run), count(run.molecules), _style(i)) for i, run in enumerate(progress(runs, "Distributions"))]
    figure, grid = _figure(2, 3, 6.2)
    axes = grid.ravel()
    if reference is not None:
        truth, name = reference
        sizes, total = sorted(truth.sizes), sum(truth.sizes.values())
        axes[0].bar(sizes, [truth.sizes[size] / total for size in sizes], color=REFERENCE, width=1, label=name)
    symbols = ["H", "C", "N", "O", "F"]
    symbols += sorted({s for _, statistics, _ in found for s in statistics.types} - set(symbols))
    width = 0.8 / (len(found) + (reference is not None))
    bars = [(name, statistics, style["color"]) for name, statistics, style in found]
    if reference is not None:
        bars.insert(0, (reference[1], reference[0], REFERENCE))
    for index, (_, statistics, colour) in enumerate(bars):
        total = sum(statistics.types.values())
        at = np.arange(len(symbols)) + (index - (len(bars) - 1) / 2) * width
        axes[1].bar(at, [statistics.types[symbol] / total for symbol in symbols], width, color=colour)
    axes[1].set_xticks(range(len(symbols)), symbols)
    for name, statistics, style in found:
        total = sum(statistics.sizes.values())
        if reference is not None:
            name += (
                f" (TV sizes {total_variation(statistics.sizes, reference[0].sizes):.3f}, "
                f"types {total_variation(statistics.types, reference[0].types):.3f})"
            )
        counts = range(min(statistics.sizes), max(statistics.sizes) + 1)
        axes[0].plot(list(counts), [statistics.sizes[n] / total for n in counts], label=name, **style)
    for kind, ax in zip(BONDS, axes[2:], strict=True):
        everything = [statistics.bonds.get(kind, []) for _, statistics, _ in found]
        truth_lengths = reference[0].bonds.get(kind, []) if reference is not None else []
        pooled = np.concatenate([*everything, truth_lengths])
        ax.set(title=f"{kind.replace('-', '–')} bond length", xlabel="Å", ylabel="density")
        if not len(pooled):
            ax.text(0.5, 0.5, "no such bond", transform=ax.transAxes, ha="center", color=REFERENCE)
            continue
        shortest, longest = np.quantile(pooled, [0.001, 0.999])
        edges = np.linspace(shortest - 0.02, longest + 0.02, 61)
        if len(truth_lengths):
            ax.hist(truth_lengths, edges, density=True, color=REFERENCE)
        for lengths, (_, _, style) in zip(everything, found, strict=True):
            if len(lengths):
                ax.hist(lengths, edges, density=True, histtype="step", linewidth=1.5, color=style["color"])
    axes[0].set(title="Molecule size", xlabel="atoms", ylabel="fraction")
    axes[1].set(title="Atom type", ylabel="fraction")
    _legend(figure, axes[0])
    _save(figure, path)
    return True


def sample_grid(path: Path, run: EvaluatedRun) -> bool:
    """A grid of the run's samples, evenly taken rather than the best. False, and no file, if it has none."""
    if not run.molecules or run.is_data:
        return False
    chosen = [run.molecules[i] for i in spread(len(run.molecules), PICTURED)]
    words = [run.comments[i].split(";")[0] for i in spread(len(run.molecules), PICTURED)]
    captions = [(word, word in ("stable", "valid")) for word in words]
    title = f"{run.label}, {run.folder.name}: {len(chosen)} of {len(run.molecules):,} samples, evenly taken"
    write_picture(path, chosen, captions, title, cell=220)
    return True


def spread(total: int, wanted: int) -> list[int]:
    """Up to ``wanted`` indices, evenly over ``total``."""
    return list(dict.fromkeys(i * total // wanted for i in range(wanted))) if total else []


def _name(run: EvaluatedRun) -> str:
    return f"{run.label} ({run.folder.name})"


def _style(index: int) -> dict[str, str]:
    styles = ("-", "--", ":", "-.")
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": styles[index // len(COLOURS) % len(styles)]}


def _figure(rows: int, columns: int, height: float) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(10.5, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns)
    for ax in grid.ravel():
        _tidy(ax)
    return figure, grid


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
    axes.title.set(fontsize=10.5, color=INK)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)


def _save(figure: Figure, path: Path) -> None:
    with replacing(path, "wb") as file:
        figure.savefig(file, format="png")

"""``python -m symdiff_plugin.benchmark.curves``: training losses of runs in one picture, and how far they differ.

To judge a switch that changes rounding alone, such as ``--precision bf16``: a run with it and one without, of the same
seed, see the same batches, times and noise, so that their difference is the switch's doing. A run of another seed shows
how large the differences are that do not matter.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from symdiff_plugin.common.command_line import OneLineParser
from symdiff_plugin.common.files import replacing
from symdiff_plugin.common.kinds import whole
from symdiff_plugin.training.history import TRAIN_LOSS, read_rows


def losses(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Steps (S,) and training losses (S,) of the run in ``folder``.

    Raises:
        ValueError: there is no history of training in it.
    """
    path = folder / TRAIN_LOSS
    if not path.is_file():
        raise ValueError(f"no {path}: give folders of runs, such as outputs/symdiff")
    rows = [row for row in read_rows(path) if row["loss"] is not None]
    if not rows:
        raise ValueError(f"{path} holds no losses yet")
    return np.array([row["step"] for row in rows]), np.array([row["loss"] for row in rows])


def differences(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean of a - b over the second half of the steps that both have, and its standard error."""
    count = min(len(a), len(b))
    difference = (a[:count] - b[:count])[count // 2 :]
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Running mean over ``window`` values, where all of them are there."""
    return np.convolve(values, np.full(window, 1 / window), mode="valid")


def draw(folders: Sequence[Path], out: Path, window: int) -> None:
    """One curve a run, smoothed over ``window`` points, into the picture ``out``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for i, folder in enumerate(folders):
        step, loss = losses(folder)
        width = min(window, len(loss))
        linewidth, alpha = (4, 0.4) if i == 0 else (1.2, None)  # curves that agree hide each other
        axes.plot(step[width - 1 :], smooth(loss, width), label=folder.name, linewidth=linewidth, alpha=alpha)
    axes.set_xlabel("step")
    axes.set_ylabel(f"training loss, mean of {window} points")
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(out, "wb") as file:
        figure.savefig(file, format="png")


def main(arguments: Sequence[str] | None = None, prog: str = "python -m symdiff_plugin.benchmark.curves") -> int:
    """The command line. Returns the exit status: 0, 2 for bad input, 1 for what the machine lacks."""
    parser = OneLineParser(prog=prog, description="Draw and compare training losses of runs.", allow_abbrev=False)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs; the first is compared with the others")
    parser.add_argument("--out", type=Path, default=Path("outputs/curves.png"), help="the picture (%(default)s)")
    parser.add_argument("--window", type=whole(), default=25, metavar="N", help="points a smoothed one (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        found = [losses(folder)[1] for folder in options.runs]
        draw(options.runs, options.out, options.window)
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        parser.exit(1, f"{parser.prog}: {error.filename or options.out}: {error.strerror or error}; make room\n")
    for folder, other in zip(options.runs[1:], found[1:], strict=True):
        mean, deviation = differences(other, found[0])
        print(f"{folder} minus {options.runs[0]}, second half: {mean:+.5f} +- {deviation:.5f} a step")
    print(f"Written: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

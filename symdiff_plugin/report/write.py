"""The files of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from symdiff_plugin.common.files import replacing, write_json
from symdiff_plugin.report.data_statistics import MoleculeStatistics
from symdiff_plugin.report.folders import EvaluatedRun
from symdiff_plugin.report.page import page
from symdiff_plugin.report.plots import distributions, learning_curves, sample_grid
from symdiff_plugin.report.render import to_latex, to_markdown
from symdiff_plugin.report.tables import build_tables
from symdiff_plugin.report.viewer import viewer

_NAMES = {"qm9": "QM9", "geom": "GEOM-Drugs"}


def write_report(
    out: Path,
    runs: Sequence[EvaluatedRun],
    skipped: Sequence[tuple[Path, str]] = (),
    references: Mapping[tuple[str, str | None], tuple[MoleculeStatistics, str]] | None = None,
    over_seeds: bool = False,
) -> list[Path]:
    """Write ``report.md``, ``tables.tex``, ``report.json``, ``report.html`` and the plots into ``out``.

    Args:
        out: made if missing; files of an earlier report are replaced.
        runs, skipped: from :func:`symdiff_plugin.report.folders.read_runs`.
        references: statistics of the data, and what they are of, by :attr:`EvaluatedRun.data`; from
            :mod:`symdiff_plugin.report.data_statistics`. Samples of other data have plots without them.
        over_seeds: one row a model, mean and standard deviation over its runs.

    Returns:
        What was written, the page last.

    Raises:
        OSError: something cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    tables = build_tables(runs, over_seeds)
    pictures = []
    # A likelihood or a bond length says something beside others of the same data alone.
    groups: dict[tuple[str, str | None], list[EvaluatedRun]] = {}
    for run in runs:
        groups.setdefault(run.data, []).append(run)
    for index, data in enumerate(sorted(groups, key=lambda data: (data[0] != "qm9", data[1] or ""))):
        group = groups[data]
        name = _NAMES[data[0]] if data[1] is None else data[1]
        suffix = "" if data == ("qm9", None) else f"_{data[0]}" + (f"_{index}" if data[1] else "")
        path = out / f"learning_curves{suffix}.png"
        if learning_curves(path, group):
            pictures.append((f"Learning curves on {name}", path))
        path, reference = out / f"distributions{suffix}.png", (references or {}).get(data)
        if distributions(path, group, reference):
            beside = f"beside {name}" if reference else f"on {name}, of samples alone"
            pictures.append((f"Distributions {beside}", path))
    for index, run in enumerate(runs):
        path = out / f"samples_{index}.png"  # two folders may have one name
        if sample_grid(path, run):
            pictures.append((f"Samples of {run.folder.name}", path))
    _write(out / "report.md", to_markdown(tables, skipped))
    _write(out / "tables.tex", to_latex(tables))
    left_out = [{"folder": str(folder), "reason": reason} for folder, reason in skipped]
    record = {"paper": "Zhang et al. 2024", "over_seeds": over_seeds, "tables": [table.record() for table in tables]}
    write_json(out / "report.json", {**record, "left_out": left_out})
    _write(out / "report.html", page(tables, pictures, viewer(runs), skipped))
    texts = [out / name for name in ("report.md", "tables.tex", "report.json")]
    return [*texts, *(path for _, path in pictures), out / "report.html"]


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text)

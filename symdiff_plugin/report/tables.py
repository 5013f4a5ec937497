"""The paper's Tables 1 to 8, our rows below the paper's; the numbers of ours all come from run folders."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from symdiff_plugin.common import paper
from symdiff_plugin.presets import EGNN_BASELINES, EGNN_GEOM_BASELINES, PRESETS
from symdiff_plugin.report.folders import EvaluatedRun, is_number
from symdiff_plugin.report.model_sizes import counted_sizes


@dataclass(frozen=True)
class Column:
    """A column: ``key`` in the JSON, its head, whether more or less is better, and how our numbers are written."""

    key: str
    head: str
    better: Literal["up", "down", ""] = ""
    digits: int = 2
    suffix: str = ""


@dataclass(frozen=True)
class Cell:
    """A number and its standard deviation in the column's unit, and as they are printed; blank with None and ""."""

    value: float | None = None
    std: float | None = None
    text: str = ""


@dataclass(frozen=True)
class Row:
    """One row. ``source``: the ``paper``'s, ``ours``, or ``missing`` with the ``command`` that would fill it."""

    key: str | None
    label: str
    source: Literal["paper", "ours", "missing"]
    cells: tuple[Cell, ...]
    note: str = ""
    command: str = ""


@dataclass(frozen=True)
class Table:
    """One table; ``number`` is the paper's, ``runs`` for that of all runs.

    ``dataset`` is that of its runs, ``qm9`` or ``geom``; "" for all runs, of either.
    """

    number: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    footnotes: tuple[str, ...] = ()
    dataset: str = "qm9"

    @property
    def has_ours(self) -> bool:
        """Whether anything of ours fills a row."""
        return any(row.source == "ours" for row in self.rows)

    def record(self) -> dict[str, Any]:
        """The table as JSON takes it."""
        return asdict(self)


NLL = Column("test_nll", "NLL", "down")
ATOMS = Column("atom_stability", "Atm. stability (%)", "up")
MOLECULES = Column("molecule_stability", "Mol. stability (%)", "up")
VALIDITY = Column("validity", "Val. (%)", "up")
UNIQUENESS = Column("uniqueness", "Uniq. of valid (%)", "up")
BOTH = Column("validity_x_uniqueness", "Val. × uniq. (%)", "up")
QUALITY = (NLL, ATOMS, MOLECULES, VALIDITY, UNIQUENESS, BOTH)
PARAMETERS = Column("parameters", "# Parameters", digits=1, suffix="M")
EPOCH = Column("epoch_seconds", "Sec./epoch (s)", "down")
SAMPLE = Column("seconds_per_sample", "Sampling time (s)", "down")
MEMORY = Column("memory_gb", "vRAM (GB)", "down", 0)
BACKBONE = Column("epsilon_theta", "# Parameters", digits=1, suffix="M")
SIZES = (
    Column("hidden_size", "n_size", digits=0), Column("depth", "n_layers", digits=0),
    Column("num_heads", "n_heads", digits=0),
)  # fmt: skip
EGNN_SIZES = (Column("nf", "n_f", digits=0), Column("n_layers", "n_l", digits=0))
COST_FOOTNOTE = (
    "The paper's times and memory are of one NVIDIA H100 80GB; ours of the device in the note. vRAM is not recorded "
    "with a run: python -m symdiff_plugin.benchmark measures it."
)
UNIQUENESS_FOOTNOTE = (
    "The paper's column Uniq. mixes two quantities: its figures of EDM, GeoLDM and END are validity times uniqueness, "
    "and stand in that column here; the others are of the valid samples."
)
MIXED_NOTE = "last figure: under Uniq. in the paper, but validity × uniqueness"
COUNTED_NOTE = "counted, no run needed"
NO_EDM_FOOTNOTE = (
    "EDM is not here, so that the parameters of its models cannot be counted: python -m symdiff_plugin.edm get, "
    "then apply, brings it."
)
RUNS_FOOTNOTE = "(GEOM): on GEOM-Drugs or data in its format, whose numbers do not compare with QM9's."
GEOM_FOOTNOTE = "The paper's GeoLDM and EDM are of one evaluation run."
GEOLDM_FOOTNOTE = "GeoLDM: the paper prints GeoLM here. The paper's authors could not run GeoLDM and EDM on their GPU."


def build_tables(runs: Sequence[EvaluatedRun], over_seeds: bool = False) -> list[Table]:
    """All tables: first that of all runs, if there are any, then the paper's.

    Parameters and sizes of models that were not run are counted (:mod:`symdiff_plugin.report.model_sizes`).

    Args:
        runs: from :func:`symdiff_plugin.report.folders.read_runs`.
        over_seeds: runs of one row that differ in their seed alone become one line, mean and standard deviation
            (ddof 1) over the runs; without it every run has a line of its own, and a standard deviation is that over
            its evaluation runs.
    """
    ours: dict[tuple[str, str | None], list[EvaluatedRun]] = defaultdict(list)
    for run in runs:
        ours[run.dataset, run.key].append(run)
    costs = {**paper.OTHER_QM9_COSTS, **paper.QM9_COSTS}
    order2 = ("geoldm", "mudiff", "end", "edm", "symdiff_star", "symdiff")
    geom_costs = {**paper.OTHER_GEOM_COSTS, **paper.GEOM_COSTS}
    specs = [
        ("1", "Test NLL, stability, validity and uniqueness on QM9", QUALITY,
         _qualities(paper.TABLE_1), (UNIQUENESS_FOOTNOTE,)),
        ("2", "Seconds per epoch, sampling time and vRAM on QM9", (PARAMETERS, EPOCH, SAMPLE, MEMORY),
         {key: (costs[key].label, _costs(costs[key])) for key in order2}, (COST_FOOTNOTE,)),
        ("3", "Sizes of SymDiff and EDM on QM9", (NLL, MOLECULES, EPOCH, SAMPLE, MEMORY),
         {key: (row[0], [*map(_paper, row[1:]), *_costs(costs[key])[1:]]) for key, row in paper.TABLE_3.items()},
         (COST_FOOTNOTE,)),
        ("4", "Test NLL, atom stability and validity on GEOM-Drugs", (NLL, ATOMS, VALIDITY),
         {key: (row[0], [_paper(text) for text in row[1:]]) for key, row in paper.TABLE_4.items()}, (GEOM_FOOTNOTE,)),
        ("5", "The epsilon_theta of the SymDiff models for QM9", (BACKBONE, *SIZES),
         {key: (row[0], [_paper(row[1], "M"), *map(_paper, row[2:])]) for key, row in paper.TABLE_5.items()}, ()),
        ("6", "The EDM models for QM9", (PARAMETERS, *EGNN_SIZES),
         {key: (row[0], [_paper(row[1], "M"), *map(_paper, row[2:])]) for key, row in paper.TABLE_6.items()},
         () if "parameters" in counted_sizes("edm", "qm9") else (NO_EDM_FOOTNOTE,)),
        ("7", "Seconds per epoch, sampling time and vRAM on GEOM-Drugs", (PARAMETERS, EPOCH, SAMPLE, MEMORY),
         {key: (cost.label, _costs(cost)) for key, cost in geom_costs.items()}, (COST_FOOTNOTE, GEOLDM_FOOTNOTE)),
        ("8", "Finetuning a pretrained DiT on QM9", QUALITY,
         _qualities(paper.TABLE_8), ()),
    ]  # fmt: skip
    tables = [_all_runs(runs, over_seeds)] if runs else []
    for number, title, columns, theirs, footnotes in specs:
        rows = []
        dataset = "geom" if number in ("4", "7") else "qm9"
        for key, (label, cells) in theirs.items():
            mixed = columns is QUALITY and key in paper.UNIQUENESS_TIMES_VALIDITY
            rows.append(Row(key, label, "paper", tuple(cells), MIXED_NOTE if mixed else ""))
            rows += _our_rows(ours.get((dataset, key), []), key, label, columns, over_seeds, dataset)
        if "symdiff_star" in theirs:
            footnotes = (*footnotes, star_footnote())
        tables.append(Table(number, title, columns, tuple(rows), footnotes, dataset))
    return tables


def _all_runs(runs: Sequence[EvaluatedRun], over_seeds: bool) -> Table:
    """A row for every run, whether or not the paper has one for its model."""
    groups: dict[Any, list[EvaluatedRun]] = defaultdict(list)
    for run in runs:
        groups[(run.dataset, run.key, run.label) if run.key else run.folder].append(run)
    columns = (PARAMETERS, *QUALITY, EPOCH, SAMPLE)
    rows = []
    for group in groups.values():
        label = group[0].label + " (GEOM)" * (group[0].dataset == "geom")
        rows += _our_rows(group, group[0].key, label, columns, over_seeds, group[0].dataset)
    on_geom = any(run.dataset == "geom" for run in runs)
    return Table("runs", "Your runs", columns, tuple(rows), (RUNS_FOOTNOTE,) * on_geom, "")


def star_footnote() -> str:
    """Why our SymDiff* is larger than the paper's, with our parameters counted."""
    numbers = counted_sizes("symdiff_star", "qm9")
    f_theta = numbers["parameters"] - numbers["epsilon_theta"]
    return (
        "SymDiff*: the paper's Table 2 says 117.8M parameters, which is 115.6M and the base model's f_theta of 2.2M; "
        f"the f_theta of its Appendix C.2.1 (size 216, 10 layers, 8 heads) has {f_theta:.1f}M, "
        f"{numbers['parameters']:.1f}M in all. Ours follows C.2.1."
    )


def command_for(key: str, dataset: str = "qm9") -> str:
    """The command that trains and evaluates a row; "" for methods that are not in this repository."""
    if dataset == "geom":
        if key == "data":
            return "python -m symdiff_plugin.evaluate --data test --dataset geom"
        return f"./run_geom.sh {key}" if key in PRESETS or key in EGNN_GEOM_BASELINES else ""
    if key in PRESETS or key in EGNN_BASELINES:
        start = PRESETS[key].starts_from if key in PRESETS else None
        return f"./run_qm9.sh {key}" + (f" --init_from outputs/{start}" if start else "")
    return "python -m symdiff_plugin.evaluate --data test" if key == "data" else ""


def _our_rows(
    runs: Sequence[EvaluatedRun], key: str | None, label: str, columns: Sequence[Column], over_seeds: bool, dataset: str
) -> list[Row]:
    if not runs:
        command = command_for(key, dataset) if key else ""
        if not command:
            return []
        known = counted_sizes(key, dataset)
        cells = tuple(_cell(known.get(column.key), None, column) for column in columns)
        if all(cell.text for cell in cells):
            return [Row(key, label, "ours", cells, COUNTED_NOTE)]
        return [Row(key, label, "missing", cells, command=command)]
    experiments: dict[Any, list[EvaluatedRun]] = defaultdict(list)
    for run in runs:
        pooled = over_seeds and key != "data"  # splits are no repetitions of one another
        experiments[run.repeats if pooled else run].append(run)
    return [_our_row(same, key, label, columns) for same in experiments.values()]


def _our_row(runs: Sequence[EvaluatedRun], key: str | None, label: str, columns: Sequence[Column]) -> Row:
    """The row of one run, or of several that repeat one experiment."""
    if len(runs) > 1:
        cells = tuple(_over_runs(runs, column) for column in columns)
        note = f"mean and std over {len(runs)} trainings ({'; '.join(run.note for run in runs)})"
        return Row(key, label, "ours", cells, note)
    (run,) = runs
    device = run.config.get("device")
    timed = any(column in (EPOCH, MEMORY) for column in columns)
    note = f"{run.note}, {device}" if timed and device else run.note
    return Row(key, label, "ours", tuple(_cell(*_measured(run, column.key), column) for column in columns), note)


def _measured(run: EvaluatedRun, key: str) -> tuple[float | None, float | None]:
    """A run's value for a column, and the standard deviation over its evaluation runs, in the table's unit."""
    other: dict[str, Callable[[], Any]] = {
        "parameters": lambda: run.parameters.get("total"),
        "epsilon_theta": lambda: run.parameters.get("epsilon_theta"),
        "epoch_seconds": lambda: run.epoch_seconds,
        "memory_gb": lambda: None,
    }
    if key in other:
        value = other[key]()
        return (value / 1e6 if key in ("parameters", "epsilon_theta") and value is not None else value), None
    sources = {c.key: run.config.get("architecture") or {} for c in SIZES}
    sources.update({c.key: run.config.get("args") or {} for c in EGNN_SIZES})
    if key in sources:
        return sources[key].get(key), None
    scale = 1 if key in ("test_nll", "seconds_per_sample") else 100
    value, std = run.metrics.get(key), (run.metrics.get("std") or {}).get(key)
    return (
        value * scale if is_number(value) else None,
        std * scale if is_number(std) and run.metrics.get("n_runs", 1) >= 2 else None,
    )


def _over_runs(runs: Sequence[EvaluatedRun], column: Column) -> Cell:
    values = [value for value, _ in (_measured(run, column.key) for run in runs) if value is not None]
    if not values:
        return Cell()
    sizes = column in (PARAMETERS, BACKBONE, *SIZES, *EGNN_SIZES)
    return _cell(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 and not sizes else None, column)


def _cell(value: float | None, std: float | None, column: Column) -> Cell:
    if not is_number(value):
        return Cell()
    digits = column.digits
    if column in (EPOCH, SAMPLE, PARAMETERS) and value and abs(value) < 0.1:
        digits = 4  # a fast sampler or a tiny model would else read 0.00
    text = f"{value:.{digits}f}{column.suffix}"
    return Cell(value, std, text if std is None else f"{text} ± {std:.{digits}f}")


def _paper(text: str, suffix: str = "") -> Cell:
    """A cell from the paper's digits, "mean" or "mean std"."""
    if not text:
        return Cell()
    value, *std = text.split()
    return Cell(float(value), float(std[0]) if std else None, " ± ".join([value + suffix, *std]))


def _qualities(table: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, list[Cell]]]:
    """Rows of quality, each figure of uniqueness in the column of what it is."""
    rows = {}
    for key, (label, *cells, last) in table.items():
        columns = ("", last) if key in paper.UNIQUENESS_TIMES_VALIDITY else (last, "")
        rows[key] = label, [_paper(text) for text in (*cells, *columns)]
    return rows


def _costs(cost: paper.Cost) -> list[Cell]:
    values = (cost.parameters, cost.epoch_seconds, cost.sample_seconds, cost.memory_gb)
    columns = (PARAMETERS, EPOCH, SAMPLE, MEMORY)
    return [
        Cell() if value is None else Cell(float(value), None, f"{value:.{column.digits}f}{column.suffix}")
        for value, column in zip(values, columns, strict=True)
    ]

"""Tables 4 and 7, and the plots, of runs on GEOM-Drugs beside runs on QM9."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from report_runs import METRICS, note_of, rows_of, write_run

from symdiff_plugin.common.paper import TABLE_4
from symdiff_plugin.report.__main__ import main
from symdiff_plugin.report.data_statistics import geom_reference
from symdiff_plugin.report.folders import GEOM_CONFORMERS, EvaluatedRun, ReportError, read_run, read_runs
from symdiff_plugin.report.render import to_latex, to_markdown
from symdiff_plugin.report.tables import Table, build_tables

GEOM = {"dataset": "geom", "data_set": None, "data_conformers": GEOM_CONFORMERS}


def write_geom_run(folder: Path, model: str = "symdiff", metrics: dict | None = None, **args: object) -> Path:
    """A run folder of main_geom_drugs.py."""
    given = {"dataset": "geom", "n_epochs": 55, "data_file": "./data/geom/geom_drugs_30.npy", "split": "official",
             "split_seed": 0}  # fmt: skip
    found = {**METRICS, **GEOM, "novelty": None, **(metrics or {})}
    return write_run(folder, model, metrics=found, **{**given, **args})


def write_data(folder: Path, **record: object) -> Path:
    """An evaluation of the data."""
    folder.mkdir()
    given = {"kind": "data", "partition": "test", "atom_stability": 0.865, "validity": 0.999, "n_samples": 692251}
    (folder / "metrics.json").write_text(json.dumps({**given, **record}))
    return folder


def tables_of(*folders: Path) -> list[Table]:
    runs, skipped = read_runs(folders)
    assert not skipped
    return build_tables(runs)


def test_our_rows_are_what_the_folders_hold(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", **GEOM, split="official")
    tables = tables_of(write_geom_run(tmp_path / "a"), data)
    assert rows_of(tables, "4", "symdiff", "ours") == [["-120.46 ± 1.23", "98.77 ± 0.04", "95.00 ± 0.10"]]
    assert rows_of(tables, "7", "symdiff", "ours") == [["31.2M", "25.50", "0.0912", ""]]
    assert rows_of(tables, "4", "data", "ours") == [["", "86.50", "99.90"]]
    assert "conformers" not in note_of(tables, "4", "data") + note_of(tables, "4", "symdiff")


def test_runs_feed_the_tables_of_their_own_data_alone(tmp_path: Path) -> None:
    on_qm9, on_geom = write_run(tmp_path / "q"), write_geom_run(tmp_path / "g")
    data_qm9, data_geom = write_data(tmp_path / "dq", dataset="qm9"), write_data(tmp_path / "dg", **GEOM)
    for folders, filled in (((on_qm9, data_qm9), "qm9"), ((on_geom, data_geom), "geom")):
        for table in tables_of(*folders):
            ours = [row for row in table.rows if row.source == "ours" and "counted" not in row.note]
            assert bool(ours) == (table.number == "runs" or (table.dataset == filled and table.number != "6"))
    everything = tables_of(on_qm9, on_geom, data_qm9, data_geom)
    assert [table.number for table in everything] == ["runs", *"12345678"]
    assert len(rows_of(everything, "1", "symdiff", "ours")) == len(rows_of(everything, "4", "symdiff", "ours")) == 1


def test_edm_on_geom_is_told_by_its_size_there(tmp_path: Path) -> None:
    assert read_run(write_geom_run(tmp_path / "a", "egnn_dynamics", nf=256, n_layers=4)).key == "edm"
    assert read_run(write_geom_run(tmp_path / "b", "egnn_dynamics", nf=256, n_layers=9)).key is None  # QM9's
    assert read_run(write_run(tmp_path / "c", "egnn_dynamics", nf=256, n_layers=4)).key is None


def test_other_models_and_other_data_have_no_row_of_the_paper(tmp_path: Path) -> None:
    star = write_geom_run(tmp_path / "star", "symdiff_star")
    own = write_geom_run(tmp_path / "own", metrics={"data_set": "mine", "data_conformers": 100})
    data = write_data(tmp_path / "data", dataset="geom", data_set="mine", data_conformers=100)
    tables = tables_of(star, own, data)
    filled = [row for table in tables[1:] for row in table.rows if row.source == "ours"]
    assert {row.note for row in filled} == {"counted, no run needed"}
    labels = {row.label for row in tables[0].rows}
    assert labels == {"SymDiff* (GEOM)", "SymDiff, mine (GEOM)", "Data, mine (GEOM)"}


def test_a_run_that_is_not_the_papers_says_so(tmp_path: Path) -> None:
    folder = write_geom_run(
        tmp_path / "a", metrics={"data_conformers": 1234}, split="molecule", split_seed=7, n_epochs=3
    )
    note = note_of(tables_of(folder), "4", "symdiff")
    assert "1,234 conformers, not the 6,922,516" in note
    assert "split by molecule with seed 7" in note
    assert "(the preset: 55)" in note
    assert "split by" not in note_of(tables_of(write_geom_run(tmp_path / "b")), "4", "symdiff")


def test_what_edms_metrics_leave_unsaid_is_in_the_note(tmp_path: Path) -> None:
    beside = {"connected": 0.4321, "posebusters": {"passes_all": 0.125, "n_molecules": 1000}}
    note = note_of(tables_of(write_geom_run(tmp_path / "a", metrics=beside)), "4", "symdiff")
    assert "43.21% in one piece, 12.50% of 1000 pass PoseBusters" in note
    assert "PoseBusters" not in note_of(tables_of(write_geom_run(tmp_path / "b")), "4", "symdiff")


def test_blank_rows_name_their_command() -> None:
    for number in ("4", "7"):
        (table,) = (t for t in build_tables([]) if t.number == number)
        missing = {row.key: row.command for row in table.rows if row.source == "missing"}
        wanted = {"symdiff": "./run_geom.sh symdiff", "edm": "./run_geom.sh edm"}
        if number == "4":
            wanted["data"] = "python -m symdiff_plugin.evaluate --data test --dataset geom"
        assert missing == wanted
    assert set(TABLE_4) == {"geoldm", "end", "edm", "symdiff", "data"}


def test_both_tables_are_in_every_format(tmp_path: Path) -> None:
    tables = tables_of(write_geom_run(tmp_path / "a"))
    for text in (to_markdown(tables), to_latex(tables)):
        assert "GEOM-Drugs" in text
        assert "4336.82" in text
        assert "86.16" in text


def test_the_report_of_both_data_sets(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / "q"), write_geom_run(tmp_path / "g")]
    own = write_geom_run(tmp_path / "o", metrics={"data_set": "mine", "data_conformers": 9})
    out = tmp_path / "out"
    assert main([*map(str, folders), str(own), "--out", str(out)]) == 0
    names = {path.name for path in out.iterdir()}
    for what in ("learning_curves", "distributions"):
        assert {f"{what}.png", f"{what}_geom.png", f"{what}_geom_2.png"} <= names
    html = (out / "report.html").read_text()
    assert "Distributions on mine, of samples alone" in html
    record = json.loads((out / "report.json").read_text())
    assert [table["dataset"] for table in record["tables"] if table["number"] in ("4", "7")] == ["geom", "geom"]


def write_array(path: Path) -> Path:
    """Water twice, then carbon monoxide, in GEOM-Drugs' format."""
    water = [[8, 0, 0, 0], [1, 0.96, 0, 0], [1, -0.24, 0.93, 0]]
    rows = [[i, *atom] for i in (0, 1) for atom in water] + [[2, 6, 0, 0, 0], [2, 8, 1.13, 0, 0]]
    np.save(path, np.array(rows, dtype=np.float64))
    return path


def test_the_reference_is_counted_from_the_array(tmp_path: Path, edm_path: Path) -> None:
    statistics, name, own = geom_reference(write_array(tmp_path / "geom_drugs_30.npy"))
    assert (name, own) == ("GEOM-Drugs, 3 conformers", None)
    assert statistics.sizes == {3: 2, 2: 1}
    assert statistics.types == {"O": 3, "H": 4, "C": 1}
    assert statistics.bonds["C-O"] == pytest.approx([1.13])
    few, _, _ = geom_reference(tmp_path / "geom_drugs_30.npy", at_most=2)
    assert few.sizes == {3: 1, 2: 1}


def test_without_a_file_the_reference_is_edms_histogram(edm_path: Path) -> None:
    statistics, _, _ = geom_reference(None)
    assert max(statistics.sizes) == 181
    assert sum(statistics.sizes.values()) == GEOM_CONFORMERS
    assert not statistics.bonds


def test_a_missing_or_damaged_array_is_one_line(tmp_path: Path, edm_path: Path) -> None:
    with pytest.raises(ReportError, match=r"none\.npy"):
        geom_reference(tmp_path / "none.npy")
    path = write_array(tmp_path / "other.npy")
    atoms = np.load(path)
    atoms[0, 1] = 11
    np.save(path, atoms)
    with pytest.raises(ReportError, match="atomic number 11"):
        geom_reference(path)


def test_data_is_told_by_its_kind(tmp_path: Path) -> None:
    run: EvaluatedRun = read_run(write_data(tmp_path / "d", dataset="geom", data_set="mine", data_conformers=9))
    assert (run.is_data, run.key, run.data) == (True, None, ("geom", "mine"))

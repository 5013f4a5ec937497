"""The report: ours from run folders, Markdown, LaTeX, JSON and the command line."""

from __future__ import annotations

import copy
import json
import re
import shutil
import statistics
from pathlib import Path

import pytest
from report_runs import METRICS, note_of, rows_of, write_run

from symdiff_plugin.common import paper
from symdiff_plugin.presets import EGNN_BASELINES
from symdiff_plugin.report.__main__ import main
from symdiff_plugin.report.data_statistics import count, total_variation
from symdiff_plugin.report.folders import ReportError, read_run, read_runs
from symdiff_plugin.report.render import escape_latex, to_latex, to_markdown
from symdiff_plugin.report.tables import build_tables


def test_our_row_is_what_the_folder_holds(tmp_path: Path) -> None:
    tables = build_tables([read_run(write_run(tmp_path / "a"))])
    quality = ["-120.46 ± 1.23", "98.77 ± 0.04", "87.10", "95.00 ± 0.10", "97.89", "93.00"]
    assert rows_of(tables, "1", "symdiff", "ours") == [quality]
    assert rows_of(tables, "2", "symdiff", "ours") == [["31.2M", "25.50", "0.0912", ""]]
    assert rows_of(tables, "3", "symdiff", "ours") == [["-120.46 ± 1.23", "87.10", "25.50", "0.0912", ""]]
    assert rows_of(tables, "5", "symdiff", "ours") == [["29.0M", "384", "12", "6"]]
    assert rows_of(tables, "8", "symdiff", "ours") == rows_of(tables, "1", "symdiff", "ours")


def test_one_evaluation_has_no_deviation(tmp_path: Path) -> None:
    metrics = {key: value for key, value in METRICS.items() if key not in ("n_runs", "std", "runs")}
    tables = build_tables([read_run(write_run(tmp_path / "old", metrics=metrics))])
    assert rows_of(tables, "1", "symdiff", "ours") == [["-120.46", "98.77", "87.10", "95.00", "97.89", "93.00"]]


def test_a_metric_that_is_missing_or_null_is_blank(tmp_path: Path) -> None:
    metrics = {**METRICS, "uniqueness": None}
    del metrics["test_nll"]
    tables = build_tables([read_run(write_run(tmp_path / "a", metrics=metrics))])
    (row,) = rows_of(tables, "1", "symdiff", "ours")
    assert row == ["", "98.77 ± 0.04", "87.10", "95.00 ± 0.10", "", "93.00"]


def test_training_seeds_are_apart_or_pooled_and_said(tmp_path: Path) -> None:
    nlls = [-120.0, -123.0, -125.5]
    folders = [
        write_run(tmp_path / f"s{i}", seed=i, metrics={**METRICS, "test_nll": nll}) for i, nll in enumerate(nlls)
    ]
    runs, _ = read_runs(folders)
    apart = rows_of(build_tables(runs), "1", "symdiff", "ours")
    assert [row[0].split()[0] for row in apart] == [f"{nll:.2f}" for nll in nlls]
    pooled = build_tables(runs, over_seeds=True)
    mean, std = sum(nlls) / 3, statistics.stdev(nlls)
    assert rows_of(pooled, "1", "symdiff", "ours")[0][0] == f"{mean:.2f} ± {std:.2f}"
    assert "3 trainings" in note_of(pooled, "1", "symdiff")
    assert [len(tables[0].rows) for tables in (build_tables(runs), pooled)] == [3, 1]


def test_only_repetitions_are_pooled(tmp_path: Path) -> None:
    twice = [write_run(tmp_path / f"s{i}", seed=i, exp_name=f"s{i}") for i in range(2)]
    shorter = write_run(tmp_path / "short", seed=2, n_epochs=10)
    fewer = write_run(tmp_path / "few", seed=3, metrics={**METRICS, "n_samples": 100})
    slice_of_qm9 = write_run(tmp_path / "slice", seed=4)
    config = json.loads((slice_of_qm9 / "config.json").read_text())
    config["molecules"] = {"train": 1000, "valid": 100, "test": 100}
    (slice_of_qm9 / "config.json").write_text(json.dumps(config))
    runs, _ = read_runs([*twice, shorter, fewer, slice_of_qm9])
    runs_table, *_ = build_tables(runs, over_seeds=True)
    notes = [row.note for row in runs_table.rows]
    assert runs_table.number == "runs"
    assert [note.startswith("mean and std over 2 trainings") for note in notes] == [True, False, False, False]
    assert ["of QM9's 100,000 molecules" in note for note in notes] == [False, False, False, True]


@pytest.mark.parametrize("name", ["edm", "edm_plus", "edm_plus_plus"])
def test_egnn_is_told_by_its_size(tmp_path: Path, name: str) -> None:
    sizes = {flag: EGNN_BASELINES[name][flag] for flag in ("nf", "n_layers")}
    run = read_run(write_run(tmp_path / "a", "egnn_dynamics", **sizes))
    assert run.key == name
    assert run.label == paper.QM9_COSTS[name].label
    ours = rows_of(build_tables([run]), "6", name, "ours")
    assert [row[1:] for row in ours] == [[str(sizes["nf"]), str(sizes["n_layers"])]]


def test_another_size_is_not_the_papers_model(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    config = json.loads((folder / "config.json").read_text())
    config["architecture"]["depth"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    egnn = write_run(tmp_path / "b", "egnn_dynamics", nf=32)
    small = write_run(tmp_path / "c", "symdiff_tiny")
    tables = build_tables(read_runs([folder, egnn, small])[0])
    assert not rows_of(tables, "1", "symdiff", "ours")
    assert {row.label for row in tables[0].rows} == {"SymDiff, other sizes", "EDM, n_f 32, n_l 9", "SymDiff, tiny"}


def test_a_run_on_another_base_or_under_another_group_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", "symdiff_tiny")
    config = json.loads((folder / "config.json").read_text())
    for changes, label in (
        ({}, "SymDiff, tiny"), ({"group": "so3", "base": "pca"}, "SymDiff, tiny, pca, so3"),
        ({"base": "pca", "depth": 7}, "SymDiff, tiny, other sizes"),
    ):  # fmt: skip
        record = {**config, "architecture": {**config["architecture"], **changes}}
        (folder / "config.json").write_text(json.dumps(record))
        run = read_run(folder)
        assert (run.key, run.label) == (None if changes else "symdiff_tiny", label)
    for name in ("group", "base"):  # a run of before
        config["architecture"].pop(name)
    (folder / "config.json").write_text(json.dumps(config))
    assert read_run(folder).key == "symdiff_tiny"
    today = read_run(write_run(tmp_path / "b", "symdiff_tiny", group="o3", base="haar"))
    assert today.repeats == read_run(folder).repeats != read_run(write_run(tmp_path / "c", base="pca")).repeats


def test_a_run_from_before_a_flag_is_one_of_today_without_it(tmp_path: Path) -> None:
    usual = {"recipe": "paper", "optimizer": "adamw", "muon_lr": 4.0, "warmup_steps": 0, "decay": 0.0}
    usual |= {"f_theta_lr": 1.0, "sampler": "ancestral", "sampling_steps": None, "flow_alignment": "none"}
    before, today = write_run(tmp_path / "a"), write_run(tmp_path / "b", checkpoint_minutes=3.0, **usual)
    assert read_run(before).repeats == read_run(today).repeats
    for number, other in enumerate(({"optimizer": "muon"}, {"decay": 0.3}, {"flow_alignment": "both"})):
        assert read_run(write_run(tmp_path / str(number), **{**usual, **other})).repeats != read_run(today).repeats


def test_a_run_of_the_release_is_told_from_ours(tmp_path: Path) -> None:
    """As it is downloaded: without config.json, the arguments in a pickle that is read and not run."""
    folder = Path(shutil.copytree(Path(__file__).parents[1] / "files/release_run/dit", tmp_path / "dit"))
    (folder / "metrics.json").write_text(json.dumps({**METRICS, "recognised": "said"}))
    run = read_run(folder)
    assert (run.key, run.label) == (None, "DiT, other sizes")
    assert "of the authors' release" in run.note
    assert "epochs" not in run.note
    ours = write_run(tmp_path / "release", compat="release")
    config = json.loads((ours / "config.json").read_text())
    config["architecture"].update(compat="release", time_scale=1.0)
    (ours / "config.json").write_text(json.dumps(config))
    assert (read_run(ours).key, read_run(ours).label) == (None, "SymDiff, release")


def test_blank_rows_name_their_command(tmp_path: Path) -> None:
    tables = build_tables([read_run(write_run(tmp_path / "a"))])
    missing = {row.key: row for row in tables[1].rows if row.source == "missing"}
    assert set(missing) == set(paper.TABLE_1) - {"symdiff", "geoldm", "mudiff", "end"}
    assert missing["symdiff_star"].command == "./run_qm9.sh symdiff_star"
    commands = {row.key: row.command for table in tables for row in table.rows if row.source == "missing"}
    assert commands["dit_ft"] == "./run_qm9.sh dit_ft --init_from outputs/dit"
    assert all(not cell.text for row in missing.values() for cell in row.cells)


def test_data_evaluation_is_the_data_row(tmp_path: Path) -> None:
    folder = tmp_path / "data_test"
    folder.mkdir()
    record = {"kind": "data", "partition": "test", "atom_stability": 0.99, "molecule_stability": 0.952}
    (folder / "metrics.json").write_text(json.dumps(record))
    assert rows_of(build_tables([read_run(folder)]), "1", "data", "ours") == [["", "99.00", "95.20", "", "", ""]]


def test_runs_come_first_and_what_nothing_fills_is_folded(tmp_path: Path, edm_path: Path) -> None:
    tables = build_tables([read_run(write_run(tmp_path / "a", "symdiff_tiny"))])
    assert [table.number for table in tables] == ["runs", *"12345678"]
    assert [table.number for table in tables if table.has_ours] == ["runs", "5", "6"]
    text = to_markdown(tables)
    assert text.index("## Your runs") < text.index("<summary>Table 1")
    folded = re.findall(r"(?s)<details>\n<summary>Table (\d).*?</details>", text)
    assert folded == list("123478")
    assert "No runs yet" in to_markdown(build_tables([]))
    assert "No runs yet" not in text


def test_a_report_without_runs_has_the_papers_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith("0 runs")
    html = (tmp_path / "out" / "report.html").read_text()
    assert "No runs yet" in html
    assert "Table 8 of the paper" in html
    assert 'href="#runs"' not in html


def faults(latex: str) -> list[str]:
    """What LaTeX would stumble over: braces, environments, dollars, cells a row, bare special characters."""
    found, depth, open_ = [], 0, []
    body = re.sub(r"(?m)^%.*$", "", latex)
    for token in re.findall(r"\\begin\{(\w+)\}|\\end\{(\w+)\}", body):
        if token[0]:
            open_.append(token[0])
        elif not open_ or open_.pop() != token[1]:
            found.append(f"end of {token[1]}")
    plain = re.sub(r"\\[\\{}$&#%_]", "", body)
    for character in plain:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth < 0:
            found.append("braces")
    if depth or open_ or plain.count("$") % 2:
        found.append("unclosed")
    outside = re.sub(r"\$[^$]*\$", "", plain)
    found += [f"bare {character}" for character in "#%_^~" if character in outside.replace("tab:symdiff_", "")]
    for columns, content in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", body, re.DOTALL):
        for line in content.splitlines():
            if line.endswith(r"\\") and len(re.findall(r"(?<!\\)&", line)) != len(columns) - 1:
                found.append(f"cells: {line}")
    return found


def test_latex_is_balanced(tmp_path: Path) -> None:
    latex = to_latex(build_tables([read_run(write_run(tmp_path / "a_b#1&50%{x}$^~\\"))]))
    assert faults(latex) == []
    assert latex.count(r"\begin{table}") == 9
    assert faults(latex.replace(r"\%", "%", 1))  # the check can fail
    assert faults(latex.replace(" & ", " ", 1))
    assert faults(latex.replace(r"\caption{", r"\caption", 1))
    assert escape_latex("a_b") == r"a\_b"


def test_markdown_rows_are_as_wide_as_their_heads(tmp_path: Path) -> None:
    text = to_markdown(build_tables([read_run(write_run(tmp_path / "a|b"))]), [("x", "y")])
    for block in text.split("\n\n"):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines() if line.startswith("|")}
        assert len(widths) <= 1, block


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "runs" / "a<script>", "symdiff_star")
    (tmp_path / "runs" / "empty").mkdir()
    broken = write_run(tmp_path / "runs" / "broken")
    (broken / "metrics.json").write_text("{")
    out = tmp_path / "report"
    assert main([*map(str, sorted((tmp_path / "runs").iterdir())), "--out", str(out)]) == 0
    errors = capsys.readouterr().err.splitlines()
    assert sum("left out" in line for line in errors) == 2
    assert any("metrics.json is damaged" in line for line in errors)
    record = json.loads((out / "report.json").read_text())
    runs, _ = read_runs(sorted((tmp_path / "runs").iterdir()))
    tables = [json.loads(json.dumps(table.record())) for table in build_tables(runs)]
    assert record["tables"] == tables
    altered = copy.deepcopy(tables)
    altered[0]["rows"][0]["cells"][1]["value"] = 1.0
    assert record["tables"] != altered
    assert "<script>" not in (out / "report.html").read_text().split("Molecules in 3D</h2>")[0]


def test_nothing_usable_is_one_line_and_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("python -m symdiff_plugin.report: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.json", "[]"), ("config.json", '{"model": 3}'), ("metrics.json", '{"std": 3}'), ("molecules.xyz", "3\n"),
     ("history.jsonl", "3\n"), ("metrics.json", b"\xff"), ("history.jsonl", '{"epoch": "first"}\n'),
     ("train_loss.jsonl", '{"step": 1}\n'), ("config.json", '{"model": "symdiff", "args": []}'),
     ("config.json", '{"model": "symdiff", "args": {"n_epochs": "many"}}'),
     ("config.json", '{"model": "symdiff", "args": {}, "molecules": {"train": "all"}}'),
     ("config.json", '{"model": "symdiff", "args": {}, "parameters": [3]}'),
     ("config.json", '{"model": "symdiff", "args": {}, "versions": {"commit": 7}}')],
)  # fmt: skip
def test_a_damaged_file_is_one_line(tmp_path: Path, name: str, content: str | bytes) -> None:
    folder = write_run(tmp_path / "a")
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ReportError, match=rf"{name}.*(again|damaged)") as caught:
        read_run(folder)
    assert "\n" not in str(caught.value)


def test_training_hours_are_the_devices_and_end_where_they_are_not_known(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    rows = [{"epoch": i, "train_seconds": 3600.0, "train_cpu_seconds": 1800.0 * (i + 1)} for i in range(3)]
    del rows[2]["train_cpu_seconds"]
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_run(folder).training_hours == [1.0, 2.0, 3.0]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "device": "cpu, 1 threads"}))
    assert read_run(folder).training_hours == [0.5, 1.5, None]


def test_statistics_of_water(tmp_path: Path) -> None:
    found = count(read_run(write_run(tmp_path / "a")).molecules)
    assert found.sizes == {3: 3}
    assert found.types == {"O": 3, "H": 6}
    assert list(found.bonds) == ["H-O"]
    assert sorted(found.bonds["H-O"])[0] == pytest.approx(0.96)
    assert total_variation(found.types, found.types) == 0
    assert total_variation(found.types, type(found.types)({"O": 1, "H": 1})) == pytest.approx(1 / 6)


def test_another_sampler_than_edms_is_said_and_not_pooled(tmp_path: Path) -> None:
    own = {"sampler": "ancestral", "sampling_steps": 1000, "step_grid": "time", "stochasticity": 1.0}
    fast = {"sampler": "sde-dpm++", "sampling_steps": 50, "step_grid": "logsnr", "stochasticity": 1.0}
    ways = {"before": {}, "own": own, "fast": fast, "grid": {**fast, "step_grid": "karras"}}
    found = {name: read_run(write_run(tmp_path / name, metrics={**METRICS, **way})) for name, way in ways.items()}
    assert "10,000 samples by sde-dpm++ in 50 calls, " in found["fast"].note
    assert all("10,000 samples, " in found[name].note for name in ("before", "own"))
    assert found["before"].repeats == found["own"].repeats  # metrics.json had no sampler then
    assert len({found[name].repeats for name in ("own", "fast", "grid")}) == 3

"""The benchmark's command line on two molecules, and what its parts say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from symdiff_plugin.benchmark import floor, measure
from symdiff_plugin.benchmark.__main__ import main
from symdiff_plugin.benchmark.contenders import Contender
from symdiff_plugin.benchmark.table import markdown
from symdiff_plugin.presets import PRESETS


@pytest.fixture(autouse=True, scope="module")
def _once() -> Iterator[None]:
    """Every time is measured once: what is tested is that it is there, not how well it is known."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "SECONDS_A_ROUND", 0.0)
        for name in ("gemm_peak", "bandwidth"):
            patch.setattr(floor, name, partial(getattr(floor, name), repeats=1))
        yield


@pytest.mark.parametrize("text", ["symdiff", "dit:bf16", "symdiff_tiny:bf16:compile", "symdiff:compile", "edm_plus"])
def test_contenders_print_as_they_are_written(text: str) -> None:
    assert str(Contender.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [("symdif", "unknown model"), ("symdiff:fp8", "unknown switch 'fp8'"), ("edm:bf16", "takes no switches")],
)
def test_wrong_contenders_are_refused_in_one_line(text: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--models", text])
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_flops_are_those_of_the_matrix_products() -> None:
    a, b = torch.randn(3, 5), torch.randn(5, 7, requires_grad=True)
    assert floor.flops(lambda: (a @ b).sum().backward()) == 2 * (2 * 3 * 5 * 7)  # a needs no gradient


@pytest.mark.edm
def test_missing_data_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--models", "symdiff_tiny", "--datadir", str(tmp_path / "none"), "--out", str(tmp_path)])
    assert stopped.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "make it with" in last


@pytest.fixture(scope="module")
def record(edm_path: Path, qm9_slice: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    out = tmp_path_factory.mktemp("benchmark")
    models = ["edm", "symdiff_tiny", "symdiff_tiny:bf16"]
    workloads = ["--workloads", "qm9_train", "qm9_call"]
    flags = ["--molecules", "2", "--rounds", "1", "--datadir", str(qm9_slice), "--out", str(out)]
    assert main(["--models", *models, *workloads, *flags]) == 0
    record = json.loads((out / "benchmark.json").read_text())
    assert (out / "benchmark.md").read_text() == markdown(record)
    return record


def test_every_model_has_its_turn_at_every_workload(record: dict) -> None:
    rows = {(row["workload"], row["contender"]): row for row in record["results"]}
    assert len(rows) == len(record["results"]) == 6
    for row in rows.values():
        assert row["molecules"] == 2
        assert row["atoms"] > 2
        assert row["rounds"][0] > 0
        assert row["floor"] > 0
        assert row["memory"] > 0
        assert row["flops"] > 0
        assert len(row["ratios"]) == 1
    for workload in ("qm9_train", "qm9_call"):
        egnn, ours, low = (rows[workload, name] for name in ("edm", "symdiff_tiny", "symdiff_tiny:bf16"))
        assert egnn["ratios"] == [1.0]
        assert egnn["parameters"] > 5e6 > ours["parameters"] > 1e6
        assert egnn["memory"] > ours["memory"]
        assert ours["flops"] == low["flops"] < egnn["flops"]
    assert rows["qm9_call", "symdiff_tiny"]["length"] == 29 > rows["qm9_train", "symdiff_tiny"]["length"]
    assert rows["qm9_call", "symdiff_tiny"]["synchronisations"] == {}


def test_the_table_has_the_papers_figures_beside(record: dict) -> None:
    text = markdown(record)
    row = next(line for line in text.splitlines() if line.startswith("| EDM |"))
    assert row.endswith("| 5.4M | 88.8 | 0.27 | 14 |")
    row = next(line for line in text.splitlines() if line.startswith(f"| {PRESETS['symdiff_tiny'].label} |"))
    assert row.endswith("| - | - | - | - |")
    assert record["command"] in text
    assert "In the layout of Table 7" not in text


def test_memory_does_not_grow_with_pairs(record: dict) -> None:
    assert len(record["scaling"]) == 2
    for row in record["scaling"]:
        assert 1 < row["memory_ratio"] < 2.3

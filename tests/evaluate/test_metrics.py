"""Summaries, diverged molecules and the files of an evaluation; all that needs no EDM."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from molecules import MOLECULES, qm9_batch, randomise
from torch import nn

from symdiff_plugin import build_dynamics
from symdiff_plugin.common.files import write_json
from symdiff_plugin.evaluate import evaluation as report
from symdiff_plugin.evaluate.metrics import Verdict, summarise
from symdiff_plugin.evaluate.repetitions import summary_of_repetitions
from symdiff_plugin.evaluate.sampling import DivergenceGuard, guarded
from symdiff_plugin.molecules.molecule import Molecule, read_xyz

REAL = [Molecule(tuple(m["symbols"]), np.array(m["positions"])) for m in MOLECULES]
NOWHERE = Molecule(("C", "H", "H"), np.full((3, 3), np.nan))
SAMPLES = [REAL[0], REAL[1], REAL[1], REAL[2], NOWHERE]
VERDICTS = [
    Verdict(stable_atoms=3, stable=True, smiles="A", pieces=1, finite=True),
    Verdict(stable_atoms=4, stable=False, smiles="B", pieces=1, finite=True),
    Verdict(stable_atoms=0, stable=False, smiles="B", pieces=3, finite=True),
    Verdict(stable_atoms=5, stable=False, smiles=None, pieces=1, finite=True),
    Verdict(stable_atoms=0, stable=False, smiles="C", pieces=3, finite=False),
]


def test_fractions_have_the_denominators_of_the_paper():
    assert [len(m) for m in SAMPLES] == [3, 5, 5, 8, 3]
    assert summarise(SAMPLES, VERDICTS, {"A"}) == pytest.approx(
        {
            "atom_stability": 12 / 24,
            "molecule_stability": 1 / 5,
            "validity": 4 / 5,
            "uniqueness": 3 / 4,  # of the valid
            "novelty": 2 / 3,  # of the unique
            "validity_x_uniqueness": 3 / 5,
            "connected": 3 / 5,
            "valid_connected": 2 / 5,
            "non_finite": 1 / 5,
        }
    )


def test_without_a_valid_molecule_or_a_training_set():
    lost = [Verdict(0, False, None, 2, True)] * 5
    found = summarise(SAMPLES, lost, {"A"})
    assert (found["validity"], found["uniqueness"], found["novelty"]) == (0, 0, 0)
    assert summarise(SAMPLES, VERDICTS, None)["novelty"] is None


def test_bonds_are_no_part_of_a_verdicts_value():
    plain = VERDICTS[0]
    assert (plain.bonds.shape, plain.bonds.dtype) == ((0, 3), np.int16)
    bonded = replace(plain, bonds=np.ones((2, 3), dtype=np.int16))
    assert plain == bonded
    assert repr(plain) == repr(bonded)


def test_words_say_the_worst_first():
    assert [verdict.words for verdict in VERDICTS] == ["stable", "valid", "in pieces", "not valid", "not finite"]


class Diverges(nn.Module):
    """A real dynamics that, from its second call on, spoils molecule 1 with ``value``."""

    def __init__(self, dynamics, value):
        super().__init__()
        self.inner, self.value, self.calls = dynamics, value, 0

    def _forward(self, t, xh, node_mask, edge_mask, context):
        out = self.inner._forward(t, xh, node_mask, edge_mask, context)
        self.calls += 1
        if self.calls == 2:
            out[1, 0, 0] = self.value
        return out


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e30])
def test_a_diverged_molecule_is_noted_and_the_others_are_left_alone(value):
    t, xh, mask = qm9_batch(3, dtype=torch.float32)
    dynamics = randomise(build_dynamics("symdiff_tiny", in_node_nf=6, depth=1, enc_depth=1))
    model = nn.Module()
    model.dynamics = Diverges(dynamics, value)
    ticks = []
    with guarded(model, lambda: ticks.append(1)) as watch, torch.no_grad():
        for call in range(3):
            torch.manual_seed(call)
            out = model.dynamics._forward(t, xh, mask, None, None)
            torch.manual_seed(call)
            wanted = dynamics._forward(t, xh, mask, None, None)
            assert torch.equal(out[[0, 2]], wanted[[0, 2]])
            assert torch.equal(out[1], wanted[1] if call == 0 else torch.zeros_like(wanted[1]))
            assert watch.diverged.tolist() == [False, call > 0, False]
    assert len(ticks) == 3
    assert isinstance(model.dynamics, Diverges)


def test_the_watch_is_lifted_after_an_error():
    model = nn.Module()
    model.dynamics = Diverges(nn.Identity(), 0.0)
    with guarded(model, lambda: None) as watch:
        assert isinstance(watch, DivergenceGuard)
        assert model.dynamics is watch
    with pytest.raises(TypeError), guarded(model, lambda: None):
        model.dynamics._forward("too few arguments")
    assert isinstance(model.dynamics, Diverges)


class Prepared(nn.Module):
    """A dynamics with something to do for the length of a sampling run, which keeps the times that it is given."""

    def __init__(self):
        super().__init__()
        self.inside, self.times = False, []

    @contextlib.contextmanager
    def sampling(self):
        self.inside = True
        yield
        self.inside = False

    def _forward(self, t, xh, node_mask, edge_mask, context):
        assert self.inside
        self.times.append(t)
        return xh


def test_the_watched_dynamics_is_told_of_a_sampling_run_and_given_the_times():
    model, inner = nn.Module(), Prepared()
    model.dynamics = inner
    _, xh, mask = qm9_batch(3, dtype=torch.float32)
    times = [torch.full((3, 1), 0.5), torch.tensor(0.25), 0.125]
    with guarded(model, lambda: None):
        with model.dynamics.sampling():
            for t in times:
                model.dynamics._forward(t, xh, mask, None, None)
        assert not inner.inside
    assert [given is t for given, t in zip(inner.times, times, strict=True)] == [True] * 3
    model.dynamics = Diverges(nn.Identity(), 0.0)  # as EDM's: without such a method
    with guarded(model, lambda: None), model.dynamics.sampling():
        pass


def evaluation(molecules, verdicts, **more) -> report.Evaluation:
    record = {"n_samples": len(molecules), "seconds_per_sample": 0.5, **more, **summarise(molecules, verdicts)}
    return report.Evaluation(record, list(molecules), list(verdicts))


def test_the_files_of_an_evaluation(tmp_path):
    folder = tmp_path / "new" / "run"
    nll = {"test_nll": float("nan"), "test_nll_standard_error": None, "test_nll_molecules": 7}
    written = report.write_evaluation(evaluation(SAMPLES, VERDICTS, **nll), folder)
    files = ["metrics.json", "molecules.sdf", "molecules.xyz", "samples.png", "xyz"]
    assert sorted(path.name for path in folder.iterdir()) == files
    assert {path.name for path in written} == {path.name for path in folder.iterdir()}
    metrics = json.loads((folder / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert metrics["test_nll"] is None  # JSON has no NaN
    assert metrics["atom_stability"] == 0.5
    molecules, comments = read_xyz(folder / "molecules.xyz")
    assert [m.symbols for m in molecules] == [m.symbols for m in SAMPLES]
    assert comments[0] == "stable; largest fragment A"
    assert sorted(path.name for path in (folder / "xyz").iterdir()) == [f"{i}.xyz" for i in range(5)]
    np.testing.assert_allclose(read_xyz(folder / "xyz" / "3.xyz")[0][0].positions, REAL[2].positions, atol=1e-8)
    picture = imread(folder / "samples.png")
    assert (picture[..., :3].min(axis=2) < 0.5).mean() > 0.002


def test_a_second_evaluation_replaces_the_first_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "PICTURED", 2)
    report.write_evaluation(evaluation(SAMPLES, VERDICTS), tmp_path)
    report.write_evaluation(evaluation(SAMPLES[:2], VERDICTS[:2]), tmp_path)
    assert sorted(path.name for path in (tmp_path / "xyz").iterdir()) == ["0.xyz", "1.xyz"]
    assert len(read_xyz(tmp_path / "molecules.xyz")[0]) == 2
    many = 1001
    report.write_evaluation(evaluation(SAMPLES[:1] * many, VERDICTS[:1] * many), tmp_path)
    assert not (tmp_path / "xyz").exists()  # single files of other samples would mislead
    assert len(read_xyz(tmp_path / "molecules.xyz")[0]) == many
    files = ["metrics.json", "molecules.sdf", "molecules.xyz", "samples.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files


def test_a_failure_half_way_leaves_the_first_evaluation_whole(tmp_path):
    report.write_evaluation(evaluation(SAMPLES, VERDICTS), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    spoilt = evaluation(SAMPLES[:2], VERDICTS[:2])
    spoilt.record["seed"] = object()  # metrics.json, written last, cannot be
    with pytest.raises(TypeError):
        report.write_evaluation(spoilt, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_table_shows_what_there_is():
    text = report.metrics_table(evaluation(SAMPLES, VERDICTS).record)
    assert "NLL" not in text
    assert "Novelty" not in text
    nll = {"val_nll": -12.345, "val_nll_standard_error": 0.25, "val_nll_molecules": 1234}
    text = report.metrics_table(evaluation(SAMPLES, VERDICTS, **nll).record)
    assert "-12.35 +- 0.25 nats (1,234 molecules)" in text or "-12.34 +- 0.25 nats (1,234 molecules)" in text
    assert " 50.00%" in text


def test_the_table_of_several_runs_shows_their_deviation():
    record = {**evaluation(SAMPLES, VERDICTS).record, "test_nll": -1.0, "test_nll_molecules": 7, "n_runs": 3}
    one = report.metrics_table({**record, "test_nll_standard_error": 0.5})
    several = report.metrics_table(
        {**record, "test_nll_standard_error": 0.5, "std": {"test_nll": 0.25, "validity": 0.0125}}
    )
    assert "-1.00 +- 0.50 nats" in one
    assert "-1.00 +- 0.25 nats" in several
    assert "80.00% +- 1.25%" in several
    assert "+- 1.25%" not in one
    assert "5 samples a run, 3 runs" in several
    assert "not a number" in report.metrics_table({**record, "test_nll": None})  # as metrics.json has NaN


def test_the_summary_is_numpys_mean_and_sample_deviation():
    random = np.random.RandomState(0)
    values = {name: random.rand(4) for name in ("validity", "novelty", "test_nll")}
    records = [
        {"seed": 5 + i, "n_samples": 10, "batch_size_auto": True, "novel": None, "settings": {"lr": 0.5}}
        | {name: float(column[i]) for name, column in values.items()}
        for i in range(4)
    ]
    records[2]["novelty"] = None
    found = summary_of_repetitions(records)
    for name in ("validity", "test_nll"):
        assert found[name] == pytest.approx(np.mean(values[name]), rel=1e-14)
        assert found["std"][name] == pytest.approx(np.std(values[name], ddof=1), rel=1e-12)
    assert found["novelty"] is found["std"]["novelty"] is found["novel"] is None
    assert set(found["std"]) == {"validity", "test_nll", "novelty"}  # settings and counts have no deviation
    assert (found["n_runs"], found["runs"], found["seed"], found["n_samples"]) == (4, records, 5, 10)
    one = summary_of_repetitions(records[:1])
    assert one == {**records[0], "n_runs": 1, "runs": records[:1]}


def test_json_that_cannot_be_written_leaves_the_old_one(tmp_path):
    write_json(tmp_path / "m.json", {"a": [1, (float("inf"), {"b": float("nan")})]})
    assert json.loads((tmp_path / "m.json").read_text()) == {"a": [1, [None, {"b": None}]]}
    before = (tmp_path / "m.json").read_bytes()
    with pytest.raises(TypeError):
        write_json(tmp_path / "m.json", {"a": object()})
    assert (tmp_path / "m.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["m.json"]


def test_a_run_that_is_not_there_is_one_line(tmp_path):
    command = [sys.executable, "-m", "symdiff_plugin.evaluate", str(tmp_path / "none")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == (
        f"python -m symdiff_plugin.evaluate: {tmp_path / 'none'} is not there: "
        "give the folder of a run, such as outputs/symdiff\n"
    )


def test_metrics_within_metrics_are_averaged_too():
    """PoseBusters' checks have their means and deviations where they are, and names and counts stay as they are."""

    def record(passes: float, angles: float | None) -> dict:
        busted = {"passes_all": passes, "checks": {"bond_angles": angles}, "n_molecules": 7, "config": "mol"}
        return {"validity": passes, "posebusters": busted, "settings": {"some": 0.5}}

    found = summary_of_repetitions([record(0.5, 0.25), record(0.75, 0.5)])
    assert found["posebusters"] == {
        "passes_all": 0.625, "checks": {"bond_angles": 0.375}, "n_molecules": 7, "config": "mol",
    }  # fmt: skip
    assert found["std"]["posebusters"]["passes_all"] == pytest.approx(0.125 * 2**0.5)
    assert found["std"]["posebusters"]["checks"]["bond_angles"] == pytest.approx(0.125 * 2**0.5)
    assert "settings" not in found["std"]
    assert (
        summary_of_repetitions([record(0.5, 0.25), record(0.5, None)])["posebusters"]["checks"]["bond_angles"] is None
    )
    assert "std" not in summary_of_repetitions([record(0.5, 0.25)])

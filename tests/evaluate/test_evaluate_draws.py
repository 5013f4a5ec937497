"""The command's ``--nll_draws``, on tiny runs."""

from __future__ import annotations

import json
import math

import pytest

from symdiff_plugin.evaluate.__main__ import main

pytestmark = pytest.mark.edm


def untimed(record: dict) -> dict:
    """A summary without what a clock says."""
    runs = [{**one, "seconds_per_sample": 0} for one in record["runs"]]
    return {**record, "seconds_per_sample": 0, "runs": runs}


def test_a_run_is_evaluated_with_several_draws(copied, capsys):
    def evaluated(*flags: str) -> tuple[dict, str]:
        assert main([str(copied), "--n_samples", "2", "--batch_size", "15", "--nll_molecules", "60", *flags]) == 0
        return json.loads((copied / "metrics.json").read_text()), capsys.readouterr().out

    plain, text = evaluated()
    assert "nll_draws" not in plain
    assert "draws of R" not in text
    one, _ = evaluated("--nll_draws", "1")
    assert untimed(one) == untimed(plain)
    several, text = evaluated("--nll_draws", "3", "--partition", "test", "val")
    assert several["nll_draws"] == 3
    assert f"60 molecules, 3 draws of R a step: {several['test_nll_gain']:.2f} below one's" in text
    for partition in ("test", "val"):
        assert several[f"{partition}_nll_molecules"] == 60
        assert several[f"{partition}_nll_gain"] > 0
        assert several[f"{partition}_nll_gain_standard_error"] > 0
    spread = math.hypot(several["test_nll_standard_error"], plain["test_nll_standard_error"])
    assert abs(several["test_nll"] + several["test_nll_gain"] - plain["test_nll"]) < 5 * spread
    assert several["atom_stability"] == plain["atom_stability"]  # the samples are the same


@pytest.mark.parametrize("changes", [{"conditioning": ["alpha"], "context_node_nf": 1}, {"model": "egnn_dynamics"}])
def test_conditional_models_and_edms_own_take_several_draws(changes, copied):
    config = json.loads((copied / "config.json").read_text())
    config["args"].update(changes)
    (copied / "config.json").write_text(json.dumps(config))
    found = {}
    for draws in (1, 2):
        flags = ["--untrained", "--n_samples", "2", "--nll_molecules", "8", "--batch_size", "8"]
        assert main([str(copied), *flags, "--nll_draws", str(draws)]) == 0
        found[draws] = json.loads((copied / "metrics_untrained.json").read_text())
    if "model" in changes:  # deterministic, so that one draw and two see the same noise
        assert found[2]["test_nll"] == pytest.approx(found[1]["test_nll"], rel=1e-5)
        assert abs(found[2]["test_nll_gain"]) < 1e-6 * found[1]["test_nll"]
    else:
        assert math.isfinite(found[2]["test_nll"])

"""What run_qm9.sh passes to main_qm9.py for each name, read by main_qm9.py's own parser."""

from __future__ import annotations

import argparse
import ast
from pathlib import Path

import pytest
import torch

from symdiff_plugin.presets import EGNN_BASELINES, EGNN_GEOM_BASELINES, PRESETS, command_line
from symdiff_plugin.training.arguments import _add_flags, parse_args
from symdiff_plugin.training.flag_table import FLAGS, first_sigma

pytestmark = pytest.mark.edm


def edms_parser(edm: Path, script: str = "main_qm9.py") -> argparse.ArgumentParser:
    """The parser of a training script: the statements that build it, without the training that follows."""
    building = [
        node
        for node in ast.parse((edm / script).read_text()).body
        if ast.unparse(node).startswith(("parser = ", "parser.add_argument("))
    ]
    assert len(building) > 40
    names = {"argparse": argparse}
    exec(compile(ast.Module(building, []), script, "exec"), names)
    return names["parser"]


@pytest.mark.parametrize("name", [*PRESETS, *EGNN_BASELINES])
def test_the_flags_of_every_name_parse(name: str, edm_path: Path, qm9_slice: Path, tmp_path: Path) -> None:
    words = [*command_line(name), "--no_wandb", "--exp_name", name, "--resume", "auto", "--datadir", str(qm9_slice)]
    if name in PRESETS and PRESETS[name].starts_from:
        torch.save({"dynamics.weight": torch.zeros(1)}, tmp_path / "weights.npy")
        words += ["--init_from", str(tmp_path / "weights.npy")]
    args = parse_args(edms_parser(edm_path), words)
    if name in PRESETS:
        wanted = {**vars(PRESETS[name].architecture), **PRESETS[name].training.flags()}
    else:
        wanted = EGNN_BASELINES[name]
    assert {field: getattr(args, field) for field in wanted} == wanted


@pytest.mark.parametrize("name", ["symdiff", "symdiff_tiny", *EGNN_GEOM_BASELINES])
def test_the_flags_for_geom_parse(name: str, edm_path: Path, tmp_path: Path) -> None:
    (tmp_path / "data.npy").touch()
    words = [*command_line(name, "geom"), "--no_wandb", "--exp_name", name, "--data_file", str(tmp_path / "data.npy")]
    args = parse_args(edms_parser(edm_path, "main_geom_drugs.py"), words)
    preset = PRESETS.get(name)
    wanted = EGNN_GEOM_BASELINES[name] if preset is None else preset.training_flags("geom")
    assert {field: getattr(args, field) for field in wanted} == wanted


@pytest.mark.parametrize("script", ["main_qm9.py", "main_geom_drugs.py"])
def test_the_table_knows_every_flag_and_accepts_every_default(script: str, edm_path: Path) -> None:
    parser = edms_parser(edm_path, script)
    _add_flags(parser)
    defaults = {action.dest: action.default for action in parser._actions if action.dest != "help"}
    assert set(defaults) - set(FLAGS) == set()
    assert [name for name, value in defaults.items() if value != "==SUPPRESS==" and FLAGS[name].kind.fault(value)] == []
    other = {"filter_molecule_size", "sequential", "data_file", "split", "split_seed"}
    qm9s = {"datadir", "brute_force", "actnorm"}
    assert set(FLAGS) - set(defaults) == (other if script == "main_qm9.py" else qm9s)


def test_the_noise_at_the_start_is_edms(edm_path: Path) -> None:
    """What is refused is what EDM's own check refuses."""
    from symdiff_plugin.edm import import_edm

    schedule = import_edm("equivariant_diffusion.en_diffusion").PredefinedNoiseSchedule
    for name, steps, precision in (("cosine", 9, 1e-5), ("cosine", 1000, 1e-4), ("polynomial_2", 7, 1e-3),
                                   ("polynomial_3.5", 500, 0.01)):  # fmt: skip
        gamma = schedule(name, steps, precision).gamma[0]
        assert first_sigma(name, steps, precision) == pytest.approx(float(gamma.sigmoid().sqrt()), rel=1e-4)

"""What run_qm9.sh passes to main_qm9.py for each name, read by main_qm9.py's own parser."""

from __future__ import annotations

import argparse
import ast
from pathlib import Path

import pytest
import torch

from symdiff_plugin.arguments import parse_args
from symdiff_plugin.presets import EGNN_BASELINES, EGNN_GEOM_BASELINES, PRESETS, command_line

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
